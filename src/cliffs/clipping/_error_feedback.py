"""Clip21: clip the difference to an estimate that follows the gradient, so that clipping leaves no bias."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from cliffs.clipping._leaves import wide
from cliffs.clipping._like_params import of_leaves, replaced, zeros_like_params
from cliffs.clipping._numbers import Number, at, check
from cliffs.clipping._outcome import Outcome, clipped_whole, compare
from cliffs.clipping._safe_norm import Axis, whole_norm
from cliffs.clipping._strategy import NonFinite, strategy


class ErrorFeedbackState(NamedTuple):
    """State of `clip_with_error_feedback`: averages and estimates of each parameter's shape, in float32 at least."""

    count: Int[Array, ""]
    average: PyTree
    """The momentum v; None where `b1` is."""
    estimate: PyTree
    """The estimate h, which is the update."""


def clip_with_error_feedback(
    max_norm: Number,
    b1: Number | None = None,
    b2: Number = 1.0,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Step along an estimate that follows the gradient by clipped differences: `h <- h + b2 clip(v - h, max_norm)`.

    `clip` is that by the global norm, and `v = (1 - b1) v + b1 g` averages the gradient; `b1=None` means `v = g` and
    needs no memory for an average. A constant gradient is reached after `||g|| / (b2 max_norm)` steps and then used
    unchanged, where plain clipping would shorten it for ever; a spike moves the estimate by `b2 max_norm` at most.

    **Arguments**

    - `max_norm`: the most that the estimate moves before the factor `b2`, `>= 0`; a number, a traced scalar or a
      schedule.
    - `b1`: the weight of the new gradient in its average, in `[0, 1]`; likewise; or None.
    - `b2`: the step of the estimate, in `[0, 1]`; likewise.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient enters neither average nor estimate.
    - `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs` with `ErrorFeedbackState`.

    **Raises** `ValueError` for a number out of range, and for a gradient with other leaves than `init` saw.

    Source: Khirirat, Gorbunov, Horváth, Islamov, Karray & Richtárik (2023), Clip21 (`b1=None`, `b2=1`); with momentum
    Islamov, Horváth, Lucchi, Richtárik & Gorbunov (2025), arXiv 2502.11682, Clip21-SGD2M, here for one worker and
    without noise. There the parameters move before the estimate does, so that the first step is along `h = 0`; here the
    step is along the new estimate: the same run without its first, empty step.

    >>> clip = clip_with_error_feedback(1.0)
    >>> state = clip.init(jnp.zeros(1))
    >>> for _ in range(4):
    ...     updates, state = clip.update(jnp.array([2.5]), state)
    ...     print(float(updates[0]))
    1.0
    2.0
    2.5
    2.5
    """
    check("max_norm", max_norm)
    check("b2", b2, high=1.0)
    if b1 is not None:
        check("b1", b1, high=1.0)

    def init(params):
        average = None if b1 is None else zeros_like_params(params)
        return ErrorFeedbackState(jnp.zeros((), jnp.int32), average, zeros_like_params(params))

    def rule(gradient, state):
        dtype = gradient.norm.value.dtype
        limit, step = (jnp.asarray(at(number, state.count), dtype) for number in (max_norm, b2))
        # Where the gradient is not finite nothing moves.
        step = jnp.where(gradient.finite, step, 0)
        old = of_leaves(gradient, state.estimate)
        new = [wide(x, h.real.dtype) for x, h in zip(gradient.clean, old)]
        if b1 is not None:
            share = jnp.where(gradient.finite, jnp.asarray(at(b1, state.count), dtype), 0)
            new = [_mean(v, x, share) for v, x in zip(of_leaves(gradient, state.average), new)]
        halves = [_half_way(v, h) for v, h in zip(new, old)]
        moves = clipped_whole(halves, whole_norm(halves, dtype, gradient.axis_name), 0.5 * limit).leaves
        estimates = [_moved(h, move, step) for h, move in zip(old, moves)]
        updates = [h.astype(x.dtype) for h, x in zip(estimates, gradient.leaves)]

        def change():
            gaps = [wide(u, dtype) - wide(x, dtype) for u, x in zip(updates, gradient.leaves)]
            changed = whole_norm(gaps, dtype, gradient.axis_name).value > 0
            return compare(gradient.leaves, updates, gradient.norm, changed, gradient.axis_name)

        state = state._replace(estimate=replaced(gradient, state.estimate, estimates))
        if b1 is not None:
            state = state._replace(average=replaced(gradient, state.average, new))
        return Outcome(updates, change, kept=("average", "estimate")), state

    return strategy(init, rule, nonfinite, axis_name=axis_name)


# All are traced once for all arrays of one shape.
@jax.jit
def _mean(average: Array, x: Array, share: Array) -> Array:
    return (1 - share) * average + share * x


@jax.jit
def _half_way(v: Array, h: Array) -> Array:
    """Half the difference, because the difference of two floats may be none."""
    return 0.5 * v - 0.5 * h


@jax.jit
def _moved(h: Array, half: Array, step: Array) -> Array:
    return (h + step * half) + step * half
