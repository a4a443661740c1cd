"""Curves of folds and flips against closed forms."""

import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import bifurcation_curve, bifurcation_diagram
from cliffs.maps import HenonParams, OneUnitParams, henon_step, one_unit_step

PATHS, BOX = ("w", "b"), ((3.0, 8.5), (-8.0, 0.0))


def fold_curve(**options):
    given = {"kind": "fold", "step": one_unit_step, "params": OneUnitParams(5.0, -2.66), "paths": PATHS,
             "state": jnp.array([0.96]), "bounds": BOX, **options}  # fmt: skip
    return bifurcation_curve(**given)


def test_parity_reference_fold_curve_runs_through_the_cusp(x64, reference):
    curve = fold_curve()
    x = curve.states[:, 0]
    s = 1 / (1 + np.exp(-x))
    # w s'(x) = 1 and x = w s(x) + b.
    np.testing.assert_allclose(curve.parameters[:, 0], 1 / (s * (1 - s)), rtol=1e-12)
    np.testing.assert_allclose(curve.parameters[:, 1], x - curve.parameters[:, 0] * s, rtol=1e-12)
    assert curve.ends == ("left the bounds", "left the bounds")
    assert x.min() < -1.7 < 1.7 < x.max()  # both folds of w = 8: the curve did pass the cusp
    (cusp,) = curve.special
    want = reference["cusp"]["sigmoid"]
    assert (cusp.kind, cusp.located) == ("cusp", True)
    np.testing.assert_allclose([*cusp.parameters, *cusp.state], [want["w"], want["b"], want["x"]], atol=1e-12)
    # The curve ends exactly on the bound w = 8.5; inside, w = 8 agrees with the 25-digit folds.
    assert np.isclose(curve.parameters[[0, -1], 0], 8.5, atol=1e-14).all()
    for b, state in np.array(reference["folds_sigmoid"]["8"], float):
        near = np.argmin(np.abs(x - state))
        assert abs(curve.parameters[near] - [8, b]).max() < 0.2


def test_analytic_flip_curve_of_the_one_unit_map(x64):
    curve = fold_curve(
        kind="flip", params=OneUnitParams(-5.0, 0.42), state=jnp.array([-0.96]), bounds=((-8.5, -3.0), (-3.0, 12.0))
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
        "fold", henon_step, HenonParams(-0.12, 0.3), ("a", "b"), jnp.array([2.8, 0.85]), ((-1.5, 3.0), (-1.4, 0.8))
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
        "flip", step, {"r": 0.01, "c": -0.55}, ("r", "c"), jnp.array([0.02]), ((-1.0, 1.0), (-1.0, 1.0))
    )
    (point,) = curve.special
    assert (point.kind, point.located) == ("generalized flip", True)
    np.testing.assert_allclose([*point.parameters, *point.state], 0, atol=1e-12)


def test_property_the_fold_curve_agrees_with_diagrams_at_fixed_w(x64):
    curve = fold_curve(max_step=0.05)
    starts = np.linspace(-8, 8, 17)[:, None]
    for w in (4.5, 7.0):
        diagram = bifurcation_diagram(one_unit_step, OneUnitParams(w, 0.0), "b", (-6.0, -1.0), starts)
        crossings = []
        offset = curve.parameters[:, 0] - w
        for i in np.flatnonzero(offset[:-1] * offset[1:] < 0):
            share = offset[i] / (offset[i] - offset[i + 1])
            crossings.append(curve.parameters[i, 1] + share * np.diff(curve.parameters[i : i + 2, 1])[0])
        np.testing.assert_allclose(sorted(crossings), [p.parameter for p in diagram.special], atol=1e-3)


def test_documented_few_points_are_flagged(x64):
    assert fold_curve(max_step=1e-3).ends == ("ran out of points", "ran out of points")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "hopf"}, "kind must be one of"),
        ({"paths": ("w", "w")}, "two different parameters"),
        ({"paths": ("w", "c")}, "no field 'c'"),
        ({"params": OneUnitParams(5.0, jnp.zeros(2))}, "must end at a scalar"),
        ({"bounds": (3.0, 6.0)}, "bounds"),
        ({"bounds": ((6.0, 3.0), (-4.0, 0.0))}, "low < high"),
        ({"bounds": ((6.0, 8.0), (-4.0, 0.0))}, "do not hold the present value 5.0 of 'w'"),
        ({"tolerance": 1e-12}, "float32, which can reach"),
        ({"step": lambda p, x, u: x[:0]}, "shape"),
        ({"num_points": 2}, "num_points"),
        ({"step": lambda p, x, u: 0.5 * x + p.w + p.b}, "leads to no fold"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        fold_curve(**options)


def test_invariance_the_curve_does_not_depend_on_where_it_was_entered(x64):
    starts = ((5.0, -2.66, 0.96), (7.9, -2.9, -1.7))
    curves = [fold_curve(params=OneUnitParams(w, b), state=jnp.array([x])) for w, b, x in starts]
    ends = [c.parameters[[0, -1]][np.argsort(c.parameters[[0, -1], 1])] for c in curves]
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-11)
    np.testing.assert_allclose(curves[0].special[0].parameters, curves[1].special[0].parameters, atol=1e-12)
