"""Tables of a sweep's result: by the values of grid columns, as a pandas frame, as an xarray dataset."""

import collections
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._grid import is_key

if TYPE_CHECKING:
    import pandas
    import xarray


ENDS = ("solved_at", "diverged_at", "pruned_at", "steps_run")
# The names that tables have of their own; a column of the grid with one of them is called "grid/run".
OWN_NAMES = ("run", "updates", "update", "evaluation", *ENDS)


def last_values(result: Any) -> dict[str, np.ndarray]:
    """For every evaluation and metric that is one number: its last value, float `[runs]`, NaN where there is none.

    A metric that has the name of an evaluation is left out.
    """
    found = {}
    for history, filled in ((result.evaluations, result.evaluation_mask), (result.metrics, result.mask)):
        for name, values in named_leaves(history):
            if values.ndim == 2 and name not in found and np.issubdtype(_plain(values).dtype, np.floating):
                found[name] = _last(_plain(values), filled)
    return found


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Pairs such as `("aux/cosine", array)`; where two would have one name they are `"['a/b']"` and `"['a']['b']"`."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    count = collections.Counter(names)
    unique = [name if count[name] == 1 else jax.tree_util.keystr(path) for name, (path, _) in zip(names, flat)]
    return [(name, leaf) for name, (_, leaf) in zip(unique, flat)]


def success_table(result: Any, by: str | Sequence[str]) -> list[dict[str, float | None]]:
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


def table(result: Any, by: str | Sequence[str]) -> list[dict[str, float | None]]:
    """See `SweepResult.table`."""
    columns = last_values(result)
    rows = success_table(result, by)
    for row, (_, mine) in zip(rows, _groups(result, by)):
        for name, values in columns.items():
            values = values[mine & (result.diverged_at < 0)]
            row |= {k: v for k, v in _median(name, values[~np.isnan(values)]).items() if k not in row}
    return rows


def to_frame(result: Any, what: str) -> "pandas.DataFrame":
    """See `SweepResult.to_frame`."""
    import pandas

    columns = _labelled_columns(result)
    if what == "runs":
        data = {**columns, **_ends(result)}
        for name, values in last_values(result).items():
            data[name if name not in data else f"last/{name}"] = values
        return pandas.DataFrame(data).rename_axis("run")
    if what not in ("metrics", "evaluations"):
        raise ValueError(f"what must be 'runs', 'metrics' or 'evaluations', got {what!r}")
    history, filled, every = _history(result, what)
    run, place = np.nonzero(filled)
    data = {"run": run, "updates": (place + 1) * every, **{k: v[run] for k, v in columns.items()}}
    for name, values in named_leaves(history):
        if values.ndim == 2:
            data[name if name not in data else f"{what}/{name}"] = np.ma.getdata(values)[run, place]
    return pandas.DataFrame(data)


def to_xarray(result: Any) -> "xarray.Dataset":
    """See `SweepResult.to_xarray`."""
    import xarray

    coordinates: dict[str, Any] = {"run": np.arange(len(result))}
    coordinates |= {name: ("run", column) for name, column in _labelled_columns(result).items()}
    variables: dict[str, Any] = {name: ("run", values) for name, values in _ends(result).items()}
    for what, dimension in (("evaluations", "evaluation"), ("metrics", "update")):
        history, filled, every = _history(result, what)
        coordinates[dimension] = (np.arange(filled.shape[1]) + 1) * every
        for name, values in named_leaves(history):
            key = name if name not in {*variables, *coordinates} else f"{what}/{name}"
            extra = [f"{key}_{i}" for i in range(values.ndim - 2)]
            plain = values if np.iscomplexobj(values) else _plain(values)
            variables[key] = (["run", dimension, *extra], plain)
    attributes = {"num_steps": result.num_steps, "complete": int(result.complete), "notes": list(result.notes)}
    return xarray.Dataset(variables, coordinates, attributes)


def _history(result: Any, what: str) -> tuple[PyTree, np.ndarray, int]:
    if what == "metrics":
        return result.metrics, result.mask, result.record_every
    return result.evaluations, result.evaluation_mask, result.evaluate_every


def _grid_columns(result: Any) -> dict[str, np.ndarray]:
    """Columns of the grid that hold one number a run, by name."""
    return {name: x for name, x in named_leaves(result.grid) if not is_key(x) and np.ndim(x) == 1}


def _labelled_columns(result: Any) -> dict[str, np.ndarray]:
    return {f"grid/{k}" if k in OWN_NAMES else k: v for k, v in _grid_columns(result).items()}


def _ends(result: Any) -> dict[str, np.ndarray]:
    """How each run ended."""
    return {name: getattr(result, name) for name in ENDS if getattr(result, name) is not None}


def _groups(result: Any, by: str | Sequence[str]) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """For each combination of values that occurs, in rising order: the values, and which runs have them."""
    names = [by] if isinstance(by, str) else list(by)
    columns = _grid_columns(result)
    for name in names:
        if name not in columns:
            raise ValueError(f"by must name columns of the grid, which are {sorted(columns)}, got {name!r}")
        if np.iscomplexobj(columns[name]):
            raise ValueError(f"by must name columns of real numbers, which have an order: {name!r} is complex")
    rows = [tuple(columns[name][i].item() for name in names) for i in range(len(result))]
    ranks = [tuple(map(_rank, row)) for row in rows]
    for rank, values in sorted(dict(zip(ranks, rows)).items()):
        yield dict(zip(names, values)), np.array([rank == other for other in ranks])


def _rank(value: float) -> tuple[bool, float]:
    """Numbers in rising order; all NaNs are one value, behind the others."""
    missing = value != value
    return missing, 0.0 if missing else value


def _median(name: str, values: np.ndarray) -> dict[str, float | None]:
    from cliffs.stats import bootstrap_interval

    if len(values) == 0:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    low, high = bootstrap_interval(values, np.median)
    return {name: float(np.median(values)), f"{name}_low": float(low), f"{name}_high": float(high)}


def _plain(values: Any) -> np.ndarray:
    """Numbers as floats with NaN where they are masked; complex and others unchanged."""
    if isinstance(values, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(values), np.nan, np.ma.getdata(values).astype(float))
    return values if np.iscomplexobj(values) or values.dtype.kind == "f" else np.asarray(values, float)


def _last(values: np.ndarray, filled: np.ndarray) -> np.ndarray:
    counts = filled.sum(1)
    last = values[np.arange(len(values)), np.maximum(counts, 1) - 1] if values.shape[1] else np.zeros(len(values))
    return np.where(counts > 0, last, np.nan).astype(float)
