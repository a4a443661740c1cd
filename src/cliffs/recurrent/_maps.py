"""Small maps with known truth, as steps: the paper's one-unit map, the linear map, the Hénon map.

Autonomous: `inputs` is ignored and defaults to None.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, PyTree

from cliffs.recurrent._vanilla import ACTIVATIONS


class OneUnitParams(NamedTuple):
    """Parameters of the one-unit map: recurrent weight `w` and bias `b`, both scalars."""

    w: Float[Array, ""] | float
    b: Float[Array, ""] | float


def one_unit_step(params: OneUnitParams, state: Array, inputs: PyTree = None, *, activation: str = "logistic") -> Array:
    """One step of the paper's one-unit network, `x_t = w act(x_{t-1}) + b` (2012, eq. 14).

    **Arguments**

    - `params`: `OneUnitParams(w, b)`.
    - `state`: `x_{t-1}`, any shape; each entry is a network of its own.
    - `inputs`: ignored.
    - `activation`: `"logistic"` (the paper's) or another name of `cliffs.recurrent.ACTIVATIONS`.

    **Returns** `x_t`, the shape of `state`.

    >>> float(one_unit_step(OneUnitParams(5.0, -2.5), jnp.asarray(0.0)))
    0.0
    """
    del inputs
    return params.w * ACTIVATIONS[activation](state) + params.b


def one_unit_cost(
    params: OneUnitParams, *, x0: float | Array = 0.5, target: float | Array = 0.7, num_steps: int = 50
) -> Array:
    """The error `E = (logistic(x_T) - target)^2` of Fig. 3, with `x_0` and `T = num_steps` given.

    >>> round(float(one_unit_cost(OneUnitParams(5.0, -2.5))), 4)
    0.0241
    """
    start = jnp.asarray(x0, dtype=jnp.result_type(params.w, params.b, float))
    final, _ = jax.lax.scan(lambda x, _: (one_unit_step(params, x), None), start, None, length=num_steps)
    return (jax.nn.sigmoid(final) - target) ** 2


class OneUnitPoints(NamedTuple):
    """Both folds, or both flips, of the one-unit map; the smaller bias first."""

    b: Float[Array, "*w 2"]
    """The biases."""
    x: Float[Array, "*w 2"]
    """The fixed points."""


def one_unit_folds(w: Float[ArrayLike, "*w"]) -> OneUnitPoints:
    """Where two fixed points of `x -> w s(x) + b` meet and vanish (s the logistic function), in closed form.

    A fold is a fixed point with multiplier `w s'(x) = w s (1 - s) = 1`, so with `r = sqrt(1 - 4 / w)`
    `s = (1 +- r) / 2`, `x = +- 2 artanh(r)` and `b = x - w s`. Between the two biases the map has two attractors. At
    w = 4 the folds meet in a cusp, `(b, x) = (-2, 0)`.

    **Arguments**: `w`, recurrent weights of at least 4, any shape.

    **Returns** `OneUnitPoints(b, x)`, `[*w, 2]`.

    **Raises** `ValueError` for a weight below 4, which has no folds; under tracing the result is NaN there.

    Source: Pascanu, Mikolov & Bengio (2012, arXiv v1), Fig. 4, which shows w = 5.

    >>> [round(float(b), 5) for b in one_unit_folds(5.0).b]
    [-2.65561, -2.34439]
    """
    return _critical_points(w, 1)


def one_unit_flips(w: Float[ArrayLike, "*w"]) -> OneUnitPoints:
    """Where a fixed point of `x -> w s(x) + b` gives its stability to a cycle of two: multiplier -1, in closed form.

    As `one_unit_folds` with `w s'(x) = -1` and `r = sqrt(1 + 4 / w)`; between the two biases the attractor is the
    cycle. At w = -4 the flips meet at `(b, x) = (2, 0)`.

    **Arguments**: `w`, recurrent weights of at most -4, any shape.

    **Returns** `OneUnitPoints(b, x)`, `[*w, 2]`.

    **Raises** `ValueError` for a weight above -4, which has no flips; under tracing the result is NaN there.

    >>> [round(float(b), 4) for b in one_unit_flips(-5.0).b]
    [0.4195, 4.5805]
    """
    return _critical_points(w, -1)


def _critical_points(w: Float[ArrayLike, "*w"], multiplier: int) -> OneUnitPoints:
    """Both fixed points with `w s'(x) = multiplier`, which is 1 or -1."""
    name = {1: "fold only for w of at least 4", -1: "flip only for w of at most -4"}[multiplier]
    if not isinstance(w, Tracer) and not (multiplier * np.asarray(w) >= 4).all():
        raise ValueError(f"the one-unit map has a {name}, got w={w}")
    weight = jnp.asarray(w, jnp.result_type(w, float))[..., None]
    root = jnp.sqrt(1 - 4 * multiplier / weight) * jnp.array([multiplier, -multiplier], weight.dtype)
    x = 2 * jnp.arctanh(root)
    # b = x - w s with s = (1 + root) / 2, in a form that keeps the symmetry about -w / 2 to the bit.
    return OneUnitPoints(-weight / 2 + (x - weight * root / 2), x)


def linear_step(params: Float[Array, "n n"], state: Float[Array, " n"], inputs: PyTree = None) -> Array:
    """The linear map `x_t = A x_{t-1}` (column-vector convention: `params` is `A`).

    >>> linear_step(jnp.diag(jnp.array([2.0, 0.5])), jnp.ones(2)).tolist()
    [2.0, 0.5]
    """
    del inputs
    return params @ state


class HenonParams(NamedTuple):
    """Parameters of the Hénon map; the classical values are a = 1.4, b = 0.3."""

    a: Float[Array, ""] | float = 1.4
    b: Float[Array, ""] | float = 0.3


def henon_step(params: HenonParams, state: Float[Array, " 2"], inputs: PyTree = None) -> Float[Array, " 2"]:
    """The Hénon map `(x, y) -> (1 - a x^2 + y, b x)`; Lyapunov exponents 0.41922, -1.62319 at a=1.4, b=0.3.

    >>> henon_step(HenonParams(), jnp.zeros(2)).tolist()
    [1.0, 0.0]
    """
    del inputs
    x, y = state
    return jnp.stack([1 - params.a * x**2 + y, params.b * x])
