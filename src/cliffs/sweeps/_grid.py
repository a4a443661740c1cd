"""Grids: pytrees of arrays with a leading run axis."""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree


def product_grid(**axes: Iterable[ArrayLike] | np.ndarray | Array) -> dict[str, np.ndarray | Array]:
    """All combinations of the given values as a grid, the last axis varying fastest.

    **Arguments**: the values of each name: a sequence, an array or a generator of numbers, or typed random keys. Use
    `inf` for "no threshold".

    **Returns** a dict of arrays `[runs]`. Integers from 2^31 to 2^32 - 1 become uint32, which JAX holds without x64.

    **Raises** `ValueError` for no value, what is not a number, a masked entry, a number that JAX's precision cannot
    hold (an integer too large, a float that would become inf or 0), an integer that floats beside it would round, or
    two different numbers that would become the same.

    >>> grid = product_grid(seed=[0, 1], max_norm=[1.0, float("inf")])
    >>> grid["seed"].tolist(), grid["max_norm"].tolist()
    ([0, 0, 1, 1], [1.0, inf, 1.0, inf])
    >>> product_grid(seed=[5, 2**32 + 5])
    Traceback (most recent call last):
    ValueError: seed holds 4294967301, which does not fit into the int32 that JAX computes with ...
    """
    columns = {name: _column(name, values) for name, values in axes.items()}
    places = np.indices([len(column) for column in columns.values()]).reshape(
        len(columns), math.prod(map(len, columns.values()))
    )
    return {name: column[place] for (name, column), place in zip(columns.items(), places)}


def check_grid(grid: PyTree) -> tuple[int, PyTree]:
    """The number of runs, and the grid with numpy leaves (typed keys stay what they are).

    **Raises** `ValueError` that names the leaf and its value.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(grid)
    leaves, sizes = [], {}
    for path, leaf in found:
        name = "grid" + jax.tree_util.keystr(path)
        if not hasattr(leaf, "dtype"):
            raise ValueError(
                f"{name} is {leaf!r}: each leaf of a grid must be an array with a leading run axis "
                "(make lists arrays with np.asarray, or use product_grid)"
            )
        if np.ndim(leaf) == 0:
            raise ValueError(f"{name} has no run axis: it is the single value {leaf}")
        # A copy: who writes into his arrays later on does not change the sweep or its result.
        leaves.append(leaf if is_key(leaf) else distinct(name, fitting(name, leaf)).copy())
        sizes[name] = np.shape(leaf)[0]
    if not sizes or len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(f"grid must hold arrays with one common, non-empty leading run axis, got the sizes {sizes}")
    return next(iter(sizes.values())), jax.tree.unflatten(structure, leaves)


def check_data(data: PyTree) -> PyTree:
    """The data that runs share, as arrays that JAX's precision can hold; digits may be lost, as always in JAX.

    **Raises** `ValueError` that names the leaf and its value.
    """

    def check(path, leaf):
        # What JAX holds already stays where it is.
        if is_key(leaf) or (isinstance(leaf, jax.Array) and leaf.dtype == jax.dtypes.canonicalize_dtype(leaf.dtype)):
            return leaf
        return fitting("data" + jax.tree_util.keystr(path), leaf)

    return jax.tree_util.tree_map_with_path(check, data)


def rows(tree: PyTree, chosen: np.ndarray | slice) -> PyTree:
    """The chosen rows of every leaf, as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[chosen], tree)


def is_key(x: Any) -> bool:
    """Whether this is an array of typed random keys."""
    return hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def fitting(name: str, given: Any) -> np.ndarray:
    """The same numbers, in a dtype whose counterpart in JAX (float32 and int32 without x64) can hold them.

    **Raises** `ValueError` for what is no number, masked entries, integers out of range and floats that become inf.
    """
    _check_mask(name, given)
    values = np.asarray(given)
    if not (jnp.issubdtype(values.dtype, jnp.number) or values.dtype == bool):
        first = values.flat[0] if values.size else values.dtype
        raise ValueError(f"{name} holds {first!r} ({values.dtype}), allowed are numbers, bools and random keys")
    target = jax.dtypes.canonicalize_dtype(values.dtype)
    if target == values.dtype:
        return values
    where = _precision(values.dtype)
    if jnp.issubdtype(values.dtype, jnp.integer):
        limits = np.iinfo(target)
        outside = (values < limits.min) | (values > limits.max)
        if outside.any() and (values >= 0).all() and (values < 2**32).all():
            return values.astype(np.uint32)
        if outside.any():
            raise ValueError(f"{name} holds {values[outside][0]}, which does not fit into {where}")
        return values
    with np.errstate(over="ignore", under="ignore"):
        lost = np.isfinite(values) & ~np.isfinite(values.astype(target))
    if lost.any():
        raise ValueError(f"{name} holds {values[lost][0]}, which does not fit into {where}")
    return values


def distinct(name: str, values: np.ndarray) -> np.ndarray:
    """`fitting` numbers, of which none becomes 0 and no two the same.

    **Raises** `ValueError` that names the numbers.
    """
    target = jax.dtypes.canonicalize_dtype(values.dtype)
    if target == values.dtype or jnp.issubdtype(values.dtype, jnp.integer):
        return values
    where = _precision(values.dtype)
    known = np.unique(values[~np.isnan(values)])
    with np.errstate(under="ignore"):
        cast = known.astype(target)
    # XLA flushes numbers below the smallest normal one to zero.
    lost = (known != 0) & (np.abs(cast) < np.finfo(target).tiny)
    if lost.any():
        raise ValueError(f"{name} holds {known[lost][0]}, which does not fit into {where}")
    same = np.flatnonzero(cast[1:] == cast[:-1])
    if len(same):
        raise ValueError(f"{name} holds {known[same[0]]} and {known[same[0] + 1]}, which become one number in {where}")
    return values


def _precision(dtype: np.dtype) -> str:
    target = jax.dtypes.canonicalize_dtype(dtype)
    return f"the {target} that JAX computes with (jax_enable_x64 would give it {dtype})"


def _column(name: str, given: Any) -> Any:
    single = hasattr(given, "dtype") and np.ndim(given) == 0
    if single or isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be a sequence of numbers or keys, got {given!r}")
    values: Any = given if hasattr(given, "dtype") else list(given)
    if isinstance(values, list) and any(map(is_key, values)):
        values = _stacked_keys(name, values)
    if len(values) == 0:
        raise ValueError(f"{name} must have at least one value, got an empty sequence")
    if is_key(values):
        return values
    _check_mask(name, *([values] if hasattr(values, "dtype") else values))
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must hold values of one shape, got {values!r}") from error
    if array.dtype.kind not in "OUSmM":
        return distinct(name, fitting(name, values if hasattr(values, "dtype") else _exact(name, values, array)))
    huge = [value for value in values if isinstance(value, int) and abs(value) >= 2**63]
    if huge:
        raise ValueError(f"{name} holds {huge[0]}, which fits into no integer of 64 bits")
    other = [value for value in values if not isinstance(value, (int, float, complex, np.number))]
    raise ValueError(f"{name} holds {(other or values)[0]!r}: a grid holds numbers, bools and random keys")


def _stacked_keys(name: str, values: list[Any]) -> Array:
    other = [value for value in values if not is_key(value)]
    if other:
        raise ValueError(f"{name} must hold random keys or numbers, not both, got {other[0]!r} beside keys")
    kinds = sorted({f"{jax.random.key_impl(key)}{list(key.shape)}" for key in values})
    if len(kinds) > 1:
        raise ValueError(f"{name} must hold random keys of one kind and shape, got {' and '.join(kinds)}")
    return jnp.stack(values)


def _check_mask(name: str, *given: Any) -> None:
    if any(map(np.ma.is_masked, given)):
        raise ValueError(f"{name} has masked entries, for which JAX has no place: put numbers there (`filled`)")


def _exact(name: str, values: list[Any], array: np.ndarray) -> np.ndarray:
    """The array that numpy made of these values, unless it has rounded an integer to a float."""
    if array.dtype.kind not in "fc" or array.size == 0:
        return array
    given = [_whole(value) for value in np.asarray(values, object).flat]
    whole = [value for value in given if value is not None]
    only_integers = len(whole) == len(given)
    if only_integers and min(whole) >= 0 and max(whole) < 2**64:  # numpy takes floats for [2**63, 1]
        return np.array(whole, np.uint64).reshape(array.shape)
    for value, kept in zip(given, array.flat):
        # Python compares an integer with a float exactly, numpy rounds it first.
        if value is not None and value != kept.item():
            raise ValueError(f"{name} holds {value}, which becomes {kept} beside floats or integers below 0")
    if only_integers:
        raise ValueError(f"{name} holds {min(whole)} and {max(whole)}, which no integer dtype holds together")
    return array


def _whole(value: Any) -> int | None:
    """The integer that this is, or None."""
    try:
        return operator.index(value)
    except TypeError:
        return None
