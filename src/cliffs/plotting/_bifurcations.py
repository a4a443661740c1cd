"""Bifurcation diagrams: branches, special points, vector fields, attractors, curves in two parameters."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from cliffs.dynamics import BifurcationDiagram
from cliffs.plotting._style import COLORS, add_legend, axes_or_new

MARKERS = {
    "fold": ("o", COLORS["unclipped"]),
    "degenerate fold": ("o", COLORS["unclipped"]),
    "flip": ("s", COLORS["clipped"]),
    "Neimark-Sacker": ("D", COLORS["good"]),
    "transcritical": ("X", COLORS["accent"]),
    "pitchfork": ("P", COLORS["accent"]),
    "branch point": ("X", COLORS["accent"]),
    "border collision": ("v", COLORS["accent"]),
    "unresolved": ("$?$", COLORS["accent"]),
    "cusp": ("*", COLORS["accent"]),
    "generalized flip": ("*", COLORS["accent"]),
    "1:1 resonance": ("*", COLORS["good"]),
    "1:2 resonance": ("*", COLORS["good"]),
    "fold-flip": ("*", COLORS["good"]),
}
"""Marker and colour of every kind of special point; hollow where the point is not located."""


GAP = 2.0
"""Points between markers: nearer ones are moved apart."""


def plot_bifurcation_diagram(
    diagram: BifurcationDiagram, ax: Axes | None = None, *, component: int = 0, parameter: str = "parameter"
) -> Axes:
    """Branches (solid where stable, dashed where not; thinner for longer cycles) with their special points marked.

    The axes show the parameter's range and the states of stable branches and special points; what is unstable is cut
    off half as far again beyond them. Markers that would cover each other are moved apart, with a line to their place.

    **Arguments**: the diagram; where to draw, a new figure with a legend when None; which component of the state; the
    parameter's name.

    **Returns** the Axes.

    >>> plot_bifurcation_diagram(BifurcationDiagram([], []), parameter="b").get_xlabel()
    'b'
    """
    given, ax = ax, axes_or_new(ax)
    named = set()
    for branch in diagram.branches:
        what = "fixed point" if branch.period == 1 else "cycle"
        for stable, rows in branch.by_stability():
            label = f"stable {what}" if stable else f"unstable {what}"
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
    _show_data(ax, diagram, component)
    _mark(ax, diagram.special, component, named)
    ax.set_xlabel(parameter)
    ax.set_ylabel("state x")
    add_legend(ax, given)
    return ax


def _places(point: Any, component: int) -> np.ndarray:
    """Where an event is marked, `[phases, 2]`: at every point of its cycle."""
    states = np.asarray(point.state)[None] if point.orbit is None else point.orbit
    return np.stack([np.full(len(states), point.parameter), states[:, component]], 1)


def _show_data(ax: Any, diagram: BifurcationDiagram, component: int) -> None:
    """Axis limits from what was found."""
    if not diagram.branches:
        return
    parameter = np.concatenate([b.parameter for b in diagram.branches])
    states = np.concatenate([b.states[:, component] for b in diagram.branches])
    stable = np.concatenate([b.stable for b in diagram.branches])
    marked = [_places(p, component)[:, 1] for p in diagram.special]
    first = np.concatenate([states[stable], *marked]) if stable.any() else states
    low, high = first.min(), first.max()
    reach = 0.5 * (high - low)
    low, high = max(states.min(), low - reach), min(states.max(), high + reach)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    side = 0.02 * np.ptp(parameter) or 0.05 * abs(parameter[0]) or 1.0
    ax.set(xlim=(parameter.min() - side, parameter.max() + side), ylim=(low - pad, high + pad))
    for line in ax.lines:
        if line.get_gid() == "attractors" and len(line.get_xdata()):
            _widen(ax, line.get_xdata(), line.get_ydata())


def _widen(ax: Any, x: np.ndarray, y: np.ndarray) -> None:
    """Let the axes show these points as well."""
    for limits, change, values in ((ax.get_xlim(), ax.set_xlim, x), (ax.get_ylim(), ax.set_ylim, y)):
        pad = 0.02 * (limits[1] - limits[0])
        change(min(limits[0], values.min() - pad), max(limits[1], values.max() + pad))


def _mark(ax: Any, special: list, component: int, named: set) -> None:
    """A marker for every special point, none on another."""
    from matplotlib.transforms import ScaledTranslation

    scale = ax.figure.dpi / 72
    taken: list[tuple[np.ndarray, float]] = []
    ring = [np.zeros(2)]
    ring += [r * np.array([np.cos(a), np.sin(a)]) for r in (14, 24, 34) for a in np.pi * (np.arange(8) / 4 + 0.5)]
    for point in special:
        marker, color = MARKERS[point.kind]
        size = 7 / (1 + 0.3 * np.log2(point.period))  # as the branches are thinner
        for place in _places(point, component):
            here = ax.transData.transform(place) / scale  # in points
            clear = [all(np.linalg.norm(here + move - o) > (size + s) / 2 + GAP for o, s in taken) for move in ring]
            move = ring[clear.index(True)] if any(clear) else ring[0]
            taken.append((here + move, size))
            if move.any():
                ax.annotate(
                    "",
                    place,
                    xytext=tuple(move),
                    textcoords="offset points",
                    zorder=4,
                    arrowprops={"arrowstyle": "-", "color": color, "lw": 0.7, "shrinkA": 0, "shrinkB": 0},
                )
            moved = ax.transData + ScaledTranslation(move[0] / 72, move[1] / 72, ax.figure.dpi_scale_trans)
            ax.plot(
                *place,
                marker,
                color=color,
                markersize=size,
                zorder=5,
                linestyle="",
                transform=moved,
                markerfacecolor=color if point.located else "white",
                clip_on=not move.any(),
                markeredgecolor="white" if point.located else color,
                markeredgewidth=0.8,
                label=point.kind if point.kind not in named else None,
                scalex=False,
                scaley=False,
            )
            named.add(point.kind)


def plot_flow(
    next_state: Callable[[np.ndarray, np.ndarray], np.ndarray],
    parameters: np.ndarray,
    states: np.ndarray,
    ax: Axes | None = None,
) -> Axes:
    """Vertical arrows from x towards F(x; parameter): the vector field of a one-dimensional map.

    **Arguments**: `next_state(parameter, x)` on arrays; the grid's two axes; where to draw, a new figure when None.

    **Returns** the Axes.

    >>> ax = plot_flow(lambda b, x: 0.5 * x + b, np.linspace(-1, 1, 3), np.linspace(-1, 1, 3))
    >>> ax.collections[0].N
    9
    """
    ax = _with_names(ax)
    p, x = np.meshgrid(parameters, states)
    change = next_state(p, x) - x
    # The square root keeps slow regions visible; no arrow reaches the next one.
    size = np.sqrt(np.abs(change) / max(np.abs(change).max(), 1e-30))
    length = 0.9 * (states[1] - states[0]) * np.maximum(size, 0.12) * np.sign(change)
    ax.quiver(
        p,
        x - length / 2,
        np.zeros_like(length),
        length,
        angles="xy",
        scale_units="xy",
        scale=1,
        color="#8c959f",
        width=0.0019,
        headwidth=4.5,
        headlength=5,
        headaxislength=4.5,
        minlength=0.2,
        alpha=0.75,
        zorder=1,
    )
    return ax


def plot_attractors(
    values: np.ndarray, states: np.ndarray, ax: Axes | None = None, *, component: int = 0, label: str | None = None
) -> Axes:
    """The states of an `attractor_diagram` as dots above their parameter values.

    **Arguments**

    - `values`: `[values]` of the parameter.
    - `states`: `[values, starts, record, n]`; what is not finite is left out.
    - `ax`: where to draw; a new figure when None, with a legend where there is a label.
    - `component`: which entry of the state; `label`: of the dots.

    **Returns** the Axes.

    >>> len(plot_attractors(np.zeros(2), np.ones((2, 3, 4, 1))).lines[0].get_xdata())
    24
    """
    given, ax = ax, _with_names(ax)
    x = np.asarray(states)[..., component]
    b = np.broadcast_to(np.asarray(values)[:, None, None], x.shape)
    keep = np.isfinite(x)
    # Behind the branches, and pale: they are drawn in great numbers.
    ax.plot(
        b[keep],
        x[keep],
        ".",
        color=COLORS["clipped"],
        markersize=3.2,
        markeredgewidth=0,
        alpha=0.5,
        zorder=1.5,
        rasterized=True,
        label=label,
        gid="attractors",
    )
    if not ax.get_autoscale_on() and keep.any():
        _widen(ax, b[keep], x[keep])
    add_legend(ax, given)
    return ax


def _with_names(ax: Axes | None) -> Axes:
    """The given Axes as they are, or new ones that say what is on them."""
    if ax is not None:
        return ax
    ax = axes_or_new(None)
    ax.set(xlabel="parameter", ylabel="state x")
    return ax
