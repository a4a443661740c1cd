"""Weight decay, Jacobian penalty, Omega, spectral normalisation, orthogonal weights: who tames Jacobians, who learns?

All methods clip at the same threshold. One table: the growth of the Jacobian product at the end of training (largest
and median singular value, logarithm per step), and success on temporal order. Each method is counted at the weight that
serves it best.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping, penalties, recurrent, tasks, training
from cliffs.plotting import figure
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True
# Name: the weights that are tried. For spectral normalisation it is the radius.
METHODS: dict[str, tuple[float, ...]] = {
    "clip alone": (0.0,),
    "weight decay": (1e-4, 1e-3, 1e-2),
    "Jacobian penalty": (1e-4, 1e-3, 1e-2),
    "Omega": (0.5, 2.0, 4.0),
    "spectral normalisation": (0.95, 1.0, 1.2),
    "orthogonal weights": (0.0,),
}


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Regularisers: growth of the Jacobian product, and success."""

    methods: tuple[str, ...] = tuple(METHODS)
    length: int = 30
    init: str = "smart_tanh"
    updates: int = 8_000
    seeds: int = 8


class Result(NamedTuple):
    """One count for each method and weight."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train every method at each of its weights, and measure the Jacobians of the final networks."""
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise ValueError(f"methods must be among {sorted(METHODS)}, got {unknown}")
    table, arrays = [], {}
    for name in config.methods:
        result = train(config, name)
        rates = growths(config, result.state.params)
        arrays |= _trials.arrays_of(result, name.replace(" ", "_")) | {f"{name.replace(' ', '_')}_growth": rates}
        found = []
        for weight in METHODS[name]:
            mine = result.grid["weight"] == np.float32(weight)
            largest, median = (_trials.finite_mean(rates[mine, i]) for i in (0, config.hidden // 2))
            counted = _trials.count(result, mine)
            found.append({"method": name, "weight": weight, "largest": largest, "median": median, **counted})
        best = max(found, key=lambda r: (r["solved"], -r["median_best_error"]))
        table += [{**row, "best": row is best} for row in found]
        say(f"{name}: " + "; ".join(f"{r['weight']:g} {r['solved']}" for r in found))
    rows = []
    for row in table:
        growth = f"growth {row['largest']:+.3f}, median {row['median']:+.3f}; "
        mark = " (best)" if row["best"] and len(METHODS[row["method"]]) > 1 else ""
        rows.append((f"{row['method']} {row['weight']:g}{mark}", growth + _trials.words(row), "-"))
    return Result(config, {"table": table}, arrays, rows)


def train(config: Config, name: str) -> Any:
    """All weights and seeds of one method as one sweep."""
    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    error = training.last_step_nats(step)
    judge = training.readout_loss(step, error)
    weights = METHODS[name]
    grid = _trials.grid_of(config, {f"{w}": (config.max_norm, w) for w in weights})

    def loss(run):
        if name == "Omega":
            return training.readout_loss(step, error, unroll=partial(penalties.unroll_with_omega, weight=run["weight"]))
        if name == "weight decay":
            return penalties.add_penalty(judge, lambda p, batch: penalties.l2(p.rnn.w_rec), run["weight"])
        if name == "Jacobian penalty":

            def size(params, batch):
                start = training.zero_state(step, params, batch.inputs.shape[1:-1])
                return penalties.jacobian_norm(step, params.rnn, start, batch.inputs)

            return penalties.add_penalty(judge, size, run["weight"])
        return judge

    def init(key, run):
        params = recurrent.paper_init(config.init, key, 6, config.hidden, 4)
        if name == "orthogonal weights":
            w_rec = recurrent.orthogonal()(key, params.rnn.w_rec.shape)
            return params._replace(rnn=params.rnn._replace(w_rec=w_rec))
        return params

    def after(run):
        return clipping.spectral_normalize(run["weight"]) if name == "spectral normalisation" else optax.identity()

    return _trials.train(
        config,
        grid,
        name=name.replace(" ", "_"),
        sample=lambda key, size: tasks.temporal_order(key, size, config.length),
        init=init,
        loss=loss,
        judge=judge,
        after=after,
    )


def growths(config: Config, params: Any) -> np.ndarray:
    """`[runs, hidden]`: the growth rates of every final network on the same sequences."""
    step = recurrent.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    batch = tasks.temporal_order(jax.random.key(config.seed + 1), 4, config.length)
    start = jnp.zeros((4, config.hidden))
    measure = jax.jit(lambda rnn: _trials.growth(step, rnn, start, batch.inputs))
    count = len(params.rnn.w_rec)
    return np.stack([measure(jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), params.rnn)) for i in range(count)])


def draw(result: Result) -> dict[str, Any]:
    """Success against the growth of the Jacobian product, every weight a point, the best of a method filled."""
    fig, ax = figure(size=(7.4, 4.2))
    colors = [f"C{i}" for i in range(len(result.config.methods))]
    for name, color in zip(result.config.methods, colors):
        for row in (r for r in result.metrics["table"] if r["method"] == name):
            low, high = 100 * (row["rate"] - row["low"]), 100 * (row["high"] - row["rate"])
            fill = color if row["best"] else "none"
            ax.errorbar(
                row["largest"],
                100 * row["rate"],
                [[low], [high]],
                fmt="o",
                color=color,
                markerfacecolor=fill,
                capsize=3,
                alpha=1 if row["best"] else 0.45,
                label=name if row["best"] else None,
            )
    ax.axvline(0, color="black", linewidth=0.8)
    # Most of those that learn lie within a tenth of 0.
    ax.set_xscale("symlog", linthresh=0.1, linscale=2)
    ax.set(xlabel="growth of the Jacobian product: log(largest singular value) per step", ylim=(-3, 105))
    ax.set(ylabel="% of runs that solve the task", title=f"Temporal order, length {result.config.length}")
    ax.legend(fontsize=8, loc="center", bbox_to_anchor=(0.43, 0.4))
    return {"regularisation": fig}
