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

from cliffs import initializers, rnn, training
from cliffs.data import load_penn_treebank, load_polyphonic
from cliffs.sweep import product_grid, sweep, use_all_cores
from cliffs.tasks import characters, music
from experiments import common

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
    learning_rates: tuple[float, ...] = (0.05, 0.2)
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


PAPER = {
    "music": {"train": (3.71, 4.12), "test": (4.05, 4.57)},
    "characters": {"train": (1.41, 2.25), "test": (1.44, 2.24)},
}
"""(clipped, unclipped) of arXiv v1, table 1: nats per time step; bits per character."""


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
    step = rnn.rnn_step("tanh")
    keys = songs.train[0].shape[1]
    pieces = music.song_pieces(songs.train, config.piece_length)
    count = len(pieces.first)
    decay = config.final_rate ** (1 / max(config.epochs - 1, 1))
    data = {
        "pieces": pieces._replace(song=pieces.song.astype(np.int32)),
        "order": piece_orders(config, pieces.song),
        "valid": music.song_batches(songs.valid, 200),
        "test": music.song_batches(songs.test, 200),
    }
    steps_in = pieces.mask.sum()

    def make(run):
        return optimizer(run, decay, count)

    def init(run):
        params = initializers.init_model(
            jax.random.key(run["seed"]), keys, config.hidden, keys,
            w_rec=initializers.gaussian(config.std), w_in=initializers.gaussian(config.std),
            w_out=initializers.gaussian(config.std),
        )  # fmt: skip
        bias = jnp.full(keys, config.output_bias)
        params = params._replace(readout=params.readout._replace(bias=bias))
        return StreamState(training.init_train_state(params, make(run)), jnp.zeros(config.hidden))

    def update(state, run, data):
        at = data["order"][run["seed"], state.train.step]
        inputs, targets, mask, first, _ = jax.tree.map(lambda x: x[at], data["pieces"])
        hidden = jnp.where(first, 0, state.hidden)

        def loss(params, _):
            nats, after = music.music_nats(step, params, hidden, inputs, targets, mask)
            return nats.sum(), after

        return carry_on(state, loss, make(run))

    def evaluate(state, run, data):
        params = state.train.params
        return {fold: music.nats_per_step(step, params, data[fold]) for fold in ("valid", "test")}

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
    step = rnn.rnn_step("logistic")
    symbols = len(corpus.symbols)
    data = {
        fold: characters.contiguous_pieces(getattr(corpus, fold), config.batch_size, config.piece_length)
        for fold in corpus._fields[:3]
    }
    count = len(data["train"].inputs)

    def init(run):
        gauss = initializers.gaussian(config.std)
        params = initializers.init_model(
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
            nats, after = characters.character_nats(step, params, hidden, inputs, targets)
            return nats.sum(0).mean(), after

        return carry_on(state, loss, optimizer(run))

    def evaluate(state, run, data):
        start = jnp.zeros((config.batch_size, config.hidden))
        return {
            fold: characters.bits_per_character(step, state.train.params, data[fold], start)
            for fold in ("valid", "test")
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
    updates, every = budgeted(config.updates, config.evaluate_every, budget)
    return dataclasses.replace(config, updates=updates, evaluate_every=every)


def budgeted(updates: int, evaluate_every: int, budget: float) -> tuple[int, int]:
    """`budget` times the updates, at least one, and an interval of evaluation that divides them."""
    wanted = max(1, round(budget * updates))
    every = min(evaluate_every, wanted)
    return max(every, wanted // every * every), every


def chosen_runs(result, curves: dict[str, np.ndarray], max_norm: float) -> np.ndarray:
    """The runs (one per seed) with this threshold, at the learning rate with the best mean validation score."""
    valid = np.where(np.isfinite(curves["valid"]), curves["valid"], INF).min(1)
    same = result.grid["max_norm"] == max_norm
    rates = np.unique(result.grid["learning_rate"])
    best = min(rates, key=lambda rate: valid[same & (result.grid["learning_rate"] == rate)].mean())
    return np.flatnonzero(same & (result.grid["learning_rate"] == best))


def summarise(result, curves: dict[str, np.ndarray], threshold: float) -> dict[str, Any]:
    """For clipped and unclipped: every fold at the evaluation with the best validation score, per seed and mean.

    A run that never had a finite score counts as infinitely bad.
    """
    summary: dict[str, Any] = {}
    for name, value in (("clipped", threshold), ("unclipped", INF)):
        mine = chosen_runs(result, curves, value)
        valid = np.where(np.isfinite(curves["valid"][mine]), curves["valid"][mine], INF)
        best = valid.argmin(1)
        at_best = {fold: curve[mine, best] for fold, curve in curves.items()}
        norms = result.metrics.grad_norm[mine]
        norms = norms[np.isfinite(norms)]
        norms = norms if norms.size else np.full(1, np.nan)
        summary[name] = {
            "learning_rate": result.grid["learning_rate"][mine[0]],
            "best_evaluation": best + 1,
            **at_best,
            "mean": {fold: values.mean() for fold, values in at_best.items()},
            "last_valid": curves["valid"][mine, -1],
            "diverged_at": result.diverged_at[mine],
            "median_norm": np.median(norms),
            "largest_norm": norms.max(),
            "share_above_threshold": (norms > threshold).mean(),
        }
    valid = np.where(np.isfinite(curves["valid"]), curves["valid"], INF)
    summary["best_valid_of_each_run"] = [
        {"learning_rate": rate, "max_norm": norm, "seed": seed, "valid": valid[i].min()}
        for i, (rate, norm, seed) in enumerate(
            zip(result.grid["learning_rate"], result.grid["max_norm"], result.grid["seed"])
        )
    ]
    return summary


def norm_histograms(grad_norm: np.ndarray, bins: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[runs, bins]` of the gradient norms over the whole range met, and the edges, even on a log scale."""
    met = grad_norm[np.isfinite(grad_norm) & (grad_norm > 0)]
    low, high = (met.min(), met.max()) if met.size else (1.0, 10.0)
    edges = np.geomspace(low * (1 - 1e-6), high * (1 + 1e-6), bins + 1)
    return np.stack([np.histogram(run[np.isfinite(run)], edges)[0] for run in grad_norm]), edges


def learning_curves(result, curves, threshold: float, unit: str, title: str, every: str, top: float):
    """Validation score against training time, and gradient norms against the threshold."""
    from cliffs.plotting import COLORS, figure

    fig, axes = figure(1, 2, size=(10.5, 3.9))
    counts, edges = norm_histograms(result.metrics.grad_norm)
    for name, value in (("clipped", threshold), ("unclipped", INF)):
        runs = chosen_runs(result, curves, value)
        rate = result.grid["learning_rate"][runs[0]]
        label = f"{name}, rate {rate:g}"
        times = np.arange(1, curves["valid"].shape[1] + 1)
        for i in runs:
            axes[0].plot(times, curves["valid"][i], color=COLORS[name], label=label if i == runs[0] else None)
        axes[1].stairs(counts[runs].sum(0), edges, color=COLORS[name], label=label)
    axes[0].set_ylim(top=top)
    axes[0].set_xlabel(every)
    axes[0].set_ylabel(f"validation, {unit}")
    axes[0].set_title(title)
    axes[0].legend()
    axes[1].axvline(threshold, color="black", linewidth=1, linestyle=":")
    axes[1].text(threshold, 0.97, " threshold", transform=axes[1].get_xaxis_transform(), va="top", fontsize=9)
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    axes[1].set_xlabel("gradient norm before clipping")
    axes[1].set_ylabel("updates")
    axes[1].set_title("What clipping saw")
    return fig


def _part(
    name: str, label: str, unit: str, config, run, data_dir, folder: str, budget: str, top: float, every: str
) -> dict[str, Any]:
    result, curves = run(config, data_dir)
    counts, edges = norm_histograms(result.metrics.grad_norm)
    arrays = {**curves, **result.grid, "diverged_at": result.diverged_at, "norm_counts": counts, "norm_edges": edges}
    # On disk before anything is made of it: a slip in a table or a figure must not cost the training.
    common.save_arrays(folder, arrays)
    summary = summarise(result, curves, config.threshold)
    rows = []
    for fold, place in (("test", 0), ("valid", None)):
        here = [summary[kind]["mean"][fold] for kind in ("clipped", "unclipped")]
        paper = "-" if place is None else "{} / {} (arXiv v1)".format(*PAPER[name]["test"])
        rows.append((f"{label}, {budget}: {fold}, clipped / not", f"{here[0]:.3f} / {here[1]:.3f} {unit}", paper))
    fig = learning_curves(result, curves, config.threshold, unit, label, every, top)
    return {
        "rows": rows, "metrics": summary, "arrays": arrays,
        "figures": {name: fig}, "settings": dataclasses.asdict(config),
    }  # fmt: skip


def music_part(config: Music, data_dir: str | None, folder: str) -> dict[str, Any]:
    """The songs for the report; the budget is the configuration's number of epochs."""
    budget = f"{config.epochs} epochs, {config.seeds} seeds"
    return _part("music", config.dataset, "nats/step", config, run_music, data_dir, folder, budget, 9.0, "epoch")


def characters_part(config: Characters, data_dir: str | None, folder: str) -> dict[str, Any]:
    """Penn Treebank characters for the report; the budget is the configuration's number of updates."""
    return _part(
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
