"""Gradient flossing on delayed XOR, before and during training, against clipping and Omega.

Flossing pushes the leading Lyapunov exponents of the forward dynamics to 0, so that gradients neither vanish nor
explode (Engelken, NeurIPS 2023). His setting, smaller by default: a tanh network reads a stream of bits and says at
every step the XOR of those one and two delays ago; Adam; flossing for some updates before training, or also now and
then during it. Every arm but the first is clipped.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import penalties, recurrent, spectra, tasks, training
from cliffs.plotting import figure
from cliffs.stats import bootstrap_interval
from cliffs.sweeps import product_grid
from experiments.training._resumable import whole_sweep
from experiments.training._trials import INF

ALL_CORES = True


class Arm(NamedTuple):
    """Clipping threshold, weight of Omega, and whether flossing comes before and during training."""

    max_norm: float
    omega: float
    before: bool
    during: bool


ARMS = {
    "nothing": Arm(INF, 0.0, False, False),
    "clip": Arm(1.0, 0.0, False, False),
    "clip + Omega": Arm(1.0, 1.0, False, False),
    "flossing before": Arm(1.0, 0.0, True, False),
    "flossing before and during": Arm(1.0, 0.0, True, True),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Delayed XOR, half of Engelken's size; `PAPER` is his."""

    hidden: int = 40
    batch: int = 16
    length: int = 100
    delays: tuple[int, ...] = (5, 10, 15)
    exponents: int = 37
    floss_steps: int = 30
    """Steps of a trajectory whose exponents are pushed."""
    floss_batch: int = 4
    floss_updates: int = 200
    """Of flossing alone, before training."""
    floss_every: int = 500
    """During training: before every so many updates, `floss_again` updates of flossing."""
    floss_again: int = 20
    interval: int = 5
    """Steps between two orthonormalisations."""
    learning_rate: float = 1e-3
    updates: int = 5_000
    gain: float = 1.0
    """Of the initial recurrent weights, N(0, gain^2 / hidden)."""
    seeds: int = 5
    test_batch: int = 200
    seed: int = 0
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


PAPER = Config(
    hidden=80, length=300, exponents=75, floss_steps=55, floss_batch=16, floss_updates=500, interval=1, seeds=10
)


class Result(NamedTuple):
    """Accuracy by delay and arm."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """One sweep a delay; every arm has the same seeds."""
    if config.updates % config.floss_every:
        raise ValueError(f"updates must be a multiple of floss_every={config.floss_every}, got {config.updates}")
    accuracy = np.zeros((len(config.delays), len(ARMS), config.seeds))
    for i, delay in enumerate(config.delays):
        result = train(config, delay)
        right = np.asarray(result.evaluations["accuracy"][:, -1], float).reshape(accuracy.shape[1:])
        accuracy[i] = np.where(np.isfinite(right), right, 0.5)  # a run that was lost guesses
        say(f"delay {delay}: " + ", ".join(f"{n} {np.median(a):.3f}" for n, a in zip(ARMS, accuracy[i])))
    table, rows = [], []
    for i, delay in enumerate(config.delays):
        for j, name in enumerate(ARMS):
            low, high = bootstrap_interval(accuracy[i, j])
            middle = float(np.median(accuracy[i, j]))
            table.append({"delay": delay, "arm": name, "median": middle, "low": low, "high": high})
            rows.append(
                (f"delay {delay}, {name}", f"{100 * middle:.1f} % right [{100 * low:.1f}, {100 * high:.1f}]", "-")
            )
    return Result(config, {"table": table}, {"accuracy": accuracy}, rows)


def train(config: Config, delay: int) -> Any:
    """All arms and seeds; an update of the sweep is a block of `floss_every` training updates."""
    step = recurrent.rnn_step("tanh")
    columns = {name: jnp.array(values) for name, values in zip(Arm._fields, zip(*ARMS.values()))}

    def keys(run, kind):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed + kind), run["seed"]), delay)

    def average(values, batch):
        return (values * batch.mask).sum() / batch.mask.sum()

    def logits(params, states):
        return recurrent.readout(params.readout, step.features(states))[..., 0]

    def loss(run):
        def of(params, batch):
            start = jnp.zeros((batch.inputs.shape[1], config.hidden))
            unroll = partial(penalties.unroll_with_omega, weight=columns["omega"][run["arm"]])
            states = unroll(step, params.rnn, start, batch.inputs)
            each = optax.sigmoid_binary_cross_entropy(logits(params, states), batch.targets)
            return average(each, batch), None

        return of

    def flossed(params, batch):
        def one(inputs):
            return spectra.gradient_flossing(
                step,
                params.rnn,
                jnp.zeros(config.hidden),
                inputs,
                num_exponents=config.exponents,
                interval=config.interval,
            )

        inputs = batch.inputs[: config.floss_steps, : config.floss_batch]
        return jax.vmap(one, 1)(inputs).mean() / config.exponents, None

    def optimizer(run):
        clip = optax.clip_by_global_norm(columns["max_norm"][run["arm"]])
        return optax.chain(clip, optax.adam(config.learning_rate))

    def sample(key, size):
        return tasks.delayed_xor(key, size, config.length, delay=delay)

    def floss(state, run, updates, kind):
        def one(i, state):
            batch = sample(jax.random.fold_in(keys(run, kind), state.step + i), config.floss_batch)
            return training.train_step(state, batch, flossed, optimizer(run))[0]._replace(step=state.step)

        return jax.lax.fori_loop(0, updates, one, state)

    def chosen(flag, new, old):
        return jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)

    def init(run):
        gauss = recurrent.gaussian(config.gain / config.hidden**0.5)
        params = recurrent.init_model(
            keys(run, 0), 1, config.hidden, 1, w_rec=gauss, w_in=recurrent.gaussian(1.0), w_out=gauss
        )
        state = training.init_train_state(params, optimizer(run))
        return chosen(columns["before"][run["arm"]], floss(state, run, config.floss_updates, 1), state)

    def update(state, run):
        def one(state, _):
            batch = sample(jax.random.fold_in(keys(run, 2), state.step), config.batch)
            return training.train_step(state, batch, loss(run), optimizer(run))

        # First, so that what is judged after a block is a network that has just been trained.
        state = chosen(columns["during"][run["arm"]], floss(state, run, config.floss_again, 3), state)
        state, metrics = jax.lax.scan(one, state, length=config.floss_every)
        return state, jax.tree.map(lambda x: x[-1], metrics)

    def evaluate(state, run):
        batch = sample(jax.random.fold_in(keys(run, 4), state.step), config.test_batch)
        start = jnp.zeros((config.test_batch, config.hidden))
        states = recurrent.unroll(step, state.params.rnn, start, batch.inputs)
        right = (logits(state.params, states) > 0) == (batch.targets > 0.5)
        return {"accuracy": average(right, batch)}

    grid = product_grid(arm=list(range(len(ARMS))), seed=list(range(config.seeds)))
    options: dict[str, Any] = {"evaluate": evaluate, "evaluate_every": 1}
    options |= {"folder": config.checkpoint, "name": f"delay_{delay}"}
    return whole_sweep(init, update, grid, config.updates // config.floss_every, **options)


def draw(result: Result) -> dict[str, Any]:
    """Accuracy against the delay."""
    config = result.config
    fig, ax = figure(size=(6.4, 4))
    for j, name in enumerate(ARMS):
        values = 100 * result.arrays["accuracy"][:, j]
        places = np.array(config.delays) + 0.12 * (j - 2)
        ax.plot(places, np.median(values, 1), "o-", label=name)
        for x, runs in zip(places, values):
            ax.plot(np.full(len(runs), x), runs, ".", color=ax.lines[-1].get_color(), ms=3, alpha=0.5)
    ax.axhline(50, color="black", lw=1, ls=":")
    ax.set(xlabel="delay, steps", ylabel="% of answers right", ylim=(45, 101), xticks=config.delays)
    ax.legend(loc="center left")
    return {"flossing": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
