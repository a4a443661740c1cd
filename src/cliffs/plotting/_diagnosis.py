"""The history of a norm with its diagnosis and the suggested threshold."""

import numpy as np
from matplotlib.figure import Figure

from cliffs.diagnosis import Diagnosis, Log, as_history, diagnose
from cliffs.plotting._style import COLORS, figure


def plot_diagnosis(norms: Log, diagnosis: Diagnosis | None = None, *, max_norm: float | None = None) -> Figure:
    """Norms over steps with spikes, non-finite steps and thresholds; beside them their distribution.

    **Arguments**

    - `norms`: `[steps]` before clipping, or a log as `diagnose` takes it (its steps are then the axis).
    - `diagnosis`: that of `diagnose(norms, max_norm)` when not given.
    - `max_norm`: the threshold in use, drawn when given.

    **Returns** a matplotlib `Figure`.

    >>> fig = plot_diagnosis(np.random.default_rng(0).lognormal(0.0, 0.3, 200))
    >>> len(fig.axes)
    2
    """
    history = as_history(norms)
    steps, norms = history.steps, history.norms
    diagnosis = diagnosis or diagnose(history, max_norm)
    fig, (left, right) = figure(1, 2, size=(10, 3.8), width_ratios=[2.4, 1], sharey=True)
    shown = np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)
    left.plot(steps, shown, color=COLORS["stable"], lw=0.7, rasterized=len(norms) > 5000, label="norm")
    spikes = next((f.evidence["steps"] for f in diagnosis.findings if f.name == "cliff spikes"), [])
    if spikes:
        left.plot(spikes, norms[np.searchsorted(steps, spikes)], "v", ms=5, color=COLORS["unclipped"], label="spike")
    for i, step in enumerate(diagnosis.nonfinite_steps):
        left.axvline(step, color=COLORS["accent"], lw=0.8, label="not finite" if i == 0 else None)
    positive = shown[np.isfinite(shown)]
    if len(positive):
        left.set_yscale("log")
        bins = np.geomspace(positive.min(), positive.max() * 1.001, 50)
        right.hist(positive, bins=bins, orientation="horizontal", color=COLORS["unstable"])
    threshold = diagnosis.threshold
    if threshold:
        for ax in (left, right):
            ax.axhspan(threshold.low, threshold.high, color=COLORS["good"], alpha=0.08, lw=0)
            ax.axhline(threshold.suggested, color=COLORS["good"], lw=1.4)
        left.plot([], [], color=COLORS["good"], label=f"suggested {threshold.suggested:.3g} (band: 0.5 to 10 x mean)")
        right.set_title(f"suggested threshold clips {threshold.clip_fraction:.1%}")
    if max_norm is not None:
        left.axhline(max_norm, color=COLORS["clipped"], ls="--", lw=1.2, label=f"threshold in use {max_norm:.3g}")
    left.set(xlabel="step", ylabel="gradient norm", title=", ".join(diagnosis.names()))
    right.set(xlabel="number of steps")
    left.legend(loc="best", fontsize=8)
    return fig
