"""A fixed point followed while the parameters change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import track_fixed_point
from cliffs.recurrent import OneUnitParams, one_unit_step


def test_analytic_a_point_is_followed_until_its_fold_and_then_lost(x64):
    w = 5.0
    s = (1 + np.sqrt(1 - 4 / w)) / 2
    fold = np.log(s / (1 - s)) - w * s  # the upper branch ends there
    b = np.linspace(fold + 0.5, fold - 0.1, 24)
    params = OneUnitParams(jnp.full(24, w), jnp.asarray(b))
    track = track_fixed_point(one_unit_step, params, jnp.array([3.0]), restart=jnp.array([-3.0]), tolerance=1e-10)
    before = b > fold
    x = np.asarray(track.states[:, 0])
    assert (x[before] > np.log(s / (1 - s))).all()
    assert np.flatnonzero(track.lost).tolist() == [before.sum()]  # once; the lower point is found from then on
    assert (x[~before] < -2).all()
    np.testing.assert_allclose(x, w / (1 + np.exp(-x)) + b, atol=1e-9)
    sigma = 1 / (1 + np.exp(-x))
    np.testing.assert_allclose(np.real(track.multipliers[:, 0]), w * sigma * (1 - sigma), atol=1e-9)
    assert np.argmax(track.moved) == before.sum()


def test_invariance_runs_are_tracked_under_vmap_as_alone():
    b = jnp.linspace(-3.0, -2.8, 5)

    def one(w):
        return track_fixed_point(one_unit_step, OneUnitParams(jnp.full(5, w), b), jnp.array([-2.7]))

    together = jax.jit(jax.vmap(one))(jnp.array([4.5, 5.0]))
    np.testing.assert_allclose(together.states[1], one(5.0).states, atol=1e-5)
    assert together.multipliers.shape == (2, 5, 1)
    assert together.states.dtype == jnp.float32


@pytest.mark.wrong_arguments
def test_wrong_starts_of_a_track_are_refused():
    with pytest.raises(ValueError, match="start must be finite"):
        track_fixed_point(one_unit_step, OneUnitParams(jnp.ones(2), jnp.ones(2)), jnp.array([jnp.nan]))
