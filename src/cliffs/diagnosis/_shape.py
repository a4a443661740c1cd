"""What the norms of a history do in time: vanish, explode, spike, oscillate."""

import math
from typing import NamedTuple

import numpy as np

from cliffs.diagnosis._history import History
from cliffs.diagnosis._records import Evidence, Finding
from cliffs.diagnosis._robust import deviation, first_stretch, last_stretch, loss_jumps, running_median, theil_sen
from cliffs.diagnosis._threshold import start_of_training

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
}


class Shape(NamedTuple):
    """What `shape_in_time` returns."""

    findings: list[Finding]
    notes: list[str]
    usual: int
    """How many of the first norms came before an explosion: all where there was none."""


def shape_in_time(history: History, at: np.ndarray, learned: bool) -> Shape:
    """Vanishing, explosion, spikes and oscillation of the finite, positive norms, which are at rows `at`."""
    findings: list[Finding] = []
    notes: list[str] = []

    def add(name: str, evidence: Evidence, advice: str | None = None) -> None:
        findings.append(Finding(name, evidence, advice or ADVICE[name]))

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
    usual = quarter if explodes else len(x) - high_end if blown else len(x)
    if explodes or blown:
        end = float(10 ** (np.median(x[-high_end:]) - middle)) if blown else 10**growth
        add("slow explosion", {"decades_gained": float(gain), "last_to_first": end})
    low_start = first_stretch(x < middle - 1)
    if 0 < low_start <= len(x) // 10 and not explodes and spread < 0.5:
        jump = float(middle - x[0])
        if jump >= 2 and not learned:
            usual = 0
            add("sudden explosion", {"decades_gained": jump, "steps": low_start}, _thrown(jump, low_start, x[0]))
        else:
            times = 10 ** (middle - x[:low_start].max())
            notes.append(f"{_first(low_start)} {times:.3g} times below the rest: see whether the loss rose there")

    spikes = (rest > 1) & (rest > 6 * spread)
    if blown or explodes:  # the steep end of an explosion is none
        spikes[len(x) - max(last_stretch(spikes), high_end if blown else 0) :] = False
    many = spikes.mean() > 0.1
    beginning = start_of_training(x)
    if many or not 3 <= beginning <= len(x) // 2:  # one or two large first norms are spikes like others
        beginning = 0
    else:
        # A spike among the first norms stands out from those, too.
        spikes[:beginning] &= x[:beginning] > np.median(x[:beginning]) + 1
        spikes[: first_stretch(spikes)] = False
        times = 10 ** (x[:beginning].max() - np.median(x[beginning:]))
        notes.append(f"{_first(beginning)} up to {times:.3g} times the rest and taken for the start of training")
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
    bulk = x if many else x[beginning:][~spikes[beginning:]]
    low, high = np.percentile(bulk, [5, 95])
    trend = explodes or blown or abs(fall) >= 1
    if spread >= 0.5 or many or (not trend and high - low >= 1):
        swing = {"decades_of_deviation": spread, "share_of_spikes": float(spikes.mean())}
        swing["percentiles_95_to_5"] = float(10 ** (high - low))
        add("oscillation near critical", swing)
    return Shape(findings, notes, usual)


def _thrown(jump: float, steps: int, log_norm: float) -> str:
    return (
        f"Within the first {steps + 1} steps the norm jumped by {jump:.1f} decades, and it stayed there: the run was "
        "thrown away from its start. Lower the learning rate or warm it up; where it was not clipped, clip near "
        f"{10**log_norm:.3g}. (Harmless only where the first gradients are small by design, as with weights that start "
        "at 0.)"
    )


def _first(count: int) -> str:
    return "the first norm is" if count == 1 else f"the first {count} norms are"
