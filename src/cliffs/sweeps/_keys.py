"""Typed random keys in the grid and the state of a sweep: numpy holds their words."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


def key_kinds(tree: PyTree) -> Any:
    """For every leaf the kind of typed random key that it holds, or an empty string."""
    typed = lambda x: jax.dtypes.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: str(jax.random.key_impl(x)) if typed(x) else "", tree)


def bare(tree: PyTree, kinds: PyTree) -> Any:
    """Typed keys as their words, which numpy can hold."""
    return jax.tree.map(lambda x, kind: jax.random.key_data(x) if kind else x, tree, kinds)


def typed(tree: PyTree, kinds: PyTree) -> Any:
    """The reverse of `bare`."""
    return jax.tree.map(lambda x, kind: jax.random.wrap_key_data(x, impl=kind) if kind else x, tree, kinds)


def without_typed_keys(grid, init, update, evaluate):
    """The same sweep with the words of typed keys in grid and state, and what turns both back in the end."""
    in_grid = key_kinds(grid)
    in_state: Any = None

    def plain_init(run):
        nonlocal in_state
        state = init(typed(run, in_grid))
        in_state = key_kinds(state)
        return bare(state, in_state)

    grid = bare(grid, in_grid)
    jax.eval_shape(lambda g: plain_init(jax.tree.map(lambda x: jnp.asarray(x)[0], g)), grid)

    def plain_update(state, run, *data):
        state, metrics = update(typed(state, in_state), typed(run, in_grid), *data)
        return bare(state, in_state), metrics

    def plain_evaluate(state, run, *data):
        return evaluate(typed(state, in_state), typed(run, in_grid), *data)

    def back(grid, state):
        return typed(grid, in_grid), typed(state, in_state)

    return grid, plain_init, plain_update, plain_evaluate if evaluate else None, back
