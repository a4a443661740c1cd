"""How long may temporal order be, without help, with clipping, with clipping and Omega? (The ICML version's Fig. 7.)

Three initialisations, three methods, one model per length. A run has solved a length when less than 1 % of fresh
sequences are wrong. Fig. 7's curves exist nowhere as numbers, so there is nothing to print beside ours.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cliffs import recurrent, tasks, training
from cliffs.plotting import figure
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Temporal order: success against length, for three initialisations and three methods."""

    lengths: tuple[int, ...] = (10, 15, 20, 30, 50)
    inits: tuple[str, ...] = ("sigmoid", "basic_tanh", "smart_tanh")
    sigmoid_rate: float = 1.0
    """Learning rate of the sigmoid networks. The first gradients of their recurrent part are 5 to 30 times smaller than
    those of the tanh networks, and at 0.1 they learn nothing in this budget without Omega."""


PAPER = Config(
    lengths=(50, 100, 150, 200, 250),
    learning_rate=0.01,
    sigmoid_rate=0.01,
    updates=5_000_000,
    evaluate_every=2_000,
    test_batch=10_000,
    seeds=5,
)
"""The ICML settings: rate 0.01, threshold 1, weight 4, batches of 20, 5M updates, 5 seeds."""


class Result(NamedTuple):
    """One count for each initialisation, length and method."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]
    notes: list[str]


def run(config: Config, say: Any = print) -> Result:
    """Train every length of every initialisation; methods and seeds are one sweep."""
    table, arrays = [], {}
    chosen = _trials.methods(config)
    for init in config.inits:
        for length in config.lengths:
            result = train(config, init, length)
            arrays |= _trials.arrays_of(result, f"{init}_{length}")
            for i, method in enumerate(chosen):
                counted = _trials.count(result, result.grid["method"] == i)
                table.append({"init": init, "length": length, "method": method, **counted})
            say(f"{init}, length {length}: " + "; ".join(f"{r['method']} {r['solved']}" for r in table[-len(chosen) :]))
    rows = [(f"{r['init']}, T={r['length']}, {r['method']}", _trials.words(r), "-") for r in table]
    metrics = {"table": table, "separate": separate(table), "longest": longest(table)}
    return Result(config, metrics, arrays, rows, notes(metrics))


def train(config: Config, init: str, length: int) -> Any:
    """All methods and seeds at one length."""
    if init == "sigmoid":
        config = dataclasses.replace(config, learning_rate=config.sigmoid_rate)
    step = recurrent.rnn_step("logistic" if init == "sigmoid" else "tanh")
    error = training.last_step_nats(step)
    return _trials.train(
        config,
        _trials.grid_of(config, _trials.methods(config)),
        name=f"{init}_{length}",
        sample=lambda key, size: tasks.temporal_order(key, size, length),
        init=lambda key, run: recurrent.paper_init(init, key, 6, config.hidden, 4),
        loss=_trials.with_omega(step, error),
        judge=training.readout_loss(step, error),
    )


def separate(table: list[dict[str, Any]]) -> dict[str, list[int]]:
    """For each initialisation the lengths at which clipping's interval lies above that of plain SGD."""
    found: dict[str, list[int]] = {}
    for init in dict.fromkeys(row["init"] for row in table):
        of = {(r["length"], r["method"]): r for r in table if r["init"] == init}
        lengths = dict.fromkeys(length for length, _ in of)
        found[init] = [n for n in lengths if of[n, "clip"]["low"] > of[n, "SGD"]["high"]]
    return found


def longest(table: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """For each initialisation and method the longest length that at least half of the runs solve; 0 for none."""
    found: dict[str, dict[str, int]] = {}
    for row in table:
        best = found.setdefault(row["init"], {})
        best[row["method"]] = max(best.get(row["method"], 0), row["length"] if row["rate"] >= 0.5 else 0)
    return found


def notes(metrics: dict[str, Any]) -> list[str]:
    """What the table says, in sentences."""
    lines = []
    for init, best in metrics["longest"].items():
        better = best["clip + Omega"] > best["clip"]
        apart = ", ".join(map(str, metrics["separate"][init])) or "no length"
        reach = ", ".join(f"{length} ({method})" for method, length in best.items())
        lines.append(
            f"{init}: half of the runs solve up to {reach}: Omega {'extends' if better else 'does not extend'} the "
            f"solvable length. Clipping is above SGD with separate intervals at {apart}."
        )
    return lines


def draw(result: Result) -> dict[str, Any]:
    """One panel for each initialisation, as in Fig. 7."""
    inits = result.config.inits
    fig, axes = figure(1, len(inits), size=(4.2 * len(inits), 3.6), sharey=True, squeeze=False)
    for ax, init in zip(axes[0], inits):
        for i, (method, style) in enumerate(_trials.STYLES.items()):
            rows = [r for r in result.metrics["table"] if r["init"] == init and r["method"] == method]
            places = np.array([r["length"] for r in rows]) * (1 + 0.01 * (i - 1))
            _trials.draw_rates(ax, places, rows, label=method, **style)
        ax.set(xlabel="sequence length", title=init)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    return {"success_by_length": fig}
