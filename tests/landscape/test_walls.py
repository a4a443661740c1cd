"""Walls that a grid is too coarse to show."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.landscape import find_walls, locate_boundary, parameter_direction, sample_line, state_after
from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step

BASE = OneUnitParams(0.0, 0.0)


def final_state(w, b):
    return state_after(one_unit_step, OneUnitParams(w, b), jnp.asarray(0.5), None, 400, max_length=400)


def test_parity_reference_the_wall_of_figure_3_from_a_50_by_50_grid(x64):
    # The peak stands -0.1418 m^-T beside the boundary: at T = 150 closer than 1e-9 (at T = 50 it would be 4e-5).
    w, b = jnp.linspace(4.0, 6.45, 50), jnp.linspace(-3.2, -1.6, 50)
    axes = [parameter_direction(BASE, "w"), parameter_direction(BASE, "b")]
    with pytest.warns(UserWarning, match="narrower than float64"):  # from w = 5.3 on
        walls = find_walls(lambda p: one_unit_cost(p, num_steps=150), BASE, axes, [w, b])
    assert (np.diff(walls.peak) <= 0).all()
    column = (walls.axis == 1) & np.isclose(walls.coordinates[:, 0], 5.0)
    assert column.sum() == 1
    assert float(walls.coordinates[column, 1][0]) == pytest.approx(-2.612296656009272823, abs=1e-9)
    assert walls.width[column][0] < 1e-8 * (b[1] - b[0])
    assert walls.peak[column][0] == pytest.approx(1.81847 * 1.175018561007972**150, rel=1e-3)
    # Every wall across a line of constant w stands on the basin boundary, up to its width or 20 numbers.
    steep = (walls.axis == 1) & (walls.coordinates[:, 0] > 4.4)
    lines = walls.coordinates[steep]
    boundary = jax.jit(jax.vmap(lambda w: locate_boundary(lambda b: final_state(w, b), -3.5, -1.5)))(lines[:, 0])
    assert steep.sum() >= 25
    assert (np.abs(lines[:, 1] - boundary) <= 2 * np.maximum(walls.width[steep], 5e-15)).all()
    # From above 4.4 on nothing is missed: one wall for every value of w whose wall lies on the picture.
    crossed = [x for x in np.asarray(w) if 4.42 < x < 5.92]
    np.testing.assert_allclose(np.sort(lines[lines[:, 0] < 5.92, 0]), crossed)


def test_analytic_two_walls_on_a_line_in_both_precisions(x64):
    def loss(s):
        return jnp.tanh((s - 0.3) / 1e-5) + 0.1 * jnp.tanh((s + 0.6) / 1e-3) + 0.01 * s

    for dtype in (jnp.float32, jnp.float64):
        walls = find_walls(loss, jnp.asarray(0.0, dtype), [1.0], [jnp.linspace(-1, 1, 20)])
        np.testing.assert_allclose(walls.coordinates.ravel(), [0.3, -0.6], atol=1e-6)
        np.testing.assert_allclose(walls.peak, [1e5, 1e2], rtol=0.01)
        np.testing.assert_allclose(walls.width, 1.7627 * np.array([1e-5, 1e-3]), rtol=0.05)
        assert walls.resolved.all()
        assert walls.peak.dtype == dtype


def test_documented_where_the_loss_is_not_finite_is_passed_over(x64):
    def loss(s):
        return jnp.where(s < -0.55, jnp.inf, jnp.where(s > 0.85, jnp.nan, jnp.tanh((s - 0.3) / 1e-5) + s**2))

    walls = find_walls(loss, 0.0, [1.0], [jnp.linspace(-1, 1, 21)])
    np.testing.assert_allclose(walls.coordinates, [[0.3]], atol=1e-9)
    np.testing.assert_allclose(walls.peak, 1e5, rtol=1e-4)


def test_documented_a_smooth_surface_has_no_walls(x64):
    axes = [jnp.linspace(-1, 1, 12), jnp.linspace(-1, 2, 9)]
    walls = find_walls(lambda p: jnp.sum(p**2), jnp.zeros(2), list(jnp.eye(2)), axes)
    assert walls.peak.shape == (0,)
    assert walls.coordinates.shape == (0, 2)


def test_analytic_sampling_covers_a_narrow_wall(x64):
    scale = 1e-7
    line = sample_line(lambda s: jnp.tanh((s - 0.3) / scale) + s**2, 0.0, 1.0, tolerance=0.002)
    assert line.complete
    assert len(line.offsets) < 400
    on_the_wall = np.abs(line.offsets - 0.3) < 3 * scale
    assert on_the_wall.sum() > 10
    np.testing.assert_allclose(line.loss, np.tanh((line.offsets - 0.3) / scale) + line.offsets**2, atol=1e-7)
    area = np.sum(0.5 * np.diff(line.offsets) * (line.slope[1:] + line.slope[:-1]))
    assert area == pytest.approx(line.loss[-1] - line.loss[0], abs=0.05)
    with pytest.warns(UserWarning, match="max_points=75 reached"):
        short = sample_line(lambda s: jnp.tanh((s - 0.3) / scale), 0.0, 1.0, max_points=75)
    assert not short.complete
    # Two walls, the smaller one first on the line: the budget goes to the larger.
    with pytest.warns(UserWarning, match="max_points"):
        short = sample_line(
            lambda s: 0.1 * jnp.tanh((s + 0.6) / scale) + jnp.tanh((s - 0.3) / scale), 0.0, 1.0, max_points=75
        )
    assert np.abs(short.offsets - 0.3).min() < np.abs(short.offsets + 0.6).min()


@pytest.mark.parametrize("beyond", [np.nan, np.inf])
def test_documented_sampling_passes_over_what_is_not_finite(x64, beyond):
    line = sample_line(lambda s: jnp.where(s > 0.9, beyond, jnp.tanh((s - 0.3) / 1e-4)), 0.0, 1.0)
    assert not line.complete
    assert np.sum(np.abs(line.offsets - 0.3) < 3e-4) > 5


@pytest.mark.parametrize("ground", [1.0, -1.0])
def test_analytic_walls_with_and_against_the_slope_of_the_ground(x64, ground):
    for step in (1.0, -1.0):
        walls = find_walls(
            lambda s, step=step: 0.05 * step * jnp.tanh((s - 0.3) / 1e-6) + ground * s,
            0.0,
            [1.0],
            [jnp.linspace(-1, 1, 50)],
        )
        np.testing.assert_allclose(walls.coordinates, [[0.3]], atol=1e-9)
        np.testing.assert_allclose(walls.peak, 5e4, rtol=1e-3)


def test_documented_a_narrower_leaf_is_moved_in_its_own_steps(x64):
    # The loss is steep in a float32 leaf: between two of its numbers there is no slope to be found.
    params, direction = {"w": jnp.float32(0), "b": jnp.float64(0)}, {"w": 1.0, "b": 0.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        walls = find_walls(
            lambda p: jnp.tanh((p["w"].astype(float) - 0.3) / 1e-9), params, [direction], [np.linspace(-1, 1, 30)]
        )
    assert not walls.resolved.any()
    assert any("narrower" in str(w.message) for w in caught)
    fine = find_walls(
        lambda p: jnp.tanh((p["w"].astype(float) - 0.3) / 1e-3), params, [direction], [np.linspace(-1, 1, 30)]
    )
    np.testing.assert_allclose(fine.peak, 1e3, rtol=0.02)
    assert fine.resolved.all()


def test_documented_sampling_warns_where_the_dtype_ends():
    with pytest.warns(UserWarning, match="narrower than float32"):
        line = sample_line(lambda s: jnp.sign(s - 0.3), jnp.float32(0), 1.0)
    assert not line.complete


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: find_walls(jnp.sin, 0.0, [1.0], [jnp.array([0.0, 0.0])]), "increasing"),
        (lambda: find_walls(jnp.sin, 0.0, [1.0], [jnp.array([0.0])]), "at least two"),
        (lambda: sample_line(jnp.sin, 0.0, 1.0, (1.0, 0.0)), "bounds"),
        (lambda: sample_line(jnp.sin, 0.0, 1.0, num_points=2), "num_points"),
        (lambda: sample_line(jnp.sin, 0.0, 0.0), "non-zero"),
        (lambda: find_walls(jnp.sin, 0.0, [0.0], [jnp.array([0.0, 1.0])]), "non-zero"),
        (lambda: sample_line(jnp.sin, 0.0, 1.0, tolerance=0.0), "tolerance"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
