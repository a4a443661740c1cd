"""What a type checker cannot follow or must not see, in one place."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import optax

T = TypeVar("T")


class Rule(Protocol):
    """A transformation of optax whose updates and states are any pytrees: no index fits optax's own union of them."""

    @property
    def init(self) -> Callable[..., Any]: ...

    @property
    def update(self) -> Callable[..., tuple[Any, Any]]: ...


def on_trees(rule: optax.GradientTransformation | optax.MultiSteps) -> Rule:
    """The same rule."""
    return rule


def untyped(value: Any) -> Any:
    """The same value, for an argument that an annotation forbids, or for what a library does not annotate."""
    return value


def present(value: T | None) -> T:
    """The same value, which must not be None."""
    assert value is not None
    return value


def number(value: object) -> float:
    """The same value, which must be a number."""
    assert isinstance(value, int | float)
    return value
