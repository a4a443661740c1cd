"""Many runs at once: a diagnosis for each, and what they have in common."""

import math
from collections.abc import Mapping, Sequence, Sized
from numbers import Integral
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cliffs.diagnosis._diagnose import diagnose
from cliffs.diagnosis._history import History, Log, Losses, as_history, with_losses
from cliffs.diagnosis._records import Diagnosis


class RunsDiagnosis(NamedTuple):
    """What `diagnose_runs` returns."""

    runs: list[Diagnosis]

    def names(self) -> dict[str, list[int]]:
        """For each finding the runs that have it, the most frequent finding first."""
        found: dict[str, list[int]] = {}
        for i, run in enumerate(self.runs):
            for name in run.names():
                found.setdefault(name, []).append(i)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def __str__(self) -> str:
        lines = []
        for name, where in self.names().items():
            shown = ", ".join(map(str, where[:10])) + (", ..." if len(where) > 10 else "")
            advice = next(f.advice for f in self.runs[where[0]].findings if f.name == name)
            lines.append(f"{name}: {len(where)} of {len(self.runs)} runs ({shown}). Run {where[0]}: {advice}")
        suggested = [run.threshold.suggested for run in self.runs if run.threshold]
        if suggested:
            low, middle, high = np.percentile(suggested, [0, 50, 100])
            lines.append(f"threshold: median over runs {middle:.3g} (runs from {low:.3g} to {high:.3g})")
        return "\n".join(lines)


def diagnose_runs(
    norms: ArrayLike | Sequence[Log],
    max_norm: ArrayLike | None = None,
    losses: ArrayLike | Sequence[Losses] | None = None,
    steps_run: ArrayLike | None = None,
    record_every: int = 1,
) -> RunsDiagnosis:
    """`diagnose` for every run, and which runs share a finding.

    **Arguments**

    - `norms`: `[runs, steps]`, or one history or log for each run, of any lengths.
    - `max_norm`: the threshold in use, one number or `[runs]`.
    - `losses`: like `norms`.
    - `steps_run`: `[runs]`, how many updates each run did (`SweepResult.steps_run`); what comes later is padding.
      Without it the NaNs behind a run that ended early are read as a run that was lost.
    - `record_every`: updates that share one column of `norms`, as in `sweep` (`SweepResult.record_every`): column `k`
      is complete after `(k + 1) * record_every` updates, and its step is the last of them. Logs and histories have
      steps of their own.

    **Returns** a `RunsDiagnosis`; `print` it for a report, `.runs[i]` is the diagnosis of one run.

    **Raises** `ValueError` as `diagnose` does, with the run's index, where the counts of runs differ, and for
    `steps_run` beyond the columns.

    >>> norms = np.abs(np.random.default_rng(0).normal(1.0, 0.1, (3, 500)))
    >>> norms[2, 8:] = np.nan
    >>> diagnose_runs(norms).names()
    {'healthy': [0, 1], 'diverged': [2]}
    >>> norms[1, 250:] = np.nan
    >>> diagnose_runs(norms, steps_run=[1000, 500, 1000], record_every=2).names()
    {'healthy': [0, 1], 'diverged': [2]}
    """
    if isinstance(record_every, bool) or not isinstance(record_every, Integral) or record_every < 1:
        raise ValueError(f"record_every must be a positive integer, got {record_every!r}")
    runs = list(norms) if np.iterable(norms) and not isinstance(norms, Mapping | str) else []
    if not runs or all(_is_one_step(run) for run in runs):
        raise ValueError("norms must be [runs, steps] or a list of histories: a single run goes to diagnose")
    per_run = zip(
        runs,
        _each("max_norm", max_norm, len(runs)),
        _each("losses", losses, len(runs)),
        _each("steps_run", steps_run, len(runs)),
    )
    found = []
    for i, (run, limit, loss, updates) in enumerate(per_run):
        try:
            run = run if isinstance(run, Sized) else list(run)  # pyright: ignore
            history = as_history(run)
            history = history if loss is None else with_losses(history, loss)
            if _is_columns(run):
                history = history._replace(steps=(history.steps + 1) * record_every - 1)
            if updates is not None:
                history = _cut(history, _count(updates), len(run) if _is_columns(run) else None, record_every)
            found.append(diagnose(history, limit))
        except ValueError as error:
            raise ValueError(f"run {i} of {len(runs)} (norms must have the run axis first): {error}") from None
    return RunsDiagnosis(found)


def _is_columns(run: object) -> bool:
    """Whether a run is norms by column, and no log with steps of its own."""
    if isinstance(run, History | Mapping) or hasattr(run, "columns"):
        return False
    return hasattr(run, "dtype") or not any(isinstance(row, Mapping) for row in run)  # pyright: ignore


def _count(updates: object) -> int:
    try:
        count = float(updates)  # pyright: ignore
    except (TypeError, ValueError):
        count = math.nan
    if not (count >= 0 and count.is_integer()):
        raise ValueError(f"steps_run must hold numbers of updates, got {updates!r}")
    return int(count)


def _cut(history: History, updates: int, columns: int | None, record_every: int) -> History:
    """The history of the first `updates`; None columns for a log."""
    if columns is not None and updates // record_every > columns:
        raise ValueError(
            f"steps_run must not exceed the {columns * record_every} updates in norms ({columns} columns, "
            f"record_every={record_every}), got {updates}: give the record_every of the sweep"
        )
    rows = history.steps < updates
    losses = None if history.losses is None else history.losses[rows]
    return History(history.steps[rows], history.norms[rows], losses, history.notes)


def _is_one_step(run: object) -> bool:
    if isinstance(run, Mapping):
        return all(np.ndim(value) == 0 for value in run.values())
    return not isinstance(run, History) and np.ndim(run) == 0  # pyright: ignore


def _each(name: str, values: object, count: int) -> list:
    """One value for each run."""
    if values is None or np.ndim(values) == 0:  # pyright: ignore
        return [values] * count
    values = list(values)  # pyright: ignore
    if len(values) != count:
        raise ValueError(f"{name} must have one entry for each of the {count} runs, got {len(values)}")
    return values
