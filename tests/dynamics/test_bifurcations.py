"""Continuation and bifurcations of the one-unit map against 25-digit numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import bifurcation_diagram, continue_branch, locate_bifurcation
from cliffs.dynamics._parameter import get_parameter, set_parameter
from cliffs.maps import OneUnitParams, one_unit_cost, one_unit_step

TANH = functools.partial(one_unit_step, activation="tanh")


def points_of(diagram, kind):
    return np.array([[p.parameter, p.state[0]] for p in diagram.special if p.kind == kind])


@pytest.mark.parametrize("w", ["4.5", "5", "6", "8"])
def test_parity_reference_folds(x64, reference, w):
    starts = jnp.linspace(-8, 8, 17)[:, None]
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(float(w), 0.0), "b", (-6.0, -1.0), starts)
    want = np.array(reference["folds_sigmoid"][w], float)
    np.testing.assert_allclose(points_of(diagram, "fold"), want, atol=1e-12)
    assert len(diagram.branches) == 1


@pytest.mark.parametrize("w", ["-5", "-6"])
def test_parity_reference_flips(x64, reference, w):
    starts = jnp.linspace(-8, 8, 5)[:, None]
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(float(w), 0.0), "b", (-1.0, 7.0), starts, num_points=900)
    want = np.array(reference["flips_sigmoid"][w], float)
    np.testing.assert_allclose(points_of(diagram, "flip"), want, atol=1e-12)


@pytest.mark.parametrize("w", ["1.2", "2"])
def test_parity_reference_folds_of_the_tanh_map(x64, reference, w):
    for value, state in np.array(reference["folds_tanh"][w], float):
        guess = jnp.array([state + 0.05])
        point = locate_bifurcation("fold", TANH, OneUnitParams(float(w), 0.0), "b", guess, value + 0.01)
        np.testing.assert_allclose([point.parameter, point.state[0]], [value, state], atol=1e-12)


def test_parity_reference_cost_gradient_and_hessian(x64, reference):
    for pair, want in reference["cost_T50"].items():
        params = OneUnitParams(*(jnp.asarray(float(v)) for v in pair.split(",")))
        want = {k: float(v) for k, v in want.items()}
        grad, hessian = jax.grad(one_unit_cost)(params), jax.hessian(one_unit_cost)(params)
        got = [one_unit_cost(params), grad.w, grad.b, hessian.w.w, hessian.w.b, hessian.b.b]
        np.testing.assert_allclose(got, [want[k] for k in ("cost", "dw", "db", "dww", "dwb", "dbb")], rtol=1e-9)


def test_analytic_branch_lies_on_the_closed_form(x64):
    branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.3), "b", jnp.array([-3.1]), (-3.5, -1.5))
    keep = np.asarray(branch.accepted)
    x, b = np.asarray(branch.states)[keep, 0], np.asarray(branch.parameter)[keep]
    sigma = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(b, x - 5 * sigma, atol=1e-11)
    np.testing.assert_allclose(np.asarray(branch.jacobians)[keep, 0, 0], 5 * sigma * (1 - sigma), atol=1e-11)
    assert bool(branch.left_bounds)
    assert (np.sign(np.diff(np.sign(np.diff(b)))) != 0).sum() == 2  # the parameter turns twice


def test_invariance_vmap_over_branches_equals_one_by_one(x64):
    weights = jnp.array([4.5, 5.0, 6.0])

    def follow(w):
        return continue_branch(
            one_unit_step, OneUnitParams(w, jnp.asarray(-4.0)), "b", jnp.array([-3.9]), (-6.0, 0.0), num_points=100
        )

    together = jax.jit(jax.vmap(follow))(weights)
    alone = follow(weights[1])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
        np.testing.assert_allclose(a[1], b, atol=1e-9)


def test_documented_leaving_the_bounds_returns_the_part_reached():
    branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.0), "b", jnp.array([-2.68]), (-3.1, -2.9))
    assert bool(branch.left_bounds)
    assert 1 < int(branch.accepted.sum()) < 20
    assert -3.1 <= float(branch.parameter.min()) <= float(branch.parameter.max()) <= -2.9


def test_parameter_paths():
    tree = {"unit": OneUnitParams(5.0, -2.0), "w": jnp.arange(4.0).reshape(2, 2), "list": [1.0, 2.0]}
    for path in (("unit", "b"), ("w", (1, 0)), ("list", 1)):
        assert float(get_parameter(set_parameter(tree, path, 9.0), path)) == 9.0
        assert float(get_parameter(tree, path)) == {"unit": -2.0, "w": 2.0, "list": 2.0}[path[0]]


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("c", {}, "no field 'c'"),
        (("b", 0), {}, "no entry 0|must end at a scalar"),
        ("b", {"params": OneUnitParams(jnp.ones(3), jnp.ones(3))}, "must end at a scalar"),
        ("b", {"tolerance": 1e-12}, r"float32.*float64"),
        ("b", {"bounds": (0.0, 1.0)}, "bounds"),
        ("b", {"direction": 0}, "direction"),
        ("b", {"step": lambda p, x, u: jnp.append(x, 0.0)}, "same shape"),
    ],
)
def test_wrong_use_names_the_argument(path, options, words):
    options = {
        "step": one_unit_step, "params": OneUnitParams(5.0, -3.0), "start": jnp.array([-2.68]),
        "bounds": (-3.5, -2.0), **options,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        continue_branch(path=path, **options)
