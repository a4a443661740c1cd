"""Telemetry: right numbers, found anywhere, changes nothing; and the documented recipes."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import on_trees, untyped

from cliffs import clipping
from cliffs.clipping import read_telemetry, with_telemetry

SERIES = np.array([3.0, 0.5, np.nan, 10.0, 1.0, np.inf, 0.1])


def test_analytic_truth_counts_norms_and_cosine():
    tx = with_telemetry(clipping.clip(2.0, nonfinite="skip"), decay=0.5, per_leaf=True)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    state = tx.init(params)
    update = jax.jit(tx.update)
    logs = []
    for x in SERIES:
        _, state = update({"a": jnp.array([x, 1.0]), "b": jnp.array(0.0)}, state)
        logs.append(read_telemetry(state))
    assert all(type(v) is float for log in logs for v in log.values())
    json.dumps(logs[-1], allow_nan=False)
    assert [log["clipped"] for log in logs] == [1, 0, 0, 1, 0, 0, 0]
    assert (logs[-1]["clip_count"], logs[-1]["step"], logs[-1]["nonfinite_count"]) == (2, 7, 2)
    assert logs[-1]["compared_count"] == 5
    np.testing.assert_allclose(logs[0]["norm_before"], np.sqrt(10), rtol=1e-6)
    np.testing.assert_allclose(logs[0]["norm_after"], np.sqrt(5), rtol=1e-6)
    np.testing.assert_allclose(logs[0]["cosine"], 7 / np.sqrt(50), rtol=1e-6)
    assert logs[1]["cosine"] == 1.0
    assert np.isnan(logs[2]["cosine"])
    assert logs[0]["leaf/a/norm_before"] == logs[0]["norm_before"]
    flags = np.array([1, 0, 1, 0, 0])  # finite steps only
    weights = 0.5 ** np.arange(5)[::-1]
    np.testing.assert_allclose(logs[-1]["clip_fraction"], (flags * weights).sum() / weights.sum(), rtol=1e-5)


@pytest.mark.parametrize("rule", [clipping.clip(2.0, nonfinite="skip"), optax.clip(2.0)])
def test_parity_looking_at_every_third_step_records_what_looking_at_all_does_there(rule):
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    often, seldom = (with_telemetry(rule, decay=0.5, per_leaf=True, every=k) for k in (1, 3))
    states, logs = [often.init(params), seldom.init(params)], []
    updates = [jax.jit(tx.update) for tx in (often, seldom)]
    series = np.append(SERIES, [30.0, 1.0, np.nan, 4.0, 1.0, 7.0])
    for x in series:
        grads = {"a": jnp.array([x, 1.0]), "b": jnp.array(0.5)}
        (new, states[0]), (same, states[1]) = (f(grads, s) for f, s in zip(updates, states))
        jax.tree.map(np.testing.assert_array_equal, new, same)
        logs.append([read_telemetry(s) for s in states])
    always = ("step", "norm_before", "nonfinite_count")
    counts = ("clip_count", "compared_count", "clip_fraction")
    for i, (every_step, third) in enumerate(logs):
        at_last_look = logs[i - i % 3][0]
        for name in third.keys() - counts:
            np.testing.assert_equal(third[name], (every_step if name in always else at_last_look)[name])
    looked = series[::3]
    flags = looked[np.isfinite(looked)] > 2
    weights = 0.5 ** np.arange(len(flags))[::-1]
    last = logs[-1][1]
    assert (last["clip_count"], last["compared_count"]) == (flags.sum(), len(flags))
    assert 0 < flags.sum() < len(flags) < len(looked)
    np.testing.assert_allclose(last["clip_fraction"], (flags * weights).sum() / weights.sum(), rtol=1e-5)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("every", [0, -1, 2.0, "3", 2**31])
def test_wrong_steps_between_looks(every):
    with pytest.raises(ValueError, match=f"every must be a whole number .*, got {every!r}"):
        with_telemetry(optax.clip(1.0), every=every)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    "wrap", [with_telemetry, clipping.skip_outliers, lambda x: clipping.clip_update_rms(1.0, inner=x)]
)
@pytest.mark.parametrize("inner", [1.0, clipping.clip_by_global_norm])
def test_wrong_things_to_wrap_are_named(wrap, inner):
    with pytest.raises(ValueError, match=r"(transform|inner) must be an optax transformation"):
        wrap(inner)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("every", [1, 3])
def test_wrong_leaves(every):
    tx = with_telemetry(optax.clip(1.0), every=every, per_leaf=True)
    with pytest.raises(ValueError, match=r"lacks the leaf 'b' of the state of telemetry: it has \['a'\]"):
        tx.update({"a": jnp.ones(3)}, tx.init({"a": jnp.ones(3), "b": jnp.ones(2)}))


def test_invariance_updates_are_the_same_to_the_bit_and_the_state_can_be_donated():
    grads = {"w": jnp.array([3.0, -4.0, 1e-20]), "h": jnp.array([2.0], jnp.bfloat16), "empty": jnp.zeros((0,))}
    rule = clipping.clip_by_global_norm(1.0)
    tx = with_telemetry(rule)
    got, _ = jax.jit(tx.update, donate_argnums=1)(grads, tx.init(grads))
    want, _ = jax.jit(rule.update)(grads, rule.init(grads))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)))


def test_parity_what_a_rule_reports_is_what_a_look_at_the_gradient_finds():
    """The short cut for rules that say what they did, against the passes over the memory that any other rule costs."""
    rules = {
        "global": clipping.clip_by_global_norm(1.0),
        "soft": clipping.soft_clip_by_global_norm(1.0, nonfinite="skip"),
        "ema": clipping.clip_by_ema_norm(1.1, 0.5, "clipped"),
        "quantile": clipping.clip_by_norm_quantile(0.5, 4, nonfinite="zero"),
        "zscore": clipping.clip_by_zscore(1.0, warmup=2, nonfinite="skip"),
        "none": clipping.clip_by_global_norm(0.0),
        "leaf": clipping.clip_by_leaf_norm(0.4),
        "group": clipping.clip_by_group_norm(0.6, lambda path: path, nonfinite="skip"),
        "ema leaf": clipping.clip_by_ema_leaf_norm(warmup=2, max_norm=0.7, decay=0.5),
        "entries": clipping.clip(0.4),
        "huge entries": clipping.clip(2e28, nonfinite="skip"),
        "tiny entries": clipping.clip(1e-32),
        "no entry": clipping.clip(0.0),
        "block": clipping.clip_by_block_rms(0.4),
        "band": clipping.clip_by_group_band(1.2, 0.9, 0.5, update="clipped", group=lambda path: path, nonfinite="skip"),
        "steady": clipping.adaptive_grad_norm(0.5),
        "feedback": clipping.clip_with_error_feedback(0.5, 0.9),
        "shrink": clipping.clip_or_shrink(0.9, 0.02, 20.0, lambda path: path == "w"),
        "spectral": clipping.spectral_normalize(1.5, select=lambda path: path == "w", nonfinite="skip"),
    }
    params = {"w": jnp.eye(3), "b": jnp.ones(())}
    sizes = jnp.array([0.5, 1.0, 2.0, 0.0, jnp.nan, 30.0, 1e30, 1e-30, jnp.inf, 0.7])
    grads = {"w": sizes[:, None, None] * jnp.diag(jnp.array([0.6, -0.3, 0.5])), "b": 0.55 * sizes}
    # And draws of any size whose entries differ by up to fifteen orders of magnitude.
    rng = np.random.default_rng(0)
    magnitudes = 10.0 ** (rng.uniform(-15, 36, (60, 1)) - rng.uniform(0, 15, (60, 10)) * rng.integers(0, 2, (60, 1)))
    drawn = (rng.uniform(-1, 1, (60, 10)) * magnitudes).astype(np.float32)
    grads["w"] = jnp.concatenate([grads["w"], drawn[:, :9].reshape(60, 3, 3)])
    grads["b"] = jnp.concatenate([grads["b"], drawn[:, 9]])

    def play(make):
        def body(state, g):
            return make.update(g, state, params)[1], state

        start = make.init(jax.tree.map(lambda x: x[0], grads))
        last, states = jax.lax.scan(body, start, grads)
        states = jax.tree.map(lambda a, b: jnp.concatenate([a[1:], b[None]]), states, last)
        return states._replace(inner=())

    def without_report(rule):
        return optax.GradientTransformation(rule.init, untyped(lambda *args: rule.update(*args)))

    run = jax.jit(
        lambda: {n: (play(with_telemetry(r)), play(with_telemetry(without_report(r)))) for n, r in rules.items()}
    )
    for name, (told, seen) in run().items():
        for field in told._fields[1:9]:
            a, b = getattr(told, field), getattr(seen, field)
            np.testing.assert_allclose(a[:10], b[:10], rtol=3e-7, atol=1e-35, err_msg=f"{name}: {field}")
            np.testing.assert_allclose(a[10:], b[10:], rtol=1e-6, atol=1e-35, err_msg=f"{name}: {field}, drawn")
        np.testing.assert_array_equal(told.clipped, seen.clipped)
    assert run()["global"][0].clipped[:10].tolist() == [0, 1, 1, 0, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("rule", "grads", "want"),
    [
        # One entry far above the others, which exceed the limit, too.
        (clipping.clip(1e-2), [1e37] + [0.1] * 1000, [1e-2] * 1001),
        (clipping.clip(1e-9), [1e30, 1e-8], [1e-9, 1e-9]),
        # Limits so far below the gradient that their quotient is no float.
        (clipping.clip_by_global_norm(1e-36), [1e-28], [1e-36]),
        (clipping.clip_by_global_norm(1e-31), [1e15], [1e-31]),
        (clipping.clip_by_block_rms(1e-36), [1e-28], [1e-36]),
        (clipping.clip_by_block_rms(1e-31), [1e15, -1e15], [1e-31, -1e-31]),
        (clipping.clip_by_block_rms(1e-28), [1e30, 1e-25], [2**0.5 * 1e-28, 0.0]),
        (clipping.clip_by_leaf_norm(1e-30), [3e15, 4e15], [6e-31, 8e-31]),
    ],
)
def test_analytic_limits_far_below_the_gradient(rule, grads, want):
    transform, grads = with_telemetry(rule), jnp.array(grads)
    updates, state = jax.jit(transform.update)(grads, transform.init(grads))
    np.testing.assert_allclose(updates, want, rtol=1e-6)
    log, exact, cut = read_telemetry(state), np.asarray(grads, float), np.array(want)
    np.testing.assert_allclose(log["norm_after"], np.linalg.norm(cut), rtol=1e-6)
    np.testing.assert_allclose(log["cosine"], exact @ cut / np.linalg.norm(exact) / np.linalg.norm(cut), rtol=1e-6)
    assert log["clipped"] == 1


def test_property_at_the_limit_nothing_changes_unflagged():
    transform = with_telemetry(clipping.clip_by_block_rms(0.4))
    update = jax.jit(lambda grads: transform.update(grads, transform.init(grads)))
    for n in (1, 6, 19, 20, 29, 33):
        grads = jnp.full(n, 0.4) * (-1) ** jnp.arange(n)
        updates, state = update(grads)
        assert state.clipped or (updates == grads).all()


def test_parity_thresholds_of_more_precision_than_the_gradient(x64):
    grads = {"w_rec": jnp.full((2, 2), 2.0, jnp.float32)}
    for make in (clipping.clip_or_shrink, clipping.clip_by_global_norm, clipping.clip, clipping.clip_by_block_rms):

        def update(threshold, make=make):
            transform = on_trees(with_telemetry(make(threshold)))
            return transform.update(grads, transform.init(grads), grads)

        updates, state = jax.vmap(update)(jnp.linspace(0.5, 2.0, 3))
        assert updates["w_rec"].dtype == state.norm_after.dtype == jnp.float32
        np.testing.assert_allclose(state.norm_after, jnp.linalg.norm(updates["w_rec"], axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda t: optax.chain(t, optax.adam(1e-3)),
        lambda t: optax.masked(t, {"w": True, "b": False}),
        lambda t: optax.multi_transform({"x": t, "y": optax.sgd(0.1)}, {"w": "x", "b": "y"}),
        lambda t: optax.apply_if_finite(optax.chain(optax.identity(), optax.chain(t)), 3),
        lambda t: optax.inject_hyperparams(lambda lr: optax.chain(t, optax.sgd(lr)))(0.1),
        lambda t: with_telemetry(optax.chain(t, optax.sgd(0.1))),
    ],
)
def test_integration_found_anywhere(make):
    params = {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(1)}
    tx = make(with_telemetry(optax.clip_by_global_norm(1.0)))
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    log = read_telemetry({"train": (1, state)})
    prefix = "1/" if "1/step" in log else ""
    assert log[prefix + "norm_before"] == 5.0
    np.testing.assert_allclose(log[prefix + "norm_after"], 1.0, rtol=1e-6)


def test_integration_optax_rules_that_need_more_than_a_gradient():
    examples = {"w": jnp.array([[3.0, 4.0], [0.3, 0.4]])}
    params = {"w": jnp.zeros(2)}
    private = on_trees(with_telemetry(optax.contrib.differentially_private_aggregate(1.0, 0.0, key=jax.random.key(0))))
    updates, state = private.update(examples, private.init(params), params)
    np.testing.assert_allclose(updates["w"], [0.45, 0.6], rtol=1e-5)
    log = read_telemetry(state)
    told = np.array([log["norm_before"], log["norm_after"], log["cosine"]])
    np.testing.assert_allclose(told, [2.75, 0.75, 1.0], rtol=1e-5)
    normal = with_telemetry(optax.normalize_by_update_norm())
    _, state = normal.update({"w": jnp.array([3.0, 4.0])}, normal.init(params))
    np.testing.assert_allclose(read_telemetry(state)["norm_after"], 1.0, rtol=1e-5)


def test_invariance_a_run_axis_gives_arrays_of_what_each_run_says():
    tx = with_telemetry(clipping.clip_by_ema_norm())
    grads = jnp.array([[3.0, 4.0], [6.0, 8.0]])
    state = jax.vmap(lambda g: tx.update(g, tx.init(g))[1])(grads)
    both = read_telemetry(state)
    for run in range(2):
        one = read_telemetry(jax.tree.map(lambda x, run=run: x[run], state))
        assert {name: np.asarray(values)[run] for name, values in both.items()} == one
    np.testing.assert_array_equal(both["norm_before"], [5.0, 10.0])


def test_integration_recipe_loss_scaling_unscale_before_clip():
    params = jnp.zeros(2)
    gradient = jnp.array([3.0, 4.0])
    results = []
    for scale in (1.0, 1024.0):
        tx = optax.chain(optax.scale(1 / scale), clipping.clip_by_global_norm(1.0, nonfinite="skip"), optax.sgd(1.0))
        results.append(tx.update(gradient * scale, tx.init(params), params)[0])
        overflow, _ = tx.update(gradient * jnp.inf, tx.init(params), params)
        np.testing.assert_array_equal(overflow, [0, 0])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)


def test_integration_recipe_accumulation_clips_the_sum_not_the_parts():
    params = jnp.zeros(2)
    parts = jnp.array([[8.0, 0.0], [0.0, 1.0]])
    inside = on_trees(optax.MultiSteps(optax.chain(clipping.clip_by_global_norm(1.0), optax.sgd(1.0)), 2))
    updates, state = params, inside.init(params)
    for g in parts:
        updates, state = inside.update(g, state, params)
    mean = parts.mean(0)
    np.testing.assert_allclose(updates, -mean / jnp.linalg.norm(mean), rtol=1e-6)


def test_integration_recipe_noise_comes_after_the_clip():
    params = jnp.zeros(1000)
    tx = optax.chain(clipping.clip_by_global_norm(1e-3), optax.add_noise(eta=1.0, gamma=0.55, key=jax.random.key(0)))
    updates, _ = on_trees(tx).update(jnp.ones(1000), tx.init(params), params)
    np.testing.assert_allclose(jnp.std(updates), 1.0, rtol=0.1)


def test_integration_skip_rules_of_optax_leave_our_state_alone():
    skip = functools.partial(optax.skip_large_updates, max_squared_norm=100.0)
    inner = optax.chain(with_telemetry(clipping.clip_by_ema_norm()), optax.sgd(1.0))
    tx = optax.MultiSteps(inner, 1, should_skip_update_fn=skip)
    state = tx.init(jnp.zeros(1))
    for size in (1.0, 1e6, jnp.nan, 1.0):
        _, state = tx.update(jnp.array([size]), state, jnp.zeros(1))
    assert read_telemetry(state)["step"] == 2
