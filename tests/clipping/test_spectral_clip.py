"""Spectral clipping against numpy's decomposition: hard, soft, with limits that follow, in every shape and size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from tests.clipping.strategies import PARAMS, flat64, identical, quick_jit, tree
from tests.clipping.test_parity import STEPS, play
from tests.untyped import on_trees, untyped

from cliffs import clipping
from cliffs.clipping import EmaLimit, QuantileLimit, clip_by_spectral_norm, read_telemetry, with_telemetry

VARIANTS = {
    "soft": lambda limit, **kwargs: clip_by_spectral_norm(limit, "soft", **kwargs),
    "hard, average": lambda limit, **kwargs: clip_by_spectral_norm(EmaLimit(limit, 0.5), **kwargs),
    "hard, quantile": lambda limit, **kwargs: clip_by_spectral_norm(QuantileLimit(0.5, limit), **kwargs),
    "soft, average": lambda limit, **kwargs: clip_by_spectral_norm(EmaLimit(limit, 0.5), "soft", **kwargs),
    "soft, quantile": lambda limit, **kwargs: clip_by_spectral_norm(QuantileLimit(0.5, limit), "soft", **kwargs),
}


def matrices(shape=(5, 4), steps=STEPS):
    """Matrices whose size drifts, with spikes of rank one."""
    rng = np.random.default_rng(0)
    size = np.exp(np.cumsum(rng.normal(0, 0.02, steps)))[:, None, None]
    left, right = (rng.normal(size=(steps, *s)) for s in ((shape[0], 1), (1, shape[1])))
    spikes = np.where(rng.random(steps) < 0.05, 10.0, 0.0)[:, None, None] * left * right
    return size * (rng.normal(size=(steps, *shape)) + spikes)


def mapped(g, function):
    u, s, vh = np.linalg.svd(np.asarray(g, complex if np.iscomplexobj(g) else float), full_matrices=False)
    return (u * function(s)) @ vh


@pytest.mark.parametrize("shape", [(5, 4), (3, 7), (4, 4)])
def test_parity_hard_with_the_decomposition_of_numpy(x64, shape):
    grads = matrices(shape)
    got = play(clip_by_spectral_norm(3.0), grads)
    for g, out in zip(grads, got):
        want = mapped(g, lambda s: np.minimum(s, 3.0))
        np.testing.assert_allclose(out, want, rtol=1e-10, atol=1e-12 * float(np.linalg.norm(g, 2)))
    tops = np.linalg.norm(grads, 2, axis=(1, 2))
    assert 100 < (tops > 3.0).sum() < len(tops)


def test_parity_hard_of_large_matrices_in_float32():
    rng = np.random.default_rng(1)
    for shape in ((128, 512), (300, 70), (200, 200)):
        g = rng.normal(size=shape) / np.sqrt(shape[0]) + 100 * rng.normal(size=(shape[0], 1)) / shape[0] ** 0.5 @ (
            rng.normal(size=(1, shape[1])) / shape[1] ** 0.5
        )
        g = np.float32(g)
        rule = clip_by_spectral_norm(1.0)
        out = np.asarray(rule.update(jnp.asarray(g), rule.init(g))[0], float)
        error = np.linalg.norm(out - mapped(g.astype(float), lambda s: np.minimum(s, 1.0)), 2)
        assert error < 1e-6 * np.linalg.norm(g.astype(float), 2)
        assert np.linalg.norm(out, 2) < 1 + 2e-6


def left_behind(g, limit, iterations):
    """The factors that these iterations of Newton and Schulz leave: `q -> q (3 - q^2) / 2` from `r`."""
    s = np.linalg.svd(g, compute_uv=False)
    gram = g @ g.T if g.shape[0] <= g.shape[1] else g.T @ g
    bound = min(np.abs(gram).sum(1).max(), np.linalg.norm(gram))
    r = q = np.sqrt((limit**2 + s**2) / (limit**2 + bound))
    for _ in range(iterations):
        q = q * (3 - q**2) / 2
    return r, q


@pytest.mark.parametrize("iterations", [10, 20])
@pytest.mark.parametrize("limit", [0.3, 3.0])
def test_parity_soft_with_the_decomposition_of_numpy(x64, limit, iterations):
    """What the iterations reach is known in advance: the formula to 1e-9 for r >= 0.1, and less than it below."""
    grads = matrices()
    got = play(clip_by_spectral_norm(limit, "soft", iterations), grads)
    far = 0
    for g, out in zip(grads, got):
        r, q = left_behind(g, limit, iterations)
        want = mapped(g, lambda s, q=q: q * s / np.sqrt(1 + (s / limit) ** 2))
        np.testing.assert_allclose(out, want, rtol=1e-9, atol=1e-11 * limit)
        assert (1 - q[r >= 0.1] < 1e-9).all()
        assert (q <= 1 + 1e-12).all()
        far += (r < 0.05).any()
    assert limit > 1 or far > 20


def test_parity_soft_with_the_iteration_as_it_was_published(x64):
    grads, c = matrices((4, 6)), 2.0
    got = play(clip_by_spectral_norm(c, "soft"), grads)
    for x, out in zip(grads, got):
        gram, identity = x @ x.T, np.eye(4)
        alpha = 1 + min(np.abs(gram).sum(1).max(), np.linalg.norm(gram)) / c**2
        y, z = (identity + gram / c**2) / alpha, identity
        for _ in range(10):
            t = (3 * identity - z @ y) / 2
            y, z = y @ t, t @ z
        np.testing.assert_allclose(out, z / np.sqrt(alpha) @ x, rtol=1e-10, atol=1e-12)


def test_parity_soft_of_large_matrices_in_float32():
    rng = np.random.default_rng(2)
    for shape in ((64, 256), (200, 50)):
        g = np.float32(rng.normal(size=shape) / np.sqrt(max(shape)))
        rule = clip_by_spectral_norm(0.5, "soft")
        out = np.asarray(rule.update(jnp.asarray(g), rule.init(g))[0], float)
        want = mapped(g.astype(float), lambda s: s / np.sqrt(1 + (s / 0.5) ** 2))
        assert np.linalg.norm(out - want, 2) < 2e-6 * 0.5


@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("kind", ["average", "quantile"])
def test_parity_limits_that_follow_with_the_formulas(x64, mode, kind):
    grads = matrices()
    limit = EmaLimit(1.2, 0.9) if kind == "average" else QuantileLimit(0.7, 0.1)
    got = play(clip_by_spectral_norm(limit, mode), grads)
    average, c, clipped = 0.0, None, 0
    for t, (g, out) in enumerate(zip(grads, got)):
        top = float(np.linalg.norm(g, 2))
        if kind == "average":
            tau = 1.2 * average / (1 - 0.9**t) if t else np.inf
            average = 0.9 * average + 0.1 * top
        else:
            tau = np.inf if c is None else c
            c = top if c is None else c * np.exp(-0.1 * ((top <= c) - 0.7))
        clipped += top > tau
        if mode == "hard":
            want = mapped(g, lambda s, tau=tau: np.minimum(s, tau))
        else:
            q = left_behind(g, tau, 10)[1] if t else 1.0
            want = mapped(g, lambda s, q=q, tau=tau: q * s / np.sqrt(1 + (s / tau) ** 2))
        np.testing.assert_allclose(out, want, rtol=1e-9, atol=1e-10 * top)
    assert 50 < clipped < 700


def test_analytic_the_quantile_limit_has_its_share_below():
    grads = matrices(steps=3000)
    rule = clip_by_spectral_norm(QuantileLimit(0.8, 0.05))

    def body(state, g):
        limit = state.limits[""][0]
        _, state = rule.update(g, state)
        return state, limit

    _, limits = jax.lax.scan(body, rule.init(jnp.zeros((5, 4))), jnp.asarray(grads, jnp.float32))
    below = np.linalg.norm(grads, 2, axis=(1, 2))[500:] <= np.asarray(limits)[500:]
    np.testing.assert_allclose(below.mean(), 0.8, atol=0.02)


@pytest.mark.parametrize("spike", [1e3, 1e7, 1e30])
def test_property_the_limit_holds_whatever_the_spike(spike):
    """Of rank one in float32: what rounding leaves of the other directions lies far above the limit."""
    rng = np.random.default_rng(3)
    g = (spike * rng.normal(size=(40, 1)) * rng.normal(size=(1, 30))).astype(np.float32)
    g[0, 0] *= np.float32(1 + 1e-6)
    for mode in ("hard", "soft"):
        rule = with_telemetry(clip_by_spectral_norm(1.0, mode))
        out, state = jax.jit(rule.update)(jnp.asarray(g), rule.init(g))
        size = np.linalg.norm(np.asarray(out, float), 2)
        assert 1 - 1e-3 < size < 1 + 1e-5
        np.testing.assert_allclose(read_telemetry(state)["norm_after"], np.linalg.norm(out), rtol=1e-5)


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_property_a_singular_value_beyond_the_largest_float_leaves_the_average_a_number(mode):
    """Entries of 3e38 are floats, the singular value 1.2e39 of the matrix is none: it counts as the largest."""
    rule = clip_by_spectral_norm(EmaLimit(decay=0.5), mode)
    update, state = jax.jit(rule.update), rule.init(jnp.zeros((4, 4)))
    for size in (1.0, 3e38, 3e38, *[1.0] * 300):
        out, state = update(jnp.full((4, 4), size), state)
        assert np.isfinite(out).all()
    # Values 4 from then on: the average has forgotten the two.
    np.testing.assert_allclose(untyped(state).limits[""][0], 4.0, rtol=1e-5)


def test_analytic_shapes_vectors_and_stacks():
    rng = np.random.default_rng(4)
    grads = {
        "kernel": rng.normal(size=(3, 2, 4, 5)),
        "layers": rng.normal(size=(3, 4, 5)),
        "bias": rng.normal(size=7),
        "row": rng.normal(size=(1, 6)),
        "scale": np.array(-3.0),
    }
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)
    for mode, f in (("hard", lambda s: np.minimum(s, 1.5)), ("soft", lambda s: s / np.sqrt(1 + (s / 1.5) ** 2))):
        rule = clip_by_spectral_norm(1.5, untyped(mode), 30, lambda path: path == "layers")
        got, _ = rule.update(grads, rule.init(grads))
        want = {
            "kernel": mapped(grads["kernel"].reshape(24, 5), f).reshape(3, 2, 4, 5),
            "layers": np.stack([mapped(x, f) for x in grads["layers"]]),
            **{
                name: mapped(grads[name].reshape(1, -1), f).reshape(grads[name].shape)
                for name in ("bias", "row", "scale")
            },
        }
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, want)


@pytest.mark.parametrize("limit", [EmaLimit(0.8, 0.5), QuantileLimit(0.5, 0.3)])
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_invariance_a_stack_is_clipped_as_its_matrices_are(mode, limit):
    rng = np.random.default_rng(5)
    history = jnp.asarray(rng.normal(size=(4, 3, 5, 6)), jnp.float32)
    rule = on_trees(clip_by_spectral_norm(limit, mode, stacked=lambda path: True))
    state, states = rule.init(history[0]), [rule.init(history[0, i]) for i in range(3)]
    for step in history:
        out, state = rule.update(step, state)
        for i in range(3):
            alone, states[i] = rule.update(step[i], states[i])
            np.testing.assert_allclose(out[i], alone, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(state.limits[""][i], states[i].limits[""], rtol=1e-5)


@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (3, 3)])
def test_parity_complex_matrices(x64, mode, shape):
    rng = np.random.default_rng(6)
    g = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    rule = on_trees(clip_by_spectral_norm(2.0, mode, 30))
    out, _ = rule.update(jnp.asarray(g), rule.init(g))
    want = mapped(g, (lambda s: np.minimum(s, 2.0)) if mode == "hard" else lambda s: s / np.sqrt(1 + (s / 2) ** 2))
    np.testing.assert_allclose(out, want, rtol=1e-9, atol=1e-11)


def test_parity_soft_follows_the_leading_value_of_complex_and_of_wider_matrices():
    rng = np.random.default_rng(7)
    g = rng.normal(size=(30, 40)) + 1j * rng.normal(size=(30, 40))
    for x in (g.astype(np.complex64), np.float32(g.real)):
        rule = on_trees(clip_by_spectral_norm(EmaLimit(), "soft"))
        _, state = rule.update(jnp.asarray(x), rule.init(x))
        np.testing.assert_allclose(state.limits[""][0], np.linalg.norm(x, 2), rtol=1e-2)
        for _ in range(20):
            _, state = rule.update(jnp.asarray(x), state)
        np.testing.assert_allclose(state.limits[""][0], np.linalg.norm(x, 2), rtol=2e-3)


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize("kind", [np.float64, np.complex128])
def test_analytic_derivatives_by_matrix_and_limit(x64, mode, shape, kind):
    rng = np.random.default_rng(8)
    parts = rng.normal(size=(2, *shape))
    g = jnp.asarray(parts[0] if kind is np.float64 else parts[0] + 1j * parts[1])

    @jax.jit
    def clipped(g, limit):
        rule = clip_by_spectral_norm(jnp.asarray(limit), mode)
        return rule.update(g, rule.init(g))[0]

    check_grads(clipped, (g, jnp.asarray(1.3)), order=1, modes=("fwd", "rev"), atol=1e-6, rtol=1e-6)


def test_analytic_derivatives_where_singular_values_are_equal_or_zero(x64):
    """Of `min(s, limit)`: 1 below the limit whatever the others are; numbers, not quotients of zeros."""
    rule = clip_by_spectral_norm(1.0)

    def clipped(g):
        return rule.update(g, rule.init(g))[0]

    direction = jnp.asarray(np.random.default_rng(9).normal(size=(3, 3)))
    for values, unchanged in (((0.5, 0.5, 0.5), True), ((0.0, 0.0, 0.0), True), ((3.0, 3.0, 0.0), False)):
        _, change = jax.jvp(clipped, (jnp.diag(jnp.array(values)),), (direction,))
        assert np.isfinite(change).all()
        if unchanged:
            np.testing.assert_allclose(change, direction, rtol=1e-12)
    # Two equal values above the limit: only a rotation of their plane is left, and it is shortened by limit / value.
    turn = (direction - direction.T)[0, 1] / 2 / 3
    np.testing.assert_allclose(change[:2, :2], jnp.array([[0.0, turn], [-turn, 0.0]]), atol=1e-12)
    np.testing.assert_allclose(change[2, 2], direction[2, 2], rtol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", ["float32", "mixed"])
def test_property_variants_in_every_dtype_size_and_mode_of_bad_gradients(name, dtype):
    make, params = VARIANTS[name], PARAMS[dtype]
    rng = np.random.default_rng(10)

    @quick_jit
    def play_two(first, second, limit):
        rule = with_telemetry(make(limit, nonfinite="skip"))
        one, middle = rule.update(first, rule.init(params))
        two, last = rule.update(second, middle)
        return one, two, middle, last

    base = tree(rng.uniform(-1, 1, 14), dtype)
    for size in (0.0, 1e-30, 1.0, 1e30):
        grads = tree(rng.uniform(-1, 1, 14), dtype, [size] * 4)
        _, out, _, last = play_two(base, grads, 0.7)
        for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(grads)):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.isfinite(np.asarray(a, complex)).all()
            assert np.linalg.norm(np.asarray(a, complex)) <= np.linalg.norm(np.asarray(b, complex)) * (1 + 2e-2)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(last.inner))
    bad = jax.tree.map(lambda x: x * jnp.nan, base)
    _, out, middle, last = play_two(base, bad, 0.7)
    assert identical(middle.inner, last.inner)
    assert not flat64(out).any()


@pytest.mark.parametrize("name", VARIANTS)
def test_property_variants_of_huge_and_tiny_gradients_are_scaled_copies(name):
    """A limit that follows has no scale of its own; a soft limit is scaled with the gradient."""
    rng = np.random.default_rng(11)
    first, second = (rng.uniform(0.2, 1, 14) for _ in range(2))
    params = PARAMS["float32"]

    @quick_jit
    def second_update(first, second, limit):
        rule = VARIANTS[name](limit)
        _, state = rule.update(first, rule.init(params))
        return rule.update(second, state)[0]

    want = flat64(second_update(tree(first), tree(second), 0.7))
    for size in (2.0**100, 2.0**-100):
        limit = np.float32(0.7 * (size if name == "soft" else 1.0))
        got = flat64(second_update(tree(first, scales=[size] * 4), tree(second, scales=[size] * 4), limit))
        np.testing.assert_allclose(got / size, want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_invariance_variants_under_vmap_with_missing_gradients_and_in_tree_map_params(name):
    params = {"w": jnp.ones((3, 4)), "frozen": jnp.ones((2, 2)), "b": jnp.ones(3)}
    history = {"w": jax.random.normal(jax.random.key(0), (3, 5, 3, 4)), "frozen": None, "b": jnp.ones((3, 5, 3))}

    def run(history):
        rule = VARIANTS[name](0.7)

        def body(state, g):
            out, state = rule.update(g, state)
            return state, out

        return jax.lax.scan(body, rule.init(params), history)

    states, outs = jax.jit(jax.vmap(run))(history)
    for i in range(3):
        state, out = quick_jit(run)(jax.tree.map(lambda x, i=i: x[i], history))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=2e-5), outs, out)
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=2e-5), states.limits, state.limits
        )
    assert outs["frozen"] is None
    rule = VARIANTS[name](0.7)
    state = rule.init(params)
    marked = optax.tree_map_params(rule, lambda x: "copy", state, transform_non_params=lambda x: None)
    assert "copy" not in jax.tree.leaves(marked)


@pytest.mark.parametrize("name", VARIANTS)
def test_property_variants_have_finite_meta_gradients(name):
    params = PARAMS["float32"]

    @quick_jit
    @jax.grad
    def slope(arguments):
        rule = VARIANTS[name](arguments[1])
        state, total = rule.init(params), 0.0
        for _ in range(2):
            out, state = rule.update(arguments[0], state)
            total += sum(jnp.sum(x**2 + x) for x in jax.tree.leaves(out))
        return total

    for size in (0.0, 1e-3, 1.0):
        # A rate of the quantile's limit is no limit itself.
        for limit in (0.0, 1e-20, 0.5, *((2.0,) if "quantile" in name else (1e4, np.inf))):
            found = slope((jax.tree.map(lambda x, s=size: s * x, params), jnp.float32(limit)))
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(found)), (size, limit)


@pytest.mark.wrong_arguments
def test_wrong_a_limit_that_follows_knows_its_leaves():
    rule = clip_by_spectral_norm(EmaLimit())
    state = rule.init({"w": jnp.ones((2, 2))})
    with pytest.raises(ValueError, match="'other'"):
        rule.update({"other": jnp.ones((2, 2))}, state)


def test_documented_a_soft_limit_on_updates_goes_after_the_optimizer():
    chain = optax.chain(optax.scale_by_adam(), clipping.clip_by_spectral_norm(0.5, "soft"), optax.scale(-1e-3))
    optimizer, params = on_trees(chain), {"w": jnp.ones((4, 6))}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    # Adam's first update is a matrix of ones, with the singular value sqrt(24).
    want = 1e-3 / np.sqrt(1 + 24 / 0.25)
    np.testing.assert_allclose(updates["w"], -want, rtol=1e-5)
