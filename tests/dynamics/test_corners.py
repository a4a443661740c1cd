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
