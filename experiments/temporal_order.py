"""Temporal order: the success rate against the clipping threshold (the question of the ICML version's Fig. 7).

python experiments/temporal_order.py --seeds 16 --length 20
"""

import dataclasses
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class TemporalOrder:
    """Temporal order: success rate against the clipping threshold."""

    length: int = 20
    max_length: int | None = None
    """When given, every batch has one length from `length` up to, not including, this."""
    hidden: int = 50
    init: str = "smart_tanh"
    learning_rate: float = 0.1
    batch_size: int = 20
    updates: int = 10_000
    thresholds: tuple[float, ...] = (INF, 10.0, 1.0, 0.3, 0.1)
    seeds: int = 16
    evaluate_every: int = 200
    evaluation_size: int = 1_000
    success_error: float = 0.01
    """Solved: less than this share of fresh sequences wrong."""


def scaled(scale: str, budget: float = 1.0) -> TemporalOrder:
    """The ICML settings: lengths 50 to 200, learning rate 0.01, 5M updates, 10,000 test sequences, 5 seeds."""
    from experiments.common import budgeted

    config = TemporalOrder()
    if scale == "paper":
        config = TemporalOrder(
            length=50, max_length=200, learning_rate=0.01, updates=5_000_000, seeds=5, evaluate_every=2_000,
            evaluation_size=10_000,
        )  # fmt: skip
    updates, every = budgeted(config.updates, config.evaluate_every, budget)
    return dataclasses.replace(config, updates=updates, evaluate_every=every)


def train(config: TemporalOrder, seed: int = 0, progress: bool = True):
    """All seeds and thresholds as one compiled program; returns a `SweepResult`."""
    import jax
    import optax

    from cliffs import recurrent, tasks, training
    from cliffs.sweeps import product_grid, sweep

    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    loss = training.classification_loss(step)

    def keys(run):
        return jax.random.split(jax.random.fold_in(jax.random.key(seed), run["seed"]), 3)

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(config.learning_rate))

    def sample(key, size):
        return tasks.temporal_order(key, size, config.length, max_length=config.max_length)

    def init(run):
        params = recurrent.paper_init(config.init, keys(run)[0], 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        batch = sample(jax.random.fold_in(keys(run)[1], state.step), config.batch_size)
        return training.train_step(state, batch, loss, optimizer(run))

    def evaluate(state, run):
        batch = sample(jax.random.fold_in(keys(run)[2], state.step), config.evaluation_size)
        error = loss(state.params, batch)[1]
        return {"error": error, "solved": error < config.success_error}

    grid = product_grid(max_norm=config.thresholds, seed=list(range(config.seeds)))
    return sweep(
        init, update, grid, config.updates, evaluate=evaluate, evaluate_every=config.evaluate_every,
        stop_when_solved=True, progress=progress,
    )  # fmt: skip


def part(config: TemporalOrder, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """How often is temporal order learned, by clipping threshold? Rows, numbers, arrays and figure for a report."""
    import matplotlib
    import numpy as np

    from cliffs.plotting import COLORS, figure
    from experiments.common import wilson

    result = train(config, seed, progress)
    table = []
    for threshold in config.thresholds:
        mine = result.grid["max_norm"] == threshold
        solved_at = result.solved_at[mine]
        wins = int((solved_at >= 0).sum())
        norms = result.metrics.grad_norm[mine]
        norms = norms[np.isfinite(norms)]
        low, high = wilson(wins, config.seeds)
        table.append(
            {
                "threshold": threshold, "solved": wins, "seeds": config.seeds, "rate": wins / config.seeds,
                "low": low, "high": high, "diverged": int((result.diverged_at[mine] >= 0).sum()),
                "median_updates": float(np.median(solved_at[solved_at >= 0])) if wins else None,
                "clipped_steps": float((norms > threshold).mean()), "largest_norm": float(norms.max(initial=0)),
            }
        )  # fmt: skip
    best = max((r for r in table if r["threshold"] < INF), key=lambda r: (r["rate"], -(r["median_updates"] or INF)))
    none = next(r for r in table if r["threshold"] == INF)

    def text(r):
        name = "no clipping" if r["threshold"] == INF else f"threshold {r['threshold']:g}"
        return (
            f"Temporal order T={config.length}{f'..{config.max_length - 1}' if config.max_length else ''}: {name}",
            f"{100 * r['rate']:.0f} % solved [{100 * r['low']:.0f}, {100 * r['high']:.0f}], {r['solved']}/{r['seeds']}"
            + (f", median {r['median_updates']:.0f} updates" if r["solved"] else ""),
            "-",
        )

    fig, axes = figure(1, 2, size=(10.5, 3.9))
    places = np.arange(len(table))
    labels = ["none" if r["threshold"] == INF else f"{r['threshold']:g}" for r in table]
    rates = np.array([r["rate"] for r in table])
    error = np.abs(np.array([[r["low"], r["high"]] for r in table]).T - rates)
    colors = [COLORS["unclipped" if r["threshold"] == INF else "clipped"] for r in table]
    axes[0].bar(places, 100 * rates, color=colors, width=0.6)
    axes[0].errorbar(places, 100 * rates, 100 * error, fmt="none", color="black", capsize=4, linewidth=1.2)
    axes[0].set_xticks(places, labels)
    axes[0].set_ylim(0, 105)
    axes[0].set_xlabel("clipping threshold")
    axes[0].set_ylabel("% of seeds that solve the task")
    axes[0].set_title(f"{config.seeds} seeds, 95 % Wilson intervals")
    updates = np.arange(1, config.updates // config.evaluate_every + 1) * config.evaluate_every
    for r, label in zip(table, labels):
        mine = result.solved_at[result.grid["max_norm"] == r["threshold"]]
        curve = [100 * ((mine >= 0) & (mine <= u)).mean() for u in updates]
        shade = matplotlib.colormaps["viridis"](0.15 + 0.7 * labels.index(label) / len(labels))
        style = {"color": COLORS["unclipped"], "linewidth": 2.4} if label == "none" else {"color": shade}
        axes[1].plot(updates, curve, label=label, **style)
    axes[1].set_xscale("log")
    axes[1].set_ylim(0, 105)
    axes[1].set_xlabel("updates")
    axes[1].set_ylabel("% solved so far")
    axes[1].legend(title="threshold")
    axes[1].set_title(f"Length {config.length}, {config.hidden} {config.init} units, rate {config.learning_rate}")
    metrics = {
        "table": table, "best_threshold": best["threshold"], "intervals_disjoint": best["low"] > none["high"],
    }  # fmt: skip
    arrays = {
        "max_norm": result.grid["max_norm"], "seed": result.grid["seed"], "solved_at": result.solved_at,
        "diverged_at": result.diverged_at, "steps_run": result.steps_run, "error": result.evaluations["error"],
    }  # fmt: skip
    return {
        "rows": [text(r) for r in table], "metrics": metrics, "arrays": arrays,
        "figures": {"temporal_order": fig}, "settings": dataclasses.asdict(config),
    }  # fmt: skip


if __name__ == "__main__":
    import tyro

    config = tyro.cli(TemporalOrder)
    from cliffs.sweeps import use_all_cores

    use_all_cores()
    from experiments import common

    started = time.perf_counter()
    done = part(config)
    common.save(
        "temporal_order", metrics=done["metrics"], settings=done["settings"], started=started,
        arrays=done["arrays"], figures=done["figures"],
    )  # fmt: skip
    for row in done["rows"]:
        print(*row, sep="   ")
