"""Basins of attraction on the line against a parameter and in the plane, boundaries, and driven trajectories."""

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap

from cliffs.dynamics import BOUNDARY, ESCAPED
from cliffs.plotting._style import COLORS

SHADES = ("#cfe2ff", "#ffd8d6", "#d7f0dc", "#fff0c2", "#e6dcf5", "#d9eef2")
"""Light enough to draw trajectories over; the attractors take them in turn."""


def plot_basins(ax: Any, labels: np.ndarray, horizontal: np.ndarray, vertical: np.ndarray) -> None:
    """Labels on a grid as coloured areas: one shade per attractor, grey for escape, white for undecided.

    **Arguments**: a matplotlib Axes; `[horizontal, vertical]` labels of `basins_of_attraction`; the two coordinates.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_basins(ax, np.array([[0, 1], [0, -1]]), np.arange(2.0), np.arange(2.0))
    >>> len(ax.collections)
    1
    """
    colors = ["#ffffff", "#d0d7de", *SHADES]
    shown = np.where(labels >= 0, 2 + labels % len(SHADES), np.where(labels == ESCAPED, 1, 0))
    # A start on a boundary has no basin: let it take its neighbour's colour.
    shown = np.where((labels == BOUNDARY), np.roll(shown, 1, axis=-1), shown)
    ax.pcolormesh(
        horizontal, vertical, shown.T, cmap=ListedColormap(colors), vmin=-0.5, vmax=len(colors) - 0.5, rasterized=True,
        shading="nearest", zorder=0,
    )  # fmt: skip


def plot_split_path(
    ax: Any, path: Any, *, components: tuple[int, int] = (0, 1), color: str = COLORS["clipped"]
) -> None:
    """A driven trajectory in the plane: the pull of `F~` as a thin dashed arrow, the push of `U_t` as a solid one.

    **Arguments**: a matplotlib Axes; a `DrivenPath` with leaves `[time, n]`; which two components of the state.

    >>> from cliffs.dynamics._input_driven import DrivenPath
    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_split_path(ax, DrivenPath(np.zeros((3, 2)), np.ones((3, 2)), np.full((3, 2), 2.0)))
    >>> len(ax.patches) + len(ax.texts)
    6
    """
    before, pulled, pushed = (np.asarray(x)[:, list(components)] for x in path)
    for a, b, c in zip(before, pulled, pushed):
        arrow = {"shrinkA": 0, "shrinkB": 0, "color": color, "mutation_scale": 9}
        ax.annotate("", b, a, arrowprops={"arrowstyle": "->", "linestyle": (0, (3, 2)), "lw": 0.9, **arrow})
        ax.annotate("", c, b, arrowprops={"arrowstyle": "-|>", "lw": 1.5, **arrow})
    ax.plot(*before[0], "o", color=color, markersize=5, zorder=5)
