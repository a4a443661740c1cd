"""Omega as the teaching example has it, with its second-order gradient by finite differences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.penalties._state_gradients import pushed_states, state_gradients
from cliffs.typing import Step


def finite_difference_omega(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    error: Callable[[PyTree], Array],
    length: int | None = None,
    eps: float = 1e-5,
    exact: bool = False,
    spacing: float | None = None,
) -> Float[Array, ""]:
    """`sum_{t=1}^{T-1} (||d_t|| / (||d_{t+1}|| + eps) - 1)^2`, its gradient by central differences of first gradients.

    Unlike eq. 9 the numerator is the whole `d_t`, with what step t itself adds to the error, and a norm is over the
    whole batch. The full gradient needs second derivatives: with `v_t = dOmega/dd_t` it is

        sum_t v_t dd_t/dparams = d/ds grad E(params, e = s v) at s = 0,

    where `e_t` is added to the state `x_t`. Here it is `(grad E(params, s v) - grad E(params, -s v)) / (2 s)`: two
    more ordinary gradients, no second derivative. (The code of the example takes second derivatives after all, as
    `exact=True` does.)

    **Arguments**

    - `step`, `params`, `initial_state`, `inputs`, `error`, `length`: as in `omega`; at least two steps.
    - `eps`: added to the denominator.
    - `exact`: second derivatives by autodiff in the place of differences.
    - `spacing`: the largest change s of any state's entry; the cube root of the dtype's eps by default.

    **Returns** a scalar. `grad` also reaches what `error` closes over. With `exact=False` a second derivative of the
    result is that of the differences, not of Omega.

    Source: teaching example to Pascanu et al. (2013), its weight 0.01 to 0.1; mixed derivatives by differences as in
    Pearlmutter (1994).

    >>> from cliffs.recurrent import linear_step
    >>> def run(w):
    ...     return finite_difference_omega(linear_step, w, jnp.ones(1), error=lambda x: x[-1].sum(), length=3, eps=0)
    >>> float(run(2 * jnp.eye(1)))  # two ratios of 2
    2.0
    """
    _, d = state_gradients(step, params, initial_state, inputs, error=error, length=length)
    if len(jax.tree.leaves(d)[0]) < 2:
        raise ValueError("finite_difference_omega compares neighbours: at least two steps are needed, got 1")
    if exact:
        return _neighbours(d, eps)
    d = jax.lax.stop_gradient(d)
    value, v = jax.value_and_grad(_neighbours)(d, eps)
    largest = jnp.max(jnp.stack([jnp.abs(x).max() for x in jax.tree.leaves(v)]))
    width = float(jnp.finfo(largest.dtype).eps) ** (1 / 3) if spacing is None else spacing
    s = width / jnp.where(largest > 0, largest, 1)

    def judged(sign):
        pushes = jax.tree.map(lambda x: sign * s * x, v)
        return error(pushed_states(step, params, initial_state, inputs, pushes))

    slope = (judged(1.0) - judged(-1.0)) / (2 * s)
    # The slope carries the gradient and none of the value.
    return value + slope - jax.lax.stop_gradient(slope)


def _neighbours(d: PyTree, eps: float) -> Array:
    squares = sum((x**2).sum(tuple(range(1, x.ndim))) for x in jax.tree.leaves(d))
    norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
    return ((norms[:-1] / (norms[1:] + eps) - 1) ** 2).sum()
