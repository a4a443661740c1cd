"""The units of a state: how large each of its entries typically is, and which of them are angles.

What is small is small against something. Tolerances and distances in this package are relative to `scale + |x|`, entry
by entry, so an answer is the same whatever units the state is measured in.
"""

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, DTypeLike, Float, PyTree

from cliffs._flatten import FlatStep
from cliffs._precision import spacing
from cliffs.typing import Step


def typical_sizes(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: PyTree = None,
    scale: PyTree = None,
    centre: ArrayLike = 0.0,
) -> Float[Array, " n"]:
    """The typical size of every entry of the state, as powers of two (so that dividing by it rounds nothing); pure.

    It is the median of `|x_i|` over the starts that are not zero there, else of the images `|F(x)_i|`, else the largest
    size of the other entries, else 1; or `scale`, a positive number or one for each entry (a state). `|x_i|` is the
    distance from the centre.

    **Raises** `ValueError` for a scale of another shape than the state, or not positive.

    >>> typical_sizes(lambda p, x, u: x, None, jnp.array([[3e-6, 0.0], [-5e-6, 0.0]])).tolist() == [2.0**-18] * 2
    True
    """
    n, dtype = starts.shape[-1], starts.dtype
    if scale is not None:
        sizes = entries(step, scale, n, name="scale").astype(dtype)
        if isinstance(sizes, np.ndarray) and not ((sizes > 0) & np.isfinite(sizes)).all():
            raise ValueError(f"scale must be positive and finite, got {scale}")
        return jnp.asarray(nearest_power_of_two(sizes))
    own = _typical(starts - centre)
    if isinstance(own, np.ndarray) and not np.isnan(own).any():
        return jnp.asarray(nearest_power_of_two(own))
    images = _typical(jax.vmap(lambda x: step(params, x, inputs))(starts) - centre)
    xp = np if isinstance(own, np.ndarray) and isinstance(images, np.ndarray) else jnp
    sizes = xp.where(xp.isnan(own), images, own)
    sizes = xp.where(xp.isnan(sizes), _largest(sizes), sizes)
    return jnp.asarray(nearest_power_of_two(xp.where(xp.isnan(sizes), 1, sizes)), dtype)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise `ValueError` unless the value is a whole number of at least `least`.

    >>> check_count("period", 1.5)
    Traceback (most recent call last):
    ValueError: period must be a whole number and at least 1, got 1.5
    """
    if not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be a whole number and at least {least}, got {value!r}")


def entries(step: Step, values: PyTree, n: int, *, name: str) -> np.ndarray | Array:
    """One number for each entry of the state, from a scalar, a vector `[n]` or a pytree of the state's structure.

    In a list or tuple None stands for 0. On the host, in float64, unless something of it is traced.

    **Raises** `ValueError` for anything else.

    >>> entries(lambda p, x, u: x, [None, 6.0], 2, name="period_of_state").tolist()
    [0.0, 6.0]
    """
    if type(values) in (list, tuple):
        values = type(values)(0 if v is None else v for v in values)
    leaves = jax.tree.leaves(values)
    xp: Any = jnp if any(isinstance(v, Tracer) for v in leaves) else np
    if isinstance(step, FlatStep) and jax.tree.structure(values) == step.structure:
        return xp.concatenate([xp.broadcast_to(xp.asarray(v, float), s).ravel() for v, s in zip(leaves, step.shapes)])
    try:
        if values is not None:
            return xp.broadcast_to(xp.asarray(values, float), (n,))
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be a number, an array [{n}] or a pytree of the state's structure, got {values!r}")


def _typical(x: Array) -> Any:
    """The median of what is finite and not zero in `[points, n]`, entry by entry; NaN where there is nothing.

    On the host where it can be: a sort is slow to compile.
    """
    xp: Any = jnp if isinstance(x, Tracer) else np
    size = xp.abs(xp.asarray(x))
    size = xp.where((size > 0) & xp.isfinite(size), size, xp.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of columns of NaN
        return xp.nanmedian(size, axis=0).astype(x.dtype)


def _largest(sizes: Any) -> Any:
    """NaN where all are."""
    xp = np if isinstance(sizes, np.ndarray) else jnp
    return xp.where(xp.isnan(sizes).all(), xp.nan, xp.where(xp.isnan(sizes), 0, sizes).max())


def nearest_power_of_two(size: Array | np.ndarray) -> Array | np.ndarray:
    """Nearest on the logarithmic scale, and exact; numpy or jax, never differentiated.

    >>> nearest_power_of_two(jnp.array([3e-6, 1.0, 1e10])).tolist()
    [3.814697265625e-06, 1.0, 8589934592.0]
    """
    # exp2 is not exact on every backend.
    if isinstance(size, np.ndarray | np.generic):
        return np.ldexp(np.ones_like(size), np.round(np.log2(size)).astype(np.int32))
    size = jax.lax.stop_gradient(size)
    return jnp.ldexp(jnp.ones_like(size), jnp.round(jnp.log2(size)).astype(jnp.int32))


@dataclasses.dataclass(frozen=True)
class ScaledStep:
    """A step on vectors in units of a scale, `z -> F(scale z) / scale`; its parameters are `(params, scale)`."""

    step: Step

    def __call__(self, params: tuple[PyTree, Array], state: Array, inputs: PyTree = None) -> Array:
        params, scale = params
        return self.step(params, state * scale, inputs) / scale


@dataclasses.dataclass(frozen=True)
class ShiftedStep:
    """A step on vectors about an origin, `z -> F(origin + z) - origin`; its parameters are `(params, origin)`."""

    step: Step
    escape: ArrayLike | None = None
    """What has an entry of larger modulus, before the shift, becomes NaN."""

    def __call__(self, params: tuple[PyTree, Array], state: Array, inputs: PyTree = None) -> Array:
        params, origin = params
        x = self.step(params, origin + state, inputs)
        if self.escape is not None:
            x = jnp.where(jnp.all(jnp.abs(x) <= self.escape), x, jnp.nan)
        return x - origin


def far_origin(
    starts: Float[Array | np.ndarray, "starts n"], scale: ArrayLike | None = None, *, least: float = 1e3
) -> Float[Array | np.ndarray, " n"]:
    """The middle of the starts where it is more than `least` of their spreads (or scales) from zero, else 0.

    Starts that are spread over more than an eighth of that distance have no middle to speak of. On the host, unless
    something is traced.

    >>> far_origin(np.array([[5.0, 1e6 - 1], [7.0, 1e6 + 1]])).tolist()
    [0.0, 1000000.0]
    """
    xp: Any = jnp if isinstance(starts, Tracer) or isinstance(scale, Tracer) else np
    starts = xp.asarray(starts)
    middle = (starts.max(0) + starts.min(0)) / 2
    spread = (starts.max(0) - starts.min(0)) / 2
    size = spread if scale is None else xp.asarray(scale)
    # Starts that are equal to within rounding have no spread.
    far = (xp.abs(middle) > least * size) & (size > 1e3 * spacing(starts.dtype) * xp.abs(middle))
    return xp.where(far & (xp.abs(middle) > 8 * spread), middle, 0).astype(starts.dtype)


def offset_noise(centre: ArrayLike, scale: ArrayLike, dtype: DTypeLike) -> Array:
    """What the rounding of an offset makes of distances relative to the scale; 0 without one.

    >>> float(offset_noise(1e6, 1.0, jnp.float32))
    0.95367431640625
    """
    return 8 * spacing(dtype) * jnp.max(jnp.linalg.norm(jnp.atleast_1d(jnp.asarray(centre) / scale), axis=-1))


def wrapped(difference: Any, angle: Any) -> Any:
    """A difference of states with its angles brought to `[-period / 2, period / 2]`; `angle` 0 is no angle.

    >>> wrapped(jnp.array([6.0, 6.0]), jnp.array([8.0, 0.0])).tolist()
    [-2.0, 6.0]
    """
    xp = np if isinstance(difference, np.ndarray) else jnp
    period = xp.where(angle > 0, angle, 1)
    return xp.where(angle > 0, difference - period * xp.round(difference / period), difference)


def relative_size(difference: Any, x: Any, scale: Any = 1.0) -> Any:
    """`|d / (scale + |x|)|` (Euclidean over the last axis): how large a difference of states near x is; numpy or jax.

    >>> float(relative_size(jnp.array([0.3, 4e5]), jnp.array([0.0, 0.0]), jnp.array([1.0, 1e6])))
    0.5
    """
    xp = np if isinstance(difference, np.ndarray) else jnp
    return xp.linalg.norm(difference / (scale + xp.abs(x)), axis=-1)
