"""The one-unit map's folds and flips in closed form."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from cliffs.recurrent import OneUnitParams, one_unit_flips, one_unit_folds, one_unit_step


def multipliers(w, points):
    def slope(b, x):
        return jax.grad(lambda v: one_unit_step(OneUnitParams(w, b), v))(x)

    return jax.vmap(slope)(points.b, points.x)


@pytest.mark.parametrize("w", [4.0, 4.001, 5.0, 30.0])
def test_analytic_folds_and_flips_are_fixed_points_of_multiplier_one_and_minus_one(x64, w):
    for points, weight, want in ((one_unit_folds(w), w, 1.0), (one_unit_flips(-w), -w, -1.0)):
        step = one_unit_step(OneUnitParams(weight, points.b), points.x)
        np.testing.assert_allclose(step, points.x, atol=1e-14)
        np.testing.assert_allclose(multipliers(weight, points), want, atol=1e-13)
        assert points.b[0] <= points.b[1]


@pytest.mark.parametrize("w", ["4.000001", "5", "7.25"])
def test_parity_fifty_digits(x64, w):
    with mpmath.workdps(50):
        root = mpmath.sqrt(1 - 4 / mpmath.mpf(w))
        s = [(1 + root) / 2, (1 - root) / 2]
        x = [mpmath.log(v / (1 - v)) for v in s]
        b = [a - mpmath.mpf(w) * v for a, v in zip(x, s)]
    found = one_unit_folds(float(w))
    # Near w = 4 the root is as exact as w is: sqrt(eps / 1e-6).
    np.testing.assert_allclose(found.x, np.array(x, float), rtol=1e-9 if w.startswith("4.") else 1e-14)
    np.testing.assert_allclose(found.b, np.array(b, float), rtol=2e-15)


def test_parity_the_reference_numbers(x64, reference):
    for w, folds in reference["folds_sigmoid"].items():
        found = one_unit_folds(float(w))
        np.testing.assert_allclose(np.stack([found.b, found.x], 1), np.array(folds, float), rtol=1e-13)


def test_invariance_shapes_types_and_transformations():
    w = jnp.array([[4.5, 5.0, 6.0]])
    points = one_unit_folds(w)
    assert points.b.shape == points.x.shape == (1, 3, 2)
    assert points.b.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(one_unit_folds)(w).b, points.b, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(one_unit_folds)(w[0]).x, points.x[0], rtol=1e-6)
    # By the envelope theorem db/dw = -s at a fold.
    slope = jax.jacobian(lambda v: one_unit_folds(v).b)(5.0)
    np.testing.assert_allclose(slope, -jax.nn.sigmoid(one_unit_folds(5.0).x), rtol=1e-5)
    assert np.isnan(jax.jit(one_unit_folds)(3.0).b).all()


@pytest.mark.wrong_arguments
def test_wrong_weights_have_no_folds_and_no_flips():
    with pytest.raises(ValueError, match=r"fold only for w of at least 4, got w=3\.9"):
        one_unit_folds(3.9)
    with pytest.raises(ValueError, match=r"flip only for w of at most -4, got w=5\.0"):
        one_unit_flips(5.0)
    with pytest.raises(ValueError, match="at least 4"):
        one_unit_folds(np.array([5.0, np.nan]))
