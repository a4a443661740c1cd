"""Branches against closed forms, and the reasons why they end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import Stepping, continue_branch
from cliffs.recurrent import OneUnitParams, one_unit_step


def logistic(r, x, _):
    return r * x * (1 - x)


def circle(p, x, _):  # fixed points: x^2 + l^2 = 1
    return x + (x**2 + p["l"] ** 2 - 1) / 2


def root(p, x, _):  # the branch x = sqrt(l) stops at l = 0
    return 0 * x + jnp.sqrt(p["l"])


def kept(branch):
    keep = np.asarray(branch.accepted)
    return np.asarray(branch.states)[keep], np.asarray(branch.parameter)[keep], np.asarray(branch.jacobians)[keep]


def test_analytic_branch_lies_on_the_closed_form_and_ends_on_the_bound(x64):
    branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.3), "b", (-3.5, -1.5), jnp.array([-3.1]))
    x, b, jacobians = kept(branch)
    sigma = 1 / (1 + np.exp(-x[:, 0]))
    np.testing.assert_allclose(b, x[:, 0] - 5 * sigma, atol=1e-12)
    np.testing.assert_allclose(jacobians[:, 0, 0], 5 * sigma * (1 - sigma), atol=1e-12)
    assert (np.sign(np.diff(np.sign(np.diff(b)))) != 0).sum() == 2  # the parameter turns twice
    assert bool(branch.left_bounds)
    assert b[-1] == -1.5


def test_analytic_cycle_of_two_with_its_multiplier(x64):
    r = 3.2
    cycle = (r + 1 - np.sqrt((r - 3) * (r + 1))) / (2 * r)
    branch = continue_branch(logistic, r, (), (3.05, 3.5), jnp.array([cycle]), period=2)
    x, r, jacobians = kept(branch)
    np.testing.assert_allclose(x[:, 0], (r + 1 - np.sqrt((r - 3) * (r + 1))) / (2 * r), atol=1e-11)
    np.testing.assert_allclose(jacobians[:, 0, 0], 4 + 2 * r - r**2, atol=1e-10)
    assert r[-1] == 3.5


def test_analytic_a_closed_branch_ends_where_it_began(x64):
    branch = continue_branch(circle, {"l": 0.1}, "l", (-2.0, 2.0), jnp.array([0.99]), stepping=Stepping(max_step=0.2))
    x, parameter, _ = kept(branch)
    assert branch.why == "closed on itself"
    np.testing.assert_allclose(x[:, 0] ** 2 + parameter**2, 1, atol=1e-11)
    np.testing.assert_allclose([x[0, 0], parameter[0]], [x[-1, 0], parameter[-1]], atol=1e-14)
    turned = np.unwrap(np.arctan2(parameter, x[:, 0]))
    assert abs(turned[-1] - turned[0]) == pytest.approx(2 * np.pi)
    assert len(turned) < 100  # once around


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"bounds": (-3.1, -2.9)}, "left the bounds"),
        ({"stepping": Stepping(max_step=1e-4)}, "ran out of points"),
        (
            {"step": root, "params": {"l": 0.5}, "path": "l", "start": [0.7], "bounds": (-1.0, 1.0), "direction": -1},
            "step too small",
        ),
    ],
)
def test_documented_ends_are_told_apart_and_the_part_reached_is_returned(x64, options, why):
    given = {
        "step": one_unit_step,
        "params": OneUnitParams(5.0, -3.0),
        "path": "b",
        "start": [-2.68],
        "bounds": (-3.5, -2.0),
        **options,
    }
    branch = continue_branch(**{**given, "start": jnp.array(given["start"])})
    _, parameter, _ = kept(branch)
    assert branch.why == why
    assert bool(branch.left_bounds) == (why == "left the bounds")
    assert len(parameter) > 1
    assert given["bounds"][0] <= parameter.min() <= parameter.max() <= given["bounds"][1]
    assert np.isfinite(branch.states).all()


def test_invariance_vmap_over_branches_equals_one_by_one(x64):
    weights = jnp.array([4.5, 5.0, 6.0])

    def follow(w, start):
        params = OneUnitParams(w, jnp.asarray(-4.0))
        return continue_branch(one_unit_step, params, "b", (-6.0, 0.0), start, stepping=Stepping(num_points=100))

    starts = jnp.array([[-3.9], [-3.9], [jnp.nan]])
    together = jax.jit(jax.vmap(follow))(weights, starts)
    alone = follow(weights[1], starts[1])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone)):
        np.testing.assert_allclose(a[1], b, atol=1e-9)
    # A start made inside the trace is as good as one from outside.
    jax.eval_shape(jax.jit(lambda w: follow(w, jnp.array([-3.9]))), weights[0])
    # Under tracing nothing is raised: a start that leads nowhere is flagged, and its neighbours are not disturbed.
    assert together.end.tolist()[2] == 4
    assert together.end.tolist()[0] != 4


def test_property_float32_follows_the_same_branch():
    branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.3), "b", (-3.5, -1.5), jnp.array([-3.1]))
    x, b, _ = kept(branch)
    assert x.dtype == np.float32
    np.testing.assert_allclose(b, x[:, 0] - 5 / (1 + np.exp(-x[:, 0])), atol=2e-5)
    assert branch.why == "left the bounds"


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("c", {}, "no field 'c'"),
        (("b", 0), {}, "no entry 0"),
        ("b", {"params": OneUnitParams(jnp.ones(3), jnp.ones(3))}, "must end at a scalar"),
        ("b", {"stepping": Stepping(tolerance=1e-12)}, r"float32, which can reach 4.8e-07: pass float64"),
        ("b", {"bounds": (0.0, 1.0)}, "present value -3"),
        ("b", {"bounds": (1.0, -5.0)}, "low < high"),
        ("b", {"bounds": (-np.inf, 1.0)}, "finite"),
        ("b", {"direction": 0}, "direction"),
        ("b", {"stepping": Stepping(num_points=1)}, "num_points"),
        ("b", {"stepping": Stepping(step_size=0.5)}, "step_size <= max_step"),
        ("b", {"period": 0}, "period"),
        ("b", {"start": jnp.array([1])}, "floating"),
        ("b", {"step": lambda p, x, u: jnp.append(x, 0.0)}, "same shape|shape"),
        ("l", {"step": circle, "params": {"l": 2.0}, "bounds": (1.5, 3.0)}, "leads to no fixed point of period 1"),
    ],
)
def test_wrong_use_names_the_argument(path, options, words):
    options = {
        "step": one_unit_step,
        "params": OneUnitParams(5.0, -3.0),
        "start": jnp.array([-2.68]),
        "bounds": (-3.5, -2.0),
        **options,
    }
    with pytest.raises(ValueError, match=words):
        continue_branch(path=path, **options)
