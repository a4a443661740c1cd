"""The two rules of Stable-SPAM: entries against the average of an array's largest entry, and steady norms."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cliffs.clipping._averages import PerArray, check_columns, columns, replaced, start, weighted
from cliffs.clipping._leaves import compute_dtype, wide
from cliffs.clipping._numbers import Number, at, check, hypot, multiple, root_mean
from cliffs.clipping._outcome import Outcome, rescaled_parts
from cliffs.clipping._safe_norm import Axis, Norm, each_leaf, each_quotient, max_over_devices, whole_norm
from cliffs.clipping._strategy import NonFinite, by_leaf, strategy


class EmaMaxState(NamedTuple):
    """State of `clip_by_ema_max`."""

    count: Int[Array, ""]
    averages: PerArray
    """For each array the average of its largest modulus, and the weight behind it, `1 - decay^t`."""


def clip_by_ema_max(
    multiplier: Number = 1.0,
    decay: Number = 0.999,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Scale down the entries of an array above the moving average of its largest one (AdaClip of Stable-SPAM).

    With `M = max_j |g_j|` of the array and `T = decay T + (1 - decay) M`, corrected for its start as Adam's moments
    are, entries above `L = multiplier T` become `g_j L / M`: the largest becomes `L`, and those above `L` keep their
    proportions among each other. The others stay.

    **Arguments**

    - `multiplier`: of the average, `>= 0`. `decay`: in `[0, 1)`. Numbers, traced scalars or schedules.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the averages.
    - `axis_name`: see `clip_by_global_norm`; the largest entry is then that of all pieces.

    **Returns** an `optax.GradientTransformationExtraArgs` with `EmaMaxState`.

    **Raises** `ValueError` for a number out of range, and for a gradient with other leaves than `init` saw (missing
    ones, None, are allowed: their averages stay).

    Source: Huang et al. (2025), Stable-SPAM, arXiv 2502.17055, with its decay 0.999; there `multiplier` is 1. The
    average holds the present maximum before the comparison, so that no first gradient is clipped.

    >>> clip = clip_by_ema_max(decay=0.5)
    >>> state = clip.init(jnp.zeros(3))
    >>> _, state = clip.update(jnp.array([1.0, 0.5, 0.1]), state)
    >>> updates, state = clip.update(jnp.array([4.0, -3.5, 0.1]), state)  # T = (1 + 2 * 4) / 3 = 3
    >>> [round(float(x), 4) for x in updates]
    [3.0, -2.625, 0.1]
    """
    check("multiplier", multiplier)
    check("decay", decay, high=1.0, open_high=True)

    def init(params):
        return EmaMaxState(jnp.zeros((), jnp.int32), start(params, 2))

    def rule(gradient, state):
        if not gradient.leaves:
            check_columns(gradient, state.averages)
            return Outcome([]), state
        average, weight = columns(gradient, state.averages)
        tops = jnp.where(gradient.finite, gradient.norms, 0).astype(average.dtype)
        share, weight = weighted(weight, at(decay, state.count))
        average = average + share * (tops - average)
        limits = multiple(at(multiplier, state.count), average)
        over = tops > limits
        factors = each_quotient(jnp.where(over, limits, 1.0), jnp.where(over, tops, 1.0))
        parts = zip(gradient.leaves, each_leaf(limits), factors)
        new = [_scaled_above(x, limit, factor, gradient.finite) for x, limit, factor in parts]
        averages = replaced(state.averages, gradient.names, jnp.stack([average, weight]))
        return Outcome(new, passes_nonfinite=True), state._replace(averages=averages)

    return strategy(init, rule, nonfinite, measure=_by_largest, axis_name=axis_name)


def _by_largest(leaves: list[Array], dtype: Any, axis_name: Axis) -> tuple[Norm, Array, Array]:
    """The norm of all leaves, the largest modulus of each in one array `[leaves]`, and whether all are finite."""
    tops = [max_over_devices(x, _largest(x, dtype), axis_name) for x in leaves]
    tops = jnp.stack(tops) if tops else jnp.zeros(0, dtype)
    return whole_norm(leaves, dtype, axis_name), tops, jnp.isfinite(tops).all()


def _sizes(x: Array, finite: Array) -> tuple[Array, Array]:
    """Entries in a float's precision and their moduli; zeros where they are not finite."""
    y = jnp.where(finite, wide(x, compute_dtype(x)), 0)
    return y, hypot(y.real, y.imag) if jnp.iscomplexobj(y) else jnp.abs(y)


# Both are traced once for all arrays of one shape.
@functools.partial(jax.jit, static_argnums=1)
def _largest(x: Array, dtype: Any) -> Array:
    """The largest modulus; inf where an entry is inf or NaN (with NaN its derivative would be NaN), and only there."""
    finite = jnp.isfinite(x)
    size = _sizes(x, finite)[1]
    size = jnp.minimum(size, jnp.finfo(size.dtype).max) if jnp.iscomplexobj(x) else size
    return jnp.max(jnp.where(finite, size, jnp.inf)).astype(dtype)


@jax.jit
def _scaled_above(x: Array, limit: Array, factor: Array, finite: Array) -> Array:
    """Entries above the limit times the factor."""
    y, size = _sizes(x, finite)
    return jnp.where(size > limit.astype(size.dtype), (y * factor.astype(size.dtype)).astype(x.dtype), x)


class AdaptiveNormState(NamedTuple):
    """State of `adaptive_grad_norm`."""

    count: Int[Array, ""]
    averages: PerArray
    """For each array the average of its norm, its root mean square, and the weights behind the two."""


def adaptive_grad_norm(
    norm: Number = 1.0,
    b1: Number = 0.7,
    b2: Number = 0.9,
    eps: Number = 1e-8,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Give every array a steady norm: `norm m / (r + eps) g / ||g||` (AdaGN of Stable-SPAM).

    `m` is the moving average of the array's norm with decay `b1`, `r` the root of that of its square with decay `b2`,
    both with this gradient and corrected for their start as Adam's are. All arrays come out with norms near `norm`,
    whatever the size of the gradient: small ones become longer.

    **Arguments**

    - `norm`: the norm of an array whose gradients stay of one size, `>= 0` and finite; a number, a traced scalar or a
      schedule.
    - `b1`, `b2`: the decays, in `[0, 1)`. `eps`: `>= 0`. Likewise.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the averages, nor does one that is 0.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `AdaptiveNormState`.

    **Raises** `ValueError` for a number out of range, and for a gradient with other leaves than `init` saw (missing
    ones, None, are allowed: their averages stay).

    Source: Huang et al. (2025), Stable-SPAM, arXiv 2502.17055, with its 0.7 and 0.9; there `norm` is 1. In the whole
    method `clip_by_ema_max` comes before, and Adam after, whose moments start anew every 1000 steps.

    >>> rule = adaptive_grad_norm(b1=0.5, b2=0.5, eps=0.0)
    >>> state = rule.init(jnp.zeros(2))
    >>> _, state = rule.update(jnp.array([0.6, 0.8]), state)
    >>> updates, state = rule.update(jnp.array([6.0, 8.0]), state)  # m = 7, r^2 = 67
    >>> [round(float(x), 4) for x in updates]
    [0.5131, 0.6841]
    """
    check("norm", norm)
    check("b1", b1, high=1.0, open_high=True)
    check("b2", b2, high=1.0, open_high=True)
    check("eps", eps)

    def init(params):
        return AdaptiveNormState(jnp.zeros((), jnp.int32), start(params, 4))

    def rule(gradient, state):
        if not gradient.leaves:
            check_columns(gradient, state.averages)
            return Outcome([]), state
        old = columns(gradient, state.averages)
        n = jnp.where(gradient.finite, gradient.norms.value, 0.0)
        mean, root, mean_weight, root_weight = old
        mean_share, mean_weight = weighted(mean_weight, at(b1, state.count))
        root_share, root_weight = weighted(root_weight, at(b2, state.count))
        mean, root = mean + mean_share * (n - mean), root_mean(root, n, 1 - root_share)
        total = root + jnp.asarray(at(eps, state.count), n.dtype)
        some = total > 0
        ratio = jnp.where(some, mean / jnp.where(some, total, 1.0), 0.0)
        lengths = jnp.asarray(at(norm, state.count), n.dtype) * ratio
        new = jnp.where(n > 0, jnp.stack([mean, root, mean_weight, root_weight]), old)
        outcome = rescaled_parts(gradient.leaves, gradient.norms, lengths, gradient.finite)
        return outcome, state._replace(averages=replaced(state.averages, gradient.names, new))

    return strategy(init, rule, nonfinite, measure=by_leaf, axis_name=axis_name)
