"""Scalar parameters inside a pytree, named by a path."""

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

Path = str | int | tuple[Hashable, ...]


def _names(path: Path) -> tuple:
    return path if isinstance(path, tuple) else (path,)


def _fields(node: Any) -> list[str] | None:
    """Names of the fields of a NamedTuple or a dataclass (flax.struct and equinox modules are dataclasses)."""
    if hasattr(node, "_fields"):
        return list(node._fields)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [f.name for f in dataclasses.fields(node)]
    return None


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _entry(node: Any, name: Any, path: Path) -> Any:
    fields = _fields(node)
    if fields is not None and isinstance(name, str):
        if name in fields:
            return getattr(node, name)
        raise ValueError(f"parameter path {path!r}: no field {name!r}, there are {fields}")
    if isinstance(node, dict):
        if name in node:
            return node[name]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in {list(node)}")
    if isinstance(node, list | tuple):
        if isinstance(name, int) and -len(node) <= name < len(node):
            return node[name]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in a {type(node).__name__} of {len(node)}")
    if _is_array(node):
        index = name if isinstance(name, tuple) else (name,)
        # jax clamps an index that is out of range instead of refusing it.
        if len(index) <= node.ndim and all(isinstance(i, int) and -n <= i < n for i, n in zip(index, node.shape)):
            return node[index]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in an array of shape {node.shape}")
    raise ValueError(f"parameter path {path!r}: no entry {name!r} in {node!r}")


def get_parameter(params: PyTree, path: Path) -> Array:
    """The scalar at `path`: a field, a key or an index, or a tuple of them from the outside in.

    **Raises** `ValueError` when the path does not exist or does not end at a scalar number.

    >>> from cliffs.recurrent import OneUnitParams
    >>> float(get_parameter({"unit": OneUnitParams(5.0, -2.0)}, ("unit", "b")))
    -2.0
    """
    node = params
    for name in _names(path):
        node = _entry(node, name, path)
    if not (_is_array(node) or isinstance(node, int | float | np.number)) or isinstance(node, bool):
        raise ValueError(f"parameter path {path!r} must end at a scalar, got {node!r}")
    value = jnp.asarray(node)
    if value.dtype == jnp.bool_:
        raise ValueError(f"parameter path {path!r} must end at a number, got {value.dtype}")
    if value.ndim:
        raise ValueError(f"parameter path {path!r} must end at a scalar, got an array of shape {value.shape}")
    return value


def set_parameter(params: PyTree, path: Path, value: Any) -> PyTree:
    """A copy of `params` with the scalar at `path` replaced.

    >>> from cliffs.recurrent import OneUnitParams
    >>> set_parameter(OneUnitParams(5.0, -2.0), "b", 1.0)
    OneUnitParams(w=5.0, b=1.0)
    """
    return _set(params, _names(path), value, path)


def _set(node: Any, names: tuple, value: Any, path: Path) -> Any:
    if not names:
        return value
    name, rest = names[0], names[1:]
    if _is_array(node) and not isinstance(node, tuple):
        _entry(node, name, path)
        # A python index into an array of integers would round the value.
        array = jnp.asarray(node)
        dtype = jnp.result_type(array.dtype, jnp.asarray(value).dtype) if array.dtype.kind in "iu" else array.dtype
        return _set_array(array.astype(dtype), name, rest, value, path)
    new = _set(_entry(node, name, path), rest, value, path)
    if isinstance(node, dict):
        return {**node, name: new}
    if _fields(node) is not None and isinstance(name, str):
        holder: Any = node
        return (
            holder._replace(**{name: new}) if hasattr(node, "_replace") else dataclasses.replace(holder, **{name: new})
        )
    items = list(node)
    items[name] = new
    return type(node)(*items) if hasattr(node, "_fields") else type(node)(items)


def _set_array(array: Array, name: Any, rest: tuple, value: Any, path: Path) -> Array:
    index = name if isinstance(name, tuple) else (name,)
    for more in rest:
        _entry(array[index], more, path)
        index = (*index, *(more if isinstance(more, tuple) else (more,)))
    return array.at[index].set(value)
