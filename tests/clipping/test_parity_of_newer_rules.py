"""Rules of 2023 to 2026 against literal transcriptions of their formulas in numpy over 1,000 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.clipping.test_parity import histories, play
from tests.untyped import on_trees, untyped

from cliffs import clipping

PARTS = {"a": slice(0, 4), "b": slice(4, 6)}


def play_parts(rule, grads):
    """Updates of a tree of two arrays, side by side."""

    def body(state, g):
        out, state = rule.update({name: g[part] for name, part in PARTS.items()}, state)
        return state, jnp.concatenate([out[name] for name in PARTS])

    start = rule.init({name: jnp.zeros(part.stop - part.start) for name, part in PARTS.items()})
    return np.asarray(jax.jit(lambda g: jax.lax.scan(body, start, g)[1])(jnp.asarray(grads)))


@pytest.mark.parametrize("multiplier", [1.0, 0.6])
def test_parity_adaclip_with_the_formula(x64, multiplier):
    grads = histories()
    got = play_parts(clipping.clip_by_ema_max(multiplier, 0.99), grads)
    average, clipped = dict.fromkeys(PARTS, 0.0), 0
    for t, (g, out) in enumerate(zip(grads, got), 1):
        for name, part in PARTS.items():
            x = g[part].copy()
            top = np.abs(x).max()
            average[name] = 0.99 * average[name] + 0.01 * top
            limit = multiplier * average[name] / (1 - 0.99**t)
            spikes = np.abs(x) > limit
            x[spikes] = x[spikes] / top * limit
            clipped += spikes.sum()
            np.testing.assert_allclose(out[part], x, rtol=1e-10)
    assert clipped > 50


def test_parity_adagn_with_the_formula(x64):
    grads = histories()
    got = play_parts(clipping.adaptive_grad_norm(2.0, 0.7, 0.9, 1e-3), grads)
    m, v = dict.fromkeys(PARTS, 0.0), dict.fromkeys(PARTS, 0.0)
    for t, (g, out) in enumerate(zip(grads, got), 1):
        for name, part in PARTS.items():
            norm = float(np.linalg.norm(g[part]))
            m[name] = 0.7 * m[name] + 0.3 * norm
            v[name] = 0.9 * v[name] + 0.1 * norm**2
            m_hat, v_hat = m[name] / (1 - 0.7**t), v[name] / (1 - 0.9**t)
            np.testing.assert_allclose(out[part], 2.0 * g[part] / norm * m_hat / (np.sqrt(v_hat) + 1e-3), rtol=1e-10)


@pytest.mark.parametrize("update", ["before", "after", "clipped"])
@pytest.mark.parametrize(("high", "low"), [(1.3, 0.8), (0.7, 0.98)])  # the second as in the authors' scripts
def test_parity_aggc_with_the_formula(x64, update, high, low):
    grads = histories()
    rule = clipping.clip_by_group_band(high, low, 0.95, 0.01, 0.3, 1.1, update, lambda path: path)
    got = play_parts(rule, grads)
    s, weight, seen = dict.fromkeys(PARTS, 0.0), 0.0, []
    for g, out in zip(grads, got):
        corrected = 0.95 * weight + 0.05
        for name, part in PARTS.items():
            n = float(np.linalg.norm(g[part]))
            moved = 0.95 * s[name] + 0.05 * n
            average = moved / corrected if update == "before" else s[name] / (weight or 1.0)
            factor = 1.0
            if average > 0 and n > high * average:
                factor = max(high * average / n, 0.3)
            elif n < max(0.01, low * average):
                factor = min(max(0.01, low * average) / n, 1.1)
            s[name] = 0.95 * s[name] + 0.05 * factor * n if update == "clipped" else moved
            seen.append(factor)
            np.testing.assert_allclose(out[part], factor * g[part], rtol=1e-10)
        weight = corrected
    assert min(seen) < 0.9 < 1.01 < max(seen)


def test_analytic_groups_share_one_band():
    rule = on_trees(clipping.clip_by_group_band(1.0, 0.0, decay=0.5, update="after", group=lambda path: path[0]))
    grads = {"a1": jnp.array([3.0]), "a2": jnp.array([4.0]), "b1": jnp.array([1.0])}
    _, state = rule.update(grads, rule.init(grads))
    updates, state = rule.update(jax.tree.map(lambda g: 2 * g, grads) | {"b1": None}, state)
    np.testing.assert_allclose([updates["a1"][0], updates["a2"][0]], [3.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(state.averages.of("a")[0], (5 + 2 * 10) / 3, rtol=1e-6)
    np.testing.assert_allclose(state.averages.of("b")[0], 1.0)


@pytest.mark.wrong_arguments
def test_wrong_a_group_that_init_did_not_see():
    rule = clipping.clip_by_group_band()
    with pytest.raises(ValueError, match="the gradient has the group 'new'"):
        rule.update({"new": {"w": jnp.ones(2)}}, rule.init({"old": {"w": jnp.ones(2)}}))


@pytest.mark.parametrize(("b1", "b2"), [(None, 1.0), (0.3, 0.7)])
def test_parity_clip21_with_the_formula(x64, b1, b2):
    grads, v, h = histories(), np.zeros(6), np.zeros(6)
    got, clipped = play(clipping.clip_with_error_feedback(2.0, b1, b2), grads), 0
    for g, out in zip(grads, got):
        v = g if b1 is None else (1 - b1) * v + b1 * g
        gap = np.linalg.norm(v - h)
        clipped += gap > 2.0
        h = h + b2 * (v - h) * min(1, 2.0 / gap)
        np.testing.assert_allclose(out, h, rtol=1e-10, atol=1e-12)
    assert 100 < clipped < 990


def test_analytic_error_feedback_has_no_bias_where_clipping_has():
    """Three examples in turn whose clipped gradients do not cancel at the minimum of their mean."""
    targets = jnp.array([-1.0, -1.0, 5.0])  # the mean is 1

    def descend(make):
        rules = [make() for _ in range(3)]

        def body(carry, _):
            x, states = carry
            pairs = [r.update(x - a, s) for r, s, a in zip(rules, states, targets)]
            return (x - 0.05 * sum(u for u, _ in pairs) / 3, [s for _, s in pairs]), None

        start = jnp.array(0.0), [r.init(jnp.array(0.0)) for r in rules]
        return float(jax.lax.scan(body, start, length=2000)[0][0])

    np.testing.assert_allclose(descend(lambda: clipping.clip_with_error_feedback(0.5)), 1.0, atol=1e-3)
    assert descend(lambda: clipping.clip_by_global_norm(0.5)) < -0.5


def test_property_error_feedback_between_the_largest_floats():
    top = float(jnp.finfo("float32").max)
    rule = on_trees(clipping.clip_with_error_feedback(jnp.inf))
    state = rule.init(jnp.zeros(2))
    for sign in (1.0, -1.0, 1.0):
        updates, state = rule.update(sign * jnp.array([0.9 * top, 1.0]), state)
        np.testing.assert_allclose(updates[0], sign * 0.9 * top, rtol=1e-6)


def stable_adamw(grads, max_rms, b1, b2, eps, lr, decay, steps_of_array):
    """Algorithm 2 of arXiv 2304.13013 as its authors published it, for two arrays."""
    x, m, v = np.ones(6), np.zeros(6), np.zeros(6)
    sizes, found = [], []
    for t, g in enumerate(grads, 1):
        b1_hat, b2_hat = b1 * (1 - b1 ** (t - 1)) / (1 - b1**t), b2 * (1 - b2 ** (t - 1)) / (1 - b2**t)
        m, v = b1_hat * m + (1 - b1_hat) * g, b2_hat * v + (1 - b2_hat) * g**2
        for part in steps_of_array:
            rms = np.sqrt(np.mean(g[part] ** 2 / np.maximum(v[part], eps**2)))
            step = lr / max(1, rms / max_rms)
            sizes.append(rms)
            x[part] = x[part] * (1 - lr * decay) - step * m[part] / (np.sqrt(v[part]) + eps)
        found.append(x.copy())
    return np.array(found), sizes


@pytest.mark.parametrize("max_rms", [1.0, 0.5])
def test_parity_stable_adamw_as_a_chain_with_adam_inside(x64, max_rms):
    grads = histories()
    lr, decay = 0.01, 0.2
    inner = clipping.clip_update_rms(max_rms, optax.scale_by_adam(0.9, 0.99, 1e-4), 0.99, 1e-4)
    optimizer = on_trees(optax.chain(inner, optax.scale(-lr)))

    def body(carry, g):
        x, state = carry
        updates, state = optimizer.update({name: g[part] for name, part in PARTS.items()}, state, x)
        # The weight decay of the published code is not shortened with the update.
        x = {name: x[name] * (1 - lr * decay) + updates[name] for name in x}
        return (x, state), jnp.concatenate([x[name] for name in PARTS])

    start = {name: jnp.ones(part.stop - part.start) for name, part in PARTS.items()}
    got = jax.jit(lambda g: jax.lax.scan(body, (start, optimizer.init(start)), g)[1])(jnp.asarray(grads))
    want, sizes = stable_adamw(grads, max_rms, 0.9, 0.99, 1e-4, lr, decay, PARTS.values())
    np.testing.assert_allclose(got, want, rtol=1e-10)
    assert min(sizes) < max_rms < max(sizes)


def test_parity_update_rms_of_the_gradient_itself(x64):
    grads, v = histories(), np.zeros(6)
    got = play_parts(clipping.clip_update_rms(1.0, None, 0.9, 0.5), grads)
    for t, (g, out) in enumerate(zip(grads, got), 1):
        v = 0.9 * v + 0.1 * g**2
        for part in PARTS.values():
            rms = np.sqrt(np.mean(g[part] ** 2 / np.maximum(v[part] / (1 - 0.9**t), 0.5**2)))
            np.testing.assert_allclose(out[part], g[part] / max(1, rms), rtol=1e-10)


@pytest.mark.wrong_arguments
def test_wrong_an_inner_transformation_with_other_shapes():
    ravelled = untyped(lambda u, s, p=None: (jax.tree.map(jnp.ravel, u), s))
    flat = optax.GradientTransformation(untyped(lambda p: ()), ravelled)
    rule = clipping.clip_update_rms(1.0, flat)
    with pytest.raises(ValueError, match="inner must give updates of the gradient's shapes"):
        rule.update(jnp.ones((2, 2)), rule.init(jnp.ones((2, 2))))


def test_property_the_state_of_the_inner_transformation_never_sees_a_bad_gradient():
    rule = on_trees(clipping.clip_update_rms(1.0, optax.scale_by_adam(), nonfinite="skip"))
    params = {"w": jnp.ones(2)}
    _, state = rule.update(params, rule.init(params))
    updates, after = rule.update({"w": jnp.array([jnp.nan, 1.0])}, state)
    np.testing.assert_array_equal(updates["w"], [0, 0])
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_analytic_the_start_of_an_average_is_corrected_for_a_scheduled_decay():
    """The weights of all values sum to one whatever the decays: a constant maximum is its own average."""
    rule = on_trees(clipping.clip_by_ema_max(1.0, untyped(lambda count: 0.9 - 0.5 * (count % 3) / 2)))
    state = rule.init(jnp.zeros(2))
    for _ in range(7):
        _, state = rule.update(jnp.array([2.0, 1.0]), state)
        np.testing.assert_allclose(state.averages.of("")[0], 2.0, rtol=1e-6)
