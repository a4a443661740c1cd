"""Skipped steps leave no trace in the optimizer, and are those that the published rule skips."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.clipping.strategies import identical
from tests.untyped import on_trees, untyped

from cliffs.clipping import clip_by_ema_norm, read_telemetry, skip_outliers, with_telemetry

PARAMS = {"w": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "b": jnp.ones(3)}


def inner():
    return optax.chain(with_telemetry(clip_by_ema_norm()), optax.adamw(optax.linear_schedule(0.1, 0.01, 20)))


def series(steps, bad, value):
    """Gradients and losses of a quiet run with one bad step; and the same run without it."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(0, 0.1, steps)).astype(np.float32)
    losses = np.exp(rng.normal(0, 0.05, steps)).astype(np.float32)
    scale[bad], losses[bad] = value
    grads = {k: jnp.asarray(scale.reshape(-1, *[1] * v.ndim)) * (0.5 + v) for k, v in PARAMS.items()}
    return grads, jnp.asarray(losses)


def without(tree, bad):
    return jax.tree.map(lambda x: jnp.delete(x, bad, axis=0), tree)


def play(optimizer, grads, losses, params=PARAMS):
    def body(carry, each):
        params, state = carry
        grad, loss = each
        updates, state = optimizer.update(grad, state, params, value=loss)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(body, (params, optimizer.init(params)), (grads, losses))[0]


BAD = {"norm": (1e3, 1.0), "loss": (1.0, 1e3), "nan": (np.nan, 1.0), "inf loss": (1.0, np.inf)}


@pytest.mark.parametrize("kind", BAD)
def test_invariance_a_skipped_step_was_never_seen_to_the_bit(kind):
    steps, bad = 24, 20
    grads, losses = series(steps, bad, BAD[kind])
    optimizer = skip_outliers(inner(), window=16)
    params, state = jax.jit(functools.partial(play, optimizer))(grads, losses)
    rest = without((grads, losses), bad)
    want, never = jax.jit(functools.partial(play, optimizer))(*rest)
    assert int(state.skipped) == 1
    assert int(state.count) == steps - 1
    assert int(state.recorded) == steps - (kind in ("nan", "inf loss"))
    assert int(never.skipped) == 0
    assert identical(params, want)
    assert identical(state.inner, never.inner)
    # Another program may round otherwise.
    bare, _ = jax.jit(functools.partial(play, optax.with_extra_args_support(inner())))(*rest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, bare)
    assert read_telemetry(state)["step"] == steps - 1


def test_invariance_over_runs_in_multi_steps_and_with_injected_numbers():
    """One bad run of three: under vmap, around and inside `MultiSteps`, and with sigmas set from outside."""
    runs = [series(24, 20, value) for value in ((1.0, 1.0), BAD["norm"], BAD["nan"])]
    grads, losses = jax.tree.map(lambda *x: jnp.stack(x), *runs)
    made = {
        "plain": skip_outliers(inner(), window=16),
        "around": skip_outliers(optax.MultiSteps(inner(), 2), window=16),
        "inside": optax.MultiSteps(skip_outliers(inner(), window=8), 2),
        "injected": optax.inject_hyperparams(
            lambda loss_sigma, norm_sigma: skip_outliers(inner(), 16, loss_sigma, norm_sigma)
        )(loss_sigma=6.0, norm_sigma=6.0),
    }
    results = {}
    for name, optimizer in made.items():
        params, _ = jax.jit(jax.vmap(functools.partial(play, optimizer)))(grads, losses)
        assert np.isfinite(params["w"]).all(), name
        for i, run in enumerate(runs):
            alone, _ = jax.jit(functools.partial(play, optimizer))(*run)
            np.testing.assert_allclose(params["w"][i], alone["w"], rtol=1e-5, err_msg=name)
        results[name] = params["w"]
    np.testing.assert_allclose(results["injected"], results["plain"], rtol=1e-6)


def test_property_a_skipped_step_leaves_meta_gradients_finite():
    """The derivative of three steps by the size of the gradient, one of which is NaN."""
    optimizer = skip_outliers(optax.adam(0.1), window=4)

    def moved(size, bad):
        params, state = jnp.ones(2), optimizer.init(jnp.ones(2))
        for i in range(4):
            updates, state = optimizer.update(size * params + bad * (i == 2), state, params, value=size)
            params = optax.apply_updates(params, updates)
        return untyped(params)[0]

    value, slope = jax.value_and_grad(moved)(1.0, jnp.nan)
    assert np.isfinite(value)
    assert np.isfinite(slope)


@pytest.mark.parametrize("check_vma", [False, True])
def test_invariance_all_devices_decide_alike_from_losses_of_their_own(check_vma):
    """Inside `shard_map`, a loss of 50 on one of two devices: both leave that step out, or their weights part."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    losses = np.array([1, 1.1, 0.9, 1, 1.05, 1, 1, 1])[:, None] * np.ones((1, 2))
    losses[6, 0] = 50.0
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    optimizer = on_trees(skip_outliers(optax.sgd(1.0), window=4, axis_name="x"))
    spread = jax.sharding.PartitionSpec(None, "x")

    def run(losses):
        def body(state, loss):
            updates, state = optimizer.update(jnp.ones(1), state, value=loss[0])
            return state, updates

        return jax.lax.scan(body, optimizer.init(jnp.zeros(1)), losses)[1] + 0 * losses

    mapped = jax.shard_map(run, mesh=mesh, in_specs=(spread,), out_specs=spread, check_vma=check_vma)
    updates = jax.jit(mapped)(jnp.asarray(losses, jnp.float32))
    np.testing.assert_array_equal(updates, np.where(np.arange(8) == 6, 0.0, -1.0)[:, None] * np.ones((1, 2)))


@pytest.mark.parametrize("window", [16, 17])
def test_parity_with_the_published_rule_over_a_thousand_steps(x64, window):
    rng = np.random.default_rng(1)
    spikes = np.where(rng.random(1000) < 0.05, rng.uniform(2, 50, 1000), 1)
    norms = np.exp(np.cumsum(rng.normal(0, 0.01, 1000))) * rng.uniform(0.5, 1.5, 1000) * spikes
    losses = rng.normal(3, 0.3, 1000) * np.where(rng.random(1000) < 0.02, 4, 1)
    optimizer = on_trees(skip_outliers(optax.sgd(1.0), window, loss_sigma=3.0, norm_sigma=2.5))

    def body(state, each):
        norm, loss = each
        updates, state = optimizer.update(norm[None], state, value=loss)
        return state, updates[0] != 0

    took = jax.jit(lambda *each: jax.lax.scan(body, optimizer.init(jnp.zeros(1)), each)[1])
    took = np.asarray(took(jnp.asarray(norms), jnp.asarray(losses)))
    seen: list[tuple[float, float]] = []
    skipped = 0
    for i, pair in enumerate(zip(losses, norms)):
        last, take = np.array(seen[-window:]), True
        if len(last) >= max(2, window / 2):
            mean, std = last.mean(0), last.std(0, ddof=1)
            take = bool(np.all(np.array(pair) - mean <= np.array([3.0, 2.5]) * std))
        assert took[i] == take
        skipped += not take
        seen.append(pair)
    assert skipped > 20


@pytest.mark.wrong_arguments
def test_wrong_a_call_without_the_loss_and_numbers_out_of_range():
    optimizer = skip_outliers(optax.sgd(1.0))
    with pytest.raises(ValueError, match="needs the loss"):
        optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)))
    by_norm = on_trees(skip_outliers(optax.sgd(1.0), loss_sigma=None))
    assert float(by_norm.update(jnp.ones(1), by_norm.init(jnp.ones(1)))[0][0]) == -1
    for value in ("1.0", 1 + 2j, jnp.ones(1), jnp.ones(3), (jnp.array(1.0), {}), True):
        with pytest.raises(ValueError, match=r"value, the loss, must be a (real|single) number, got"):
            optimizer.update(jnp.ones(1), optimizer.init(jnp.ones(1)), value=untyped(value))
    assert on_trees(skip_outliers(optax.sgd(1.0), untyped(np.int64(4)))).init(jnp.ones(1)).losses.shape == (4,)
    for kwargs in map(untyped, ({"window": 1}, {"window": 2.0}, {"loss_sigma": -1.0}, {"norm_sigma": "6"})):
        with pytest.raises(ValueError, match="must"):
            skip_outliers(optax.sgd(1.0), **kwargs)
