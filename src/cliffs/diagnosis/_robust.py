"""Robust statistics of a history: medians and slopes that a few spikes do not move."""

import numpy as np


def refuse_negative(norms: np.ndarray) -> None:
    """Raise `ValueError` for norms below 0."""
    if (norms < 0).any():
        raise ValueError(f"norms must not be negative, got {np.nanmin(norms)}")


def running_median(x: np.ndarray, widest: int = 101) -> np.ndarray:
    """Centred median over about a tenth of the run, 11 to `widest` steps; at the ends the window is the outermost one.

    >>> running_median(np.array([1.0] * 10 + [9.0] + [1.0] * 10)).max().item()
    1.0
    """
    width = min(max(11, min(widest, len(x) // 10)) | 1, len(x) - 1 + len(x) % 2)
    inner = np.median(np.lib.stride_tricks.sliding_window_view(x, width), axis=1)
    half = width // 2
    return np.pad(inner, (half, len(x) - len(inner) - half), mode="edge")


def deviation(x: np.ndarray) -> float:
    """The median absolute deviation, scaled to the standard deviation of a Gaussian."""
    return float(1.4826 * np.median(np.abs(x - np.median(x))))


def first_stretch(flags: np.ndarray) -> int:
    """How many of the first entries are true without a gap."""
    gaps = np.flatnonzero(~flags)
    return int(gaps[0]) if len(gaps) else len(flags)


def last_stretch(flags: np.ndarray) -> int:
    """How many of the last entries are true without a gap."""
    return first_stretch(flags[::-1])


def theil_sen(x: np.ndarray) -> float:
    """Median slope per step over all pairs of at most 200 block medians.

    >>> theil_sen(np.arange(50.0) * 0.5)
    0.5
    """
    blocks = np.array_split(x, min(len(x), 200))
    y = np.array([np.median(b) for b in blocks])
    sizes = np.array([len(b) for b in blocks])
    centre = np.cumsum(sizes) - sizes / 2
    i, j = np.triu_indices(len(y), 1)
    return float(np.median((y[j] - y[i]) / (centre[j] - centre[i])))


def fell_by_half(losses: np.ndarray) -> bool:
    """Whether the last tenth's median loss is below half of the first tenth's."""
    known = losses[np.isfinite(losses)]
    tenth = max(len(known) // 10, 1)
    return bool(len(known) and np.median(known[-tenth:]) < 0.5 * np.median(known[:tenth]))


def loss_jumps(losses: np.ndarray, at: np.ndarray) -> float:
    """The share of spikes after which the loss rose by more than 5 robust deviations of its usual step."""
    change = np.diff(losses)
    finite = change[np.isfinite(change)]
    usual = deviation(finite) if len(finite) else 0.0
    near = [change[t : t + 2] for t in at]  # the losses of the two steps after update t
    return float(np.mean([bool(len(c) and (~np.isfinite(c) | (c > 5 * usual)).any()) for c in near]))
