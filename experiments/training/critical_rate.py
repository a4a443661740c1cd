"""The largest learning rate that still trains against the delay of a task: does clipping move the border?

A cue (+1 or -1) is shown at the first step; after a delay of silence the sign is asked for. Leaky tanh networks, SGD
with momentum, a grid of rates x delays x seeds, with and without clipping: thousands of networks, one sweep a delay. A
study of 2025 trained about 80,000 of them and found the largest rate to fall as delay^-beta. Here the border of a
seed is the largest rate at which it learns, and beta is fitted to the medians over seeds.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, training
from cliffs.plotting import COLORS, figure
from cliffs.sweeps import product_grid
from experiments.training._resumable import whole_sweep

ALL_CORES = True
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Rates, delays and seeds; with the defaults 5,760 networks."""

    delays: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    """Silent steps between cue and answer."""
    rates: tuple[float, ...] = tuple(np.geomspace(1e-3, 3.0, 15).round(5).tolist())
    thresholds: tuple[float, ...] = (INF, 1.0)
    seeds: int = 32
    hidden: int = 32
    leak: float = 0.5
    """a of h_t = (1 - a) h_{t-1} + a tanh(W h_{t-1} + w u_t)."""
    momentum: float = 0.9
    updates: int = 1_000
    evaluate_every: int = 50
    solved_loss: float = 0.05
    """Squared error of the two answers, +1 and -1: guessing 0 costs 1."""
    seed: int = 0
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


class Result(NamedTuple):
    """Shares of seeds that learn, and the border."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """One sweep for each delay; then the border of every seed and its slope."""
    shape = (len(config.delays), len(config.thresholds), len(config.rates), config.seeds)
    solved = np.zeros(shape, bool)
    for i, delay in enumerate(config.delays):
        result = train(config, delay)
        solved[i] = (result.solved_at >= 0).reshape(shape[1:])
        say(f"delay {delay}: {solved[i].sum((1, 2)).tolist()} of {shape[2] * shape[3]} learned")
    metrics: dict[str, Any] = {"networks": solved.size, "thresholds": {}}
    rows = [("networks trained", f"{solved.size:,}", "about 80,000 (ICML 2025)")]
    borders = border(config, solved)
    for j, threshold in enumerate(config.thresholds):
        fit = slope(config, borders[:, j])
        metrics["thresholds"][f"{threshold:g}"] = {
            "median_border": np.nanmedian(borders[:, j], 1),
            "seeds_that_learn_at_some_rate": np.isfinite(borders[:, j]).sum(1),
            **fit,
        }
        name = "no clipping" if threshold == INF else f"threshold {threshold:g}"
        text = f"{fit['beta']:.2f} [{fit['low']:.2f}, {fit['high']:.2f}]"
        rows.append((f"{name}: beta of rate ~ delay^-beta", text, "4 to 5 (slow points), 2 to 3 (cycles)"))
    shift = np.nanmedian(borders[:, 1:] / borders[:, :1], axis=2) if len(config.thresholds) > 1 else None
    if shift is not None:
        metrics["border_over_that_without_clipping"] = shift
        words = ", ".join(f"{d}: {x:.2g}" for d, x in zip(config.delays, shift[:, 0]))
        rows.append(("border with clipping over that without, by delay", words, "1: clipping does not move it"))
    return Result(config, metrics, {"solved": solved, "borders": borders}, rows)


def train(config: Config, delay: int) -> Any:
    """All rates, thresholds and seeds at one delay; runs that have learned or diverged leave."""
    cue = jnp.array([1.0, -1.0])
    inputs = jnp.zeros((delay + 2, 2, 1)).at[0, :, 0].set(cue)

    def step(params, state, u):
        drive = state @ params["w_rec"] + u @ params["w_in"]
        return (1 - config.leak) * state + config.leak * jnp.tanh(drive)

    def loss(params, batch):
        last = recurrent.unroll(step, params, jnp.zeros((2, config.hidden)), batch)[-1]
        return ((last @ params["w_out"])[:, 0] - cue) @ ((last @ params["w_out"])[:, 0] - cue) / 2

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(run["rate"], config.momentum))

    def init(run):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run["seed"]), 3)
        glorot, n = jax.nn.initializers.glorot_normal(), config.hidden
        w_rec = glorot(keys[0], (n, n)) * (1 - jnp.eye(n))  # no unit drives itself
        params = {"w_rec": w_rec, "w_in": glorot(keys[1], (1, n)), "w_out": glorot(keys[2], (n, 1))}
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        return training.train_step(state, inputs, lambda p, b: (loss(p, b), None), optimizer(run))

    def evaluate(state, run):
        value = loss(state.params, inputs)
        return {"loss": value, "solved": value < config.solved_loss}

    options: dict[str, Any] = {"evaluate_every": config.evaluate_every, "record_every": config.evaluate_every}
    options |= {"folder": config.checkpoint, "name": f"delay_{delay}"}
    grid = product_grid(max_norm=config.thresholds, rate=config.rates, seed=list(range(config.seeds)))
    options |= {"evaluate": evaluate, "stop_when_solved": True, "record": {"loss": "last"}}
    return whole_sweep(init, update, grid, config.updates, **options)


def border(config: Config, solved: np.ndarray) -> np.ndarray:
    """`[delays, thresholds, seeds]`: the largest rate at which a seed learns; NaN where it learns at none."""
    rates = np.array(config.rates)[:, None]
    largest = np.where(solved, rates, 0).max(2)
    return np.where(largest > 0, largest, np.nan)


def slope(config: Config, borders: np.ndarray, resamples: int = 2_000) -> dict[str, float]:
    """beta of `median border ~ delay^-beta` by least squares on logs, and its bootstrap interval over seeds."""
    logs = np.log(np.asarray(config.delays, float))

    def fit(values: np.ndarray) -> float:
        good = np.isfinite(values).sum(1) >= max(1, values.shape[1] // 2)
        if good.sum() < 2:
            return float("nan")
        return float(-np.polyfit(logs[good], np.log(np.nanmedian(values[good], 1)), 1)[0])

    rng = np.random.default_rng(config.seed)
    seeds = borders.shape[1]
    draws = [fit(borders[:, rng.integers(0, seeds, seeds)]) for _ in range(resamples)]
    low, high = np.nanquantile(draws, [0.025, 0.975]) if np.isfinite(draws).any() else (np.nan, np.nan)
    return {"beta": fit(borders), "low": float(low), "high": float(high)}


def draw(result: Result) -> dict[str, Any]:
    """The share of seeds that learn by rate and delay, and the border."""
    config, solved = result.config, result.arrays["solved"]
    count = len(config.thresholds)
    fig, axes = figure(1, count + 1, size=(4.2 * (count + 1), 3.6))
    places, images = np.arange(len(config.delays)), []
    for j, threshold in enumerate(config.thresholds):
        name = "no clipping" if threshold == INF else f"clipped at {threshold:g}"
        shares = solved[:, j].mean(2).T
        images.append(axes[j].imshow(shares, origin="lower", aspect="auto", vmin=0, vmax=1, cmap="viridis"))
        axes[j].set(title=name, xlabel="delay, steps", xticks=places, xticklabels=config.delays)
        few = np.arange(0, len(config.rates), max(1, len(config.rates) // 6))
        axes[j].set(ylabel="learning rate", yticks=few, yticklabels=[f"{config.rates[i]:.2g}" for i in few])
        axes[j].grid(False)
        color = COLORS["unclipped"] if threshold == INF else COLORS["clipped"]
        values = result.arrays["borders"][:, j]
        axes[-1].plot(config.delays, np.nanmedian(values, 1), "o-", color=color, label=name)
        axes[-1].fill_between(config.delays, *np.nanquantile(values, [0.25, 0.75], axis=1), color=color, alpha=0.2)
    fig.colorbar(images[0], ax=axes[:count], label="share of seeds that learn")
    axes[-1].set(xscale="log", yscale="log", xlabel="delay, steps", ylabel="largest rate that learns")
    axes[-1].set(title="median and quartiles of seeds")
    axes[-1].set_xticks(config.delays, [str(d) for d in config.delays])
    axes[-1].minorticks_off()
    axes[-1].legend()
    return {"critical_rate": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
