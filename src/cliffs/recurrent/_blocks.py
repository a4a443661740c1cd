"""Blocks of time: how many steps share one weight-gradient product."""

from collections.abc import Callable

import jax
from jaxtyping import PyTree

LARGE_STEP_ROWS = 256  # a product over this many rows gains nothing from being merged with others
WHOLE_SEQUENCE_BYTES = 2**24  # deltas up to this size are kept for all steps
BLOCK_ROWS = 4096


def block_length(
    num_steps: int,
    rows: int,
    hidden: int,
    itemsize: int,
    *,
    whole_bytes: int = WHOLE_SEQUENCE_BYTES,
    block_rows: int = BLOCK_ROWS,
) -> int:
    """How many steps share one weight-gradient product: a divisor of `num_steps`.

    `rows` is the size of the batch, `hidden` how many deltas one row has. Deltas of up to `whole_bytes` are kept for
    all steps, otherwise in blocks of `block_rows` rows.

    >>> block_length(100, 20, 50, 4), block_length(20, 1000, 50, 4), block_length(20_000, 20, 500, 4)
    (100, 1, 200)
    """
    fits = num_steps * rows * hidden * itemsize <= whole_bytes
    if num_steps == 0 or (fits and rows < LARGE_STEP_ROWS):
        return max(num_steps, 1)
    most = max(1, block_rows // max(rows, 1)) if rows < LARGE_STEP_ROWS else 1
    return largest_divisor(num_steps, most)


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`.

    >>> largest_divisor(100, 30), largest_divisor(7, 3)
    (25, 1)
    """
    return max(k for k in range(1, min(most, number) + 1) if number % k == 0)


def over_blocks(
    function: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
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
