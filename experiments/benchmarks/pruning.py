"""Does successive halving find the best of 243 settings with a third of the updates?

27 learning rates x 9 clipping thresholds train small networks on temporal order. The best setting is the one with the
lowest loss on fixed test sequences after all updates of an unpruned sweep; a pruned run computes the same bits, so the
best one is found if and only if it survives every rung. Repeated with other seeds. `regret` is the loss of the pruned
sweep's winner over the best one.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.sweeps import product_grid, prune, sweep

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """The grid, the rungs and the repetitions."""

    repetitions: int = 10
    rates: int = 27
    thresholds: int = 9
    updates: int = 600
    evaluate_every: int = 20
    eta: float = 3
    rungs: tuple[int, ...] = (6, 10, 14, 18)
    """After which evaluations a third goes on: 243, 81, 27, 9, 3."""
    survivors: int = 3
    batch: int = 20
    length: int = 10
    hidden: int = 20
    test_sequences: int = 200


class Result(NamedTuple):
    """One entry a repetition."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Every repetition with and without pruning."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    test = tasks.temporal_order(jax.random.key(77), config.test_sequences, config.length)

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(run["rate"], momentum=0.9))

    def init(run):
        params = recurrent.paper_init("smart_tanh", jax.random.key(run["seed"]), 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        key = jax.random.fold_in(jax.random.key(run["seed"] + 1000), state.step)
        return training.train_step(state, tasks.temporal_order(key, config.batch, config.length), loss, optimizer(run))

    def evaluate(state, run):
        return {"loss": loss(state.params, test)[0]}

    rule = prune.successive_halving("loss", config.eta, rungs=config.rungs, survivors=config.survivors)
    found, regrets, shares = [], [], []
    for seed in range(config.repetitions):
        grid = product_grid(
            rate=np.geomspace(1e-4, 3.0, config.rates), max_norm=np.geomspace(0.03, 30, config.thresholds), seed=[seed]
        )
        options = {"evaluate": evaluate, "evaluate_every": config.evaluate_every, "record": (), "progress": False}
        whole = sweep(init, update, grid, config.updates, **options)
        pruned = sweep(init, update, grid, config.updates, prune=rule, **options)
        best, won = whole.best("loss"), pruned.best("loss")
        found.append(best.index == won.index)
        regrets.append(float(whole.run(won.index).evaluations["loss"][-1] - best.evaluations["loss"][-1]))
        shares.append(float(pruned.steps_run.sum() / whole.steps_run.sum()))
        say(f"seed {seed}: best found: {found[-1]}, regret {regrets[-1]:.3g}, {shares[-1]:.1%} of the updates")
    rows = [
        ("best found", f"{sum(found)}/{len(found)} (wanted 9 of 10)"),
        ("share of the updates", f"{np.mean(shares):.3f} (wanted at most 0.333)"),
        ("regret in nats, largest", f"{max(regrets):.3g}"),
    ]
    metrics = {"found": sum(found), "repetitions": len(found), "share": float(np.mean(shares)), "regrets": regrets}
    return Result(metrics, rows)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
