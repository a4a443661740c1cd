"""Which initial weights learn temporal order, with and without clipping, and what are their Jacobians at the start?

At the start: spectral radius and norm of the recurrent matrix, and per step the logarithm of the largest and of the
median singular value of the product of all Jacobians of a sequence. After training: who has solved the task.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import recurrent, tasks, training
from cliffs.plotting import figure
from experiments.training import _trials
from experiments.training._trials import Trials

ALL_CORES = True
# Name: recurrent matrix, other matrices, units.
INITS: dict[str, tuple[Callable[..., Any], Callable[..., Any], str]] = {
    "gaussian 0.01": (recurrent.gaussian(0.01), recurrent.gaussian(0.01), "tanh"),
    "gaussian 0.1": (recurrent.gaussian(0.1), recurrent.gaussian(0.1), "tanh"),
    "glorot": (recurrent.glorot(), recurrent.glorot(), "tanh"),
    "orthogonal": (recurrent.orthogonal(), recurrent.glorot(), "tanh"),
    "sparse, radius 0.95": (recurrent.sparse_spectral(), recurrent.gaussian(0.01), "tanh"),
    "identity, ReLU": (recurrent.identity_plus_noise(), recurrent.gaussian(0.1), "relu"),
}


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Initial weights: spectra at the start, and success with and without clipping."""

    inits: tuple[str, ...] = tuple(INITS)
    length: int = 30
    learning_rates: tuple[float, ...] = (0.01, 0.1)
    """Each method is counted at its better rate: no initialisation is judged at the rate of another."""
    seeds: int = 8


class Result(NamedTuple):
    """One count for each initialisation and method, and the spectra at the start."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Measure each initialisation and train it."""
    table, starts, arrays = [], {}, {}
    for name in config.inits:
        starts[name] = at_start(config, name)
        result = train(config, name)
        arrays |= _trials.arrays_of(result, name.replace(" ", "_"))
        for i, method in enumerate(chosen(config)):
            counts = []
            for rate in config.learning_rates:
                mine = (result.grid["method"] == i) & (result.grid["learning_rate"] == np.float32(rate))
                counts.append({"init": name, "method": method, "learning_rate": rate, **_trials.count(result, mine)})
            best = max(counts, key=lambda r: (r["solved"], -r["median_best_error"]))
            table += [{**row, "best": row is best} for row in counts]
        say(f"{name}: " + "; ".join(f"{r['method']} {r['learning_rate']:g} {r['solved']}" for r in table[-4:]))
    rows = []
    for name, s in starts.items():
        text = f"radius {s['radius']:.2f}, norm {s['norm']:.2f}, growth {s['largest']:+.3f}, median {s['median']:+.3f}"
        rows.append((f"{name} at the start", text, "-"))
        for row in table:
            if row["init"] == name and row["best"]:
                rows.append((f"  {row['method']}, rate {row['learning_rate']:g}", _trials.words(row), "-"))
    return Result(config, {"table": table, "start": starts}, arrays, rows)


def chosen(config: Config) -> dict[str, tuple[float, float]]:
    """Without and with clipping."""
    return {name: pair for name, pair in _trials.methods(config).items() if pair[1] == 0}


def model(config: Config, name: str, key: Any) -> Any:
    """Parameters by the name of an initialisation."""
    w_rec, other, _ = INITS[name]
    return recurrent.init_model(key, 6, config.hidden, 4, w_rec=w_rec, w_in=other, w_out=other)


def at_start(config: Config, name: str) -> dict[str, float]:
    """The spectra before the first update, means over the seeds."""
    step = recurrent.rnn_step(INITS[name][2])

    @jax.jit
    def measure(key):
        params = model(config, name, key)
        batch = tasks.temporal_order(jax.random.fold_in(key, 1), 4, config.length)
        rates = _trials.growth(step, params.rnn, jnp.zeros((4, config.hidden)), batch.inputs)
        matrix = params.rnn.w_rec
        return recurrent.spectral_radius(matrix), jnp.linalg.norm(matrix, 2), rates[0], rates[config.hidden // 2]

    seen = np.array([measure(jax.random.fold_in(jax.random.key(config.seed), s)) for s in range(config.seeds)])
    return dict(zip(("radius", "norm", "largest", "median"), map(_trials.finite_mean, seen.T)))


def train(config: Config, name: str) -> Any:
    """Methods, rates and seeds of one initialisation as one sweep."""
    step = recurrent.rnn_step(INITS[name][2])
    judge = training.readout_loss(step, training.last_step_nats(step))
    one = _trials.grid_of(config, chosen(config))
    grid = {key: np.tile(column, len(config.learning_rates)) for key, column in one.items()}
    grid["learning_rate"] = np.repeat(np.array(config.learning_rates, np.float32), len(one["seed"]))
    return _trials.train(
        config,
        grid,
        name=name.replace(" ", "_"),
        sample=lambda key, size: tasks.temporal_order(key, size, config.length),
        init=lambda key, run: model(config, name, key),
        loss=lambda run: judge,
        judge=judge,
    )


def draw(result: Result) -> dict[str, Any]:
    """Growth of the Jacobian product at the start, and the better success rate of each method."""
    names = result.config.inits
    fig, (left, right) = figure(1, 2, size=(11, 0.5 * len(names) + 1.6), sharey=True)
    places = np.arange(len(names))
    starts = [result.metrics["start"][name] for name in names]
    left.plot([s["largest"] for s in starts], places, "o", color="black", label="largest")
    left.plot([s["median"] for s in starts], places, "o", color="0.6", label="median")
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(places, [name[0].upper() + name[1:] for name in names])
    left.set(xlabel="log(singular value) of the Jacobian product per step, at the start")
    left.legend(loc="center left")
    for i, method in enumerate(chosen(result.config)):
        rows = [
            next(r for r in result.metrics["table"] if (r["init"], r["method"], r["best"]) == (name, method, True))
            for name in names
        ]
        rates = 100 * np.array([r["rate"] for r in rows])
        error = np.abs(100 * np.array([[r["low"], r["high"]] for r in rows]).T - rates)
        right.errorbar(
            rates, places + 0.2 * (i - 0.5), xerr=error, fmt="o", capsize=3, label=method, **_trials.STYLES[method]
        )
    right.set(
        xlabel="% of runs that solve the task (better rate)", xlim=(-3, 103), title=f"length {result.config.length}"
    )
    right.legend(loc="lower right")
    return {"initialisation": fig}
