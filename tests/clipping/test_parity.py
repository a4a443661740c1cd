"""Our rules against PyTorch and against literal transcriptions of the formulas in numpy over 1,000 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import on_trees, untyped

from cliffs import clipping

STEPS = 1000


def histories(steps=STEPS):
    """Gradients whose norm drifts and spikes."""
    rng = np.random.default_rng(0)
    size = np.exp(np.cumsum(rng.normal(0, 0.02, steps))) * np.where(rng.random(steps) < 0.03, 50, 1)
    return (rng.normal(size=(steps, 6)) * size[:, None]).astype(np.float64)


def play(transform, grads, params=None):
    """All updates of a transformation over a history, as one scan in float64."""
    params = jnp.zeros(grads.shape[1:]) if params is None else params

    def body(state, g):
        out, state = transform.update(g, state, params)
        return state, out

    return np.asarray(jax.jit(lambda g: jax.lax.scan(body, transform.init(params), g)[1])(jnp.asarray(grads)))


@pytest.mark.parametrize("seed", range(2))
def test_parity_with_torch_on_random_trees(seed):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(seed)
    shapes = [(), (3,), (4, 5), (2, 3, 4)][: 2 + seed % 3]
    tree = [(rng.normal(size=s) * 10.0 ** rng.integers(-2, 3)).astype(np.float32) for s in shapes]
    for threshold in (0.1, 1.0, 100.0):
        for ours, theirs in (
            (clipping.clip_by_global_norm, torch.nn.utils.clip_grad_norm_),
            (clipping.clip, torch.nn.utils.clip_grad_value_),
        ):
            parameters = [torch.nn.Parameter(torch.zeros(x.shape)) for x in tree]
            for p, x in zip(parameters, tree):
                p.grad = torch.tensor(x)
            theirs(parameters, threshold)
            rule = on_trees(clipping.with_telemetry(ours(threshold)))
            updates, _ = rule.update([jnp.asarray(x) for x in tree], rule.init(tree))
            norm = np.sqrt(sum(np.sum(x.astype(np.float64) ** 2) for x in tree))
            # torch divides by norm + 1e-6 where it clips by the norm; that apart the two agree to float32's digits.
            longer = 1 + 1e-6 / norm if ours is clipping.clip_by_global_norm and norm > threshold else 1.0
            for got, p in zip(updates, parameters):
                np.testing.assert_allclose(got, p.grad.numpy() * longer, rtol=1e-6, atol=0)


def test_parity_agc_with_the_formula(x64):
    grads, weights = histories().reshape(-1, 3, 2), np.random.default_rng(1).normal(size=(3, 2))
    got = play(clipping.adaptive_grad_clip(0.05, 1e-3), grads, jnp.asarray(weights))
    want = np.empty_like(grads)
    for t, g in enumerate(grads):
        for unit in range(2):
            norm, limit = np.linalg.norm(g[:, unit]), 0.05 * max(np.linalg.norm(weights[:, unit]), 1e-3)
            want[t, :, unit] = g[:, unit] * (limit / norm if norm > limit else 1)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(("percent", "buffer"), [(10, STEPS), (50, STEPS), (90, 64)])
def test_parity_autoclip_with_the_formula(x64, percent, buffer):
    grads, seen = histories(), []
    got = play(clipping.clip_by_norm_quantile(percent / 100, buffer), grads)
    for g, out in zip(grads, got):
        norm = np.linalg.norm(g)
        seen.append(norm)
        limit = np.percentile(seen[-buffer:], percent)
        np.testing.assert_allclose(out, g * min(1, limit / norm), rtol=1e-10)


@pytest.mark.parametrize("update", ["before", "after", "clipped"])
def test_parity_ema_rule_with_the_formula(x64, update):
    grads, mean = histories(), None
    got = play(clipping.clip_by_ema_norm(1.5, 0.9, update), grads)
    for g, out in zip(grads, got):
        norm = np.linalg.norm(g)
        old = norm if mean is None else mean
        after = norm if mean is None else 0.9 * old + 0.1 * norm
        limit = 1.5 * (after if update == "before" else old)
        mean = after if update != "clipped" or mean is None else 0.9 * old + 0.1 * min(norm, limit)
        np.testing.assert_allclose(out, g * min(1, limit / norm), rtol=1e-10)


@pytest.mark.parametrize("mode", ["reciprocal", "mean", "percentile"])
def test_parity_zclip_with_the_reference_formulas(x64, mode):
    grads, warm, mean, var = histories(), [], 0.0, 0.0
    got = play(clipping.clip_by_zscore(2.5, 0.97, 25, max_norm=20.0, mode=mode), grads)
    clipped = 0
    for t, (g, out) in enumerate(zip(grads, got)):
        norm, limit = np.linalg.norm(g), None
        if t < 25:
            warm.append(norm)
            mean, var = np.mean(warm), np.var(warm)
        else:
            std = var**0.5
            z = (norm - mean) / (std + 1e-6)
            if mode == "percentile":
                limit = mean + 2.5 * std if norm > mean + 2.5 * std else None
            elif z > 2.5:
                limit = mean + 2.5 * std / (z / 2.5) if mode == "reciprocal" else mean
            seen = norm if limit is None else limit
            clipped += limit is not None
            mean = 0.97 * mean + 0.03 * seen
            var = 0.97 * var + 0.03 * (seen - mean) ** 2
        np.testing.assert_allclose(out, g * min(1, 20 / norm, (limit or norm) / norm), rtol=1e-9)
    assert clipped > 10


def test_parity_adagc_with_the_formula(x64):
    grads = histories()
    tree = {"a": jnp.zeros(4), "b": jnp.zeros(2)}
    rule = on_trees(clipping.clip_by_ema_leaf_norm(1.05, 0.98, 100, 1.0))

    def body(state, g):
        out, state = rule.update({"a": g[:4], "b": g[4:]}, state)
        return state, jnp.concatenate([out["a"], out["b"]])

    got = jax.lax.scan(body, rule.init(tree), jnp.asarray(grads))[1]
    gamma = {}
    for t, (g, out) in enumerate(zip(grads, np.asarray(got))):
        for name, part in (("a", slice(0, 4)), ("b", slice(4, 6))):
            x = g[part]
            if t < 100:
                x = x * min(1, 1 / np.linalg.norm(g))
                gamma[name] = min(gamma.get(name, np.inf), np.linalg.norm(x))
            else:
                x = x * min(1, 1.05 * gamma[name] / np.linalg.norm(x))
                gamma[name] = 0.98 * gamma[name] + 0.02 * np.linalg.norm(x)
            np.testing.assert_allclose(out[part], x, rtol=1e-10)


def test_parity_spam_with_the_formula(x64):
    grads, v = histories(), np.zeros(6)
    got = play(clipping.clip_spikes(100.0, 0.99, 20), grads)
    for t, (g, out) in enumerate(zip(grads, got)):
        if t >= 20:
            g = np.where(g**2 > 100 * v, np.sign(g) * np.sqrt(100 * v), g)
        v = 0.99 * v + 0.01 * g**2
        np.testing.assert_allclose(out, g, rtol=1e-9)


def test_analytic_a_spike_passes_the_ema_rule_of_the_teaching_example_and_not_otherwise():
    left = {}
    for update in ("before", "after", "clipped"):
        rule = on_trees(clipping.clip_by_ema_norm(update=update))
        out, state = jnp.zeros(1), rule.init(jnp.zeros(1))
        for size in (1.0, 1.0, 1000.0):
            out, state = rule.update(jnp.array([size]), state)
        left[update] = (float(out[0]), float(state.mean))
    np.testing.assert_allclose(left["before"], (152.85, 50.95), rtol=1e-5)
    np.testing.assert_allclose(left["after"], (3.0, 50.95), rtol=1e-5)
    np.testing.assert_allclose(left["clipped"], (3.0, 1.1), rtol=1e-5)


def test_analytic_truth_worked_example():
    g = jnp.array([10.0, 1.0])
    norm, value = on_trees(clipping.clip_by_global_norm(5.0)), on_trees(clipping.clip(5.0))
    exact = 5 / np.sqrt(101) * np.array([10.0, 1.0])
    np.testing.assert_allclose(norm.update(g, norm.init(g))[0], exact, rtol=1e-6)
    np.testing.assert_allclose(exact, [4.975, 0.4975], rtol=1e-4)
    np.testing.assert_array_equal(value.update(g, value.init(g))[0], [5.0, 1.0])


def test_parity_clip_or_shrink_on_a_broken_and_on_a_huge_gradient():
    rule = clipping.clip_or_shrink(1.0)
    params = {"w_rec": jnp.eye(2) * 3, "w_in": jnp.ones(2)}
    for size in (np.nan, np.inf, 1e11):
        grads = {"w_rec": jnp.ones((2, 2)), "w_in": jnp.array([1.0, size])}
        updates, _ = jax.jit(rule.update)(grads, rule.init(params), params)
        np.testing.assert_allclose(updates["w_rec"], 0.02 * params["w_rec"], rtol=1e-6)
        np.testing.assert_array_equal(updates["w_in"], [0, 0])
    with pytest.raises(ValueError, match="recurrent finds no leaf"):
        rule.init({"kernel": jnp.ones(2)})


@pytest.mark.parametrize("shape", [(3, 5), (12, 4), (10, 30)])
def test_analytic_truth_the_spectral_norm_of_a_matrix_that_is_not_square(shape):
    params = {"w_rec": jax.random.normal(jax.random.key(3), shape)}
    rule = clipping.spectral_normalize(0.7)
    zero = jax.tree.map(jnp.zeros_like, params)
    new = untyped(optax.apply_updates(params, rule.update(zero, rule.init(params), params)[0]))
    np.testing.assert_allclose(np.linalg.norm(new["w_rec"], 2), 0.7, rtol=1e-4)


@pytest.mark.parametrize("n", [3, 20])
def test_analytic_truth_matrix_constraints_hold_along_a_run(n):
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"w_rec": jax.random.normal(keys[0], (n, n)) * 3 / n**0.5}
    drift = jax.random.normal(keys[1], (100, n, n)) * 0.02
    for rule, measure in (
        (clipping.spectral_normalize(0.9), lambda w: np.linalg.norm(w, 2)),
        (clipping.project_spectral_radius(0.9), lambda w: np.abs(np.linalg.eigvals(w)).max()),
    ):

        def body(carry, g, rule=rule):
            p, s = carry
            updates, s = rule.update({"w_rec": g}, s, p)
            return (optax.apply_updates(p, updates), s), None

        (end, _), _ = jax.jit(lambda d, body=body, rule=rule: jax.lax.scan(body, (params, rule.init(params)), d))(drift)
        size = float(measure(np.asarray(end["w_rec"], np.float64)))
        assert measure(np.asarray(params["w_rec"] + drift.sum(0))) > 1.5, "without the constraint it would be far above"
        assert 0.3 < size < 0.9 * (1 + (1e-4 if n <= 8 else 0.02))


def test_parity_spikes_with_bias_correction_with_the_formula(x64):
    grads, v = histories(), np.zeros(6)
    got = play(clipping.clip_spikes(9.0, 0.99, 1, bias_correction=True), grads)
    clipped = 0
    for t, (g, out) in enumerate(zip(grads, got)):
        if t:
            limit = 3 * np.sqrt(v / (1 - 0.99**t))
            clipped += (np.abs(g) > limit).sum()
            g = np.clip(g, -limit, limit)
        v = 0.99 * v + 0.01 * g**2
        np.testing.assert_allclose(out, g, rtol=1e-10)
    assert clipped > 100


@pytest.mark.parametrize(("quantile", "rate"), [(0.5, 0.2), (0.9, 0.05)])
def test_parity_quantile_tracker_with_the_formula(x64, quantile, rate):
    grads, limit, below = histories(), 0.1, []
    got = play(clipping.clip_by_quantile_tracker(quantile, rate), grads)
    for g, out in zip(grads, got):
        norm = np.linalg.norm(g)
        np.testing.assert_allclose(out, g * min(1, limit / norm), rtol=1e-10)
        below.append(norm <= limit)
        limit *= np.exp(-rate * (below[-1] - quantile))
    assert abs(np.mean(below[200:]) - quantile) < 0.05
