"""Adaptive rules with a memory per array or per entry: AdaGC and the spike clipping of SPAM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from cliffs.clipping._core import Number, at, check, clip_to, compute_dtype, hypot, multiple, tree_norm, wide
from cliffs.clipping._report import Result, tell_parts
from cliffs.clipping._strategy import strategy


class EmaLeafNormState(NamedTuple):
    """State of `clip_by_ema_leaf_norm`: one average norm per leaf."""

    count: Int[Array, ""]
    norms: PyTree


class SpikeState(NamedTuple):
    """State of `clip_spikes`: the root of the second moment per entry, in float32 at least."""

    count: Int[Array, ""]
    rms: PyTree


def clip_by_ema_leaf_norm(
    multiplier: Number = 1.05,
    decay: Number = 0.98,
    warmup: Number = 100,
    max_norm: Number = 1.0,
    *,
    nonfinite: str = "propagate",
) -> optax.GradientTransformation:
    """Clip every leaf to a multiple of the moving average of its own clipped norm (AdaGC).

    `g_i min(1, multiplier gamma_i / ||g_i||)` with `gamma_i = decay gamma_i + (1-decay) ||clipped g_i||`. In the first
    `warmup` steps the global norm is clipped to `max_norm`, and `gamma_i` is the smallest clipped norm seen.

    **Arguments**

    - `multiplier`: `>= 0`. `decay`: in `[0, 1)`. `max_norm`: `>= 0`. Numbers, traced arrays or schedules.
    - `warmup`: number of steps with the global rule, `>= 1`.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the averages.

    **Returns** an `optax.GradientTransformation` with `EmaLeafNormState`.

    **Raises** `ValueError` for a number out of range.

    Source: Wang et al. (2025), AdaGC, arXiv 2502.11034, with its defaults 1.05, 0.98, 100 steps, 1.0. The third-party
    implementation in pytorch_optimizer counts from 1 and stops the warm-up one step earlier (`step < warmup`). A leaf
    whose norm was 0 in warm-up would be frozen at 0 by the rule as written; here it starts its average with the first
    norm that is not 0.

    >>> clip = clip_by_ema_leaf_norm(warmup=1, max_norm=10.0)
    >>> state = clip.init(jnp.zeros(1))
    >>> _, state = clip.update(jnp.array([1.0]), state)
    >>> updates, state = clip.update(jnp.array([50.0]), state)
    >>> round(float(updates[0]), 4), round(float(state.norms), 4)
    (1.05, 1.001)
    """
    check("multiplier", multiplier)
    check("decay", decay, high=1.0, open_high=True)
    check("warmup", warmup, low=1)
    check("max_norm", max_norm)

    def init(params):
        return EmaLeafNormState(
            jnp.zeros((), jnp.int32), jax.tree.map(lambda x: jnp.zeros((), compute_dtype(x)), params)
        )

    def rule(updates, state, params, norm):
        count = state.count
        k, a, warm = at(multiplier, count), at(decay, count), count < at(warmup, count)
        globally = clip_to(updates, norm, at(max_norm, count))

        def one(x, x_global, gamma):
            own = tree_norm(x)
            fresh = gamma <= 0
            limit = jnp.where(fresh, jnp.inf, multiple(k, gamma))
            locally = clip_to(x, own, limit)
            clipped = jnp.minimum(own.value, limit)
            scaled = tree_norm(x_global).value
            early = jnp.where(fresh, scaled, jnp.minimum(gamma, scaled))
            late = jnp.where(fresh, clipped, a * gamma + (1 - a) * clipped)
            new, norm_after = jnp.where(warm, x_global, locally), jnp.where(warm, scaled, clipped)
            return new, jnp.where(warm, early, late), own.value, norm_after

        leaves, treedef = jax.tree.flatten(updates)
        each = [one(*args) for args in zip(leaves, jax.tree.leaves(globally), jax.tree.leaves(state.norms))]
        new, norms, before, after = zip(*each) if each else ((), (), (), ())
        result = Result(treedef.unflatten(new), lambda _: tell_parts(list(before), list(after)))
        return result, state._replace(norms=treedef.unflatten(norms))

    return strategy(init, rule, nonfinite)


def clip_spikes(
    theta: Number = 5000.0, decay: Number = 0.999, warmup: Number = 20, *, nonfinite: str = "propagate"
) -> optax.GradientTransformation:
    """Clip single entries that stand out from their own history: `|g_j| <= sqrt(theta v_j)` (SPAM).

    `v_j = decay v_j + (1-decay) g_j^2` is Adam's second moment without bias correction, kept in the state and fed with
    the clipped entries; the comparison uses the moment before the new entry. Complex entries keep their phase.

    **Arguments**

    - `theta`: the largest ratio `g_j^2 / v_j`, `>= 0`. `decay`: in `[0, 1)`. Numbers, traced arrays or schedules.
    - `warmup`: steps in which the moment is gathered and nothing is clipped, `>= 1`.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the moments.

    **Returns** an `optax.GradientTransformation` with `SpikeState`.

    **Raises** `ValueError` for a number out of range.

    Source: Huang et al. (2025), SPAM, arXiv 2501.06842: theta = 5000. The momentum reset every 500 steps with its
    warm-up of 150 belongs to that optimiser, not to this rule. The 20 steps without clipping are in implementations
    (pytorch_optimizer: `grad_accu_steps`), not in the paper's formula. An entry whose moment is 0 (an embedding row not
    used so far) would stay 0 for ever by the rule as written; here it is not clipped.

    >>> clip = clip_spikes(theta=4.0, decay=0.0, warmup=1)
    >>> state = clip.init(jnp.zeros(2))
    >>> _, state = clip.update(jnp.array([1.0, 1.0]), state)
    >>> [round(float(x), 4) for x in clip.update(jnp.array([9.0, -1.5]), state)[0]]
    [2.0, -1.5]
    """
    check("theta", theta)
    check("decay", decay, high=1.0, open_high=True)
    check("warmup", warmup, low=1)

    def init(params):
        return SpikeState(
            jnp.zeros((), jnp.int32), jax.tree.map(lambda x: jnp.zeros(jnp.shape(x), compute_dtype(x)), params)
        )

    def rule(updates, state, params, norm):
        count = state.count
        ratio, a = jnp.asarray(at(theta, count)), at(decay, count)
        root = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)  # with derivative 0 at 0

        def one(x, rms):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x, rms
            y = wide(x, rms.dtype)
            size = hypot(y.real, y.imag) if jnp.iscomplexobj(y) else jnp.abs(y)
            bound = multiple(root, rms)
            spike = (count >= at(warmup, count)) & (size > bound) & (rms > 0)
            factor = jnp.where(spike, bound, 1.0) / jnp.where(spike, size, 1.0)
            # For real entries the limit itself with the sign: no division, so no rounding above the limit.
            cut = y * factor if jnp.iscomplexobj(y) else jnp.sign(y) * bound
            seen = jnp.where(spike, bound, size)
            moment = hypot(jnp.sqrt(a) * rms, jnp.sqrt(1 - jnp.asarray(a, rms.dtype)) * seen)
            return jnp.where(spike, cut.astype(x.dtype), x), moment

        leaves, treedef = jax.tree.flatten(updates)
        pairs = [one(x, r) for x, r in zip(leaves, jax.tree.leaves(state.rms))]
        new, rms = (treedef.unflatten(side) for side in zip(*pairs)) if pairs else (updates, state.rms)
        return new, state._replace(rms=rms)

    return strategy(init, rule, nonfinite)
