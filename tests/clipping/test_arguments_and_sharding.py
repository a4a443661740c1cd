"""What a threshold may be, small float types, meshes, and the registry that the tables are made from."""

import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.clipping.strategies import NAMES, STRATEGIES, identical, norm64, quick_jit
from tests.untyped import on_trees

from cliffs import clipping
from cliffs.clipping import read_telemetry, strategies_table, with_telemetry
from cliffs.clipping._numbers import at, check
from cliffs.clipping._strategy import reporting_update

ROOT = pathlib.Path(__file__).resolve().parents[2]
BY_NORM = (
    "clip_by_global_norm",
    "clip_by_leaf_norm",
    "clip_by_group_norm",
    "clip_by_block_rms",
    "soft_clip_by_global_norm",
    "clip_by_ema_norm",
    "clip_by_norm_quantile",
    "clip_by_zscore",
    "clip_by_ema_leaf_norm",
    "adaptive_grad_norm",
    "clip_by_group_band",
    "clip_with_error_feedback",
    "clip_or_shrink",
    "clip_by_ema_max",
    "clip_update_rms",
)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "bad", ["1.0", b"1", np.array([1.0, 2.0]), jnp.ones((2,)), None, 1j, "warmup_cosine", [1.0]], ids=repr
)
def test_wrong_a_threshold_that_is_no_number_is_refused_when_built(name, bad):
    with pytest.raises(ValueError, match=f"^{STRATEGIES[name].argument} must be a (real|single) number"):
        STRATEGIES[name].factory(bad)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", NAMES)
def test_wrong_a_threshold_with_axes_is_refused_inside_jit_and_from_a_schedule(name):
    params = {"w_rec": jnp.ones((3, 3))}
    with pytest.raises(ValueError, match="must be a single number, got an array of shape"):
        jax.jit(lambda t: STRATEGIES[name].factory(t).init(params))(jnp.ones(3))
    rule = STRATEGIES[name].factory(lambda count: jnp.ones(3))
    with pytest.raises(ValueError, match="must be a single number, got an array of shape"):
        rule.update(params, rule.init(params), params)


@pytest.mark.wrong_arguments  # the annotation is optax's, which knows no integers of numpy
@pytest.mark.parametrize("name", [name for name in NAMES if STRATEGIES[name].argument != "quantile"])
def test_property_a_whole_number_beyond_32_bits_is_the_number_that_it_is(name):
    params = {"w_rec": jnp.array([[0.3, 0.4], [0.0, 0.1]])}
    gradient = {"w_rec": jnp.array([[3.0, 4.0], [0.0, 1.0]])}
    found = []
    for threshold in (np.int64(2**32), float(2**32)):
        rule = STRATEGIES[name].factory(threshold)
        found.append(quick_jit(rule.update)(gradient, rule.init(params), params)[0]["w_rec"])
    assert identical(found[:1], found[1:])


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("whole", [2**40, 10**25, np.int64(3 * 10**9), np.longdouble(5)], ids=repr)
def test_property_numbers_and_schedules_of_any_size_are_taken_as_floats(whole):
    check("limit", whole)
    count = jnp.int32(0)
    assert at(whole, count) == at(lambda count: whole, count) == float(whole)


def test_property_whole_numbers_of_other_arguments_may_be_large():
    gradient = {"w_rec": jnp.ones((2, 2))}
    for rule in (
        clipping.clip_or_shrink(10.0, limit=10**10),
        clipping.clip_by_zscore(max_norm=10**10, warmup=10**12),
        clipping.clip_spikes(9.0, warmup=2**32),
        clipping.clip_by_ema_leaf_norm(2.0, warmup=2**40, max_norm=10**10),
    ):
        new = on_trees(rule).update(gradient, rule.init(gradient), gradient)[0]
        assert identical([new["w_rec"]], [gradient["w_rec"]])


@pytest.mark.parametrize("name", NAMES)
def test_property_float8_gradients_are_clipped_as_float32_ones_are(name):
    values = jnp.array([[3.0, 0.5], [-1.0, 2.0]])
    outs = {}
    for dtype in ("float32", "float8_e4m3fn", "float8_e5m2"):
        params = {"w_rec": values.astype(dtype)}
        rule = on_trees(with_telemetry(STRATEGIES[name].make(0.5)))
        updates, state = {}, rule.init(params)
        for _ in range(2):
            updates, state = rule.update(params, state, params)
        assert updates["w_rec"].dtype == dtype
        outs[dtype] = np.asarray(updates["w_rec"].astype(jnp.float32))
    for dtype, eps in (("float8_e4m3fn", 2.0**-4), ("float8_e5m2", 2.0**-3)):
        np.testing.assert_allclose(outs[dtype], outs["float32"], rtol=2 * eps, atol=2 * eps * 0.5)


@pytest.mark.parametrize("name", NAMES)
def test_property_replacing_a_part_keeps_what_a_strategy_reports(name):
    params = {"w_rec": jnp.linspace(-2.0, 3.0, 9).reshape(3, 3)}
    rule = STRATEGIES[name].make(0.5)
    again = rule._replace(init=lambda p: rule.init(p))
    assert isinstance(again, optax.GradientTransformationExtraArgs)
    assert reporting_update(again) is reporting_update(rule)
    logs = []
    for made in (rule, again):
        recorded = with_telemetry(made)
        logs.append(read_telemetry(recorded.update(params, recorded.init(params), params)[1]))
    assert logs[0] == logs[1]


RECORDED = [on_trees(with_telemetry(STRATEGIES[name].make(0.5))) for name in NAMES]


@quick_jit
def first_states(params):
    return [rule.init(params) for rule in RECORDED]


@quick_jit
def update_of_each(params, states):
    found = [rule.update(params, state, params) for rule, state in zip(RECORDED, states)]
    return [(updates, state.norm_after, state.cosine) for updates, state in found], [state for _, state in found]


def second_updates(params):
    """Of every strategy with telemetry: one program, called twice."""
    _, states = update_of_each(params, first_states(params))
    return update_of_each(params, states)[0]


@pytest.fixture(scope="module")
def undivided():
    """The gradients, and what becomes of them on one device."""
    matrix = jnp.linspace(-2.0, 3.0, 16).reshape(4, 4)
    whole = {"w_rec": matrix, "w_in": matrix[::-1], "bias": jnp.ones(3)}
    return whole, second_updates(whole)


def test_invariance_meshes_with_explicit_axes(undivided):
    """A matrix whose rows are spread over two devices, one whose columns are, and a bias that each holds whole."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Explicit,))
    whole, want = undivided
    with jax.set_mesh(mesh):
        specs = {"w_rec": jax.sharding.PartitionSpec("x", None), "w_in": jax.sharding.PartitionSpec(None, "x")}
        places = {name: jax.sharding.NamedSharding(mesh, spec) for name, spec in specs.items()}
        spread = whole | {name: jax.device_put(whole[name], place) for name, place in places.items()}
        got = second_updates(spread)
        for name, spec in specs.items():
            assert got[0][0][name].sharding.spec == spec
        jax.tree.map(lambda a, b: np.testing.assert_allclose(np.asarray(a), b, rtol=2e-5, atol=1e-6), got, want)


def test_invariance_with_an_axis_name_the_pieces_are_clipped_as_the_whole_is():
    """Inside `shard_map`: a matrix spread over four devices, a bias that each device holds whole."""
    if jax.device_count() < 4:
        pytest.skip("needs four devices")
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = {"w_rec": jax.sharding.PartitionSpec("x"), "bias": jax.sharding.PartitionSpec()}
    grads = {"w_rec": jnp.linspace(-2.0, 3.0, 32).reshape(8, 4), "bias": jnp.array([0.5, -2.0])}

    def play(axis_name):
        def run(grads):
            results = {}
            for name in BY_NORM:
                rule = on_trees(with_telemetry(STRATEGIES[name].make(0.5, axis_name=axis_name)))
                updates, state = {}, rule.init(grads)
                for size in (0.3, 1.0):
                    scaled = jax.tree.map(lambda g, s=size: s * g, grads)
                    updates, state = rule.update(scaled, state, grads)
                results[name] = updates, state.norm_before, state.norm_after, state.cosine
            return results

        return run

    out = {name: (spec, *[jax.sharding.PartitionSpec()] * 3) for name in BY_NORM}
    got = jax.jit(jax.shard_map(play("x"), mesh=mesh, in_specs=(spec,), out_specs=out))(grads)
    want = quick_jit(play(None))(grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
    # Without the name each device clips its own piece: longer together than the limit.
    local = jax.shard_map(
        lambda g: play(None)(g)["clip_by_global_norm"][0]["w_rec"],
        mesh=mesh,
        in_specs=(spec,),
        out_specs=spec["w_rec"],
    )
    assert norm64(jax.jit(local)(grads)) > 0.6


def test_invariance_with_an_axis_name_in_pmap():
    grads = {"w": jnp.linspace(-2.0, 3.0, 16).reshape(2, 8)}
    rule = on_trees(clipping.clip_by_global_norm(0.5, axis_name="x"))
    got = jax.pmap(lambda g: rule.update(g, rule.init(g))[0], "x", devices=jax.devices()[:2])(grads)
    plain = on_trees(clipping.clip_by_global_norm(0.5))
    want = plain.update(grads, plain.init(grads))[0]
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-6)


def test_invariance_gradients_of_a_norm_over_devices_are_those_of_the_whole():
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    x = jnp.linspace(-2.0, 3.0, 8)

    def spread(x):
        value = jax.shard_map(
            lambda x: clipping.tree_norm(x, "x").value, mesh=mesh, in_specs=spec, out_specs=jax.sharding.PartitionSpec()
        )(x)
        return value**2

    np.testing.assert_allclose(jax.grad(spread)(x), 2 * x, rtol=1e-5)


@pytest.mark.parametrize("name", ["clip_by_ema_max", "clip_update_rms", "clip_by_block_rms"])
def test_invariance_derivatives_through_a_rule_over_devices_are_those_of_the_whole(name):
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("x")
    x = jnp.array([0.5, -2.0, 1.0, 0.3, 3.0, -0.7, 0.2, 1.5])  # the largest entry lies on the second device
    weights = jnp.linspace(1.0, 2.0, 8)

    def second(axis_name):
        def run(x):
            rule = on_trees(STRATEGIES[name].make(0.5, axis_name=axis_name))
            state = rule.init(x)
            _, state = rule.update(0.3 * x, state, x)
            return rule.update(x, state, x)[0]

        return run

    spread = jax.shard_map(second("x"), mesh=mesh, in_specs=spec, out_specs=spec)
    got, want = (jax.grad(lambda x, f=f: weights @ f(x))(x) for f in (spread, second(None)))
    assert np.abs(want - weights).max() > 0.1  # the rule is at work
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-5)


def test_documented_every_strategy_is_in_the_registry_and_takes_a_threshold_first():
    exported = {n for n in vars(clipping) if n.startswith(("clip", "soft_clip", "spectral", "project", "adaptive"))}
    assert exported == set(STRATEGIES)
    for name, info in STRATEGIES.items():
        assert getattr(clipping, name) is info.factory
        assert info.argument in info.schedules


def test_documented_tables_are_made_from_the_registry():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    texts = {str(page): page.read_text() for page in pages if page.exists()}
    texts["cliffs.clipping"] = str(clipping.__doc__)
    found = {name: re.findall(r"\| strategy \| rule \|.*\n(?:\|.*\n?)+", text) for name, text in texts.items()}
    assert found["cliffs.clipping"]
    for name, tables in found.items():
        for table in tables:
            assert table.strip() == strategies_table(), name


def test_property_trees_of_leaves_without_numbers_pass_as_they_are():
    tree = {"steps": jnp.array([1, 2]), "none": None, "key": jax.random.key(0), "text": len}
    for name in NAMES:
        if not STRATEGIES[name].on_matrix and name != "clip_or_shrink":
            rule = on_trees(with_telemetry(STRATEGIES[name].make(0.5)))
            updates, state = rule.update(tree, rule.init(tree), tree)
            assert updates["text"] is len
            assert identical([updates["steps"]], [tree["steps"]])
            assert read_telemetry(state)["clipped"] == 0


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", ["clip_spikes", "clip_update_rms", "clip_with_error_feedback"])
@pytest.mark.parametrize("shape", [(4, 3), (1, 3), (2,), ()])
def test_wrong_a_gradient_of_another_shape_is_refused(name, shape):
    """An array of each parameter's shape is kept: a batch axis that nobody averaged over would be broadcast into it."""
    rule = on_trees(STRATEGIES[name].make(1.0))
    state = rule.init({"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"the gradient at 'w' has shape .* have \(3,\)"):
        rule.update({"w": jnp.ones(shape)}, state)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", ["clip_by_ema_leaf_norm", "clip_by_ema_max", "adaptive_grad_norm", "clip_spikes"])
def test_wrong_a_gradient_that_has_lost_all_leaves_is_refused(name):
    rule = on_trees(STRATEGIES[name].make(1.0))
    params = {"w": jnp.zeros(3)}
    with pytest.raises(ValueError, match="lacks the leaf 'w'"):
        rule.update({}, rule.init(params))
    assert rule.update({"w": None}, rule.init(params))[0] == {"w": None}


def test_property_telemetry_by_leaf_takes_a_model_of_which_nothing_is_left():
    class Model(eqx.Module):
        w: jax.Array

    model = Model(jnp.ones(2))
    recorded = with_telemetry(clipping.clip_by_global_norm(1.0), per_leaf=True)
    labels = jax.tree.map(lambda _: "other", model)
    rule = on_trees(optax.multi_transform({"clipped": recorded, "other": optax.sgd(0.1)}, labels))
    updates, state = rule.update(model, rule.init(model), model)
    assert identical([updates.w], [jnp.full(2, -0.1)])
    assert read_telemetry(state)["norm_before"] == 0
