"""Scalar parameters (and inputs) inside a pytree, named by a path."""

import dataclasses
import operator
from collections.abc import Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PyTree

from cliffs.typing import Step

Path = str | int | np.integer | tuple[Hashable, ...]
"""A field, a key or an index, or a tuple of them from the outside in."""


@dataclasses.dataclass(frozen=True)
class InputPath:
    """A path into the inputs: with it an input is the parameter of a bifurcation diagram or a continuation.

    >>> InputPath(1)
    InputPath(path=1)
    """

    path: Path = ()


def as_path(path: Path) -> tuple:
    """A path as a tuple of names and plain integers, so that it can be a static argument.

    >>> as_path("b"), as_path(("w", np.int64(1))), as_path(("w", (0, np.int32(2))))
    (('b',), ('w', 1), ('w', (0, 2)))
    """
    return tuple(_plain(name) for name in (path if isinstance(path, tuple) else (path,)))


def _plain(name: Any) -> Any:
    """numpy and jax integers as Python's; tuples of them likewise."""
    if isinstance(name, tuple):
        return tuple(map(_plain, name))
    if isinstance(name, bool | str):
        return name
    try:
        return operator.index(name)
    except TypeError:
        return name


def get_parameter(params: PyTree, path: Path) -> Array:
    """The scalar at `path`: a field, a key or an index, or a tuple of them from the outside in.

    **Raises** `ValueError` when the path does not exist or does not end at a scalar number.

    >>> from cliffs.recurrent import OneUnitParams
    >>> float(get_parameter({"unit": OneUnitParams(5.0, -2.0)}, ("unit", "b")))
    -2.0
    """
    node = params
    for name in as_path(path):
        node = _entry(node, name, path)
    if not (_is_array(node) or isinstance(node, int | float | np.number)) or isinstance(node, bool):
        raise ValueError(f"parameter path {path!r} must end at a scalar, got {node!r}")
    value = jnp.asarray(node)
    if value.dtype == jnp.bool_:
        raise ValueError(f"parameter path {path!r} must end at a number, got {value.dtype}")
    if value.ndim:
        raise ValueError(f"parameter path {path!r} must end at a scalar, got an array of shape {value.shape}")
    return value


def set_parameter(params: PyTree, path: Path, value: ArrayLike) -> PyTree:
    """A copy of `params` with the scalar at `path` replaced.

    An array of a coarser dtype than the value's takes the value's, so that nothing is rounded.

    >>> from cliffs.recurrent import OneUnitParams
    >>> set_parameter(OneUnitParams(5.0, -2.0), "b", 1.0)
    OneUnitParams(w=5.0, b=1.0)
    """
    return _set(params, as_path(path), value, path)


@dataclasses.dataclass(frozen=True)
class InputStep:
    """A step whose parameters are `{"params": ..., "inputs": ...}`: the held input counts as a parameter; hashable."""

    step: Step

    def __call__(self, params: Mapping[str, PyTree], state: PyTree, inputs: PyTree = None) -> PyTree:
        del inputs
        return self.step(params["params"], state, params["inputs"])


def fold_inputs(
    step: Step, params: PyTree, path: Path | InputPath, inputs: PyTree = None
) -> tuple[Step, PyTree, Path, PyTree]:
    """`(step, params, path, inputs)` where the path leads into the parameters; as they are for a path that does.

    **Raises** `ValueError` when an `InputPath` does not exist or does not end at a scalar number.

    >>> leaky = lambda a, x, u: a * x + u[0]
    >>> step, params, path, inputs = fold_inputs(leaky, 0.5, InputPath(0), jnp.array([3.0]))
    >>> float(get_parameter(params, path)), float(step(set_parameter(params, path, 1.0), 2.0, inputs))
    (3.0, 2.0)
    """
    if not isinstance(path, InputPath):
        return step, params, path, inputs
    get_parameter(inputs, path.path)
    return InputStep(step), {"params": params, "inputs": inputs}, ("inputs", *as_path(path.path)), None


def _fields(node: Any) -> list[str] | None:
    """Names of the fields of a NamedTuple or a dataclass (flax.struct and equinox modules are dataclasses)."""
    if hasattr(node, "_fields"):
        return list(node._fields)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return [f.name for f in dataclasses.fields(node)]
    return None


def _is_index(name: Any, size: int) -> bool:
    return isinstance(name, int) and not isinstance(name, bool) and -size <= name < size


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape") and hasattr(node, "dtype")


def _entry(node: Any, name: Any, path: Path) -> Any:
    """The child of one node; `path` is for messages."""
    fields = _fields(node)
    if fields is not None and isinstance(name, str):
        if name in fields:
            return getattr(node, name)
        raise ValueError(f"parameter path {path!r}: no field {name!r}, there are {fields}")
    if isinstance(node, Mapping):
        if name in node:
            return node[name]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in {list(node)}")
    if isinstance(node, list | tuple):
        if _is_index(name, len(node)):
            return node[name]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in a {type(node).__name__} of {len(node)}")
    if _is_array(node):
        index = name if isinstance(name, tuple) else (name,)
        # jax clamps an index that is out of range instead of refusing it.
        if len(index) <= node.ndim and all(map(_is_index, index, node.shape)):
            return node[index]
        raise ValueError(f"parameter path {path!r}: no entry {name!r} in an array of shape {node.shape}")
    raise ValueError(f"parameter path {path!r}: no entry {name!r} in {node!r}")


def _set(node: Any, names: tuple, value: Any, path: Path) -> Any:
    if not names:
        return value
    name, rest = names[0], names[1:]
    if _is_array(node) and not isinstance(node, tuple):
        _entry(node, name, path)
        # An index into an array of integers, or of a coarser dtype, would round the value.
        array = jnp.asarray(node)
        dtype = jnp.result_type(array, value if isinstance(value, int | float) else jnp.asarray(value).dtype)
        return _set_array(array.astype(dtype), name, rest, value, path)
    child = _entry(node, name, path)
    if isinstance(node, list | tuple):
        new = _set(child, rest, value, path)
        if isinstance(name, str):
            return node._replace(**{name: new})  # type: ignore[union-attr]
        items = list(node)
        items[name] = new
        return type(node)(*items) if hasattr(node, "_fields") else type(node)(items)
    # Through JAX where it knows the node: flax's FrozenDict shows its inner dicts as FrozenDicts, and an equinox
    # module's `__init__` takes other arguments than its fields.
    entries, tree = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    keys = [getattr(entry[0], "key", getattr(entry[0], "name", None)) for entry, _ in entries if entry]
    if name in keys:
        children = [child for _, child in entries]
        at = keys.index(name)
        children[at] = _set(children[at], rest, value, path)
        return tree.unflatten(children)
    if isinstance(node, Mapping):
        raise ValueError(
            f"parameter path {path!r}: a {type(node).__name__} is no pytree that JAX knows; pass it as a dict"
        )
    return dataclasses.replace(node, **{name: _set(child, rest, value, path)})


def _set_array(array: Array, name: Any, rest: tuple, value: Any, path: Path) -> Array:
    index = name if isinstance(name, tuple) else (name,)
    for more in rest:
        _entry(array[index], more, path)
        index = (*index, *(more if isinstance(more, tuple) else (more,)))
    return array.at[index].set(value)
