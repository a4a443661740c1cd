"""Paths to scalar parameters."""

import dataclasses

import jax.numpy as jnp
import pytest

from cliffs._paths import get_parameter, set_parameter
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
        (("unit", "b"), -2.0), (("w", (1, 0)), 2.0), (("w", 1, 0), 2.0), (("w", (-1, -2)), 2.0), (("list", -1), 2.0),
        (("unit", 1), -2.0), (("cell", "gain"), 3.0), (("cell", "weights", 1), 1.0), (("count", 2), 2.0),
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("c", r"no entry 'c'"), (("unit", "c"), "no field 'c'"), (("cell", "loss"), "no field 'loss'"),
        (("w", 7), r"no entry 7 in an array of shape \(2, 2\)"), (("w", (0, 2)), r"no entry \(0, 2\)"),
        (("list", 2), "no entry 2"), (("unit", "b", 0), "no entry 0"), ("w", r"scalar, got an array of shape \(2, 2\)"),
        (("w", 0), "must end at a scalar"), ("unit", "must end at a scalar"), (("w", "b"), "no entry 'b'"),
        ("flag", "must end at a number, got bool"),
    ],
)  # fmt: skip
def test_wrong_use_names_the_path(path, words):
    with pytest.raises(ValueError, match=words):
        get_parameter(TREE, path)
