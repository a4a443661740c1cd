"""What every strategy promises, over one list: a new strategy is covered by adding its name."""

import functools
import inspect
import pickle

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from tests.clipping.strategies import (
    DTYPES,
    NAMES,
    PARAMS,
    RULES,
    STRATEGIES,
    compiled,
    epsilon,
    first_update,
    flat64,
    identical,
    norm64,
    quick_jit,
    tree,
)
from tests.untyped import on_trees, untyped

from cliffs import clipping

unit = st.floats(-1, 1, width=32).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
values = st.lists(unit, min_size=14, max_size=14)
exponents = st.tuples(*[st.integers(-34, 37)] * 4)
thresholds = st.floats(1 / 64, 128, width=32)


@pytest.mark.parametrize("name", NAMES)
@given(values, exponents, thresholds, st.sampled_from(DTYPES))
def test_property_finite_in_finite_out_with_shapes_and_dtypes_kept(name, values, exponents, threshold, dtype):
    grads = tree(values, dtype, [10.0**e for e in exponents])
    results = compiled(name, dtype)(tree(values, dtype), grads, threshold)
    for result in results[:2]:
        assert jax.tree.structure(result) == jax.tree.structure(grads)
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(grads)):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
    for x in jax.tree.leaves(results[1]):
        assert np.all(np.isfinite(np.asarray(x, np.complex128)))
    for x in jax.tree.leaves(results[3]):
        assert not np.any(np.isnan(np.asarray(x, np.complex128)))


@pytest.mark.parametrize("name", RULES)
@given(values, exponents, thresholds, st.sampled_from(DTYPES))
def test_property_norm_direction_and_idempotence(name, values, exponents, threshold, dtype):
    case = STRATEGIES[name]
    # Exponents that leave every entry of the result above the subnormal range of the type.
    scale = [10.0 ** (e % 3) for e in exponents]
    grads = tree(values, dtype, scale)
    once, twice, *_ = compiled(name, dtype)(grads, grads, threshold)
    eps = epsilon(dtype)
    before, after = norm64(grads), norm64(once)
    assert case.sets_norm or after <= before * (1 + 4 * eps)
    if case.bounds == "global":
        assert after <= threshold * (1 + 4 * eps) + 1e-6
    if case.bounds == "leaf":
        assert all(norm64(x) <= threshold * (1 + 4 * eps) + 1e-6 for x in jax.tree.leaves(once))
    if case.keeps_direction and before > 0 and after > 1e-3:
        a, b = flat64(grads), flat64(twice)
        assert np.vdot(a, b).real / (norm64(grads) * max(norm64(twice), 1e-30)) > 1 - 1e-4 or norm64(twice) < 1e-3
    if case.idempotent:
        again, *_ = compiled(name, dtype)(once, once, threshold)
        np.testing.assert_allclose(flat64(again), flat64(once), rtol=6 * eps, atol=1e-6 * threshold)


@pytest.mark.parametrize("name", [n for n in NAMES if STRATEGIES[n].exact])
@pytest.mark.parametrize("dtype", DTYPES)
def test_invariance_below_the_threshold_every_bit_stays(name, dtype):
    grads = tree(np.random.default_rng(0).uniform(-1, 1, 14), dtype)
    one, two, *_ = compiled(name, dtype)(grads, grads, 3e4)
    assert identical(one, grads)
    assert identical(two, grads)


@pytest.mark.parametrize("name", RULES)
def test_property_huge_and_tiny_gradients_are_clipped_as_their_scaled_copies(name):
    """1e30 and 1e-30 entries: the plain sum of squares is inf or 0, the result must be that of exact arithmetic."""
    base = np.random.default_rng(1).uniform(0.1, 1, 14)
    with jax.enable_x64(True):
        wide_params = jax.tree.map(lambda x: x.astype(jnp.float64), PARAMS["float32"])
        make = STRATEGIES[name].make

        @quick_jit
        def exact(grads, threshold):
            transform = make(threshold)
            state = transform.init(wide_params)
            _, state = transform.update(jax.tree.map(lambda x: x / 8, grads), state, wide_params)
            return transform.update(grads, state, wide_params)[0]

    cases = ((1e30, 1.0), (1e30, 1e30), (1e-30, 1.0), (1e-30, 1e-30))
    if name == "adaptive_grad_clip":  # optax divides by max(norm, 1e-6): in plain use wrong for the last case
        cases = cases[:3]
    for size, threshold in cases:
        grads = tree(base, scales=[size] * 4)
        eighth = jax.tree.map(lambda x: x / 8, grads)
        got = flat64(compiled(name, "float32")(eighth, grads, jnp.float32(threshold))[1])
        with jax.enable_x64(True):
            grads = jax.tree.map(lambda x: x.astype(jnp.float64), grads)
            want = flat64(exact(grads, jnp.float64(threshold)))
        np.testing.assert_allclose(got, want, rtol=3e-5, atol=1e-37, err_msg=f"{name} at {size}, threshold {threshold}")


@pytest.mark.parametrize("name", NAMES)
def test_property_zero_gradient_stays_zero_and_meta_gradients_are_finite(name):
    zero = jax.tree.map(jnp.zeros_like, PARAMS["float32"])
    small = jax.tree.map(lambda x: 1e-3 * x, PARAMS["float32"])
    case = STRATEGIES[name]

    @quick_jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def meta(grads, threshold):
        transform = case.make(threshold)
        state = transform.init(PARAMS["float32"])
        one, state = transform.update(grads, state, PARAMS["float32"])
        two, _ = transform.update(grads, state, PARAMS["float32"])
        return sum(jnp.sum(x**2 + x) for x in jax.tree.leaves((one, two))), two

    tiny = 1e-20
    # An infinite limit is none; an infinite norm to bring a gradient to is an error of the user's.
    unlimited = () if case.sets_norm else (1e30 if case.as_quantile else np.inf,)
    for threshold in (0.5, 1e4, tiny, *unlimited):
        for grads in (zero, small, PARAMS["float32"]):
            slopes, out = meta(grads, threshold)
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slopes))
            if grads is zero and not case.on_matrix:
                assert norm64(out) == 0


@pytest.mark.parametrize("name", NAMES)
def test_property_nonfinite_modes_and_no_poison_in_the_state(name):
    good = tree(np.random.default_rng(2).uniform(-1, 1, 14))
    default_mode = inspect.signature(STRATEGIES[name].factory).parameters["nonfinite"].default
    for bad_value in (np.nan, np.inf, -np.inf):
        bad = tree(np.random.default_rng(3).uniform(-1, 1, 14))
        bad["rnn"]["bias"] = bad["rnn"]["bias"].at[1].set(bad_value)
        for mode in ("propagate", "skip", "zero"):
            kwargs = {} if mode == default_mode else {"nonfinite": mode}
            _, out, middle, last = compiled(name, "float32", **kwargs)(good, bad, 0.5)
            if mode == "zero":
                assert np.all(np.isfinite(flat64(out)))
                filled = {**bad, "rnn": {**bad["rnn"], "bias": bad["rnn"]["bias"].at[1].set(0.0)}}
                _, want, _, state = compiled(name, "float32", nonfinite=mode)(good, filled, 0.5)
                assert identical(out, want)
                assert identical(last, state)
                continue
            assert identical(middle, last), "a gradient that is not finite must leave the state alone"
            assert identical(out, bad if mode == "propagate" else jax.tree.map(jnp.zeros_like, bad))


@pytest.mark.parametrize("name", RULES)
def test_property_a_complex_entry_of_which_one_part_is_bad_goes_on_as_it_came(name):
    if name == "clip_or_shrink":
        pytest.skip("answers it by another update")
    grads = {"w_rec": jnp.array([1 + 2j, complex(np.nan, 3), complex(4, np.inf), complex(-0.0, -np.inf)], "complex64")}
    rule = STRATEGIES[name].make(0.5)
    updates, _ = quick_jit(rule.update)(grads, rule.init(grads), jax.tree.map(jnp.ones_like, grads))
    assert identical(updates, grads)


@pytest.mark.parametrize("name", NAMES)
def test_property_nonfinite_raise(name):
    transform = STRATEGIES[name].make(1.0, nonfinite="raise")
    params = {"w_rec": jnp.ones((3, 3))}
    state = transform.init(params)
    update = quick_jit(transform.update)
    update(params, state, params)
    jax.effects_barrier()

    def run():
        jax.block_until_ready(update({"w_rec": params["w_rec"] * jnp.nan}, state, params))
        jax.effects_barrier()

    with pytest.raises(Exception, match="gradient with inf or NaN at update 0"):
        run()


@pytest.mark.parametrize("name", NAMES)
def test_invariance_vmap_schedules_inject_and_serialisation(name):
    """One compiled program for all of it; results must be those of the plain call."""
    case, params = STRATEGIES[name], PARAMS["float32"]
    grads = tree(np.random.default_rng(4).uniform(-1, 1, 14))
    run = compiled(name, "float32")
    limits = jnp.array([0.1, 0.5, 2.0])
    batched = quick_jit(jax.vmap(untyped(run).__wrapped__, in_axes=(None, None, 0)))(grads, grads, limits)
    for i, limit in enumerate(limits):
        for a, b in zip(jax.tree.leaves(batched[:2]), jax.tree.leaves(run(grads, grads, limit)[:2])):
            np.testing.assert_allclose(a[i], b, rtol=2e-5, atol=1e-6)
    # State: a NamedTuple of arrays that survives bytes and numpy.
    transform = case.make(0.5)
    state = transform.init(params)
    again = pickle.loads(pickle.dumps(jax.tree.map(np.asarray, state)))
    assert type(again).__name__ == type(state).__name__
    assert hasattr(again, "_fields")
    update = quick_jit(transform.update)
    assert identical(update(grads, again, params)[0], update(grads, state, params)[0])


SCHEDULED = [n for n in NAMES if not STRATEGIES[n].settings]


@pytest.mark.parametrize("name", SCHEDULED)
def test_parity_scheduled_threshold_takes_the_value_of_its_step(name):
    params, grads = PARAMS["float32"], tree(np.random.default_rng(5).uniform(-1, 1, 14))
    make = STRATEGIES[name].factory
    scheduled = make(lambda count: jnp.where(count == 0, 100.0, 0.3))

    @quick_jit
    def both(grads):
        state = scheduled.init(params)
        one, state = scheduled.update(grads, state, params)
        two, _ = scheduled.update(grads, state, params)
        plain = make(100.0)
        first, state = plain.update(grads, plain.init(params), params)
        second, _ = make(0.3).update(grads, state, params)
        return (one, two), (first, second)

    got, want = both(grads)
    np.testing.assert_allclose(flat64(got), flat64(want), rtol=1e-6, atol=1e-7)


WRAPPERS = {
    "chain, masked, MultiSteps": lambda t: optax.MultiSteps(
        optax.chain(
            optax.masked(clipping.with_telemetry(t), {"rnn": True, "scalar": False, "others": True}), optax.sgd(0.1)
        ),
        1,
    ),
    "multi_transform": lambda t: optax.multi_transform(
        {"a": clipping.with_telemetry(t, per_leaf=True), "b": optax.sgd(0.1)},
        {"rnn": "a", "scalar": "b", "others": "a"},
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_integration_inside_optax_wrappers(name):
    """Two steps inside optax's own wrappers against two steps of the rule on the leaves that the wrappers give it."""
    params, grads = PARAMS["float32"], tree(np.random.default_rng(6).uniform(-1, 1, 14))
    part, weights = ({k: t[k] for k in ("rnn", "others")} for t in (grads, params))

    def loop(transform, grads, params):
        def body(state, _):
            updates, state = transform.update(grads, state, params)
            return state, updates

        state, updates = jax.lax.scan(body, transform.init(params), length=2)
        return jax.tree.map(lambda x: x[1], updates), state

    @quick_jit
    def all_loops(grads, part):
        made = STRATEGIES[name].make(0.5)
        # Compiling is what this costs: every strategy goes through one of the two, in turn.
        key = list(WRAPPERS)[NAMES.index(name) % 2]
        wrapped = {key: loop(WRAPPERS[key](made), grads, params)}
        return wrapped, loop(made, part, weights)[0]

    wrapped, plain = all_loops(grads, part)
    for key, (updates, state) in wrapped.items():
        factor = -0.1 if "chain" in key else 1.0
        got = {k: updates[k] for k in part}
        np.testing.assert_allclose(flat64(got), factor * flat64(plain), rtol=1e-5, atol=1e-7, err_msg=key)
        np.testing.assert_allclose(updates["scalar"], -0.1 * grads["scalar"], rtol=1e-6)
        log = clipping.read_telemetry(state)
        assert log["step"] == 2
        np.testing.assert_allclose(log["norm_after"], norm64(plain), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_integration_inject_hyperparams_changes_the_threshold(name):
    """The first argument of every strategy as an injected hyperparameter, changed from outside between updates."""
    factory = getattr(clipping, name)
    fixed = {"static_args": "buffer_size"} if name == "clip_by_norm_quantile" else {}
    if name in ("clip_by_spectral_norm", "spectral_normalize", "project_spectral_radius"):
        fixed = {"static_args": "num_iterations"}
    if name in ("clip_by_zscore", "clip_by_ema_leaf_norm", "clip_spikes"):
        fixed = {"static_args": "warmup"}
    low, high = (0.0, 1.0) if STRATEGIES[name].as_quantile else (0.5, 100.0)
    transform = on_trees(optax.inject_hyperparams(factory, **untyped(fixed))(low))
    params = {"w_rec": jnp.array([[3.0, 0.5], [0.0, 4.0]])}
    state = transform.init(params)
    key = next(iter(state.hyperparams))

    @quick_jit
    def play(state, value):
        state.hyperparams[key] = value
        for size in (1.0, 2.0):
            updates, state = transform.update({"w_rec": size * params["w_rec"]}, state, params)
        return updates

    for value in (low, high):
        plain = factory(value)
        state_of_plain = plain.init(params)
        for size in (1.0, 2.0):
            want, state_of_plain = plain.update({"w_rec": size * params["w_rec"]}, state_of_plain, params)
        got = play(state, jnp.float32(value))
        np.testing.assert_allclose(got["w_rec"], want["w_rec"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_invariance_pmap(name):
    """A gradient on each device, averaged and clipped there, as data parallel training does."""
    transform, params, update = first_update(name)

    def averaged(scale):
        grads = jax.tree.map(lambda w: jax.lax.pmean(scale * w, "devices"), params)
        return transform.update(grads, transform.init(params), params)[0]

    spread = jax.pmap(averaged, "devices", devices=jax.devices()[:2])(jnp.array([1.0, 3.0]))
    want = update({"w_rec": 2 * params["w_rec"]})
    np.testing.assert_allclose(spread["w_rec"][0], want["w_rec"], rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(spread["w_rec"][0], spread["w_rec"][1])


@pytest.mark.parametrize("name", NAMES)
def test_invariance_sharded_gradients(name):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    _, params, update = first_update(name)
    got = update(jax.device_put(params, sharding))
    assert len(got["w_rec"].sharding.device_set) == 2
    np.testing.assert_allclose(got["w_rec"], update(params)["w_rec"], rtol=1e-6)


def test_invariance_shard_map_with_a_gradient_of_its_own_on_each_device():
    """Clipped before it is summed over devices, with JAX's check of what varies over them, in one program for all."""
    params = {"w_rec": jnp.linspace(-2.0, 3.0, 16).reshape(4, 4), "bias": jnp.ones(3)}
    rules = [clipping.with_telemetry(STRATEGIES[n].make(0.5)) for n in NAMES]
    rules += [clipping.with_telemetry(optax.adam(0.1), per_leaf=True, every=k) for k in (1, 2)]

    def play(scale):
        grads, found = jax.tree.map(lambda w: scale * w, params), []
        for rule in rules:
            # A state of its own on each device, too.
            state = jax.tree.map(lambda x: jnp.where(scale > 0, x, x), rule.init(params))
            updates, state = on_trees(rule).update(grads, state, params)
            found.append((updates, state.norm_after, state.cosine))
        return found

    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    spread = jax.shard_map(
        lambda s: jax.tree.map(lambda x: x[None], play(s[0])), mesh=mesh, in_specs=spec, out_specs=spec
    )
    scales = jnp.array([1.0, 3.0])
    got, alone = quick_jit(spread)(scales), quick_jit(play)
    for i in range(2):
        mine = jax.tree.map(lambda x, i=i: x[i], got)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), mine, alone(scales[i]))


BAD = [
    *[
        (n, (bad,), {})
        for n in (
            "clip",
            "clip_by_global_norm",
            "clip_by_block_rms",
            "adaptive_grad_clip",
            "clip_by_leaf_norm",
            "clip_by_group_norm",
            "soft_clip_by_global_norm",
            "clip_or_shrink",
            "clip_by_ema_norm",
            "clip_by_zscore",
            "clip_by_ema_leaf_norm",
            "clip_spikes",
            "clip_by_ema_max",
            "adaptive_grad_norm",
            "clip_by_group_band",
            "clip_update_rms",
            "clip_with_error_feedback",
            "clip_by_spectral_norm",
            "spectral_normalize",
            "project_spectral_radius",
        )
        for bad in (-1.0, np.nan)
    ],
    ("clip_by_norm_quantile", (1.5,), {}),
    ("clip_by_norm_quantile", (-0.1,), {}),
    ("clip_by_norm_quantile", (0.1, 0), {}),
    ("clip_by_ema_norm", (3.0, 1.0), {}),
    ("clip_by_ema_norm", (3.0, 0.9, "never"), {}),
    ("clip_by_zscore", (2.5, 1.0), {}),
    ("clip_by_zscore", (), {"warmup": 0}),
    ("clip_by_zscore", (), {"mode": "no"}),
    ("clip_spikes", (5e3, 1.0), {}),
    ("clip_by_ema_leaf_norm", (1.05, 1.0), {}),
    ("clip_by_block_rms", (0.0,), {}),
    ("clip_by_ema_max", (1.0, 1.0), {}),
    ("clip_by_spectral_norm", (1.0, "medium"), {}),
    *[("clip_by_spectral_norm", (1.0,), {"num_iterations": bad}) for bad in (0, 2.0, True)],
    *[("clip_by_spectral_norm", (clipping.EmaLimit(*bad),), {}) for bad in ((-1.0,), (1.0, 1.0))],
    *[("clip_by_spectral_norm", (clipping.QuantileLimit(*bad),), {}) for bad in ((1.1,), (0.5, -1.0))],
    *[("adaptive_grad_norm", (), {name: bad}) for name, bad in (("b1", 1.0), ("b2", 1.0), ("eps", -1.0))],
    *[("clip_by_group_band", (), {name: -0.1}) for name in ("low", "decay", "min_norm", "least_factor")],
    ("clip_by_group_band", (), {"most_factor": 0.9}),
    ("clip_by_group_band", (), {"update": "never"}),
    *[("clip_update_rms", (), {name: bad}) for name, bad in (("b2", 1.0), ("eps", -1.0))],
    *[("clip_with_error_feedback", (1.0,), {name: 1.1}) for name in ("b1", "b2")],
    ("spectral_normalize", (), {"num_iterations": 0}),
    *[(n, (1.0,), {"nonfinite": "ignore"}) for n in NAMES],
]


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(("name", "args", "kwargs"), BAD)
def test_property_bad_arguments_are_refused_when_built(name, args, kwargs):
    with pytest.raises(ValueError, match=r"must (lie|be)"):
        getattr(clipping, name)(*args, **kwargs)


def test_invariance_float64_gradients_give_float64_norms(x64):
    grads = {"w": jnp.array([3e200, 4e200])}
    transform = on_trees(clipping.clip_by_leaf_norm(1.0))
    updates, _ = transform.update(grads, transform.init(grads))
    np.testing.assert_allclose(updates["w"], [0.6, 0.8], rtol=1e-15)
