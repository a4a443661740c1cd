"""Blocks of time: how many steps share one weight-gradient product, and what is kept for the backward pass."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

LARGE_STEP_ROWS = 256  # a product over this many rows gains nothing from being merged with others
WHOLE_SEQUENCE_BYTES = 2**24  # deltas up to this size are kept for all steps
BLOCK_ROWS = 4096


def block_length(num_steps: int, rows: int, hidden: int, itemsize: int) -> int:
    """How many steps share one weight-gradient product: a divisor of `num_steps`.

    `rows` is the size of the batch, `hidden` how many deltas one row has.

    >>> block_length(100, 20, 50, 4), block_length(20, 1000, 50, 4), block_length(20_000, 20, 500, 4)
    (100, 1, 200)
    """
    fits = num_steps * rows * hidden * itemsize <= WHOLE_SEQUENCE_BYTES
    if num_steps == 0 or (fits and rows < LARGE_STEP_ROWS):
        return max(num_steps, 1)
    most = max(1, BLOCK_ROWS // max(rows, 1)) if rows < LARGE_STEP_ROWS else 1
    return largest_divisor(num_steps, most)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`.

    >>> largest_divisor(100, 30), largest_divisor(7, 3)
    (25, 1)
    """
    return max(k for k in range(1, min(most, number) + 1) if number % k == 0)


def over_blocks(
    function: Callable[[Any, Any], tuple[Any, Any]],
    carry: PyTree,
    xs: PyTree,
    length: int,
    *,
    num_steps: int,
    reverse: bool = False,
) -> tuple[PyTree, PyTree]:
    """`function(carry, x[length, ...])` scanned over consecutive blocks of the leading axis, `num_steps` in all."""
    if length >= num_steps:
        return function(carry, xs)
    blocks = jax.tree.map(lambda x: x.reshape(num_steps // length, length, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(function, carry, blocks, length=num_steps // length, reverse=reverse)
    return carry, jax.tree.map(lambda y: y.reshape(num_steps, *y.shape[2:]), ys)


def over_blocks_with_rest(
    function: Callable[[Any, Any, int], tuple[Any, Any]], carry: PyTree, xs: PyTree, length: int, *, num_steps: int
) -> tuple[PyTree, PyTree]:
    """As `over_blocks`, for any length, each block computed a second time in the backward pass.

    `function(carry, x, count)` gets its number of steps; a shorter block comes first where `length` does not divide
    `num_steps`.
    """
    rest = num_steps % length
    checkpointed = {n: jax.checkpoint(partial(function, count=n)) for n in (rest, length)}
    first, ys = None, None
    if rest:
        carry, first = checkpointed[rest](carry, jax.tree.map(lambda x: x[:rest], xs))
    if num_steps - rest or not rest:
        others = jax.tree.map(lambda x: x[rest:], xs)
        carry, ys = over_blocks(checkpointed[length], carry, others, length, num_steps=num_steps - rest)
    if first is None or ys is None:
        return carry, ys if first is None else first
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, ys)
