"""The penalty on the size of the steps' Jacobians."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from cliffs.penalties._state_gradients import before, transport
from cliffs.recurrent import RNNStep, unroll
from cliffs.typing import Step


def jacobian_norm(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    length: int | None = None,
    key: Key[Array, ""] | None = None,
    num_projections: int = 1,
) -> Float[Array, ""]:
    """`mean ||J_t||_F^2` over all steps and sequences, `J_t = dx_t/dx_{t-1}`; its gradient goes through the states too.

    **Arguments**

    - `step`, `params`, `initial_state`, `inputs`: as in `unroll`, states `[*batch, hidden]`.
    - `length`: number of steps when `inputs` is None.
    - `key`: when given, the estimate `mean ||v J_t||^2` with `v ~ N(0, I)`, unbiased, at the cost of `num_projections`
      pull-backs. Without a key the exact value: for a step of `rnn_step` in closed form, for any other from all n rows
      of every Jacobian, n times the memory of the states.
    - `num_projections`: how many v for each step.

    **Returns** a scalar; n for an orthogonal linear map of n units.

    **Raises** `ValueError` for `num_projections < 1`.

    Source: Hoffman, Roberts & Yaida (2019), Robust learning with Jacobian regularization (there of outputs with
    respect to inputs).

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(jnp.array([[0.0, 2.0], [1.0, 0.0]]), jnp.ones((1, 2)))
    >>> float(jacobian_norm(rnn_step("identity"), params, jnp.zeros(2), jnp.ones((4, 1))))
    5.0
    """
    if num_projections < 1:
        raise ValueError(f"num_projections must be at least 1, got {num_projections}")
    states = unroll(step, params, initial_state, inputs, length=length)
    previous = before(initial_state, states)
    leaves, structure = jax.tree.flatten(states)
    rows = leaves[0][..., 0].size

    def pulled(d):
        rolled = transport(step, params, previous, states, d, inputs)
        return sum((jnp.square(x).sum() for x in jax.tree.leaves(rolled)), jnp.zeros(()))

    if key is not None:
        keys = jax.random.split(key, (num_projections, len(leaves)))
        draw = lambda k: [jax.random.normal(k[i], x.shape, x.dtype) for i, x in enumerate(leaves)]  # noqa: E731
        return jax.vmap(lambda k: pulled(jax.tree.unflatten(structure, draw(k))))(keys).mean() / rows
    if isinstance(step, RNNStep):
        # ||J||_F^2 = sum_ij w_ij^2 slope_j^2 (or slope_i^2): the diagonal of slopes alone depends on the step.
        slopes = _slopes(step, params, previous, states)
        weights = jnp.square(params.w_rec).sum(0 if step.form == "post_activation" else 1)
        return (jnp.square(slopes) @ weights).sum() / rows
    total = jnp.zeros(())
    for i, leaf in enumerate(leaves):
        basis = jnp.eye(leaf.shape[-1], dtype=leaf.dtype)

        def one_row(row, i=i):
            d = [jnp.broadcast_to(row, x.shape) if j == i else jnp.zeros_like(x) for j, x in enumerate(leaves)]
            return pulled(jax.tree.unflatten(structure, d))

        total = total + jax.vmap(one_row)(basis).sum()
    return total / rows


def _slopes(step: RNNStep, params: PyTree, previous: Array, states: Array) -> Array:
    """The diagonal of the units' slopes: pulling back through the identity matrix leaves it alone."""
    identity = params._replace(w_rec=jnp.eye(states.shape[-1], dtype=states.dtype))
    return transport(step, identity, previous, states, jnp.ones_like(states), None)
