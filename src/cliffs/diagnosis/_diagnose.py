"""Reads a history of gradient norms the way a practitioner's table does: finding, evidence, advice.

Plain numpy on the host, for norms from any framework; robust statistics throughout (medians, median absolute
deviations, Theil-Sen slopes), so that a few spikes do not decide about the trend nor the trend about the spikes.
"""

import math

import numpy as np

from cliffs.diagnosis._history import History, Log, Losses, as_history, with_losses
from cliffs.diagnosis._records import Diagnosis, Finding
from cliffs.diagnosis._robust import fell_by_half, last_stretch, refuse_negative
from cliffs.diagnosis._shape import shape_in_time
from cliffs.diagnosis._symptoms import broken_from, clipped, diverged, loss_grew, nonfinite, zeros
from cliffs.diagnosis._threshold import MIN_STEPS, suggest_threshold

VERDICT_STEPS = 100
RARE_SPIKE_STEPS = 300

ADVICE = {
    "threshold too low": (
        "Almost every step is clipped, so the threshold acts as a learning rate: raise it to the suggested value, or "
        "keep it knowingly as normalised SGD."
    ),
    "threshold never binds": "No norm came near the threshold: it protects, but only from far larger spikes; lower it.",
    "too short to tell": (
        f"Nothing stands out, but this history is too short for a verdict: that takes {VERDICT_STEPS} steps, and "
        f"{RARE_SPIKE_STEPS} to see spikes that come once in 100 steps; a trend shows in the whole run only."
    ),
    "healthy": "Nothing to mend: a threshold a few times the average norm costs nothing and guards against cliffs.",
}


def diagnose(norms: Log, max_norm: float | None = None, losses: Losses | None = None) -> Diagnosis:
    """What a history of gradient norms means, with evidence and the advised fix.

    With `x_t = log10 norm_t` (finite, positive norms), trend `s` = Theil-Sen slope of `x` in decades over the whole
    run, and `r_t = x_t - running median`:

    - *diverged*: norm or loss is not finite from some step to the end, and that for at least 3 steps and 1 % of the
      run, or after the norm grew by 2 decades; the evidence says from where to where it grew;
    - *non-finite*: any other inf or NaN; all of them are left out of everything else;
    - *zero gradients*: exactly 0 everywhere, from some step to the end, or in 1 % of the steps; left out of the rest;
    - *loss grew*: the loss ends at least 3 times above its first value (for losses that start above 0); of losses that
      are not finite, only those to the end of the run count (*diverged*), all others are left out;
    - *clipped norms*: many steps share the largest norm, as norms after clipping do;
    - *vanishing*: the last tenth's median is at least 3 decades below the first's, or the median is below 1e-7;
      with losses, only while the loss has not fallen by half (a norm that dies with its loss has converged);
    - *sudden explosion*: the first norm lies 2 decades below the rest, and at most a tenth of the steps 1 decade below;
    - *slow explosion*: the trend gains at least 1 decade, and the last quarter's median is 5 times the first's; or the
      run ends above 10 times its median for at least 2 % of the steps;
    - *cliff spikes*: norms above 10 times the running median and 6 robust deviations, in at most 10 % of the steps;
      those of the start of training (three and more first norms above twice the later level) are no spikes;
    - *oscillation near critical*: the bulk, not the tail, swings: a robust deviation of `r_t` of at least 0.5 decades,
      or more spikes than that, or, without any trend, 1 decade between the 5th and the 95th percentile;
    - with `max_norm`: *threshold too low* (clips more than half of the steps), *threshold never binds*
      (above 10 times the largest norm);
    - none of these: *healthy* from 100 steps on, *too short to tell* below.

    How much history a verdict needs: where no spike is seen in `n` steps, at 95 % confidence they come less often than
    once in `n / 3` steps. So 300 steps rule out spikes at 1 % of the steps. `notes` says so where `n` is smaller, and
    where the log holds only every k-th step.

    **Arguments**

    - `norms`: norms *before* clipping: `[steps]`; or a log: a list of dicts as loggers keep it or `read_telemetry`
      gives, a dict of columns, a data frame, or what `read_history` returned. At least 20 steps, or a run that ended
      in infs or NaNs. Steps without a norm (None) are left out, and rows of evaluations, also where a data frame has
      NaN in their empty cells; a NaN beside a loss is a lost gradient, unless
      most rows are so. Cut off padding behind the end of a run.
    - `max_norm`: the threshold in use, if any; `inf` is none.
    - `losses`: `[steps]`, to tell convergence from vanishing and to say how often a spike was followed by a jump;
      those of the log when not given. A missing one (None) is the last before it.

    **Returns** a `Diagnosis`; `print` it for a report. For a run that explodes the threshold is computed from the norms
    before the explosion, or from the first quarter where the norm grows over the whole run.

    **Raises** `ValueError` for a history that is too short, of another shape (`[runs, steps]` goes to `diagnose_runs`),
    negative, or of another length than `losses`, for a log in which no column, or more than one, can be taken for the
    norm, and for a `max_norm` that is not positive.

    Source: common teaching tables of symptoms; the rule of three for rare events (Hanley & Lippman-Hand 1983). The
    limits are this function's own and tested on synthetic series.

    >>> history = np.abs(np.random.default_rng(0).normal(1.0, 0.1, 500))
    >>> history[[100, 300]] = 400.0
    >>> result = diagnose(history)
    >>> result.names(), result.findings[0].evidence["steps"]
    (['cliff spikes'], [100, 300])
    >>> lost = diagnose(np.r_[10.0 ** np.arange(8), np.full(50, np.nan)])
    >>> lost.names(), lost.findings[0].evidence["step"], lost.findings[0].evidence["decades_grown"]
    (['diverged'], 8, 7.0)
    """
    history, max_norm = _check(as_history(norms), max_norm, losses)
    start = broken_from(history.norms, history.losses)
    lost = diverged(history.norms, start, history.steps)
    if lost is None:
        start = len(history.norms)
    grew = None if lost else loss_grew(history.losses, history.steps)
    learned = not (lost or grew) and history.losses is not None and fell_by_half(history.losses)
    symptoms = (
        lost,
        nonfinite(history.norms, start, history.steps),
        zeros(history.norms[:start], history.steps, learned),
    )
    findings = [finding for finding in symptoms if finding is not None]

    at = np.flatnonzero(np.isfinite(history.norms[:start]) & (history.norms[:start] > 0))
    if lost is not None:  # the way up belongs to the divergence
        logs = np.log10(history.norms[at])
        at = at[: len(at) - last_stretch(logs > np.median(logs) + 1)]
    good, threshold, notes = history.norms[at], None, list(history.notes)
    if len(good) >= MIN_STEPS:
        ceiling = clipped(good, max_norm)
        shape = shape_in_time(history, at, learned)
        findings += [*([ceiling] if ceiling else []), *shape.findings]
        notes += shape.notes
        if grew is not None or shape.usual < MIN_STEPS:
            notes.append("no threshold is suggested from the norms of a place that the run should not have come to")
        elif ceiling is None:
            threshold = suggest_threshold(good[: shape.usual])
            threshold = threshold._replace(clip_fraction=float((good > threshold.suggested).mean()))
        if max_norm is not None and grew is None:
            findings += _threshold_in_use(good, max_norm, ceiling)
    if grew is not None:
        findings.append(grew)
    if not findings:
        findings.append(_nothing_found(good))
    return Diagnosis(
        findings=findings,
        threshold=threshold,
        nonfinite_steps=history.steps[~np.isfinite(history.norms)],
        notes=(*notes, *_limits(history, findings, len(good))),
    )


def _threshold_in_use(good: np.ndarray, max_norm: float, ceiling: Finding | None) -> list[Finding]:
    # Norms after clipping touch the threshold where those before were above it.
    share = float((good > max_norm).mean()) if ceiling is None else float((good >= max_norm * (1 - 1e-3)).mean())
    if share > 0.5:
        evidence = {"clip_fraction": share, "median_to_threshold": float(np.median(good) / max_norm)}
        return [Finding("threshold too low", evidence, ADVICE["threshold too low"])]
    if max_norm > 10 * good.max():
        evidence = {"threshold_to_largest": float(max_norm / good.max())}
        return [Finding("threshold never binds", evidence, ADVICE["threshold never binds"])]
    return []


def _nothing_found(good: np.ndarray) -> Finding:
    evidence: dict[str, float | int] = {"steps": len(good)}
    if len(good) < VERDICT_STEPS:
        return Finding("too short to tell", evidence | {"needed": VERDICT_STEPS}, ADVICE["too short to tell"])
    median = float(np.median(good))
    evidence |= {"median_norm": median, "largest_to_median": float(good.max() / median)}
    return Finding("healthy", evidence | {"spikes_rarer_than": 3 / len(good)}, ADVICE["healthy"])


def _limits(history: History, findings: list[Finding], usable: int) -> list[str]:
    notes = []
    if MIN_STEPS <= usable < RARE_SPIKE_STEPS and all(
        f.name not in ("cliff spikes", "too short to tell") for f in findings
    ):
        notes.append(
            f"{usable} usable norms show a spike that comes once in {max(usable // 3, 1)} steps or more often; "
            f"{RARE_SPIKE_STEPS} show one in 100"
        )
    every = int(np.median(np.diff(history.steps))) if len(history.steps) > 1 else 1
    if every > 1:
        notes.append(f"the log holds every {every}th step only: most spikes between them are not in it")
    return notes


def _check(history: History, max_norm: float | None, losses: Losses | None) -> tuple[History, float | None]:
    norms, rows = history.norms, len(history.norms)
    refuse_negative(norms)
    if losses is not None:
        history = with_losses(history, losses)
    ended = rows > 0 and not np.isfinite(norms[-1])
    if rows < MIN_STEPS and not ended:
        raise ValueError(f"norms must be [steps] with at least {MIN_STEPS} steps, got {rows} with a norm")
    if max_norm is not None:
        if isinstance(max_norm, str) or np.ndim(max_norm) or not max_norm > 0:
            raise ValueError(f"max_norm must be a positive number, got {max_norm!r}")
        max_norm = None if math.isinf(max_norm) else float(max_norm)
    return history, max_norm
