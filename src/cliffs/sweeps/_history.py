"""Histories: metrics and evaluations of all runs as numpy arrays, and what stands where a run has none.

A run that has ended leaves the rest of its rows empty. An empty entry is never a number that could be a result: NaN in
floating-point and complex arrays; elsewhere the arrays are `numpy.ma.MaskedArray`, so that means and sums leave the
empty entries out.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def empty_history(shapes: PyTree, runs: int, count: int) -> Any:
    """Arrays `[runs, count, ...]` without an entry yet, for what has these shapes at one moment of one run."""

    def build(leaf):
        dtype = np.dtype(leaf.dtype)
        return np.full((runs, count, *leaf.shape), empty_value(dtype), dtype)

    return jax.tree.map(build, shapes)


def empty_value(dtype: np.dtype) -> Any:
    """NaN where the dtype has one; else the number that a result is least likely to be."""
    if has_nan(dtype):
        return complex(np.nan, np.nan) if jnp.issubdtype(dtype, jnp.complexfloating) else np.nan
    if jnp.issubdtype(dtype, jnp.unsignedinteger):
        return np.iinfo(dtype).max
    return np.iinfo(dtype).min if jnp.issubdtype(dtype, jnp.integer) else False


def has_nan(dtype: np.dtype) -> bool:
    """Whether the dtype can say NaN (a few floats of 4 and 6 bits cannot).

    >>> has_nan(np.dtype(jnp.bfloat16)), has_nan(np.dtype(int))
    (True, False)
    """
    return jnp.issubdtype(dtype, jnp.inexact) and bool(np.isnan(np.array(np.nan).astype(dtype).astype(complex)))


def store(history: PyTree, runs: np.ndarray, start: int, piece: PyTree) -> None:
    """Write `piece`, leaves `[len(runs), count, ...]`, into the rows of these runs from `start` on."""

    def write(whole, part):
        whole[runs, start : start + part.shape[1]] = part

    jax.tree.map(write, history, piece)


def masked(history: PyTree, filled: np.ndarray) -> Any:
    """The history with a mask over its empty entries where the dtype has no NaN; `filled` is bool `[runs, count]`."""

    def mask(leaf):
        if has_nan(leaf.dtype):
            return leaf
        empty = np.broadcast_to(~filled.reshape(*filled.shape, *[1] * (leaf.ndim - 2)), leaf.shape)
        return np.ma.MaskedArray(leaf, empty.copy())

    return jax.tree.map(mask, history)


def unmasked(history: PyTree) -> Any:
    """The bare arrays again."""
    return jax.tree.map(lambda x: np.asarray(np.ma.getdata(x)), history)
