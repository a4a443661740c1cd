"""Nottingham (polyphonic music), clipped against unclipped, the state carried from piece to piece of a song.

The settings are the paper's (arXiv v1: 100 tanh units with biases, pieces of 100, rate 0.001, threshold 120) with the
stated budget of updates; what that version does not say (initial weights, order of the songs, decay of the rate, the
loss summed over a piece) is in the configuration below. The paper's scale differs in budget and seeds alone.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.data import load_polyphonic
from cliffs.sweeps import SweepResult, product_grid
from experiments.training._resumable import whole_sweep

ALL_CORES = True
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Nottingham; pieces of one song after the other, the loss summed over a piece."""

    data_dir: str | None = None
    """Folder that holds polyphonic/Nottingham.mat; the data are downloaded when it is not given."""
    dataset: str = "Nottingham"
    hidden: int = 100
    piece_length: int = 100
    learning_rates: tuple[float, ...] = (0.001,)
    threshold: float = 120.0
    std: float = 0.1
    """Of all initial weights."""
    output_bias: float = -3.0
    shuffle_songs: bool = True
    """A new order of the songs every epoch, of each seed's own; pieces within a song stay in order."""
    final_rate: float = 0.05
    """The rate falls by one factor after every epoch, to this share of itself in the last."""
    epochs: int = 28
    seeds: int = 4
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


PAPER = Config(epochs=200, seeds=5)


class Result(NamedTuple):
    """Scores of both arms, and everything that the figure shows."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print, keep: Any = lambda arrays: None) -> Result:
    """Train clipped and unclipped, and take every fold at the evaluation with the best validation score."""
    from experiments.training import natural_report as report

    result, curves = train(config)
    arrays = report.arrays_of(result, curves)
    # On disk before anything is made of it: a slip in a table or a figure must not cost the training.
    keep(arrays)
    say("trained")
    summary = report.summarise(result, curves, config.threshold)
    label = f"{config.dataset}, {config.epochs} epochs, {config.seeds} seeds"
    return Result(config, summary, arrays, report.rows("music", label, "nats/step", summary))


def draw(result: Result) -> dict[str, Any]:
    """Learning curves, and the gradient norms against the threshold."""
    from experiments.training import natural_report as report

    title = result.config.dataset
    fig = report.learning_curves(result.arrays, result.config.threshold, "nats/step", title, "epoch", 9.0)
    return {"music": fig}


def train(config: Config) -> tuple[SweepResult, dict[str, np.ndarray]]:
    """All runs; per epoch the mean NLL of train (as met), validation and test, `[runs, epochs]`."""
    songs = load_polyphonic(config.dataset, config.data_dir)
    step = recurrent.rnn_step("tanh")
    keys = songs.train[0].shape[1]
    pieces = tasks.song_pieces(songs.train, config.piece_length)
    count = len(pieces.first)
    decay = config.final_rate ** (1 / max(config.epochs - 1, 1))
    data = {
        "pieces": pieces._replace(song=pieces.song.astype(np.int32)),
        "order": piece_orders(config, pieces.song),
        "valid": tasks.song_batches(songs.valid, 200),
        "test": tasks.song_batches(songs.test, 200),
    }

    def optimizer(run):
        """Clipped SGD; a threshold of infinity is plain SGD."""
        schedule = optax.exponential_decay(1.0, count, decay, staircase=True)
        clip, rate = optax.clip_by_global_norm(run["max_norm"]), optax.sgd(run["learning_rate"])
        return optax.chain(clip, optax.scale_by_schedule(schedule), rate)

    def loss(params, batch):
        hidden, piece = batch
        nats, after = tasks.music_nats(step, params, hidden, *piece)
        return nats.sum(), after

    def init(run):
        gauss = recurrent.gaussian(config.std)
        shape = keys, config.hidden, keys
        params = recurrent.init_model(jax.random.key(run["seed"]), *shape, w_rec=gauss, w_in=gauss, w_out=gauss)
        bias = jnp.full(keys, config.output_bias)
        params = params._replace(readout=params.readout._replace(bias=bias))
        return training.init_truncated(params, optimizer(run), jnp.zeros(config.hidden))

    def update(state, run, data):
        at = data["order"][run["seed"], state.step]
        inputs, targets, mask, first, _ = jax.tree.map(lambda x: x[at], data["pieces"])
        return training.truncated_step(state, (inputs, targets, mask), loss, optimizer(run), reset=first)

    def evaluate(state, run, data):
        return {fold: tasks.nats_per_step(step, state.train.params, data[fold]) for fold in ("valid", "test")}

    axes = {"learning_rate": config.learning_rates, "max_norm": [config.threshold, INF]}
    grid = product_grid(**axes, seed=list(range(config.seeds)))
    options: dict[str, Any] = {"evaluate": evaluate, "evaluate_every": count, "data": data}
    options |= {"folder": config.checkpoint, "name": config.dataset}
    result = whole_sweep(init, update, grid, count * config.epochs, **options)
    met = result.metrics.loss.reshape(len(grid["seed"]), -1, count).sum(-1) / pieces.mask.sum()
    return result, {"train": met, **result.evaluations}


def piece_orders(config: Config, song: np.ndarray) -> np.ndarray:
    """`[seeds, epochs * pieces]`: which piece every update takes; the order of (seed, epoch) depends on those alone."""
    orders = np.empty((config.seeds, config.epochs, len(song)), np.int32)
    for seed, epoch in np.ndindex(orders.shape[:2]):
        rank = np.arange(song.max() + 1)
        if config.shuffle_songs:
            rank = np.random.default_rng([seed, epoch]).permutation(rank)
        orders[seed, epoch] = np.argsort(rank[song], kind="stable")
    return orders.reshape(config.seeds, -1)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
