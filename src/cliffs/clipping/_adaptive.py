"""Thresholds that follow the history of the norm: EMA, quantile (AutoClip) and z-score (ZClip)."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from cliffs.clipping._leaves import compute_dtype
from cliffs.clipping._numbers import Number, at, check, hypot, multiple
from cliffs.clipping._outcome import clipped_whole
from cliffs.clipping._safe_norm import Axis
from cliffs.clipping._strategy import NonFinite, strategy


class EmaNormState(NamedTuple):
    """State of `clip_by_ema_norm`."""

    count: Int[Array, ""]
    mean: Float[Array, ""]


class NormQuantileState(NamedTuple):
    """State of `clip_by_norm_quantile`: a ring buffer of norms."""

    count: Int[Array, ""]
    norms: Float[Array, " buffer"]


class ZScoreState(NamedTuple):
    """State of `clip_by_zscore`; the spread is kept as a standard deviation, which does not overflow."""

    count: Int[Array, ""]
    mean: Float[Array, ""]
    std: Float[Array, ""]


def _zero_count():
    return jnp.zeros((), jnp.int32)


def clip_by_ema_norm(
    multiplier: Number = 3.0,
    decay: Number = 0.95,
    update: Literal["before", "after", "clipped"] = "before",
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip to a multiple of the moving average of the norms: `tau = multiplier m`, `m = decay m + (1-decay) ||g||`.

    The first norm starts the average. When the new norm enters it decides how large a spike can still pass:

    - `"before"`: before the comparison. `m` then holds at least `(1-decay) ||g||`, so a spike of any size keeps
      at least `multiplier (1-decay)` of itself: 15 % with the defaults, a spike of 1000 becomes 153;
    - `"after"`: the comparison comes first. A spike is cut to `multiplier m`, but its full size enters the average;
    - `"clipped"`: as `"after"`, with the clipped norm entering: a spike moves the average by at most
      `1 + (1-decay)(multiplier-1)`, and an average near 0 may grow slowly.

    **Arguments**

    - `multiplier`: `>= 0`; a number, a traced scalar or a schedule.
    - `decay`: in `[0, 1)`; likewise.
    - `update`: see above.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the average.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `EmaNormState`.

    **Raises** `ValueError` for a number out of range or an unknown `update`.

    Source: a common teaching example (`update="before"`); the other two are variations of it.

    >>> clip = clip_by_ema_norm()
    >>> state = clip.init(jnp.zeros(1))
    >>> _, state = clip.update(jnp.array([1.0]), state)
    >>> spike, state = clip.update(jnp.array([1000.0]), state)
    >>> round(float(spike[0]), 2)
    152.85
    """
    check("multiplier", multiplier)
    check("decay", decay, high=1.0, open_high=True)
    if update not in ("before", "after", "clipped"):
        raise ValueError(f"update must be 'before', 'after' or 'clipped', got {update!r}")

    def init(params):
        return EmaNormState(_zero_count(), jnp.zeros((), compute_dtype(params)))

    def rule(gradient, state):
        n, first = gradient.norm.value, state.count == 0
        k, a = at(multiplier, state.count), at(decay, state.count)
        old = jnp.where(first, n, state.mean)
        if update == "before":
            mean = jnp.where(first, n, a * old + (1 - a) * n)
            return clipped_whole(gradient.leaves, gradient.norm, multiple(k, mean)), state._replace(mean=mean)
        limit = multiple(k, old)
        seen = jnp.minimum(n, limit) if update == "clipped" else n
        mean = jnp.where(first, n, a * old + (1 - a) * seen)
        return clipped_whole(gradient.leaves, gradient.norm, limit), state._replace(mean=mean)

    return strategy(init, rule, nonfinite, axis_name=axis_name)


def clip_by_norm_quantile(
    quantile: Number = 0.1,
    buffer_size: int = 1000,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip to the `quantile` of the norms seen so far: `tau = percentile(history, 100 quantile)`.

    The history holds the last `buffer_size` norms, the current one included, so the first step never clips. The
    quantile interpolates linearly between order statistics, as `numpy.percentile` does.

    **Arguments**

    - `quantile`: in `[0, 1]`; a number, a traced scalar or a schedule. AutoClip's default is 0.1, so that about 90 %
      of the steps are clipped.
    - `buffer_size`: how many norms are kept, at least 1, static. Sorting it is the cost: O(buffer log buffer).
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the buffer.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `NormQuantileState`.

    **Raises** `ValueError` for a quantile outside [0, 1] or an empty buffer.

    Source: Seetharaman, Wichern, Pardo & Le Roux (2020), AutoClip. The paper's and its code's history is unbounded.

    >>> clip = clip_by_norm_quantile(0.5, buffer_size=10)
    >>> state = clip.init(jnp.zeros(1))
    >>> for norm in (1.0, 2.0, 9.0):
    ...     updates, state = clip.update(jnp.array([norm]), state)
    >>> round(float(updates[0]), 4)
    2.0
    """
    check("quantile", quantile, high=1.0)
    if not isinstance(buffer_size, Tracer):
        check("buffer_size", buffer_size, low=1, static=True)

    def init(params):
        return NormQuantileState(_zero_count(), jnp.full((int(buffer_size),), jnp.inf, compute_dtype(params)))

    def rule(gradient, state):
        size = state.norms.shape[0]
        norms = state.norms.at[state.count % size].set(gradient.norm.value)
        ordered = jnp.sort(norms)  # places not yet filled hold inf and sort last
        position = jnp.clip(at(quantile, state.count), 0, 1) * (jnp.minimum(state.count + 1, size) - 1)
        low = jnp.floor(position).astype(jnp.int32)
        fraction = (position - low).astype(ordered.dtype)
        below, above = ordered[low], ordered[jnp.minimum(low + 1, jnp.minimum(state.count, size - 1))]
        limit = below + fraction * (above - below)
        return clipped_whole(gradient.leaves, gradient.norm, limit), state._replace(norms=norms)

    return strategy(init, rule, nonfinite, axis_name=axis_name)


def clip_by_zscore(
    z_threshold: Number = 2.5,
    decay: Number = 0.97,
    warmup: Number = 25,
    max_norm: Number | None = None,
    clip_factor: Number = 1.0,
    mode: Literal["reciprocal", "mean", "percentile"] = "reciprocal",
    update_on_spike: bool = True,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip norms that are outliers: `z = (||g|| - mean) / (std + 1e-6) > z_threshold`.

    Where `z` exceeds the threshold `z0` the norm is cut to

    - `"reciprocal"`: `clip_factor (mean + z0 std / (z / z0))`: the further out, the nearer to the mean;
    - `"mean"`: `mean`;
    - `"percentile"`: `mean + z0 std`.

    The first `warmup` norms give mean and population standard deviation without adaptive clipping. Later
    `mean = decay mean + (1-decay) n` and `var = decay var + (1-decay) (n - mean)^2` with the new mean, where n is the
    norm after adaptive clipping.

    The 1e-6 is the published code's. It hides outliers among norms that scatter by less; `"percentile"` compares
    without it, the same at every scale.

    **Arguments**

    - `z_threshold`: `>= 0`. `decay`: in `[0, 1)`. `warmup`: at least 1.
    - `max_norm`: a fixed threshold in addition, also active during warm-up; None: no fixed threshold.
    - `clip_factor`: `>= 0`. All numbers may be traced scalars or schedules.
    - `mode`: see above. `update_on_spike`: whether a clipped norm enters the statistics.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the statistics.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `ZScoreState`.

    **Raises** `ValueError` for a number out of range or an unknown mode.

    Source: Kumar, Owen, Chowdhury & Güra (2025), ZClip, and its code (bluorion-com/ZClip). Where they disagree: the
    code has a fixed `max_norm`, 1.0 in its later versions and None in earlier ones; its documentation says that
    `clip_factor` multiplies `z0 std`, its code multiplies the whole threshold (so does this function).

    >>> clip = clip_by_zscore(warmup=2)
    >>> state = clip.init(jnp.zeros(1))
    >>> for norm in (1.0, 1.2, 100.0):
    ...     updates, state = clip.update(jnp.array([norm]), state)
    >>> round(float(updates[0]), 3)  # near the mean 1.1
    1.101
    """
    check("z_threshold", z_threshold)
    check("decay", decay, high=1.0, open_high=True)
    check("warmup", warmup, low=1)
    check("clip_factor", clip_factor)
    if max_norm is not None:
        check("max_norm", max_norm)
    if mode not in ("reciprocal", "mean", "percentile"):
        raise ValueError(f"mode must be 'reciprocal', 'mean' or 'percentile', got {mode!r}")

    def init(params):
        dtype = compute_dtype(params)
        return ZScoreState(_zero_count(), jnp.zeros((), dtype), jnp.zeros((), dtype))

    def rule(gradient, state):
        n, mean, std, count = gradient.norm.value, state.mean, state.std, state.count
        z0, a = at(z_threshold, count), at(decay, count)
        warm = count < at(warmup, count)
        z = (n - mean) / (std + 1e-6)
        spike = ~warm & (z > z0) if mode != "percentile" else ~warm & (n > mean + multiple(z0, std))
        if mode == "reciprocal":
            far = jnp.where(spike, z0, 1.0)  # an infinite z_threshold finds no spike and must not reach a derivative
            target = at(clip_factor, count) * (mean + far * std * (far / jnp.where(spike, z, 1.0)))
        else:
            target = mean if mode == "mean" else mean + multiple(z0, std)
        seen = jnp.where(spike, jnp.minimum(target, n), n)
        limit = jnp.where(spike, target, jnp.inf)
        if max_norm is not None:
            limit = jnp.minimum(limit, at(max_norm, count))

        # Welford's mean and population deviation in warm-up, the reference's moving averages after.
        k = (count + 1).astype(n.dtype)
        gap = n - mean
        warm_std = hypot(std * jnp.sqrt((k - 1) / k), gap * jnp.sqrt(k - 1) / k)
        late_mean = a * mean + (1 - a) * seen
        late_std = hypot(jnp.sqrt(a) * std, jnp.sqrt(1 - jnp.asarray(a, n.dtype)) * (seen - late_mean))
        keep = spike & (not update_on_spike)
        new = state._replace(
            mean=jnp.where(warm, mean + gap / k, jnp.where(keep, mean, late_mean)),
            std=jnp.where(warm, warm_std, jnp.where(keep, std, late_std)),
        )
        return clipped_whole(gradient.leaves, gradient.norm, limit), new

    return strategy(init, rule, nonfinite, axis_name=axis_name)


class QuantileTrackerState(NamedTuple):
    """State of `clip_by_quantile_tracker`: the present limit."""

    count: Int[Array, ""]
    limit: Float[Array, ""]


def clip_by_quantile_tracker(
    quantile: Number = 0.5,
    rate: Number = 0.2,
    start: float | Array = 0.1,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip to a limit that follows a quantile of the norms: `C <- C exp(-rate (1[||g|| <= C] - quantile))`.

    Each step clips to the present `C`, then moves it: down where the norm was below, up where it was above, in such
    proportion that in the long run the share `quantile` of the norms lies below. One number instead of the buffer of
    `clip_by_norm_quantile`.

    **Arguments**

    - `quantile`: gamma, in `[0, 1]`; a number, a traced scalar or a schedule.
    - `rate`: eta, `>= 0`, the step in `log C`; likewise.
    - `start`: the first limit, `> 0`; a number or a traced scalar.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient does not move the limit.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `QuantileTrackerState`.

    **Raises** `ValueError` for a number out of range.

    Source: Andrew, Thakkar, McMahan & Ramaswamy (2021), with their eta = 0.2, gamma = 0.5 and first limit 0.1. There
    `1[||g|| <= C]` is the share of the clients (or examples) whose norm is at most C; here there is one norm.

    >>> clip = clip_by_quantile_tracker(start=1.0)
    >>> updates, state = clip.update(jnp.array([3.0]), clip.init(jnp.zeros(1)))
    >>> round(float(updates[0]), 4), round(float(state.limit), 4)  # exp(0.2 * 0.5)
    (1.0, 1.1052)
    """
    check("quantile", quantile, high=1.0)
    check("rate", rate)
    check("start", start, open_low=True, static=True)

    def init(params):
        return QuantileTrackerState(_zero_count(), jnp.full((), start, compute_dtype(params)))

    def rule(gradient, state):
        n, limit = gradient.norm.value, state.limit
        gamma = jnp.clip(jnp.asarray(at(quantile, state.count), limit.dtype), 0, 1)
        eta = jnp.asarray(at(rate, state.count), limit.dtype)
        info = jnp.finfo(limit.dtype)
        moved = limit * jnp.exp(-eta * ((n <= limit) - gamma))
        return clipped_whole(gradient.leaves, gradient.norm, limit), state._replace(
            limit=jnp.clip(moved, info.tiny, info.max)
        )

    return strategy(init, rule, nonfinite, axis_name=axis_name)
