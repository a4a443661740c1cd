"""Small maps with known truth, as steps: the paper's one-unit map, the linear map, the Hénon map.

Autonomous: `inputs` is ignored and defaults to None.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cliffs.recurrent._vanilla import ACTIVATIONS


class OneUnitParams(NamedTuple):
    """Parameters of the one-unit map: recurrent weight `w` and bias `b`, both scalars."""

    w: Float[Array, ""] | float
    b: Float[Array, ""] | float


def one_unit_step(params: OneUnitParams, state: Array, inputs: Any = None, *, activation: str = "logistic"):
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


def linear_step(params: Float[Array, "n n"], state: Float[Array, " n"], inputs: Any = None) -> Array:
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


def henon_step(params: HenonParams, state: Float[Array, " 2"], inputs: Any = None) -> Float[Array, " 2"]:
    """The Hénon map `(x, y) -> (1 - a x^2 + y, b x)`; Lyapunov exponents 0.41922, -1.62319 at a=1.4, b=0.3.

    >>> henon_step(HenonParams(), jnp.zeros(2)).tolist()
    [1.0, 0.0]
    """
    del inputs
    x, y = state
    return jnp.stack([1 - params.a * x**2 + y, params.b * x])
