"""Typed random keys in the grid and the state of a sweep: numpy holds their words."""

from typing import Any

import jax
from jaxtyping import PyTree

from cliffs.sweeps._grid import is_key


def key_kinds(tree: PyTree) -> Any:
    """For every leaf the kind of typed random key that it holds, or an empty string."""
    return jax.tree.map(lambda x: str(jax.random.key_impl(x)) if is_key(x) else "", tree)


def bare(tree: PyTree, kinds: PyTree) -> Any:
    """Typed keys as their words, which numpy can hold."""
    return jax.tree.map(lambda x, kind: jax.random.key_data(x) if kind else x, tree, kinds)


def typed(tree: PyTree, kinds: PyTree) -> Any:
    """The reverse of `bare`."""
    return jax.tree.map(lambda x, kind: jax.random.wrap_key_data(x, impl=kind) if kind else x, tree, kinds)
