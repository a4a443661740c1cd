"""Paths to scalar parameters."""

import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs._paths import InputPath, as_path, fold_inputs, get_parameter, set_parameter
from cliffs.recurrent import OneUnitParams


@dataclasses.dataclass(frozen=True)
class Cell:
    gain: float
    weights: object


TREE = {
    "unit": OneUnitParams(5.0, -2.0),
    "w": jnp.arange(4.0).reshape(2, 2),
    "list": [1.0, 2.0],
    "cell": Cell(3.0, jnp.ones(2)),
    "count": jnp.arange(3),
    "flag": jnp.array(True),
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("unit", "b"), -2.0),
        (("w", (1, 0)), 2.0),
        (("w", 1, 0), 2.0),
        (("w", (-1, -2)), 2.0),
        (("list", -1), 2.0),
        (("unit", 1), -2.0),
        (("cell", "gain"), 3.0),
        (("cell", "weights", 1), 1.0),
        (("count", 2), 2.0),
    ],
)
def test_property_what_was_set_is_read_back_and_nothing_else_changes(path, value):
    assert float(get_parameter(TREE, path)) == value
    changed = set_parameter(TREE, path, 9.5)
    assert float(get_parameter(changed, path)) == 9.5
    assert float(get_parameter(TREE, path)) == value
    others = [p for p in [("unit", "w"), ("w", (0, 1)), ("list", 0), ("cell", "weights", 0), ("count", 1)] if p != path]
    for other in others:
        assert float(get_parameter(changed, other)) == float(get_parameter(TREE, other))


def test_analytic_a_bare_number_is_its_own_parameter():
    assert float(get_parameter(2.5, ())) == 2.5
    assert set_parameter(2.5, (), 1.0) == 1.0


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("c", r"no entry 'c'"),
        (("unit", "c"), "no field 'c'"),
        (("cell", "loss"), "no field 'loss'"),
        (("w", 7), r"no entry 7 in an array of shape \(2, 2\)"),
        (("w", (0, 2)), r"no entry \(0, 2\)"),
        (("list", 2), "no entry 2"),
        (("unit", "b", 0), "no entry 0"),
        ("w", r"scalar, got an array of shape \(2, 2\)"),
        (("w", 0), "must end at a scalar"),
        (("w", True), "no entry True"),
        ("unit", "must end at a scalar"),
        (("w", "b"), "no entry 'b'"),
        ("flag", "must end at a number, got bool"),
    ],
)
def test_wrong_use_names_the_path(path, words):
    with pytest.raises(ValueError, match=words):
        get_parameter(TREE, path)


def mappings():
    """Mappings that are pytrees, each of its own type, with the same entries."""
    entries = {"b": jnp.ones(2), "a": {"w": jnp.zeros(())}}
    yield collections.OrderedDict(entries)
    yield collections.defaultdict(float, entries)
    core = pytest.importorskip("flax.core")
    yield core.freeze(entries)


def test_property_mappings_keep_their_type_and_order():
    for tree in mappings():
        changed = set_parameter(tree, ("a", "w"), 3.0)
        assert type(changed) is type(tree)
        assert jax.tree.structure(changed) == jax.tree.structure(tree)
        assert (float(get_parameter(changed, ("a", "w"))), float(get_parameter(tree, ("a", "w")))) == (3.0, 0.0)
    with pytest.raises(ValueError, match=r"mappingproxy is no pytree.*dict"):
        set_parameter(types.MappingProxyType({"a": 1.0}), "a", 2.0)


def test_property_modules_whose_init_takes_other_arguments_than_their_fields():
    equinox = pytest.importorskip("equinox")
    layer = equinox.nn.Linear(2, 3, key=jax.random.key(0))
    changed = set_parameter(layer, ("weight", 0, 1), 7.0)
    assert float(get_parameter(changed, ("weight", 0, 1))) == 7.0
    assert changed.out_features == 3


def test_property_a_value_is_not_rounded_to_the_dtype_of_its_array(x64):
    value = jnp.asarray(0.1)
    for array in (jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.bfloat16), jnp.zeros(2, int)):
        changed = set_parameter({"w": array}, ("w", 1), value)
        assert float(get_parameter(changed, ("w", 1))) == 0.1
    # A number of Python's has no dtype of its own: a float32 network stays one.
    assert set_parameter({"w": jnp.zeros(2, jnp.float32)}, ("w", 1), 0.1)["w"].dtype == jnp.float32


def test_analytic_a_path_into_the_inputs_makes_them_parameters():
    def step(params, state, inputs):
        return params * state + inputs["u"][1]

    inputs = {"u": jnp.array([1.0, 2.0])}
    folded, params, path, rest = fold_inputs(step, jnp.asarray(0.5), InputPath(("u", np.int64(1))), inputs)
    assert rest is None
    assert hash(folded) == hash(fold_inputs(step, 0.0, InputPath(("u", 0)), inputs)[0])
    assert float(get_parameter(params, path)) == 2.0
    assert float(folded(set_parameter(params, path, 5.0), jnp.asarray(4.0), rest)) == 7.0
    assert fold_inputs(step, 0.5, ("b",), inputs) == (step, 0.5, ("b",), inputs)
    for wrong in (("u", 2), "v", "u"):
        with pytest.raises(ValueError, match="parameter path"):
            fold_inputs(step, 0.5, InputPath(wrong), inputs)


def test_property_a_path_of_numpy_integers_is_the_same_static_argument():
    assert as_path(("w", np.int64(1), (np.int32(0), 2))) == ("w", 1, (0, 2))
    assert as_path("b") == ("b",)
    assert as_path(np.int64(3)) == (3,)
    for path in (("w", np.int64(1), np.int32(0)), ("w", (np.int64(1), 0)), ("list", np.int64(1))):
        assert float(get_parameter(TREE, path)) == 2.0
        assert float(get_parameter(set_parameter(TREE, path, 9.5), path)) == 9.5
