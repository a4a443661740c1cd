"""What a function computes with besides its arguments: closures, defaults, globals, attributes.

A compiled program may be used again only if the function is the same *and* so is all that it reads. The key made here
holds plain values by value (so that a changed global number is noticed) and other objects by identity.
"""

import dataclasses
import functools
import hashlib
import pathlib
import sys
import sysconfig
import types
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import numpy as np

PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), np.generic, np.dtype)


def captured(*functions: Callable[..., Any] | None) -> tuple[Hashable, list[Any]]:
    """A key of the functions with all that they read, and the objects that the key knows by identity alone.

    The key is good for as long as those objects live.

    >>> rate = [0.1]
    >>> def update(x):
    ...     return x * rate[0]
    >>> before = captured(update)[0]
    >>> rate[0] = 0.2
    >>> captured(update)[0] == before
    False
    """
    visitor = _Visitor()
    return tuple(visitor.visit(f) for f in functions), visitor.objects


class Kept:
    """Values by key; an entry goes when an object that its key knows by identity is no longer there."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[Any, list[Any]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: Hashable, value: Any, objects: list[Any]) -> None:
        """Keep `value` for as long as all `objects` live."""
        entries = self._entries

        def forget(_: Any) -> None:
            entries.pop(key, None)

        held = []
        for x in objects:
            try:
                held.append(weakref.ref(x, forget))
            except TypeError:
                held.append(x)  # what cannot be held weakly is small (an object with slots)
        entries[key] = (value, held)


class _Visitor:
    def __init__(self) -> None:
        self.objects: list[Any] = []
        self.places: dict[int, int] = {}
        self.visited: list[Any] = []

    def visit(self, x: Any) -> Hashable:
        if isinstance(x, PLAIN):
            return type(x).__name__, repr(x)
        if id(x) in self.places:
            return "again", self.places[id(x)]
        self.places[id(x)] = len(self.places)
        self.visited.append(x)  # while it lives no other object has its identity
        if isinstance(x, dict):
            return "dict", tuple((self.visit(k), self.visit(v)) for k, v in x.items())
        if isinstance(x, (tuple, list)):
            return type(x).__name__, tuple(map(self.visit, x))
        if isinstance(x, np.ndarray) and x.dtype != object:
            digest = hashlib.sha256(np.ascontiguousarray(x).view(np.uint8).data).hexdigest() if x.size else ""
            return "array", x.shape, str(x.dtype), digest
        if isinstance(x, functools.partial):
            return "partial", self.visit(x.func), self.visit(x.args), self.visit(x.keywords)
        if isinstance(x, types.MethodType):
            return "method", self.visit(x.__func__), self.visit(x.__self__)
        self.objects.append(x)
        if isinstance(x, types.FunctionType):
            return "function", id(x), id(x.__code__), tuple(map(self.visit, _read_by(x)))
        if isinstance(x, (type, types.ModuleType, jax.Array)) or _of_a_library(type(x).__module__):
            return "object", id(x)
        fields = {f.name for f in dataclasses.fields(x)} if dataclasses.is_dataclass(x) else set()
        own = {name: getattr(x, name, None) for name in sorted(fields | set(getattr(x, "__dict__", {})))}
        return "object", id(x), self.visit(own)


def _read_by(function: types.FunctionType) -> Iterator[Any]:
    """The values that a function of the user's reads from outside; those of libraries do not change."""
    if _installed(function.__code__.co_filename):
        return
    yield function.__defaults__
    yield function.__kwdefaults__
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield None  # not assigned yet
    names = sorted(set(_names(function.__code__)))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield value
            if isinstance(value, types.ModuleType) and not _of_a_library(value.__name__):
                yield from (getattr(value, n) for n in names if hasattr(value, n))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


@functools.cache
def _of_a_library(module: str | None) -> bool:
    name = (module or "").split(".")[0]
    path = getattr(sys.modules.get(module or ""), "__file__", None) or ""
    return name == "cliffs" or (name in sys.stdlib_module_names and name != "__main__") or _installed(path)


@functools.cache
def _installed(path: str) -> bool:
    """Whether a file is one of Python's, of an installed package, or of this one."""
    folders = (sysconfig.get_path("stdlib"), str(pathlib.Path(__file__).parents[1]))
    return "site-packages" in path or "dist-packages" in path or path.startswith(folders)
