"""The same strategies in the trees and optimizers of flax nnx, flax linen, equinox and plain dicts."""

import functools
from collections.abc import Callable

import flax.linen as linen
import flax.serialization
import flax.training.train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tests.clipping.strategies import NAMES, STRATEGIES, identical
from tests.untyped import on_trees, untyped

from cliffs import clipping
from cliffs.clipping import read_telemetry, with_telemetry

LIMIT = 0.5
INPUTS = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
WEIGHTS = {
    "w_rec": jnp.linspace(-2.0, 3.0, 9).reshape(3, 3),
    "readout": {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(3, 2), "bias": jnp.array([0.5, -0.5])},
}


def loss(weights, inputs):
    hidden = jnp.tanh(inputs @ weights["w_rec"])
    out = hidden @ weights["readout"]["kernel"] + weights["readout"]["bias"]
    return 10 * jnp.sum(out**2)


def chain(name):
    """The strategy under telemetry with SGD, in the order that it is made for."""
    recorded = with_telemetry(STRATEGIES[name].make(LIMIT), per_leaf=True)
    parts = (optax.sgd(0.1), recorded) if STRATEGIES[name].on_matrix else (recorded, optax.sgd(0.1))
    return optax.chain(*parts)


@functools.cache
def plain(name):
    """Weights and telemetry after two steps on plain dicts."""
    transform, weights = chain(name), WEIGHTS
    state = transform.init(weights)
    for _ in range(2):
        updates, state = transform.update(jax.grad(loss)(weights, INPUTS), state, weights)
        weights = optax.apply_updates(weights, updates)
    return weights, read_telemetry(state)


def assert_same(got, log, name):
    want, want_log = plain(name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), got, want)
    assert log.keys() == want_log.keys()
    for key, value in want_log.items():
        np.testing.assert_allclose(log[key], value, rtol=2e-5, atol=1e-6, err_msg=key)


class NnxModel(nnx.Module):
    def __init__(self):
        self.w_rec = nnx.Param(WEIGHTS["w_rec"])
        self.readout = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
        self.readout.kernel[...] = WEIGHTS["readout"]["kernel"]
        untyped(self.readout.bias)[...] = WEIGHTS["readout"]["bias"]


def nnx_weights(model):
    return {
        "w_rec": model.w_rec[...],
        "readout": {"kernel": model.readout.kernel[...], "bias": model.readout.bias[...]},
    }


@pytest.mark.parametrize("name", NAMES)
def test_integration_nnx_optimizer(name):
    model = NnxModel()
    optimizer = nnx.Optimizer(model, chain(name), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: loss(nnx_weights(model), INPUTS))(model))

    for _ in range(2):
        step(model, optimizer)
    assert_same(nnx_weights(model), read_telemetry(nnx.state(optimizer)), name)
    assert_same(nnx_weights(model), read_telemetry(optimizer.opt_state), name)


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, x):
        w_rec = self.param("w_rec", lambda key: WEIGHTS["w_rec"])
        return linen.Dense(2, name="readout")(jnp.tanh(x @ w_rec))


@pytest.mark.parametrize("name", NAMES)
def test_integration_linen_train_state(name):
    model = LinenModel()
    train = flax.training.train_state.TrainState.create(apply_fn=model.apply, params=WEIGHTS, tx=chain(name))

    @jax.jit
    def step(train):
        grads = jax.grad(lambda p: 10 * jnp.sum(train.apply_fn({"params": p}, INPUTS) ** 2))(train.params)
        return train.apply_gradients(grads=grads)

    train = step(step(train))
    assert_same(train.params, read_telemetry(train), name)


@pytest.mark.parametrize("name", NAMES)
def test_integration_equinox_module_with_functions_and_integers_among_its_leaves(name):
    eqx = pytest.importorskip("equinox")

    class Readout(eqx.Module):
        kernel: jax.Array
        bias: jax.Array

    class Model(eqx.Module):
        w_rec: jax.Array
        readout: Readout
        steps: jax.Array
        activation: Callable[[jax.Array], jax.Array]

        def __call__(self, x):
            return self.activation(x @ self.w_rec) @ self.readout.kernel + self.readout.bias

    model = Model(WEIGHTS["w_rec"], Readout(**WEIGHTS["readout"]), jnp.array([3, 4]), jnp.tanh)
    transform = chain(name)
    # SGD itself takes arrays only; the strategy alone also takes the whole module.
    state = transform.init(eqx.filter(model, eqx.is_inexact_array))
    whole = on_trees(STRATEGIES[name].make(LIMIT))
    whole_state = whole.init(model)

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(lambda m: 10 * jnp.sum(m(INPUTS) ** 2))(model)
        assert grads.steps is None
        updates, state = transform.update(grads, state, model)
        return eqx.apply_updates(model, updates), state, grads

    for i in range(2):
        before = model
        model, state, grads = step(model, state)
        alone, whole_state = whole.update(grads, whole_state, before)
        assert alone.activation is None, "what has no gradient passes through"
        if i == 0 and not STRATEGIES[name].on_matrix:
            got = jax.tree.map(lambda g: -0.1 * g, eqx.filter(alone, eqx.is_inexact_array))
            want = eqx.apply_updates(eqx.filter(before, eqx.is_inexact_array), got)
            np.testing.assert_allclose(want.w_rec, model.w_rec, rtol=1e-5, atol=1e-6)
    weights = {"w_rec": model.w_rec, "readout": {"kernel": model.readout.kernel, "bias": model.readout.bias}}
    assert_same(weights, read_telemetry(state), name)
    assert model.steps.tolist() == [3, 4]


@pytest.mark.parametrize("name", NAMES)
def test_invariance_a_missing_gradient_changes_nothing_for_the_others(name):
    """A frozen leaf, its gradient None and its parameter large, against trees without that leaf."""
    rest = {"w": jnp.full((2, 2), 3.0), "w_rec": jnp.array([[3.0, 1.0], [0.0, 2.0]])}
    frozen = {"a_frozen": 100 * jnp.ones((2, 2)), "m_frozen": {"x": jnp.ones(3), "y": jnp.ones(())}}
    made = on_trees(with_telemetry(STRATEGIES[name].make(LIMIT), per_leaf=True))
    results = []
    for extra, hole in (
        ({}, {}),
        (frozen, {"a_frozen": None, "m_frozen": None}),
        (frozen, {"a_frozen": None, "m_frozen": {"x": None, "y": None}}),
    ):
        params, grads = extra | rest, hole | rest
        updates, state = {}, made.init(params)
        for size in (1.0, 4.0):
            updates, state = made.update(jax.tree.map(lambda g, s=size: s * g, grads), state, params)
        results.append(({k: updates[k] for k in rest}, read_telemetry(state)))
        assert jax.tree.structure(updates) == jax.tree.structure(grads)
    for updates, log in results[1:]:
        assert identical(updates, results[0][0])
        assert {k: log[k] for k in results[0][1]} == results[0][1]


def test_analytic_agc_sees_the_weights_of_its_own_leaf():
    params = {"a_frozen": 100 * jnp.ones(4), "w": jnp.ones(4)}
    rule = on_trees(clipping.adaptive_grad_clip(0.01))
    updates, _ = rule.update({"a_frozen": None, "w": jnp.ones(4)}, rule.init(params), params)
    assert updates["a_frozen"] is None
    np.testing.assert_allclose(updates["w"], 0.01, rtol=1e-6)


READS_PARAMS = ("adaptive_grad_clip", "clip_or_shrink", "spectral_normalize", "project_spectral_radius")
HAS_LEAVES = (
    *READS_PARAMS,
    "clip_by_ema_leaf_norm",
    "clip_spikes",
    "clip_by_ema_max",
    "adaptive_grad_norm",
    "clip_update_rms",
    "clip_with_error_feedback",
)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", HAS_LEAVES)
@pytest.mark.parametrize(
    ("grads", "first"),
    [
        ({"other": jnp.ones((2, 2)), "w_rec": jnp.ones((2, 2))}, "'other'"),
        ([jnp.ones((2, 2)), jnp.ones((2, 2))], "'0'"),
        ({"w_rec": jnp.ones((2, 2))}, "'w'"),
    ],
)
def test_wrong_a_gradient_of_another_tree_names_the_first_path_that_differs(name, grads, first):
    params = {"w": jnp.ones((2, 2)), "w_rec": jnp.ones((2, 2))}
    rule = STRATEGIES[name].make(LIMIT)
    with pytest.raises(ValueError, match=first):
        rule.update(grads, rule.init(params), params)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", READS_PARAMS)
def test_wrong_shapes_name_the_leaf(name):
    params = {"w": jnp.ones((2, 2)), "w_rec": jnp.ones((2, 2))}
    rule = STRATEGIES[name].make(LIMIT)
    with pytest.raises(ValueError, match=r"gradient at 'w' has shape \(3, 2\), params have \(2, 2\)"):
        rule.update(params | {"w": jnp.ones((3, 2))}, rule.init(params), params)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", ["clip_or_shrink", "spectral_normalize", "project_spectral_radius"])
def test_wrong_a_leaf_that_was_selected_is_gone(name):
    params = {"w_rec": jnp.ones((2, 2))}
    rule = STRATEGIES[name].make(LIMIT)
    state, renamed = rule.init(params), {"w": jnp.ones((2, 2))}
    with pytest.raises(ValueError, match=r"finds no leaf|have no leaf 'w_rec'"):
        rule.update(renamed, state, renamed)


def test_integration_a_select_of_ones_own_constrains_in_nnx():
    model = NnxModel()
    rule = clipping.spectral_normalize(1.0, select=lambda path: path == "w_rec", num_iterations=10)
    optimizer = nnx.Optimizer(model, optax.chain(optax.sgd(0.0), rule), wrt=nnx.Param)
    optimizer.update(model, nnx.grad(lambda model: loss(nnx_weights(model), INPUTS))(model))
    np.testing.assert_allclose(np.linalg.norm(model.w_rec[...], 2), 1.0, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_integration_tree_map_params_finds_what_copies_the_parameters(name):
    """How people place an optimizer's state: what has the shapes of the parameters gets theirs, the rest another."""
    params = {"w_rec": jnp.ones((2, 2)), "b": jnp.ones(2)}
    transform = with_telemetry(STRATEGIES[name].make(LIMIT), per_leaf=True)
    state = transform.init(params)
    marked = optax.tree_map_params(
        transform, lambda x, spec: spec, state, {"w_rec": "matrix", "b": "vector"}, transform_non_params=lambda x: None
    )
    found = sorted(x for x in jax.tree.leaves(marked) if isinstance(x, str))
    assert found == sorted(["matrix", "vector"] * STRATEGIES[name].copies)
    same = optax.tree_map_params(transform, lambda x: x, state)
    assert identical(same, state)


@pytest.mark.parametrize("name", NAMES)
def test_integration_flax_writes_and_reads_the_state(name):
    params = {"w_rec": jnp.ones((2, 2)), "dense": {"b": jnp.ones(2)}}
    transform = with_telemetry(STRATEGIES[name].make(LIMIT), per_leaf=True)
    state = jax.tree.map(lambda x: x + 1 if x.dtype != bool else ~x, transform.init(params))
    again = flax.serialization.from_bytes(transform.init(params), flax.serialization.to_bytes(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    assert identical(again, state)


@pytest.mark.parametrize(
    "rule",
    [
        clipping.clip_by_ema_leaf_norm(warmup=1, max_norm=1e6),
        clipping.clip_by_ema_max(),
        clipping.adaptive_grad_norm(),
        clipping.clip_by_group_band(group=lambda path: path),
    ],
    ids=["ema_leaf_norm", "ema_max", "grad_norm", "group_band"],
)
def test_invariance_averages_belong_to_names_and_not_to_places(rule):
    """`a/x` comes before `a-b` in the tree and after it among sorted names."""
    first = {"a": {"x": jnp.array([1.0, 2.0])}, "a-b": jnp.array([-30.0, 5.0])}
    second = {"a": {"x": jnp.array([4.0, -9.0])}, "a-b": None}
    third = {"a": {"x": jnp.array([50.0, 2.0])}, "a-b": jnp.array([40.0, -300.0])}
    together = rule.init(first)
    apart = {key: rule.init({key: first[key]}) for key in first}
    for gradient in (first, second, third):
        updates, together = rule.update(gradient, together)
        for key in (key for key in first if gradient[key] is not None):
            alone, apart[key] = rule.update({key: gradient[key]}, apart[key])
            assert identical(alone[key], updates[key])
    _, kept = together
    assert sorted(kept.names) == ["a-b", "a/x"]
    for path in kept.names:
        np.testing.assert_array_equal(kept.of(path), apart[path.split("/")[0]][1].of(path))
    with pytest.raises(KeyError, match="'c' is none of"):
        kept.of("c")
