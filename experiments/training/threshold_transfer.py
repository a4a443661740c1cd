"""Does a threshold suggested from the first updates' norms train as well as the best of a grid of thresholds?

The small decoder of `transformer` runs for a while without clipping; `suggest_threshold` reads the norms before
clipping, `diagnose` says what they mean. Then every seed trains anew with its own suggestion, with each threshold of a
grid, and without any, with and without trouble. Asked: is the suggestion's final loss within 1 % of the grid's best?
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from cliffs.diagnosis import diagnose, suggest_threshold
from cliffs.plotting import COLORS, figure
from cliffs.stats import bootstrap_interval
from cliffs.sweeps import SweepResult
from experiments.training._troubles import Corpus, Setting, corpus, train

ALL_CORES = True
INF = float("inf")
RULE = "clip_by_global_norm"
TROUBLES = ("clean", "bad batch", "heavy-tailed noise")


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """Settings."""

    pilot: int = 30
    """Updates without clipping whose norms are read."""
    thresholds: tuple[float, ...] = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, INF)
    allowed: float = 0.01
    """How far above the grid's best the loss may end."""


class Result(NamedTuple):
    """For each trouble the losses of the grid and of the suggestion."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """A pilot, then the grid with the suggestion in it, in each trouble."""
    text = corpus(config)
    metrics: dict[str, Any] = {"floor": text.floor}
    arrays: dict[str, Any] = {}
    rows: list[tuple[str, ...]] = [
        ("trouble", "suggested (median)", "loss with it", "best of the grid", "above the best, 95 % interval")
    ]
    for trouble in TROUBLES:
        begun = time.perf_counter()
        norms = pilot_norms(config, text, trouble)
        suggested = np.array([suggest_threshold(row).suggested for row in norms], np.float32)
        losses = grid_losses(config, text, trouble, suggested)
        metrics[trouble] = judge(config, losses, suggested)
        metrics[trouble]["findings"] = sorted({name for row in norms for name in diagnose(row).names()})
        arrays |= {f"{trouble} norms": norms, f"{trouble} suggested": suggested, f"{trouble} losses": losses}
        rows.append(row_of(trouble, metrics[trouble]))
        say(f"{trouble}: {time.perf_counter() - begun:.1f} s")
    return Result(config, metrics, arrays, rows)


def columns(config: Config, thresholds: Any, seeds: Any, trouble: str) -> dict[str, np.ndarray]:
    """The grid that `train` takes."""
    runs = len(thresholds)
    return {
        "threshold": np.asarray(thresholds, np.float32),
        "seed": np.asarray(seeds),
        "bad": np.full(runs, int(trouble == "bad batch")),
        "heat": np.ones(runs, np.float32),
        "noise": np.full(runs, config.noise if trouble == "heavy-tailed noise" else 0, np.float32),
    }


def pilot_norms(config: Config, text: Corpus, trouble: str) -> np.ndarray:
    """`[seeds, pilot]`: the norms before clipping of runs without clipping."""
    short = dataclasses.replace(config, updates=config.pilot)
    seeds = np.arange(config.seeds)
    grid = columns(config, np.full(config.seeds, INF), seeds, trouble)
    result = train(short, text, "none", grid)
    return np.asarray(result.metrics.aux["norm"])


def grid_losses(config: Config, text: Corpus, trouble: str, suggested: np.ndarray) -> np.ndarray:
    """`[thresholds + 1, seeds]`: final test losses, the suggestion's last."""
    settings = [np.full(config.seeds, t) for t in config.thresholds] + [suggested]
    seeds = np.tile(np.arange(config.seeds), len(settings))
    grid = columns(config, np.concatenate(settings), seeds, trouble)
    result: SweepResult = train(config, text, RULE, grid)
    losses = np.asarray(result.evaluations["loss"])[:, -1]
    lost = (result.diverged_at >= 0) | ~np.isfinite(losses)
    return np.where(lost, np.log(text.symbols), losses).reshape(len(settings), config.seeds)


def judge(config: Config, losses: np.ndarray, suggested: np.ndarray) -> dict[str, Any]:
    """The suggestion against the best threshold on the mean over seeds, and against no clipping."""
    mean = losses.mean(1)
    best = int(np.argmin(mean[:-1]))
    above = losses[-1] / losses[best] - 1
    interval = bootstrap_interval(above, np.mean)
    return {
        "thresholds": config.thresholds,
        "loss": mean[:-1],
        "loss_interval": [bootstrap_interval(row, np.mean) for row in losses[:-1]],
        "suggested": {"median": float(np.median(suggested)), "low": suggested.min(), "high": suggested.max()},
        "loss_with_suggestion": float(mean[-1]),
        "best_threshold": config.thresholds[best],
        "best_loss": float(mean[best]),
        "above_best": float(mean[-1] / mean[best] - 1),
        "above_best_interval": interval,
        "within": bool(mean[-1] <= (1 + config.allowed) * mean[best]),
        "surely_within": bool(interval[1] <= config.allowed),
    }


def row_of(trouble: str, found: dict[str, Any]) -> tuple[str, ...]:
    """The numbers of one trouble as text."""
    low, high = (100 * x for x in found["above_best_interval"])
    return (
        trouble,
        f"{found['suggested']['median']:.2g}",
        f"{found['loss_with_suggestion']:.3f}",
        f"{found['best_loss']:.3f} at {found['best_threshold']:g}",
        f"{100 * found['above_best']:+.1f} % [{low:+.1f}, {high:+.1f}]",
    )


def draw(result: Result) -> dict[str, Any]:
    """Final loss against the threshold, a panel for each trouble, with the suggestion."""
    fig, axes = figure(1, len(TROUBLES), size=(4.3 * len(TROUBLES), 3.6), sharey=True)
    finite = [t for t in result.config.thresholds if np.isfinite(t)]
    for ax, trouble in zip(axes, TROUBLES):
        found = result.metrics[trouble]
        low, high = np.array(found["loss_interval"]).T
        mean = np.asarray(found["loss"])
        places = [t if np.isfinite(t) else 4 * max(finite) for t in found["thresholds"]]
        ax.errorbar(places, mean, [mean - low, high - mean], fmt="o-", color=COLORS["clipped"], capsize=3, ms=4)
        s = found["suggested"]
        ax.axvspan(s["low"], s["high"], color=COLORS["accent"], alpha=0.15, lw=0)
        ax.plot(s["median"], found["loss_with_suggestion"], "D", color=COLORS["accent"], label="suggested, each seed's")
        best = found["best_loss"]
        within = best, best * (1 + result.config.allowed)
        ax.axhspan(*within, color=COLORS["good"], alpha=0.25, lw=0, label=f"best + {result.config.allowed:.0%}")
        ticks = [*finite, *([4 * max(finite)] if len(finite) < len(found["thresholds"]) else [])]
        names = [f"{t:g}" for t in finite] + ["none"]
        ax.set(xscale="log", title=trouble, xlabel="threshold of the global norm")
        ax.set_xticks(ticks, names[: len(ticks)], minor=False)
        ax.set_xticks([], minor=True)
    axes[0].set_ylabel("test loss at the end (nats per symbol)")
    axes[0].legend(fontsize=8)
    return {"threshold_transfer": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
