"""Two columns of a sweep's grid against one another."""

from typing import cast

import numpy as np
from matplotlib.axes import Axes

from cliffs.plotting._style import axes_or_new
from cliffs.sweeps import SweepResult


def plot_heatmap(
    result: SweepResult, x: str, y: str, ax: Axes | None = None, *, value: str = "success", annotate: bool = True
) -> Axes:
    """A number of a sweep for each pair of values of two grid columns, over all other columns (seeds, ...).

    **Arguments**

    - `result`: of `sweep`.
    - `x`, `y`: names of columns of the grid.
    - `ax`: where to draw; a new figure when None.
    - `value`: a column of `result.table(by=(x, y))`: `"success"` (the share of runs that solved the task), `"diverged"`
      (a count), `"updates"`, or the name of an evaluation or metric (the median of its last value over the runs that
      did not diverge). Pairs without a value stay grey.
    - `annotate`: whether to write the numbers into the cells.

    **Returns** the Axes.

    **Raises** `ValueError` for a name that is no column of the grid or of the table, and for `"success"` of a sweep
    that was not told when a run has solved the task.

    >>> none = np.array([-1, -1])
    >>> grid = {"lr": np.array([0.1, 0.2]), "seed": np.array([0, 0])}
    >>> result = SweepResult(grid, {}, {}, {}, np.array([5, -1]), none, np.array([10, 10]))
    >>> plot_heatmap(result, "lr", "seed").get_xlabel()
    'lr'
    """
    # The columns of the grid that x and y name have a value everywhere.
    rows = cast(list[dict[str, float]], result.table(by=(x, y)))
    known = sorted(set(rows[0]) - {x, y})
    if value not in known:
        raise ValueError(f"value must be one of {known}, got {value!r}")
    if value == "success" and "solved" not in result.evaluations and (result.solved_at < 0).all():
        raise ValueError(f"value='success' needs an entry 'solved' of what evaluate returns: choose one of {known}")
    xs, ys = ([row[name] for row in result.success_table(name)] for name in (x, y))
    cells = np.full((len(ys), len(xs)), np.nan)
    for row in rows:
        cells[ys.index(row[y]), xs.index(row[x])] = np.nan if row[value] is None else row[value]
    ax = axes_or_new(ax)
    ax.set_facecolor("0.85")
    low, high = (0.0, 1.0) if value == "success" else (None, None)
    image = ax.imshow(np.ma.masked_invalid(cells), origin="lower", aspect="auto", cmap="viridis", vmin=low, vmax=high)
    ax.figure.colorbar(image, ax=ax, label="share of runs that solve the task" if value == "success" else value)
    ax.set_xticks(range(len(xs)), [f"{v:.3g}" for v in xs], rotation=45 if len(xs) > 6 else 0)
    ax.set_yticks(range(len(ys)), [f"{v:.3g}" for v in ys])
    if annotate and cells.size <= 150:
        for (i, j), cell in np.ndenumerate(cells):
            if np.isfinite(cell):
                light = float(np.asarray(image.norm(cell))) < 0.5
                ax.text(j, i, f"{cell:.3g}", ha="center", va="center", fontsize=8, color="w" if light else "k")
    ax.grid(visible=False)
    ax.set(xlabel=x, ylabel=y)
    return ax
