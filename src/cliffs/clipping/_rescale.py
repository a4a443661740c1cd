"""Bringing leaves from their norms to other lengths, exactly and without overflow, with one pass over the memory."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike

from cliffs.clipping._leaves import wide
from cliffs.clipping._safe_norm import Norm, in_working_precision, of_leaves, over


def rescaled(
    leaves: Sequence[Array],
    norm: Norm,
    length: ArrayLike,
    shapes: Sequence[tuple[int, ...]] | None = None,
    active: Array | None = None,
) -> list[Array]:
    """Each leaf brought from its norm to a length: `x length / norm`; the same bits where the two are equal.

    `norm` and `length` are those of all leaves together, or, with the `shapes` of the norms of each leaf, arrays
    `[parts]` as `leaf_norms` gives them. Where `active` is given and False nothing changes.
    """
    if not leaves:
        return []
    groups = None if shapes is None else tuple(shapes)

    def each(parts: Array) -> list[Array]:
        return [parts] * len(leaves) if groups is None else of_leaves(parts, groups)

    @jax.custom_jvp
    def products(leaves: list[Array], norm: Norm, length: Array, active: Any) -> list[Array]:
        with in_working_precision(norm):
            factors = _factors(norm, length, active)
            # Else XLA would copy the arithmetic of all parts into the loop of every leaf.
            factors = factors if groups is None else lax.optimization_barrier(factors)
            by_leaf = zip(*(each(f) for f in factors))
        return [_product(x, f) for x, f in zip(leaves, by_leaf)]

    @products.defjvp
    def _(primals, tangents):
        leaves, norm, length, active = primals
        dots, dnorm, dlength, _ = tangents
        change, value = _changes(norm, length, active), norm.value
        # d(x t / n) = dx t / n + (x / n) (dt - (t / n) dn)
        factor = jnp.where(change, over(length, value), 1.0).astype(value.dtype)
        along = jnp.where(change, dlength - factor * dnorm.value, 0.0).astype(value.dtype)
        size = jnp.where(change, value, 0.0)
        parts = zip(each(factor), each(size), each(along))
        slopes = [_product_slope(x, dx, *part) for x, dx, part in zip(leaves, dots, parts)]
        return products(*primals), slopes

    return products(list(leaves), norm, jnp.asarray(length, norm.value.dtype), active)


def _changes(norm: Norm, length: Array, active: Any) -> Array:
    change = (norm.value != length) & (norm.value > 0)
    return change if active is None else change & active


def _factors(norm: Norm, length: Array, active: Any) -> tuple[Array, ...]:
    """The numbers to multiply by, in turn; exactly 1 where nothing changes."""
    with in_working_precision(norm) as working:
        change, one = _changes(norm, length, active), jnp.ones_like(norm.relative)
        target = jnp.where(change, lax.convert_element_type(length, working), one)
        size = jnp.where(change, norm.relative, one)
        if norm.scale is None:
            # Leaves are multiplied in their own precision (a copy in float64 would be kept in memory), so a factor that
            # is too small for a float32 comes as two.
            factor, dtype = target / size, norm.value.dtype
            tiny = jnp.asarray(jnp.finfo(dtype).tiny, dtype)
            root = jnp.maximum(lax.convert_element_type(jnp.sqrt(factor), dtype), tiny)  # also for a length of 0
            small = lax.convert_element_type(factor, dtype) < jnp.asarray(2.0**-100, dtype)
            first = jnp.where(small, root, jnp.ones_like(root))
            return first, lax.convert_element_type(factor / lax.convert_element_type(first, working), dtype)
        # Their quotient may be too small for a float: first to length 1, then to the length.
        return one / jnp.where(change, norm.scale, one), one / size, target


@jax.jit
def _product(x: Array, factors: tuple[Array, ...]) -> Array:
    working = factors[0].dtype
    with jax.enable_x64(True) if jnp.finfo(working).bits == 64 else contextlib.nullcontext():
        y = wide(x, working)
        for factor in factors:
            y = y * factor
        return lax.convert_element_type(y, x.dtype)


def _product_slope(x: Array, dx: Array, factor: Array, size: Array, along: Array) -> Array:
    y, dy = wide(x, factor.dtype), wide(dx, factor.dtype)
    return lax.convert_element_type(dy * factor + over(y, size) * along, x.dtype)
