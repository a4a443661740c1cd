"""What a sweep leaves behind."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps import _tables
from cliffs.sweeps._files import jsonable, npz_bytes, pack, read_npz, replace_file, unpack
from cliffs.sweeps._grid import is_key

if TYPE_CHECKING:
    import pandas
    import xarray

FORMAT = 1
# What lies in the npz file; all else is in the JSON file.
_TREES = (
    "grid",
    "state",
    "metrics",
    "evaluations",
    "solved_at",
    "diverged_at",
    "steps_run",
    "pruned_at",
)


@dataclasses.dataclass(frozen=True, eq=False)
class SweepRun:
    """One run of a sweep, ready to go on with: `update(run.state, run.settings)`."""

    index: int
    settings: PyTree
    """Its entry of the grid."""
    state: PyTree
    """Its last state, as JAX arrays."""
    metrics: PyTree
    """Leaves `[records, ...]`, without empty entries; so are the `evaluations`."""
    evaluations: Mapping[str, PyTree]
    solved_at: int
    diverged_at: int
    steps_run: int
    pruned_at: int

    def __repr__(self) -> str:
        leaves = _tables.named_leaves(self.settings)
        settings = ", ".join(f"{name} {x:g}" if isinstance(x, np.floating) else f"{name} {x}" for name, x in leaves)
        ends = {"solved": self.solved_at, "diverged": self.diverged_at, "pruned": self.pruned_at}
        known = ", ".join([f"{self.steps_run} updates", *(f"{what} at {at}" for what, at in ends.items() if at >= 0)])
        return f"<SweepRun {self.index}: {settings or self.settings}; {known}>"


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep leaves behind; numpy arrays, run axis first, in the order of the grid.

    Entries of a history after the step at which its run ended are empty: NaN, and masked (`numpy.ma`) where the dtype
    has no NaN, so that no mean counts them. `mask` says which entries were computed.
    """

    grid: PyTree
    state: PyTree
    """The last states, leaves `[runs, ...]`."""
    metrics: PyTree
    """What `update` returned, leaves `[runs, records, ...]`, a record for every `record_every` updates; None in the
    place of a metric that was not asked for."""
    evaluations: Mapping[str, PyTree]
    """Leaves `[runs, evaluations, ...]`, one evaluation after every `evaluate_every` updates."""
    solved_at: np.ndarray
    """`[runs]`: number of updates at the first evaluation that called the run solved; -1 if none did."""
    diverged_at: np.ndarray
    """`[runs]`: the step whose loss or parameters were not finite; -1 if none was."""
    steps_run: np.ndarray
    """`[runs]`: how many updates were computed."""
    pruned_at: np.ndarray | None = None
    """`[runs]`: number of updates after which the run was pruned; -1 if it was not."""
    evaluate_every: int = 1
    record_every: int = 1
    num_steps: int = 0
    """Updates that were asked for."""
    complete: bool = True
    """Whether the sweep came to its end: False after Ctrl-C."""
    notes: tuple[str, ...] = ()
    """What a reader must know: an interruption, a checkpoint that could not be read."""

    def __repr__(self) -> str:
        parts = [f"{len(self)} runs, {'' if self.complete else 'interrupted, '}{self.num_steps} updates asked for"]
        for what in ("solved", "diverged", "pruned"):
            at = getattr(self, f"{what}_at")
            parts[0] += "" if at is None or (at < 0).all() else f", {(at >= 0).sum()} {what}"
        for what in ("grid", "metrics", "evaluations"):
            names = [f"{name} {list(x.shape)}" for name, x in _tables.named_leaves(getattr(self, what))]
            parts += [f"{what}: {', '.join(names)}"] if names else []
        return "<SweepResult of " + "\n  ".join([*parts, *self.notes]) + ">"

    def __len__(self) -> int:
        """The number of runs."""
        return len(self.steps_run)

    @property
    def mask(self) -> np.ndarray:
        """Bool `[runs, records]`: which entries of `metrics` were computed; the others are empty."""
        return _filled(self.metrics, self.steps_run // self.record_every)

    @property
    def evaluation_mask(self) -> np.ndarray:
        """Bool `[runs, evaluations]`: the same for `evaluations`."""
        return _filled(self.evaluations, self.steps_run // self.evaluate_every)

    def run(self, index: int) -> SweepRun:
        """One run: settings, state (as JAX arrays, keys as keys), history without empty entries.

        **Raises** `ValueError` for an index that is no run.
        """
        whole = hasattr(index, "__index__") and not isinstance(index, (bool, np.ndarray))
        if not whole or not -len(self) <= index < len(self):
            raise ValueError(f"index must be one of the {len(self)} runs, got {index!r}")
        i = range(len(self))[index]

        def part(x, count):
            return np.ma.getdata(x[i, :count]).copy()  # who writes into it does not change the result

        records, evaluations = self.mask[i].sum(), self.evaluation_mask[i].sum()
        return SweepRun(
            index=i,
            settings=jax.tree.map(lambda x: x[i] if is_key(x) else x[i].copy(), self.grid),
            state=jax.tree.map(lambda x: x[i] if is_key(x) else jnp.asarray(x[i]), self.state),
            metrics=jax.tree.map(lambda x: part(x, records), self.metrics),
            evaluations=jax.tree.map(lambda x: part(x, evaluations), self.evaluations),
            solved_at=int(self.solved_at[i]),
            diverged_at=int(self.diverged_at[i]),
            steps_run=int(self.steps_run[i]),
            pruned_at=-1 if self.pruned_at is None else int(self.pruned_at[i]),
        )

    def best(self, by: str | Callable[[SweepRun], float], *, largest: bool = False) -> SweepRun:
        """The run whose last value of `by` is smallest (or largest); diverged runs and NaN do not compete.

        **Arguments**: `by`, the name of an evaluation or of a metric (`"error"`, `"loss"`, `"aux/cosine"`;
        `"metrics/loss"` where an evaluation is called `loss`), or `solved_at` (runs that solved nothing do not
        compete), or a function of a `SweepRun`.

        **Raises** `ValueError` for an unknown name, for values that are no single numbers, or when no run competes.
        """
        if callable(by):
            values = np.array([_number(by(self.run(i)), i) for i in range(len(self))])
        elif by == "solved_at":
            values = np.where(self.solved_at >= 0, self.solved_at, np.nan)
        else:
            columns = _tables.last_values(self, ("solved_at",))
            if not isinstance(by, str) or by not in columns:
                raise ValueError(f"by must be a function, 'solved_at' or one of {sorted(columns)}, got {by!r}")
            values = columns[by]
        values = np.where(self.diverged_at >= 0, np.nan, values)
        if np.isnan(values).all():
            raise ValueError(f"no run has a value of {by!r}: {int((self.diverged_at >= 0).sum())} diverged")
        return self.run(int(np.nanargmax(values) if largest else np.nanargmin(values)))

    def success_table(self, by: str | Sequence[str]) -> list[dict[str, float | complex | None]]:
        """One row for each value of the grid columns `by`: how many of its runs solved the task, and when.

        Rows are in rising order with NaN, which counts as one value, at the end; complex values in the order of the
        grid. A column that has the name of one of the numbers below stands in its place.

        **Returns** dicts with the values of `by`, `runs`, `solved`, their share `success` with its Wilson interval
        `success_low`, `success_high` (95 %), `updates` (median of `solved_at` over the solved runs, None without one)
        with its bootstrap interval `updates_low`, `updates_high`, `diverged` and `pruned`.

        **Raises** `ValueError` for a name that is no column of the grid.
        """
        return _tables.success_table(self, by)

    def table(self, by: str | Sequence[str]) -> list[dict[str, float | complex | None]]:
        """The `success_table` with the median of the last value of every evaluation and metric.

        **Returns** its rows with `error`, `error_low`, `error_high` for an evaluation `error`: median over the runs
        that did not diverge, and the bootstrap interval of the median (95 %); None where there is no such run. Names
        that the row has already are `evaluations/error` or `metrics/error`.

        **Raises** `ValueError` for a name that is no column of the grid.
        """
        return _tables.table(self, by)

    def to_frame(self, what: str = "runs") -> "pandas.DataFrame":
        """A pandas frame of the runs, or of a history.

        `"runs"`: a row for each run with its last values. `"metrics"` and `"evaluations"`: a row for each entry of the
        history, with its run and its number of updates.

        A name that is taken gets in front of it where it is from: a column `run` of the grid is `grid/run`, a metric
        with the name of a column of the grid or of an evaluation `metrics/lr`.

        **Raises** `ValueError` for another `what`, `ModuleNotFoundError` without pandas.
        """
        return _tables.to_frame(self, what)

    def to_xarray(self) -> "xarray.Dataset":
        """An xarray dataset with the dimensions `run`, `update` and `evaluation`; the grid's columns are coordinates.

        Names that are taken become `grid/run`, `evaluations/lr`, `metrics/lr`, as in `to_frame`.

        **Raises** `ModuleNotFoundError` without xarray.
        """
        return _tables.to_xarray(self)

    def save(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write `path.npz` (arrays) and `path.json` (trees, settings, versions); read them with `load_sweep`.

        **Returns** the path without a suffix. Each file appears whole or not at all.
        """
        base = _base(path)
        arrays: dict[str, np.ndarray] = {}
        trees = {name: pack(getattr(self, name), name, arrays) for name in _TREES}
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _TREES}
        versions = {"jax": jax.__version__, "numpy": np.__version__}
        text = json.dumps(jsonable({"format": FORMAT, "versions": versions, "trees": trees, **fields}), indent=1)
        replace_file(base.with_name(base.name + ".npz"), npz_bytes(arrays))
        replace_file(base.with_name(base.name + ".json"), (text + "\n").encode())
        return base


def load_sweep(path: str | os.PathLike[str]) -> SweepResult:
    """What `SweepResult.save` wrote.

    Dicts, tuples, lists and NamedTuples of modules that are loaded come back as they were, typed keys too; other nodes
    of the state (dataclasses, FrozenDicts) as dicts.

    **Raises** `ValueError` that names the file when the two are no saved sweep or damaged, `FileNotFoundError` when one
    is missing.

    >>> import tempfile
    >>> none = np.array([-1])
    >>> result = SweepResult({"lr": np.array([0.1])}, {"w": np.ones(1)}, {}, {}, none, none, np.array([0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     load_sweep(result.save(folder + "/sweep")).grid
    {'lr': array([0.1])}
    """
    base = _base(path)
    text = base.with_name(base.name + ".json").read_bytes()
    try:
        record = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{base}.json is no saved sweep: {error}") from None
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise ValueError(f"{base}.json is no sweep of format {FORMAT}, got format {found!r}")
    with open(base.with_name(base.name + ".npz"), "rb") as file:
        arrays = read_npz(file)
    try:
        trees = {name: unpack(record["trees"][name], arrays) for name in _TREES}
        rest = {f.name: record[f.name] for f in dataclasses.fields(SweepResult) if f.name not in _TREES}
        return SweepResult(**trees, **{**rest, "notes": tuple(rest["notes"])})
    except Exception as error:  # whatever stands in a file that somebody else wrote
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{base}.json and {base}.npz are no saved sweep together ({reason})") from error


def _base(path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    return path.with_suffix("") if path.suffix in (".npz", ".json") else path


def _number(value: Any, run: int) -> float:
    array = np.asarray(value)
    if array.ndim or not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or np.iscomplexobj(array):
        found = f"an array of shape {array.shape}" if array.ndim else repr(value)
        raise ValueError(f"by must return one real number, got {found} for run {run}")
    return float(array)


def _filled(history: PyTree, counts: np.ndarray) -> np.ndarray:
    leaves = jax.tree.leaves(history)
    return np.arange(leaves[0].shape[1] if leaves else counts.max(initial=0)) < counts[:, None]
