"""Bifurcation points solved for one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import Stepping, continue_branch, locate_bifurcation, solve_bifurcation
from cliffs.recurrent import OneUnitParams, one_unit_step

TANH = functools.partial(one_unit_step, activation="tanh")


@pytest.mark.parametrize("w", ["1.2", "2"])
def test_parity_reference_folds_of_the_tanh_map(x64, reference, w):
    for value, state in np.array(reference["folds_tanh"][w], float):
        guess = jnp.array([state + 0.05])
        point = locate_bifurcation("fold", TANH, OneUnitParams(float(w), 0.0), "b", value + 0.01, guess)
        np.testing.assert_allclose([point.parameter, point.state[0]], [value, state], atol=1e-12)


def test_documented_newton_from_far_away_is_flagged(x64):
    def no_fold(p, x, _):
        return 0.5 * x + p["l"]

    point = locate_bifurcation("fold", no_fold, {"l": 0.0}, "l", 0.1, jnp.array([0.3]))
    assert not point.located
    assert "residual" in point.note


def test_invariance_folds_under_vmap_and_their_derivative(x64):
    def fold(w):
        found = solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", -2.6, jnp.ones(1))
        return found.parameter, found.state[0]

    weights = jnp.array([4.5, 5.0, 6.0])
    b, x = jax.jit(jax.vmap(fold))(weights)
    s = (1 + np.sqrt(1 - 4 / np.asarray(weights))) / 2  # w s'(x) = w s (1 - s) = 1
    np.testing.assert_allclose(x, np.log(s / (1 - s)), atol=1e-7)
    np.testing.assert_allclose(b, np.log(s / (1 - s)) - weights * s, atol=1e-12)
    # b = x - w s(x) is stationary in x at the fold, so db/dw = -s(x).
    slope = jax.jacfwd(lambda w: fold(w)[0])(weights[1])
    np.testing.assert_allclose(slope, -jax.nn.sigmoid(x[1]), atol=1e-6)

    # The same from the solution itself, where no step is needed, and in reverse.
    def again(w):
        return solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", b[1], x[1:2]).parameter

    for derivative in (jax.jacfwd, jax.grad):
        np.testing.assert_allclose(derivative(again)(weights[1]), -jax.nn.sigmoid(x[1]), atol=1e-12)


def test_documented_degenerate_points_have_no_made_up_criticality(x64):
    def gain(p, x, _):
        return p["r"] * (x - p["cubic"] * x**3)

    def located(kind, step, params, path, at):
        point = locate_bifurcation(kind, step, params, path, at, jnp.full(2 if step is turn else 1, 0.01))
        assert point.located
        return point

    def turn(p, x, _):
        c, s, square = jnp.cos(p["angle"]), jnp.sin(p["angle"]), jnp.stack([x[0] ** 2 - x[1] ** 2, -2 * x[0] * x[1]])
        return (p["r"] - p["cubic"] * jnp.sum(x**2)) * (jnp.array([[c, -s], [s, c]]) @ x) + p["quadratic"] * square

    for kind, r, degenerate in (("flip", -0.99, "cubic coefficient"), ("branch point", 0.99, "no quadratic or cubic")):
        for cubic, note in ((0.0, degenerate), (1.0, "supercritical"), (-1.0, "subcritical")):
            point = located(kind, gain, {"r": r, "cubic": cubic}, "r", r)
            assert note in point.note
            assert point.coefficient == pytest.approx(cubic * -np.sign(r), abs=1e-12)
            assert point.kind == ("flip" if r < 0 else "pitchfork" if cubic else "branch point")
    for angle, cubic, quadratic, note, coefficient in (
        (0.7, 1.0, 0.0, "supercritical", -2.0),
        (0.7, -1.0, 0.0, "subcritical", 2.0),
        (0.7, 0.0, 0.0, "degenerate: the Lyapunov coefficient vanishes", 0.0),
        (2 * np.pi / 3, 0.0, 1.0, "strong resonance 1:3", np.nan),
        (np.pi / 2, 1.0, 0.0, "strong resonance 1:4", np.nan),
    ):
        params = {"r": 0.98, "angle": angle, "cubic": cubic, "quadratic": quadratic}
        point = located("Neimark-Sacker", turn, params, "r", 0.98)
        assert note in point.note
        np.testing.assert_allclose([point.coefficient, point.angle], [coefficient, angle], atol=1e-9)


@pytest.mark.wrong_arguments
def test_wrong_use_of_locate_names_the_argument():
    given = (one_unit_step, OneUnitParams(5.0, -2.6), "b", -2.6, jnp.array([0.9]))
    with pytest.raises(ValueError, match="kind must be one of"):
        locate_bifurcation("hopf", *given)
    with pytest.raises(ValueError, match="pair of complex multipliers"):
        locate_bifurcation("Neimark-Sacker", *given)
    with pytest.raises(ValueError, match="float32, which can reach"):
        locate_bifurcation("fold", *given, tolerance=1e-12)
    with pytest.raises(ValueError, match="float32, which can reach"):
        continue_branch(
            one_unit_step,
            OneUnitParams(5.0, -3.0),
            "b",
            (-4.0, 0.0),
            jnp.array([-2.68]),
            stepping=Stepping(tolerance=1e-12),
        )
