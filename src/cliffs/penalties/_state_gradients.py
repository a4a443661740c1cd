"""The gradient of an error with respect to every state, and one step of its way back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cliffs.recurrent import ACTIVATIONS, SLOPES, RNNStep, unroll
from cliffs.typing import Step


def state_gradients(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    error: Callable[[PyTree], Array],
    length: int | None = None,
) -> tuple[PyTree, PyTree]:
    """`(x_1 .. x_T, d_1 .. d_T)`: the states and the total derivatives `d_t = dE/dx_t`, by way of all later states too.

    As the gradient with respect to `e_t = 0` in `x_t = step(params, x_{t-1}, u_t) + e_t`, which holds for any step.
    Differentiable again.

    **Arguments**: as `cliffs.penalties.omega`.

    **Returns** two pytrees with leaves `[time, *batch, hidden]`.

    Source: Pascanu, Mikolov & Bengio (2012), eqs. 3 to 5.

    >>> from cliffs.recurrent import linear_step
    >>> states, d = state_gradients(linear_step, 2 * jnp.eye(1), jnp.ones(1), error=lambda x: x[-1].sum(), length=3)
    >>> states[:, 0].tolist(), d[:, 0].tolist()
    ([2.0, 4.0, 8.0], [4.0, 2.0, 1.0])
    """
    states = unroll(step, params, initial_state, inputs, length=length)

    def judged(pushes):
        return error(pushed_states(step, params, initial_state, inputs, pushes))

    return states, jax.grad(judged)(jax.tree.map(jnp.zeros_like, states))


def pushed_states(step: Step, params: PyTree, initial_state: PyTree, inputs: PyTree, pushes: PyTree) -> PyTree:
    """The states of `x_t = step(params, x_{t-1}, u_t) + e_t`."""

    def pushed(params, state, both):
        u, e = both
        return jax.tree.map(lambda x, y: x + y, step(params, state, u), e)

    start = jax.tree.map(lambda x, e: jnp.broadcast_to(x, e.shape[1:]).astype(e.dtype), initial_state, pushes)
    return unroll(pushed, params, start, (inputs, pushes))


def transport(step: Step, params: PyTree, before: PyTree, after: PyTree, d: PyTree, inputs: PyTree) -> PyTree:
    """`d_t J_t` for all steps at once. For a step of `rnn_step` the units' slopes are taken from the states.

    `before` are `x_0 .. x_{T-1}`, `after` `x_1 .. x_T`, `d` `d_1 .. d_T`, leaves `[time, *batch, hidden]`.

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(jnp.array([[0.0, 2.0], [0.0, 0.0]]), jnp.ones((1, 2)))
    >>> x = jnp.zeros((1, 2))
    >>> transport(rnn_step(), params, x, x, jnp.array([[1.0, 3.0]]), jnp.zeros((1, 1))).tolist()
    [[6.0, 0.0]]
    """
    if isinstance(step, RNNStep):
        slope = SLOPES[step.activation]
        if step.form == "post_activation":
            return (d * slope(after)) @ params.w_rec.T
        return (d @ params.w_rec.T) * slope(ACTIVATIONS[step.activation](before))

    def one(x, u, d):
        return jax.vjp(lambda x: step(params, x, u), x)[1](d)[0]

    return jax.vmap(one)(before, inputs, d)


def before(initial_state: PyTree, states: PyTree) -> PyTree:
    """`x_0 .. x_{T-1}` from `x_0` and `x_1 .. x_T`."""

    def shift(x, s):
        return jnp.concatenate([jnp.broadcast_to(x, s.shape[1:])[None].astype(s.dtype), s[:-1]])

    return jax.tree.map(shift, initial_state, states)


def row_scale(tree: PyTree) -> Array:
    """`[time, *batch]`: a power of two near the largest entry of every row, over all leaves; a constant.

    Rows divided by it have squares inside the float's range.

    >>> row_scale(jnp.array([[3.0, 5.0], [0.0, 0.0]])).tolist()
    [4.0, 1.0]
    """
    leaves: list[Any] = jax.tree.leaves(tree)
    top = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.abs(x).max(-1) for x in leaves]), 0))
    info = jnp.finfo(top.dtype)
    good = jnp.isfinite(top) & (top >= info.tiny)
    # A division may be compiled as a product with the reciprocal, which must not be subnormal.
    exponent = jnp.clip(jnp.frexp(jnp.where(good, top, 1))[1] - 1, info.minexp + 2, info.maxexp - 2)
    return jnp.where(good, jnp.ldexp(jnp.ones_like(top), exponent), 1)


def divide_rows(tree: PyTree, scale: Array) -> PyTree:
    """Every row of every leaf divided by its scale."""
    return jax.tree.map(lambda x: x / scale[..., None], tree)


def row_norms(tree: PyTree) -> Array:
    """`[time, *batch]`: the norm over the last axis and over all leaves; derivative 0 at 0."""
    scale = row_scale(tree)
    squares = sum((x**2).sum(-1) for x in jax.tree.leaves(divide_rows(tree, scale)))
    positive = squares != 0
    return scale * jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)
