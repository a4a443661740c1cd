"""Small helpers that the rules share."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, DTypeLike


def is_zero(tangent: Any) -> bool:
    """Whether a tangent is known to be zero (or belongs to something that has none, an integer or a key)."""
    return isinstance(tangent, SymbolicZero) or tangent.dtype == jax.dtypes.float0


def materialise(tangent: Any) -> Array:
    """The tangent as an array."""
    return jnp.zeros(tangent.shape, tangent.dtype) if is_zero(tangent) else tangent


def states_before(start: Array, states: Array) -> Array:
    """`[x_0, ..., x_{T-1}]` from `x_0` and `[x_1, ..., x_T]`."""
    return jnp.concatenate([start[None], states])[: states.shape[0]]


def total(tangents: list[Any], shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """The sum of the tangents that are not known to be zero, each broadcast to `shape`."""
    terms = [jnp.broadcast_to(t, shape) for t in tangents if not is_zero(t)]
    return sum(terms[1:], terms[0]) if terms else jnp.zeros(shape, dtype)


def aval_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape, dtype and weak type of anything that jax takes as an array."""
    kind = jax.typeof(x) if not isinstance(x, jax.ShapeDtypeStruct) else x
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=bool(getattr(kind, "weak_type", False)))
