"""Moving averages of a few numbers per array: corrected for their start, and kept under the names of the arrays."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs.clipping._leaves import check_same_leaves, compute_dtype, number_names, stands_for_params
from cliffs.clipping._strategy import Gradient


class PerArray(NamedTuple):
    """A few numbers for every array of a tree, all in one: a state of hundreds of scalars takes long to compile."""

    names: Mapping[str, tuple[()]]
    """The paths of the arrays, or names of groups. In the order of the sorted names come the columns of `values`. The
    mapping has no leaves, so that names are part of a state's structure."""
    values: Float[Array, "numbers arrays"]

    def of(self, name: str) -> Float[Array, " numbers"]:
        """The numbers of one array."""
        if name not in self.names:
            raise KeyError(f"{name!r} is none of {sorted(self.names)}")
        return self.values[..., sorted(self.names).index(name)]


def start(params: PyTree, numbers: int, names_of: Callable[[PyTree], Iterable[str]] = number_names) -> Any:
    """Zeros for every array of numbers, or under the names asked for, as many as asked for."""
    if stands_for_params(params):
        return jnp.zeros(0)
    names: dict[str, tuple[()]] = dict.fromkeys(names_of(params), ())
    return PerArray(names, jnp.zeros((numbers, len(names)), compute_dtype(params)))


def columns(gradient: Gradient, kept: PerArray) -> Float[Array, "numbers leaves"]:
    """The numbers of the gradient's arrays."""
    check_columns(gradient, kept)
    return chosen(kept, gradient.names)


def check_columns(gradient: Gradient, kept: Any) -> None:
    """Raise `ValueError` unless these are the numbers of the gradient's arrays, some of which may be missing."""
    known = sorted(kept.names) if isinstance(kept, PerArray) else []  # see `start`
    check_same_leaves(gradient.tree, gradient.names, known, "the state")


def chosen(kept: PerArray, names: list[str]) -> Float[Array, "numbers names"]:
    """The numbers under these names, all known, in their order."""
    known = sorted(kept.names)
    return kept.values if names == known else kept.values[:, _places(names, known)]


def replaced(kept: PerArray, names: list[str], new: Float[Array, "numbers names"]) -> PerArray:
    """The same with new numbers under these names; those of the others stay."""
    known = sorted(kept.names)
    if names == known:
        return kept._replace(values=new)
    if len(names) == len(known):
        return kept._replace(values=new[:, _places(known, names)])
    return kept._replace(values=kept.values.at[:, _places(names, known)].set(new.astype(kept.values.dtype)))


def _places(names: list[str], known: list[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(known)}
    return np.array([place[name] for name in names], int)


def weighted(weight: Array, decay: Any) -> tuple[Array, Array]:
    """The share that the next value has in an average, and the weight of all values together.

    `weight` is `1 - decay^t` after t values with one decay, as in Adam, and right for a scheduled decay, too. The
    average moves by `share (value - average)`; the first value has the share 1.
    """
    fresh = 1 - jnp.asarray(decay, weight.dtype)
    total = (1 - fresh) * weight + fresh
    some = total > 0
    return jnp.where(some, fresh / jnp.where(some, total, 1.0), 0.0), total
