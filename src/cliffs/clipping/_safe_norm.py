"""Norms that neither overflow nor underflow, and rescaling to a norm, with one read of the memory each.

Squares of float32 entries leave float32's range above 1.8e19 and below 1e-23, but not that of float64: so the sums, and
the one factor by which a gradient is multiplied, are float64 inside this file, whatever `jax_enable_x64` says. Leaves
that are float64 themselves, and devices without float64 (TPU), are divided by a power of two near their largest entry
first, which costs a second read.

Compile time stays linear in the number of leaves because each leaf gets the same small program: its sum, and a product
with one scalar that ends in a quotient. XLA keeps quotients and roots apart, where it would copy any cheaper scalar
arithmetic into the loop of every leaf. No branch takes the leaves as operands, for the same reason.

Derivatives are given by hand (they are short), in the leaves' own precision: no float64 reaches them.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PyTree

from cliffs.clipping._leaves import compute_dtype, inexact, real_parts, wide

Axes = tuple[int, ...] | None
Axis = str | tuple[str, ...] | None
"""Names of mesh axes over which a gradient is spread (`shard_map`, `pmap`), or None."""


class Norm(NamedTuple):
    """Euclidean norms of one shape (usually scalars): of a tree, of a leaf, or of the units of a leaf."""

    value: Float[Array, "*shape"]
    """The norm, at most the largest float where the entries are finite."""
    relative: Float[Array, "*shape"]
    """The norm over `scale`, in the precision that products are done in."""
    scale: Float[Array, "*shape"] | None
    """A power of two; None stands for 1."""

    @property
    def finite(self) -> Array:
        """Whether every entry was finite."""
        return jnp.isfinite(self.value)


def tree_norm(tree: PyTree, axis_name: Axis = None) -> Norm:
    """The Euclidean norm of a whole tree, `sqrt(sum |g_j|^2)`, safe from overflow and underflow of the squares.

    Leaves that are no floating point numbers do not count. The derivative at 0 is 0.

    **Arguments**

    - `tree`: any pytree.
    - `axis_name`: the mesh axis or axes over which the leaves are spread, inside `shard_map` or `pmap`: the squares are
      summed over them. Without it the norm is that of the piece on each device.

    **Returns** a `Norm`: `value` in float32 (float64 where a leaf has it), and whether it is `finite`.

    >>> print(f"{tree_norm({'a': jnp.array([3e30]), 'b': jnp.array([4e30])}).value:.4e}")
    5.0000e+30
    """
    leaves = inexact(tree)
    return whole_norm(leaves, compute_dtype(leaves), axis_name)


def _is_wide(dtype: Any) -> bool:
    """Whether sums of this result's dtype run in float64 though the leaves do not."""
    return jnp.finfo(dtype).bits == 32 and jax.default_backend() != "tpu"


def _working(dtype: Any) -> tuple[Any, Any]:
    """The dtype that sums run in, and the context that allows it."""
    return (jnp.float64, jax.enable_x64(True)) if _is_wide(dtype) else (dtype, contextlib.nullcontext())


def _spread_axes(x: Array, axis_name: Axis) -> tuple[str, ...]:
    """The axes to sum over: those that `x` varies over, where JAX keeps track of that (`check_vma` of `shard_map`)."""
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    if not names:
        return ()
    varying = _varying_axes(x)
    return tuple(n for n in names if n in varying) if names[0] in _varying_axes(lax.axis_index(names[0])) else names


def _varying_axes(x: Array) -> frozenset[str]:
    """The axes that a value is known to vary over; JAX's name for them has changed."""
    kind = jax.typeof(x)
    return getattr(kind, "vma", None) or getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset())


def _total(x: Array, axes: Axes, axis_name: Axis, of: Any) -> Array:
    return sum_over_devices(x, jnp.sum(of, axis=axes, keepdims=axes is not None), axis_name)


def sum_over_devices(x: Array, total: Array, axis_name: Axis) -> Array:
    """The sum over the devices of what each has found in its piece of `x`."""
    names = _spread_axes(x, axis_name)
    return lax.psum(total, names) if names else total


def _squares(x: Array, dtype: Any, axes: Axes, axis_name: Axis, scale: Array | None = None) -> Array:
    """The sum of squares of one leaf over these axes (all if None)."""
    parts = [lax.convert_element_type(p, dtype) for p in real_parts(x)]
    if scale is not None:
        parts = [p / scale for p in parts]
    return sum(_total(x, axes, axis_name, jnp.square(p)) for p in parts)  # pyright: ignore[reportReturnType]


def _power_of_two(x: Array, dtype: Any, axes: Axes, axis_name: Axis) -> Array:
    """A power of two near the largest entry; 1 where the squares of the leaf are safe anyway, or it is not finite."""
    tops = [
        jnp.max(jnp.abs(lax.convert_element_type(p, dtype)), axis=axes, keepdims=axes is not None)
        for p in real_parts(x)
    ]
    top = lax.stop_gradient(tops[0] if len(tops) == 1 else jnp.maximum(*tops))
    names = _spread_axes(x, axis_name)
    top = lax.pmax(top, names) if names else top
    info = jnp.finfo(dtype)
    usual = (top > 2.0 ** (info.minexp // 3)) & (top < 2.0 ** (info.maxexp // 3))
    return jnp.where(usual, jnp.ones_like(top), power_of_two(top))


def power_of_two(top: Array) -> Array:
    """The largest power of two at or below `top`; 1 where `top` is 0, subnormal or not finite."""
    info = jnp.finfo(top.dtype)
    usable = jnp.isfinite(top) & (top >= info.tiny)
    # Two below the largest exponent: XLA may multiply by the reciprocal, which must not be subnormal.
    exponent = jnp.minimum(jnp.frexp(jnp.where(usable, top, 1.0))[1] - 1, info.maxexp - 2)
    return jnp.where(usable, jnp.ldexp(jnp.ones((), top.dtype), exponent), 1.0).astype(top.dtype)


def _value(relative: Array, scale: Array | None, dtype: Any) -> Array:
    """A norm as a float of the result's dtype. A norm below the normal numbers is 0, as most devices have it."""
    info = jnp.finfo(dtype)
    # A sum of finite squares in float64 stays finite; a product with a scale, or a float32, may not.
    finite = jnp.isfinite(relative)
    value = lax.convert_element_type(relative if scale is None else relative * scale, dtype)
    value = jnp.where(finite, jnp.minimum(value, jnp.asarray(info.max, dtype)), value)
    return jnp.where(value < jnp.asarray(info.tiny, dtype), jnp.zeros_like(value), value)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _norm(x: Array, dtype: Any, axes: Axes, axis_name: Axis) -> Norm:
    working, context = _working(dtype)
    with context:
        scale = None if _is_wide(dtype) else _power_of_two(x, dtype, axes, axis_name)
        relative = jnp.sqrt(_squares(x, working, axes, axis_name, scale))
        return Norm(_value(relative, scale, dtype), relative, scale)


def leaf_norms(leaves: Sequence[Array], dtype: Any, axes: Sequence[Axes], axis_name: Axis = None) -> list[Norm]:
    """The norm of each leaf over its axes (all if None; else the axes stay, with length 1)."""
    settings = tuple(axes)

    @jax.custom_jvp
    def norms(leaves: list[Array]) -> list[Norm]:
        return [_norm(x, dtype, a, axis_name) for x, a in zip(leaves, settings)]

    @norms.defjvp
    def _(primals, tangents):
        (leaves,), (dots,) = primals, tangents
        found = norms(leaves)
        slopes = [_slope(x, dx, n, a, axis_name) for x, dx, n, a in zip(leaves, dots, found, settings)]
        return found, [_tangent(n, slope) for n, slope in zip(found, slopes)]

    return norms(list(leaves))


def whole_norm(leaves: Sequence[Array], dtype: Any, axis_name: Axis = None) -> Norm:
    """The norm of all leaves together, without those of the leaves."""
    if not leaves:
        return _no_norm(dtype)
    if not _is_wide(dtype):
        return combined(leaf_norms(leaves, dtype, [None] * len(leaves), axis_name), dtype)

    @jax.custom_jvp
    def whole(leaves: list[Array]) -> Norm:
        working, context = _working(dtype)
        with context:
            sums = jnp.stack([_squares(x, working, None, axis_name) for x in leaves])
            relative = jnp.sqrt(jnp.sum(lax.optimization_barrier(sums)))
            return Norm(_value(relative, None, dtype), relative, None)

    @whole.defjvp
    def _(primals, tangents):
        (leaves,), (dots,) = primals, tangents
        norm = whole(leaves)
        slopes = jnp.stack([_slope(x, dx, norm, None, axis_name) for x, dx in zip(leaves, dots)])
        return norm, _tangent(norm, jnp.sum(slopes))

    return whole(list(leaves))


def combined(norms: Sequence[Norm], dtype: Any) -> Norm:
    """The norm of what these are the norms of the parts of: `sqrt(sum n_i^2)`."""
    if not norms:
        return _no_norm(dtype)

    @jax.custom_jvp
    def combine(norms: list[Norm]) -> Norm:
        _, context = _working(dtype)
        with context:
            if _is_wide(dtype):
                sums = jnp.stack([jnp.sum(jnp.square(n.relative)) for n in norms])
                scale = None
            else:
                # The scale is a power of two within a factor of the norm; those far below the largest count for 0.
                scale = jnp.max(jnp.stack([jnp.max(_size(n)) for n in norms]))
                sums = jnp.stack([jnp.sum(jnp.square(n.relative * (_size(n) / scale))) for n in norms])
            relative = jnp.sqrt(jnp.sum(lax.optimization_barrier(sums)))
            return Norm(_value(relative, scale, dtype), relative, scale)

    @combine.defjvp
    def _(primals, tangents):
        (norms,), (dots,) = primals, tangents
        norm = combine(norms)
        share = [_over(n.value, norm.value) * d.value for n, d in zip(norms, dots)]
        return norm, _tangent(norm, jnp.sum(jnp.stack([jnp.sum(s) for s in share])))

    return combine(list(norms))


def rescaled(
    leaves: Sequence[Array], norms: Sequence[Norm], lengths: Sequence[Array], active: Array | None = None
) -> list[Array]:
    """Each leaf brought from its norm to a length: `x length / norm`; the same bits where the two are equal.

    A norm may have the axes of `leaf_norms`. Leaves may share norms and lengths (the same objects): the factor is then
    computed once. Where `active` is given and False nothing changes.
    """
    order: dict[tuple[int, int], int] = {}
    which = tuple(order.setdefault((id(n.value), id(t)), len(order)) for n, t in zip(norms, lengths))
    first = [which.index(k) for k in range(len(order))]

    @jax.custom_jvp
    def products(leaves: list[Array], norms: list[Norm], lengths: list[Array], active: Any) -> list[Array]:
        if len(norms) == len(leaves):
            return [_rescaled_leaf(x, n, t, active) for x, n, t in zip(leaves, norms, lengths)]
        factors = [_factors(n, t, active) for n, t in zip(norms, lengths)]
        return [_product(x, factors[k]) for x, k in zip(leaves, which)]

    @products.defjvp
    def _(primals, tangents):
        leaves, norms, lengths, active = primals
        dots, dnorms, dlengths, _ = tangents
        slopes = [
            _product_slope(x, norms[k], lengths[k], dx, dnorms[k], dlengths[k], active)
            for x, dx, k in zip(leaves, dots, which)
        ]
        return products(*primals), slopes

    chosen = [norms[i] for i in first]
    targets = [jnp.asarray(lengths[i], norms[i].value.dtype) for i in first]
    return products(list(leaves), chosen, targets, active)


@jax.jit
def _rescaled_leaf(x: Array, norm: Norm, length: Array, active: Any) -> Array:
    return _product(x, _factors(norm, length, active))


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


def _product(x: Array, factors: tuple[Array, ...]) -> Array:
    working = factors[0].dtype
    with jax.enable_x64(True) if jnp.finfo(working).bits == 64 else contextlib.nullcontext():
        y = wide(x, working)
        for factor in factors:
            y = y * factor
        return lax.convert_element_type(y, x.dtype)


@contextlib.contextmanager
def in_working_precision(norm: Norm) -> Iterator[Any]:
    """The context in which `norm.relative` can be computed with, and its dtype."""
    with jax.enable_x64(True) if jnp.finfo(norm.relative.dtype).bits == 64 else contextlib.nullcontext():
        yield norm.relative.dtype


def _product_slope(x: Array, norm: Norm, length: Array, dx: Array, dnorm: Norm, dlength: Array, active: Any) -> Array:
    dtype, value = norm.value.dtype, norm.value
    change = _changes(norm, length, active)
    factor = jnp.where(change, _over(length, value), 1.0).astype(dtype)
    y, dy = wide(x, dtype), wide(dx, dtype)
    # d(x t / n) = dx t / n + (x / n) (dt - (t / n) dn)
    along = jnp.where(change, dlength - factor * dnorm.value, 0.0).astype(dtype)
    unit = jnp.where(change, _over(y, value), 0.0)
    return lax.convert_element_type(dy * factor + unit * along, x.dtype)


def _slope(x: Array, dx: Array, norm: Norm, axes: Axes, axis_name: Axis) -> Array:
    """The derivative of the norm along dx: `<x, dx> / norm`, 0 where the norm is."""
    dtype = norm.value.dtype
    unit = _over(wide(x, dtype), norm.value)
    return _total(x, axes, axis_name, (jnp.conj(unit) * wide(dx, dtype)).real)


def _over(a: Array, b: Array) -> Array:
    positive = b > 0
    return jnp.where(positive, a / jnp.where(positive, b, 1.0), 0.0)


def _tangent(norm: Norm, slope: Array) -> Norm:
    """Only the value has a derivative: what uses the other parts has its own, in terms of the value."""
    with in_working_precision(norm):
        scale = None if norm.scale is None else jnp.zeros_like(norm.scale)
        return Norm(slope, jnp.zeros_like(norm.relative), scale)


def _size(norm: Norm) -> Array:
    return jnp.ones_like(norm.relative) if norm.scale is None else norm.scale


def _no_norm(dtype: Any) -> Norm:
    return Norm(jnp.zeros((), dtype), jnp.zeros((), dtype), None)
