"""One scalar parameter inside a pytree, named by a path."""

from collections.abc import Hashable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

Path = str | tuple[Hashable, ...]


def _entry(node: Any, name: Any, path: Any) -> Any:
    if isinstance(name, str) and hasattr(node, "_fields"):
        if name in node._fields:
            return getattr(node, name)
        raise ValueError(f"parameter path {path!r}: no field {name!r}, there are {list(node._fields)}")
    try:
        return node[name]
    except (KeyError, IndexError, TypeError) as error:
        known = list(node) if isinstance(node, dict) else f"shape {jnp.shape(node)}" if hasattr(node, "shape") else node
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in {known}") from error


def get_parameter(params: PyTree, path: Path) -> Array:
    """The scalar at `path`: a field, a key or an index, or a tuple of them from the outside in.

    **Raises** `ValueError` when the path does not exist or does not end at a scalar.

    >>> from cliffs.maps import OneUnitParams
    >>> float(get_parameter({"unit": OneUnitParams(5.0, -2.0)}, ("unit", "b")))
    -2.0
    """
    node = params
    for name in path if isinstance(path, tuple) else (path,):
        if isinstance(name, tuple) and hasattr(node, "shape"):
            if len(name) != node.ndim or any(not -n <= i < n for i, n in zip(name, node.shape)):
                raise ValueError(f"parameter path {path!r}: no entry {name!r} in an array of shape {node.shape}")
            node = node[name]
        else:
            node = _entry(node, name, path)
    value = jnp.asarray(node) if not isinstance(node, dict | tuple | list) else None
    if value is None or value.ndim:
        raise ValueError(f"parameter path {path!r} must end at a scalar, got {node!r}")
    return value


def set_parameter(params: PyTree, path: Path, value: Any) -> PyTree:
    """A copy of `params` with the scalar at `path` replaced.

    >>> from cliffs.maps import OneUnitParams
    >>> set_parameter(OneUnitParams(5.0, -2.0), "b", 1.0)
    OneUnitParams(w=5.0, b=1.0)
    """
    names = path if isinstance(path, tuple) else (path,)
    return _set(params, names, value, path)


def _set(node: Any, names: tuple, value: Any, path: Any) -> Any:
    if not names:
        return value
    name, rest = names[0], names[1:]
    if hasattr(node, "_fields") and isinstance(name, str):
        return node._replace(**{name: _set(_entry(node, name, path), rest, value, path)})
    if isinstance(node, dict):
        return {**node, name: _set(_entry(node, name, path), rest, value, path)}
    if isinstance(node, list | tuple):
        new = [_set(x, rest, value, path) if i == name else x for i, x in enumerate(node)]
        return type(node)(*new) if hasattr(node, "_fields") else type(node)(new)
    return jnp.asarray(node).at[name].set(value)
