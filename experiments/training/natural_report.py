"""What is said of a training on real sequences: a summary, learning curves, and what clipping saw."""

from typing import Any

import numpy as np

from cliffs.plotting import COLORS, figure
from cliffs.sweeps import SweepResult

INF = float("inf")

PAPER = {
    "music": {"train": (3.71, 4.12), "test": (4.05, 4.57)},
    "characters": {"train": (1.41, 2.25), "test": (1.44, 2.24)},
}
"""(clipped, unclipped) of arXiv v1, table 1: nats per time step; bits per character."""


def arrays_of(result: SweepResult, curves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is kept of all runs: curves, grid, and counts of the gradient norms."""
    counts, edges = norm_histograms(result.metrics.grad_norm)
    return {**curves, **result.grid, "diverged_at": result.diverged_at, "norm_counts": counts, "norm_edges": edges}


def rows(name: str | None, label: str, unit: str, summary: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The rows of the printed table: test beside the paper's, where `name` is in its table, and validation."""
    out = []
    for fold in ("test", "valid"):
        here = [summary[kind]["mean"][fold] for kind in ("clipped", "unclipped")]
        paper = "{} / {} (arXiv v1)".format(*PAPER[name]["test"]) if name and fold == "test" else "-"
        out.append((f"{label}: {fold}, clipped / not", f"{here[0]:.3f} / {here[1]:.3f} {unit}", paper))
    return out


def chosen_runs(arrays: dict[str, np.ndarray], max_norm: float) -> np.ndarray:
    """The runs (one per seed) with this threshold, at the learning rate with the best mean validation score."""
    valid = np.where(np.isfinite(arrays["valid"]), arrays["valid"], INF).min(1)
    same = arrays["max_norm"] == max_norm
    rate = arrays["learning_rate"]
    best = min(np.unique(rate[same]), key=lambda r: valid[same & (rate == r)].mean())
    return np.flatnonzero(same & (rate == best))


def summarise(result: SweepResult, curves: dict[str, np.ndarray], threshold: float) -> dict[str, Any]:
    """For clipped and unclipped: every fold at the evaluation with the best validation score, per seed and mean.

    A run that never had a finite score counts as infinitely bad.
    """
    summary: dict[str, Any] = {}
    for name, value in (("clipped", threshold), ("unclipped", INF)):
        mine = chosen_runs({**curves, **result.grid}, value)
        valid = np.where(np.isfinite(curves["valid"][mine]), curves["valid"][mine], INF)
        best = valid.argmin(1)
        at_best = {fold: curve[mine, best] for fold, curve in curves.items()}
        norms = result.metrics.grad_norm[mine]
        norms = norms[np.isfinite(norms)]
        norms = norms if norms.size else np.full(1, np.nan)
        summary[name] = {
            "learning_rate": result.grid["learning_rate"][mine[0]],
            "best_evaluation": best + 1,
            **at_best,
            "mean": {fold: values.mean() for fold, values in at_best.items()},
            "last_valid": curves["valid"][mine, -1],
            "diverged_at": result.diverged_at[mine],
            "median_norm": np.median(norms),
            "largest_norm": norms.max(),
            "share_above_threshold": (norms > threshold).mean(),
        }
    valid = np.where(np.isfinite(curves["valid"]), curves["valid"], INF)
    summary["best_valid_of_each_run"] = [
        {"learning_rate": rate, "max_norm": norm, "seed": seed, "valid": valid[i].min()}
        for i, (rate, norm, seed) in enumerate(
            zip(result.grid["learning_rate"], result.grid["max_norm"], result.grid["seed"])
        )
    ]
    return summary


def norm_histograms(grad_norm: np.ndarray, bins: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[runs, bins]` of the gradient norms over the whole range met, and the edges, even on a log scale."""
    met = grad_norm[np.isfinite(grad_norm) & (grad_norm > 0)]
    low, high = (met.min(), met.max()) if met.size else (1.0, 10.0)
    edges = np.geomspace(low * (1 - 1e-6), high * (1 + 1e-6), bins + 1)
    return np.stack([np.histogram(run[np.isfinite(run)], edges)[0] for run in grad_norm]), edges


def learning_curves(
    arrays: dict[str, np.ndarray], threshold: float, unit: str, title: str, every: str, top: float
) -> Any:
    """Validation score against training time, and gradient norms against the threshold, from the arrays on disk."""
    fig, axes = figure(1, 2, size=(10.5, 3.9))
    counts, edges = arrays["norm_counts"], arrays["norm_edges"]
    for name, value in (("clipped", threshold), ("unclipped", INF)):
        runs = chosen_runs(arrays, value)
        rate = arrays["learning_rate"][runs[0]]
        label = f"{name}, rate {rate:g}"
        times = np.arange(1, arrays["valid"].shape[1] + 1)
        for i in runs:
            axes[0].plot(times, arrays["valid"][i], color=COLORS[name], label=label if i == runs[0] else None)
        axes[1].stairs(counts[runs].sum(0), edges, color=COLORS[name], label=label)
    axes[0].set_ylim(top=top)
    axes[0].set_xlabel(every)
    axes[0].set_ylabel(f"validation, {unit}")
    axes[0].set_title(title)
    axes[0].legend()
    axes[1].axvline(threshold, color="black", linewidth=1, linestyle=":")
    axes[1].text(
        threshold, 0.97, "threshold ", transform=axes[1].get_xaxis_transform(), va="top", ha="right", fontsize=9
    )
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    axes[1].set_ylim(top=5 * max(1, counts.sum(0).max()))  # room above the curves for the label
    axes[1].set_xlabel("gradient norm before clipping")
    axes[1].set_ylabel("updates")
    axes[1].set_title("What clipping saw")
    return fig
