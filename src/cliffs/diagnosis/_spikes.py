"""Gradient spikes, and whether they fall on some other event more often than by chance."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from cliffs.diagnosis._robust import refuse_negative


class Association(NamedTuple):
    """How spikes and events go together; rates are shares of the updates of all runs."""

    spikes: int
    events: int
    """Updates with an event."""
    together: int
    """Updates with both."""
    event_given_spike: float
    """P(event | spike); NaN without spikes."""
    event_rate: float
    """P(event)."""
    spike_given_event: float
    """P(spike | event); NaN without events."""
    spike_rate: float
    """P(spike)."""
    shifted: tuple[float, float]
    """The middle 95 % of P(event | spike) when the events of each run are shifted in time; NaN without spikes."""
    p_value: float
    """The share of shifts (the given alignment counted as one) with at least as many coincidences: one-sided, and it
    keeps how events cluster in time."""
    fisher_p_value: float
    """Fisher's exact test, one-sided: it treats updates as independent, so clustered events make it too small."""


def gradient_spikes(
    norms: ArrayLike, factor: float = 5.0, window: int = 51
) -> Bool[np.ndarray, " steps"] | Bool[np.ndarray, "runs steps"]:
    """Where a norm exceeds `factor` times the median of the `window` norms around it.

    **Arguments**

    - `norms`: `[steps]` or `[runs, steps]`, gradient norms before clipping. Those that are not finite count as spikes
      and are left out of the medians.
    - `factor`: how many times the local median a spike must reach; above 1.
    - `window`: an odd number of steps; at the ends the outermost norm is repeated.

    **Returns** bools of the shape of `norms`.

    **Raises** `ValueError` for norms of another shape or below 0, a factor of at most 1 or a window that is not odd and
    positive.

    >>> norms = np.ones(100)
    >>> norms[[20, 60]] = [9.0, 4.0]
    >>> np.flatnonzero(gradient_spikes(norms)).tolist()
    [20]
    """
    norms = np.asarray(norms, float)
    if norms.ndim not in (1, 2) or not norms.size:
        raise ValueError(f"norms must be [steps] or [runs, steps], got shape {norms.shape}")
    refuse_negative(norms)
    if not factor > 1:
        raise ValueError(f"factor must be above 1, got {factor}")
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be odd and positive, got {window}")
    finite = np.isfinite(norms)
    half = window // 2
    padded = np.pad(np.where(finite, norms, np.nan), [(0, 0)] * (norms.ndim - 1) + [(half, half)], mode="edge")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of windows without a finite norm
        typical = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, window, axis=-1), axis=-1)
    return ~finite | (norms > factor * typical)


def spike_association(spikes: ArrayLike, events: ArrayLike, num_shifts: int = 2000, seed: int = 0) -> Association:
    """Whether spikes fall on events more often than by chance, by a permutation test that keeps their clusters.

    The events of each run are shifted in time, circularly and each run by a random amount, `num_shifts` times. That
    keeps how often and in what clusters events come, but breaks their alignment with the spikes.

    **Arguments**

    - `spikes`, `events`: bools `[steps]` or `[runs, steps]`: whether each update has one.
    - `num_shifts`: how often the events are shifted; the smallest p-value is `1 / (1 + num_shifts)`.
    - `seed`: of the shifts.

    **Returns** an `Association`.

    **Raises** `ValueError` for arrays of different or other shapes, or no shifts.

    Source: Fisher (1934), Statistical Methods for Research Workers, 5th ed., section 21.02, for the exact test;
    circular shifts as usual for point processes.

    >>> spikes = np.zeros((2, 200), bool)
    >>> spikes[:, [30, 90, 150]] = True
    >>> found = spike_association(spikes, spikes, num_shifts=99)
    >>> found.together, found.event_given_spike, found.p_value
    (6, 1.0, 0.01)
    """
    spike, event = (np.atleast_2d(np.asarray(x, bool)) for x in (spikes, events))
    if np.shape(spikes) != np.shape(events) or spike.ndim != 2 or not spike.size:
        raise ValueError(
            f"spikes and events must both be [steps] or [runs, steps], got {np.shape(spikes)} and {np.shape(events)}"
        )
    if num_shifts < 1:
        raise ValueError(f"num_shifts must be at least 1, got {num_shifts}")
    rng = np.random.default_rng(seed)
    together, length = int((spike & event).sum()), spike.shape[1]
    shifted = np.array(
        [sum((s & np.roll(e, rng.integers(length))).sum() for s, e in zip(spike, event)) for _ in range(num_shifts)]
    )
    count, total = int(spike.sum()), int(event.sum())
    low, high = (float(q) / count if count else math.nan for q in np.quantile(shifted, [0.025, 0.975]))
    return Association(
        spikes=count,
        events=total,
        together=together,
        event_given_spike=together / count if count else math.nan,
        event_rate=total / event.size,
        spike_given_event=together / total if total else math.nan,
        spike_rate=count / spike.size,
        shifted=(low, high),
        p_value=float((1 + (shifted >= together).sum()) / (1 + num_shifts)),
        fisher_p_value=_fisher(together, count, total, spike.size),
    )


def _fisher(together: int, spikes: int, events: int, updates: int) -> float:
    """P(at least so many coincidences) when `spikes` of the `updates` are drawn at random: a hypergeometric tail."""

    def log_choose(n, k):
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    whole = log_choose(updates, spikes)
    # At least spikes + events - updates must coincide.
    counts = range(max(together, spikes + events - updates), min(spikes, events) + 1)
    logs = [log_choose(events, k) + log_choose(updates - events, spikes - k) - whole for k in counts]
    return min(1.0, math.fsum(map(math.exp, logs)))
