"""Bifurcation diagrams: branches, special points, vector fields, attractors, curves in two parameters."""

from typing import Any

import numpy as np

from cliffs.dynamics import BifurcationDiagram
from cliffs.plotting._style import COLORS

MARKERS = {
    "fold": ("o", COLORS["unclipped"]),
    "degenerate fold": ("o", COLORS["unclipped"]),
    "flip": ("s", COLORS["clipped"]),
    "Neimark-Sacker": ("D", COLORS["good"]),
    "transcritical": ("X", COLORS["accent"]),
    "pitchfork": ("P", COLORS["accent"]),
    "branch point": ("X", COLORS["accent"]),
    "unresolved": ("$?$", COLORS["accent"]),
    "cusp": ("*", COLORS["accent"]),
    "generalized flip": ("*", COLORS["accent"]),
    "1:1 resonance": ("*", COLORS["good"]),
    "1:2 resonance": ("*", COLORS["good"]),
    "fold-flip": ("*", COLORS["good"]),
}
"""Marker and colour of every kind of special point; hollow where the point is not located."""


def plot_bifurcation_diagram(ax: Any, diagram: BifurcationDiagram, *, component: int = 0, parameter: str = "b") -> None:
    """Branches (solid where stable, dashed where not; thinner for longer cycles) with their special points marked.

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
            what = "fixed point" if branch.period == 1 else "cycle"
            label = f"stable {what}" if stable else f"unstable {what}"
            rows = np.append(piece, min(piece[-1] + 1, len(branch.stable) - 1))
            ax.plot(
                branch.parameter[rows],
                branch.states[rows, component],
                color=COLORS["stable" if stable else "unstable"],
                linestyle="-" if stable else (0, (4, 2.5)),
                linewidth=(2.4 if stable else 1.6) / (1 + 0.3 * np.log2(branch.period)),
                solid_capstyle="round",
                label=None if label in named else label,
                zorder=3,
            )
            named.add(label)
    for point in diagram.special:
        marker, color = MARKERS[point.kind]
        ax.plot(
            point.parameter, point.state[component], marker, color=color, markersize=7, zorder=5, linestyle="",
            markerfacecolor=color if point.located else "white", markeredgecolor="white" if point.located else color,
            markeredgewidth=0.8, label=point.kind if point.kind not in named else None,
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
    # The square root keeps slow regions visible; no arrow reaches the next one.
    size = np.sqrt(np.abs(change) / max(np.abs(change).max(), 1e-30))
    length = 0.9 * (states[1] - states[0]) * np.maximum(size, 0.12) * np.sign(change)
    ax.quiver(
        p, x - length / 2, np.zeros_like(length), length, angles="xy", scale_units="xy", scale=1, color="#8c959f",
        width=0.0019, headwidth=4.5, headlength=5, headaxislength=4.5, minlength=0.2, alpha=0.75, zorder=1,
    )  # fmt: skip


def add_attractors(ax: Any, values: np.ndarray, states: np.ndarray, *, component: int = 0, label: str | None = None):
    """The states of an `attractor_diagram` as dots above their parameter values.

    **Arguments**: a matplotlib Axes; `values` `[values]`; `states` `[values, starts, record, n]`.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> add_attractors(ax, np.zeros(2), np.ones((2, 3, 4, 1)))
    """
    x = np.asarray(states)[..., component]
    b = np.broadcast_to(np.asarray(values)[:, None, None], x.shape)
    keep = np.isfinite(x)
    ax.plot(
        b[keep], x[keep], ".", color=COLORS["clipped"], markersize=3.2, markeredgewidth=0, zorder=4, rasterized=True,
        label=label,
    )  # fmt: skip
