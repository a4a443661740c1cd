"""What a function computes, as a digest of the program that JAX traces from it, with all values that it holds.

Two functions with the same digest compute the same, whatever they read: globals, closures, attributes, files.
"""

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)


def program_digest(program: ClosedJaxpr, *, objects: bool = True) -> str:
    """A digest of a traced program: its operations, its constants at any depth, and its callbacks to Python.

    **Arguments**

    - `program`: what `jax.make_jaxpr` gives.
    - `objects`: whether objects that a callback holds, other than numbers, words and arrays, count by identity; for
      digests that outlive this process they count by their type alone.

    >>> def scaled(factor):
    ...     return program_digest(jax.make_jaxpr(lambda x: x * np.array([1.0, factor]))(0.0))
    >>> scaled(2.0) == scaled(2.0), scaled(2.0) == scaled(3.0)
    (True, False)
    """
    # Addresses of Python objects are no part of the program.
    text = re.sub(r" at 0x[0-9a-f]+", "", str(program))
    digest = hashlib.sha256(text.encode())
    for part in _held(program, objects):
        digest.update(part.encode())
    return digest.hexdigest()


def array_digest(x: Any) -> str:
    """A digest of an array or of random keys, with shape and dtype."""
    if jax.dtypes.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = np.ascontiguousarray(np.asarray(x))
    return hashlib.sha256(f"{x.dtype}{x.shape}".encode() + x.tobytes()).hexdigest()


def _held(x: Any, objects: bool) -> Iterator[str]:
    """What the text of a program does not show: arrays that it holds, and what its callbacks are."""
    if isinstance(x, ClosedJaxpr):
        yield from map(array_digest, x.consts)
        yield from _held(x.jaxpr, objects)
    elif isinstance(x, Jaxpr):
        for equation in x.eqns:
            yield from (array_digest(v.val) for v in equation.invars if isinstance(v, Literal) and np.ndim(v.val))
            for name, value in equation.params.items():
                yield from _of_callback(value, objects, set()) if name == "callback" else _held(value, objects)
    elif isinstance(x, (tuple, list)):
        for value in x:
            yield from _held(value, objects)
    elif isinstance(x, (np.ndarray, jax.Array)):
        yield array_digest(x)


def _of_callback(x: Any, objects: bool, above: set[int]) -> Iterator[str]:
    """What a callback is made of. What it reads besides is read when it runs, and needs no new program."""
    if isinstance(x, PLAIN):
        yield f"{type(x).__name__} {x!r}"
    elif id(x) in above:
        yield "again"
    else:
        parts = _parts(x)
        yield type(x).__qualname__
        if parts is None and objects:
            yield str(id(x))
        for part in parts or ():
            yield from _of_callback(part, objects, above | {id(x)})


def _parts(x: Any) -> Any:
    """What an object is compared by; None where that is its identity."""
    if isinstance(x, (tuple, list)):
        return x
    if isinstance(x, dict):
        return tuple(x.items())
    if isinstance(x, np.ndarray) and x.dtype != object:
        return (array_digest(x),)
    if isinstance(x, functools.partial):
        return x.func, x.args, x.keywords
    if isinstance(x, types.MethodType):
        return x.__func__, x.__self__
    if isinstance(x, types.CodeType):
        return x.co_code, x.co_names, x.co_consts
    if isinstance(x, types.FunctionType):
        return x.__code__, x.__defaults__, x.__kwdefaults__, tuple(map(_content, x.__closure__ or ()))
    if isinstance(x, jax.tree_util.PyTreeDef):
        return (str(x),)
    # As JAX wraps a callback.
    if dataclasses.is_dataclass(x) and not isinstance(x, type) and type(x).__module__.startswith("jax"):
        return tuple(getattr(x, field.name) for field in dataclasses.fields(x))
    return None


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not assigned yet
