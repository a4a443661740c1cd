"""Curves of folds and flips against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import Stepping, bifurcation_curve
from cliffs.recurrent import HenonParams, OneUnitParams, henon_step, one_unit_step

PATHS, BOX = (("unit", "w"), ("unit", "b")), ((3.0, 8.0), (-8.0, 0.0))


def either(p, x, inputs):
    """The unit with either activation, so that both are compiled once."""
    sigmoid, tanh = (one_unit_step(p["unit"], x, inputs, activation=a) for a in ("logistic", "tanh"))
    return jnp.where(p["tanh"] > 0, tanh, sigmoid)


def unit(w, b, tanh=0.0):
    return {"unit": OneUnitParams(w, b), "tanh": tanh}


def fold_curve(**options):
    given = {
        "kind": "fold",
        "step": either,
        "params": unit(5.0, -2.66),
        "paths": PATHS,
        "state": jnp.array([0.96]),
        "bounds": BOX,
        **options,
    }
    return bifurcation_curve(**given)


def ends_of(curve):
    """`[b, x]` at both ends, in ascending b."""
    ends = np.column_stack([curve.parameters[:, 1], curve.states[:, 0]])[[0, -1]]
    return ends[np.argsort(ends[:, 0])]


def test_parity_reference_fold_curve_runs_through_the_cusp(x64, reference):
    curve = fold_curve()
    x = curve.states[:, 0]
    s = 1 / (1 + np.exp(-x))
    # w s'(x) = 1 and x = w s(x) + b.
    np.testing.assert_allclose(curve.parameters[:, 0], 1 / (s * (1 - s)), rtol=1e-12)
    np.testing.assert_allclose(curve.parameters[:, 1], x - curve.parameters[:, 0] * s, rtol=1e-12)
    flat = fold_curve(params=unit(1.5, -0.2, 1.0), state=jnp.array([0.65]), bounds=((0.5, 2.0), (-2.0, 2.0)))
    for here, name, w in ((curve, "sigmoid", "8"), (flat, "tanh", "2")):
        (cusp,) = here.special
        want = reference["cusp"][name]
        assert (cusp.kind, cusp.located) == ("cusp", True)
        np.testing.assert_allclose([*cusp.parameters, *cusp.state], [float(want[k]) for k in "wbx"], atol=1e-12)
        # Both ends lie on the bound of w: the curve did pass the cusp, and ends in the two 25-digit folds.
        assert here.ends == ("left the bounds", "left the bounds")
        assert np.isclose(here.parameters[[0, -1], 0], float(w), atol=1e-14).all()
        np.testing.assert_allclose(ends_of(here), np.array(reference[f"folds_{name}"][w], float), atol=1e-11)


def test_analytic_flip_curve_of_the_one_unit_map(x64):
    curve = fold_curve(
        kind="flip", params=unit(-5.0, 0.42), state=jnp.array([-0.96]), bounds=((-8.5, -3.0), (-3.0, 12.0))
    )
    x = curve.states[:, 0]
    s = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(curve.parameters[:, 0], -1 / (s * (1 - s)), rtol=1e-12)
    np.testing.assert_allclose(curve.parameters[:, 1], x - curve.parameters[:, 0] * s, rtol=1e-11)
    # w s' = -1 needs w <= -4; a map of negative Schwarzian derivative has no generalized flip.
    assert curve.parameters[:, 0].max() == pytest.approx(-4, abs=1e-2)
    assert curve.special == []


def test_analytic_henon_curves_and_their_resonances(x64):
    folds = bifurcation_curve(
        "fold", henon_step, HenonParams(-0.12, 0.3), ("a", "b"), ((-1.5, 3.0), (-1.4, 0.8)), jnp.array([2.8, 0.85])
    )
    np.testing.assert_allclose(folds.parameters[:, 0], -((1 - folds.parameters[:, 1]) ** 2) / 4, atol=1e-11)
    # det J = -b = 1 where a fold has both multipliers 1.
    (resonance,) = folds.special
    assert (resonance.kind, resonance.located) == ("1:1 resonance", True)
    np.testing.assert_allclose(resonance.parameters, [-1, -1], atol=1e-12)


def test_analytic_generalized_flip(x64):
    def step(p, x, _):  # u -> -(1 + r) u + c u^3 + u^5 / 3 flips at r = 0, with cubic coefficient c
        return -(1 + p["r"]) * x + p["c"] * x**3 + x**5 / 3

    curve = bifurcation_curve(
        "flip", step, {"r": 0.01, "c": -0.55}, ("r", "c"), ((-1.0, 1.0), (-1.0, 1.0)), jnp.array([0.02])
    )
    (point,) = curve.special
    assert (point.kind, point.located) == ("generalized flip", True)
    np.testing.assert_allclose([*point.parameters, *point.state], 0, atol=1e-12)


def test_documented_few_points_are_flagged(x64):
    assert fold_curve(stepping=Stepping(max_step=1e-3)).ends == ("ran out of points", "ran out of points")


def cubic(p, x, _):
    return x + 0.1 * (p["a"] + p["b"] * x - x**3)


@pytest.mark.parametrize("start", [(0.25, 0.75, -0.5), (0.0, 0.0, 0.0)])
def test_analytic_the_cusp_is_found_from_itself_as_from_elsewhere(x64, start):
    a, b, x = start
    curve = bifurcation_curve(
        "fold", cubic, {"a": a, "b": b}, ("a", "b"), ((-1.0, 1.0), (-1.0, 1.0)), jnp.array([x]), scale=1.0
    )
    (cusp,) = curve.special
    assert (cusp.kind, cusp.located) == ("cusp", True)
    np.testing.assert_allclose([*cusp.parameters, *cusp.state], 0, atol=1e-12)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("kind", "a", "b", "x", "at"), [("flip", 0.0, 0.5, 0.0, "-20"), ("fold", 0.9, -0.9, 0.9, "1.76")]
)
def test_wrong_starts_that_lead_out_of_the_bounds_are_refused(x64, kind, a, b, x, at):
    # Multipliers are 1 + (b - 3 x^2) / 10: the nearest flip and fold are far away.
    with pytest.raises(ValueError, match=f"{at}.*outside the bounds"):
        bifurcation_curve(
            kind, cubic, {"a": a, "b": b}, ("a", "b"), ((-1.0, 1.0), (-1.0, 1.0)), jnp.array([x]), scale=1.0
        )


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "hopf"}, "kind must be one of"),
        ({"paths": ("unit", "unit")}, "two different parameters"),
        ({"paths": (("unit", "w"), ("unit", "c"))}, "no field 'c'"),
        ({"params": unit(5.0, jnp.zeros(2))}, "must end at a scalar"),
        ({"bounds": (3.0, 6.0)}, "bounds"),
        ({"bounds": ((6.0, 3.0), (-4.0, 0.0))}, "low < high"),
        ({"bounds": ((6.0, 8.0), (-4.0, 0.0))}, "do not hold the present value 5.0 of"),
        ({"stepping": Stepping(tolerance=1e-12)}, "float32, which can reach"),
        ({"step": lambda p, x, u: x[:0]}, "shape"),
        ({"stepping": Stepping(num_points=2)}, "num_points"),
        ({"step": lambda p, x, u: 0.5 * x + p["unit"].w + p["unit"].b}, "leads to no fold"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        fold_curve(**options)


def test_invariance_the_curve_does_not_depend_on_where_it_was_entered(x64):
    starts = ((5.0, -2.66, 0.96), (7.9, -2.9, -1.7))
    curves = [fold_curve(params=unit(w, b), state=jnp.array([x])) for w, b, x in starts]
    ends = [ends_of(c) for c in curves]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-11)
    np.testing.assert_allclose(curves[0].special[0].parameters, curves[1].special[0].parameters, atol=1e-12)
