"""A clipping threshold from the average norm, as the paper advises."""

import numpy as np

from cliffs.diagnosis._history import Log, as_history
from cliffs.diagnosis._records import Threshold
from cliffs.diagnosis._robust import first_stretch, refuse_negative, running_median

MIN_STEPS = 20


def suggest_threshold(norms: Log) -> Threshold:
    """A threshold from the average norm: between half and ten times the average over a run.

    The average leaves out the start of training, whose norms are often many times those of the rest, and then the
    largest 1 % (a single cliff would set it otherwise). The start ends where norm and running median have come down
    to twice the median of the second half. Suggested is twice the average.

    **Arguments**: `norms` `[steps]` *before* clipping, or a log as in `diagnose`; finite ones are used; at least 20
    positive ones. Give at least twice as many steps as the start of training takes.

    **Returns** a `Threshold`.

    **Raises** `ValueError` for fewer than 20 finite, positive norms, and for negative ones.

    Source: Pascanu, Mikolov & Bengio, ICML 2013: "from half to ten times this average"; arXiv v1 names the average
    norm without a range. The factor 2 and the rule for the start are this function's choices.

    >>> round(suggest_threshold(np.linspace(0.5, 1.5, 1000)).suggested, 2)
    1.99
    >>> start = np.r_[np.full(30, 10.0), np.ones(70)]
    >>> suggest_threshold(start).suggested
    2.0
    """
    history = as_history(norms).norms
    refuse_negative(history)
    positive = history[np.isfinite(history) & (history > 0)]
    if len(positive) < MIN_STEPS:
        raise ValueError(f"norms must hold at least {MIN_STEPS} finite, positive values, got {len(positive)}")
    later = positive[start_of_training(np.log10(positive)) :]
    kept = np.sort(later)[: max(int(0.99 * len(later)), 1)]
    mean = float(kept.mean())
    chosen = 2 * mean
    median = float(np.median(positive))
    return Threshold(chosen, mean / 2, 10 * mean, mean, median, float((positive > chosen).mean()))


def start_of_training(x: np.ndarray) -> int:
    """How many first steps come before `x = log10 norm`, and its running median, reach the level of the second half.

    >>> start_of_training(np.r_[np.ones(30), np.zeros(70)])
    30
    """
    high = np.median(x[len(x) // 2 :]) + np.log10(2)
    return max(first_stretch(x > high), first_stretch(running_median(x, widest=11) > high))
