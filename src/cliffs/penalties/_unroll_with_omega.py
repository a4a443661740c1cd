"""An unroll that adds the gradient of Omega on its way back, in the same backward pass."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs.penalties._omega import AUTHORS, OmegaForm, collect, from_states
from cliffs.penalties._state_gradients import before, divide_rows, row_scale
from cliffs.recurrent import ACTIVATIONS, SLOPES, RNNStep, project_inputs, unroll
from cliffs.typing import Step


def unroll_with_omega(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree,
    *,
    weight: float | Float[Array, ""],
    form: OmegaForm = AUTHORS,
) -> PyTree:
    """The states of `cliffs.recurrent.unroll`, whose gradient is that of `error + weight * Omega`.

    The states are the same; only the way back differs. It has to know every `d_t` and `d_t J_t` anyway, so the
    immediate derivative of Omega (see `omega`) costs one product more, not another pass. So a loss with this in the
    place of `unroll` gets its regulariser *in the gradient*; the loss's value does not contain it, and `omega` tells
    how large it is.

        loss = readout_loss(step, last_step_nats(step), unroll=partial(unroll_with_omega, weight=weight))

    `weight` may be traced: an entry of a sweep's grid, or a schedule at the present step (the second version of the
    paper has `1 / (2 t)` in epoch t on music). Clip after this, as the authors do.

    **Arguments**

    - `step`, `params`, `initial_state`, `inputs`: as in `unroll`; inputs are needed.
    - `weight`: the authors' alpha, a scalar; 4 for temporal order in the ICML version, 2 in the released code.
    - `form`: `AUTHORS` by default.

    **Returns** the states, leaves `[time, *batch, hidden]`.

    **Raises** `ValueError` when `inputs` is None. Forward mode and second derivatives do not see Omega's gradient
    as a derivative of anything: use `omega` or `exact_omega` there.

    Source: Pascanu, Mikolov & Bengio (ICML 2013), eq. 10, and their released code.

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(2 * jnp.eye(1), jnp.ones((1, 1)))
    >>> def loss(params, weight):
    ...     states = unroll_with_omega(rnn_step("identity"), params, jnp.zeros(1), jnp.zeros((5, 1)), weight=weight)
    ...     return states[-1].sum()
    >>> jax.grad(loss)(params, 1.0).w_rec.tolist()  # d/dw (w^2 - 1)^2 = 4 w (w^2 - 1)
    [[24.0]]
    """
    if not jax.tree.leaves(inputs):
        raise ValueError("inputs must be given: [time, *batch, ...]")
    return _states(step, form, params, initial_state, inputs, jnp.asarray(weight, float))


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _states(step, form, params, initial_state, inputs, weight):
    return unroll(step, params, initial_state, inputs)


def _forward(step, form, params, initial_state, inputs, weight):
    states = unroll(step, params, initial_state, inputs)
    return states, (params, initial_state, inputs, weight, states)


def _backward(step, form, residuals, cotangent):
    params, initial_state, inputs, weight, states = residuals
    previous = before(initial_state, states)
    pull = _vanilla if isinstance(step, RNNStep) else _general
    g_params, back, g_inputs = pull(step, form, params, previous, states, inputs, weight, cotangent)
    g_start = jax.tree.map(_sum_to, back, initial_state)
    return g_params, g_start, g_inputs, jnp.zeros_like(weight)


_states.defvjp(_forward, _backward)


def _vanilla(step, form, params, previous, states, inputs, weight, cotangent):
    slope, act = SLOPES[step.activation], ACTIVATIONS[step.activation]
    post = step.form == "post_activation"
    activity = previous if post else act(previous)  # what w_rec is multiplied with
    slopes = slope(states) if post else slope(activity)
    w_rec_t = params.w_rec.T

    def back_one(carry, x):
        g, s = x
        d = carry + g
        delta = d * s if post else d  # the gradient of the drive
        transported = delta @ w_rec_t if post else (delta @ w_rec_t) * s
        return transported, (d, delta, transported)

    back, (d, delta, transported) = jax.lax.scan(back_one, jnp.zeros_like(states[0]), (cotangent, slopes), reverse=True)
    g_rec = _outer(activity, delta)
    # Omega is a function of n = d J alone, and n_i = s_i sum_j w_ij delta_j: dOmega/dw_ij = sum pull_i delta_j with
    # pull = s dOmega/dn. Rows of d, delta and n are scaled alike, so very long ones have derivatives too.
    scale = row_scale(d)
    unit_d, unit_n, unit_delta = (divide_rows(x, scale) for x in (d, transported, delta))
    pull = jax.grad(lambda n: collect(unit_d, n, scale, form))(unit_n)
    g_rec = g_rec + (weight * _outer(pull if post else pull * slopes, unit_delta)).astype(g_rec.dtype)
    _, to_drive = jax.vjp(project_inputs, params, inputs)
    g_params, g_inputs = to_drive(delta.astype(jax.eval_shape(project_inputs, params, inputs).dtype))
    return g_params._replace(w_rec=g_params.w_rec + g_rec), back, g_inputs


def _general(step, form, params, previous, states, inputs, weight, cotangent):
    zeros = jax.tree.map(jnp.zeros_like, params)

    def back_one(carry, x):
        back, g_params = carry
        g, x_before, u = x
        d = jax.tree.map(jnp.add, back, g)
        _, pull = jax.vjp(step, params, x_before, u)
        more, back, g_u = pull(d)
        return (back, jax.tree.map(jnp.add, g_params, more)), (d, g_u)

    start = jax.tree.map(lambda s: jnp.zeros_like(s[0]), states)
    (back, g_params), (d, g_inputs) = jax.lax.scan(
        back_one, (start, zeros), (cotangent, previous, inputs), reverse=True
    )

    def penalty(params):
        return from_states(step, params, previous, states, d, inputs, form)

    extra = jax.grad(penalty)(params)
    return jax.tree.map(lambda g, e: g + (weight * e).astype(g.dtype), g_params, extra), back, _float0(g_inputs, inputs)


def _float0(cotangents: Any, primals: Any) -> Any:
    """Integers have cotangents of a dtype of their own, which scan cannot carry out."""

    def one(g, x):
        inexact = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
        return g if inexact else np.zeros(jnp.shape(x), jax.dtypes.float0)

    return jax.tree.map(one, cotangents, primals)


def _outer(left: Array, right: Array) -> Array:
    axes = tuple(range(left.ndim - 1))
    return jnp.tensordot(left, right, (axes, axes))


def _sum_to(g: Array, like: Array) -> Array:
    """The cotangent of a start state that was spread over the batch."""
    g = g.sum(tuple(range(g.ndim - jnp.ndim(like))))
    spread = tuple(i for i, n in enumerate(jnp.shape(like)) if n == 1 and g.shape[i] != 1)
    return g.sum(spread, keepdims=True).astype(jnp.result_type(like))
