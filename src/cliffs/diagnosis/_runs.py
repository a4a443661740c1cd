"""Many runs at once: a diagnosis for each, and what they have in common."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cliffs.diagnosis._diagnose import diagnose
from cliffs.diagnosis._history import History, Log, Losses, as_history
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
) -> RunsDiagnosis:
    """`diagnose` for every run, and which runs share a finding.

    **Arguments**

    - `norms`: `[runs, steps]`, or one history or log for each run, of any lengths.
    - `max_norm`: the threshold in use, one number or `[runs]`.
    - `losses`: like `norms`.
    - `steps_run`: `[runs]`, how many steps each run did (`SweepResult.steps_run`); what comes later is padding. Without
      it the NaNs behind a run that ended early are read as a run that was lost.

    **Returns** a `RunsDiagnosis`; `print` it for a report, `.runs[i]` is the diagnosis of one run.

    **Raises** `ValueError` as `diagnose` does, with the run's index, and where the counts of runs differ.

    >>> norms = np.abs(np.random.default_rng(0).normal(1.0, 0.1, (3, 500)))
    >>> norms[2, 8:] = np.nan
    >>> diagnose_runs(norms).names()
    {'healthy': [0, 1], 'diverged': [2]}
    """
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
    for i, (run, limit, loss, length) in enumerate(per_run):
        try:
            history = as_history(run)
            if length is not None:
                rows = history.steps < int(length)
                cut = None if history.losses is None else history.losses[rows]
                history = History(history.steps[rows], history.norms[rows], cut, history.notes)
                loss = None if loss is None else np.asarray(loss)[: int(length)]
            found.append(diagnose(history, limit, loss))
        except ValueError as error:
            raise ValueError(f"run {i} of {len(runs)} (norms must have the run axis first): {error}") from None
    return RunsDiagnosis(found)


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
