"""The mean-field exponent against quadrature and root finding by scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from tests.untyped import untyped

from cliffs.spectra import mean_field_exponent


def by_scipy(gain, noise):
    def mean(f):
        return quad(lambda z: np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * f(z), -12, 12, epsabs=1e-13, limit=200)[0]

    def excess(q):
        return gain**2 * mean(lambda z: np.tanh(np.sqrt(q) * z) ** 2) + noise**2 - q

    q = untyped(brentq)(excess, 1e-9, gain**2 + noise**2 + 1, xtol=1e-14)
    return 0.5 * np.log(gain**2 * mean(lambda z: np.cosh(np.sqrt(q) * z) ** -4))


@pytest.mark.parametrize(("gain", "noise"), [(1.02, 0.0), (1.5, 0.0), (3.0, 0.0), (10.0, 0.0), (1.5, 0.5), (0.8, 1.0)])
def test_parity_scipy(x64, gain, noise):
    assert float(mean_field_exponent(gain, noise)) == pytest.approx(by_scipy(gain, noise), abs=1e-9)


def test_analytic_transition_at_gain_one(x64):
    """log g below; second order above: 1/2 log(g^2 (1 - 2q + 17/3 q^2 ...)) with q near g - 1."""
    gains = jnp.array([0.2, 0.9, 1.0])
    np.testing.assert_allclose(jax.vmap(mean_field_exponent)(gains), np.log(gains), atol=1e-12)
    above = jax.vmap(mean_field_exponent)(jnp.array([1.01, 1.02, 1.04]))
    assert (np.asarray(above) > 0).all()
    np.testing.assert_allclose(np.log2(above[1:] / above[:-1]), 2, atol=0.1)


def test_property_float32_and_noise_suppresses_chaos():
    assert mean_field_exponent(1.5).dtype == jnp.float32
    assert float(mean_field_exponent(1.5)) == pytest.approx(0.0652172, abs=1e-5)
    noisy = jax.vmap(lambda s: mean_field_exponent(1.5, s))(jnp.array([0.0, 0.2, 0.5, 1.0]))
    assert (np.diff(noisy) < 0).all()


def test_analytic_gradient_is_finite_on_both_sides_of_gain_one(x64):
    """1/g below (it was NaN there); by central differences above, also with noise."""
    slope = jax.jit(jax.vmap(jax.grad(mean_field_exponent)))
    got = slope(jnp.array([0.5, 1.0, 1.5]))
    np.testing.assert_allclose(got[:2], [2, 1], rtol=1e-12)
    assert float(got[2]) == pytest.approx(0.1779, abs=1e-4)
    low, high = (mean_field_exponent(1.5 + s) for s in (-1e-5, 1e-5))
    assert float(got[2]) == pytest.approx(float(high - low) / 2e-5, rel=1e-6)
    assert np.isfinite(jax.grad(mean_field_exponent, argnums=(0, 1))(0.5, 0.3)).all()
