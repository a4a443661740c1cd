"""Reads a history of gradient norms the way a practitioner's table does: finding, evidence, advice.

Plain numpy on the host, for norms from any framework; robust statistics throughout (medians, median absolute
deviations, Theil-Sen slopes), so that a few spikes do not decide about the trend nor the trend about the spikes.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from cliffs.diagnosis._history import History, Log, as_history
from cliffs.diagnosis._records import Diagnosis, Evidence, Finding
from cliffs.diagnosis._robust import (
    deviation,
    fell_by_half,
    first_stretch,
    last_stretch,
    loss_jumps,
    running_median,
    theil_sen,
)
from cliffs.diagnosis._symptoms import broken_from, clipped, diverged, loss_grew, nonfinite, zeros
from cliffs.diagnosis._threshold import MIN_STEPS, start_of_training, suggest_threshold

VERDICT_STEPS = 100
RARE_SPIKE_STEPS = 300

ADVICE = {
    "vanishing": (
        "Gradients shrink to nothing and clipping cannot help: raise the spectral radius at the start (orthogonal or "
        "identity initialisation), use gated cells, or add the vanishing-gradient penalty Omega."
    ),
    "cliff spikes": (
        "Rare walls in the error surface: clip by the global norm near the suggested threshold, or by clip_by_zscore "
        "or clip_by_ema_norm(update='clipped') when the scale of the norm drifts."
    ),
    "slow explosion": (
        "The norm grows steadily: lower the learning rate or warm it up, constrain the recurrent matrix "
        "(project_spectral_radius, L2), and clip meanwhile; an adaptive threshold would follow the growth."
    ),
    "oscillation near critical": (
        "The norm swings over decades from step to step, as on the edge of instability: clip by the global norm, "
        "lower the learning rate, or keep the spectral radius a little below 1."
    ),
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


def diagnose(norms: Log, max_norm: float | None = None, losses: ArrayLike | None = None) -> Diagnosis:
    """What a history of gradient norms means, with evidence and the advised fix.

    With `x_t = log10 norm_t` (finite, positive norms), trend `s` = Theil-Sen slope of `x` in decades over the whole
    run, and `r_t = x_t - running median`:

    - *diverged*: norm or loss is not finite from some step to the end, and that for at least 3 steps and 1 % of the
      run, or after the norm grew by 2 decades; the evidence says from where to where it grew;
    - *non-finite*: any other inf or NaN; all of them are left out of everything else;
    - *zero gradients*: exactly 0 everywhere, from some step to the end, or in 1 % of the steps; left out of the rest;
    - *loss grew*: the loss ends at least 3 times above its first value (losses from a positive one on);
    - *clipped norms*: many steps share the largest norm, as norms after clipping do;
    - *vanishing*: the last tenth's median is at least 3 decades below the first's, or the median is below 1e-7;
      with losses, only while the loss has not fallen by half (a norm that dies with its loss has converged);
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
      in infs or NaNs. Steps without a norm (None) are left out; cut off padding behind the end of a run.
    - `max_norm`: the threshold in use, if any; `inf` is none.
    - `losses`: `[steps]`, to tell convergence from vanishing and to say how often a spike was followed by a jump;
      those of the log when not given.

    **Returns** a `Diagnosis`; `print` it for a report.

    **Raises** `ValueError` for a history that is too short, of another shape (`[runs, steps]` goes to
    `diagnose_runs`), negative, or of another length than `losses`, for a log in which no column, or more than one,
    is known to be the norm, and for a `max_norm` that is not positive.

    Source: the lessons' table of symptoms; the rule of three for rare events (Hanley & Lippman-Hand 1983). The limits
    are this function's own and tested on synthetic series.

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
    learned = lost is None and history.losses is not None and fell_by_half(history.losses)
    symptoms = (
        lost,
        nonfinite(history.norms, start, history.steps),
        zeros(history.norms[:start], history.steps, learned),
    )
    findings = [finding for finding in symptoms if finding is not None]
    grew = None if lost else loss_grew(history.losses, history.steps)

    at = np.flatnonzero(np.isfinite(history.norms[:start]) & (history.norms[:start] > 0))
    if lost is not None:  # the way up belongs to the divergence
        logs = np.log10(history.norms[at])
        at = at[: len(at) - last_stretch(logs > np.median(logs) + 1)]
    good, threshold, notes = history.norms[at], None, list(history.notes)
    if len(good) >= MIN_STEPS:
        ceiling = clipped(good, max_norm)
        if ceiling is not None:
            findings.append(ceiling)
        elif grew is not None:
            notes.append("no threshold is suggested from the norms of a place that the run should not have come to")
        else:
            threshold = suggest_threshold(good)
        found, more = _shape_in_time(history, at, learned)
        findings += found
        notes += more
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


def _shape_in_time(history: History, at: np.ndarray, learned: bool) -> tuple[list[Finding], list[str]]:
    """Vanishing, explosion, spikes and oscillation of the finite, positive norms, which are at rows `at`."""
    findings: list[Finding] = []
    notes: list[str] = []

    def add(name: str, evidence: Evidence) -> None:
        findings.append(Finding(name, evidence, ADVICE[name]))

    x = np.log10(history.norms[at])
    rest = x - running_median(x)
    spread = deviation(rest)
    gain = theil_sen(x) * (len(x) - 1)
    tenth, quarter = max(len(x) // 10, 1), max(len(x) // 4, 1)
    middle, first, last = np.median(x), np.median(x[:tenth]), np.median(x[-tenth:])
    fall = float(first - last)
    growth = float(np.median(x[-quarter:]) - np.median(x[:quarter]))
    if (fall >= 3 or middle < -7) and not learned:
        lost = {"decades_lost": fall, "median_norm": float(10**middle), "last_norm": float(10**last)}
        add("vanishing", lost)
    high_end = last_stretch(x > middle + 1)
    explodes = gain >= 1 and growth >= math.log10(5)
    blown = not explodes and high_end >= max(3, 0.02 * len(x))
    if explodes or blown:
        end = float(10 ** (np.median(x[-high_end:]) - middle)) if blown else 10**growth
        add("slow explosion", {"decades_gained": float(gain), "last_to_first": end})
    spikes = (rest > 1) & (rest > 6 * spread)
    if blown:
        spikes[len(x) - high_end :] = False
    many = spikes.mean() > 0.1
    beginning = start_of_training(x)
    if many or not 3 <= beginning <= len(x) // 2:  # one or two large first norms are spikes like others
        beginning = 0
    else:
        # A spike among the first norms stands out from those, too.
        spikes[:beginning] &= x[:beginning] > np.median(x[:beginning]) + 1
        spikes[: first_stretch(spikes)] = False
        times = 10 ** (x[:beginning].max() - np.median(x[beginning:]))
        notes.append(
            f"the first {beginning} norms, up to {times:.3g} times the rest, are taken for the start of training"
        )
    low_start = first_stretch(x < middle - 1)
    if 0 < low_start <= len(x) // 10:
        times = 10 ** (middle - x[:low_start].max())
        notes.append(
            f"the first {low_start} norms are {times:.3g} times below the rest: see whether the loss rose there"
        )
    trend = explodes or blown or abs(fall) >= 1
    bulk = x if many else x[beginning:][~spikes[beginning:]]
    low, high = np.percentile(bulk, [5, 95])
    if spikes.any() and not many:
        found = at[spikes]
        evidence: dict[str, float | int | list[int]] = {
            "count": len(found),
            "steps": history.steps[found[:20]].tolist(),
            "largest_ratio": float(10 ** rest[spikes].max()),
        }
        if history.losses is not None:
            evidence["followed_by_loss_jump"] = loss_jumps(history.losses, found)
        add("cliff spikes", evidence)
    if spread >= 0.5 or many or (not trend and high - low >= 1):
        swing = {"decades_of_deviation": spread, "share_of_spikes": float(spikes.mean())}
        swing["percentiles_95_to_5"] = float(10 ** (high - low))
        add("oscillation near critical", swing)
    return findings, notes


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


def _check(history: History, max_norm: float | None, losses: ArrayLike | None) -> tuple[History, float | None]:
    norms, rows = history.norms, len(history.norms)
    if (norms < 0).any():
        raise ValueError(f"norms must not be negative, got {np.nanmin(norms)}")
    if losses is not None:
        losses = np.asarray(losses, float)
        if losses.shape == norms.shape:
            history = history._replace(losses=losses)
        elif losses.ndim == 1 and len(history.steps) and len(losses) > history.steps[-1]:
            history = history._replace(losses=losses[history.steps])  # some steps had no norm
        else:
            raise ValueError(f"losses must have the shape of norms {norms.shape}, got {losses.shape}")
    ended = rows > 0 and not np.isfinite(norms[-1])
    if rows < MIN_STEPS and not ended:
        raise ValueError(f"norms must be [steps] with at least {MIN_STEPS} steps, got {rows} with a norm")
    if max_norm is not None:
        if isinstance(max_norm, str) or np.ndim(max_norm) or not max_norm > 0:
            raise ValueError(f"max_norm must be a positive number, got {max_norm!r}")
        max_norm = None if math.isinf(max_norm) else float(max_norm)
    return history, max_norm
