"""Piecewise-linear networks: every region of state space has a linear map of its own, so cycles can be solved for.

At the borders of the regions the Jacobian jumps; a fixed point or cycle that reaches one undergoes a border-collision
bifurcation. Matrices are in the column-vector convention of the papers, so published ones are used as they stand.
"""

import dataclasses
from typing import NamedTuple

import jax
from jaxtyping import Array, Float


class PLRNNParams(NamedTuple):
    """Parameters of the piecewise-linear network with n units, which are also its observed dimensions."""

    a: Float[Array, " n"] | Float[Array, "n n"]
    """The linear part; a vector is the diagonal of a matrix."""
    w: Float[Array, "n n"]
    h: Float[Array, " n"]
    c: Float[Array, "n features"] | None = None
    """Weights of the inputs."""


class ShallowPLRNNParams(NamedTuple):
    """Parameters of the shallow piecewise-linear network with n states and a hidden layer of units."""

    a: Float[Array, " n"] | Float[Array, "n n"]
    """The linear part; a vector is the diagonal of a matrix."""
    w1: Float[Array, "n hidden"]
    w2: Float[Array, "hidden n"]
    h1: Float[Array, " n"]
    h2: Float[Array, " hidden"]
    c: Float[Array, "n features"] | None = None
    """Weights of the inputs."""


@dataclasses.dataclass(frozen=True)
class PLRNNStep:
    """The step that `plrnn_step` returns; hashable, so it can be a static argument of `jax.jit`."""

    def __call__(
        self,
        params: PLRNNParams,
        state: Float[Array, "*batch n"],
        inputs: Float[Array, "*batch features"] | None = None,
    ) -> Float[Array, "*batch n"]:
        return _linear(params.a, state) + jax.nn.relu(state) @ params.w.T + _drive(params.h, params.c, inputs)


@dataclasses.dataclass(frozen=True)
class ShallowPLRNNStep:
    """The step that `shplrnn_step` returns; hashable, so it can be a static argument of `jax.jit`."""

    def __call__(
        self,
        params: ShallowPLRNNParams,
        state: Float[Array, "*batch n"],
        inputs: Float[Array, "*batch features"] | None = None,
    ) -> Float[Array, "*batch n"]:
        hidden = jax.nn.relu(state @ params.w2.T + params.h2)
        return _linear(params.a, state) + hidden @ params.w1.T + _drive(params.h1, params.c, inputs)


def plrnn_step() -> PLRNNStep:
    """The step of a piecewise-linear recurrent network, `z_t = A z_{t-1} + W relu(z_{t-1}) + h + C u_t`.

    **Returns** a `PLRNNStep`, called as `step(params: PLRNNParams, state[..., n], inputs[..., features] or None)`. The
    derivative of relu at 0 is taken as 0.

    Source: Durstewitz (2017), PLoS Computational Biology 13, e1005542; Eisenmann et al. (2023), Bifurcations and loss
    jumps in RNN training, eq. 1.

    >>> import jax.numpy as jnp
    >>> params = PLRNNParams(a=jnp.array([0.5, 0.5]), w=jnp.array([[0.0, 1.0], [0.0, 0.0]]), h=jnp.zeros(2))
    >>> plrnn_step()(params, jnp.array([-2.0, 4.0])).tolist()
    [3.0, 2.0]
    """
    return PLRNNStep()


def shplrnn_step() -> ShallowPLRNNStep:
    """The step of a shallow piecewise-linear network, `z_t = A z_{t-1} + W_1 relu(W_2 z_{t-1} + h_2) + h_1 + C u_t`.

    **Returns** a `ShallowPLRNNStep`, called as `step(params: ShallowPLRNNParams, state[..., n], inputs[..., features]
    or None)`. The derivative of relu at 0 is taken as 0.

    Source: Hess, Monfared, Brenner & Durstewitz (2023), Generalized teacher forcing, eq. 2; Eisenmann et al. (2023),
    Bifurcations and loss jumps in RNN training.

    >>> import jax.numpy as jnp
    >>> w2, h2 = jnp.array([[1.0], [-1.0]]), jnp.zeros(2)
    >>> params = ShallowPLRNNParams(a=jnp.array([0.5]), w1=jnp.ones((1, 2)), w2=w2, h1=jnp.ones(1), h2=h2)
    >>> shplrnn_step()(params, jnp.array([-2.0])).tolist()
    [2.0]
    """
    return ShallowPLRNNStep()


def _linear(a: Array, state: Array) -> Array:
    return a * state if a.ndim == 1 else state @ a.T


def _drive(h: Array, c: Array | None, inputs: Array | None) -> Array:
    return h if c is None or inputs is None else h + inputs @ c.T
