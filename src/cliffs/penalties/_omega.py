"""The regulariser Omega of Pascanu, Mikolov & Bengio (2013): the gradient shall keep its length on its way back.

With `d_t = dE/dx_t` the total derivative and `J_t = dx_t/dx_{t-1}`, `r_t = ||d_t J_t|| / ||d_t||` for every step and
sequence, and Omega collects `(r_t - 1)^2` (eq. 9). Which norm, which mean and which derivative differ between the
paper's equations and its code:

| | eq. 9, `exact_omega` | eq. 10 and the released code, `omega` |
| --- | --- | --- |
| ratio | of norms | of squared norms |
| over the steps | sum | mean over the usable steps of all sequences |
| tiny `d_t` | undefined | left out where `||d_t||^2 < 1e-20` |
| derivative | of everything, second order | of the recurrent matrix where it stands in `J_t`; states and `d_t` fixed |

`J_t` is the step's own Jacobian, so both parametrisations have their formula: `d_t J_t = (d_t * act'(h_t)) W_rec^T` for
`h_t = act(h_{t-1} W_rec + ...)`, and `(d_t W_rec^T) * act'(x_{t-1})` for `x_t = act(x_{t-1}) W_rec + ...`. t runs from
1, back into the initial state, to T. Derivatives of a batch's mean carry 1 / batch, so what the bound leaves out
depends on the batch size.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.penalties._state_gradients import before, divide_rows, row_norms, row_scale, state_gradients, transport
from cliffs.typing import Step


@dataclasses.dataclass(frozen=True)
class OmegaForm:
    """Which Omega is meant."""

    squared: bool = True
    """Whether r is a ratio of squared norms."""
    mean: bool = True
    """Whether to divide by the number of usable steps; otherwise the sum over the steps, mean over the batch."""
    bound: float = 1e-20
    """Steps with `||d_t||^2` below this are left out; those with `d_t = 0` always are."""


AUTHORS = OmegaForm()
"""The released code's form."""
EQUATION_9 = OmegaForm(squared=False, mean=False, bound=0.0)
"""The paper's eq. 9."""


def omega(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    error: Callable[[PyTree], Array],
    length: int | None = None,
    form: OmegaForm = AUTHORS,
) -> Float[Array, ""]:
    """Omega whose gradient is the immediate derivative: only through those `params` that occur in `J_t` itself.

    In the authors' form, with `r_t` a ratio of squared norms and `usable` those with `||d_t||^2 >= bound`,

        Omega = sum_t mean_batch usable (r_t - 1)^2 / sum_t mean_batch usable

    The states and `d_t` are constants. For a step of `rnn_step` so is the slope of the units, and the gradient reaches
    `w_rec` alone, as in eq. 10; for any other step it reaches every parameter that `J_t` depends on at fixed
    `x_{t-1}`.

    **Arguments**

    - `step`, `params`: the recurrent step and what it takes, for a `ModelParams` its field `rnn`.
    - `initial_state`: `x_0`, leaves `[*batch, hidden]`.
    - `inputs`: `[time, *batch, ...]`, or None with `length`.
    - `error`: `error(states) -> scalar`, how the states `[time, *batch, hidden]` are judged, for instance
      `lambda states: cliffs.training.last_step_nats(step)(model, states, batch)[0]`.
    - `length`: number of steps when `inputs` is None.
    - `form`: `AUTHORS` by default.

    **Returns** a scalar, to be added to a loss times its weight (4 for temporal order in the ICML version). NaN where
    a `d_t` is not finite. It costs a forward and a backward pass of its own; `unroll_with_omega` does not.

    Source: Pascanu, Mikolov & Bengio (ICML 2013), eqs. 9 and 10, and their released code.

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(2 * jnp.eye(3), jnp.ones((1, 3)))
    >>> value = omega(rnn_step("identity"), params, jnp.zeros(3), jnp.ones((5, 1)), error=lambda x: x[-1].sum())
    >>> round(float(value), 4)  # (2^2 - 1)^2
    9.0
    """
    frozen, start = jax.lax.stop_gradient((params, initial_state))
    states, d = state_gradients(step, frozen, start, inputs, error=error, length=length)
    states, d = jax.lax.stop_gradient((states, d))
    return from_states(step, params, before(start, states), states, d, inputs, form)


def exact_omega(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    error: Callable[[PyTree], Array],
    length: int | None = None,
    form: OmegaForm = EQUATION_9,
) -> Float[Array, ""]:
    """Omega with its full gradient: through `J_t`, the states and the backpropagated `d_t`, so of second order.

    As eq. 9, `Omega = sum_t mean_batch (||d_t J_t|| / ||d_t|| - 1)^2`. `grad` also reaches what `error` closes over
    (the read-out's weights).

    **Arguments**, **Returns**: as `omega`, with `EQUATION_9` as the default form.

    Source: Pascanu, Mikolov & Bengio (ICML 2013), eq. 9.

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(2 * jnp.eye(3), jnp.ones((1, 3)))
    >>> def value(params):
    ...     return exact_omega(
    ...         rnn_step("identity"), params, jnp.zeros(3), jnp.ones((5, 1)), error=lambda x: x[-1].sum()
    ...     )
    >>> round(float(value(params)), 4), jax.grad(value)(params).w_rec.shape  # 5 (2 - 1)^2
    (5.0, (3, 3))
    """
    states, d = state_gradients(step, params, initial_state, inputs, error=error, length=length)
    return from_states(step, params, before(initial_state, states), states, d, inputs, form)


def from_states(
    step: Step, params: PyTree, previous: PyTree, states: PyTree, d: PyTree, inputs: PyTree, form: OmegaForm
) -> Float[Array, ""]:
    """Omega from `x_0 .. x_{T-1}`, `x_1 .. x_T` and `d_1 .. d_T`, leaves `[time, *batch, hidden]`."""
    scale = row_scale(d)
    d = divide_rows(d, scale)
    return collect(d, transport(step, params, previous, states, d, inputs), scale, form)


def collect(d: PyTree, transported: PyTree, scale: Array, form: OmegaForm) -> Float[Array, ""]:
    """Omega from `d_t` and `d_t J_t`, both divided by `scale` `[time, *batch]`: the ratio does not see it."""
    norm = row_norms(d)
    finite = jnp.isfinite(norm)
    usable = (norm > 0) & (scale * norm >= form.bound**0.5) | ~finite
    # Branches not taken get harmless numbers, so that their derivatives are harmless too.
    length = jnp.where(usable, norm, 1)
    unit = jax.tree.map(lambda n: jnp.where(usable[..., None], n / length[..., None], 1), transported)
    ratio = sum((x**2).sum(-1) for x in jax.tree.leaves(unit)) if form.squared else row_norms(unit)
    # A gradient that is not finite has no length: NaN, so that it does not look like a good one.
    excess = jnp.where(finite, ratio - 1, jnp.nan)
    total = usable.sum() if form.mean else jnp.asarray(usable[0].size, excess.dtype)
    return jnp.where(usable, excess**2, 0).sum() / jnp.maximum(total, 1)
