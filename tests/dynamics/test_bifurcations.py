"""Bifurcation diagrams against closed forms and 25-digit numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import present, untyped

from cliffs.dynamics import Stepping, attractor_diagram, bifurcation_diagram
from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step

# numpy: float64 inside x64, float32 outside
UNIT = np.linspace(0, 1, 7)[:, None]
LINE = np.linspace(-8, 8, 17)[:, None]
PLANE = dict(zip("xy", 2 * np.random.default_rng(0).normal(size=(2, 30, 1))))


def line(p, x, _):
    """Families in one, so that they are compiled once: a gain, a kink, three lines through the origin, high orders."""
    kink = jnp.where(x > 0, 2 * x, 0.5 * x)
    lines = x + p["s"] * (x - p["l"]) * (x + p["l"]) * (x - 0.5 * p["l"])
    high = p["five"] * (p["l"] * x - x**5) + p["four"] * (p["l"] - x**4)
    high = high + (p["five"] + p["four"] > 0) * x
    return high + p["gain"] * (jnp.tanh(p["l"] * x) + p["tilt"]) + p["kink"] * (p["l"] - kink) + p["lines"] * lines


NONE = {"gain": 0.0, "kink": 0.0, "lines": 0.0, "tilt": 0.0, "s": 1.0, "five": 0.0, "four": 0.0, "l": 0.5}


def logistic(r, x, _):
    return r * x * (1 - x)


def plane(p, s, _):
    """The delayed logistic map (b = 1, delayed = 1) or the Hénon map (delayed = 0); the state is a pytree."""
    x, y = s["x"], s["y"]
    henon, logistic = 1 - p["a"] * x**2 + y, p["a"] * x * (1 - y)
    return {"x": jnp.where(p["delayed"] > 0, logistic, henon), "y": p["b"] * x}


def points_of(diagram, kind):
    return np.array([[p.parameter, *p.state] for p in diagram.special if p.kind == kind])


def kinds(diagram):
    return [p.kind for p in diagram.special]


def one_unit_folds(w):
    """Where `w s'(x) = 1`, as `[b, x]` in ascending b."""
    root = np.sqrt(1 - 4 / w)
    s = np.array([(1 + root) / 2, (1 - root) / 2])
    x = np.log(s / (1 - s))
    return np.stack([x - w * s, x], 1)


@pytest.mark.parametrize("w", ["4.5", "5", "6", "8"])
def test_parity_reference_folds(x64, reference, w):
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(float(w), 0.0), "b", (-6.0, -1.0), LINE)
    want = np.array(reference["folds_sigmoid"][w], float)
    np.testing.assert_allclose(points_of(diagram, "fold"), want, atol=1e-12)
    assert len(diagram.branches) == 1
    assert diagram.complete
    # Both attractors and the dashed branch between them, b1 < b < b2.
    (branch,) = diagram.branches
    between = (branch.parameter > want[0, 0]) & (branch.parameter < want[1, 0])
    np.testing.assert_array_equal(branch.stable[between], np.abs(branch.states[between, 0]) > abs(want[0, 1]))


@pytest.mark.parametrize("w", ["-5", "-6"])
def test_parity_reference_flips(x64, reference, w):
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(float(w), 0.0), "b", (-1.0, 7.0), LINE)
    want = np.array(reference["flips_sigmoid"][w], float)
    np.testing.assert_allclose(points_of(diagram, "flip"), want, atol=1e-12)
    # A flip of negative Schwarzian derivative is supercritical.
    assert [p.note for p in diagram.special] == ["supercritical"] * 2


def test_parity_reference_cost_gradient_and_hessian(x64, reference):
    for pair, want in reference["cost_T50"].items():
        params = OneUnitParams(*(jnp.asarray(float(v)) for v in pair.split(",")))
        want = {k: float(v) for k, v in want.items()}
        grad, hessian = jax.grad(one_unit_cost)(params), jax.hessian(one_unit_cost)(params)
        got = [one_unit_cost(params), grad.w, grad.b, hessian.w.w, hessian.w.b, hessian.b.b]
        np.testing.assert_allclose(got, [want[k] for k in ("cost", "dw", "db", "dww", "dwb", "dbb")], rtol=1e-9)


@pytest.mark.parametrize("w", [4.0001, 4.000001])
def test_analytic_both_folds_beside_the_cusp_and_one_branch(x64, w):
    # Their states are 0.02 and 0.002 apart, well inside one step of 0.05.
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(w, 0.0), "b", (-7.0, 3.0), LINE)
    np.testing.assert_allclose(points_of(diagram, "fold")[:, 0], one_unit_folds(w)[:, 0], atol=1e-12)
    np.testing.assert_allclose(points_of(diagram, "fold")[:, 1], one_unit_folds(w)[:, 1], atol=1e-8)
    assert len(diagram.branches) == 1


def test_documented_the_cusp_itself_is_reported_as_not_located(x64):
    diagram = bifurcation_diagram(one_unit_step, OneUnitParams(4.0, 0.0), "b", (-7.0, 3.0), LINE)
    (point,) = diagram.special
    assert point.kind == "degenerate fold"
    assert not point.located
    assert not diagram.complete
    assert point.parameter == pytest.approx(-2, abs=1e-6)
    assert "cusp" in diagram.notes[0]


def test_analytic_long_branch_is_followed_to_both_bounds_or_says_so(x64):
    params, starts = OneUnitParams(20.0, 0.0), jnp.linspace(-25, 25, 17)[:, None]
    for options in ({}, {"max_stretches": 1}):  # in stretches, or met from several sections and joined
        diagram = bifurcation_diagram(one_unit_step, params, "b", (-23.0, 3.0), starts, **untyped(options))
        (branch,) = diagram.branches
        assert branch.complete
        assert branch.left_bounds
        assert sorted(branch.parameter[[0, -1]]) == [-23.0, 3.0]
        assert (np.diff(branch.states[:, 0]) * np.sign(branch.states[-1, 0]) > 0).all()  # no overlap: x is monotonic
        np.testing.assert_allclose(points_of(diagram, "fold"), one_unit_folds(20.0), atol=1e-12)
    short = bifurcation_diagram(
        one_unit_step, params, "b", (-23.0, 3.0), starts, max_stretches=1, stepping=Stepping(max_step=0.0002)
    )
    assert not short.complete
    assert all("ran out of points" in note for note in short.notes)
    assert not any(branch.complete for branch in short.branches)


def test_analytic_pitchfork_of_the_gain_is_no_fold(x64):
    diagram = bifurcation_diagram(line, {**NONE, "gain": 1.0}, "l", (0.0, 2.0), 2 * UNIT - 1)
    (point,) = diagram.special
    assert (point.kind, point.note, point.located) == ("pitchfork", "supercritical", True)
    np.testing.assert_allclose([point.parameter, point.state[0]], [1, 0], atol=1e-12)
    assert point.coefficient == pytest.approx(-1 / 3)  # tanh u = u - u^3 / 3
    trivial, forked = diagram.branches
    np.testing.assert_allclose(trivial.states, 0, atol=1e-12)
    np.testing.assert_array_equal(trivial.stable, trivial.parameter < 1)
    away = np.abs(forked.states[:, 0]) > 1e-2
    np.testing.assert_allclose(
        forked.parameter[away], np.arctanh(forked.states[away, 0]) / forked.states[away, 0], atol=1e-9
    )
    assert forked.stable[away].all()
    assert sorted(np.sign(forked.states[[0, -1], 0])) == [-1, 1]


def test_documented_a_jump_between_branches_that_almost_meet_is_flagged_and_small_steps_resolve_it(x64):
    params, starts = {**NONE, "gain": 1.0, "tilt": 1e-6}, 2 * UNIT - 1
    coarse = bifurcation_diagram(line, params, "l", (0.9, 1.1), starts)
    assert not coarse.complete
    assert any("imperfect" in note for note in coarse.notes)
    fine = bifurcation_diagram(line, params, "l", (0.9, 1.1), starts, stepping=Stepping(max_step=0.002))
    assert fine.complete
    # tanh(w x) - x is about (w - 1) x - x^3 / 3: folds where 2 (w - 1)^1.5 / 3 = tilt.
    assert [p.kind for p in fine.special] == ["fold"]
    assert fine.special[0].parameter - 1 == pytest.approx((1.5e-6) ** (2 / 3), rel=1e-3)


def test_analytic_logistic_map_transcritical_flips_and_doubled_cycles(x64):
    diagram = bifurcation_diagram(logistic, 1.5, (), (0.5, 3.52), UNIT, max_period=2)
    found = {(p.kind, p.period, round(p.parameter, 12)) for p in diagram.special}
    assert found == {("transcritical", 1, 1.0), ("flip", 1, 3.0), ("flip", 2, round(1 + 6**0.5, 12))}
    by_period = {p: [b for b in diagram.branches if b.period == p] for p in (1, 2)}
    assert {p: len(b) for p, b in by_period.items()} == {1: 2, 2: 1}
    trivial, other = sorted(by_period[1], key=lambda b: np.abs(b.states).max())
    np.testing.assert_allclose(other.states[:, 0], 1 - 1 / other.parameter, atol=1e-11)
    np.testing.assert_array_equal(other.stable, (other.parameter > 1) & (other.parameter < 3))
    np.testing.assert_array_equal(trivial.stable, trivial.parameter < 1)
    (two,) = by_period[2]
    r, x = two.parameter, two.states[:, 0]
    np.testing.assert_allclose((2 * r * x - r - 1) ** 2, (r - 3) * (r + 1), atol=1e-10)
    np.testing.assert_allclose(two.multipliers[:, 0], 4 + 2 * r - r**2, atol=1e-10)
    coefficients = {p.kind: p.coefficient for p in diagram.special if p.period == 1}
    assert coefficients["transcritical"] == pytest.approx(-1)  # f''/2 at r = 1
    assert coefficients["flip"] == pytest.approx(9)  # (f''/2)^2 + f'''/6 at r = 3


def test_property_branches_closer_than_a_step_are_not_taken_for_one(x64):
    # 0.004 apart where they meet the lower bound.
    diagram = bifurcation_diagram(logistic, 1.5, (), (1.004, 1.5), UNIT)
    assert len(diagram.branches) == 2
    gaps = sorted(b.states[np.argmin(b.parameter), 0] for b in diagram.branches)
    np.testing.assert_allclose(gaps, [0, 1 - 1 / 1.004], atol=1e-12)


def test_analytic_neimark_sacker_of_the_delayed_logistic_map(x64):
    params = {"a": 1.5, "b": 1.0, "delayed": 1.0}
    diagram = bifurcation_diagram(plane, params, "a", (0.5, 2.5), PLANE)
    assert kinds(diagram) == ["transcritical", "Neimark-Sacker"]
    point = diagram.special[1]
    np.testing.assert_allclose([point.parameter, *point.state], [2, 0.5, 0.5], atol=1e-12)
    assert point.angle == pytest.approx(np.pi / 3, abs=1e-12)  # the pair is exp(±i pi / 3)
    assert point.note == "supercritical"
    # The normal form predicts the invariant circle |z|^2 = -beta / d, with |mu| = 1 + beta = sqrt(a - 1).
    a = 2.004
    radius = np.sqrt(-(np.sqrt(a - 1) - 1) / point.coefficient)
    start = {"x": jnp.array([[1 - 1 / a + radius]]), "y": jnp.array([[1 - 1 / a]])}
    orbit = attractor_diagram(plane, params, "a", jnp.array([a]), start, transient=8000, record=400)
    reach = np.abs(orbit[0, 0, :, 0] - (1 - 1 / a)).max()
    assert reach == pytest.approx(2 * radius * abs(present(point.vector)[0]), rel=0.05)


def test_analytic_henon_fold_flip_and_an_area_preserving_map(x64):
    params = {"a": 0.2, "b": 0.3, "delayed": 0.0}
    diagram = bifurcation_diagram(plane, params, "a", (0.05, 0.8), PLANE)
    np.testing.assert_allclose(points_of(diagram, "flip")[:, 0], 3 * (1 - 0.3) ** 2 / 4, atol=1e-12)
    diagram = bifurcation_diagram(plane, params, "a", (-0.6, -0.05), PLANE)
    np.testing.assert_allclose(points_of(diagram, "fold")[:, 0], -((1 - 0.3) ** 2) / 4, atol=1e-12)
    # b = -1 keeps areas: mu1 mu2 = 1 all along, which is no Neimark-Sacker point.
    diagram = bifurcation_diagram(plane, {**params, "b": -1.0}, "a", (0.5, 3.5), PLANE)
    assert kinds(diagram) == ["flip"]
    assert diagram.special[0].parameter == pytest.approx(3, abs=1e-12)


def test_analytic_a_kink_that_changes_stability_is_a_border_collision(x64):
    # The multiplier jumps from -0.5 to -2 at l = 0.
    diagram = bifurcation_diagram(line, {**NONE, "kink": 1.0}, "l", (-1.0, 1.0), 2 * UNIT - 1)
    (point,) = diagram.special
    assert (point.kind, point.located) == ("border collision", True)
    np.testing.assert_allclose([point.parameter, point.state[0]], 0, atol=1e-12)
    assert point.note == "loss of stability; a cycle of twice the period begins or ends here"
    assert diagram.complete


def test_documented_degenerate_points_are_flagged(x64):
    # Three branches through the origin, then every state a fixed point.
    params = {**NONE, "lines": 1.0}
    three = bifurcation_diagram(line, params, "l", (-1.0, 1.0), 2 * UNIT - 1)
    assert len(three.branches) == 3
    assert [(p.kind, p.located) for p in three.special] == [("branch point", False)]
    assert three.special[0].parameter == pytest.approx(0, abs=1e-3)
    every = bifurcation_diagram(line, {**params, "s": 0.0}, "l", (-1.0, 1.0), 2 * UNIT - 1)
    assert every.branches == []
    assert "degenerate solutions were given up" in every.notes[0]


def test_analytic_a_pitchfork_of_fifth_order_is_one_event_and_a_fold_of_fourth_order_degenerate(x64):
    diagram = bifurcation_diagram(line, {**NONE, "five": 0.2}, "l", (-1.0, 1.0), 3 * UNIT - 1.5)
    (point,) = diagram.special
    assert (point.kind, point.located) == ("branch point", True)
    np.testing.assert_allclose([point.parameter, point.state[0]], 0, atol=1e-12)
    assert len(diagram.branches) == 2
    diagram = bifurcation_diagram(line, {**NONE, "four": 0.3}, "l", (-1.0, 1.0), 3 * UNIT - 1.5)
    (point,) = diagram.special
    assert point.kind == "fold"
    assert "the quadratic coefficient vanishes" in point.note


def test_documented_nothing_found_is_said(x64):
    diagram = bifurcation_diagram(logistic, 1.5, (), (0.5, 0.9), UNIT, period=2)
    assert (diagram.branches, diagram.special, diagram.complete) == ([], [], False)
    assert "no solution of period 2" in diagram.notes[0]


def test_documented_branches_that_cannot_be_followed_are_said(x64):
    def half(p, x, u):
        return jnp.where(x >= -1e-3, (1 + p["mu"]) * x - x**3, jnp.nan)  # nothing to follow on the other side

    found = bifurcation_diagram(half, {"mu": 0.0}, "mu", (-0.5, 0.5), jnp.array([[0.0], [0.3]]))
    assert [s.kind for s in found.special] == ["pitchfork"]
    assert not found.complete
    assert any("step too small" in note for note in found.notes)

    def two(p, x, u):
        return p["mu"] * x * (1 - x)

    few = bifurcation_diagram(two, {"mu": 2.0}, "mu", (0.5, 2.5), jnp.array([[0.0], [0.3]]), max_branches=1)
    assert few.notes == ("stopped after max_branches=1 branches",)
    assert not few.complete


def test_analytic_cycles_of_two_end_at_the_flip_they_came_from(x64):
    diagram = bifurcation_diagram(logistic, 1.5, (), (2.5, 3.52), UNIT, period=2)
    # The cycle's own flip happens at both of its points and is one event.
    assert [(p.kind, p.period) for p in diagram.special] == [("flip", 1), ("flip", 2)]
    np.testing.assert_allclose([p.parameter for p in diagram.special], [3, 1 + 6**0.5], atol=1e-12)
    r = diagram.special[1].parameter
    pair = (r + 1 + np.array([-1, 1]) * np.sqrt((r - 3) * (r + 1))) / (2 * r)
    np.testing.assert_allclose(np.sort(present(diagram.special[1].orbit)[:, 0]), pair, atol=1e-10)
    assert [b.period for b in diagram.branches] == [2]


def network(p, x, _):
    return jnp.tanh(p["gain"] * (p["w"] @ x))


def test_property_origin_of_random_networks_bifurcates_where_its_eigenvalues_say():
    # In float32, whose rounding blurs the test functions most.
    with jax.enable_x64(False):
        for seed in range(8):
            rng = np.random.default_rng(seed)
            w, starts = rng.normal(size=(3, 3)), rng.uniform(-1, 1, (30, 3))
            params = {"gain": 0.5, "w": jnp.asarray(w)}
            diagram = bifurcation_diagram(network, params, "gain", (0.1, 4.0), starts)
            want = []
            for value in np.linalg.eigvals(w):
                kind = "Neimark-Sacker" if value.imag else "pitchfork" if value.real > 0 else "flip"
                if value.imag >= 0 and 0.1 < 1 / abs(value) < 4:
                    want.append((1 / abs(value), kind))
            found = [p for p in diagram.special if np.abs(p.state).max() < 1e-3]
            assert [p.kind for p in found] == [kind for _, kind in sorted(want)], seed
            np.testing.assert_allclose([p.parameter for p in found], [at for at, _ in sorted(want)], rtol=2e-5)
            assert diagram.complete, diagram.notes
            # x -> -x is a symmetry of the network, so of what bifurcates.
            away = [(p.kind, round(p.parameter, 4)) for p in diagram.special if np.abs(p.state).max() >= 1e-3]
            assert all(away.count(event) % 2 == 0 for event in away), seed


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "c"}, "no field 'c'"),
        ({"params": OneUnitParams(5.0, jnp.zeros(2))}, "must end at a scalar"),
        ({"bounds": (1.0, 0.0)}, "low < high"),
        ({"starts": jnp.zeros(3)}, "starts"),
        ({"starts": jnp.zeros((3, 1), int)}, "starts must be of one real floating dtype"),
        ({"tolerance": 1e-12}, "float32, which can reach"),
        ({"step": lambda p, x, u: x[:0]}, "shape"),
        ({"stepping": Stepping(max_step=0.0)}, "max_step"),
        ({"period": 0}, "period"),
        ({"period": 1.5}, "period must be a whole number and at least 1, got 1.5"),
        ({"num_sections": 2.5}, "num_sections must be a whole number and at least 1, got 2.5"),
        ({"max_period": 0}, "max_period must be a whole number and at least 1, got 0"),
        ({"period": 2, "max_period": 1}, "max_period must be a whole number and at least 2, got 1"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    options = {
        "step": one_unit_step,
        "params": OneUnitParams(5.0, -3.0),
        "path": "b",
        "bounds": (-3.5, -2.0),
        "starts": jnp.zeros((2, 1)),
        **options,
    }
    with pytest.raises(ValueError, match=words):
        bifurcation_diagram(**options)
