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
from jaxtyping import Array, DTypeLike, Float, PyTree

from cliffs._flatten import FlatStep
from cliffs.typing import Step


def typical_sizes(
    step: Step, params: PyTree, starts: Float[Array, "starts n"], inputs: PyTree = None, scale: PyTree = None
) -> Float[Array, " n"]:
    """The typical size of every entry of the state, as powers of two (so that dividing by it rounds nothing); pure.

    It is the median of `|x_i|` over the starts that are not zero there, else of the images `|F(x)_i|`, else the largest
    size of the other entries, else 1; or `scale`, a positive number or one for each entry (a state).

    **Raises** `ValueError` for a scale of another shape than the state, or not positive.

    >>> typical_sizes(lambda p, x, u: x, None, jnp.array([[3e-6, 0.0], [-5e-6, 0.0]])).tolist() == [2.0**-18] * 2
    True
    """
    n, dtype = starts.shape[-1], starts.dtype
    if scale is not None:
        sizes = entries(step, scale, n, dtype, name="scale")
        if not isinstance(sizes, Tracer) and not bool(jnp.all((sizes > 0) & jnp.isfinite(sizes))):
            raise ValueError(f"scale must be positive and finite, got {scale}")
        return _power_of_two(sizes)
    own = _typical(starts)
    if isinstance(own, np.ndarray) and not np.isnan(own).any():
        return jnp.asarray(_power_of_two(own))
    images = _typical(jax.vmap(lambda x: step(params, x, inputs))(starts))
    xp = np if isinstance(own, np.ndarray) and isinstance(images, np.ndarray) else jnp
    sizes = xp.where(xp.isnan(own), images, own)
    sizes = xp.where(xp.isnan(sizes), _largest(sizes), sizes)
    return jnp.asarray(_power_of_two(xp.where(xp.isnan(sizes), 1, sizes)), dtype)


def entries(step: Step, value: PyTree, n: int, dtype: DTypeLike, *, name: str) -> Float[Array, " n"]:
    """A number for every entry, or one number for all, as a vector; None stands for 0.

    **Raises** `ValueError` for another number of entries.
    """
    if isinstance(step, FlatStep) and value is not None and jax.tree.structure(value) == step.structure:
        leaves = zip(jax.tree.leaves(value), step.shapes)
        value = jnp.concatenate([jnp.broadcast_to(x, shape).ravel() for x, shape in leaves])
    elif isinstance(value, list | tuple):
        value = jnp.array([0 if v is None else v for v in value], dtype)
    vector = jnp.asarray(0 if value is None else value, dtype)
    if vector.shape not in ((), (n,)):
        raise ValueError(f"{name} must be one number, or one for each of the {n} entries, got shape {vector.shape}")
    return jnp.broadcast_to(vector, (n,))


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


def _power_of_two(sizes: Any) -> Any:
    # exp2 is not exact on every backend.
    xp = np if isinstance(sizes, np.ndarray) else jnp
    return xp.ldexp(xp.ones_like(sizes), xp.round(xp.log2(sizes)).astype(xp.int32))


@dataclasses.dataclass(frozen=True)
class ScaledStep:
    """A step on vectors in units of a scale, `z -> F(scale z) / scale`; its parameters are `(params, scale)`."""

    step: Step

    def __call__(self, params: tuple[PyTree, Array], state: Array, inputs: PyTree = None) -> Array:
        params, scale = params
        return self.step(params, state * scale, inputs) / scale


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
