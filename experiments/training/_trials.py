"""What the experiments about success have in common: one sweep over methods and seeds, counted with intervals.

A trial trains on fresh batches with clipped SGD and is judged on fresh sequences every so often; it has solved its task
when less than `success_error` of them are wrong.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import penalties, spectra, training
from cliffs.plotting import COLORS
from cliffs.stats import wilson_interval
from cliffs.sweeps import SweepResult
from experiments.training._resumable import whole_sweep

INF = float("inf")
STYLES: dict[str, dict[str, Any]] = {
    "SGD": {"color": COLORS["unclipped"]},
    "clip": {"color": COLORS["clipped"]},
    "clip + Omega": {"color": COLORS["good"]},
}


@dataclasses.dataclass(frozen=True)
class Trials:
    """Settings that all these experiments share."""

    hidden: int = 50
    batch: int = 20
    learning_rate: float = 0.1
    updates: int = 10_000
    evaluate_every: int = 500
    test_batch: int = 1_000
    """Fresh sequences per evaluation."""
    success_error: float = 0.01
    """Solved: less than this share of fresh sequences wrong."""
    seeds: int = 10
    seed: int = 0
    max_norm: float = 1.0
    """The clipping threshold of the methods that clip."""
    omega: float = 4.0
    """The weight of Omega in the methods that have it."""
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


def methods(config: Trials) -> dict[str, tuple[float, float]]:
    """The paper's three: name to `(max_norm, weight of Omega)`."""
    return {"SGD": (INF, 0.0), "clip": (config.max_norm, 0.0), "clip + Omega": (config.max_norm, config.omega)}


def grid_of(config: Trials, chosen: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    """Methods times seeds; the first axis is the method."""
    norms, weights = zip(*chosen.values())
    grid = {
        "method": np.repeat(np.arange(len(chosen)), config.seeds),
        "max_norm": np.repeat(np.array(norms, np.float32), config.seeds),
        "weight": np.repeat(np.array(weights, np.float32), config.seeds),
        "seed": np.tile(np.arange(config.seeds), len(chosen)),
    }
    return grid


def with_omega(step: Any, error: Any) -> Callable[[Any], Any]:
    """`run -> loss` with `run["weight"]` times Omega in its gradient."""

    def loss(run):
        unroll = partial(penalties.unroll_with_omega, weight=run["weight"])
        return training.readout_loss(step, error, unroll=unroll)

    return loss


def train(
    config: Trials,
    grid: Mapping[str, Any],
    *,
    name: str,
    sample: Callable[[Any, int], Any],
    init: Callable[[Any, Any], Any],
    loss: Callable[[Any], Any],
    judge: Any,
    after: Callable[[Any], optax.GradientTransformation] = lambda run: optax.identity(),
    clip: Callable[[Any], optax.GradientTransformation] = lambda run: optax.clip_by_global_norm(run["max_norm"]),
    test_batches: int = 1,
) -> SweepResult:
    """All runs of a grid as one program.

    `sample(key, size)` draws a batch, `init(key, run)` parameters; `loss(run)` is what is trained, `judge` the loss
    whose aux is the share of wrong sequences; `clip(run)` transforms the gradient first, `after(run)` the updates last.
    `name` is the checkpoint's folder. The fresh sequences of an evaluation come in `test_batches` draws of `sample`.
    """

    def keys(run):
        return jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run["seed"]), 3)

    def optimizer(run):
        sgd = optax.sgd(run.get("learning_rate", config.learning_rate))
        return optax.chain(clip(run), sgd, after(run))

    def first(run):
        return training.init_train_state(init(keys(run)[0], run), optimizer(run))

    def update(state, run):
        batch = sample(jax.random.fold_in(keys(run)[1], state.step), config.batch)
        return training.train_step(state, batch, loss(run), optimizer(run))

    def evaluate(state, run):
        key = jax.random.fold_in(keys(run)[2], state.step)
        draws = jax.random.split(key, test_batches) if test_batches > 1 else key[None]
        size = -(-config.test_batch // test_batches)
        error = jax.lax.map(lambda key: judge(state.params, sample(key, size))[1], draws).mean()
        return {"error": error, "solved": error < config.success_error}

    options: dict[str, Any] = {"evaluate_every": config.evaluate_every, "record_every": config.evaluate_every}
    options |= {"evaluate": evaluate, "stop_when_solved": True, "record": {"loss": "mean", "grad_norm": "max"}}
    return whole_sweep(first, update, grid, config.updates, folder=config.checkpoint, name=name, **options)


def count(result: SweepResult, mine: np.ndarray) -> dict[str, Any]:
    """How many of the chosen runs solved the task, with Wilson's interval, and how the others ended."""
    solved_at, runs = result.solved_at[mine], int(mine.sum())
    won = int((solved_at >= 0).sum())
    low, high = wilson_interval(won, runs)
    best = np.nanmin(
        np.where(np.isnan(result.evaluations["error"][mine]), np.inf, result.evaluations["error"][mine]), 1
    )
    return {
        "solved": won,
        "runs": runs,
        "rate": won / runs,
        "low": low,
        "high": high,
        "diverged": int((result.diverged_at[mine] >= 0).sum()),
        "median_updates": float(np.median(solved_at[solved_at >= 0])) if won else None,
        "median_best_error": float(np.median(best)),
    }


def words(row: Mapping[str, Any]) -> str:
    """A count as text."""
    low, rate, high = (f"{100 * row[k]:.0f}" for k in ("low", "rate", "high"))
    when = f", median {row['median_updates']:.0f} updates" if row["solved"] else ""
    diverged = f", {row['diverged']} diverged" if row["diverged"] else ""
    return f"{rate} % [{low}, {high}], {row['solved']}/{row['runs']}{when}{diverged}"


def arrays_of(result: SweepResult, prefix: str) -> dict[str, np.ndarray]:
    """What is kept of a sweep: where each run ended, and its errors."""
    return {
        f"{prefix}_{name}": np.asarray(array)
        for name, array in (
            ("method", result.grid["method"]),
            ("seed", result.grid["seed"]),
            ("solved_at", result.solved_at),
            ("diverged_at", result.diverged_at),
            ("error", result.evaluations["error"]),
        )
    }


def growth(step: Any, params: Any, start: Any, inputs: Any) -> jax.Array:
    """`[n]`: mean over sequences of `log(singular value of J_T ... J_1) / T`, largest first, in nats per step.

    `start` are the states `x_0` with leaves `[batch, ...]`, `inputs` `[time, batch, features]`.
    """

    def one(start, inputs):
        def body(state, u):
            return step(params, state, u), state

        before = jax.lax.scan(body, start, inputs)[1]
        product = spectra.jacobian_products(spectra.step_jacobians(step, params, before, inputs))
        last = jax.tree.map(lambda x: x[-1:], product)
        return spectra.log_singular_values(last)[0] / len(inputs)

    return jax.vmap(one, (0, 1))(start, inputs).mean(0)


def draw_rates(ax: Any, places: Sequence[float] | np.ndarray, rows: Sequence[Mapping[str, Any]], **style: Any) -> None:
    """Success rates with their intervals as a line."""
    rates = 100 * np.array([row["rate"] for row in rows])
    error = np.abs(100 * np.array([[row["low"], row["high"]] for row in rows]).T - rates)
    ax.errorbar(places, rates, error, marker="o", capsize=3, **style)
    ax.set(ylim=(-3, 105), ylabel="% of runs that solve the task")


def finite_mean(values: Any) -> float:
    """The mean of what is finite; NaN of nothing."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size else float("nan")


def rows_of(state: Any, mine: np.ndarray) -> Any:
    """The chosen runs of a final state, as jax arrays."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[mine]), state)
