"""Ends of the range: largest floats, empty trees, norms at the threshold, traced thresholds, schedules everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.clipping.strategies import NAMES, PARAMS, RULES, STRATEGIES, flat64, identical, norm64, quick_jit, tree
from tests.untyped import on_trees

from cliffs import clipping
from cliffs.clipping import read_telemetry, with_telemetry
from cliffs.clipping._numbers import root_mean

TOP = float(jnp.finfo("float32").max)


@pytest.mark.parametrize("name", NAMES)
def test_property_a_tree_without_leaves_passes(name):
    transform = with_telemetry(STRATEGIES[name].make(0.5))
    updates, state = transform.update({}, transform.init({}), {})
    assert updates == {}
    assert read_telemetry(state)["norm_after"] == 0


EAGER = ("clip_by_leaf_norm", "soft_clip_by_global_norm", "clip_by_zscore")


@pytest.mark.parametrize(("name", "compiling"), [*((n, True) for n in RULES), *((n, False) for n in EAGER)])
def test_property_the_largest_floats_are_clipped_not_lost(name, compiling):
    """Entries at the end of float32: in eager mode and under jit the result is finite, and as long as it may be."""
    case = STRATEGIES[name]
    grads = {"rnn": {"w_rec": jnp.array([0.9, -0.5, 0.3]) * TOP}}
    transform = on_trees(with_telemetry(case.make(0.5)))
    update = quick_jit(transform.update) if compiling else transform.update
    updates, state = update(grads, transform.init(grads), grads)
    got = np.asarray(updates["rnn"]["w_rec"], np.float64)
    assert np.isfinite(got).all()
    if case.bounds:
        np.testing.assert_allclose(np.linalg.norm(got), 0.5, rtol=1e-6)
        np.testing.assert_allclose(got / np.linalg.norm(got), np.array([0.9, -0.5, 0.3]) / np.sqrt(1.15), rtol=1e-6)
    log = read_telemetry(state)
    np.testing.assert_allclose(log["norm_after"], min(np.linalg.norm(got), TOP), rtol=1e-6)
    assert log["norm_before"] == pytest.approx(min(np.sqrt(1.15) * TOP, TOP), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_analytic_a_gradient_is_made_longer_by_more_than_the_largest_float(dtype):
    """The lower end of a band around 1e30 is 1e60 times a gradient of 1e-30; no float32 holds that factor."""
    rule = on_trees(clipping.clip_by_group_band(low=0.5, decay=0.5))
    state = rule.init(jnp.zeros(2, dtype))
    _, state = rule.update(jnp.array([0.6e30, 0.8e30], dtype), state)
    updates, _ = quick_jit(rule.update)(jnp.array([0.6e-30, 0.8e-30], dtype), state)
    # S = (1e30 + 2e-30) / 3
    np.testing.assert_allclose(np.asarray(updates, float), np.array([0.6, 0.8]) * 0.5e30 / 3, rtol=1e-2)


def test_analytic_truth_no_threshold_is_no_change_up_to_the_largest_float():
    grads = jnp.full(3, 3e38)
    for make in (clipping.clip_by_global_norm, clipping.soft_clip_by_global_norm, clipping.clip_by_leaf_norm):
        transform = on_trees(with_telemetry(make(jnp.inf)))
        for update in (transform.update, jax.jit(transform.update)):
            updates, state = update(grads, transform.init(grads))
            np.testing.assert_allclose(updates, grads, rtol=1e-6)
            assert read_telemetry(state)["norm_after"] == pytest.approx(TOP)


def test_property_a_norm_at_its_threshold_is_told_as_it_is():
    """Clipped is what telemetry says exactly where a bit has changed, and below the threshold nothing may change."""
    grads = jax.random.normal(jax.random.key(0), (500, 5))

    @jax.jit
    @jax.vmap
    def run(g):
        transform = on_trees(with_telemetry(clipping.clip_by_global_norm(clipping.tree_norm(g).value)))
        updates, state = transform.update(g, transform.init(g))
        return jnp.any(updates != g), state.clipped

    changed, told = run(grads)
    np.testing.assert_array_equal(changed, told)
    assert not changed.any()


def test_analytic_truth_a_threshold_of_zero_leaves_nothing():
    grads = {"a": jnp.array([1e30, 1e-13]), "b": jnp.array(-2.0)}
    for name in RULES:
        if STRATEGIES[name].bounds:
            transform = on_trees(STRATEGIES[name].make(0.0))
            params = {"w_rec": jnp.zeros(())} | grads
            assert norm64(transform.update({"w_rec": None} | grads, transform.init(params), params)[0]) == 0


@pytest.mark.parametrize("name", [n for n in RULES if n not in ("clip_by_norm_quantile", "clip_by_block_rms")])
def test_property_a_traced_threshold_that_is_negative_or_nan_counts_as_zero(name):
    make, params = STRATEGIES[name].make, PARAMS["float32"]

    @quick_jit
    def second(threshold):
        transform = make(threshold)
        _, state = transform.update(params, transform.init(params), params)
        return transform.update(params, state, params)[0]

    want = second(0.0)
    for bad in (-1.0, np.nan):
        assert identical(second(bad), want)


@pytest.mark.parametrize("name", NAMES)
def test_parity_every_numeric_argument_as_a_schedule(name):
    """All arguments scheduled at once, against rules with the numbers of the first and of the later updates."""
    factory, arguments, params = getattr(clipping, name), STRATEGIES[name].schedules, PARAMS["float32"]
    grads = [tree(np.random.default_rng(i).uniform(-1, 1, 14) * s) for i, s in enumerate((1.0, 1.0, 3.0))]

    def step(values, count):
        early, late = values
        return jnp.where(count == 0, early, late)

    scheduled = factory(**{key: functools.partial(step, pair) for key, pair in arguments.items()})
    early, late = (factory(**{key: pair[i] for key, pair in arguments.items()}) for i in (0, 1))

    @quick_jit
    def both(grads):
        results = []
        for rules in ((scheduled,) * 3, (early, late, late)):
            state, outs = rules[0].init(params), []
            for rule, g in zip(rules, grads):
                out, state = rule.update(g, state, params)
                outs.append(out)
            results.append(outs)
        return results

    got, want = both(grads)
    np.testing.assert_allclose(flat64(got), flat64(want), rtol=1e-5, atol=1e-7)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    "make",
    [
        lambda f: clipping.clip_by_norm_quantile(0.1, buffer_size=f),
        lambda f: with_telemetry(optax.identity(), decay=f),
    ],
)
def test_wrong_arguments_that_cannot_be_schedules_say_so(make):
    with pytest.raises(ValueError, match="not a schedule"):
        make(lambda count: 3)


def test_invariance_keys_with_slashes_are_told_apart():
    params = {"a/w_rec": jnp.eye(2) * 3, "a": {"w_rec": jnp.eye(2) * 5}}
    rule = with_telemetry(clipping.spectral_normalize(1.0), per_leaf=True)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, state = rule.update(zero, rule.init(params), params)
    for new in jax.tree.leaves(optax.apply_updates(params, updates)):
        np.testing.assert_allclose(new, jnp.eye(2), rtol=1e-5, atol=1e-6)
    assert len([name for name in read_telemetry(state) if name.endswith("norm_after") and "leaf" in name]) == 2


@pytest.mark.wrong_arguments
def test_wrong_reading_telemetry_inside_jit_says_so():
    transform = with_telemetry(optax.clip(1.0))
    with pytest.raises(ValueError, match="traced"):
        jax.jit(lambda g: read_telemetry(transform.update(g, transform.init(g))[1]))(jnp.ones(2))


def test_analytic_truth_local_rules_keep_their_own_bounds():
    """What bounds the rules that have no bound on the whole norm: entries, root mean squares, units."""
    rng = np.random.default_rng(0)
    grads, weights = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32), jnp.asarray(rng.normal(size=(6, 4)))
    outs = {}
    for name, value in (("clip", 0.3), ("clip_by_block_rms", 0.3), ("adaptive_grad_clip", 0.3)):
        rule = getattr(clipping, name)(value)
        outs[name] = np.asarray(rule.update(grads, rule.init(weights), weights)[0], np.float64)
    assert np.abs(outs["clip"]).max() == np.float32(0.3)
    np.testing.assert_allclose(np.sqrt((outs["clip_by_block_rms"] ** 2).mean()), 0.3, rtol=1e-6)
    units, limits = np.linalg.norm(outs["adaptive_grad_clip"], axis=0), 0.3 * np.linalg.norm(weights, axis=0)
    np.testing.assert_allclose(units, np.minimum(np.linalg.norm(grads, axis=0), limits), rtol=1e-5)


def test_parity_with_numbers_that_torch_2_13_printed():
    """`clip_grad_norm_(.., 1.0)` and `clip_grad_value_(.., 1.75)`, for machines without torch."""
    grads = [jnp.array([3.0, -0.5, 0.25]), jnp.array([[1.5, 2.0], [-4.0, 0.125]])]
    by_norm = [
        [
            0.5338608026504517,
            -0.08897680044174194,
            0.04448840022087097,
            0.26693040132522583,
            0.3559072017669678,
            -0.7118144035339355,
            0.022244200110435486,
        ]
    ]
    for rule, want in (
        (clipping.clip_by_global_norm(1.0), by_norm[0]),
        (clipping.clip(1.75), [1.75, -0.5, 0.25, 1.5, 1.75, -1.75, 0.125]),
    ):
        got = np.concatenate([np.ravel(x) for x in on_trees(rule).update(grads, rule.init(grads))[0]])
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_analytic_a_root_of_two_squares_and_its_slopes(x64, dtype):
    def formula(old, new, decay):
        return jnp.sqrt(decay * old**2 + (1 - decay) * new**2)

    point = [jnp.asarray(x, dtype) for x in (3.0, 4.0, 0.9)]
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for derivative in (
        lambda f: f,
        lambda f: jax.grad(f, argnums=(0, 1, 2)),
        lambda f: jax.hessian(f, argnums=(0, 1, 2)),
    ):
        ours, theirs = (jax.tree.leaves(derivative(f)(*point)) for f in (root_mean, formula))
        assert all(x.dtype == dtype for x in ours)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    top = float(jnp.finfo(dtype).max)
    for old, new in ((top, top), (0.9 * top, 0.0), (1e-30, 1e-32)):  # the squares of these are no floats, or 0
        same = root_mean(*(jnp.asarray(x, dtype) for x in (old, new, 0.5)))
        np.testing.assert_allclose(same / old, np.sqrt(0.5 + 0.5 * (new / old) ** 2), rtol=tolerance)


@pytest.mark.parametrize(
    ("old", "new", "decay"),
    [(1e20, 1e-19, 0.0), (1e-19, 1e20, 1.0), (0.0, 0.0, 0.5), (1.0, 20.0, 1.01), (3.0, 1.0, -2.0)],
)
def test_property_a_root_of_two_squares_is_a_number_with_slopes_whatever_their_shares(old, new, decay):
    value, slopes = jax.value_and_grad(root_mean, argnums=(0, 1, 2))(*map(jnp.float32, (old, new, decay)))
    assert np.isfinite([value, *slopes]).all()


def test_invariance_the_decay_of_moments_does_not_take_the_precision_of_a_threshold():
    moments = []
    for theta in (5000.0, jnp.bfloat16(5000.0), jnp.float16(5000.0)):
        rule = on_trees(clipping.clip_spikes(theta, decay=0.999))
        state = rule.init(jnp.zeros(2))
        for _ in range(3):
            state = rule.update(jnp.array([1.0, 2.0]), state)[1]
        moments.append(state.rms)
    np.testing.assert_array_equal(moments[1], moments[0])
    np.testing.assert_array_equal(moments[2], moments[0])


def test_property_largest_complex_entries_are_finite():
    """Their modulus is no float, but they are no inf or NaN."""
    rule = on_trees(STRATEGIES["clip_by_ema_max"].make(1.0))
    gradient = {"w": jnp.array([3e38 + 3e38j, 1.0])}
    updates, state = rule.update(gradient, rule.init(gradient))
    assert int(state.count) == 1
    assert float(state.averages.values[0, 0]) > 3e38
    assert np.isfinite(np.asarray(updates["w"])).all()
