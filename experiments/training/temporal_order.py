"""How often is temporal order learned, by clipping threshold? (The question of the ICML version's Fig. 7.)

All seeds and thresholds train as one program. A run has solved the task when less than 1 % of fresh sequences are
wrong.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.plotting import COLORS, figure
from cliffs.stats import wilson_interval
from cliffs.sweeps import SweepResult, product_grid
from experiments.training._resumable import whole_sweep

ALL_CORES = True
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Temporal order: success rate against the clipping threshold."""

    length: int = 20
    max_length: int | None = None
    """When given, every batch has one length from `length` up to, not including, this."""
    hidden: int = 50
    init: str = "smart_tanh"
    learning_rate: float = 0.1
    batch: int = 20
    updates: int = 10_000
    thresholds: tuple[float, ...] = (INF, 10.0, 1.0, 0.3, 0.1)
    seeds: int = 16
    evaluate_every: int = 200
    test_batch: int = 1_000
    """Fresh sequences per evaluation."""
    success_error: float = 0.01
    """Solved: less than this share of fresh sequences wrong."""
    seed: int = 0
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


PAPER = Config(
    length=50,
    max_length=200,
    learning_rate=0.01,
    updates=5_000_000,
    seeds=5,
    evaluate_every=2_000,
    test_batch=10_000,
)
"""The ICML settings: lengths 50 to 200, learning rate 0.01, 5M updates, 10,000 test sequences, 5 seeds."""


class Result(NamedTuple):
    """The runs, counted by threshold."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config) -> Result:
    """Train and count."""
    result = train(config)
    table = [count(config, result, threshold) for threshold in config.thresholds]
    finite = [row for row in table if row["threshold"] < INF]
    best = max(finite, key=lambda r: (r["rate"], -(r["median_updates"] or INF)))
    none = next((row for row in table if row["threshold"] == INF), None)
    disjoint = best["low"] > none["high"] if none else None
    metrics = {"table": table, "best_threshold": best["threshold"], "intervals_disjoint": disjoint}
    arrays = {
        "max_norm": result.grid["max_norm"],
        "seed": result.grid["seed"],
        "solved_at": result.solved_at,
        "diverged_at": result.diverged_at,
        "steps_run": result.steps_run,
        "error": result.evaluations["error"],
    }
    return Result(config, metrics, arrays, [words(config, row) for row in table])


def train(config: Config) -> SweepResult:
    """All seeds and thresholds as one compiled program."""
    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    loss = training.classification_loss(step)

    def keys(run):
        return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run["seed"]), 3)

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(config.learning_rate))

    def sample(key, size):
        return tasks.temporal_order(key, size, config.length, max_length=config.max_length)

    def init(run):
        params = recurrent.paper_init(config.init, keys(run)[0], 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        batch = sample(jax.random.fold_in(keys(run)[1], state.step), config.batch)
        return training.train_step(state, batch, loss, optimizer(run))

    def evaluate(state, run):
        batch = sample(jax.random.fold_in(keys(run)[2], state.step), config.test_batch)
        error = loss(state.params, batch)[1]
        return {"error": error, "solved": error < config.success_error}

    grid = product_grid(max_norm=config.thresholds, seed=list(range(config.seeds)))
    options = {"evaluate_every": config.evaluate_every, "stop_when_solved": True, "folder": config.checkpoint}
    return whole_sweep(init, update, grid, config.updates, evaluate=evaluate, **options)


def count(config: Config, result: SweepResult, threshold: float) -> dict[str, Any]:
    """How many runs of one threshold solved the task, when, and how much was clipped."""
    mine = result.grid["max_norm"] == threshold
    solved_at = result.solved_at[mine]
    wins = int((solved_at >= 0).sum())
    norms = result.metrics.grad_norm[mine]
    norms = norms[np.isfinite(norms)]
    low, high = wilson_interval(wins, config.seeds)
    return {
        "threshold": threshold,
        "solved": wins,
        "seeds": config.seeds,
        "rate": wins / config.seeds,
        "low": low,
        "high": high,
        "diverged": int((result.diverged_at[mine] >= 0).sum()),
        "median_updates": float(np.median(solved_at[solved_at >= 0])) if wins else None,
        "clipped_steps": float((norms > threshold).mean()),
        "largest_norm": float(norms.max(initial=0)),
    }


def words(config: Config, row: dict[str, Any]) -> tuple[str, str, str]:
    """One row of the printed table."""
    name = "no clipping" if row["threshold"] == INF else f"threshold {row['threshold']:g}"
    length = f"{config.length}..{config.max_length - 1}" if config.max_length else f"{config.length}"
    low, rate, high = (f"{100 * row[k]:.0f}" for k in ("low", "rate", "high"))
    solved = f"{rate} % solved [{low}, {high}], {row['solved']}/{row['seeds']}"
    when = f", median {row['median_updates']:.0f} updates" if row["solved"] else ""
    return f"Temporal order T={length}: {name}", solved + when, "-"


def draw(result: Result) -> dict[str, Any]:
    """The success rate by threshold, and how it grows with the updates."""
    fig, (left, right) = figure(1, 2, size=(10.5, 3.9))
    _draw_rates(left, result)
    _draw_progress(right, result)
    return {"temporal_order": fig}


def _name(threshold: float) -> str:
    return "none" if threshold == INF else f"{threshold:g}"


def _draw_rates(ax: Any, result: Result) -> None:
    table = result.metrics["table"]
    places, rates = np.arange(len(table)), np.array([r["rate"] for r in table])
    error = np.abs(np.array([[r["low"], r["high"]] for r in table]).T - rates)
    colors = [COLORS["unclipped" if r["threshold"] == INF else "clipped"] for r in table]
    ax.bar(places, 100 * rates, color=colors, width=0.6)
    ax.errorbar(places, 100 * rates, 100 * error, fmt="none", color="black", capsize=4, linewidth=1.2)
    ax.set_xticks(places, [_name(r["threshold"]) for r in table])
    ax.set(ylim=(0, 105), xlabel="clipping threshold", ylabel="% of seeds that solve the task")
    ax.set_title(f"{result.config.seeds} seeds, 95 % Wilson intervals")


def _draw_progress(ax: Any, result: Result) -> None:
    from matplotlib import colormaps

    config, arrays = result.config, result.arrays
    updates = np.arange(1, config.updates // config.evaluate_every + 1) * config.evaluate_every
    for i, threshold in enumerate(config.thresholds):
        solved = arrays["solved_at"][arrays["max_norm"] == threshold]
        curve = [100 * ((solved >= 0) & (solved <= u)).mean() for u in updates]
        shade = colormaps["viridis"](0.15 + 0.7 * i / len(config.thresholds))
        style = {"color": COLORS["unclipped"], "linewidth": 2.4} if threshold == INF else {"color": shade}
        ax.plot(updates, curve, label=_name(threshold), **style)
    ax.set(xscale="log", ylim=(0, 105), xlabel="updates", ylabel="% solved so far")
    ax.legend(title="threshold")
    ax.set_title(f"Length {config.length}, {config.hidden} {config.init} units, rate {config.learning_rate}")


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
