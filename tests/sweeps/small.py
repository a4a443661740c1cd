"""A very small problem for tests of the sweep itself: a noisy quadratic, two numbers a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import training
from cliffs.sweeps import product_grid, sweep


def loss(params, batch):
    return jnp.sum((params - batch) ** 2), {"size": jnp.abs(params).max()}


def init(run):
    return training.init_train_state(jnp.full(2, 3.0), optax.sgd(run["rate"]))


def update(state, run):
    noise = 0.1 * jax.random.normal(jax.random.fold_in(jax.random.key(run["seed"]), state.step), (2,))
    return training.train_step(state, noise, loss, optax.sgd(run["rate"]))


def evaluate(state, run):
    error = jnp.sum(state.params**2)
    return {"error": error, "solved": error < 0.1}


def grid(seeds=2, rates=(0.01, 0.1, 10.0)):
    """The last rate diverges, the second solves, the first does neither within 40 updates."""
    return product_grid(rate=list(rates), seed=list(range(seeds)))


def run(steps=40, over=None, **options):
    options = {"evaluate": evaluate, "evaluate_every": 10, "progress": False, "stop_when_solved": True, **options}
    return sweep(init, update, grid() if over is None else over, steps, **options)


def assert_same(a, b):
    """Two results are equal to the bit, padding and all."""
    for x, y in zip(jax.tree.leaves(contents(a)), jax.tree.leaves(contents(b)), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def contents(result):
    """All arrays of a result."""
    return (result.state, result.metrics, result.evaluations, result.solved_at, result.diverged_at, result.steps_run)
