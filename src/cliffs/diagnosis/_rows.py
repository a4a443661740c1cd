"""Cells and rows of a log: which cells are missing, which rows are read together."""

from collections.abc import Iterable, Mapping

import numpy as np


def missing(value: object) -> bool:
    """Whether a cell holds nothing: None, a blank, a masked entry, pandas' NA; a NaN is a number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType")


def number(value: object, column: str, row: int) -> float:
    """The cell as a float, or the error that says where it is."""
    try:
        return float(value)  # pyright: ignore
    except (TypeError, ValueError):
        raise ValueError(f"{column} must hold numbers, got {value!r} in row {row}") from None


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


def join(rows: list[Mapping[str, object]], step: str | None) -> list[Mapping[str, object]]:
    """Rows of one step next to each other become one, where no column is in both (a loss here, its norm there)."""
    joined: list[Mapping[str, object]] = []
    for row in rows:
        last = joined[-1] if joined else {}
        same = step is not None and step in row and last.get(step) == row[step]
        if same and all(last[name] == row[name] for name in row.keys() & last.keys()):
            joined[-1] = {**last, **row}
        else:
            joined.append(row)
    return joined
