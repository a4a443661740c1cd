"""What all strategies share: safe norms, exact rescaling, numbers or schedules, names of leaves."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PyTree

NO_PARAMS = "params is None, but this rule needs them: update(updates, state, params)"
Number = Any
"""A float, an array (traced or not) or an optax schedule `count -> value`."""


class Norm(NamedTuple):
    """A norm `scale * relative`; `scale` is a power of two, 1 unless the squares would leave the float range."""

    scale: Float[Array, ""]
    relative: Float[Array, ""]

    @property
    def value(self) -> Array:
        """The norm itself, at most the largest float where the entries are finite."""
        value = self.scale * self.relative
        return jnp.where(self.finite, jnp.minimum(value, jnp.finfo(value.dtype).max), value)

    @property
    def finite(self) -> Array:
        """Whether every entry was finite."""
        return jnp.isfinite(self.scale) & jnp.isfinite(self.relative)


def inexact(tree: PyTree) -> list[Array]:
    """The leaves that are numbers to clip: real or complex floating point, not empty."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(tree)]
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact) and x.size]


def compute_dtype(tree: PyTree) -> Any:
    """The real dtype that norms of this tree accumulate in: float32, or float64 where a leaf has it."""
    return jnp.result_type(jnp.float32, *(jnp.finfo(x.dtype).dtype for x in inexact(tree)))


def wide(x: Array, dtype: Any) -> Array:
    """`x` in the precision `dtype`, complex where it was complex."""
    return x.astype(jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(x) else dtype)


def real_parts(x: Array) -> tuple[Array, ...]:
    """The real numbers of an array: itself, or real and imaginary part."""
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def sum_squares(leaves: list[Array], dtype: Any) -> Array:
    """The sum of the squared moduli of all entries, in this precision."""
    total = jnp.zeros((), dtype)
    for x in leaves:
        for part in real_parts(x):
            total = total + jnp.sum(jnp.square(part.astype(dtype)))
    return total


def largest(leaves: list[Array], dtype: Any) -> Array:
    """The largest absolute value of a real or imaginary part; there must be a leaf."""
    tops = [jnp.max(jnp.abs(p)) for x in leaves for p in real_parts(x)]
    return jnp.max(jnp.stack([t.astype(dtype) for t in tops]))


def power_of_two(top: Array) -> Array:
    """The largest power of two at or below `top`; 1 where `top` is 0, subnormal or not finite."""
    tiny = jnp.finfo(top.dtype).tiny
    usable = jnp.isfinite(top) & (top >= tiny)
    # Two below the largest exponent: XLA may multiply by the reciprocal, which must not be subnormal.
    exponent = jnp.minimum(jnp.frexp(jnp.where(usable, top, 1.0))[1] - 1, jnp.finfo(top.dtype).maxexp - 2)
    return jnp.where(usable, jnp.ldexp(jnp.ones((), top.dtype), exponent), 1.0).astype(top.dtype)


@jax.custom_jvp
def _norm_parts(leaves: list[Array]) -> tuple[Array, Array]:
    dtype = compute_dtype(leaves)
    squares = sum_squares(leaves, dtype)
    # Inside this window neither an overflow nor the loss of tiny entries can reach the last digit of the sum.
    info = jnp.finfo(dtype)
    safe = (squares > float(info.tiny) ** 0.5) & (squares < float(info.max) ** 0.9)

    def rescaled(leaves):
        top = largest(leaves, dtype)
        scale = power_of_two(top)
        relative = jnp.sqrt(sum_squares([wide(x, dtype) / scale for x in leaves], dtype))
        # Subnormal entries are zeros for most devices: say so instead of leaving it to the device.
        return scale, jnp.where(top < info.tiny, 0.0, relative)

    return jax.lax.cond(safe, lambda _: (jnp.ones_like(squares), jnp.sqrt(squares)), rescaled, leaves)


@_norm_parts.defjvp
def _norm_parts_jvp(primals, tangents):
    (leaves,), (dots,) = primals, tangents
    scale, relative = _norm_parts(leaves)
    positive = relative > 0
    inverse = jnp.where(positive, 1.0, 0.0) / jnp.where(positive, relative, 1.0)
    slope = jnp.zeros_like(relative)
    for x, dx in zip(leaves, dots):
        x, dx = wide(x, scale.dtype) / scale, wide(dx, scale.dtype) / scale
        slope = slope + jnp.sum((jnp.conj(x) * dx).real)
    # The scale counts as a constant: scale * relative then has the derivative of the norm, 0 at 0.
    return (scale, relative), (jnp.zeros_like(scale), slope * inverse)


def tree_norm(tree: PyTree) -> Norm:
    """The Euclidean norm of a whole tree, `sqrt(sum |g_j|^2)`, safe from overflow and underflow of the squares.

    Sums run in float32 (float64 where a leaf has it). Where the plain sum of squares leaves the safe range, the
    entries are first divided by a power of two, which is exact. The derivative at 0 is 0.

    >>> print(f"{tree_norm({'a': jnp.array([3e30]), 'b': jnp.array([4e30])}).value:.4e}")
    5.0000e+30
    """
    leaves = inexact(tree)
    if not leaves:
        return Norm(jnp.ones(()), jnp.zeros(()))
    return Norm(*_norm_parts(leaves))


def clip_to(tree: PyTree, norm: Norm, limit: ArrayLike) -> PyTree:
    """`tree * limit / norm` where the norm exceeds the limit, the same bits elsewhere."""
    clip = norm.value > limit
    # Inputs of the branch not taken are made harmless, so its derivative is too. First to length 1, then to the limit:
    # their quotient may be too small for a float.
    unit, length = 1 / jnp.where(clip, norm.relative, 1.0), jnp.where(clip, limit, 1.0)

    def one(x):
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        y = wide(x, norm.scale.dtype)
        return jnp.where(clip, (y / norm.scale * unit * length).astype(x.dtype), x)

    return jax.tree.map(one, tree)


def at(value: Number, count: Array) -> Any:
    """The value of a number or a schedule at this count of updates.

    What `check` could not see, a traced or scheduled value that is negative or NaN, counts as 0: a threshold then gives
    no update instead of one uphill or a NaN.
    """
    if callable(value):
        value = value(count)
    return jnp.where(value >= 0, value, 0) if isinstance(value, jax.Array) else value


def multiple(factor: Any, base: Array) -> Array:
    """`factor base`; an infinite factor means no limit, also where `base` is 0, and has finite derivatives."""
    factor = jnp.asarray(factor, base.dtype)
    unlimited = jnp.isinf(factor)
    return jnp.where(unlimited, jnp.inf, jnp.where(unlimited, 0, factor) * base)


def check(name: str, value: Number, *, low: float = 0.0, high: float = math.inf, open_low=False, open_high=False,
          static=False):  # fmt: skip
    """Refuse a number outside its range if it is known now; schedules (unless `static`) and traced values pass."""
    if callable(value) and static:
        raise ValueError(f"{name} must be a number, not a schedule, got {value}")
    if callable(value) or isinstance(value, Tracer):
        return
    number = np.asarray(value, dtype=float)
    good = (number > low) if open_low else (number >= low)
    good = good & ((number < high) if open_high else (number <= high))
    if not np.all(good):  # NaN fails every comparison
        span = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name} must lie in {span}, got {value}")


def path_name(path: Any) -> str:
    """`"rnn/w_rec"` from a pytree path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def path_names(tree: PyTree) -> list[str]:
    """The paths of all leaves, told apart by a prefix where a key itself holds a slash."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    names = [path_name(path) for path in paths]
    return [n if names.count(n) == 1 else f"{jax.tree_util.keystr(p)}:{n}" for n, p in zip(names, paths)]


def is_recurrent(path: str) -> bool:
    """Whether a path ends in `w_rec`, as the recurrent matrix is called in `cliffs.recurrent`."""
    return path.rsplit("/", 1)[-1] == "w_rec"


def hypot(a: Array, b: Array) -> Array:
    """`sqrt(a^2 + b^2)` without overflow, with derivative 0 at the origin."""
    large = jnp.maximum(jnp.abs(a), jnp.abs(b))
    positive = large > jnp.finfo(large.dtype).tiny
    top = jnp.where(positive, jax.lax.stop_gradient(large), 1.0)
    a, b = jnp.where(positive, a / top, 1.0), jnp.where(positive, b / top, 0.0)
    return jnp.where(positive, top * jnp.sqrt(a * a + b * b), 0.0)
