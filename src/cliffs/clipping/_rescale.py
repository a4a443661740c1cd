"""Bringing leaves from their norms to other lengths, exactly and without overflow, with one pass over the memory."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike

from cliffs.clipping._leaves import real_parts, wide
from cliffs.clipping._safe_norm import Norm, each_leaf, in_working_precision, over, power_of_two


def rescaled(leaves: Sequence[Array], norm: Norm, length: ArrayLike) -> list[Array]:
    """All leaves brought from one norm to one length: `x length / norm`; the same bits where the two are equal."""
    return _rescaled(leaves, norm, length, None, lambda value: [value] * len(leaves))


def rescaled_leaves(leaves: Sequence[Array], norms: Norm, lengths: ArrayLike, active: Array) -> list[Array]:
    """Each leaf brought from its norm to a length of its own, both in arrays `[leaves]`, if `active`."""
    return _rescaled(leaves, norms, lengths, active, each_leaf)


def rescaled_units(
    leaves: Sequence[Array], norms: Sequence[Norm], lengths: Sequence[Array], active: Array
) -> list[Array]:
    """Each unit of each leaf brought from its norm, see `unit_norms`, to a length of its own, if `active`."""

    @jax.custom_jvp
    def products(leaves: list[Array], norms: list[Norm], lengths: list[Array], active: Any) -> list[Array]:
        return [_product(x, _denominators(n, t, active), n.scale is None) for x, n, t in zip(leaves, norms, lengths)]

    @products.defjvp
    def _(primals, tangents):
        *given, active = primals
        pairs = zip(*given, *tangents[:3])
        return products(*primals), [_slope(x, n.value, t, dx, dn.value, dt, active) for x, n, t, dx, dn, dt in pairs]

    return products(list(leaves), list(norms), list(lengths), active)


def _rescaled(
    leaves: Sequence[Array],
    norm: Norm,
    length: ArrayLike,
    active: Array | None,
    each: Callable[[Array], Sequence[Array]],
) -> list[Array]:
    if not leaves:
        return []

    @jax.custom_jvp
    def products(leaves: list[Array], norm: Norm, length: Array, active: Any) -> list[Array]:
        with in_working_precision(norm):
            by_leaf = zip(*(each(d) for d in _denominators(norm, length, active)))
        return [_product(x, d, norm.scale is None) for x, d in zip(leaves, by_leaf)]

    @products.defjvp
    def _(primals, tangents):
        leaves, norm, length, active = primals
        dots, dnorm, dlength, _ = tangents
        pairs = zip(leaves, each(norm.value), each(length), dots, each(dnorm.value), each(dlength))
        return products(*primals), [_slope(*pair, active) for pair in pairs]

    return products(list(leaves), norm, jnp.asarray(length, norm.value.dtype), active)


def _changes(norm: Array, length: Array, active: Any) -> Array:
    change = (norm != length) & (norm > 0)
    return change if active is None else change & active


@jax.jit
def _denominators(norm: Norm, length: Array, active: Any) -> tuple[Array, ...]:
    """The numbers to divide by, in turn; exactly 1 where nothing changes.

    They end in a quotient, and a leaf is multiplied by a quotient with them: XLA keeps quotients apart, where it would
    copy cheaper arithmetic into the programs of all leaves.
    """
    with in_working_precision(norm) as working:
        change, one = _changes(norm.value, length, active), jnp.ones_like(norm.relative)
        target = jnp.where(change, lax.convert_element_type(length, working), one)
        size = jnp.where(change, norm.relative, one)
        if norm.scale is None:
            return (size / target,)
        # Their quotient may be too small for a float: first by a power of two near the norm, whose reciprocal must not
        # be subnormal, then by a number near the length.
        scale = jnp.where(change, norm.scale, one)
        largest = jnp.asarray(2.0 ** (jnp.finfo(working).maxexp - 2), working)
        power = jnp.minimum(power_of_two(size), largest / scale)
        return scale / (one / power), size / power / target


@functools.partial(jax.jit, static_argnums=2)
def _product(x: Array, denominators: tuple[Array, ...], single: bool) -> Array:
    """`x` over all denominators; in float32 if `single`, where these are float64."""
    working = denominators[0].dtype
    with jax.enable_x64(True) if jnp.finfo(working).bits == 64 else contextlib.nullcontext():
        factors = [jnp.ones_like(d) / d for d in denominators]
        if single and jnp.finfo(working).bits == 64:
            # Leaves are multiplied in their own precision (a copy in float64 would be kept in memory), so a factor that
            # is too small or, for a gradient that is made longer, too large for a float32 comes as two.
            (factor,), working = factors, jnp.dtype(jnp.float32)
            info = jnp.finfo(working)
            first = jnp.clip(factor, float(info.tiny), float(info.max))
            factors = [lax.convert_element_type(f, working) for f in (first, factor / first)]
        # Part by part: a product of complex numbers makes NaN of both where one is inf or NaN.
        parts = [lax.convert_element_type(part, working) for part in real_parts(x)]
        for factor in factors:
            parts = [part * factor for part in parts]
        y = lax.complex(*parts) if len(parts) == 2 else parts[0]
        return lax.convert_element_type(y, x.dtype)


@jax.jit
def _slope(x: Array, norm: Array, length: Array, dx: Array, dnorm: Array, dlength: Array, active: Any) -> Array:
    """d(x t / n) = dx t / n + (x / n) (dt - (t / n) dn)."""
    change = _changes(norm, length, active)
    factor = jnp.where(change, over(length, norm), 1.0).astype(norm.dtype)
    along = jnp.where(change, dlength - factor * dnorm, 0.0).astype(norm.dtype)
    y, dy = wide(x, norm.dtype), wide(dx, norm.dtype)
    return lax.convert_element_type(dy * factor + over(y, jnp.where(change, norm, 0.0)) * along, x.dtype)
