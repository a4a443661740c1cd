"""AdaGC: every leaf against the moving average of its own norm."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cliffs.clipping._averages import PerArray, check_columns, columns, replaced, start
from cliffs.clipping._numbers import Number, at, check, multiple
from cliffs.clipping._outcome import Outcome, rescaled_parts
from cliffs.clipping._safe_norm import Axis
from cliffs.clipping._strategy import NonFinite, by_leaf, strategy


class EmaLeafNormState(NamedTuple):
    """State of `clip_by_ema_leaf_norm`."""

    count: Int[Array, ""]
    norms: PerArray
    """For each leaf the average of its norm."""


def clip_by_ema_leaf_norm(
    multiplier: Number = 1.05,
    decay: Number = 0.98,
    warmup: Number = 100,
    max_norm: Number = 1.0,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip every leaf to a multiple of the moving average of its own clipped norm (AdaGC).

    `g_i min(1, multiplier gamma_i / ||g_i||)` with `gamma_i = decay gamma_i + (1-decay) ||clipped g_i||`. In the first
    `warmup` steps the global norm is clipped to `max_norm`, and `gamma_i` is the smallest clipped norm seen.

    **Arguments**

    - `multiplier`: `>= 0`. `decay`: in `[0, 1)`. `max_norm`: `>= 0`. Numbers, traced scalars or schedules.
    - `warmup`: number of steps with the global rule, `>= 1`.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the averages.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `EmaLeafNormState`.

    **Raises** `ValueError` for a number out of range, and for a gradient with other leaves than `init` saw (missing
    ones, None, are allowed: their averages stay).

    Source: Wang et al. (2025), AdaGC, arXiv 2502.11034, with its defaults 1.05, 0.98, 100 steps, 1.0. The third-party
    implementation in pytorch_optimizer counts from 1 and stops the warm-up one step earlier (`step < warmup`). A leaf
    whose norm was 0 in warm-up would be frozen at 0 by the rule as written; here it starts its average with the first
    norm that is not 0.

    >>> clip = clip_by_ema_leaf_norm(warmup=1, max_norm=10.0)
    >>> state = clip.init({"w": jnp.zeros(1)})
    >>> _, state = clip.update({"w": jnp.array([1.0])}, state)
    >>> updates, state = clip.update({"w": jnp.array([50.0])}, state)
    >>> round(float(updates["w"][0]), 4), round(float(state.norms.of("w")[0]), 4)
    (1.05, 1.001)
    """
    check("multiplier", multiplier)
    check("decay", decay, high=1.0, open_high=True)
    check("warmup", warmup, low=1)
    check("max_norm", max_norm)

    def init(params):
        return EmaLeafNormState(jnp.zeros((), jnp.int32), start(params, 1))

    def rule(gradient, state):
        if not gradient.leaves:
            check_columns(gradient, state.norms)
            return Outcome([]), state
        count, whole, own = state.count, gradient.norm.value, gradient.norms.value
        k, a, warm = at(multiplier, count), at(decay, count), count < at(warmup, count)
        # In warm-up every leaf is multiplied by length / whole, in the order that keeps the quotient a float.
        length = jnp.minimum(whole, at(max_norm, count))
        over, size = whole > length, jnp.where(whole > 0, whole, 1.0)
        (gamma,) = columns(gradient, state.norms)
        fresh = gamma <= 0
        scaled = jnp.where(over, own / size * jnp.where(over, length, 1.0), own)
        clipped = jnp.minimum(own, jnp.where(fresh, jnp.inf, multiple(k, gamma)))
        early = jnp.where(fresh, scaled, jnp.minimum(gamma, scaled))
        late = jnp.where(fresh, clipped, a * gamma + (1 - a) * clipped)
        lengths, averages = jnp.where(warm, scaled, clipped), jnp.where(warm, early, late)
        outcome = rescaled_parts(gradient.leaves, gradient.norms, lengths, gradient.finite)
        return outcome, state._replace(norms=replaced(state.norms, gradient.names, averages[None]))

    return strategy(init, rule, nonfinite, measure=by_leaf, axis_name=axis_name)
