"""Lorenz-63 from data: which way of training makes a network that generates the attractor by itself?

A shallow piecewise-linear network with 3 states, all observed, learns the flow of a standardised Lorenz-63 trajectory:
with plain backpropagation from the true first state and gradient clipping, with teacher forcing (the data replace the
state at every step), and with generalised teacher forcing, whose strength bounds the Jacobian products (Hess et al.,
ICML 2023). Judged on a long free run: does it stay bounded, does it fill the same region of state space (Hellinger
distance of binned occupation), and is its largest Lyapunov exponent that of the data's system?
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, spectra, training
from cliffs.plotting import COLORS, figure
from cliffs.stats import bootstrap_interval
from cliffs.sweeps import product_grid
from experiments.training._resumable import whole_sweep

ALL_CORES = True
LORENZ_EXPONENT = 0.9056
"""Largest exponent of Lorenz-63 at the usual parameters, nats per unit of time (Sprott 2003)."""
ARMS = {
    "plain + clipping": (0.0, False),
    "teacher forcing": (1.0, False),
    "generalised teacher forcing": (1.0, True),
}
"""Strength at the start, and whether it follows the Jacobians."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Hess et al.'s network with 50 hidden units and a fiftieth of their updates."""

    hidden: int = 50
    length: int = 100
    batch: int = 16
    updates: int = 5_000
    learning_rate: float = 1e-3
    final_rate: float = 1e-5
    max_norm: float = 1.0
    """Clipping of the plain arm; the others are not clipped."""
    every: int = 5
    """Updates between two estimates of the strength."""
    time_step: float = 0.05
    data_steps: int = 20_000
    free_steps: int = 10_000
    bins: int = 20
    seeds: int = 8
    evaluate_every: int = 500
    seed: int = 0
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


PAPER = Config(hidden=100, length=200, updates=250_000, final_rate=1e-6, seeds=20, evaluate_every=5_000)


class Result(NamedTuple):
    """Every run's free trajectory, judged."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train the three arms in one sweep, then let every network run freely."""
    data = lorenz(config)
    say(f"{len(data):,} steps of data")
    result = train(config, data)
    arms = np.asarray(result.grid["arm"])
    say("trained")
    judged = jax.vmap(lambda params: judge(config, params, jnp.asarray(data[0])))(result.state.params)
    free, exponent = (np.asarray(x) for x in judged)
    distance = np.array([hellinger(config, path, data) for path in free])
    metrics: dict[str, Any] = {"arms": {}, "exponent_of_the_flow": LORENZ_EXPONENT}
    rows = []
    for i, name in enumerate(ARMS):
        mine = arms == i
        bounded = np.isfinite(free[mine]).all((1, 2)) & (np.abs(free[mine]) < 10).all((1, 2))
        close = np.abs(exponent[mine] - LORENZ_EXPONENT) < 0.1
        found = {
            "bounded": int(bounded.sum()),
            "hellinger": _interval(distance[mine]),
            "exponent": _interval(exponent[mine]),
            "reach_the_attractor": int((bounded & (distance[mine] < 0.3) & close).sum()),
            "diverged_in_training": int((result.diverged_at[mine] >= 0).sum()),
            "runs": config.seeds,
        }
        metrics["arms"][name] = found
        h, e = found["hellinger"], found["exponent"]
        rows.append((f"{name}: on the attractor", f"{found['reach_the_attractor']} of {config.seeds}", ""))
        rows.append((f"{name}: Hellinger distance", f"{h['median']:.2f} [{h['low']:.2f}, {h['high']:.2f}]", "0"))
        rows.append((f"{name}: exponent", f"{e['median']:.2f} [{e['low']:.2f}, {e['high']:.2f}]", "0.906"))
    arrays = {"arm": arms, "distance": distance, "exponent": exponent, "free": free[:, :2_000].astype(np.float32)}
    return Result(config, metrics, arrays | {"data": data[:2_000]}, rows)


def _interval(values: np.ndarray) -> dict[str, Any]:
    """Median with its bootstrap interval; runs without a finite value count as the largest."""
    values = np.where(np.isfinite(values), values, np.nanmax(np.append(values, 1.0)))
    low, high = bootstrap_interval(values)
    return {"median": float(np.median(values)), "low": low, "high": high, "values": values}


def lorenz(config: Config) -> np.ndarray:
    """A standardised trajectory `[steps, 3]` of Lorenz-63, by Runge-Kutta with ten steps between two samples."""

    def flow(x):
        return jnp.stack([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])

    small = config.time_step / 10

    def sample(x, _):
        def one(_, x):
            k1 = flow(x)
            k2 = flow(x + small / 2 * k1)
            k3 = flow(x + small / 2 * k2)
            k4 = flow(x + small * k3)
            return x + small / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

        x = jax.lax.fori_loop(0, 10, one, x)
        return x, x

    path = np.asarray(jax.lax.scan(sample, jnp.array([1.0, 1.0, 20.0]), length=config.data_steps + 1_000)[1])[1_000:]
    return ((path - path.mean(0)) / path.std(0)).astype(np.float32)


def train(config: Config, data: np.ndarray) -> Any:
    """Arms times seeds as one sweep; the strength of the forcing is part of a run's state."""
    step = recurrent.shplrnn_step()
    series = jnp.asarray(data)
    strengths, follows = (jnp.array(x) for x in zip(*ARMS.values()))
    schedule = optax.exponential_decay(config.learning_rate, config.updates, config.final_rate / config.learning_rate)

    def optimizer(run):
        limit = jnp.where(run["arm"] == 0, config.max_norm, jnp.inf)
        return optax.chain(optax.clip_by_global_norm(limit), optax.radam(schedule))

    def batch_of(run, count):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed + 1), run["seed"]), count)
        starts = jax.random.randint(key, (config.batch,), 0, len(data) - config.length - 1)
        return series[starts + jnp.arange(config.length + 1)[:, None]]  # [time + 1, batch, 3]

    def init(run):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), run["seed"]), 3)
        n, hidden = 3, config.hidden
        params = recurrent.ShallowPLRNNParams(
            a=jax.random.uniform(keys[0], (n,), minval=0.5, maxval=0.9),
            w1=jax.random.normal(keys[1], (n, hidden)) * 0.5 / hidden**0.5,
            w2=jax.random.normal(keys[2], (hidden, n)) * 0.5,
            h1=jnp.zeros(n),
            h2=jnp.zeros(hidden),
        )
        return training.init_train_state((params, strengths[run["arm"]]), optimizer(run))

    def update(state, run):
        """One estimate of the strength, and as many updates of the parameters as it serves for."""
        params, strength = state.params
        estimate = training.forcing_strength(step, params, batch_of(run, state.step)[:-1])
        strength = jnp.where(follows[run["arm"]], training.anneal_strength(strength, estimate), strength)

        def loss(both, batch):
            states = training.teacher_forced_unroll(step, both[0], batch[0], targets=batch[1:], strength=strength)
            return ((states - batch[1:]) ** 2).mean(), None

        def one(state, _):
            return training.train_step(state, batch_of(run, state.step), loss, optimizer(run))

        state, metrics = jax.lax.scan(one, state, length=config.every)
        return state._replace(params=(state.params[0], strength)), jax.tree.map(lambda x: x[-1], metrics)

    def evaluate(state, run):
        return {"strength": state.params[1]}

    now_and_then = max(1, config.evaluate_every // config.every)
    options: dict[str, Any] = {"evaluate_every": now_and_then, "record_every": now_and_then}
    grid = product_grid(arm=list(range(len(ARMS))), seed=list(range(config.seeds)))
    groups = config.updates // config.every
    options |= {"evaluate": evaluate, "record": {"loss": "mean"}}
    return whole_sweep(init, update, grid, groups, folder=config.checkpoint, **options)


def judge(config: Config, both: Any, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A free run `[steps, 3]` after a while, and its largest exponent in nats per unit of time."""
    params, step = both[0], recurrent.shplrnn_step()
    path = recurrent.unroll(step, params, start, None, length=config.free_steps + 1_000)[1_000:]
    steps = min(2_000, config.free_steps)
    leading = spectra.lyapunov_exponents(step, params, path[0], num_steps=steps, num_exponents=1)[0]
    return path, leading / config.time_step


def hellinger(config: Config, path: np.ndarray, data: np.ndarray) -> float:
    """Distance of the binned occupations of state space, 0 (the same) to 1 (apart, or unbounded)."""
    if not np.isfinite(path).all():
        return 1.0
    edges = [np.linspace(-3.5, 3.5, config.bins + 1)] * 3
    p, q = (np.histogramdd(np.clip(x, -3.4, 3.4), edges)[0].ravel() / len(x) for x in (path, data))
    return float(np.sqrt(max(0.0, 1 - np.sqrt(p * q).sum())))


def draw(result: Result) -> dict[str, Any]:
    """The attractor of the data and the free run of each arm's median network."""
    fig, axes = figure(1, len(ARMS) + 1, size=(3.6 * (len(ARMS) + 1), 3.6), sharex=True, sharey=True)
    panels = [("data", result.arrays["data"], COLORS["stable"])]
    for i, name in enumerate(ARMS):
        mine = np.flatnonzero(result.arrays["arm"] == i)
        order = mine[np.argsort(result.arrays["distance"][mine])]
        middle = order[len(order) // 2]
        color = COLORS["unclipped"] if i == 0 else COLORS["clipped"]
        panels.append(
            (f"{name}\ndistance {result.arrays['distance'][middle]:.2f}", result.arrays["free"][middle], color)
        )
    for ax, (title, path, color) in zip(axes, panels):
        ax.plot(path[:, 0], path[:, 2], color=color, lw=0.5)
        ax.set(title=title, xlabel="x / deviation", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
    axes[0].set_ylabel("z / deviation")
    return {"generators": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
