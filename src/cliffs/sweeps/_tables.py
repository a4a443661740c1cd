"""Tables of a sweep's result: by the values of grid columns, as a pandas frame, as an xarray dataset.

A name that is taken already gets in front of it where its numbers are from: `grid/run`, `evaluations/lr`, `metrics/lr`.
The numbers of the sweep itself come first, then the grid, the evaluations and the metrics.
"""

import math
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._grid import is_key

if TYPE_CHECKING:
    import pandas
    import xarray

_ENDS = ("solved_at", "diverged_at", "pruned_at", "steps_run")
_INTERVAL = ("", "_low", "_high")


def last_values(result: Any, taken: Iterable[str] = (), endings: Sequence[str] = ("",)) -> dict[str, np.ndarray]:
    """For every evaluation and metric that is one number: its last value, float `[runs]`, NaN where there is none.

    A name goes around those that are `taken`, with each of the `endings`.
    """
    found: dict[str, np.ndarray] = {}
    used: set[str] = set()
    for what in ("evaluations", "metrics"):
        history, filled, _ = _history(result, what)
        for name, values in named_leaves(history):
            if values.ndim == 2 and np.issubdtype(_plain(values).dtype, np.floating):
                name = _free(name, what, {*taken, *used}, endings)
                used |= {name + end for end in endings}
                found[name] = _last(_plain(values), filled)
    return found


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Pairs such as `("aux/cosine", array)`."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def success_table(result: Any, by: str | Sequence[str]) -> list[dict[str, float | complex | None]]:
    """See `SweepResult.success_table`."""
    from cliffs.stats import wilson_interval

    table = []
    for values, mine in _groups(result, by):
        solved_at = result.solved_at[mine]
        solved_at = solved_at[solved_at >= 0]
        runs, solved = int(mine.sum()), len(solved_at)
        low, high = wilson_interval(solved, runs)
        pruned = 0 if result.pruned_at is None else int((result.pruned_at[mine] >= 0).sum())
        rates = {"success": solved / runs, "success_low": float(low), "success_high": float(high)}
        ends = {"diverged": int((result.diverged_at[mine] >= 0).sum()), "pruned": pruned}
        row = {"runs": runs, "solved": solved, **rates, **_median("updates", solved_at), **ends}
        table.append({**values, **row, **values})  # values first, also where a column has the name of a number
    return table


def table(result: Any, by: str | Sequence[str]) -> list[dict[str, float | complex | None]]:
    """See `SweepResult.table`."""
    rows = success_table(result, by)
    columns = last_values(result, set().union(*rows), _INTERVAL)
    for row, (_, mine) in zip(rows, _groups(result, by)):
        for name, values in columns.items():
            values = values[mine & (result.diverged_at < 0)]
            row |= _median(name, values[~np.isnan(values)])
    return rows


def to_frame(result: Any, what: str) -> "pandas.DataFrame":
    """See `SweepResult.to_frame`."""
    import pandas

    if what == "runs":
        columns = _grid_columns(result, ("run", *_ENDS))
        ends = {name: getattr(result, name) for name in _ENDS}
        data = {**columns, **{k: v for k, v in ends.items() if v is not None}}
        data |= last_values(result, {"run", *_ENDS, *data})
        return pandas.DataFrame(data).rename_axis("run")
    if what not in ("metrics", "evaluations"):
        raise ValueError(f"what must be 'runs', 'metrics' or 'evaluations', got {what!r}")
    history, filled, every = _history(result, what)
    run, place = np.nonzero(filled)
    data = {"run": run, "updates": (place + 1) * every}
    data |= {name: column[run] for name, column in _grid_columns(result, data).items()}
    for name, values in named_leaves(history):
        if values.ndim == 2:
            data[_free(name, what, data)] = np.ma.getdata(values)[run, place]
    return pandas.DataFrame(data)


def to_xarray(result: Any) -> "xarray.Dataset":
    """See `SweepResult.to_xarray`."""
    import xarray

    taken = {"run", "update", "evaluation", *_ENDS}
    coordinates: dict[str, Any] = {"run": np.arange(len(result))}
    coordinates |= {name: ("run", column) for name, column in _grid_columns(result, taken).items()}
    variables: dict[str, Any] = {name: ("run", getattr(result, name)) for name in _ENDS}
    variables = {name: column for name, column in variables.items() if column[1] is not None}
    taken |= {*coordinates}
    for what, dimension in (("evaluations", "evaluation"), ("metrics", "update")):
        history, filled, every = _history(result, what)
        coordinates[dimension] = (np.arange(filled.shape[1]) + 1) * every
        for name, values in named_leaves(history):
            key = _free(name, what, taken)
            taken.add(key)
            extra = [_free(f"{key}_{i}", what, taken) for i in range(values.ndim - 2)]
            taken |= {*extra}
            plain = values if np.iscomplexobj(values) else _plain(values)
            variables[key] = (["run", dimension, *extra], plain)
    attributes = {"num_steps": result.num_steps, "complete": int(result.complete), "notes": list(result.notes)}
    return xarray.Dataset(variables, coordinates, attributes)


def _history(result: Any, what: str) -> tuple[PyTree, np.ndarray, int]:
    if what == "metrics":
        return result.metrics, result.mask, result.record_every
    return result.evaluations, result.evaluation_mask, result.evaluate_every


def _grid_columns(result: Any, taken: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Columns of the grid that hold one number a run, by name; names go around those that are `taken`."""
    found: dict[str, np.ndarray] = {}
    for name, x in named_leaves(result.grid):
        if not is_key(x) and np.ndim(x) == 1:
            found[_free(name, "grid", {*taken, *found})] = x
    return found


def _free(name: str, what: str, taken: Container[str], endings: Sequence[str] = ("",)) -> str:
    """The name, with `what` in front of it where the name, with one of the endings, is taken."""
    while any(name + end in taken for end in endings):
        name = f"{what}/{name}"
    return name


def _groups(result: Any, by: str | Sequence[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """For each combination of values that occurs: the values, and which runs have them.

    In rising order with NaN, which counts as one value, at the end; complex numbers as they come.
    """
    columns = _grid_columns(result)
    names = list(by) if isinstance(by, Iterable) and not isinstance(by, str) else [by]
    for name in names:
        if not isinstance(name, str) or name not in columns:
            raise ValueError(f"by must name columns of the grid, which are {sorted(columns)}, got {name!r}")
    groups: dict[tuple[Any, ...], list[int]] = {}
    for i in range(len(result)):
        found = (columns[name][i].item() for name in names)
        # One object for all NaN: as a part of a tuple it is then equal to itself.
        groups.setdefault(tuple(math.nan if value != value else value for value in found), []).append(i)
    for values in sorted(groups, key=lambda values: [_place(value) for value in values]):
        mine = np.zeros(len(result), bool)
        mine[groups[values]] = True
        yield dict(zip(names, values)), mine


def _place(value: Any) -> tuple[bool, Any]:
    """What decides the place of a value in rising order."""
    return value != value, 0 if value != value or isinstance(value, complex) else value


def _median(name: str, values: np.ndarray) -> dict[str, float | None]:
    from cliffs.stats import bootstrap_interval

    found: Sequence[float | None] = (None, None, None)
    if len(values):
        low, high = bootstrap_interval(values, np.median)
        found = (float(np.median(values)), float(low), float(high))
    return {name + end: value for end, value in zip(_INTERVAL, found)}


def _plain(values: Any) -> np.ndarray:
    """Numbers as floats with NaN where they are masked; complex and others unchanged."""
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.nan, np.ma.getdata(values).astype(float))
    return values if np.iscomplexobj(values) or values.dtype.kind == "f" else np.asarray(values, float)


def _last(values: np.ndarray, filled: np.ndarray) -> np.ndarray:
    counts = filled.sum(1)
    last = values[np.arange(len(values)), np.maximum(counts, 1) - 1] if values.shape[1] else np.zeros(len(values))
    return np.where(counts > 0, last, np.nan).astype(float)
