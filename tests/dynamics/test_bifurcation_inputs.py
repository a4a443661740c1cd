"""Diagrams of what users bring: other units, corners, symmetry, angles, inputs as parameters, long cycles."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import present

from cliffs.dynamics import (
    InputPath,
    Stepping,
    bifurcation_curve,
    bifurcation_diagram,
    continue_branch,
    find_fixed_points,
    locate_bifurcation,
)

LINE = np.linspace(-3, 3, 13)[:, None]
UNIT = np.linspace(0.05, 0.95, 7)[:, None]


def ricker(p, x, _):
    return x * jnp.exp(p["l"] * (1 - x / p["a"]))


def border(p, x, _):  # slope 1/2 on the left, a on the right
    return jnp.where(x < 0, 0.5 * x, p["a"] * x) + p["l"]


def relu_unit(p, x, _):
    return jnp.maximum(p["a"] * x + p["l"], 0)


def logistic(p, x, _):  # the parameter in units of a
    return p["l"] / p["a"] * x * (1 - x)


def wiggle(p, x, _):  # solutions l = sin x + x / 50: two folds in every turn
    return x + 0.3 * (p["l"] - jnp.sin(x) - 0.02 * x)


def cubic(p, x, _):  # solutions l = x - x^3 / 3
    return x + 0.1 * (p["l"] - x + x**3 / 3)


def hard_tanh(p, x, _):
    return jnp.clip(p["a"] * x + p["l"], -1, 1)


SCALAR = (ricker, border, relu_unit, logistic, wiggle, cubic, hard_tanh)


def scalar(p, x, u):
    """All one-dimensional maps in one, so that they are compiled once."""
    return jax.lax.switch(p["which"], SCALAR, p, x, u)


def diagram_of(f, a, bounds, starts, **options):
    params = {"which": SCALAR.index(f), "a": a, "l": bounds[0]}
    return bifurcation_diagram(scalar, params, "l", bounds, starts, **options)


def events(diagram):
    return [(p.kind, round(p.parameter, 9), p.located) for p in diagram.special]


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e10])
def test_invariance_the_unit_of_the_state_changes_nothing(x64, unit):
    diagram = diagram_of(ricker, unit, (0.5, 2.3), unit * np.linspace(0.1, 2, 9)[:, None], max_period=2)
    assert diagram.complete
    assert events(diagram) == [("flip", 2.0, True)]
    np.testing.assert_allclose(diagram.special[0].state, unit, rtol=1e-12)
    assert [b.period for b in diagram.branches] == [1, 1, 2]
    (two,) = [b for b in diagram.branches if b.period == 2]
    partner = two.states[:, 0] * np.exp(two.parameter * (1 - two.states[:, 0] / unit))
    np.testing.assert_allclose(two.states[:, 0] + partner, 2 * unit, rtol=1e-9)  # x1 + x2 = 2 K on the cycle
    # The normal form: f = x + x (e^{r(1-x)} - 1) at r = 2 has f'' = 0, f''' = 4 / K^2, so c = f''' / 6.
    assert diagram.special[0].coefficient * unit**2 == pytest.approx(2 / 3, rel=1e-9)


def shifted(p, s, _):  # beside a logistic map a cubic one, whose own fixed point is 0
    x, y = s[0] - p["x0"], s[1]
    return jnp.stack([p["x0"] + p["l"] * x * (1 - x), 0.5 * y - y**3])


@pytest.mark.parametrize("x0", [1e5, 1e6, 1e8])
def test_invariance_an_offset_of_the_state_changes_nothing(x64, x0):
    starts = np.stack([x0 + np.linspace(0.05, 0.95, 9), np.linspace(-0.2, 0.2, 9)], 1)
    diagram = bifurcation_diagram(shifted, {"l": 0.0, "x0": x0}, "l", (0.5, 3.3), starts, max_period=2)
    assert diagram.complete
    assert [p.kind for p in diagram.special] == ["transcritical", "flip"]
    want = np.array([[1, 0], [3, 2 / 3]])
    got = np.array([[p.parameter, p.state[0] - x0] for p in diagram.special])
    np.testing.assert_allclose(got, want, atol=1e-12 + 10 * np.spacing(x0))
    assert [b.period for b in diagram.branches] == [1, 1, 2]


def test_invariance_a_smooth_map_far_from_zero_has_no_corners(x64):
    def parabola(p, x, _):
        return x + 0.3 * (p["l"] - (x - p["at"]) ** 2)

    for at in (0.0, 1e6, 1e7):
        diagram = bifurcation_diagram(parabola, {"l": 0.0, "at": at}, "l", (-1.0, 1.0), at + LINE / 2)
        assert diagram.complete
        assert events(diagram) == [("fold", 0.0, True)]


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_invariance_the_unit_of_the_parameter_changes_nothing(x64, unit):
    diagram = diagram_of(logistic, unit, (0.5 * unit, 3.3 * unit), UNIT, max_period=2)
    assert diagram.complete
    assert [p.kind for p in diagram.special] == ["transcritical", "flip"]
    np.testing.assert_allclose([p.parameter / unit for p in diagram.special], [1, 3], rtol=1e-12)
    branch = continue_branch(
        scalar, {"which": 3, "a": unit, "l": 2 * unit}, "l", (1.5 * unit, 2.5 * unit), jnp.array([0.5])
    )
    assert branch.why == "left the bounds"
    r = branch.parameter[branch.accepted] / unit
    np.testing.assert_allclose(branch.states[branch.accepted, 0], 1 - 1 / r, rtol=1e-10)


def test_invariance_entries_of_a_state_may_have_units_of_their_own(x64):
    def step(p, s, _):  # the delayed logistic map, its two entries in different units
        x, y = s[0] / p["x"], s[1] / p["y"]
        return jnp.stack([p["x"] * p["a"] * x * (1 - y), p["y"] * x])

    random = np.random.default_rng(0).uniform(0.1, 1, (12, 2))
    for x, y in ((1.0, 1.0), (1e6, 1e-4)):
        units = np.array([x, y])
        diagram = bifurcation_diagram(step, {"a": 1.5, "x": x, "y": y}, "a", (1.2, 2.5), random * units)
        assert diagram.complete
        assert events(diagram) == [("Neimark-Sacker", 2.0, True)]
        np.testing.assert_allclose(diagram.special[0].state / units, 0.5, rtol=1e-12)
        point = locate_bifurcation("Neimark-Sacker", step, {"a": 1.9, "x": x, "y": y}, "a", 1.9, 0.48 * units)
        np.testing.assert_allclose([point.parameter, *(point.state / units)], [2, 0.5, 0.5], rtol=1e-12)
    curve_of = {"x": 1e6, "y": 1e-4}
    with pytest.raises(ValueError, match="is a branch point"):
        bifurcation_curve("fold", step, {"a": 1.9, **curve_of}, ("a", "x"), ((1.0, 3.0), (1e5, 1e7)), 0.48 * units)


@pytest.mark.parametrize(
    ("f", "a", "at", "branches", "note"),
    [
        (border, -2.0, 0.0, {(-1, True): -2, (1, False): 1 / 3}, "loss of stability; a cycle of twice the period"),
        (border, 2.0, 0.0, {(-1, True): -2, (-1, False): 1}, "non-smooth fold"),
        (border, 0.9, 0.0, {(-1, True): -2, (1, True): 10}, "persistence"),
        (border, 0.49, 0.0, {(-1, True): -2, (1, True): 1 / 0.51}, "persistence"),
        (relu_unit, 1.5, 0.0, {(-1, True): 0, (-1, False): 2}, "non-smooth fold"),
        (relu_unit, -0.5, 0.0, {(-1, True): 0, (1, True): 2 / 3}, "persistence"),
        (relu_unit, -2.0, 0.0, {(-1, True): 0, (1, False): 1 / 3}, "loss of stability; a cycle of twice the period"),
    ],
)
def test_analytic_corners_are_located_and_classified_from_both_sides(x64, f, a, at, branches, note):
    diagram = diagram_of(f, a, (-1.0, 1.0), LINE)
    assert diagram.complete, diagram.notes
    (point,) = diagram.special
    assert (point.kind, point.located) == ("border collision", True)
    assert point.note.startswith(note)
    np.testing.assert_allclose([point.parameter, point.state[0]], at, atol=1e-12)
    (branch,) = diagram.branches
    ends = {(int(branch.parameter[i]), bool(branch.stable[i])): branch.states[i, 0] for i in (0, -1)}
    assert ends.keys() == branches.keys()
    for key, value in branches.items():
        assert ends[key] == pytest.approx(value, abs=1e-10)
    assert branch.by_stability()[0][0] == branch.stable[0]


def test_analytic_a_branch_is_followed_through_several_corners(x64):
    # x = clip(2 x + l): -1, then the unstable -l between, then 1; non-smooth folds at l = -1 and 1.
    diagram = diagram_of(hard_tanh, 2.0, (-2.0, 2.0), LINE / 2)
    assert diagram.complete
    (branch,) = diagram.branches
    assert [(round(p.parameter, 12), round(p.state[0], 12)) for p in diagram.special] == [(-1, 1), (1, -1)]
    assert all(p.note == "non-smooth fold" for p in diagram.special)
    assert [stable for stable, _ in branch.by_stability()] == [True, False, True]
    # The cycles of two that the corner gives birth to: slopes 1/2 and -1.5, multiplier -0.75.
    born = diagram_of(border, -1.5, (-1.0, 1.0), LINE, max_period=2)
    assert born.complete
    cycles = [b for b in born.branches if b.period == 2]
    assert len(cycles) == 2
    for b in cycles:
        assert b.stable.all()
        np.testing.assert_allclose(b.multipliers[:, 0], -0.75, atol=1e-12)
        x = b.states[:, 0] / b.parameter
        np.testing.assert_allclose(x, x[0], atol=1e-9)
        assert np.isclose(x[0], [-2 / 7, 6 / 7], atol=1e-9).any()


def plane(p, s, _):
    """Two dimensions: a border-collision normal form, two maps side by side, area-preserving maps."""

    def normal_form(s):
        right = s[0] > 0
        trace, det = jnp.where(right, p["tr"], 0.5), jnp.where(right, p["det"], 0.2)
        return jnp.stack([trace * s[0] + s[1] + p["l"], -det * s[0]])

    def side_by_side(s):
        return p["l"] * s * (1 - s)

    def two_folds(s):
        return s + p["l"] + s**2

    def henon(s):  # keeps areas
        return jnp.stack([1 - p["l"] * s[0] ** 2 + s[1], -s[0]])

    def standard(s):
        moment = s[1] + p["l"] * jnp.sin(s[0])
        return jnp.stack([s[0] + moment, moment])

    return jax.lax.switch(p["which"], [normal_form, side_by_side, two_folds, henon, standard], s)


def plane_of(which, bounds, starts, tr=0.0, det=0.0, **options):
    params = {"which": which, "l": bounds[0], "tr": tr, "det": det}
    return bifurcation_diagram(plane, params, "l", bounds, starts, **options)


RANDOM = np.random.default_rng(0)
SQUARE, CUBE = RANDOM.uniform(-1, 1, (20, 2)), RANDOM.uniform(-1, 1, (30, 3))


@pytest.mark.parametrize(
    ("tr", "det", "note"),
    [(0.3, 0.4, "persistence"), (2.0, 0.4, "non-smooth fold"), (0.3, 1.4, "loss of stability")],
)
def test_analytic_border_collisions_of_the_planar_normal_form(x64, tr, det, note):
    diagram = plane_of(0, (-1.0, 1.0), SQUARE, tr, det)
    assert diagram.complete
    (point,) = diagram.special
    assert (point.kind, point.note) == ("border collision", note)
    np.testing.assert_allclose([point.parameter, *point.state], 0, atol=1e-12)
    # x = l / (1 - tr + det) on the side where that has the right sign; a pair leaves the circle with det > 1.
    xs = [l / (1 - t + d) for l, t, d in ((-1, 0.5, 0.2), (1 if note != "non-smooth fold" else -1, tr, det))]
    (branch,) = diagram.branches
    np.testing.assert_allclose(sorted(branch.states[[0, -1], 0]), sorted(xs), atol=1e-10)


def test_analytic_two_maps_side_by_side_flip_once_and_their_doubled_attractors_are_followed(x64):
    diagram = plane_of(1, (2.5, 3.3), (SQUARE + 1) / 2, max_period=2)
    assert diagram.complete, diagram.notes
    both = [p for p in diagram.special if p.multiplicity == 2]
    assert [(p.kind, p.period, p.located) for p in both] == [("flip", 1, True)]
    np.testing.assert_allclose([both[0].parameter, *both[0].state], [3, 2 / 3, 2 / 3], atol=1e-10)
    assert "kernel of dimension 2" in both[0].note
    # Each flips beside the other's fixed point at 0 as well, alone.
    assert sorted(p.multiplicity for p in diagram.special) == [1, 1, 2]
    attractors = [b for b in diagram.branches if b.period == 2 and b.stable.any()]
    together = [np.isclose(*b.states[b.stable].T, atol=1e-6).all() for b in attractors]
    assert sorted(together) == [False, True]  # in phase, and in opposite phase
    for b in attractors:
        r, x = b.parameter[b.stable], b.states[b.stable]
        np.testing.assert_allclose(
            (2 * r[:, None] * x - r[:, None] - 1) ** 2, ((r - 3) * (r + 1))[:, None] + 0 * x, atol=1e-8
        )


def test_analytic_two_maps_side_by_side_fold_once(x64):
    diagram = plane_of(2, (-0.5, 0.2), SQUARE)
    double = [p for p in diagram.special if p.multiplicity == 2]
    assert [(p.kind, p.located) for p in double] == [("fold", True)]
    np.testing.assert_allclose([double[0].parameter, *double[0].state], 0, atol=1e-6)
    assert len(diagram.special) == 1
    assert len(diagram.branches) == 2  # both alike, and both apart


def test_property_elliptic_points_are_neither_stable_nor_bifurcations(x64):
    diagram = plane_of(3, (0.5, 3.5), 2 * SQUARE)
    assert [p.kind for p in diagram.special] == ["flip"]
    assert not any(b.stable.any() for b in diagram.branches)
    params = {"which": 3, "l": 1.0, "tr": 0.0, "det": 0.0}
    assert not find_fixed_points(plane, params, jnp.asarray(2 * SQUARE)).stable.any()


@pytest.mark.parametrize("b", [0.3, 0.5])
def test_analytic_a_segment_of_cycles_at_one_parameter_has_no_folds(x64, b):
    def lozi(p, s, _):
        return jnp.stack([1 - p["l"] * jnp.abs(s[0]) + s[1], b * s[0]])

    starts = np.random.default_rng(0).uniform(-2, 2, (40, 2))
    diagram = bifurcation_diagram(lozi, {"l": 0.0}, "l", (0.1, 1.9), starts, max_period=2)
    # Multiplier -1 at l = 1 - b, in a map that is linear there: the cycles of two fill a segment up to the corner.
    assert events(diagram) == [("border collision", 1 - b, True), ("flip", 1 - b, True), ("flip", 1 + b, True)]
    assert diagram.special[0].note == "loss of stability"


def test_analytic_a_segment_of_cycles_of_a_map_that_preserves_areas_has_no_folds(x64):
    def gingerbread(k, s, _):
        return jnp.stack([1 - s[1] + k * jnp.abs(s[0]), s[0]])

    starts = np.random.default_rng(0).uniform(-6, 6, (40, 2))
    options = {"max_period": 2, "state_bounds": (-50.0, 50.0)}
    diagram = bifurcation_diagram(gingerbread, 0.0, (), (-2.5, 2.5), starts, **options)
    assert sorted(events(diagram)) == [("border collision", -2.0, True), ("flip", -2.0, True)]
    assert diagram.complete


def test_analytic_elliptic_cycles_of_the_standard_map_bifurcate_where_their_traces_say(x64):
    def standard(k, s, _):
        y = s[1] + k * jnp.sin(s[0])
        return jnp.stack([s[0] + y, y])

    grid = np.linspace(0, 2 * np.pi, 7)[:-1] + 0.1
    starts = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    options = {"max_period": 2, "period_of_state": 2 * np.pi}
    small = bifurcation_diagram(standard, 0.0, (), (0.5, 4.5), starts, **options)
    # Trace 2 - k at (pi, 0). The cycle of two that is born there is no event of its own, and moves on the unit circle.
    assert events(small) == [("flip", 4.0, True)]
    assert small.complete
    # 2 pi: k sin x = 2 pi begins, and the cycle of two loses its symmetry; k sin x = 2 pi with k cos x = -4.
    large = bifurcation_diagram(standard, 0.0, (), (3.5, 7.6), starts, **options)
    found = [(p.kind, p.parameter, p.period) for p in large.special]
    accelerator = np.hypot(4, 2 * np.pi)
    for kind, value, period, count in (
        ("fold", 2 * np.pi, 1, 2),
        ("pitchfork", 2 * np.pi, 2, 1),
        ("flip", accelerator, 1, 2),
    ):
        assert sum(k == kind and p == period and abs(v - value) < 1e-9 for k, v, p in found) == count, found
    assert large.complete
    assert not [p for p in large.special if p.kind == "Neimark-Sacker"]
    # A double multiplier has no normal form of one dimension.
    for point in [p for p in [*small.special, *large.special] if p.multiplicity == 1]:
        assert np.isnan(point.coefficient)
        assert point.note.startswith("degenerate: the multiplier is double")


@pytest.mark.parametrize("order", [2, 3, 5])
def test_analytic_branches_that_touch_do_so_in_one_degenerate_point(x64, order):
    starts = np.linspace(-1, 1, 11)[:, None]
    diagram = bifurcation_diagram(lambda p, x, _: x - 0.3 * x * (x - p**order), 0.0, (), (-0.5, 0.7), starts)
    (point,) = diagram.special
    assert (point.kind, point.located) == ("branch point", True)
    assert "degenerate" in point.note
    # The residual is l^order: rounding cannot tell zeros closer than this apart.
    assert abs(point.parameter) < np.finfo(float).eps ** (1 / order)
    # x = 0 and x = l^order, each on both sides of 0.
    at = {
        v: sorted(
            float(np.interp(v, np.sort(b.parameter), b.states[np.argsort(b.parameter), 0]))
            for b in diagram.branches
            if b.parameter.min() <= v <= b.parameter.max()
        )
        for v in (-0.4, 0.6)
    }
    for v, found in at.items():
        assert all(min(abs(x - y) for x in found) < 1e-3 for y in (0.0, v**order)), (v, found)


def test_analytic_transcritical_points_that_can_be_told_apart_are(x64):
    starts = np.linspace(-1, 1, 11)[:, None]
    diagram = bifurcation_diagram(lambda p, x, _: x - 0.3 * x * (x - p * (p**2 - 0.01)), 0.0, (), (-0.5, 0.7), starts)
    assert events(diagram) == [("transcritical", v, True) for v in (-0.1, 0.0, 0.1)]


def test_analytic_angles_have_no_seam(x64):
    starts = np.pi * (SQUARE + 1)
    diagram = plane_of(4, (0.5, 5.0), starts, period_of_state=2 * np.pi)
    assert diagram.complete
    places = sorted(round(float(b.states[0, 0]) % (2 * np.pi), 6) % 6.283185 for b in diagram.branches)
    assert places == [0, 3.141593]
    assert [(p.kind, round(p.parameter, 9)) for p in diagram.special] == [("flip", 4.0)]
    one = plane_of(4, (0.5, 5.0), starts, period_of_state=[2 * np.pi, None])  # only the angle: momenta 0, ±2 pi, ..
    assert len(one.branches) >= 2


def net(p, x, _):
    return jnp.tanh(p["l"] * (p["w"] @ x))


def net_of(w, bounds):
    return bifurcation_diagram(net, {"w": jnp.asarray(w), "l": bounds[0]}, "l", bounds, CUBE)


def test_analytic_one_event_of_a_symmetric_network(x64):
    # Eigenvalues 1.3 (twice) and 0.4; S3 and x -> -x: six branches leave the origin at once.
    diagram = net_of(np.eye(3) - 0.3 * (np.ones((3, 3)) - np.eye(3)), (0.1, 1.2))
    assert diagram.complete, diagram.notes
    (point,) = diagram.special
    assert (point.kind, point.multiplicity, point.located) == ("branch point", 2, True)
    assert "kernel of dimension 2" in point.note
    np.testing.assert_allclose([point.parameter, *point.state], [1 / 1.3, 0, 0, 0], atol=1e-10)
    assert present(point.vector).shape == (3, 2)
    assert len(diagram.branches) == 7


def test_analytic_three_units_side_by_side_branch_once(x64):
    diagram = net_of(np.eye(3), (0.1, 1.5))
    (point,) = diagram.special
    assert (point.kind, point.multiplicity, point.located) == ("branch point", 3, True)
    np.testing.assert_allclose([point.parameter, *point.state], [1, 0, 0, 0], atol=1e-10)
    # 27 solutions behind it: the origin, and 26 on 13 branches through it.
    assert len(diagram.branches) == 14
    assert sum(b.stable.any() and b.stable[0] != b.stable[-1] for b in diagram.branches) == 1
    assert diagram.complete


def test_property_real_multipliers_give_no_neimark_sacker_points(x64):
    # The product of the multipliers of units 1 and 2 passes 1 near l = 0.68 (times 2), and both are real.
    diagram = net_of(2 * np.diag([0.9, 0.6, 0.6]), (0.3, 1.0))
    assert {p.kind for p in diagram.special} == {"pitchfork", "branch point"}
    assert [(p.kind, round(p.parameter, 9), p.multiplicity) for p in diagram.special if not p.state[0]] == [
        ("pitchfork", round(1 / 1.8, 9), 1),
        ("branch point", round(1 / 1.2, 9), 2),
    ]
    # A true pair still is one: a rotation beside a contraction.
    turn = np.array([[np.cos(0.7), -np.sin(0.7), 0], [np.sin(0.7), np.cos(0.7), 0], [0, 0, 0.3]])
    diagram = net_of(turn, (0.3, 1.5))
    assert events(diagram) == [("Neimark-Sacker", 1.0, True)]
    assert diagram.special[0].angle == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("angle", "note"),
    [
        (3e-5, "1:1"),
        (np.pi - 3e-5, "1:2"),
        (2 * np.pi / 3, "1:3"),
        (np.pi / 2, "1:4"),
        (2 * np.pi / 5, "supercritical"),
        (0.01, "supercritical"),
    ],
)
def test_analytic_strong_resonances_are_named_by_their_angle(x64, angle, note):
    def turn(p, x, _):
        c, s = jnp.cos(p["angle"]), jnp.sin(p["angle"])
        return (p["r"] - jnp.sum(x**2)) * (jnp.array([[c, -s], [s, c]]) @ x)

    point = locate_bifurcation("Neimark-Sacker", turn, {"r": 0.99, "angle": angle}, "r", 0.99, jnp.full(2, 1e-3))
    assert note in point.note
    assert np.isnan(point.coefficient) == note.startswith("1:")


def test_analytic_every_phase_of_a_long_cycle_is_on_a_branch(x64):
    diagram = diagram_of(logistic, 1.0, (2.9, 3.5699), UNIT, max_period=16)
    assert diagram.complete, diagram.notes
    assert [(p.kind, p.period) for p in diagram.special] == [("flip", 2**k) for k in range(5)]
    np.testing.assert_allclose(
        [p.parameter for p in diagram.special],
        [3, 1 + 6**0.5, 3.544090359552, 3.564407266095, 3.568759419544],
        atol=1e-10,
    )
    r = 3.5697
    for period in (2, 4, 8, 16):
        at = []
        for b in diagram.branches:
            if b.period == period:
                for i in np.flatnonzero((b.parameter[:-1] - r) * (b.parameter[1:] - r) < 0):
                    share = (r - b.parameter[i]) / (b.parameter[i + 1] - b.parameter[i])
                    at.append(b.states[i, 0] + share * (b.states[i + 1, 0] - b.states[i, 0]))
        x = np.sort(at)
        assert len(x) == period
        assert np.diff(x).min() > 1e-3  # all distinct
        np.testing.assert_allclose(np.sort(r * x * (1 - x)), x, atol=1e-4)  # the map permutes them


def test_analytic_cycles_of_three_have_three_branches_and_one_fold(x64):
    diagram = diagram_of(logistic, 1.0, (3.8, 3.845), UNIT, period=3)
    assert diagram.complete, diagram.notes
    assert len(diagram.branches) == 3
    assert [(p.kind, p.period) for p in diagram.special] == [("fold", 3), ("flip", 3)]
    assert diagram.special[0].parameter == pytest.approx(1 + 8**0.5, abs=1e-11)
    assert present(diagram.special[0].orbit).shape == (3, 1)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("kind", ["pitchfork", "transcritical", "double flip"])
def test_wrong_starts_of_curves_are_refused(x64, kind):
    def step(p, x, _):
        if kind == "pitchfork":
            return jnp.tanh(p["l"] * x) + p["t"] * x
        return p["l"] * x * (1 - x) + p["t"] * x

    given = {
        "pitchfork": ("fold", 0.9, [0.01]),
        "transcritical": ("fold", 0.88, [0.01]),
        "double flip": ("flip", 2.98, [0.66, 0.67]),
    }[kind]
    t = 0.0 if kind == "double flip" else 0.1
    words = "multipliers are -1 at once" if kind == "double flip" else "branch point|degenerate"
    with pytest.raises(ValueError, match=words):
        bifurcation_curve(
            given[0], step, {"l": given[1], "t": t}, ("l", "t"), ((0.0, 4.0), (-1.0, 1.0)), jnp.array(given[2])
        )


def test_analytic_a_fold_flip_is_no_generalized_flip(x64):
    def step(p, s, _):  # on v = 0: u = -sqrt(-a), flips at b = u; c = 0.7 + 1 / (4 u) has a pole at u = 0
        u, v = s
        return jnp.stack([u + p["a"] + u**2 - 0.5 * v**2, -(1 + p["b"]) * v + u * v + 0.7 * v**3])

    curve = bifurcation_curve(
        "flip", step, {"a": -0.04, "b": -0.2}, ("a", "b"), ((-0.1, 1.0), (-1.0, 1.0)), jnp.array([-0.2, 0.0])
    )
    assert [(p.kind, p.located) for p in curve.special] == [("fold-flip", True)]
    np.testing.assert_allclose(curve.special[0].parameters, 0, atol=1e-10)
    wider = bifurcation_curve(
        "flip", step, {"a": -0.04, "b": -0.2}, ("a", "b"), ((-0.5, 1.0), (-1.0, 1.0)), jnp.array([-0.2, 0.0])
    )
    true = [p for p in wider.special if p.kind == "generalized flip"]
    assert len(true) == 1
    np.testing.assert_allclose(true[0].parameters, [-(2.8**-2), -1 / 2.8], atol=1e-10)


def test_documented_branches_end_at_the_bounds_of_the_state(x64):
    free = diagram_of(cubic, 0.0, (-2.0, 50.0), LINE)
    assert min(b.states.min() for b in free.branches) < -5
    kept = diagram_of(cubic, 0.0, (-2.0, 50.0), LINE, state_bounds=(-3.0, 3.0))
    (branch,) = kept.branches
    assert kept.complete
    assert sorted(branch.ends) == ["left the bounds", "left the state's bounds"]
    assert branch.states.min() == -3.0
    np.testing.assert_allclose([p.parameter for p in kept.special], [-2 / 3, 2 / 3], atol=1e-12)


def test_property_time_is_linear_in_the_number_of_events(x64):
    seconds = []
    for turns in (8, 8, 32):  # the first compiles
        reach = turns * np.pi
        begun = time.perf_counter()
        diagram = diagram_of(
            wiggle,
            0.0,
            (-1 - 0.02 * reach, 1 + 0.02 * reach),
            np.linspace(-reach, reach, 9)[:, None],
            state_bounds=(-reach, reach),
            scale=1.0,
            parameter_scale=1.0,
            max_stretches=100,
        )
        seconds.append(time.perf_counter() - begun)
        assert diagram.complete
        assert len(diagram.special) == 2 * turns
    assert seconds[2] < 4 * 3 * seconds[1]  # four times the events; cubic would be 64 times


def test_documented_starts_that_are_not_finite_are_dropped_and_counted(x64):
    starts = LINE.copy()
    starts[[2, 5], 0] = np.nan, np.inf
    diagram = diagram_of(cubic, 0.0, (-1.0, 1.0), starts)
    assert (diagram.dropped_starts, diagram.complete, len(diagram.special)) == (2, True, 2)
    with pytest.raises(ValueError, match="at least one that is finite"):
        diagram_of(cubic, 0.0, (-1.0, 1.0), np.full((3, 1), np.nan))


def test_analytic_an_input_is_the_parameter(x64):
    def driven(p, x, u):
        return jnp.tanh(p * x + u["drive"][1])

    inputs, path = {"drive": jnp.zeros(2)}, InputPath(("drive", 1))
    diagram = bifurcation_diagram(driven, 2.0, path, (-1.0, 1.0), LINE, inputs)
    # Folds of tanh(w x + u): x^2 = 1 - 1 / w.
    x = np.array([1, -1]) * np.sqrt(0.5)
    want = np.arctanh(x) - 2 * x
    np.testing.assert_allclose([[p.parameter, *p.state] for p in diagram.special], np.stack([want, x], 1), atol=1e-10)
    point = locate_bifurcation("fold", driven, 2.0, path, -0.5, jnp.array([0.7]), inputs)
    assert point.parameter == pytest.approx(want[0], abs=1e-12)
    branch = continue_branch(driven, 2.0, path, (-1.0, 1.0), jnp.array([0.9]), inputs)
    assert branch.why == "left the bounds"
    curve = bifurcation_curve(
        "fold", driven, 2.0, ((), path), ((1.2, 3.0), (-2.0, 2.0)), jnp.array([0.7]), {"drive": jnp.array([0, -0.53])}
    )
    np.testing.assert_allclose(curve.states[:, 0] ** 2, 1 - 1 / curve.parameters[:, 0], atol=1e-10)
    with pytest.raises(ValueError, match="no entry"):
        bifurcation_diagram(driven, 2.0, InputPath(("drive", 7)), (-1.0, 1.0), LINE, inputs)


def test_property_a_note_gives_the_reason_and_not_the_criticality(x64):
    def touching(p, x, _):  # the multiplier -1 - (l - 0.3)^2 ... touches -1 from within
        return -(1 - (p["l"] - 0.3) ** 2) * x + x**3

    diagram = bifurcation_diagram(touching, {"l": 0.0}, "l", (-0.5, 1.0), LINE / 4)
    assert not diagram.complete
    assert not any(word in note for note in diagram.notes for word in ("supercritical", "subcritical"))
    for point in diagram.special:
        assert point.located or point.note


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": -1.0}, "scale must be positive"),
        ({"parameter_scale": 0.0}, "parameter_scale must be positive"),
        ({"scale": [1.0, 2.0]}, "scale must be a number"),
        ({"period_of_state": -1.0}, "period_of_state must not be negative"),
        ({"state_bounds": (1.0, -1.0)}, "state_bounds must be"),
        ({"stepping": Stepping(min_step=1.0)}, "min_step <= step_size"),
        ({"num_sections": 0}, "num_sections must be a whole number"),
    ],
)
def test_wrong_scales_and_bounds_name_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        diagram_of(cubic, 0.0, (-1.0, 1.0), LINE, **options)
