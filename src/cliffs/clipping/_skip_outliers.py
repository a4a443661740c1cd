"""Skipping whole steps whose loss or gradient norm is an outlier of the last ones."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from cliffs.clipping._leaves import is_number
from cliffs.clipping._numbers import Number, at, check, check_scalar
from cliffs.clipping._safe_norm import Axis, sum_over_devices, tree_norm
from cliffs.clipping._strategy import with_extra_args


class SkipOutliersState(NamedTuple):
    """State of `skip_outliers`."""

    inner: Any
    count: Int[Array, ""]
    """Steps taken, skipped ones not counted."""
    recorded: Int[Array, ""]
    """Finite steps seen so far, skipped outliers among them."""
    skipped: Int[Array, ""]
    losses: Float[Array, " window"]
    norms: Float[Array, " window"]


def skip_outliers(
    inner: optax.GradientTransformation | optax.MultiSteps,
    window: int = 128,
    loss_sigma: Number | None = 6.0,
    norm_sigma: Number | None = 6.0,
    *,
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """A whole optimizer that leaves out the steps whose loss or gradient norm is an outlier.

    A step is taken if `loss <= mean + loss_sigma std` and `||g|| <= mean + norm_sigma std`, over the last `window`
    losses and norms before this one, with the unbiased standard deviation. A skipped step gives updates of 0 and
    changes nothing in the state of `inner`: no moment, no count, no weight decay. Its loss and norm enter the window
    all the same, so that a lasting change of level is accepted after a while. With fewer than `max(2, window / 2)`
    records every finite step is taken.

    A step whose loss or norm is not finite is always skipped and never recorded.

    **Arguments**

    - `inner`: the optimizer, with all its clipping and decay.
    - `window`: how many steps are remembered, at least 2, static.
    - `loss_sigma`: how many standard deviations a loss may exceed the mean, `>= 0`; a number, a traced scalar or a
      schedule of the steps taken; None: losses are not looked at.
    - `norm_sigma`: likewise for the norm of the gradient.
    - `axis_name`: see `clip_by_global_norm`; the loss is then the mean over devices, so that all of them decide alike.

    **Returns** an `optax.GradientTransformationExtraArgs` with `SkipOutliersState`. Call it with the loss:
    `update(updates, state, params, value=loss)`.

    **Raises** `ValueError` for a number out of range, when `update` gets no `value` though `loss_sigma` is given, and
    for a `value` that is not one real number.

    Source: the skip-step optimizers of OLMo-core. There a NaN enters the window, and every comparison is false until it
    leaves; here it does not enter.

    >>> optimizer = skip_outliers(optax.sgd(1.0), window=4)
    >>> state = optimizer.init(jnp.zeros(1))
    >>> for size in (1.0, 1.1, 0.9, 50.0):
    ...     updates, state = optimizer.update(jnp.array([size]), state, value=size)
    >>> float(updates[0]) == 0, int(state.skipped)
    (True, 1)
    """
    if not isinstance(window, int | np.integer) or isinstance(window, bool) or window < 2:
        raise ValueError(f"window must be a whole number >= 2, got {window!r}")
    for name, sigma in (("loss_sigma", loss_sigma), ("norm_sigma", norm_sigma)):
        if sigma is not None:
            check(name, sigma)
    optimizer = with_extra_args("inner", inner)

    def init(params):
        def count():
            return jnp.zeros((), jnp.int32)

        return SkipOutliersState(
            optimizer.init(params), count(), count(), count(), jnp.zeros((window,)), jnp.zeros((window,))
        )

    def update(updates, state, params=None, *, value: ArrayLike | None = None, **extra):
        if value is None and loss_sigma is not None:
            raise ValueError("skip_outliers needs the loss: update(updates, state, params, value=loss)")
        norm = tree_norm(updates, axis_name).value.astype(state.norms.dtype)
        loss = jnp.zeros((), state.losses.dtype)
        if value is not None:
            check_scalar("value, the loss,", value)
            loss = jnp.asarray(value, loss.dtype)
            loss = sum_over_devices(loss, loss, axis_name) / sum_over_devices(loss, jnp.ones_like(loss), axis_name)
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        take = finite
        for seen, kept, sigma in ((loss, state.losses, loss_sigma), (norm, state.norms, norm_sigma)):
            if sigma is not None:
                take = take & _is_usual(seen, kept, state.recorded, at(sigma, state.count))
        passed_on = extra if value is None else {"value": value, **extra}
        # What is not finite must not reach a derivative, not even of a result that is left out.
        clean = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)) if is_number(x) else x, updates)
        new, inner_state = optimizer.update(clean, state.inner, params, **passed_on)
        place = state.recorded % window

        def record(kept, seen):
            return kept.at[place].set(jnp.where(finite, seen, kept[place]))

        return jax.tree.map(lambda u: jnp.where(take, u, jnp.zeros_like(u)), new), SkipOutliersState(
            jax.tree.map(lambda a, b: jnp.where(take, a, b), inner_state, state.inner),
            state.count + take,
            state.recorded + finite,
            state.skipped + ~take,
            record(state.losses, loss),
            record(state.norms, norm),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _is_usual(seen: Array, kept: Array, recorded: Array, sigma: ArrayLike) -> Array:
    """Whether a value is at most so many standard deviations above the mean of the last ones, or these are few."""
    window = kept.shape[0]
    number = jnp.minimum(recorded, window)
    held = jnp.arange(window) < number
    # Divided by the largest, so that squares stay floats.
    top = jnp.maximum(jnp.max(jnp.where(held, jnp.abs(kept), 0.0)), jnp.finfo(kept.dtype).tiny)
    shares = jnp.where(held, kept / top, 0.0)
    mean = jnp.sum(shares) / jnp.maximum(number, 1)
    gaps = jnp.where(held, shares - mean, 0.0)
    std = jnp.sqrt(jnp.sum(jnp.square(gaps)) / jnp.maximum(number - 1, 1))
    few = (number < 2) | (2 * number < window)
    return few | (seen / top - mean <= sigma * std)
