"""Bifurcation diagrams."""

from typing import Any

import numpy as np

from cliffs.dynamics.bifurcations import BifurcationDiagram
from cliffs.plotting._style import COLORS


def plot_bifurcation_diagram(ax: Any, diagram: BifurcationDiagram, *, component: int = 0, parameter: str = "b") -> None:
    """Branches (solid where stable, dashed where not) with folds and flips marked.

    **Arguments**: a matplotlib Axes; the diagram; which component of the state; the parameter's name.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_bifurcation_diagram(ax, BifurcationDiagram([], []))
    >>> ax.get_xlabel()
    'b'
    """
    named = set()
    for branch in diagram.branches:
        # One line per run of equal stability; each starts at the end of the one before.
        edges = np.flatnonzero(np.diff(branch.stable.astype(int))) + 1
        for piece in np.split(np.arange(len(branch.stable)), edges):
            stable = bool(branch.stable[piece[0]])
            label = ("attractor" if stable else "unstable fixed point") if stable not in named else None
            named.add(stable)
            rows = np.append(piece, min(piece[-1] + 1, len(branch.stable) - 1))
            ax.plot(
                branch.parameter[rows],
                branch.states[rows, component],
                color=COLORS["stable" if stable else "unstable"],
                linestyle="-" if stable else (0, (4, 3)),
                linewidth=2.2 if stable else 1.5,
                label=label,
                zorder=3,
            )
    for point in diagram.special:
        ax.plot(
            point.parameter, point.state[component], "o", color=COLORS["unclipped"], markersize=6, zorder=4,
            label=point.kind if point.kind not in named else None,
        )  # fmt: skip
        named.add(point.kind)
    ax.set_xlabel(parameter)
    ax.set_ylabel("state x")


def add_flow(ax: Any, next_state: Any, parameters: np.ndarray, states: np.ndarray) -> None:
    """Vertical arrows from x towards F(x; parameter): the vector field of a one-dimensional map.

    **Arguments**: a matplotlib Axes; `next_state(parameter, x)` on arrays; the grid's two axes.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> add_flow(ax, lambda b, x: 0.5 * x + b, np.linspace(-1, 1, 3), np.linspace(-1, 1, 3))
    """
    p, x = np.meshgrid(parameters, states)
    change = next_state(p, x) - x
    length = 0.35 * (states[1] - states[0]) * np.tanh(np.abs(change) * 2) * np.sign(change)
    ax.quiver(
        p, x, np.zeros_like(length), length, angles="xy", scale_units="xy", scale=0.5, color="#8c959f", width=0.0022,
        alpha=0.7, zorder=1,
    )  # fmt: skip
