"""Characters of text, clipped against unclipped, the state carried from piece to piece: Penn Treebank or text8.

The settings are the paper's (arXiv v1: 500 logistic units without biases, pieces of 180, threshold 45, for text8 20)
with the stated budget of updates; what that version does not say (initial weights, batch size, learning rate, the loss
summed over a piece and averaged over the batch) is in the configuration below. The paper's scale differs in budget and
seeds alone. `--ahead 5` predicts the fifth character, as the later versions also do.
"""

import dataclasses
import pathlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.data import CharacterCorpus, load_penn_treebank, load_text8, read_text8
from cliffs.sweeps import SweepResult
from experiments.training._resumable import whole_sweep

ALL_CORES = True
INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Characters without newlines; the loss summed over a piece, the mean over the batch."""

    data_dir: str | None = None
    """Folder that holds ptb/ or text8/; the data are downloaded when it is not given."""
    corpus: Literal["ptb", "text8"] = "ptb"
    file: str | None = None
    """A zip file of text8's form to train on instead, a prefix of text8 say."""
    ahead: int = 1
    """Which character to predict: 1 is the next one."""
    hidden: int = 500
    piece_length: int = 180
    batch: int = 20
    """Pieces side by side in an update; the text is cut into so many streams."""
    test_batch: int = 20
    """The same for validation and test."""
    learning_rates: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    """Each of clipped and unclipped is reported at the rate with the best validation score."""
    unclipped_rates: tuple[float, ...] = ()
    """Of the unclipped runs, where these are to have others."""
    threshold: float = 45.0
    std: float = 0.05
    """Of all initial weights."""
    final_rate: float = 1.0
    """The rate falls evenly on a log scale to this share of itself; 1 is a constant rate."""
    updates: int = 2000
    evaluate_every: int = 250
    seeds: int = 1
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


PAPER = Config(updates=100_000, evaluate_every=1_000, seeds=5)


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
    label = f"{name_of(config)}, {config.updates} updates, {config.seeds} seeds"
    paper = "characters" if (config.corpus, config.file, config.ahead) == ("ptb", None, 1) else None
    return Result(config, summary, arrays, report.rows(paper, label, "bits/char", summary))


def draw(result: Result) -> dict[str, Any]:
    """Learning curves, and the gradient norms against the threshold."""
    from experiments.training import natural_report as report

    every = f"evaluation (every {result.config.evaluate_every} updates)"
    title = name_of(result.config)
    fig = report.learning_curves(result.arrays, result.config.threshold, "bits/char", title, every, 5.0)
    if title == "Penn Treebank characters":
        fig.axes[0].axhline(report.PAPER["characters"]["test"][0], color="black", linewidth=1, linestyle=":")
        fig.axes[0].annotate(" test, paper (arXiv v1)", (1, report.PAPER["characters"]["test"][0]), va="bottom")
    return {"characters": fig}


def corpus_of(config: Config) -> CharacterCorpus:
    """The text to train on."""
    if config.file is not None:
        return read_text8(config.file)
    return load_text8(config.data_dir) if config.corpus == "text8" else load_penn_treebank(config.data_dir)


def name_of(config: Config) -> str:
    """The text and the task, for titles."""
    if config.file is not None:
        text = f"{pathlib.Path(config.file).stem} characters"
    else:
        text = {"ptb": "Penn Treebank characters", "text8": "text8 characters"}[config.corpus]
    return text if config.ahead == 1 else f"{text}, {config.ahead} ahead"


def train(config: Config) -> tuple[SweepResult, dict[str, np.ndarray]]:
    """All runs; at every evaluation the bits per character of train (as met), validation, test."""
    corpus = corpus_of(config)
    step = recurrent.rnn_step("logistic")
    symbols = len(corpus.symbols)
    streams = {"train": config.batch, "valid": config.test_batch, "test": config.test_batch}
    data = {
        fold: tasks.contiguous_pieces(getattr(corpus, fold), batch, config.piece_length, config.ahead)
        for fold, batch in streams.items()
    }
    count = len(data["train"].inputs)

    def optimizer(run):
        """Clipped SGD; a threshold of infinity is plain SGD."""
        schedule = optax.exponential_decay(1.0, config.updates, config.final_rate)
        clip, rate = optax.clip_by_global_norm(run["max_norm"]), optax.sgd(run["learning_rate"])
        return optax.chain(clip, optax.scale_by_schedule(schedule), rate)

    def loss(params, batch):
        hidden, piece = batch
        nats, after = tasks.character_nats(step, params, hidden, *piece)
        return nats.sum(0).mean(), after

    def init(run):
        gauss = recurrent.gaussian(config.std)
        options = {"w_rec": gauss, "w_in": gauss, "w_out": gauss, "bias": False}
        params = recurrent.init_model(jax.random.key(run["seed"]), symbols, config.hidden, symbols, **options)
        return training.init_truncated(params, optimizer(run), jnp.zeros((config.batch, config.hidden)))

    def update(state, run, data):
        at = state.step % count
        piece = jax.tree.map(lambda x: x[at], tuple(data["train"]))
        return training.truncated_step(state, piece, loss, optimizer(run), reset=at == 0)

    def evaluate(state, run, data):
        start = jnp.zeros((config.test_batch, config.hidden))
        params = state.train.params
        return {fold: tasks.bits_per_character(step, params, data[fold], start) for fold in ("valid", "test")}

    arms = {config.threshold: config.learning_rates, INF: config.unclipped_rates or config.learning_rates}
    # Seed by seed, so that more seeds are more runs at the end, and a finished checkpoint goes on with them.
    runs = [(rate, limit, seed) for seed in range(config.seeds) for limit, rates in arms.items() for rate in rates]
    grid = {name: np.array(column) for name, column in zip(("learning_rate", "max_norm", "seed"), zip(*runs))}
    options: dict[str, Any] = {"evaluate": evaluate, "evaluate_every": config.evaluate_every, "data": data}
    options |= {"folder": config.checkpoint, "name": name_of(config).replace(" ", "_"), "resume": "extend"}
    result = whole_sweep(init, update, grid, config.updates, **options)
    bits = result.metrics.loss / config.piece_length / np.log(2)
    return result, {"train": bits.reshape(len(bits), -1, config.evaluate_every).mean(-1), **result.evaluations}


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
