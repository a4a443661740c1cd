"""Norms that neither overflow nor underflow, with one read of the memory.

Squares of float32 entries leave float32's range above 1.8e19 and below 1e-23, but not that of float64: so the sums, and
the one factor by which a gradient is multiplied, are float64 inside this file, whatever `jax_enable_x64` says. Leaves
that are float64 themselves, and devices without float64 (TPU), are divided by a power of two near their largest entry
first, which costs a second read.

Little is compiled for each of hundreds of leaves: the sums of all stand in one array, what is done with them is one
program, and a leaf gets its number out of it as `each_leaf` says. No branch takes the leaves as operands: XLA would
copy scalar arithmetic into the loop of every leaf that uses it.

Derivatives are given by hand (they are short), in the leaves' own precision: no float64 reaches them.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PyTree

from cliffs.clipping._leaves import compute_dtype, inexact, real_parts, wide

Axes = tuple[int, ...] | None
Axis = str | tuple[str, ...] | None
"""Names of mesh axes over which a gradient is spread (`shard_map`, `pmap`), or None."""


class Norm(NamedTuple):
    """The Euclidean norm of a tree, or the norms of its leaves or of the units of a leaf in one array."""

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


def entries(leaves: Sequence[Array], dtype: Any, axis_name: Axis = None) -> Array:
    """How many entries each leaf has, with those of its pieces on other devices: `[leaves]`."""
    if axis_name is None or not leaves:
        return jnp.array([x.size for x in leaves], dtype)
    return jnp.stack([sum_over_devices(x, jnp.asarray(x.size, dtype), axis_name) for x in leaves])


def max_over_devices(x: Array, top: Array, axis_name: Axis) -> Array:
    """The largest of what each device has found in its piece of `x`; the derivative is that of where it was found."""
    names = _spread_axes(x, axis_name)
    if not names:
        return top
    largest = lax.pmax(lax.stop_gradient(top), names)
    # pmax has no derivative in JAX.
    own = jnp.where((top == largest) & jnp.isfinite(top), top, 0)
    return largest + lax.psum(own - lax.stop_gradient(own), names)


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
def _sum_of_squares(x: Array, dtype: Any, axes: Axes, axis_name: Axis) -> tuple[Array, Array | None]:
    """The sum of squares over a scale, and the scale; None stands for 1."""
    working, context = _working(dtype)
    with context:
        scale = None if _is_wide(dtype) else _power_of_two(x, dtype, axes, axis_name)
        return _squares(x, working, axes, axis_name, scale), scale


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _norm(x: Array, dtype: Any, axes: Axes, axis_name: Axis) -> Norm:
    total, scale = _sum_of_squares(x, dtype, axes, axis_name)
    with _working(dtype)[1]:
        relative = jnp.sqrt(total)
        return Norm(_value(relative, scale, dtype), relative, scale)


def unit_norms(leaves: Sequence[Array], dtype: Any, axes: Sequence[Axes], axis_name: Axis = None) -> list[Norm]:
    """The norm of each leaf over its axes, which stay with length 1 (all axes if None: a scalar)."""
    settings = tuple(axes)

    @jax.custom_jvp
    def norms(leaves: list[Array]) -> list[Norm]:
        return [_norm(x, dtype, a, axis_name) for x, a in zip(leaves, settings)]

    @norms.defjvp
    def _(primals, tangents):
        (leaves,), (dots,) = primals, tangents
        found = norms(leaves)
        slopes = [_slope(x, dx, n.value, a, axis_name) for x, dx, n, a in zip(leaves, dots, found, settings)]
        return found, [_tangent(n, slope) for n, slope in zip(found, slopes)]

    return norms(list(leaves))


def leaf_norms(leaves: Sequence[Array], dtype: Any, axis_name: Axis = None) -> Norm:
    """The norms of all leaves in one array `[leaves]`, so that what is done with hundreds of them is one program."""
    if not leaves:
        return _no_norm(dtype, (0,))

    @jax.custom_jvp
    def norms(leaves: list[Array]) -> Norm:
        found = [_sum_of_squares(x, dtype, None, axis_name) for x in leaves]
        with _working(dtype)[1]:
            relative = jnp.sqrt(jnp.stack([total for total, _ in found]))
            scales = [scale for _, scale in found if scale is not None]
            scale = jnp.stack(scales) if scales else None
            return Norm(_value(relative, scale, dtype), relative, scale)

    @norms.defjvp
    def _(primals, tangents):
        (leaves,), (dots,) = primals, tangents
        found = norms(leaves)
        pairs = zip(leaves, dots, each_leaf(found.value))
        return found, _tangent(found, jnp.stack([_slope(x, dx, n, None, axis_name) for x, dx, n in pairs]))

    return norms(list(leaves))


def each_leaf(values: Float[Array, " leaves"]) -> list[Array]:
    """The entries of an array, one by one.

    XLA compiles programs that differ in nothing but their operands once. So an entry is not taken from its place, which
    would be a constant of the program, but summed under a mask, which is an operand; and out of 32 neighbours, because
    a longer sum is three programs on a CPU.
    """
    rows = [values[..., i : i + 32] for i in range(0, values.shape[-1], 32)]
    places = np.arange(32)
    return [
        jnp.sum(jnp.where(places[: row.shape[-1]] == i, row, 0), dtype=values.dtype)
        for row in rows
        for i in range(row.shape[-1])
    ]


@jax.custom_jvp
def each_quotient(above: Float[Array, " leaves"], below: Float[Array, " leaves"]) -> list[Array]:
    """The entries of `above / below` (`below > 0`), as factors for the leaves.

    Each is a quotient again: XLA keeps those apart, where it would compute a sum anew for each entry of a leaf.
    """
    return [jnp.ones_like(x) / x for x in each_leaf(below / above)]


@each_quotient.defjvp
def _each_quotient_jvp(primals, tangents):
    (above, below), (da, db) = primals, tangents
    return each_quotient(above, below), each_leaf((da - above / below * db) / below)


def whole_norm(leaves: Sequence[Array], dtype: Any, axis_name: Axis = None) -> Norm:
    """The norm of all leaves together, without those of the leaves."""
    if not leaves:
        return _no_norm(dtype)
    if not _is_wide(dtype):
        return combined(leaf_norms(leaves, dtype, axis_name=axis_name))

    @jax.custom_jvp
    def together(leaves: list[Array]) -> Norm:
        working, context = _working(dtype)
        with context:
            sums = jnp.stack([_squares(x, working, None, axis_name) for x in leaves])
            relative = jnp.sqrt(jnp.sum(lax.optimization_barrier(sums)))
            return Norm(_value(relative, None, dtype), relative, None)

    @together.defjvp
    def _(primals, tangents):
        (leaves,), (dots,) = primals, tangents
        norm = together(leaves)
        slopes = jnp.stack([_slope(x, dx, norm.value, None, axis_name) for x, dx in zip(leaves, dots)])
        return norm, _tangent(norm, jnp.sum(slopes))

    return together(list(leaves))


def combined(parts: Norm) -> Norm:
    """The norm of what these are the norms of the parts of: `sqrt(sum n_i^2)` over the last axis."""
    if not parts.value.shape[-1]:
        return _no_norm(parts.value.dtype, parts.value.shape[:-1])

    @jax.custom_jvp
    def combine(parts: Norm) -> Norm:
        with in_working_precision(parts):
            relative, scale = parts.relative, None
            if parts.scale is not None:
                # The scale is a power of two within a factor of the norm; those far below the largest count for 0.
                scale = jnp.max(parts.scale, -1)
                relative = relative * (parts.scale / scale[..., None])
            relative = jnp.sqrt(jnp.sum(jnp.square(relative), -1))
            return Norm(_value(relative, scale, parts.value.dtype), relative, scale)

    @combine.defjvp
    def _(primals, tangents):
        (parts,), (dots,) = primals, tangents
        norm = combine(parts)
        return norm, _tangent(norm, jnp.sum(over(parts.value, norm.value[..., None]) * dots.value, -1))

    return combine(parts)


def combined_leaves(norms: Sequence[Norm], dtype: Any) -> Norm:
    """The norm of all that these are the norms of, arrays of any shapes."""
    if not norms:
        return _no_norm(dtype)
    with in_working_precision(norms[0]):
        leaves = [combined(jax.tree.map(jnp.ravel, n)) if n.value.ndim else n for n in norms]
        return combined(jax.tree.map(lambda *values: jnp.stack(values), *leaves))


@contextlib.contextmanager
def in_working_precision(norm: Norm) -> Iterator[Any]:
    """The context in which `norm.relative` can be computed with, and its dtype."""
    with jax.enable_x64(True) if jnp.finfo(norm.relative.dtype).bits == 64 else contextlib.nullcontext():
        yield norm.relative.dtype


def over(a: Array, b: Array) -> Array:
    """`a / b`, 0 where b is."""
    positive = b > 0
    return jnp.where(positive, a / jnp.where(positive, b, 1.0), 0.0)


def _slope(x: Array, dx: Array, norm: Array, axes: Axes, axis_name: Axis) -> Array:
    """The derivative of the norm along dx: `<x, dx> / norm`, 0 where the norm is."""
    dtype = norm.dtype
    unit = over(wide(x, dtype), norm)
    return _total(x, axes, axis_name, (jnp.conj(unit) * wide(dx, dtype)).real)


def _tangent(norm: Norm, slope: Array) -> Norm:
    """Only the value has a derivative: what uses the other parts has its own, in terms of the value."""
    with in_working_precision(norm):
        scale = None if norm.scale is None else jnp.zeros_like(norm.scale)
        return Norm(slope, jnp.zeros_like(norm.relative), scale)


def _no_norm(dtype: Any, shape: tuple[int, ...] = ()) -> Norm:
    working, context = _working(dtype)
    with context:
        zeros = jnp.zeros(shape, working)
        return Norm(jnp.zeros(shape, dtype), zeros, None if _is_wide(dtype) else jnp.ones_like(zeros))
