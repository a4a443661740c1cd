"""Reads a history of gradient norms the way a practitioner's table does: finding, evidence, advice.

Plain numpy on the host, for norms from any framework; robust statistics throughout (medians, median absolute
deviations, Theil-Sen slopes), so that a few spikes do not decide about the trend nor the trend about the spikes.
"""

import math
from typing import Any, NamedTuple

import numpy as np

MIN_STEPS = 20


class Finding(NamedTuple):
    """One line of a diagnosis."""

    name: str
    """`"vanishing"`, `"cliff spikes"`, `"slow explosion"`, `"oscillation near critical"`, `"non-finite"`,
    `"threshold too low"`, `"threshold never binds"`, or `"healthy"`."""
    evidence: dict[str, Any]
    """Steps (indices into the history) and ratios that speak for it."""
    advice: str


class Threshold(NamedTuple):
    """A suggested clipping threshold, from the statistics of the norm."""

    suggested: float
    low: float
    """Half the average norm."""
    high: float
    """Ten times the average norm."""
    mean: float
    """The average norm without its largest 1 %."""
    median: float
    clip_fraction: float
    """The share of the finite norms above `suggested`."""


class Diagnosis(NamedTuple):
    """What `diagnose` returns."""

    findings: list[Finding]
    threshold: Threshold | None
    """None where fewer than 20 norms are finite and positive."""
    nonfinite_steps: np.ndarray

    def names(self) -> list[str]:
        """The names of all findings."""
        return [finding.name for finding in self.findings]

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            evidence = ", ".join(f"{k} {_brief(v)}" for k, v in finding.evidence.items())
            lines.append(f"{finding.name}: {finding.advice} [{evidence}]")
        if self.threshold:
            t = self.threshold
            lines.append(
                f"threshold: {t.suggested:.3g} (range {t.low:.3g} .. {t.high:.3g}) clips {t.clip_fraction:.1%}"
            )
        return "\n".join(lines)


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
    "non-finite": (
        "Some gradients hold an inf or a NaN: use nonfinite='skip', look at those steps' batches and at the loss "
        "scale, and clip before it comes to that."
    ),
    "threshold too low": (
        "Almost every step is clipped, so the threshold acts as a learning rate: raise it to the suggested value, or "
        "keep it knowingly as normalised SGD."
    ),
    "threshold never binds": "No norm came near the threshold: it protects, but only from far larger spikes; lower it.",
    "healthy": "Nothing to mend: a threshold a few times the average norm costs nothing and guards against cliffs.",
}


def diagnose(norms: Any, max_norm: float | None = None, losses: Any = None) -> Diagnosis:
    """What a history of gradient norms means, with evidence and the advised fix.

    With `x_t = log10 norm_t` (finite, positive norms), trend `s` = Theil-Sen slope of `x` in decades over the whole
    run, and `r_t = x_t - running median`:

    - *vanishing*: the last tenth's median is at least 3 decades below the first's, or the median is below 1e-7;
      with `losses` given, only while the loss has not fallen by half (a norm that dies with its loss has converged);
    - *slow explosion*: the trend gains at least 1 decade, and the last quarter's median is 5 times the first's; or the
      run ends above 10 times its median for at least 2 % of the steps;
    - *cliff spikes*: norms above 10 times the running median and 6 robust deviations, in at most 10 % of the steps;
    - *oscillation near critical*: the bulk, not the tail, swings: a robust deviation of `r_t` of at least 0.5 decades,
      or more spikes than that, or, without any trend, 1 decade between the 5th and the 95th percentile;
    - *non-finite*: any inf or NaN, counted apart and left out of everything else;
    - with `max_norm`: *threshold too low* (clips more than half of the steps), *threshold never binds*
      (above 10 times the largest norm);
    - *healthy*: none of these.

    **Arguments**

    - `norms`: `[steps]`, norms *before* clipping; at least 20.
    - `max_norm`: the threshold in use, if any.
    - `losses`: `[steps]`, to tell convergence from vanishing and to say how often a spike was followed by a jump.

    **Returns** a `Diagnosis`; `print` it for a report.

    **Raises** `ValueError` for a history that is too short, of another shape, negative, or of another length than
    `losses`, and for a `max_norm` that is not positive.

    Source: the lessons' table of symptoms; thresholds are this function's own and tested on synthetic series.

    >>> history = np.abs(np.random.default_rng(0).normal(1.0, 0.1, 500))
    >>> history[[100, 300]] = 400.0
    >>> result = diagnose(history)
    >>> result.names(), result.findings[0].evidence["steps"]
    (['cliff spikes'], [100, 300])
    """
    norms, losses = _check(norms, max_norm, losses)
    finite = np.isfinite(norms)
    bad = np.flatnonzero(~finite)
    steps = np.flatnonzero(finite)
    findings: list[Finding] = []

    def add(name, **evidence):
        findings.append(Finding(name, evidence, ADVICE[name]))

    if len(bad):
        add("non-finite", count=len(bad), steps=bad[:20].tolist(), fraction=len(bad) / len(norms))
    good = norms[finite]
    if len(good) >= MIN_STEPS:
        x = np.log10(np.maximum(good, np.finfo(float).tiny))
        local = _running_median(x)
        rest = x - local
        spread = 1.4826 * np.median(np.abs(rest - np.median(rest)))
        gain = _theil_sen(x) * (len(x) - 1)
        tenth, quarter = max(len(x) // 10, 1), max(len(x) // 4, 1)
        fall = np.median(x[:tenth]) - np.median(x[-tenth:])
        growth = np.median(x[-quarter:]) - np.median(x[:quarter])
        learned = losses is not None and _fell_by_half(losses)

        if (fall >= 3 or np.median(x) < -7) and not learned:
            add("vanishing", decades_lost=float(fall), median_norm=float(10 ** np.median(x)),
                last_norm=float(10 ** np.median(x[-tenth:])))  # fmt: skip
        high_end = _last_stretch(x > np.median(x) + 1)
        explodes = gain >= 1 and growth >= math.log10(5)
        blown = not explodes and high_end >= max(3, 0.02 * len(x))
        if explodes or blown:
            end = float(10 ** (np.median(x[-high_end:]) - np.median(x))) if blown else float(10**growth)
            add("slow explosion", decades_gained=float(gain), last_to_first=end)
        spikes = (rest > 1) & (rest > 6 * spread)
        if blown:
            spikes[len(x) - high_end :] = False
        many = spikes.mean() > 0.1
        trend = explodes or blown or abs(fall) >= 1
        low, high = np.percentile(x if many else x[~spikes], [5, 95])
        swings = spread >= 0.5 or many or (not trend and high - low >= 1)
        if spikes.any() and not many:
            at = steps[spikes]
            evidence = {"count": len(at), "steps": at[:20].tolist(), "largest_ratio": float(10 ** rest[spikes].max())}
            if losses is not None:
                evidence["followed_by_loss_jump"] = _loss_jumps(losses, at)
            add("cliff spikes", **evidence)
        if swings:
            add("oscillation near critical", decades_of_deviation=float(spread), share_of_spikes=float(spikes.mean()),
                percentiles_95_to_5=float(10 ** (high - low)))  # fmt: skip
        if max_norm is not None:
            share = float((good > max_norm).mean())
            if share > 0.5:
                add("threshold too low", clip_fraction=share, median_to_threshold=float(np.median(good) / max_norm))
            elif max_norm > 10 * good.max():
                add("threshold never binds", threshold_to_largest=float(max_norm / max(good.max(), 1e-300)))
    if not findings:
        add("healthy", median_norm=float(np.median(good)), largest_to_median=float(good.max() / np.median(good)))
    positive = good[good > 0]
    threshold = suggest_threshold(positive) if len(positive) >= MIN_STEPS else None
    return Diagnosis(findings, threshold, bad)


def suggest_threshold(norms: Any) -> Threshold:
    """A threshold from the average norm, as the paper advises: between half and ten times the average over a run.

    The average leaves out the largest 1 % (a single cliff would set it otherwise). Suggested is twice that average.

    **Arguments**: `norms` `[steps]`, finite ones are used; at least 20 positive ones.

    **Returns** a `Threshold`.

    **Raises** `ValueError` for fewer than 20 finite, positive norms.

    Source: Pascanu, Mikolov & Bengio, ICML 2013: "from half to ten times this average"; arXiv v1 names the average
    norm without a range. The factor 2 is this function's choice within it.

    >>> round(suggest_threshold(np.linspace(0.5, 1.5, 1000)).suggested, 2)
    1.99
    """
    norms = np.asarray(norms, float).reshape(-1)
    norms = norms[np.isfinite(norms) & (norms > 0)]
    if len(norms) < MIN_STEPS:
        raise ValueError(f"norms must hold at least {MIN_STEPS} finite, positive values, got {len(norms)}")
    kept = np.sort(norms)[: max(int(0.99 * len(norms)), 1)]
    mean = float(kept.mean())
    chosen = 2 * mean
    return Threshold(chosen, mean / 2, 10 * mean, mean, float(np.median(norms)), float((norms > chosen).mean()))


def _check(norms, max_norm, losses):
    norms = np.asarray(norms, float)
    if norms.ndim != 1 or len(norms) < MIN_STEPS:
        raise ValueError(f"norms must be [steps] with at least {MIN_STEPS} steps, got shape {norms.shape}")
    if (norms < 0).any():
        raise ValueError(f"norms must not be negative, got {np.nanmin(norms)}")
    if max_norm is not None and not max_norm > 0:
        raise ValueError(f"max_norm must be positive, got {max_norm}")
    if losses is not None:
        losses = np.asarray(losses, float)
        if losses.shape != norms.shape:
            raise ValueError(f"losses must have the shape of norms {norms.shape}, got {losses.shape}")
    return norms, losses


def _running_median(x: np.ndarray) -> np.ndarray:
    """Centred median over about a tenth of the run, 11 to 101 steps; at the ends the window is the outermost one."""
    width = min(max(11, min(101, len(x) // 10)) | 1, len(x) - 1 + len(x) % 2)
    inner = np.median(np.lib.stride_tricks.sliding_window_view(x, width), axis=1)
    half = width // 2
    return np.pad(inner, (half, len(x) - len(inner) - half), mode="edge")


def _last_stretch(flags: np.ndarray) -> int:
    """How many of the last entries are true without a gap."""
    gaps = np.flatnonzero(~flags)
    return len(flags) - (int(gaps[-1]) + 1 if len(gaps) else 0)


def _theil_sen(x: np.ndarray) -> float:
    """Median slope per step over all pairs of at most 200 block medians."""
    blocks = np.array_split(x, min(len(x), 200))
    y = np.array([np.median(b) for b in blocks])
    centre = np.cumsum([len(b) for b in blocks]) - np.array([len(b) for b in blocks]) / 2
    i, j = np.triu_indices(len(y), 1)
    return float(np.median((y[j] - y[i]) / (centre[j] - centre[i])))


def _fell_by_half(losses: np.ndarray) -> bool:
    tenth = max(len(losses) // 10, 1)
    return bool(np.nanmedian(losses[-tenth:]) < 0.5 * np.nanmedian(losses[:tenth]))


def _loss_jumps(losses: np.ndarray, at: np.ndarray) -> float:
    """The share of spikes after which the loss rose by more than 5 robust deviations of its usual step."""
    change = np.diff(losses)
    usual = 1.4826 * np.nanmedian(np.abs(change - np.nanmedian(change)))
    near = [change[t : t + 2] for t in at]  # the losses of the two steps after update t
    return float(np.mean([bool(len(c) and (~np.isfinite(c) | (c > 5 * usual)).any()) for c in near]))


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value[:5])[:-1] + ", ...]" if isinstance(value, list) and len(value) > 5 else str(value)
