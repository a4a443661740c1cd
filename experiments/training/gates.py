"""Does clipping still pay for gated cells? Vanilla, LSTM with and without forget bias, GRU on temporal order."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cliffs import recurrent, tasks, training
from cliffs.plotting import figure
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True
CELLS = ("vanilla", "LSTM", "LSTM, forget bias 1", "GRU")


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Gated cells: success with and without clipping, over learning rates."""

    cells: tuple[str, ...] = CELLS
    length: int = 30
    hidden: int = 32
    learning_rates: tuple[float, ...] = (0.1, 1.0)
    updates: int = 4_000
    seeds: int = 6


class Result(NamedTuple):
    """One count for each cell, method and rate."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]
    notes: list[str]


def run(config: Config, say: Any = print) -> Result:
    """Train every cell with both methods at every rate."""
    table, arrays = [], {}
    for cell in config.cells:
        result = train(config, cell)
        arrays |= _trials.arrays_of(result, cell.replace(" ", "_").replace(",", ""))
        for rate in config.learning_rates:
            for i, method in enumerate(chosen(config)):
                mine = (result.grid["method"] == i) & (result.grid["learning_rate"] == np.float32(rate))
                norms = result.metrics.grad_norm[mine]
                counted = {**_trials.count(result, mine), "largest_norm": float(np.nanmax(norms, initial=0))}
                table.append({"cell": cell, "learning_rate": rate, "method": method, **counted})
        say(f"{cell}: " + "; ".join(f"{r['method']} {r['learning_rate']:g} {r['solved']}" for r in table[-4:]))
    rows = [(f"{r['cell']}, rate {r['learning_rate']:g}, {r['method']}", _trials.words(r), "-") for r in table]
    return Result(config, {"table": table}, arrays, rows, notes(table))


def chosen(config: Config) -> dict[str, tuple[float, float]]:
    """Without and with clipping."""
    return {name: pair for name, pair in _trials.methods(config).items() if pair[1] == 0}


def notes(table: list[dict[str, Any]]) -> list[str]:
    """For each cell and rate whether clipping pays."""
    lines = []
    for cell, rate in dict.fromkeys((r["cell"], r["learning_rate"]) for r in table):
        of = {r["method"]: r for r in table if (r["cell"], r["learning_rate"]) == (cell, rate)}
        plain, clipped = of["SGD"], of["clip"]
        if clipped["low"] > plain["high"]:
            verdict = "clipping pays"
        elif plain["low"] > clipped["high"]:
            verdict = "clipping costs"
        else:
            verdict = "no difference beyond the intervals"
        lines.append(f"{cell}, rate {rate:g}: {verdict} ({plain['solved']} to {clipped['solved']} of {plain['runs']})")
    return lines


def model(config: Config, cell: str) -> tuple[Any, Any]:
    """The step of a cell, and `init(key) -> ModelParams`."""
    glorot = recurrent.glorot()
    if cell == "vanilla":
        step = recurrent.rnn_step("tanh")
        w_rec = recurrent.orthogonal()
        return step, lambda key: recurrent.init_model(key, 6, config.hidden, 4, w_rec=w_rec, w_in=glorot, w_out=glorot)
    if cell not in CELLS:
        raise ValueError(f"cells must be among {CELLS}, got {cell!r}")
    bias = 1.0 if "bias" in cell else 0.0
    step = recurrent.gru_cell(config.hidden) if cell == "GRU" else recurrent.lstm_cell(config.hidden, bias)
    plain = recurrent.init_model

    def init(key):
        readout = plain(key, 1, config.hidden, 4, w_rec=glorot, w_in=glorot, w_out=glorot).readout
        return recurrent.ModelParams(step.init(key, 6), readout)

    return step, init


def train(config: Config, cell: str) -> Any:
    """Methods, rates and seeds of one cell as one sweep."""
    step, init = model(config, cell)
    judge = training.readout_loss(step, training.last_step_nats(step))
    one = _trials.grid_of(config, chosen(config))
    grid = {key: np.tile(column, len(config.learning_rates)) for key, column in one.items()}
    grid["learning_rate"] = np.repeat(np.array(config.learning_rates, np.float32), len(one["seed"]))
    return _trials.train(
        config,
        grid,
        name=cell.replace(" ", "_").replace(",", ""),
        sample=lambda key, size: tasks.temporal_order(key, size, config.length),
        init=lambda key, run: init(key),
        loss=lambda run: judge,
        judge=judge,
    )


def draw(result: Result) -> dict[str, Any]:
    """Success by learning rate, a panel for each cell."""
    cells = result.config.cells
    fig, axes = figure(1, len(cells), size=(3.1 * len(cells), 3.3), sharey=True, squeeze=False)
    for ax, cell in zip(axes[0], cells):
        for i, method in enumerate(chosen(result.config)):
            rows = [r for r in result.metrics["table"] if r["cell"] == cell and r["method"] == method]
            places = np.array([r["learning_rate"] for r in rows]) * (1 + 0.05 * (i - 0.5))
            _trials.draw_rates(ax, places, rows, label=method, **_trials.STYLES[method])
        ax.set(xscale="log", xlabel="learning rate", title=cell, ylabel="")
    axes[0, 0].set_ylabel("% of runs that solve the task")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return {"gates": fig}
