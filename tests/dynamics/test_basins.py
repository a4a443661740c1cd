"""Where trajectories end, basins of attraction and their boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs.dynamics import (
    BOUNDARY,
    ESCAPED,
    NEUTRAL,
    NONFINITE,
    UNDECIDED,
    Settling,
    basins_of_attraction,
    bisect_boundary,
    boundaries_1d,
    settle,
    state_grid,
)
from cliffs.recurrent import OneUnitParams, one_unit_step


def of_one(basins):
    """The attractors of basins of one set of parameters."""
    return untyped(basins.attractors)


def logistic_step(r, x, inputs=None):
    return r * x * (1 - x)


def double_well(params, x, inputs=None):
    """Attractors at (±1, 0), saddle at 0, boundary x = 0; contracts to y = 0."""
    return jnp.stack([x[0] + 0.3 * (x[0] - x[0] ** 3), params * x[1]])


def rotation(growth, x, inputs=None):
    """A stable circle of radius sqrt(growth - 1) for growth > 1."""
    c, s = jnp.cos(0.7), jnp.sin(0.7)
    return (growth - jnp.sum(x**2)) * jnp.array([[c, -s], [s, c]]) @ x


@pytest.mark.parametrize("r", [2.8, 3.2, 3.5, 3.56])
def test_analytic_settles_on_the_cycle_of_the_logistic_map(x64, r):
    period = {2.8: 1, 3.2: 2, 3.5: 4, 3.56: 8}[r]
    end = settle(
        logistic_step, jnp.asarray(r), jnp.array([[0.3], [0.7], [2.0], [1.0]]), settling=Settling(max_period=8)
    )
    assert end.period.tolist() == [period, period, 0, 1]  # 2 escapes, 1 falls on the unstable fixed point 0
    assert end.escaped.tolist() == [False, False, True, False]
    orbit = np.asarray(end.orbit[0, :, 0])
    assert np.unique(np.round(orbit, 6)).size == period
    np.testing.assert_allclose(np.sort(orbit), np.sort(np.roll(r * orbit * (1 - orbit), 1)), atol=1e-9)
    np.testing.assert_allclose(end.mean[0, 0], orbit.mean(), atol=1e-9)
    np.testing.assert_allclose(end.spread[0], orbit.std(), atol=1e-9)


def test_analytic_a_circle_has_no_period_but_a_mean_and_a_spread(x64):
    end = settle(rotation, jnp.asarray(1.25), jnp.array([[0.3, 0.1]]), settling=Settling(window=256))
    assert int(end.period[0]) == 0
    assert not bool(end.escaped[0])
    np.testing.assert_allclose(end.mean[0], 0, atol=0.02)
    np.testing.assert_allclose(end.spread[0], 0.5, atol=1e-3)


def test_property_a_slow_saddle_is_not_taken_for_an_end(x64):
    """Starts down to 1e-14 from the saddle leave it, though the speed there is far below the tolerance."""
    gaps = 10.0 ** -jnp.arange(1.0, 15.0)
    starts = jnp.stack([gaps, jnp.zeros_like(gaps)], 1)
    end = settle(double_well, jnp.asarray(0.5), jnp.concatenate([starts, -starts]))
    np.testing.assert_allclose(end.orbit[:, 0, 0], np.repeat([1.0, -1.0], 14), atol=1e-9)


def test_analytic_basins_over_parameters_change_their_number_at_the_folds(x64):
    """One program for 40 biases: one attractor outside the folds, two between, the boundary at the unstable point."""
    b = np.linspace(-2.8, -2.2, 40)
    params = OneUnitParams(jnp.full(40, 5.0), jnp.asarray(b))
    x = np.linspace(-4, 4, 81)
    basins = basins_of_attraction(one_unit_step, params, jnp.asarray(x)[:, None], over_params=True)
    between = (b > -2.65561033863) & (b < -2.34438966137)
    assert [len(a) for a in of_one(basins)] == np.where(between, 2, 1).tolist()
    assert basins.labels.shape == (40, 81)
    for i in np.flatnonzero(between):
        # The unstable fixed point solves x = 5 s(x) + b with 5 s' > 1, between the fold states.
        grid = np.linspace(-0.9624236501, 0.9624236501, 200_001)
        unstable = grid[np.argmin(np.abs(grid - 5 / (1 + np.exp(-grid)) - b[i]))]
        clear = np.abs(x - unstable) > 1e-3
        np.testing.assert_array_equal(basins.labels[i][clear], (x > unstable)[clear].astype(int))
    for here, value in zip(basins.attractors, b):
        for a in untyped(here):  # a list for every run
            point = a.points[0, 0]
            np.testing.assert_allclose(5 / (1 + np.exp(-point)) + value, point, atol=1e-12)


def test_analytic_basins_of_a_slice_with_escape_cycles_and_the_boundary(x64):
    grid = state_grid(jnp.zeros(2), list(jnp.eye(2)), [jnp.linspace(-3, 3, 25), jnp.linspace(-1, 1, 5)])
    basins = basins_of_attraction(double_well, jnp.asarray(0.5), grid, grid_axes=2)
    x = np.linspace(-3, 3, 25)
    # The cubic map sends 0 to itself, and |x| > 2.7688 away for good (its 2-cycle of that size repels).
    limit = np.sqrt(1 + 2 / 0.3)
    want = np.where(np.abs(x) > limit, ESCAPED, np.where(np.isclose(x, 0), BOUNDARY, 0))
    np.testing.assert_array_equal(np.where(basins.labels[:, 2] > 0, 0, basins.labels[:, 2]), want)
    np.testing.assert_array_equal(basins.labels, basins.labels[:, :1].repeat(5, 1))
    inner = (np.abs(x) < np.sqrt(1 + 1 / 0.3)) & ~np.isclose(x, 0)
    np.testing.assert_array_equal(basins.labels[inner, 0], (x[inner] > 0).astype(int))
    np.testing.assert_allclose([a.points[0, 0] for a in of_one(basins)], [-1, 1], atol=1e-12)
    np.testing.assert_allclose([a.multipliers[0].real for a in of_one(basins)], [0.5, 0.5], atol=1e-9)
    # With params = 1 the second component stays: the wells are lines of neutral fixed points.
    lines = basins_of_attraction(double_well, jnp.asarray(1.0), grid, grid_axes=2)
    want = np.where(np.abs(x) > limit, ESCAPED, np.where(np.isclose(x, 0), BOUNDARY, NEUTRAL))
    np.testing.assert_array_equal(lines.labels, np.repeat(want[:, None], 5, 1))
    assert lines.attractors == []
    cycle = basins_of_attraction(logistic_step, jnp.asarray(3.2), jnp.array([[0.2], [-0.1], [0.4]]))
    assert cycle.labels.tolist() == [0, ESCAPED, 0]
    assert of_one(cycle)[0].period == 2
    circle = basins_of_attraction(
        rotation, jnp.asarray(1.25), jnp.array([[0.1, 0.0]]), settling=Settling(max_steps=256)
    )
    assert circle.labels.tolist() == [UNDECIDED]


def ricker_step(p, x, inputs=None):
    return x * jnp.exp(p["r"] * (1 - x / p["K"]))


def cubic_step(p, x, inputs=None):
    """Wells at ±K, the boundary at 0; from 2.77 K outwards everything escapes."""
    return x + 0.3 * x * (1 - (x / p["K"]) ** 2)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e10])
def test_invariance_basins_and_boundaries_do_not_depend_on_the_units_of_the_state(x64, unit):
    params = {"r": jnp.asarray(2.2), "K": jnp.asarray(unit)}
    starts = unit * jnp.linspace(-4, 4, 33)[:, None]
    # Starts so near 0 that the first steps are as small as the tolerance.
    near = unit * jnp.array([[1e-12], [-1e-12]])
    end = settle(cubic_step, params, jnp.concatenate([starts, near]))
    assert end.escaped.tolist() == (np.abs(np.linspace(-4, 4, 33)) > np.sqrt(1 + 2 / 0.3)).tolist() + [False] * 2
    np.testing.assert_allclose(end.orbit[-2:, 0, 0] / unit, [1, -1], atol=1e-9)
    basins = basins_of_attraction(cubic_step, params, starts)
    np.testing.assert_allclose([a.points[0, 0] / unit for a in of_one(basins)], [-1, 1], atol=1e-12)
    assert np.bincount(basins.labels + 3).tolist() == [1, 0, 10, 11, 11]
    point = bisect_boundary(cubic_step, params, -0.3 * unit * jnp.ones((1, 1)), 0.7 * unit * jnp.ones((1, 1)))
    np.testing.assert_allclose(point.states / unit, [[0]], atol=1e-14)
    inner = boundaries_1d(cubic_step, params, (-2 * unit, 2 * unit), max_period=1, depth=0)
    np.testing.assert_allclose(inner.positions / unit, [0], atol=1e-14)
    # The cycle of two of the Ricker map lies on both sides of K; one attractor.
    cycle = basins_of_attraction(ricker_step, params, unit * jnp.linspace(0.1, 3, 9)[:, None])
    assert ([a.period for a in of_one(cycle)], set(cycle.labels.tolist())) == ([2], {0})
    np.testing.assert_allclose(of_one(cycle)[0].points.sum() / unit, 2, rtol=1e-9)  # x exp(r (1 - x)) pairs x, 2 - x


def test_invariance_entries_in_units_of_their_own(x64):
    """The double well with its entries in other units has the same labels."""

    def step(unit, x, inputs=None):
        return double_well(0.5, x / unit) * unit

    grid = state_grid(jnp.zeros(2), list(jnp.eye(2)), [jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 5)])
    plain = basins_of_attraction(step, jnp.ones(2), grid, grid_axes=2)
    for unit in (jnp.array([1e8, 1e-6]), jnp.array([1e-5, 1e3])):
        other = basins_of_attraction(step, unit, grid * unit, grid_axes=2)
        np.testing.assert_array_equal(other.labels, plain.labels)
        np.testing.assert_allclose([a.points[0] / unit for a in of_one(other)], [[-1, 0], [1, 0]], atol=1e-9)


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e8])
def test_invariance_an_offset_of_the_state_changes_no_basin(x64, offset):
    def step(p, x, inputs):
        return offset + p * jnp.tanh(2 * (x - offset))

    starts = offset + jnp.linspace(-2, 2, 9)[:, None]
    for settling in (Settling(), Settling(escape=1e9)):
        basins = basins_of_attraction(step, jnp.ones(1), starts, settling=settling, over_params=True)
        assert basins.labels.tolist() == [[0, 0, 0, 0, -3, 1, 1, 1, 1]]
        got = [a.points[0, 0] - offset for a in untyped(basins.attractors)[0]]
        np.testing.assert_allclose(got, [-0.957504, 0.957504], atol=1e-6 + 4 * np.spacing(offset))
    low = basins_of_attraction(step, jnp.ones(1), starts, settling=Settling(escape=offset / 2), over_params=True)
    assert (low.labels == ESCAPED).all()


def test_analytic_a_fixed_point_of_infinite_slope_is_a_boundary(x64):
    basins = basins_of_attraction(lambda p, x, u: jnp.sqrt(x), None, jnp.array([[0.5], [2.0], [0.0]]))
    assert basins.labels.tolist() == [0, 0, -3]
    np.testing.assert_allclose(of_one(basins)[0].points, [[1]])


def test_property_starts_that_are_not_finite_have_a_label_of_their_own(x64):
    starts = jnp.array([[-0.5], [jnp.nan], [0.5], [jnp.inf], [9.0]])
    for params, over in ((jnp.asarray(0.3), False), (jnp.array([0.3, 0.3]), True)):
        basins = basins_of_attraction(lambda p, x, u: x + p * (x - x**3), params, starts, over_params=over)
        np.testing.assert_array_equal(np.atleast_2d(basins.labels)[-1], [0, NONFINITE, 1, NONFINITE, ESCAPED])
        assert basins.nonfinite == 2


def test_property_maps_without_parameters_have_basins():
    def step(params, x, inputs):
        return x + 0.3 * (x - x**3)

    basins = basins_of_attraction(step, None, jnp.array([[-0.5], [0.5]]))
    assert basins.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="over_params needs parameters"):
        basins_of_attraction(step, None, jnp.array([[-0.5]]), over_params=True)


@pytest.mark.parametrize("pair", ["5,-2.5", "8,-4"])
def test_parity_reference_boundary_of_the_one_unit_map(x64, reference, pair):
    w, b = map(float, pair.split(","))
    unstable, multiplier = map(float, reference["fixed_points_sigmoid"][pair][1])
    params = OneUnitParams(w, b)
    point = bisect_boundary(
        one_unit_step,
        params,
        jnp.array([[-1.3], [-2.0]]),
        jnp.array([[2.0], [-1.0]]),
        settling=Settling(tolerance=jnp.asarray(1e-10)),
    )
    assert point.found.tolist() == [True, False]
    np.testing.assert_allclose(point.states[0, 0], unstable, atol=1e-14)
    exact = boundaries_1d(one_unit_step, params, (-6.0, 6.5), max_period=1)
    np.testing.assert_allclose(exact.positions, [unstable], atol=1e-14)
    np.testing.assert_allclose(exact.multiplier, [multiplier], rtol=1e-12)


def test_analytic_boundaries_in_one_dimension_are_unstable_points_and_their_preimages(x64):
    # Logistic map at r = 3.2: 0 repels and 1 is its preimage; beyond them everything escapes.
    found = boundaries_1d(logistic_step, jnp.asarray(3.2), (-0.5, 1.5), max_period=1)
    np.testing.assert_allclose(found.positions, [0, 1], atol=1e-14)
    assert found.depth.tolist() == [0, 1]
    np.testing.assert_allclose(found.multiplier, 3.2, rtol=1e-12)
    # The unstable fixed point 1 - 1 / r and its preimage 1 / r separate nothing: both sides lead to the 2-cycle.
    assert not np.isclose(found.positions, 1 - 1 / 3.2).any()
    # Bisection from outside agrees.
    point = bisect_boundary(logistic_step, jnp.asarray(3.2), jnp.array([[0.4]]), jnp.array([[1.4]]))
    np.testing.assert_allclose(point.states, [[1.0]], atol=1e-14)


def test_invariance_jit_vmap_and_float32():
    def boundary(b):
        return bisect_boundary(one_unit_step, OneUnitParams(5.0, b), jnp.array([[-1.5]]), jnp.array([[2.0]]))

    biases = jnp.array([-2.55, -2.5, -2.45])
    together = jax.jit(jax.vmap(boundary))(biases)
    assert together.states.dtype == jnp.float32
    x = np.asarray(together.states, float).ravel()
    np.testing.assert_allclose(x, 5 / (1 + np.exp(-x)) + np.asarray(biases, float), atol=2e-6)
    assert abs(float(boundary(biases[0]).states[0, 0]) - x[0]) < 1e-5


def test_property_slices_of_pytree_states(x64):
    """Two coupled bistable units, held as a dict of arrays of different shape."""

    def step(w, state, inputs):
        a, b = state["a"], state["b"][0, 0]
        return {"a": jnp.tanh(w * a + 0.3 * b), "b": jnp.tanh(w * state["b"] + 0.3 * a)}

    zero, along = {"a": jnp.zeros(1), "b": jnp.zeros((1, 1))}, {"a": jnp.ones(1), "b": jnp.full((1, 1), 0.5)}
    grid = state_grid(zero, [along], [jnp.linspace(-2, 2, 5)])
    assert [grid[k].shape for k in "ab"] == [(5, 1), (5, 1, 1)]
    basins = basins_of_attraction(step, jnp.asarray(1.5), grid)
    assert basins.labels.tolist() == [0, 0, BOUNDARY, 1, 1]
    for attractor, sign in zip(of_one(basins), (-1, 1)):
        assert attractor.points["b"].shape == (1, 1, 1)
        a, b = attractor.points["a"].item(), attractor.points["b"].item()
        np.testing.assert_allclose([np.tanh(1.5 * a + 0.3 * b), np.tanh(1.5 * b + 0.3 * a)], [a, b], atol=1e-12)
        assert np.sign(a) == sign


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: settle(one_unit_step, OneUnitParams(5.0, -2.5), x, settling=Settling(max_period=0)), "max_period"),
        (
            lambda x: settle(one_unit_step, OneUnitParams(5.0, -2.5), x, settling=Settling(tolerance=1e-12)),
            "float32, which can reach",
        ),
        (lambda x: settle(lambda p, s, u: s[:0], None, x), "same shape"),
        (lambda x: basins_of_attraction(one_unit_step, OneUnitParams(5.0, -2.5), x, grid_axes=0), "grid_axes"),
        (lambda x: basins_of_attraction(one_unit_step, OneUnitParams(5.0, -2.5), x, grid_axes=2), "starts must be"),
        (lambda x: bisect_boundary(one_unit_step, OneUnitParams(5.0, -2.5), x, x[:1]), "must be alike"),
        (lambda x: boundaries_1d(one_unit_step, OneUnitParams(5.0, -2.5), (1.0, 1.0)), "bounds"),
        (lambda x: state_grid(x[0], [x[0]], []), "as many"),
        (lambda x: settle(one_unit_step, OneUnitParams(5.0, -2.5), x, scale=-1.0), "scale must be positive"),
        (lambda x: Settling(escape=0.0), "escape"),
        (lambda x: basins_of_attraction(one_unit_step, OneUnitParams(5.0, -2.5), x * jnp.nan), "starts must be finite"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(jnp.zeros((2, 1)))
