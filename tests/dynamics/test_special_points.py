"""Bifurcation points solved for one by one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import continue_branch, locate_bifurcation, solve_bifurcation
from cliffs.maps import OneUnitParams, one_unit_step

TANH = functools.partial(one_unit_step, activation="tanh")


@pytest.mark.parametrize("w", ["1.2", "2"])
def test_parity_reference_folds_of_the_tanh_map(x64, reference, w):
    for value, state in np.array(reference["folds_tanh"][w], float):
        guess = jnp.array([state + 0.05])
        point = locate_bifurcation("fold", TANH, OneUnitParams(float(w), 0.0), "b", guess, value + 0.01)
        np.testing.assert_allclose([point.parameter, point.state[0]], [value, state], atol=1e-12)


def test_documented_newton_from_far_away_is_flagged(x64):
    def no_fold(p, x, _):
        return 0.5 * x + p["l"]

    point = locate_bifurcation("fold", no_fold, {"l": 0.0}, "l", jnp.array([0.3]), 0.1)
    assert not point.located
    assert "residual" in point.note


def test_invariance_folds_under_vmap_and_their_derivative(x64):
    def fold(w):
        found = solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", jnp.ones(1), -2.6)
        return found.parameter, found.state[0]

    weights = jnp.array([4.5, 5.0, 6.0])
    b, x = jax.jit(jax.vmap(fold))(weights)
    s = (1 + np.sqrt(1 - 4 / np.asarray(weights))) / 2  # w s'(x) = w s (1 - s) = 1
    np.testing.assert_allclose(x, np.log(s / (1 - s)), atol=1e-7)
    np.testing.assert_allclose(b, np.log(s / (1 - s)) - weights * s, atol=1e-12)
    # b = x - w s(x) is stationary in x at the fold, so db/dw = -s(x).
    slope = jax.jacfwd(lambda w: fold(w)[0])(weights[1])
    np.testing.assert_allclose(slope, -jax.nn.sigmoid(x[1]), atol=1e-6)


def test_wrong_use_of_locate_names_the_argument():
    given = (one_unit_step, OneUnitParams(5.0, -2.6), "b", jnp.array([0.9]), -2.6)
    with pytest.raises(ValueError, match="kind must be one of"):
        locate_bifurcation("hopf", *given)
    with pytest.raises(ValueError, match="pair of complex multipliers"):
        locate_bifurcation("Neimark-Sacker", *given)
    with pytest.raises(ValueError, match="float32, which can reach"):
        locate_bifurcation("fold", *given, tolerance=1e-12)
    with pytest.raises(ValueError, match="float32, which can reach"):
        continue_branch(one_unit_step, OneUnitParams(5.0, -3.0), "b", jnp.array([-2.68]), (-4.0, 0.0), tolerance=1e-12)
