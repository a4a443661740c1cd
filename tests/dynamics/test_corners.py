"""Maps that are smooth in pieces: where they jump, and where corners end or begin cycles."""

import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import bifurcation_diagram, continue_branch

LINE = np.linspace(-3, 3, 13)[:, None]


def jumping(p, x, _):
    return p["left"] * x + p["l"] + jnp.where(x < 0, 0, p["jump"] + (p["right"] - p["left"]) * x)


@pytest.mark.parametrize(
    ("left", "right", "jump"),
    [
        (-0.5, -0.5, -0.05),
        (0.5, 0.5, 0.02),
        (0.5, 0.5, -0.02),
        (0.0, 0.0, 0.05),
        (-1.5, -1.5, 0.03),
        (-0.5, -0.4, -0.05),
    ],
)
def test_analytic_branches_end_where_the_map_jumps(x64, left, right, jump):
    # x = l / (1 - left) up to l = 0, x = (l + jump) / (1 - right) from l = -jump on: a gap or an overlap.
    params = {"left": left, "right": right, "jump": jump, "l": 0.0}
    diagram = bifurcation_diagram(jumping, params, "l", (-2.0, 2.0), LINE)
    assert not diagram.complete
    low, high = sorted(diagram.branches, key=lambda b: b.parameter.min())
    assert [low.parameter.min(), high.parameter.max()] == [-2, 2]
    np.testing.assert_allclose([low.parameter.max(), high.parameter.min()], [0, -jump], atol=1e-6)
    np.testing.assert_allclose(low.states[:, 0], low.parameter / (1 - left), atol=1e-10)
    np.testing.assert_allclose(high.states[:, 0], (high.parameter + jump) / (1 - right), atol=1e-10)


def test_analytic_a_continued_branch_ends_where_the_map_jumps(x64):
    params = {"left": -0.5, "right": -0.5, "jump": -0.05, "l": -1.0}
    branch = continue_branch(jumping, params, "l", (-2.0, 2.0), jnp.array([-0.7]))
    assert branch.why == "step too small"
    np.testing.assert_allclose(np.max(branch.parameter), 0, atol=1e-6)


def lines(p, x, _):
    """Slopes a, b and c, with corners at 0 and 1."""
    return p["l"] + jnp.where(x < 0, p["a"] * x, jnp.where(x < 1, p["b"] * x, p["b"] + p["c"] * (x - 1)))


def cycle_of(slopes):
    """The states of the cycle that meets these slopes in turn, for l = 1."""
    gain, shift = 1.0, 0.0
    for slope in slopes:
        gain, shift = slope * gain, slope * shift + 1
    states = [shift / (1 - gain)]
    for slope in slopes[:-1]:
        states.append(slope * states[-1] + 1)
    assert all((x < 0) == (slope == max(slopes)) for x, slope in zip(states, slopes))
    return states


@pytest.mark.parametrize(
    ("left", "right", "period", "words"),
    [
        (0.4, -6.0, 3, [(0.4, 0.4, -6.0), (0.4, -6.0, -6.0)]),  # a stable and an unstable cycle
        (0.5, -1.5, 2, [(0.5, -1.5)]),
        (-0.5, -1.5, 2, [(-0.5, -1.5)]),
        (0.0, -2.0, 2, [(0.0, -2.0)]),  # x = 0 is one of its phases, and the fixed point in front of the corner
    ],
)
def test_analytic_cycles_begin_at_the_corner_of_the_fixed_point(x64, left, right, period, words):
    params = {"a": left, "b": right, "c": right, "l": 0.0}
    diagram = bifurcation_diagram(lines, params, "l", (-1.0, 1.0), LINE, period=period)
    assert diagram.complete, diagram.notes
    # All states are proportional to l > 0.
    cycles = [cycle_of(slopes) for slopes in words]
    want = sorted(x for cycle in cycles for x in cycle)
    ends = [np.argmax(np.abs(b.parameter)) for b in diagram.branches]
    found = sorted((b.states[i, 0] for b, i in zip(diagram.branches, ends)))
    np.testing.assert_allclose(found, want, atol=1e-9)
    for branch, i in zip(diagram.branches, ends):
        assert (branch.period, branch.parameter[i]) == (period, 1)
        assert sorted(branch.ends) == ["joins another branch", "left the bounds"]
        assert (branch.parameter > 0).all()
        np.testing.assert_allclose(branch.states[:, 0], branch.states[i, 0] * branch.parameter, atol=1e-9)
    (point,) = diagram.special
    assert (point.kind, point.period, point.located) == ("border collision", 1, True)
    np.testing.assert_allclose([point.parameter, *point.state], 0, atol=1e-9)
    note = f"a cycle of period {period} begins or ends here" if len(words) == 1 else "2 cycles of period 3 begin or end"
    assert point.note.startswith(note)


def test_analytic_a_cycle_of_the_planar_normal_form_begins_at_its_corner(x64):
    def normal_form(p, s, _):
        trace, det = jnp.where(s[0] < 0, -0.5, -1.45), jnp.where(s[0] < 0, 0.3, 0.4)
        return jnp.stack([trace * s[0] + s[1] + p["l"], -det * s[0]])

    starts = np.random.default_rng(0).uniform(-3, 3, (20, 2))
    diagram = bifurcation_diagram(normal_form, {"l": 0.0}, "l", (-1.0, 1.0), starts, period=2)
    assert diagram.complete, diagram.notes
    one, two = diagram.branches
    assert min(one.parameter.min(), two.parameter.min()) >= -1e-9
    last = [b.states[np.argmax(b.parameter)] for b in (one, two)]
    # One state on each side, and each the image of the other.
    left, right = sorted(last, key=lambda s: s[0])
    np.testing.assert_allclose(left, [-1.45 * right[0] + right[1] + 1, -0.4 * right[0]], atol=1e-10)
    np.testing.assert_allclose(right, [-0.5 * left[0] + left[1] + 1, -0.3 * left[0]], atol=1e-10)
    assert left[0] < 0 < right[0]
    assert [(p.period, p.note) for p in diagram.special] == [(1, "a cycle of period 2 begins or ends here")]


@pytest.mark.parametrize("options", [{"max_period": 2}, {"period": 2}])
@pytest.mark.parametrize("slope", [0.5, -0.5])
def test_analytic_a_cycle_of_two_lives_between_two_corners_of_the_fixed_point(x64, slope, options):
    params = {"a": slope, "b": -1.5, "c": slope, "l": 0.0}
    diagram = bifurcation_diagram(lines, params, "l", (-1.0, 5.0), LINE, **options)
    assert diagram.complete, diagram.notes
    cycles = [b for b in diagram.branches if b.period == 2]
    assert len(cycles) == 2
    for branch in cycles:
        assert branch.ends == ("joins another branch", "joins another branch")
        assert -1e-9 <= branch.parameter.min() < 2e-3
        assert 2.5 - 2e-3 < branch.parameter.max() <= 2.5 + 1e-9
        state = jnp.asarray(branch.states[:, 0])
        once = lines({**params, "l": branch.parameter}, state, None)
        twice = lines({**params, "l": branch.parameter}, once, None)
        np.testing.assert_allclose(twice, state, atol=1e-9)
        assert (np.abs(once - state) > 0).all()
    shared = [p.parameter for p in diagram.special if p.period == 1]
    np.testing.assert_allclose(shared, [0, 2.5], atol=1e-9)
    # Between them one of its states passes 0 and the other 1.
    own = [p for p in diagram.special if p.period == 2]
    assert [p.note for p in own] == ["persistence"] * 2


def planar_network(p, x, _):
    return p["a"] @ x + p["w"] @ jnp.maximum(p["v"] @ x + p["h"] + p["c"] * p["l"], 0) + p["g"] + p["b"] * p["l"]


@pytest.mark.parametrize(
    ("seed", "options", "cycles", "born"),
    # Where the cycles are born: at the ends of the parameter range of each branch, from corners of the fixed point.
    [
        (0, {"max_period": 2}, 2, [-1.1537189403, 0.8193380131]),
        (16, {"max_period": 2}, 2, [-0.0751415314, 0.133671495]),
        (52, {"max_period": 2}, 2, [-0.8266144288, 0.2722845466]),
        (33, {"max_period": 2}, 2, [0.1943843942, 2.0]),
        (63, {"period": 2}, 4, [-0.8252097743, 0.4673145068]),
    ],
)
def test_property_cycles_of_planar_networks_are_cycles_and_listed_once(x64, seed, options, cycles, born):
    rng = np.random.default_rng(seed)
    gain = rng.uniform(0.3, 1.5)
    params = {
        "a": np.diag(rng.uniform(-0.9, 0.9, 2)),
        "w": gain * rng.normal(size=(2, 3)),
        "v": rng.normal(size=(3, 2)),
    }
    params["h"], c = rng.normal(size=3), rng.normal(size=3)
    params |= {"c": c * (rng.random() < 0.5), "g": 0.5 * rng.normal(size=2), "b": rng.normal(size=2), "l": 0.0}
    starts = rng.uniform(-10, 10, (40, 2))
    diagram = bifurcation_diagram(planar_network, params, "l", (-2.0, 2.0), starts, **options)
    assert diagram.complete, diagram.notes
    branches = [b for b in diagram.branches if b.period == 2]
    assert len(branches) == cycles
    for branch in branches:
        for state, value in zip(branch.states[1:-1], branch.parameter[1:-1]):
            once = planar_network({**params, "l": value}, state, None)
            twice = planar_network({**params, "l": value}, once, None)
            np.testing.assert_allclose(twice, state, atol=1e-8)
            assert np.abs(once - state).max() > 1e-9
    reached = [value for b in branches for value in (b.parameter.min(), b.parameter.max())]
    for value in born:
        assert np.abs(np.array(reached) - value).min() < 2e-3
