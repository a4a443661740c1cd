"""Basins of attraction in the plane or against a parameter, and driven trajectories."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap

from cliffs.dynamics import BOUNDARY, ESCAPED, DrivenPath
from cliffs.plotting._style import COLORS, array_of, axes_or_new

SHADES = ("#cfe2ff", "#ffd8d6", "#d7f0dc", "#fff0c2", "#e6dcf5", "#d9eef2")
"""Light enough to draw trajectories over; the attractors take them in turn."""


def plot_basins(labels: np.ndarray, horizontal: np.ndarray, vertical: np.ndarray, ax: Axes | None = None) -> Axes:
    """Labels on a grid as coloured areas: one shade per attractor, grey for escape, white for undecided.

    **Arguments**

    - `labels`: `[horizontal, vertical]`, the `labels` of what `basins_of_attraction` returns.
    - `horizontal`, `vertical`: the coordinates of the grid.
    - `ax`: where to draw; a new figure when None.

    **Returns** the Axes.

    **Raises** `ValueError` for labels that do not fit the grid.

    >>> ax = plot_basins(np.array([[0, 1], [0, -1]]), np.arange(2.0), np.arange(2.0))
    >>> len(ax.collections)
    1
    """
    labels = array_of("labels", labels)
    if labels.shape != (len(horizontal), len(vertical)):
        shape = len(horizontal), len(vertical)
        raise ValueError(f"labels must be [horizontal, vertical], {shape}, got shape {labels.shape}")
    ax = axes_or_new(ax)
    colors = ["#ffffff", "#d0d7de", *SHADES]
    shown = np.where(labels >= 0, 2 + labels % len(SHADES), np.where(labels == ESCAPED, 1, 0))
    # A start on a boundary has no basin: let it take its neighbour's colour.
    shown = np.where((labels == BOUNDARY), np.roll(shown, 1, axis=-1), shown)
    options = {"cmap": ListedColormap(colors), "vmin": -0.5, "vmax": len(colors) - 0.5}
    ax.pcolormesh(horizontal, vertical, shown.T, shading="nearest", rasterized=True, zorder=0, **options)
    return ax


def plot_split_path(
    path: DrivenPath, ax: Axes | None = None, *, components: tuple[int, int] = (0, 1), color: str = COLORS["clipped"]
) -> Axes:
    """A driven trajectory in the plane: the pull of the network alone and the push of the input, step by step.

    **Arguments**

    - `path`: from `split_path`, leaves `[time, n]`. The pull of `F~` is a thin dashed arrow, the push of `U_t` a solid
      one.
    - `ax`: where to draw; a new figure when None.
    - `components`: which two components of the state.
    - `color`: of the arrows.

    **Returns** the Axes.

    >>> ax = plot_split_path(DrivenPath(np.zeros((3, 2)), np.ones((3, 2)), np.full((3, 2), 2.0)))
    >>> len(ax.patches) + len(ax.texts)
    6
    """
    ax = axes_or_new(ax)
    before, pulled, pushed = (np.asarray(x)[:, list(components)] for x in path)
    for a, b, c in zip(before, pulled, pushed):
        arrow = {"shrinkA": 0, "shrinkB": 0, "color": color, "mutation_scale": 9}
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "linestyle": (0, (3, 2)), "lw": 0.9, **arrow})
        ax.annotate("", c, b, arrowprops={"arrowstyle": "-|>", "lw": 1.5, **arrow})
    ax.plot(*before[0], "o", color=color, markersize=5, zorder=5)
    return ax
