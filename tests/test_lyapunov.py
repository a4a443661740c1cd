"""Lyapunov exponents against known truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import rnn
from cliffs.lyapunov import kaplan_yorke_dimension, lyapunov_exponents
from cliffs.maps import HenonParams, henon_step, linear_step


@pytest.mark.parametrize("interval", [1, 5])
def test_analytic_linear_map_has_the_logarithms_of_its_eigenvalues(x64, interval):
    v = jax.random.normal(jax.random.key(0), (4, 4))
    matrix = v @ jnp.diag(jnp.array([1.6, -1.1, 0.7, 0.2])) @ jnp.linalg.inv(v)
    got = lyapunov_exponents(linear_step, matrix, jnp.zeros(4), num_steps=2000, warmup=200, interval=interval)
    np.testing.assert_allclose(got, np.log([1.6, 1.1, 0.7, 0.2]), atol=1e-10)


def test_analytic_henon_map(x64):
    got = jax.jit(lambda x: lyapunov_exponents(henon_step, HenonParams(), x, num_steps=200_000, warmup=1000))(
        jnp.array([0.1, 0.1])
    )
    np.testing.assert_allclose(got, [0.41922, -1.62319], atol=2e-3)
    assert float(got.sum()) == pytest.approx(np.log(0.3), abs=1e-10)  # area contraction is exact
    assert float(kaplan_yorke_dimension(got)) == pytest.approx(1.2583, abs=2e-3)


def test_property_random_tanh_networks_turn_chaotic_at_gain_one(x64):
    n = 200
    w = jax.random.normal(jax.random.key(1), (n, n)) / n**0.5
    step, start = rnn.rnn_step("tanh"), jax.random.normal(jax.random.key(2), (n,))

    def leading(gain):
        params = rnn.RNNParams(gain * w, jnp.zeros((1, n)))
        return lyapunov_exponents(step, params, start, jnp.zeros((700, 1)), warmup=300, num_exponents=1)[0]

    calm, chaotic = jax.jit(jax.vmap(leading))(jnp.array([0.7, 1.8]))
    assert calm == pytest.approx(np.log(0.7), abs=0.1)  # the zero state attracts: log of the spectral radius
    assert chaotic > 0.05


def test_parity_gradient_against_finite_differences(x64):
    w = jax.random.normal(jax.random.key(1), (4, 4)) / 2
    inputs = jax.random.normal(jax.random.key(2), (20, 1))

    def leading(scale):
        params = rnn.RNNParams(scale * w, jnp.ones((1, 4)))
        return lyapunov_exponents(rnn.rnn_step("tanh"), params, jnp.zeros(4), inputs, num_exponents=2).sum()

    h = 1e-5
    want = (leading(1.1 + h) - leading(1.1 - h)) / (2 * h)
    assert float(jax.grad(leading)(1.1)) == pytest.approx(float(want), rel=1e-6)


def test_analytic_kaplan_yorke_edges():
    assert float(kaplan_yorke_dimension(jnp.array([-0.1, -0.2]))) == 0.0
    assert float(kaplan_yorke_dimension(jnp.array([0.3, -0.1]))) == 2.0
    assert float(kaplan_yorke_dimension(jnp.array([0.5, 0.0, -1.0]))) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "num_steps"),
        ({"num_steps": 10, "interval": 3}, "interval"),
        ({"num_steps": 10, "num_exponents": 3}, "num_exponents"),
        ({"inputs": jnp.zeros((5, 1)), "num_steps": 6}, "exceed"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        lyapunov_exponents(linear_step, jnp.eye(2), jnp.zeros(2), **options)
