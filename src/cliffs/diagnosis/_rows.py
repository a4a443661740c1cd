"""Cells and rows of a log: which cells are missing, which rows are read together."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

NOTHING = ("", "none", "null", "na", "n/a", "<na>", "-")


def missing(value: object) -> bool:
    """Whether a cell holds nothing: None, a blank, a word for it, a masked entry, pandas' NA; a NaN is a number."""
    if isinstance(value, str):
        return value.strip().lower() in NOTHING
    return value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType")


def nan(value: object) -> bool:
    """Whether a cell is NaN, as a number or as its text."""
    try:
        return math.isnan(float(value))  # pyright: ignore
    except (TypeError, ValueError, RuntimeError):
        return False


def number(value: object, column: str, row: int) -> float:
    """The cell as a float, or the error that says where it is."""
    try:
        return float(value)  # pyright: ignore
    except (TypeError, ValueError, RuntimeError):  # the last from a tensor of several numbers
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise ValueError(f"{column} must hold numbers, got {shown} in row {row}") from None


def filled(cells: Iterable[tuple[int, object]], column: str) -> np.ndarray | None:
    """Numbers of cells with their rows; a missing one is the last before it, or the first of all; None without any.

    >>> filled(enumerate([None, 2.0, None, 3.0]), "loss")
    array([2., 2., 2., 3.])
    """
    last, numbers = None, []
    for row, value in cells:
        last = last if missing(value) else number(value, column, row)
        numbers.append(last)
    known = next((x for x in numbers if x is not None), None)
    return None if known is None else np.array([known if x is None else x for x in numbers], float)


def join(rows: Sequence[Mapping[str, object]], step: str | None) -> list[Mapping[str, object]]:
    """Rows of one step next to each other become one, where no column differs (a loss here, its norm there).

    A NaN differs from a number, unless each row has a number where the other has a NaN, as they have in a data frame.
    """
    joined: list[Mapping[str, object]] = []
    for row in rows:
        last = joined[-1] if joined else {}
        if step is not None and step in row and step in last and _same(last[step], row[step]) and _agree(last, row):
            joined[-1] = {**last, **{name: x for name, x in row.items() if name not in last or not nan(x)}}
        else:
            joined.append(row)
    return joined


def without_evaluations(
    rows: Sequence[Mapping[str, object]], norm: str, loss: str | None
) -> Sequence[Mapping[str, object]]:
    """Rows of a table, in which those of evaluations have no norm and no loss.

    A data frame has a NaN where its log had nothing, and where the number itself was NaN. Norm and loss of a row are
    of the first kind where a column is there that no row of training has (`eval_loss`, `train_runtime`).
    """
    names = {norm, loss} - {None}
    idle = [not names & _there(row) for row in rows]
    if not any(idle) or all(idle):  # where nothing was ever a number, all columns are those of training
        return rows
    trained = set().union(*(_there(row) for row, other in zip(rows, idle) if not other))
    return [
        {name: x for name, x in row.items() if name not in names} if other and _there(row) - trained else row
        for row, other in zip(rows, idle)
    ]


def without_gaps(rows: Sequence[Mapping[str, object]], norm: str, loss: str) -> Sequence[Mapping[str, object]]:
    """Rows of a table whose norms were logged less often than its losses: those without one.

    Where the norm is NaN beside a finite loss in more than half of the rows, those cells were empty. Fewer of them are
    lost gradients: half precision overflows now and then.
    """
    gaps = [nan(row.get(norm, 0.0)) and not nan(row.get(loss, math.nan)) for row in rows]
    if 2 * sum(gaps) <= len(rows):
        return rows
    return [{k: x for k, x in row.items() if k != norm} if gap else row for row, gap in zip(rows, gaps)]


def fill_gaps(losses: np.ndarray) -> np.ndarray:
    """Losses of a table, logged less often than norms: a NaN is the last number before it, or the first of all.

    A stretch of NaNs at the end that is longer than all others is kept: there the loss was lost.

    >>> fill_gaps(np.array([3.0, np.nan, 2.0, np.nan])), fill_gaps(np.array([3.0, np.nan, np.nan]))
    (array([3., 3., 2., 2.]), array([ 3., nan, nan]))
    """
    known = np.flatnonzero(~np.isnan(losses))
    if not len(known) or len(losses) - known[-1] > np.diff(known).max(initial=1):
        return losses
    return losses[known[np.maximum(np.searchsorted(known, np.arange(len(losses)), "right") - 1, 0)]]


def _there(row: Mapping[str, object]) -> set[str]:
    return {name for name, value in row.items() if not nan(value)}


def _agree(a: Mapping[str, object], b: Mapping[str, object]) -> bool:
    a_nan, b_nan = ({name for name in a.keys() & b.keys() if nan(row[name])} for row in (a, b))
    if (a_nan or b_nan) and not (a_nan - b_nan and b_nan - a_nan):
        return False
    return all(_same(a[name], b[name]) for name in a.keys() & b.keys() - a_nan - b_nan)


def _same(a: object, b: object) -> bool:
    return np.array_equal(a, b)  # pyright: ignore[reportArgumentType] # arrays in cells have no single truth
