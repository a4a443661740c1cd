"""Thresholds x learning rates x seeds as one compiled program, and the success rates as a heat map."""

import pathlib
import tempfile

import jax
import matplotlib
import numpy as np
import optax

import cliffs
from cliffs import recurrent, sweeps, tasks, training

matplotlib.use("Agg")
import matplotlib.pyplot as plt

THRESHOLDS, RATES, SEEDS = [0.1, 1.0, float("inf")], [0.03, 0.1, 0.3], [0, 1]
loss = training.classification_loss(recurrent.rnn_step("tanh"))


def optimizer(run):
    return optax.chain(cliffs.clip_by_global_norm(run["max_norm"]), optax.sgd(run["lr"]))


def init(run):
    params = recurrent.paper_init("smart_tanh", jax.random.key(run["seed"]), 6, 20, 4)
    return training.init_train_state(params, optimizer(run))


def update(state, run):
    key = jax.random.fold_in(jax.random.key(run["seed"] + 1000), state.step)
    return training.train_step(state, tasks.temporal_order(key, 20, 10), loss, optimizer(run))


def main(folder: pathlib.Path | None = None) -> None:
    folder = folder or pathlib.Path(tempfile.mkdtemp())
    grid = sweeps.product_grid(max_norm=THRESHOLDS, lr=RATES, seed=SEEDS)
    result = cliffs.sweep(init, update, grid, num_steps=100, evaluate_every=100, progress=False)
    shape = len(THRESHOLDS), len(RATES), len(SEEDS)
    final = result.metrics.loss[:, -20:].mean(1).reshape(shape).mean(2)
    fig, ax = plt.subplots(layout="constrained")
    image = ax.imshow(final, cmap="viridis_r", aspect="auto")
    ax.set_xticks(range(len(RATES)), map(str, RATES))
    ax.set_yticks(range(len(THRESHOLDS)), map(str, THRESHOLDS))
    ax.set(xlabel="learning rate", ylabel="clipping threshold", title="loss of the last 20 updates [nats]")
    fig.colorbar(image)
    fig.savefig(folder / "heat_map.png")
    print(f"{len(grid['seed'])} runs; lowest mean loss {np.nanmin(final):.3f}; figure in {folder.name}/heat_map.png")


if __name__ == "__main__":
    main()
