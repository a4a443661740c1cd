"""One function for each symptom of a history of norms: a finding, or None."""

import numpy as np

from cliffs.diagnosis._records import Finding
from cliffs.diagnosis._robust import first_stretch, last_stretch

MISSING_SHARE = 0.01
"""Faults at less than this share of the steps, with no pattern in time, are single events."""


def broken_from(norms: np.ndarray, losses: np.ndarray | None) -> int:
    """The first step of those at the end where norm or loss is never finite again; the length where there are none."""
    broken = ~np.isfinite(norms)
    if losses is not None:
        broken |= ~np.isfinite(losses)
    return len(norms) - last_stretch(broken)


def diverged(norms: np.ndarray, start: int, steps: np.ndarray) -> Finding | None:
    """Whether the run ended in infs or NaNs at `start`, and whether the norm's growth announced it."""
    tail = len(norms) - start
    before = norms[:start][np.isfinite(norms[:start]) & (norms[:start] > 0)]
    if not tail or not len(before):
        return None
    tenth = max(len(before) // 10, 1)
    usual = float(min(np.median(before), np.median(before[:tenth])))
    peak = float(before[-20:].max())
    decades = float(np.log10(peak) - np.log10(usual))
    if decades < 2 and tail < max(3, MISSING_SHARE * len(norms)):
        return None  # one or two overflows at the end, after quiet norms: nobody knows yet
    step = int(steps[start])
    evidence = {"step": step, "decades_grown": decades, "usual_norm": usual, "largest_norm": peak, "lost_steps": tail}
    if decades >= 1:
        advice = (
            f"The run diverged at step {step}: the norm grew {decades:.0f} decades before, from {usual:.3g} to "
            f"{peak:.3g}, and nothing was finite from then on. Start again with a lower learning rate or a warm-up, or "
            f"clip by the global norm near {usual:.3g}; skipping non-finite steps would come too late."
        )
    else:
        advice = (
            f"The run was lost at step {step} without a warning: the norm was at its usual {usual:.3g}, and nothing "
            "was finite from then on. One bad step did it: look at its batch, at overflow in half precision, and for "
            "log, sqrt or a division at 0 in the loss; nonfinite='skip' keeps such a step out of the parameters."
        )
    return Finding("diverged", evidence, advice)


def nonfinite(norms: np.ndarray, start: int, steps: np.ndarray) -> Finding | None:
    """Infs and NaNs before `start`."""
    broken = ~np.isfinite(norms[:start])
    bad = np.flatnonzero(broken)
    if not len(bad):
        return None
    first = first_stretch(broken)
    evidence = {"count": len(bad), "steps": steps[bad[:20]].tolist(), "fraction": len(bad) / len(norms)}
    if first == len(norms):
        advice = (
            "No gradient was ever finite: the fault is there before the first update. Look at the initialisation, at "
            "the inputs, and for log, sqrt or a division at 0 in the loss; neither clipping nor skipping can help."
        )
    elif first == len(bad):
        advice = (
            f"Only the first {first} gradients hold an inf or a NaN: usual while the loss scale of half precision is "
            "sought, when such steps are skipped (nonfinite='skip'); without loss scaling look at the first batches."
        )
    else:
        advice = (
            "Some gradients hold an inf or a NaN: use nonfinite='skip', look at those steps' batches and at the loss "
            "scale, and clip before it comes to that."
        )
    return Finding("non-finite", evidence, advice)


def zeros(norms: np.ndarray, steps: np.ndarray, learned: bool) -> Finding | None:
    """Gradients that are exactly 0: all, all from some step on, or more than 1 % of them."""
    zero = norms == 0
    count, tail = int(zero.sum()), last_stretch(zero)
    if not count or (learned and count == tail):  # the loss has nothing left to gain
        return None
    if tail < max(3, MISSING_SHARE * len(norms)) and count < MISSING_SHARE * len(norms):
        return None
    evidence: dict[str, float | int | list[int]] = {"count": count, "fraction": count / len(norms)}
    where = (
        "gradients that do not reach the parameters (a detached or frozen part, stop_gradient), units that are dead "
        "(relu), underflow in half precision, and a norm that is read after the gradients were reset"
    )
    if count == len(norms):
        return Finding(
            "zero gradients", evidence, f"Every gradient is exactly 0, so nothing is learned: look for {where}."
        )
    if tail == count or tail >= max(3, MISSING_SHARE * len(norms)):
        evidence["from_step"] = int(steps[len(norms) - tail])
        advice = (
            f"From step {evidence['from_step']} on every gradient is exactly 0: nothing is learned. Look for {where}."
        )
        return Finding("zero gradients", evidence, advice)
    evidence["steps"] = steps[np.flatnonzero(zero)[:20]].tolist()
    advice = (
        "Some gradients are exactly 0, and are left out of the rest. Where they come at regular steps the norm is "
        f"logged between accumulated batches: log it where the optimizer steps. Else look for {where}."
    )
    return Finding("zero gradients", evidence, advice)


def loss_grew(losses: np.ndarray | None, steps: np.ndarray) -> Finding | None:
    """Whether the loss ended three times above its first value: the norm alone may look calm at such a place.

    Of finite losses: a NaN between finite norms says nothing about where the loss went.
    """
    if losses is None:
        return None
    finite = np.isfinite(losses)
    losses, steps = losses[finite], steps[finite]
    if not len(losses) or not losses[0] > 0:  # losses that may be negative have no scale to compare with
        return None
    end = losses[-max(len(losses) // 10, 3) :]
    ratio = float(np.median(end) / losses[0])
    if not ratio >= 3 or not end.min() > losses[0]:
        return None
    worst = int(np.argmax(losses))
    evidence = {"first_loss": float(losses[0]), "end_to_first": ratio, "step_of_largest_loss": int(steps[worst])}
    advice = (
        f"The loss ended {ratio:.3g} times above its first value, so the updates led away from every valley: lower the "
        "learning rate or warm it up. Clipping alone bounds a step by learning rate x threshold, which was too long."
    )
    return Finding("loss grew", evidence, advice)


def clipped(norms: np.ndarray, max_norm: float | None) -> Finding | None:
    """Norms with a hard ceiling that many steps touch: those of clipped gradients.

    Continuous norms do not meet at their largest value, least of all again and again. Half precision and printed
    digits blur the ceiling to 1e-3; then a good share must lie there, and thrice as many as at any other value.
    """
    for ceiling in {float(norms.max()), *([max_norm] if max_norm else [])}:
        if (norms > ceiling * (1 + 1e-3)).any():
            continue
        for blur, share in ((1e-5, 0.0), (1e-3, 0.05)):
            touches = norms >= ceiling * (1 - blur)
            visits = int((np.diff(np.r_[False, touches].astype(int)) == 1).sum())
            count = int(touches.sum())
            below = np.sort(norms[~touches])
            other = (np.searchsorted(below, below * (1 + blur), "right") - np.arange(len(below))).max(initial=0)
            again = visits >= 3 or blur < 1e-4 or touches.mean() > 0.9
            if count >= max(5, share * len(norms), 3 * other) and again:
                fraction = count / len(norms)
                advice = (
                    f"{fraction:.0%} of the norms are {ceiling:.4g} and none is larger: these look clipped (or nothing "
                    "moves). Spikes and explosions cannot be seen in them, nor a threshold be chosen: log the norm "
                    "before clipping (with_telemetry's norm_before, the number that clip_grad_norm_ returns)."
                )
                return Finding("clipped norms", {"ceiling": ceiling, "fraction": fraction, "count": count}, advice)
    return None
