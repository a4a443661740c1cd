"""The history of a norm with its diagnosis and the suggested threshold."""

import numpy as np
from matplotlib.axes import Axes

from cliffs.diagnosis import Diagnosis, Log, as_history, diagnose
from cliffs.plotting._style import COLORS, axes_or_new


def plot_diagnosis(
    norms: Log, diagnosis: Diagnosis | None = None, ax: Axes | None = None, *, max_norm: float | None = None
) -> Axes:
    """Norms over steps with their spikes, steps that are not finite, and thresholds; the findings are the title.

    **Arguments**

    - `norms`: `[steps]` before clipping, or a log as `diagnose` takes it (its steps are then the axis).
    - `diagnosis`: that of `diagnose(norms, max_norm)` when not given.
    - `ax`: where to draw; a new figure when None.
    - `max_norm`: the threshold in use, drawn when given.

    **Returns** the Axes.

    >>> ax = plot_diagnosis(np.random.default_rng(0).lognormal(0.0, 0.3, 200))
    >>> ax.get_yscale()
    'log'
    """
    ax = axes_or_new(ax)
    history = as_history(norms)
    steps, norms = history.steps, history.norms
    diagnosis = diagnosis or diagnose(history, max_norm)
    shown = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
    ax.plot(steps, shown, color=COLORS["stable"], lw=0.7, rasterized=len(norms) > 5000, label="norm")
    if np.isfinite(shown).any():
        ax.set_yscale("log")
    spikes = np.array(next((f.evidence["steps"] for f in diagnosis.findings if f.name == "cliff spikes"), []), int)
    if spikes.size:
        ax.plot(spikes, norms[np.searchsorted(steps, spikes)], "v", ms=5, color=COLORS["unclipped"], label="spike")
    for i, step in enumerate(diagnosis.nonfinite_steps):
        ax.axvline(step, color=COLORS["accent"], lw=0.8, label="not finite" if i == 0 else None)
    threshold = diagnosis.threshold
    if threshold:
        ax.axhspan(threshold.low, threshold.high, color=COLORS["good"], alpha=0.08, lw=0)
        label = f"suggested {threshold.suggested:.3g}: clips {threshold.clip_fraction:.1%} (band: 0.5 to 10 x mean)"
        ax.axhline(threshold.suggested, color=COLORS["good"], lw=1.4, label=label)
    if max_norm is not None:
        ax.axhline(max_norm, color=COLORS["clipped"], ls="--", lw=1.2, label=f"threshold in use {max_norm:.3g}")
    ax.set(xlabel="step", ylabel="gradient norm", title=", ".join(diagnosis.names()))
    if ax.get_yscale() == "log":  # room above the largest norm, so that the legend hides no spike
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.35)
    ax.legend(loc="upper left", fontsize=8)
    return ax
