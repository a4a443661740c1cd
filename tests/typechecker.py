"""The check of annotated types and shapes that the tests run under; floats may be given as integers."""

import inspect
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping

_beartype = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
_made: dict[Any, Callable] = {}


def check(function: Callable) -> Callable:
    """What jaxtyping makes of a signature, with the check of its annotations.

    Made once for each signature: a function inside of another one is defined anew at every call.
    """
    defaults = len(function.__defaults__ or ()), frozenset(function.__kwdefaults__ or ())
    key = (
        function.__module__,
        function.__qualname__,
        function.__code__,
        tuple(function.__annotations__.items()),
        defaults,
    )
    try:
        made = _made.get(key)
    except TypeError:  # an annotation that cannot be hashed
        return _beartype(function)
    if made is None:
        made = _made[key] = _beartype(function)
    return made


def install() -> None:
    """Check everything that `cliffs` annotates, from now on. To precede its import.

    jaxtyping wraps functions without annotations, too, for the sake of checks inside their bodies; there are none here,
    and the small functions that are traced are many.
    """
    wrap = jaxtyping.jaxtyped

    def jaxtyped(**options: Any) -> Callable:
        decorate = wrap(**options)
        return lambda f: f if inspect.isfunction(f) and not f.__annotations__ else decorate(f)

    jaxtyping.jaxtyped = jaxtyped
    jaxtyping.install_import_hook("cliffs", "typechecker.check")
