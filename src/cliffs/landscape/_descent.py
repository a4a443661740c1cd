"""Descent on a fixed surface: the path of any optax chain, and which of many starts it throws out of a valley."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

from cliffs._losses import scalar
from cliffs.training import init_train_state, train_step
from cliffs.typing import Objective


class DescentPath(NamedTuple):
    """The points that an optimiser visits, the start first."""

    params: PyTree
    """Leaves `[steps + 1, ...]`."""
    loss: Float[Array, " steps"]
    """The loss before each step."""
    grad_norm: Float[Array, " steps"]
    """The gradient's norm before each step, before any clipping."""
    diverged_at: Array
    """The first step that led to a value that is not finite; -1 if none did."""


class StabilityMap(NamedTuple):
    """What became of every start, for every pair of a learning rate and a threshold."""

    learning_rates: Float[Array, " rates"]
    thresholds: Float[Array, " thresholds"]
    left_at: Int[Array, "rates thresholds starts"]
    """The first step that led outside the valley (or to where loss or gradient is not finite); -1 where none did, 0
    also for a start that is itself not finite."""
    outside: Bool[Array, "rates thresholds starts"]
    """Whether the path's end is outside: a start can leave and come back."""
    final_loss: Float[Array, "rates thresholds starts"]
    """The loss at the path's last point where it is finite; NaN only for a start where it is not."""

    @property
    def left_share(self) -> Float[Array | np.ndarray, "rates thresholds"]:
        """The share of starts that left the valley at any time."""
        return (self.left_at >= 0).mean(-1)


def descend(loss: Objective, params: PyTree, optimizer: optax.GradientTransformation, num_steps: int) -> DescentPath:
    """The path of an optimiser on a fixed surface; pure, so starts, rates and thresholds can be vmapped.

    **Arguments**: `loss(params) -> scalar`; the start; any optax chain; the number of steps.

    **Returns** a `DescentPath`; a path that diverges stays where it last was finite.

    **Raises** `ValueError` for a negative number of steps.

    >>> path = descend(lambda p: jnp.sum(p**2), jnp.ones(1), optax.sgd(0.25), 2)
    >>> path.params.ravel().tolist()
    [1.0, 0.5, 0.25]
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must not be negative, got {num_steps}")
    params = jax.tree.map(jnp.asarray, params)

    def body(state, _):
        new, metrics = train_step(state, None, lambda p, _: scalar(loss)(p), optimizer)
        return new, (new.params, metrics.loss, metrics.grad_norm)

    final, (points, losses, norms) = jax.lax.scan(body, init_train_state(params, optimizer), length=num_steps)
    points = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, points)
    return DescentPath(points, losses, norms, final.diverged_at)


def stability_map(
    loss: Objective,
    starts: PyTree,
    make_optimizer: Callable[[Array, Array], optax.GradientTransformation],
    learning_rates: Float[Array, " rates"],
    thresholds: Float[Array, " thresholds"],
    num_steps: int,
    inside: Callable[[PyTree], ArrayLike],
    *,
    chunk_size: int = 4096,
) -> StabilityMap:
    """Which starts an optimiser throws out of a valley, for every learning rate x clipping threshold.

    Rates and thresholds are traced: the whole map is one compiled program, and no path is stored.

    **Arguments**

    - `loss`: `loss(params) -> scalar`.
    - `starts`: parameters with a leading axis of starts.
    - `make_optimizer`: `make_optimizer(learning_rate, threshold) -> optax chain`, for instance
      `lambda lr, c: optax.chain(optax.clip_by_global_norm(c), optax.sgd(lr))`; a threshold of `inf` is no clipping.
    - `learning_rates`, `thresholds`: the two axes.
    - `num_steps`: updates of every path.
    - `inside`: `inside(params) -> bool`, what the valley is.
    - `chunk_size`: paths computed side by side.

    **Returns** a `StabilityMap`.

    **Raises** `ValueError` for empty axes or starts, fewer than one step, or an `inside` that is not a scalar.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.4, "possibly leaving the valley".

    >>> make = lambda rate, threshold: optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(rate))
    >>> rates, thresholds = jnp.array([0.1, 2.0]), jnp.array([0.1, jnp.inf])
    >>> near = lambda x: jnp.abs(x) < 2.0
    >>> stability_map(lambda x: x**2, jnp.array([0.5, 1.0]), make, rates, thresholds, 5, near).left_share.tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    starts = jax.tree.map(jnp.asarray, starts)
    rates, limits = jnp.asarray(learning_rates), jnp.asarray(thresholds)
    sizes = {jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(starts)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"starts must have one common, non-empty leading axis, got sizes {sizes}")
    for name, axis in (("learning_rates", rates), ("thresholds", limits)):
        if axis.ndim != 1 or not axis.size:
            raise ValueError(f"{name} must be a non-empty array, got shape {axis.shape}")
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    verdict = jax.eval_shape(lambda p: jnp.asarray(inside(jax.tree.map(lambda x: x[0], p))), starts)
    if verdict.shape:
        raise ValueError(f"inside must give one bool for one set of parameters, got shape {verdict.shape}")
    shape = (rates.size, limits.size, sizes.pop())

    def follow(index):
        i, j, k = jnp.unravel_index(index, shape)
        optimizer = make_optimizer(rates[i], limits[j])

        def body(carry, _):
            state, left_at, last = carry
            new, metrics = train_step(state, None, lambda p, _: scalar(loss)(p), optimizer)
            gone = ~jnp.asarray(inside(new.params)) | (new.diverged_at >= 0)
            # What is not finite here is what the step before led to.
            late = (new.diverged_at == state.step) & ~(jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.grad_norm))
            at = jnp.where(late, jnp.maximum(state.step - 1, 0), state.step)
            last = jnp.where(jnp.isfinite(metrics.loss), metrics.loss, last).astype(last.dtype)
            return (new, jnp.where((left_at < 0) & gone, at, left_at), last), None

        start = init_train_state(jax.tree.map(lambda x: x[k], starts), optimizer)
        end = jax.eval_shape(scalar(loss), start.params)
        carry = (start, jnp.full((), -1, jnp.int32), jnp.full((), jnp.nan, end.dtype))
        (final, left_at, last), _ = jax.lax.scan(body, carry, length=num_steps)
        value = scalar(loss)(final.params)
        lost = ~jnp.isfinite(value)
        outside = ~jnp.asarray(inside(final.params)) | (final.diverged_at >= 0) | lost
        left_at = jnp.where((left_at < 0) & lost, num_steps - 1, left_at)
        return left_at, outside, jnp.where(lost, last, value)

    count = shape[0] * shape[1] * shape[2]
    out = jax.lax.map(follow, jnp.arange(count), batch_size=min(chunk_size, count))
    return StabilityMap(rates, limits, *(x.reshape(shape) for x in out))
