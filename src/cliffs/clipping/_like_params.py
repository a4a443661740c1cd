"""State with an array of each parameter's shape: where it starts, and how the gradient's leaves find their part."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cliffs.clipping._leaves import compute_dtype, is_array, is_number, named_leaves, wide
from cliffs.clipping._strategy import Gradient


def zeros_like_params(params: PyTree, real: bool = False) -> PyTree:
    """Zeros of each parameter's shape in float32 at least, real where asked for; integers mark what has no gradient.

    They have the parameters' structure, so that the state is sharded as the parameters are.
    """

    def zeros(x: Any):
        if not is_array(x):
            return None
        if not is_number(x):
            return jnp.zeros_like(x, dtype=jnp.int8)
        dtype = compute_dtype(x)
        return jnp.zeros_like(x, dtype=dtype) if real else wide(jnp.zeros_like(x), dtype)

    return jax.tree.map(zeros, params)


def of_leaves(gradient: Gradient, tree: PyTree) -> list[Array]:
    """The arrays of such a state that belong to the gradient's leaves; `ValueError` where shapes differ."""
    found = gradient.of_each_leaf({name: x for name, x in named_leaves(tree) if is_number(x)}, "the state")
    for x, y, name in zip(gradient.leaves, found, gradient.names):
        if x.shape != y.shape:
            raise ValueError(f"the gradient at {name!r} has shape {x.shape}, the params that init saw have {y.shape}")
    return found


def replaced(gradient: Gradient, tree: PyTree, new: list[Array]) -> PyTree:
    """Such a state with new arrays for the gradient's leaves; the others stay."""
    named = dict(named_leaves(tree))
    updated = named | dict(zip(gradient.names, new))
    return jax.tree.unflatten(jax.tree.structure(tree), [updated[name] for name in named])
