"""Grids: pytrees of arrays with a leading run axis."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, PyTree


def product_grid(**axes: Sequence[Any] | np.ndarray | Array) -> dict[str, np.ndarray]:
    """All combinations of the given values as a grid, the last axis varying fastest.

    **Arguments**: one sequence per name. Use `inf` for "no threshold".

    **Returns** a dict of arrays `[runs]`.

    **Raises** `ValueError` for an empty sequence.

    >>> grid = product_grid(seed=[0, 1], max_norm=[1.0, float("inf")])
    >>> grid["seed"].tolist(), grid["max_norm"].tolist()
    ([0, 0, 1, 1], [1.0, inf, 1.0, inf])
    """
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"{name} must have at least one value, got an empty sequence")
    columns = zip(*itertools.product(*axes.values()))
    return {name: np.asarray(column) for name, column in zip(axes, columns)}


def rows(tree: PyTree, rows: np.ndarray) -> Any:
    """The given rows of every leaf, as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[rows], tree)


def check_grid(grid: PyTree, num_steps: int, evaluate_every: int, lanes: int | None) -> int:
    leaves = jax.tree.leaves(grid)
    sizes = {np.shape(x)[0] if np.ndim(x) else None for x in leaves}
    if not leaves or None in sizes or len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"grid must hold arrays with one common, non-empty leading run axis, got sizes {sizes}")
    if evaluate_every < 1 or num_steps < 1 or num_steps % evaluate_every:
        raise ValueError(
            f"num_steps must be a positive multiple of evaluate_every, got {num_steps} and {evaluate_every}"
        )
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")
    return int(next(iter(sizes)) or 0)
