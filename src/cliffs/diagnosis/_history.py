"""A history of norms from what people have: arrays, rows of a logger, columns."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from cliffs.diagnosis._records import Diagnosis
from cliffs.diagnosis._rows import fill_gaps, filled, join, missing, number, without_evaluations, without_gaps

# What a column of gradient norms is called, in the order of preference: norms before clipping first.
NORM_NAMES = (
    *("norm_before", "grad_norm_before", "grad_norm_before_clip", "grad_norm_preclip", "grad_norm", "gradient_norm"),
    *("global_grad_norm", "total_grad_norm", "grad_norm_total", "grad_2_0_norm_total", "gnorm", "global_norm"),
    "total_norm",
)
LOSS_NAMES = ("loss", "train_loss", "training_loss", "loss_train", "lm_loss", "total_loss")
# "train/grad_norm" and "0/norm_before" are that column, too; telemetry of single leaves and evaluation are not.
PREFIX = r"(?:(?:train(?:ing)?|trainer|optim|metrics?|stats|\d+)_)?"
STEP_NAMES = ("step", "global_step", "iteration", "iter", "num_updates", "update", "steps")


class History(NamedTuple):
    """The norms of one run, as its log has them."""

    steps: np.ndarray
    """`[rows]`, the training step of each row; its index where the log has no steps."""
    norms: np.ndarray
    """`[rows]`, float64."""
    losses: np.ndarray | None
    """`[rows]`; a row without a loss has the last one before it. None where the log has no losses."""
    notes: tuple[str, ...] = ()


Losses: TypeAlias = ArrayLike | Sequence[float | None]
Rows: TypeAlias = Iterable[Mapping[str, object]]
Log: TypeAlias = ArrayLike | Sequence[float | None] | Rows | Mapping[str, ArrayLike] | History


def as_history(data: Log) -> History:
    """A `History` from norms `[steps]`, rows of a logger (dicts), columns (a dict of lists, a data frame), or itself.

    >>> as_history([{"step": 10, "grad_norm": 2.0}, {"step": 10, "eval_loss": 1.0}, {"step": 20, "grad_norm": 3.0}])[:2]
    (array([10, 20]), array([2., 3.]))
    """
    if isinstance(data, History):
        return data
    given: object = data
    if isinstance(given, (str, os.PathLike)):
        raise ValueError(f"norms must be numbers or rows of a log, got {given!r}: read_history(path) reads a file")
    if isinstance(given, Diagnosis):
        raise ValueError("norms must be numbers or rows of a log, got a Diagnosis, which does not hold its norms")
    if hasattr(given, "columns") and hasattr(given, "to_dict"):  # a data frame of pandas or polars
        names: list = list(given.columns)  # pyright: ignore
        # By iteration: polars' empty cells are then None, and as an array NaN.
        columns = (list(given[name]) for name in names)  # pyright: ignore
        return from_rows([dict(zip(map(str, names), values)) for values in zip(*columns)])
    if isinstance(given, Mapping):
        return from_rows(_rows_of_columns(given))  # pyright: ignore[reportArgumentType]
    if isinstance(given, Iterable) and not hasattr(given, "dtype"):
        given = list(given)
        if given and all(isinstance(row, Mapping) for row in given):
            return from_rows(given)  # pyright: ignore[reportArgumentType]
    return _from_numbers(given)


def from_rows(rows: Rows, norm: str | None = None, loss: str | None = None) -> History:
    """A `History` from rows of a log; rows without a norm are left out, rows of one step are read together.

    Where all rows have the same columns, as in a data frame, a NaN may be an empty cell; else it is a lost number.

    >>> from_rows([{"a": 1.0, "b": 4.0}, {"a": 2.0, "b": 3.0}], norm="a", loss="b").losses
    array([4., 3.])
    """
    rows = list(rows)
    table = all(row.keys() == rows[0].keys() for row in rows)
    rows = [{name: value for name, value in row.items() if not missing(value)} for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    norm = _column("norm", norm, NORM_NAMES, names)
    if norm is None:
        # Weights & Biases' charts come with the least and the largest of what each point stands for.
        ends = ("__MIN", "__MAX")
        guess = [n for n in names if "grad" in n.lower() and "norm" in n.lower()]
        guess = [n for n in guess if not n.startswith("leaf/") and not n.endswith(ends)]
        if len(guess) != 1:
            raise ValueError(f"norms: none of the columns {_brief(names)} is known to be the gradient's norm: {HOW}")
        norm = guess[0]
    loss = _column("loss", loss, LOSS_NAMES, [n for n in names if n != norm])
    step = _column("step", None, STEP_NAMES, names)
    rows = join(without_evaluations(rows, norm, loss) if table else rows, step)
    rows = without_gaps(rows, norm, loss) if table and loss is not None else rows
    kept = [(i, row) for i, row in enumerate(rows) if norm in row]
    norms = np.array([number(row[norm], norm, i) for i, row in kept], float)
    losses = None if loss is None else filled(((i, row.get(loss)) for i, row in kept), loss)
    losses = fill_gaps(losses) if table and losses is not None else losses
    steps, notes = np.arange(len(kept)), []
    if step is not None and all(step in row for _, row in kept):
        logged = np.array([number(row[step], step, i) for i, row in kept])
        if (np.round(logged) != logged)[np.isfinite(logged)].any():
            notes.append(f"the column {step!r} holds fractions: steps are rows of the log")
        elif np.isfinite(logged).all() and (np.diff(logged) > 0).all():
            steps = logged.astype(int)
        elif len(kept) > 1:
            notes.append(f"the column {step!r} does not rise from row to row (resumed?): steps are rows of the log")
    return History(steps, norms, losses, tuple(notes))


def with_losses(history: History, losses: Losses) -> History:
    """The history with these losses, one for each of its rows or, where some steps had no norm, for each step.

    >>> with_losses(as_history([1.0, None, 3.0]), [0.5, 0.25, None]).losses
    array([0.5 , 0.25])
    """
    rows, steps = len(history.norms), history.steps
    try:
        array = _array(losses)
    except ValueError:
        raise ValueError(f"losses must have the shape of norms ({rows},), got lists of different lengths") from None
    by_step = rows > 0 and array.ndim == 1 and len(array) > steps[-1]
    if array.shape != (rows,) and not by_step:
        raise ValueError(f"losses must have the shape of norms ({rows},), got {array.shape}")
    numbers = array.astype(float) if array.dtype.kind in "biuf" else filled(enumerate(array.tolist()), "losses")
    if numbers is None:  # all of them None
        return history
    return history._replace(losses=numbers if len(numbers) == rows else numbers[steps])


HOW = "choose one, by read_history(path, norm='...'), by giving its numbers alone, or on the command line by --norm"


def _array(data: object) -> np.ndarray:
    """An array, with None for masked entries: their data mean nothing."""
    return np.array(data.tolist(), object) if isinstance(data, np.ma.MaskedArray) else np.asarray(data)


def _from_numbers(data: object) -> History:
    try:
        array = _array(data)
    except ValueError:
        raise ValueError(
            "norms must be [steps], got lists of different lengths: several runs go to diagnose_runs"
        ) from None
    if array.ndim == 2:
        raise ValueError(
            f"norms must be [steps], got shape {array.shape}: give [runs, steps] to diagnose_runs, or one run, norms[i]"
        )
    if array.ndim != 1:
        raise ValueError(f"norms must be [steps], got shape {array.shape}")
    if array.dtype.kind in "USc" or array.dtype == bool:
        raise ValueError(f"norms must hold real numbers, got {array.dtype} like {array[:1].tolist()}")
    notes = ()
    steps = np.arange(len(array))
    if array.dtype == object:
        there = np.array([not missing(x) for x in array], bool)
        if not there.all():
            notes = (f"{(~there).sum()} steps without a norm (None) are left out",)
        steps, array = steps[there], np.array([number(x, "norms", i) for i, x in enumerate(array) if there[i]])
    return History(steps, array.astype(float), None, notes)


def _rows_of_columns(columns: Mapping[str, ArrayLike]) -> Rows:
    lists = {name: _array(column) for name, column in columns.items()}
    if any(column.ndim == 0 for column in lists.values()):
        raise ValueError(
            f"norms is one row of a log, with the keys {_brief(list(columns))}: collect the rows of all steps in a list"
        )
    sizes = {name: len(column) for name, column in lists.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"norms: the columns must have one length, got {sizes}")
    return [dict(zip(lists, values)) for values in zip(*(column.tolist() for column in lists.values()))]


def _column(kind: str, chosen: str | None, known: Sequence[str], names: Sequence[str]) -> str | None:
    """The column that is meant: the chosen one, else the first known name that is there."""
    if chosen is not None:
        if chosen not in names:
            raise ValueError(f"{kind} must be one of the log's columns {_brief(names)}, got {chosen!r}")
        return chosen
    plain = {name: re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") for name in names}
    for want in known:
        found = [name for name in names if plain[name] == want]
        found = found or [name for name in names if re.fullmatch(PREFIX + want, plain[name])]
        if len(found) > 1 and kind != "step":
            raise ValueError(f"{kind}: several columns could be meant, {found}: {HOW.replace('norm', kind)}")
        if found:
            return found[0]
    return None


def _brief(names: Sequence[str]) -> str:
    return str(list(names[:12]))[:-1] + (", ...]" if len(names) > 12 else "]")
