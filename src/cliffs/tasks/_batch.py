"""What every synthetic task hands out: sequences of one length, padded when the length varies from batch to batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key


class SequenceBatch(NamedTuple):
    """A batch of sequences with their targets; steps from `length` on are padding, whose inputs are 0."""

    inputs: Float[Array, "time batch features"]
    targets: Array
    """`[batch]` classes or `[batch, outputs]` numbers, wanted at the last step; with a mask `[time, batch]` classes."""
    length: Int[Array, "*batch"]
    """Steps that count. Tasks draw one number for the whole batch; for the losses of `cliffs.training` it may be
    `[batch]`, one for each sequence."""
    mask: Bool[Array, "time batch"] | None = None
    """The steps at which an output is wanted; None when it is wanted at the last step alone."""


def draw_length(
    key: Key[Array, ""], length: int, max_length: int | None, *, shortest: int, why: str
) -> tuple[int, Int[Array, ""]]:
    """`(steps to make room for, this batch's length)`; the length is `U{length .. max_length - 1}` when it varies.

    **Raises** `ValueError` for a length below `shortest` (`why` says what needs it) or an empty range.

    >>> draw_length(jax.random.key(0), 20, None, shortest=10, why="a window is a tenth")
    (20, Array(20, dtype=int32...))
    """
    if isinstance(length, Tracer) or isinstance(max_length, Tracer):
        raise ValueError(
            "length must be known before tracing, it is a traced number: a task draws a length that varies itself, "
            f"between length and max_length; for each length of a list take a sweep of its own, got {length}"
        )
    if length < shortest:
        raise ValueError(f"length must be at least {shortest} ({why}), got {length}")
    if max_length is None:
        return length, jnp.asarray(length)
    if max_length <= length:
        raise ValueError(f"max_length must exceed length={length}, got {max_length}")
    return max_length - 1, jax.random.randint(key, (), length, max_length)


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ValueError` when an integer argument is too small.

    >>> check_at_least("batch_size", 0, 1)
    Traceback (most recent call last):
    ValueError: batch_size must be at least 1, got 0
    """
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
