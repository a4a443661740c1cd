"""The pathological tasks of 2011 to 2013: how long can each be, with nothing, with clipping, with clipping and Omega?

The ICML version solves all of them up to 200 steps (random permutation in 2 of 5 runs) with clipping and Omega.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cliffs import recurrent, tasks, training
from cliffs.plotting import figure
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Problem:
    """A task with its read-out, and the settings of the second version where they are known."""

    sample: Callable[..., Any]
    """`sample(key, size, length)`."""
    features: int
    outputs: int
    error: Callable[[Any], Any]
    omega: float = 2.0
    hidden: int = 50


PROBLEMS = {
    "addition": Problem(tasks.addition, 2, 1, training.last_step_squares, omega=0.5),
    "multiplication": Problem(tasks.multiplication, 2, 1, training.last_step_squares, omega=0.5),
    "temporal_order": Problem(tasks.temporal_order, 6, 4, training.last_step_nats),
    "temporal_order_3bit": Problem(
        lambda key, size, length: tasks.temporal_order(key, size, length, marks=3), 6, 8, training.last_step_nats
    ),
    "random_permutation": Problem(tasks.random_permutation, 100, 100, training.last_step_nats, omega=1.0, hidden=100),
    "memorisation_5bit": Problem(
        lambda key, size, length: tasks.memorisation(key, None, length, positions=5, values=2),
        4,
        3,
        training.every_step_nats,
    ),
    "memorisation_20bit": Problem(tasks.memorisation, 7, 6, training.every_step_nats),
}


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """The pathological tasks: the longest length solved, by method."""

    tasks: tuple[str, ...] = tuple(PROBLEMS)
    lengths: tuple[int, ...] = (10, 20, 40)
    init: str = "basic_tanh"
    hidden: int = 0
    """0: as many as each task had."""
    test_batch: int = 500
    seeds: int = 4


PAPER = Config(
    lengths=(50, 100, 150, 200), learning_rate=0.01, updates=5_000_000, evaluate_every=2_000, test_batch=10_000, seeds=5
)
"""One length per model, as ICML's memorisation; its first four tasks have one model for all lengths up to 200."""


class Result(NamedTuple):
    """One count for each task, length and method."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train each task at each length."""
    unknown = sorted(set(config.tasks) - set(PROBLEMS))
    if unknown:
        raise ValueError(f"tasks must be among {sorted(PROBLEMS)}, got {unknown}")
    table, arrays = [], {}
    for task in config.tasks:
        for length in config.lengths:
            result = train(config, task, length)
            arrays |= _trials.arrays_of(result, f"{task}_{length}")
            for i, method in enumerate(_trials.methods(config)):
                counted = _trials.count(result, result.grid["method"] == i)
                table.append({"task": task, "length": length, "method": method, **counted})
            say(f"{task}, length {length}: " + "; ".join(f"{r['method']} {r['solved']}" for r in table[-3:]))
    longest = {task: {m: _longest(table, task, m) for m in _trials.methods(config)} for task in config.tasks}
    rows = [(f"{r['task']}, T={r['length']}, {r['method']}", _trials.words(r), "-") for r in table]
    rows += [(f"{t}: longest length solved", _words(best), _expected(t)) for t, best in longest.items()]
    return Result(config, {"table": table, "longest": longest}, arrays, rows)


def train(config: Config, task: str, length: int) -> Any:
    """All methods and seeds of one task at one length."""
    problem = PROBLEMS[task]
    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    error = problem.error(step)
    own = dataclasses.replace(config, hidden=config.hidden or problem.hidden)
    chosen = _trials.methods(dataclasses.replace(config, omega=problem.omega))
    return _trials.train(
        own,
        _trials.grid_of(own, chosen),
        name=f"{task}_{length}",
        sample=lambda key, size: problem.sample(key, size, length),
        init=lambda key, run: recurrent.paper_init(config.init, key, problem.features, own.hidden, problem.outputs),
        loss=_trials.with_omega(step, error),
        judge=training.readout_loss(step, error),
    )


def _longest(table: list[dict[str, Any]], task: str, method: str) -> int:
    """The longest length that any run solves."""
    return max((r["length"] for r in table if (r["task"], r["method"]) == (task, method) and r["solved"]), default=0)


def _words(best: dict[str, int]) -> str:
    return ", ".join(f"{method} {length or 'none'}" for method, length in best.items())


def _expected(task: str) -> str:
    return "200, 2 of 5 runs (ICML)" if task == "random_permutation" else "200 with clip + Omega (ICML)"


def draw(result: Result) -> dict[str, Any]:
    """Success against length, a panel for each task."""
    names = result.config.tasks
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    fig, axes = figure(rows, columns, size=(3.6 * columns, 3.1 * rows), sharey=True, squeeze=False)
    for ax, task in zip(axes.flat, names):
        for i, (method, style) in enumerate(_trials.STYLES.items()):
            mine = [r for r in result.metrics["table"] if r["task"] == task and r["method"] == method]
            # Side by side: where all methods solve all runs, or none, they would hide each other.
            places = np.array([r["length"] for r in mine]) + 0.03 * max(result.config.lengths) * (i - 1)
            _trials.draw_rates(ax, places, mine, label=method, **style)
        ax.set(title=task.replace("_", " "), xlabel="length", ylabel="")
    for ax in axes.flat[len(names) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("% of runs that solve")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return {"pathological": fig}
