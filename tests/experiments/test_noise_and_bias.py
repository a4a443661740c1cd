"""The bias of clipping and its gain under noise, against closed forms."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from experiments.hypotheses import clipping_bias, noise_and_clipping
from tests.untyped import present

from cliffs.clipping import clip_by_global_norm


@pytest.mark.parametrize("c", [0.5, 1.0, 2.5, 3.5])
def test_analytic_fixed_point_of_clipped_examples_is_the_closed_form(c):
    config = clipping_bias.Config()
    exact = clipping_bias.fixed_point(config, c, 1, per_example=True)
    np.testing.assert_allclose(exact, present(clipping_bias.closed_form(config, c)), atol=1e-9)
    np.testing.assert_allclose(clipping_bias.fixed_point(config, c, 7, per_example=True), exact, atol=1e-9)
    assert abs(clipping_bias.fixed_point(config, c, 1, per_example=False) - exact) < 1e-9


def test_analytic_larger_clipped_batches_have_less_bias():
    bias = [clipping_bias.fixed_point(clipping_bias.Config(), 1.0, n, per_example=False) for n in (1, 4, 16, 64)]
    assert all(a > b > 0 for a, b in itertools.pairwise(bias))
    assert bias[-1] < 1e-3 * bias[0]


@pytest.mark.parametrize("c", [0.3, 0.7, 2.0])
def test_analytic_worst_two_point_noise_is_a_maximum_over_its_probability(c):
    biases = []
    for p in np.linspace(0.001, 0.5, 2000):
        a = float(np.sqrt((1 - p) / p))  # standard deviation 1
        biases.append(clipping_bias.fixed_point(clipping_bias.Config(p=float(p), a=a), c, 1, per_example=True))
    np.testing.assert_allclose(max(biases), clipping_bias.worst_bias(1.0, c), rtol=2e-3, atol=2e-3)


def test_integration_sgd_stops_where_the_closed_form_says():
    config = clipping_bias.Config(updates=4000, runs=32)
    found = clipping_bias.measure(config, clip_by_global_norm, {"limit": (1.5,)}, 1)[0]
    np.testing.assert_allclose(found["measured"], 0.1 * 1.5 / 0.9, atol=5 * found["standard_error"])
    assert found["standard_error"] < 0.02


def test_analytic_error_feedback_for_each_example_ends_at_the_optimum():
    found = clipping_bias.finite_set(clipping_bias.Config())
    np.testing.assert_allclose(present(found["examples clipped"]["measured"]), 0.1 * 2 / 0.9, rtol=1e-4)
    for name in ("mean clipped", "error feedback for each example"):
        np.testing.assert_allclose(present(found[name]["measured"]), 0, atol=1e-4)


def test_analytic_clipping_cannot_help_under_gaussian_noise_and_can_under_heavy_tails():
    config = noise_and_clipping.Config()
    for excess in (0.01, 1.0):
        gains = {
            name: np.array([noise_and_clipping.gain(config, name, c, excess) for c in (0.2, 0.5, 1.0, 2.0, 50.0)])
            for name in noise_and_clipping.NOISES
        }
        assert (gains["Gaussian"] <= 1 + 1e-3).all()
        np.testing.assert_allclose(gains["Gaussian"][-1], 1, rtol=2e-2)
        assert np.isinf(gains["t, 1.5 degrees"]).all()
        if excess < 0.1:  # where the noise decides
            assert gains["t, 3 degrees"].max() > 1.5


def test_analytic_moments_of_the_clipped_residual():
    """Gaussian noise: the residual is Gaussian, so both moments are those of a clipped Gaussian."""
    config = noise_and_clipping.Config(noise=0.5)
    noises = jnp.asarray(noise_and_clipping.quantiles(config, "Gaussian", 4000))
    inside, second = noise_and_clipping.moments(jnp.asarray(0.75), 1.2, noises)
    law = scipy.stats.norm(0, 1.0)
    np.testing.assert_allclose(inside, law.cdf(1.2) - law.cdf(-1.2), atol=1e-3)
    wanted = law.expect(lambda r: np.minimum(r**2, 1.44), lb=-9, ub=9)
    np.testing.assert_allclose(second, wanted, atol=2e-3)
