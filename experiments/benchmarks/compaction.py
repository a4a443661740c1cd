"""What a sweep saves when runs that are finished leave: 70 % of them solve their task early.

Temporal order networks are trained for a fixed number of updates. A run counts as solved from an update on that the
grid names, so that exactly the wanted share leaves, and when. The same sweep is timed with `stop_when_solved` and
without, in turns, after both programs are compiled. `ideal` is the ratio of the updates.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.sweeps import sweep

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid, and when its runs leave."""

    seeds: int = 128
    updates: int = 400
    evaluate_every: int = 20
    early: float = 0.7
    """The share of runs that leave."""
    after: float = 0.1
    """They leave after this share of the updates."""
    batch: int = 20
    length: int = 20
    hidden: int = 50
    turns: int = 2


class Result(NamedTuple):
    """Seconds and ratios."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config) -> Result:
    """Time both."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01))

    def init(run):
        params = recurrent.paper_init("smart_tanh", jax.random.key(run["seed"]), 6, config.hidden, 4)
        return training.init_train_state(params, optimizer)

    def update(state, run):
        key = jax.random.fold_in(jax.random.key(run["seed"] + 10_000), state.step)
        return training.train_step(state, tasks.temporal_order(key, config.batch, config.length), loss, optimizer)

    def evaluate(state, run):
        return {"solved": state.step >= run["solved_after"]}

    leaves = np.random.default_rng(0).permutation(config.seeds) < round(config.early * config.seeds)
    after = np.where(leaves, round(config.after * config.updates), 10 * config.updates)
    grid = {"seed": np.arange(config.seeds), "solved_after": after}

    def once(leave: bool) -> tuple[float, Any]:
        started = time.perf_counter()
        result = sweep(
            init,
            update,
            grid,
            config.updates,
            evaluate=evaluate,
            evaluate_every=config.evaluate_every,
            stop_when_solved=leave,
            progress=False,
        )
        return time.perf_counter() - started, result

    once(True)  # compiles
    seconds: dict[bool, float] = {True: np.inf, False: np.inf}
    results: dict[bool, Any] = {}
    for _ in range(config.turns):
        for leave in (False, True):
            took, results[leave] = once(leave)
            seconds[leave] = min(seconds[leave], took)
    for a, b in zip(jax.tree.leaves(results[True].state), jax.tree.leaves(results[False].state)):
        np.testing.assert_array_equal(a[~leaves], b[~leaves])  # who stays does not notice
    ratio = seconds[False] / seconds[True]
    ideal = results[False].steps_run.sum() / results[True].steps_run.sum()
    rows = [
        ("all runs to the end", f"{seconds[False]:.2f} s"),
        (f"{leaves.mean():.0%} leave", f"{seconds[True]:.2f} s"),
        ("ratio", f"{ratio:.2f} (ideal {ideal:.2f}, wanted 2)"),
    ]
    metrics = {"seconds_kept": seconds[False], "seconds_left": seconds[True], "ratio": ratio, "ideal": float(ideal)}
    return Result(metrics, rows)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
