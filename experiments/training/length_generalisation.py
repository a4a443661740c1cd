"""One model for many lengths of temporal order: trained on a range, tested far beyond it.

The ICML version trains on lengths 50 to 200 and finds no error among 10,000 sequences at up to 5,000 steps.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import recurrent, tasks, training
from cliffs.plotting import figure
from cliffs.stats import wilson_interval
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True
CHUNK = 50  # sequences tested side by side: 5,000 steps of 50 units are 50 MB


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Temporal order: one model for a range of lengths, tested at lengths beyond."""

    length: int = 20
    max_length: int = 50
    """Every batch has one length from `length` up to, not including, this; a test has ten batches."""
    init: str = "basic_tanh"
    success_error: float = 1e-4
    """As in the authors' program: a model is done when none of the fresh sequences is wrong."""
    updates: int = 30_000
    seeds: int = 5
    test_lengths: tuple[int, ...] = (20, 50, 100, 200, 500, 1000)
    final_test: int = 2_000
    """Sequences per length in the final test."""


PAPER = Config(
    length=50,
    max_length=200,
    learning_rate=0.01,
    updates=5_000_000,
    evaluate_every=2_000,
    test_batch=10_000,
    test_lengths=(50, 100, 150, 200, 250, 500, 1000, 2000, 3000, 5000),
    final_test=10_000,
)


class Result(NamedTuple):
    """Errors by method, seed and test length."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train all methods and seeds in one sweep, then test every model at every length."""
    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    error = training.last_step_nats(step)
    judge = training.readout_loss(step, error)
    chosen = _trials.methods(config)
    result = _trials.train(
        config,
        _trials.grid_of(config, chosen),
        name="train",
        sample=lambda key, size: tasks.temporal_order(key, size, config.length, max_length=config.max_length),
        init=lambda key, run: recurrent.paper_init(config.init, key, 6, config.hidden, 4),
        loss=_trials.with_omega(step, error),
        judge=judge,
        # One batch has one length: of a single one, a model of that length alone would be taken for one of all.
        test_batches=10,
    )
    say("trained")
    errors = np.stack([test(config, judge, result.state.params, length) for length in config.test_lengths], 1)
    table = []
    for i, method in enumerate(chosen):
        mine = result.grid["method"] == i
        wrong = [wilson_interval(int(k), config.final_test) for k in (errors[mine] * config.final_test).min(0).round()]
        table.append(
            {
                "method": method,
                **_trials.count(result, mine),
                "best_error": dict(zip(map(str, config.test_lengths), errors[mine].min(0).tolist())),
                "best_error_upper": dict(zip(map(str, config.test_lengths), [high for _, high in wrong])),
            }
        )
    rows = []
    for row in table:
        name = f"T={config.length}..{config.max_length - 1}, {row['method']}"
        rows.append((name, _trials.words(row), "5/5 with Omega (ICML)" if "Omega" in row["method"] else "-"))
        worst = ", ".join(f"{n}: {100 * e:.2f} %" for n, e in row["best_error"].items())
        rows.append((f"  best model wrong at length {worst}", "", "0 up to 5000 (ICML)"))
    arrays = _trials.arrays_of(result, "train") | {"test_error": errors, "test_lengths": np.array(config.test_lengths)}
    return Result(config, {"table": table}, arrays, rows)


def test(config: Config, judge: Any, params: Any, length: int) -> np.ndarray:
    """`[runs]`: the share of fresh sequences of one length that each model gets wrong."""
    chunks = -(-config.final_test // CHUNK)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed + 1), length), chunks)

    @jax.jit
    def wrong(params):
        one = lambda key: judge(params, tasks.temporal_order(key, CHUNK, length))[1]  # noqa: E731
        return jax.lax.map(one, keys).mean()

    count = len(jax.tree.leaves(params)[0])
    return np.array([float(wrong(jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params))) for i in range(count)])


def draw(result: Result) -> dict[str, Any]:
    """The error of every model against the length it is tested at."""
    fig, ax = figure(size=(6.0, 3.8))
    lengths, errors = result.arrays["test_lengths"], result.arrays["test_error"]
    for i, (method, style) in enumerate(_trials.STYLES.items()):
        mine = errors[result.arrays["train_method"] == i]
        ax.plot(lengths, 100 * mine.T, alpha=0.35, linewidth=1, **style)
        ax.plot(lengths, 100 * np.median(mine, 0), marker="o", label=method, **style)
    ax.axvspan(result.config.length, result.config.max_length, color="black", alpha=0.07, linewidth=0)
    ax.set(xscale="log", xlabel="length tested at (shaded: trained on)", ylabel="% of sequences wrong", ylim=(-3, 103))
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, title="median; thin: each model")
    return {"length_generalisation": fig}
