"""Real sequences, clipped against unclipped: Nottingham (polyphonic music) and Penn Treebank characters.

    python experiments/natural.py --data-dir DATA

The settings are the paper's (arXiv v1: music 100 tanh units with biases, pieces of 100, rate 0.001, threshold 120;
characters 500 logistic units without biases, pieces of 180, threshold 45) with the stated budget of updates; what
that version does not say (initial weights, order of the songs, decay of the rate, batch size, the characters' rate,
the loss summed over a piece and averaged over the batch) is in the configuration below. The paper's scale differs in
budget and seeds alone.
"""

import dataclasses
import pathlib
import sys
import time
from typing import Any, Literal, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.data import load_penn_treebank, load_polyphonic
from cliffs.sweeps import product_grid, sweep, use_all_cores
from experiments import common
from experiments.natural_report import report

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Music:
    """Nottingham; pieces of one song after the other, the loss summed over a piece."""

    dataset: str = "Nottingham"
    hidden: int = 100
    piece_length: int = 100
    learning_rates: tuple[float, ...] = (0.001,)
    threshold: float = 120.0
    std: float = 0.1
    output_bias: float = -3.0
    shuffle_songs: bool = True
    """A new order of the songs every epoch, of each seed's own; pieces within a song stay in order."""
    final_rate: float = 0.05
    """The rate falls by one factor after every epoch, to this share of itself in the last."""
    epochs: int = 28
    seeds: int = 4


@dataclasses.dataclass(frozen=True)
class Characters:
    """Penn Treebank characters without newlines; the loss summed over a piece, the mean over the batch."""

    hidden: int = 500
    piece_length: int = 180
    batch_size: int = 20
    learning_rates: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    """Each of clipped and unclipped is reported at the rate with the best validation score."""
    threshold: float = 45.0
    std: float = 0.05
    updates: int = 2000
    evaluate_every: int = 250
    seeds: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Which sets, at which size, from where."""

    data_dir: str | None = None
    music: Music = dataclasses.field(default_factory=Music)
    characters: Characters = dataclasses.field(default_factory=Characters)
    only: Literal["music", "characters", "both"] = "both"


class StreamState(NamedTuple):
    """A training run whose recurrent state goes on from piece to piece."""

    train: training.TrainState
    hidden: jax.Array

    @property
    def diverged_at(self):
        return self.train.diverged_at


def optimizer(run, decay=1.0, steps_per_epoch=1):
    """Clipped SGD; a threshold of infinity is plain SGD."""
    schedule = optax.exponential_decay(1.0, steps_per_epoch, decay, staircase=True)
    return optax.chain(
        optax.clip_by_global_norm(run["max_norm"]), optax.scale_by_schedule(schedule), optax.sgd(run["learning_rate"])
    )


def carry_on(state: StreamState, loss, opt) -> tuple[StreamState, Any]:
    """One update; the recurrent state that the loss returns is carried on unless it is not finite."""
    train, metrics = training.train_step(state.train, None, loss, opt)
    hidden = jnp.where(jnp.isfinite(metrics.aux), metrics.aux, 0)
    return StreamState(train, hidden), metrics._replace(aux=())


def piece_orders(config: Music, song: np.ndarray) -> np.ndarray:
    """`[seeds, epochs * pieces]`: which piece every update takes; the order of (seed, epoch) depends on those alone."""
    orders = np.empty((config.seeds, config.epochs, len(song)), np.int32)
    for seed, epoch in np.ndindex(orders.shape[:2]):
        rank = np.arange(song.max() + 1)
        if config.shuffle_songs:
            rank = np.random.default_rng([seed, epoch]).permutation(rank)
        orders[seed, epoch] = np.argsort(rank[song], kind="stable")
    return orders.reshape(config.seeds, -1)


def run_music(config: Music, data_dir=None, progress=True):
    """Train clipped and unclipped; per epoch the mean NLL of train (as met), validation and test."""
    songs = load_polyphonic(config.dataset, data_dir)
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
    steps_in = pieces.mask.sum()

    def make(run):
        return optimizer(run, decay, count)

    def init(run):
        params = recurrent.init_model(
            jax.random.key(run["seed"]), keys, config.hidden, keys,
            w_rec=recurrent.gaussian(config.std), w_in=recurrent.gaussian(config.std),
            w_out=recurrent.gaussian(config.std),
        )  # fmt: skip
        bias = jnp.full(keys, config.output_bias)
        params = params._replace(readout=params.readout._replace(bias=bias))
        return StreamState(training.init_train_state(params, make(run)), jnp.zeros(config.hidden))

    def update(state, run, data):
        at = data["order"][run["seed"], state.train.step]
        inputs, targets, mask, first, _ = jax.tree.map(lambda x: x[at], data["pieces"])
        hidden = jnp.where(first, 0, state.hidden)

        def loss(params, _):
            nats, after = tasks.music_nats(step, params, hidden, inputs, targets, mask)
            return nats.sum(), after

        return carry_on(state, loss, make(run))

    def evaluate(state, run, data):
        params = state.train.params
        return {fold: tasks.nats_per_step(step, params, data[fold]) for fold in ("valid", "test")}

    grid = product_grid(
        learning_rate=config.learning_rates, max_norm=[config.threshold, INF], seed=list(range(config.seeds))
    )
    result = sweep(
        init, update, grid, count * config.epochs, evaluate=evaluate, evaluate_every=count, data=data,
        progress=progress,
    )  # fmt: skip
    train = result.metrics.loss.reshape(len(grid["seed"]), -1, count).sum(-1) / steps_in
    return result, {"train": train, **result.evaluations}


def run_characters(config: Characters, data_dir=None, progress=True):
    """Train clipped and unclipped; at every evaluation the bits per character of train (as met), validation, test."""
    corpus = load_penn_treebank(data_dir)
    step = recurrent.rnn_step("logistic")
    symbols = len(corpus.symbols)
    data = {
        fold: tasks.contiguous_pieces(getattr(corpus, fold), config.batch_size, config.piece_length)
        for fold in corpus._fields[:3]
    }
    count = len(data["train"].inputs)

    def init(run):
        gauss = recurrent.gaussian(config.std)
        params = recurrent.init_model(
            jax.random.key(run["seed"]), symbols, config.hidden, symbols,
            w_rec=gauss, w_in=gauss, w_out=gauss, bias=False,
        )  # fmt: skip
        start = jnp.zeros((config.batch_size, config.hidden))
        return StreamState(training.init_train_state(params, optimizer(run)), start)

    def update(state, run, data):
        at = state.train.step % count
        inputs, targets = jax.tree.map(lambda x: x[at], data["train"])
        hidden = jnp.where(at == 0, 0, state.hidden)

        def loss(params, _):
            nats, after = tasks.character_nats(step, params, hidden, inputs, targets)
            return nats.sum(0).mean(), after

        return carry_on(state, loss, optimizer(run))

    def evaluate(state, run, data):
        start = jnp.zeros((config.batch_size, config.hidden))
        return {
            fold: tasks.bits_per_character(step, state.train.params, data[fold], start) for fold in ("valid", "test")
        }

    grid = product_grid(
        learning_rate=config.learning_rates, max_norm=[config.threshold, INF], seed=list(range(config.seeds))
    )
    result = sweep(
        init, update, grid, config.updates, evaluate=evaluate, evaluate_every=config.evaluate_every, data=data,
        progress=progress,
    )  # fmt: skip
    nats = result.metrics.loss / config.piece_length / np.log(2)
    return result, {
        "train": nats.reshape(len(nats), -1, config.evaluate_every).mean(-1), **result.evaluations,
    }  # fmt: skip


def scaled(config: Any, scale: str, budget: float = 1.0) -> Any:
    """The configuration at the paper's sizes (5 seeds, many more updates); `budget` is the share of updates to run."""
    if isinstance(config, Music):
        if scale == "paper":
            config = dataclasses.replace(config, epochs=200, seeds=5)
        return dataclasses.replace(config, epochs=max(1, round(budget * config.epochs)))
    if scale == "paper":
        config = dataclasses.replace(config, updates=100_000, evaluate_every=1_000, seeds=5)
    updates, every = common.budgeted(config.updates, config.evaluate_every, budget)
    return dataclasses.replace(config, updates=updates, evaluate_every=every)


def music_part(config: Music, data_dir: str | None, folder: str) -> dict[str, Any]:
    """The songs for the report; the budget is the configuration's number of epochs."""
    budget = f"{config.epochs} epochs, {config.seeds} seeds"
    return report("music", config.dataset, "nats/step", config, run_music, data_dir, folder, budget, 9.0, "epoch")


def characters_part(config: Characters, data_dir: str | None, folder: str) -> dict[str, Any]:
    """Penn Treebank characters for the report; the budget is the configuration's number of updates."""
    return report(
        "characters", "Penn Treebank characters", "bits/char", config, run_characters, data_dir, folder,
        f"{config.updates} updates, {config.seeds} seeds", 5.0,
        f"evaluation (every {config.evaluate_every} updates)",
    )  # fmt: skip


PARTS = {"music": music_part, "characters": characters_part}


if __name__ == "__main__":
    import tyro

    use_all_cores()
    config = tyro.cli(Config)
    for name in PARTS if config.only == "both" else (config.only,):
        started = time.perf_counter()
        part = PARTS[name](getattr(config, name), config.data_dir, f"natural/{name}")
        common.save(
            f"natural/{name}", metrics=part["metrics"], settings=part["settings"], started=started,
            arrays=part["arrays"], figures=part["figures"],
        )  # fmt: skip
        for row in part["rows"]:
            print(*row, sep="   ")
