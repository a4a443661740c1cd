"""Fixed points and cycles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import rnn
from cliffs.dynamics import find_fixed_points, solve_fixed_points
from cliffs.maps import HenonParams, OneUnitParams, henon_step, one_unit_step

STARTS = jnp.linspace(-5, 5, 21)[:, None]


@pytest.mark.parametrize("pair", ["5,-2.5", "5,-3", "8,-4"])
def test_parity_reference_fixed_points_and_multipliers(x64, reference, pair):
    w, b = map(float, pair.split(","))
    found = find_fixed_points(one_unit_step, OneUnitParams(w, b), jnp.asarray(STARTS, float))
    want = np.array(reference["fixed_points_sigmoid"][pair], float)
    np.testing.assert_allclose(found.points[:, 0], want[:, 0], atol=1e-12)
    np.testing.assert_allclose(found.multipliers[:, 0].real, want[:, 1], atol=1e-12)
    np.testing.assert_array_equal(found.stable, want[:, 1] < 1)


def test_analytic_henon_fixed_points_and_the_cycle_of_two(x64):
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    a, b = 1.4, 0.3
    x = (-(1 - b) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    found = find_fixed_points(henon_step, HenonParams(), grid)
    np.testing.assert_allclose(found.points, np.stack([x, b * x], 1), atol=1e-11)
    assert found.kind == ["saddle", "saddle"]
    np.testing.assert_allclose(found.multipliers.prod(1), -b, atol=1e-11)  # the map contracts areas by b
    cycle = find_fixed_points(henon_step, HenonParams(), grid, period=2)
    assert len(cycle.points) == 4
    for point in cycle.points:
        image = henon_step(HenonParams(), henon_step(HenonParams(), jnp.asarray(point)))
        np.testing.assert_allclose(image, point, atol=1e-10)


def flip_flop(hidden=6, dtype=jnp.float64):
    """A tanh network whose recurrent matrix holds two bits: every sign pattern of two modes is an attractor."""
    q = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (hidden, hidden), dtype))[0]
    gains = jnp.array([2.0, 1.8] + [0.3] * (hidden - 2), dtype)
    return rnn.RNNParams(q @ jnp.diag(gains) @ q.T, jnp.zeros((1, hidden), dtype), jnp.zeros(hidden, dtype))


def test_property_network_points_are_verified_and_the_set_does_not_depend_on_the_starts(x64):
    params, step, nothing = flip_flop(), rnn.rnn_step("tanh"), jnp.zeros(1)
    sets = []
    for seed in (1, 2):
        starts = jax.random.normal(jax.random.key(seed), (400, 6))
        found = find_fixed_points(step, params, starts, nothing)
        images = jax.vmap(lambda x: step(params, x, nothing))(jnp.asarray(found.points))
        assert np.abs(images - found.points).max() < 1e-10
        sets.append(found.points)
    assert sets[0].shape == sets[1].shape
    np.testing.assert_allclose(sets[0], sets[1], atol=1e-9)
    # x -> -x is a symmetry of the network, so of the set.
    np.testing.assert_allclose(np.sort(sets[0], 0), np.sort(-sets[0], 0), atol=1e-9)


def test_analytic_a_ghost_of_a_fold_is_a_slow_point(x64):
    # Just left of b1 the upper pair is gone: its ghost moves slowly.
    params = OneUnitParams(5.0, -2.66)
    found = find_fixed_points(one_unit_step, params, jnp.array([[1.0]]), slow_speed=0.05)
    assert len(found.points) == 0
    assert len(found.slow_points) == 1
    np.testing.assert_allclose(found.slow_points[0, 0], 0.962, atol=1e-2)
    assert found.slow_speeds[0] == pytest.approx(-2.65561 + 2.66, rel=1e-2)


def test_invariance_vmap_over_parameters(x64):
    params = OneUnitParams(jnp.array([5.0, 8.0]), jnp.array([-3.0, -4.0]))
    solve = jax.jit(jax.vmap(lambda p: solve_fixed_points(one_unit_step, p, jnp.array([[-4.0]]))))
    np.testing.assert_allclose(solve(params).points.ravel(), [-2.678828805632885, -3.830016096309075], atol=1e-12)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": jnp.zeros(3)}, "starts"),
        ({"period": 0}, "period"),
        ({"tolerance": 1e-12}, "float32.*float64"),
        ({"step": lambda p, x, u: x[:0]}, "same shape"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    options = {"step": one_unit_step, "params": OneUnitParams(5.0, -3.0), "starts": jnp.zeros((2, 1)), **options}
    with pytest.raises(ValueError, match=words):
        find_fixed_points(**options)
