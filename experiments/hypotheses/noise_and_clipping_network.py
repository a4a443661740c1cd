"""A small regression with noise on its gradient, for `noise_and_clipping`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from cliffs.clipping import clip_by_global_norm
from cliffs.training import init_train_state, train_step


def network_losses(config: Any, which: str, degrees: float) -> np.ndarray:
    """Test losses at the end `[thresholds, rates, seeds]` of "SGD" or "Adam" with a multivariate t on the gradient."""
    median = 1.0 if math.isinf(degrees) else median_of_tail(degrees)
    rates = jnp.geomspace(*((0.003, 3.0) if which == "SGD" else (0.001, 0.3)), config.rates)
    teacher = weights(jax.random.key(config.seed + 99), config.hidden)

    def loss(params, inputs):
        return jnp.mean((predict(params, inputs) - predict(teacher, inputs)) ** 2)

    def one(threshold, rate, key):
        k_start, k_run, k_test = jax.random.split(key, 3)
        step_rule = optax.sgd(rate) if which == "SGD" else optax.adam(rate)

        def noisy(updates, state, params=None):
            k_noise, k_tail = jax.random.split(jax.random.fold_in(k_run, 2 * state + 1))
            flat, unflatten = ravel_pytree(updates)
            tail = 1.0 if math.isinf(degrees) else jnp.sqrt(degrees / jax.random.chisquare(k_tail, degrees))
            length = config.network_noise * tail / median
            return unflatten(flat + jax.random.normal(k_noise, flat.shape) * length / flat.size**0.5), state + 1

        noise = optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), noisy)
        rule = optax.chain(noise, clip_by_global_norm(threshold * config.network_noise), step_rule)

        def body(state, step):
            inputs = jax.random.normal(jax.random.fold_in(k_run, 2 * step), (config.batch, 8))
            return train_step(state, inputs, loss, rule)[0], None

        state = init_train_state(weights(k_start, config.hidden), rule)
        state = jax.lax.scan(body, state, jnp.arange(config.network_updates))[0]
        return jnp.where(state.diverged_at < 0, loss(state.params, jax.random.normal(k_test, (256, 8))), jnp.inf)

    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    over = jax.vmap(jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None)), (0, None, None))
    return np.asarray(jax.jit(over)(jnp.asarray(config.thresholds), rates, keys), float)


def weights(key: Any, hidden: int) -> dict[str, Any]:
    """Of a network with one tanh layer."""
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (8, hidden)) / 8**0.5,
        "out": jax.random.normal(second, (hidden,)) / hidden**0.5,
    }


def predict(params: dict[str, Any], inputs: Any) -> Any:
    return jnp.tanh(inputs @ params["in"]) @ params["out"]


def median_of_tail(degrees: float) -> float:
    """The median of `sqrt(degrees / chi-square)`."""
    import scipy.stats

    return float(np.sqrt(degrees / scipy.stats.chi2.median(degrees)))
