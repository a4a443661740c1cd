"""Fixed points and cycles."""

import functools
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import recurrent, tasks, training
from cliffs.dynamics import Settling, find_fixed_points, settle, solve_fixed_points
from cliffs.recurrent import HenonParams, OneUnitParams, henon_step, one_unit_step


def logistic_step(r, x, inputs=None):
    return r * x * (1 - x)


STARTS = jnp.linspace(-5, 5, 21)[:, None]


@pytest.mark.parametrize("pair", ["5,-2.5", "5,-3", "8,-4"])
def test_parity_reference_fixed_points_and_multipliers(x64, reference, pair):
    w, b = map(float, pair.split(","))
    found = find_fixed_points(one_unit_step, OneUnitParams(w, b), jnp.asarray(STARTS, float))
    want = np.array(reference["fixed_points_sigmoid"][pair], float)
    np.testing.assert_allclose(found.points[:, 0], want[:, 0], atol=1e-12)
    np.testing.assert_allclose(np.real(found.multipliers[:, 0]), want[:, 1], atol=1e-12)
    np.testing.assert_array_equal(found.stable, want[:, 1] < 1)


def test_analytic_henon_fixed_points_and_the_cycle_of_two(x64):
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    a, b = 1.4, 0.3
    x = (-(1 - b) + np.array([-1, 1]) * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    found = find_fixed_points(henon_step, HenonParams(), grid)
    np.testing.assert_allclose(found.points, np.stack([x, b * x], 1), atol=1e-11)
    assert found.kind == ["saddle", "saddle"]
    np.testing.assert_allclose(found.multipliers.prod(1), -b, atol=1e-11)  # the map contracts areas by b
    # The one cycle of two: its x solve a^2 x^2 - a (1 - b) x + (1 - b)^2 - a = 0; both fixed points are left out.
    cycle = find_fixed_points(henon_step, HenonParams(), grid, period=2)
    want = np.sort(np.roots([a**2, -a * (1 - b), (1 - b) ** 2 - a]))
    np.testing.assert_allclose(cycle.cycles[:, :, 0], want[None], atol=1e-11)
    np.testing.assert_allclose(cycle.points, cycle.cycles[:, 0])
    assert cycle.converged > cycle.shorter > 0
    np.testing.assert_allclose(cycle.multipliers.prod(1), b**2, atol=1e-10)


@pytest.mark.parametrize(("period", "count"), [(1, 2), (2, 1), (4, 3), (6, 9)])
def test_analytic_number_of_cycles_of_the_full_logistic_map(x64, period, count):
    """At r = 4 the map has (1 / p) sum_{d | p} mu(p / d) 2^d cycles of minimal period p, all with multiplier ±2^p."""
    starts = jnp.linspace(0.0005, 1.0, 801)[:, None]
    found = find_fixed_points(logistic_step, jnp.asarray(4.0), starts, period=period, slow_speed=0.0)
    assert found.cycles.shape == (count, period, 1)
    multipliers = np.where(found.points[:, 0] == 0, 4.0, 2.0**period)
    np.testing.assert_allclose(np.abs(found.multipliers[:, 0]), multipliers, rtol=1e-8)
    orbit = found.cycles[:, :, 0]
    np.testing.assert_allclose(np.roll(orbit, -1, 1), 4 * orbit * (1 - orbit), atol=1e-8)
    assert np.unique(np.round(orbit, 7)).size == count * period  # no cycle twice, no shorter one


@pytest.mark.parametrize(
    ("step", "n", "period", "count"),
    [
        (lambda p, x, _: 3 * x, 1, 5, 48),  # (3^5 - 3) / 5
        (lambda p, x, _: jnp.stack([2 * x[0] + x[1], x[0] + x[1]]), 2, 4, 10),  # Arnold's cat
        (lambda p, x, _: jnp.stack([2 * x[0] + x[1], x[0] + x[1]]), 2, 5, 24),
    ],
)
def test_analytic_cycles_of_expanding_maps_of_the_torus_are_counted_once(x64, step, n, period, count):
    starts = np.random.default_rng(0).uniform(size=(1000, n))
    found = find_fixed_points(step, None, starts, period=period, period_of_state=1.0)
    assert len(found.points) == count
    assert found.hits.sum() == round(1000 * (found.converged - found.shorter))


@pytest.mark.parametrize(("period", "count"), [(9, 56), (10, 99)])
def test_analytic_long_cycles_that_pass_the_critical_point_are_counted_once(x64, period, count):
    starts = jnp.linspace(0.0005, 0.9995, 4000)[:, None]
    found = find_fixed_points(logistic_step, jnp.asarray(4.0), starts, period=period, slow_speed=0.0)
    assert len(found.points) == count


def test_analytic_a_multiplier_on_the_unit_circle_is_neutral(x64):
    """The logistic map's fixed points 0 and 1 - 1 / r have multipliers r and 2 - r: -1 for the second at r = 3."""
    starts = jnp.linspace(0.0005, 1.0, 801)[:, None]
    for r, kinds in ((2.9, ["repeller", "attractor"]), (3.0, ["repeller", "neutral"]), (3.1, ["repeller"] * 2)):
        found = find_fixed_points(logistic_step, jnp.asarray(r), starts, slow_speed=0.0)
        np.testing.assert_allclose(found.points[:, 0], [0, 1 - 1 / r], atol=1e-10)
        assert found.kind == kinds
        assert found.stable.tolist() == [False, r < 3]


def test_property_lstm_states_are_pytrees(x64):
    step = recurrent.lstm_cell(3)
    params = jax.tree.map(lambda p: 3.0 * p, step.init(jax.random.key(0), 2, jnp.float64))
    starts = tuple(jax.random.normal(jax.random.key(i), (16, 3)) for i in (1, 2))
    found = find_fixed_points(step, params, starts, jnp.ones(2), slow_speed=0.0)
    assert isinstance(found.points, tuple)
    image = step(params, tuple(map(jnp.asarray, found.points)), jnp.ones(2))
    assert len(found.residual) >= 1
    for got, want in zip(image, found.points):
        np.testing.assert_allclose(got, want, atol=1e-11)
    assert found.multipliers.shape == (len(found.residual), 6)
    assert found.cycles[0].shape == (len(found.residual), 1, 3)


class Unhashable:
    """A step in the shape of a module that holds an array."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(self):
        self.shift = jnp.ones(1)

    def __eq__(self, other):
        return self is other

    def __call__(self, params, state, inputs):
        return params * state + self.shift


def test_property_a_step_may_be_an_object_that_holds_arrays():
    found = find_fixed_points(Unhashable(), jnp.asarray(0.5), jnp.zeros((2, 1)))
    np.testing.assert_allclose(found.points, [[2.0]], atol=1e-5)


@functools.partial(jax.jit, static_argnums=(0, 1))
def train(seed, updates):
    """Temporal order, T = 20, 50 tanh units, threshold 1."""
    chain = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    params = recurrent.paper_init("smart_tanh", jax.random.key(seed), 6, 50, 4)
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    return training.fit(loss, chain, params, lambda key: tasks.temporal_order(key, 20, 20), jax.random.key(9), updates)


def test_integration_trained_network_of_50_units_in_seconds(x64):
    """512 starts: every point verified, the same set from two disjoint random sets of starts."""
    state, history = train(1, 900)
    assert float(history.aux[-50:].mean()) < 0.05
    params = jax.tree.map(lambda p: p.astype(float), state.params.rnn)
    step, held = recurrent.rnn_step("tanh"), jnp.array([0, 0, 0.25, 0.25, 0.25, 0.25])
    sets, seconds = [], []
    draws = [jnp.tanh(1.5 * jax.random.normal(key, (512, 50))) for key in jax.random.split(jax.random.key(3), 2)]
    for starts in draws:
        began = time.perf_counter()
        sets.append(find_fixed_points(step, params, starts, held, slow_speed=0.0))
        seconds.append(time.perf_counter() - began)
        images = jax.vmap(lambda x: step(params, x, held))(jnp.asarray(sets[-1].points))
        assert np.linalg.norm(images - sets[-1].points, axis=1).max() < 1e-10
    np.testing.assert_allclose(sets[0].points, sets[1].points, atol=1e-9)
    # Which points there are hangs on the last digit of the training. But the map takes a ball into itself, so the
    # indices sign det(I - J) of all fixed points add up to 1 (Lefschetz): none is missing alone.
    multipliers = np.asarray(sets[0].multipliers)
    assert np.sign(np.prod(1 - multipliers, axis=1).real).sum() == 1
    # Every fixed point that plain iteration ends on is among the stable ones found.
    ends = settle(step, params, draws[-1], held, Settling(tolerance=1e-12))
    stable = sets[0].points[sets[0].stable]
    for end in np.asarray(ends.orbit[ends.period == 1, 0]):
        assert np.abs(stable - end).max(axis=1).min() < 1e-9
    assert min(seconds) < 60  # a few seconds on an idle core; the bar leaves room for a loaded machine


def flip_flop(hidden=6, dtype=jnp.float64):
    """A tanh network whose recurrent matrix holds two bits: every sign pattern of two modes is an attractor."""
    q = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (hidden, hidden), dtype))[0]
    gains = jnp.array([2.0, 1.8] + [0.3] * (hidden - 2), dtype)
    return recurrent.RNNParams(q @ jnp.diag(gains) @ q.T, jnp.zeros((1, hidden), dtype), jnp.zeros(hidden, dtype))


def test_property_network_points_are_verified_and_the_set_does_not_depend_on_the_starts(x64):
    params, step, nothing = flip_flop(), recurrent.rnn_step("tanh"), jnp.zeros(1)
    sets = []
    for seed in (1, 2):
        starts = jax.random.normal(jax.random.key(seed), (250, 6))
        found = find_fixed_points(step, params, starts, nothing, slow_speed=0.0)
        images = jax.vmap(lambda x: step(params, x, nothing))(jnp.asarray(found.points))
        assert np.abs(images - found.points).max() < 1e-10
        # Each bit is held at either sign or at the unstable zero: 3 x 3 points, stable where both are held.
        assert (found.points.shape, int(found.stable.sum())) == ((9, 6), 4)
        sets.append(found.points)
    np.testing.assert_allclose(sets[0], sets[1], atol=1e-9)
    # x -> -x is a symmetry of the network, so of the set.
    np.testing.assert_allclose(np.sort(sets[0], 0), np.sort(-sets[0], 0), atol=1e-9)


def test_analytic_a_ghost_of_a_fold_is_a_slow_point(x64):
    # Just left of b1 the upper pair is gone: its ghost moves slowly.
    # The speed x - 5 s(x) + 2.66 is least where 5 s'(x) = 1, as at the fold.
    params, fold = OneUnitParams(5.0, -2.66), np.log((1 + np.sqrt(0.2)) / (1 - np.sqrt(0.2)))
    found = find_fixed_points(one_unit_step, params, jnp.array([[1.0], [3.0]]), slow_speed=0.05)
    assert len(found.points) == 0
    np.testing.assert_allclose(found.slow_points, [[fold]], atol=1e-6)
    np.testing.assert_allclose(found.slow_speeds, [-2.65561033863068795 + 2.66], atol=1e-12)
    assert found.slow == 1.0
    single = find_fixed_points(one_unit_step, OneUnitParams(5.0, -2.66), jnp.array([[1.0]], jnp.float32))
    np.testing.assert_allclose(single.slow_points, [[fold]], atol=1e-2)


def test_analytic_a_low_speed_without_a_minimum_is_no_slow_point(x64):
    # |F(x) - x| = 0.05 + 0.01 e^x falls towards 0.05 and has no minimum, wherever the search stops.
    found = find_fixed_points(lambda p, x, u: x + 0.05 + 0.01 * jnp.exp(x), None, jnp.array([[0.0], [-3.0]]))
    assert len(found.points) == len(found.slow_points) == 0
    assert found.slow == found.converged == 0.0
    # A saddle of the speed is none either: |F - x|^2 = (1 + x^2 - y^2)^2 / 100 at the origin.
    saddle = find_fixed_points(lambda p, x, u: x.at[0].add(0.1 * (1 + x[0] ** 2 - x[1] ** 2)), None, jnp.zeros((1, 2)))
    assert len(saddle.slow_points) == 0


def test_invariance_vmap_over_parameters(x64):
    params = OneUnitParams(jnp.array([5.0, 8.0]), jnp.array([-3.0, -4.0]))
    solve = jax.jit(jax.vmap(lambda p: solve_fixed_points(one_unit_step, p, jnp.array([[-4.0]]))))
    np.testing.assert_allclose(solve(params).points.ravel(), [-2.678828805632885, -3.830016096309075], atol=1e-12)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"starts": jnp.zeros(3)}, "starts"),
        ({"period": 0}, "period"),
        ({"starts": jnp.full((2, 1), jnp.nan)}, "starts must be finite"),
        ({"starts": jnp.zeros((2, 1), int)}, "floating"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"tolerance": 1e-12}, r"1e-12 .*float32, which can reach 4.8e-07.*float64"),
        ({"step": lambda p, x, u: (x, x)}, "same structure"),
        ({"step": lambda p, x, u: x[:0]}, "same shape"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    options = {"step": one_unit_step, "params": OneUnitParams(5.0, -3.0), "starts": jnp.zeros((2, 1)), **options}
    with pytest.raises(ValueError, match=words):
        find_fixed_points(**options)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("options", [{"period": 0}, {"period": "a"}, {"max_iterations": 1.5}])
def test_wrong_counts_are_named_by_both(options):
    (name,) = options
    for solver in (solve_fixed_points, find_fixed_points):
        with pytest.raises(ValueError, match=f"{name} must be a whole number and at least 1, got"):
            solver(one_unit_step, OneUnitParams(5.0, -3.0), jnp.zeros((2, 1)), **options)


def ricker_step(p, x, inputs=None):
    """0 with multiplier e^r, and K with multiplier 1 - r."""
    return x * jnp.exp(p["r"] * (1 - x / p["K"]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_invariance_fixed_points_do_not_depend_on_the_units_of_the_state(x64, dtype):
    for unit in (1e-30, 1e-6, 1.0, 1e10, 1e30):
        params = {"r": jnp.asarray(1.5, dtype), "K": jnp.asarray(unit, dtype)}
        starts = unit * jnp.linspace(0, 2, 41, dtype=dtype)[:, None]
        found = find_fixed_points(ricker_step, params, starts)
        np.testing.assert_allclose(found.points[:, 0] / unit, [0, 1], atol=1e-6)
        np.testing.assert_allclose(np.real(found.multipliers[:, 0]), [np.exp(1.5), -0.5], rtol=1e-5)
        assert (found.converged, found.hits.sum()) == (1.0, 41)
        result = solve_fixed_points(ricker_step, params, starts[10:12])
        assert float(result.residual.max()) < 1e-5 * unit


def test_invariance_two_fixed_points_are_told_apart_by_starts_of_a_far_larger_size(x64):
    """The starts' size says 1, the fixed points are 0 and 1e-6: the residual between them is far above rounding."""
    starts = jnp.concatenate([jnp.linspace(0, 1, 21), jnp.linspace(0, 3e-6, 7)])[:, None]
    found = find_fixed_points(ricker_step, {"r": jnp.asarray(1.5), "K": jnp.asarray(1e-6)}, starts)
    np.testing.assert_allclose(found.points[:, 0], [0, 1e-6], atol=1e-15)
    # A given distance decides alone.
    given = find_fixed_points(ricker_step, {"r": jnp.asarray(1.5), "K": jnp.asarray(1e-6)}, starts, merge_distance=1e-5)
    assert len(given.points) == 1


def mixed_henon(unit, x, inputs=None):
    """The Hénon map with x in one unit and y in another."""
    a, b = x[0] / unit[0], x[1] / unit[1]
    return jnp.stack([unit[0] * (1 - 1.4 * a**2 + b), unit[1] * 0.3 * a])


def test_invariance_every_entry_may_have_a_unit_of_its_own(x64):
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-2, 2, 9), jnp.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    plain = [find_fixed_points(mixed_henon, jnp.ones(2), grid, period=p) for p in (1, 2)]
    for unit in (jnp.array([1e6, 1e-3]), jnp.array([1e-9, 1e5])):
        for want, p in zip(plain, (1, 2)):
            found = find_fixed_points(mixed_henon, unit, grid * unit, period=p)
            np.testing.assert_allclose(found.points / unit, want.points, atol=1e-11)
            np.testing.assert_allclose(found.multipliers, want.multipliers, rtol=1e-8)
    # A scale may be given: for all entries, or for each.
    for scale in (2.0, [1.0, 0.5], jnp.array([3.0, 1.0])):
        given = find_fixed_points(mixed_henon, jnp.ones(2), grid, scale=scale)
        np.testing.assert_allclose(given.points, plain[0].points, atol=1e-11)


def power_step(k, x, inputs=None):
    """`x - x^k`: one fixed point, 0, a root of order k."""
    return x - x**k


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_analytic_a_root_of_higher_order_counts_once(x64, dtype):
    for k in (2, 3, 5, 7, 9):
        for starts in (jnp.linspace(-1, 1, 41), jnp.linspace(0.1, 1, 31)):
            found = find_fixed_points(power_step, jnp.asarray(k), starts[:, None].astype(dtype))
            assert (len(found.points), found.kind, found.hits.tolist()) == (1, ["neutral"], [len(starts)])
            # Rounding leaves no more open: x^k is below the spacing of x there.
            assert abs(found.points[0, 0]) < 4 * float(jnp.finfo(dtype).eps) ** (1 / max(k - 1, 1))
    plane = jax.random.normal(jax.random.key(0), (60, 2), dtype)
    found = find_fixed_points(power_step, jnp.asarray(3), plane)
    assert (len(found.points), found.kind) == (1, ["neutral"])


def test_analytic_a_symmetric_network_at_its_pitchfork_has_one_fixed_point(x64):
    """All eigenvalues of the symmetric matrix are at most 1, so |tanh(W x)| < |x| but at 0."""
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    w = q @ np.diag(np.r_[1.0, np.linspace(-0.8, 0.8, 19)]) @ q.T
    params = recurrent.RNNParams(jnp.array((w + w.T) / 2), jnp.zeros((1, 20)), jnp.zeros(20))
    starts = jax.random.normal(jax.random.key(0), (200, 20))
    found = find_fixed_points(recurrent.rnn_step("tanh"), params, starts, jnp.zeros(1))
    assert (len(found.points), found.kind, found.hits.tolist()) == (1, ["neutral"], [200])
    np.testing.assert_allclose(found.points, 0, atol=1e-5)


def pitchfork_step(m, x, inputs=None):
    return x + m * x - x**3


def test_analytic_roots_just_beyond_a_bifurcation_are_resolved(x64):
    """0 and ±sqrt(m), with multipliers 1 + m and 1 - 2 m."""
    for m in (1e-7, 1e-3):
        found = find_fixed_points(pitchfork_step, jnp.asarray(m), jnp.linspace(-1, 1, 41)[:, None])
        np.testing.assert_allclose(found.points[:, 0], np.array([-1, 0, 1]) * m**0.5, atol=1e-9)
        assert found.kind == ["attractor", "repeller", "attractor"]
    below = find_fixed_points(pitchfork_step, jnp.asarray(-1e-7), jnp.linspace(-1, 1, 41)[:, None])
    assert below.kind == ["attractor"]


def test_analytic_cycles_of_two_are_counted_once_at_a_flip(x64):
    """At r = 3 the map composed with itself has a threefold root at 2 / 3: a fixed point, no cycle of two."""
    starts = jnp.linspace(0.01, 1, 101)[:, None]
    assert len(find_fixed_points(logistic_step, jnp.asarray(3.0), starts, period=2).points) == 0
    born = find_fixed_points(logistic_step, jnp.asarray(3.0001), starts, period=2)
    # Its two points: ((r + 1) ± sqrt((r - 3) (r + 1))) / (2 r).
    want = (4.0001 - np.sqrt(1e-4 * 4.0001)) / 6.0002
    np.testing.assert_allclose(born.points, [[want]], atol=1e-10)


def test_analytic_the_cycle_of_three_at_its_fold_counts_once(x64):
    starts = jnp.linspace(0.01, 1, 101)[:, None]
    fold = 1 + 8**0.5
    at = find_fixed_points(logistic_step, jnp.asarray(fold), starts, period=3)
    assert at.kind == ["neutral"]
    after = find_fixed_points(logistic_step, jnp.asarray(fold + 1e-9), starts, period=3)
    assert sorted(after.kind) == ["attractor", "repeller"]


def line_step(rate, x, inputs=None):
    return jnp.stack([x[0] - rate * x[0] ** 3, x[1]])


def test_analytic_points_of_a_line_of_fixed_points_stay_what_they_are(x64):
    """Every (0, y) is fixed; across the line the root is threefold, along it there is nothing to merge."""
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, 7), jnp.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    found = find_fixed_points(line_step, jnp.asarray(1.0), grid)
    np.testing.assert_allclose(found.points, [[0, y] for y in np.linspace(-1, 1, 5)], atol=1e-4)
    assert (found.kind, found.hits.tolist()) == (["neutral"] * 5, [7] * 5)
    # With rate 0 the whole plane is fixed.
    assert len(find_fixed_points(line_step, jnp.asarray(0.0), grid).points) == 35


def standard_step(p, x, inputs=None):
    """Chirikov's map; with `turn` the angles are taken modulo 2 pi."""
    action = x[1] + p["k"] * jnp.sin(x[0])
    new = jnp.stack([x[0] + action, action])
    return jnp.where(p["turn"], jnp.mod(new, 2 * jnp.pi), new)


@pytest.mark.parametrize("turn", [True, False])
def test_analytic_the_standard_map_has_two_fixed_points(x64, turn):
    grid = jnp.linspace(0, 2 * jnp.pi, 13)
    grid = jnp.stack(jnp.meshgrid(grid, grid), -1).reshape(-1, 2)
    params = {"k": jnp.asarray(0.9), "turn": jnp.asarray(turn)}
    for period in (2 * np.pi, [2 * np.pi, 2 * np.pi]):
        found = find_fixed_points(standard_step, params, grid, period_of_state=period)
        np.testing.assert_allclose(found.points, [[0, 0], [np.pi, 0]], atol=1e-12)
        # Trace 2 + k and 2 - k, determinant 1.
        assert found.kind == ["saddle", "neutral"]
        np.testing.assert_allclose(found.multipliers.sum(1), [2.9, 1.1], atol=1e-10)
        assert found.converged == 1.0


def pendulum_step(k, x, inputs=None):
    """A damped rotor: only the first entry is an angle."""
    speed = 0.5 * x[1] - k * jnp.sin(x[0])
    return jnp.stack([x[0] + speed, speed])


def test_analytic_one_entry_may_be_an_angle_and_the_other_not(x64):
    grid = jnp.stack(jnp.meshgrid(jnp.linspace(-20, 20, 21), jnp.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    found = find_fixed_points(pendulum_step, jnp.asarray(0.5), grid, period_of_state=[2 * np.pi, None])
    np.testing.assert_allclose(found.points, [[0, 0], [np.pi, 0]], atol=1e-12)
    assert found.kind == ["attractor", "saddle"]


def test_property_starts_that_are_not_finite_are_left_out_and_counted(x64):
    starts = jnp.array([[jnp.nan], [1.2], [jnp.inf], [0.1], [-jnp.inf]])
    params = {"r": jnp.asarray(1.5), "K": jnp.asarray(1.0)}
    found, clean = (find_fixed_points(ricker_step, params, s) for s in (starts, starts[jnp.array([1, 3])]))
    np.testing.assert_array_equal(found.points, clean.points)
    assert (found.nonfinite, found.hits.tolist(), found.converged) == (3, [1, 1], 1.0)
    assert clean.nonfinite == 0


def test_property_starts_that_leave_to_infinity_do_no_harm():
    def henon(params, x, u):
        return jnp.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])

    starts = jnp.array([[1e10, -3e9], [0.6, 0.2], [-4e9, 2e10], [-1.1, -0.3]])
    found = find_fixed_points(henon, None, starts, period=2)  # numpy warns of nothing, which would be an error here
    assert found.converged > 0
    assert np.isfinite(found.points).all()


def test_property_a_map_that_is_not_finite_everywhere_has_its_other_fixed_points(x64):
    """sqrt(x) has the fixed points 1 (multiplier 1/2) and 0, where its slope is infinite; below 0 it is NaN."""
    found = find_fixed_points(lambda p, x, u: jnp.sqrt(x), None, jnp.array([[-1.0], [0.0], [0.5], [2.0]]))
    np.testing.assert_allclose(found.points, [[0.0], [1.0]], atol=1e-12)
    np.testing.assert_allclose(np.real(found.multipliers[:, 0]), [np.inf, 0.5])
    assert found.kind == ["repeller", "attractor"]
    # In more dimensions such a Jacobian has no eigenvalues to speak of.
    plane = find_fixed_points(lambda p, x, u: jnp.sqrt(x), None, jnp.array([[0.0, 0.0], [0.5, 2.0]]))
    assert plane.kind == ["undetermined", "attractor"]
    assert plane.stable.tolist() == [False, True]


def test_property_parameters_of_another_dtype_or_in_a_frozen_dict(x64):
    core = pytest.importorskip("flax.core")
    starts = jnp.linspace(0, 2, 9)[:, None]
    # A network trained in float32, analysed in float64.
    single = {"r": jnp.asarray(1.5, jnp.float32), "K": jnp.asarray(0.1, jnp.float32)}
    found = find_fixed_points(ricker_step, single, starts)
    np.testing.assert_allclose(found.points[:, 0], [0, float(np.float32(0.1))], atol=1e-14)
    frozen = find_fixed_points(ricker_step, core.freeze(single), starts)
    np.testing.assert_array_equal(frozen.points, found.points)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": [1.0, 2.0]}, r"scale must be a number, an array \[1\]"),
        ({"merge_distance": -1.0}, "merge_distance"),
        ({"period_of_state": -1.0}, "period_of_state"),
        ({"period_of_state": [1.0, 2.0]}, "period_of_state"),
        ({"params": {"w": "text"}}, r"params\['w'\] is a str"),
        ({"params": types.MappingProxyType({"w": 1.0})}, "params is a mappingproxy"),
        ({"step": lambda p, x, u: x.astype(jnp.float16)}, "pass params and states of one dtype"),
    ],
)
def test_wrong_units_and_parameters_are_named(options, words):
    options = {"step": one_unit_step, "params": OneUnitParams(5.0, -3.0), "starts": jnp.zeros((2, 1)), **options}
    with pytest.raises(ValueError, match=words):
        find_fixed_points(**options)


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_invariance_an_offset_of_the_state_merges_no_fixed_points(x64, offset):
    # y' = y - 0.5 y (y^2 - 1), x = offset + h y: multipliers 0, 1.5 and 0.
    h = 1e-7 * offset if offset > 1e6 else 1e-2

    def step(p, x, u):
        y = (x - offset) / h
        return x - 0.5 * h * y * (y**2 - 1)

    found = find_fixed_points(step, None, offset + h * jnp.linspace(-2, 2, 21)[:, None])
    np.testing.assert_allclose((found.points.ravel() - offset) / h, [-1, 0, 1], atol=1e-6)
    assert found.kind == ["attractor", "repeller", "attractor"]


@pytest.mark.parametrize("offset", [1e8, 1e10])
def test_invariance_an_offset_of_the_state_loses_no_fixed_point(x64, offset):
    params, line = OneUnitParams(5.0, -2.5), jnp.linspace(-4, 4, 21)[:, None]
    near = find_fixed_points(one_unit_step, params, line)

    def shifted(p, x, u):
        return offset + one_unit_step(p, x - offset, u)

    far = find_fixed_points(shifted, params, offset + line)
    assert far.kind == near.kind == ["attractor", "repeller", "attractor"]
    np.testing.assert_allclose(far.points - offset, near.points, atol=4 * np.spacing(offset))


def test_documented_printed_fixed_points_are_a_few_lines(x64):
    found = find_fixed_points(lambda w, x, _: jnp.tanh(w * x), 2.0, jnp.linspace(-2, 2, 9)[:, None])
    first, *lines = repr(found).splitlines()
    assert first == "<FixedPoints: 3 found, 100% of the starts converged"
    assert lines[1] == "  repeller at [0.], largest multiplier 2"
    turning = find_fixed_points(lambda w, x, _: w @ x, jnp.array([[0.0, -2.0], [2.0, 0.0]]), jnp.ones((1, 2)))
    assert "largest multiplier 0+2j" in repr(turning) or "largest multiplier 0-2j" in repr(turning)
