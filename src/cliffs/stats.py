"""Intervals and tests for experiments: rates (Wilson), medians over seeds (bootstrap), many tests at once (Holm)."""

import math
import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Bound", "bootstrap_interval", "holm", "wilson_interval"]

Bound = float | np.ndarray
"""One end of an interval, or of many."""


def wilson_interval(successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95) -> tuple[Bound, Bound]:
    """Wilson's score interval for a rate, `successes / trials`.

    With the observed rate r, n trials and z the normal quantile of the confidence (1.96 for 95 %), the interval is
    `(r + z^2 / 2n +- z sqrt(r (1 - r) / n + z^2 / 4n^2)) / (1 + z^2 / n)`. Unlike the textbook interval it stays
    inside [0, 1] and has a width also where no trial, or every trial, succeeded.

    **Arguments**

    - `successes`: how many trials succeeded; a number or an array.
    - `trials`: how many were made, at least 1; broadcast against `successes`.
    - `confidence`: the coverage, between 0 and 1.

    **Returns** `(low, high)`: two floats, or two float64 arrays of the common shape.

    **Raises** `ValueError` when `trials` is below 1, when `successes` is not within `0 .. trials`, or when
    `confidence` is not between 0 and 1.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", JASA 22.

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    _check_confidence(confidence)
    k, n = np.asarray(successes, float), np.asarray(trials, float)
    if not (n >= 1).all():
        raise ValueError(f"trials must be at least 1, got {trials}")
    if not ((k >= 0) & (k <= n)).all():
        raise ValueError(f"successes must be between 0 and trials={trials}, got {successes}")
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = k / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # In exact arithmetic the ends are 0 and 1 for no and for only successes; rounding would leave them at 1e-17.
    low, high = np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)
    return (low, high) if low.ndim else (float(low), float(high))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., ArrayLike] = np.median,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> tuple[Bound, Bound]:
    """The percentile bootstrap interval of a statistic over seeds.

    The seeds are drawn anew with replacement `num_resamples` times; the interval holds the middle `confidence` of the
    statistic's values. With fewer than about ten seeds it is too narrow: report the single values as well.

    **Arguments**

    - `values`: `[seeds, ...]`, one row for each independent repetition.
    - `statistic`: a function of an array and `axis`, as `np.median` and `np.mean` are.
    - `confidence`: the coverage, between 0 and 1.
    - `num_resamples`: how often the seeds are drawn.
    - `seed`: of the draws; the same seed gives the same interval.

    **Returns** `(low, high)`: two floats, or two arrays of the shape of one row. A row with NaN gives NaN.

    **Raises** `ValueError` when there are no values, or `confidence` or `num_resamples` is out of range.

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife", Annals of Statistics 7.

    >>> low, high = bootstrap_interval([1.0, 1.2, 0.9, 1.1, 1.3, 0.8, 1.0, 1.1])
    >>> low < 1.05 < high
    True
    """
    _check_confidence(confidence)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    rows = np.asarray(values, float)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError(f"values must be an array [seeds, ...] with at least one seed, got shape {rows.shape}")
    draws = np.random.default_rng(seed).integers(0, len(rows), (num_resamples, len(rows)))
    resampled = np.asarray(statistic(rows[draws], axis=1))  # [num_resamples, ...]
    if resampled.shape[:1] != (num_resamples,):
        raise ValueError(
            f"statistic must reduce the axis that it is given: its result has shape {resampled.shape} where the first "
            f"axis should be {num_resamples}"
        )
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return (low, high) if np.ndim(low) else (float(low), float(high))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction for many tests: adjusted p-values.

    The k-th smallest of n p-values is multiplied by `n - k + 1`, is never below the one before it and never above 1.
    The tests with an adjusted p-value below 0.05 are significant together at 5 %: the chance that any of them is a
    false positive is at most that, however the tests depend on one another.

    **Arguments**: `p_values` `[tests]`, between 0 and 1.

    **Returns** the adjusted p-values `[tests]`, in the order given.

    **Raises** `ValueError` when a p-value is not between 0 and 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6.

    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a list of numbers between 0 and 1, got {p_values}")
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    return np.minimum(1.0, adjusted[np.argsort(order, kind="stable")])


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1 or not math.isfinite(confidence):
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
