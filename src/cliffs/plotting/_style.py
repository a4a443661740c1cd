"""One look for all figures."""

from typing import Any, overload

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = {
    "clipped": "#1f6feb",
    "unclipped": "#d1242f",
    "stable": "#1b1f24",
    "unstable": "#8c959f",
    "accent": "#bf8700",
    "good": "#1a7f37",
}

STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "cliffs",
}


def axes_or_new(ax: Axes | None, **subplots: Any) -> Axes:
    """The given Axes, or those of a new figure in the house style."""
    return figure(**subplots)[1] if ax is None else ax


def add_legend(ax: Any, given: Axes | None) -> None:
    """A legend in a figure of one's own; where somebody gave the Axes, theirs to add."""
    if given is None and ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=8)


def array_of(name: str, value: Any) -> np.ndarray:
    """The value as an array.

    **Raises** `ValueError` for the record that a function returned, of which one field is to be drawn.
    """
    fields = getattr(value, "_fields", None)
    try:
        array = np.asarray(None if fields else value)
    except ValueError:  # of different shapes
        array = np.asarray(None)
    if array.dtype == object:
        what = f"a {type(value).__name__}" + (f" of {list(fields)}" if fields else "")
        raise ValueError(f"{name} must be an array, got {what}: give the part of it that is to be drawn")
    return array


def figure_of(ax: Axes) -> Figure:
    """The figure that the Axes are part of.

    >>> fig, ax = figure()
    >>> figure_of(ax) is fig
    True
    """
    fig = ax.get_figure(root=True)
    if not isinstance(fig, Figure):
        raise ValueError(f"ax must be part of a figure, got {ax}")
    return fig


@overload
def figure(*, size: tuple[float, float] | None = None, **subplots: Any) -> tuple[Figure, Axes]: ...
@overload
def figure(
    rows: int, columns: int = 1, *, size: tuple[float, float] | None = None, **subplots: Any
) -> tuple[Figure, np.ndarray]: ...
def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **subplots: Any
) -> tuple[Figure, Axes | np.ndarray]:
    """A figure without pyplot's global state, in the house style.

    **Arguments**

    - `rows`, `columns`: the grid of axes.
    - `size`: inches; 5 x 3.6 for every panel when not given.
    - further keywords go to `Figure.subplots`.

    **Returns** `(figure, axes)`; `axes` is a single Axes when there is one panel, else an array.

    >>> fig, ax = figure()
    >>> ax.get_title()
    ''
    """
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=size or (5.0 * columns, 3.6 * rows), layout="constrained")
        axes = fig.subplots(rows, columns, **subplots)
    return fig, axes
