"""Moving averages of one number per array: corrected for their start, and kept under the names of the arrays."""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from cliffs.clipping._leaves import compute_dtype, is_number, named_leaves, stands_for_params
from cliffs.clipping._safe_norm import each_leaf
from cliffs.clipping._strategy import Gradient

Kept = dict[str, Float[Array, " numbers"]]
"""From the path of an array to its few numbers."""


def start(params: PyTree, numbers: int) -> Any:
    """Zeros for every array of numbers, as many as asked for."""
    if stands_for_params(params):
        return jnp.zeros(0)
    dtype = compute_dtype(params)
    return {name: jnp.zeros((numbers,), dtype) for name, x in named_leaves(params) if is_number(x)}


def columns(gradient: Gradient, kept: Kept) -> tuple[Float[Array, " leaves"], ...]:
    """The numbers of the gradient's arrays, those of one kind in one array."""
    return tuple(lax.optimization_barrier(jnp.stack(gradient.of_each_leaf(kept, "the state"), axis=1)))


def keep(gradient: Gradient, kept: Kept, *new: Float[Array, " leaves"]) -> Kept:
    """The state with new numbers for the gradient's arrays; those without a gradient keep theirs."""
    rows = zip(*(each_leaf(values) for values in new))
    return kept | {name: jnp.stack(row) for name, row in zip(gradient.names, rows)}


def weighted(weight: Array, decay: Any) -> tuple[Array, Array]:
    """The share that the next value has in an average, and the weight of all values together.

    `weight` is `1 - decay^t` after t values with one decay, as in Adam, and right for a scheduled decay, too. The
    average moves by `share (value - average)`; the first value has the share 1.
    """
    fresh = 1 - jnp.asarray(decay, weight.dtype)
    total = (1 - fresh) * weight + fresh
    some = total > 0
    return jnp.where(some, fresh / jnp.where(some, total, 1.0), 0.0), total
