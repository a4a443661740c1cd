"""A step on any pytree seen as a step on one vector, which is what linear algebra needs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from cliffs.rnn import Step

FlatStep = Callable[[PyTree, Float[Array, " n"], PyTree], Float[Array, " n"]]


def num_inputs(inputs: PyTree) -> int | None:
    """The length of the leading time axis that all leaves of `inputs` share; None for an autonomous map.

    >>> num_inputs(None), num_inputs({"u": jnp.zeros((7, 2)), "mask": jnp.zeros(7)})
    (None, 7)
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not shapes:
        return None
    if any(not s for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(f"inputs must share one leading time axis, got shapes {shapes}")
    return shapes[0][0]


def flatten_step(
    step: Step, params: PyTree, state: PyTree, inputs: PyTree
) -> tuple[FlatStep, Float[Array, " n"], Callable[[Array], PyTree]]:
    """`(f, x, unravel)`: the step on vectors, the state as a vector, and the way back.

    The vector takes the dtype that the step returns, so that float64 parameters give a float64 trajectory.

    **Raises** `ValueError` when the step is no map of the state's shape into itself.

    >>> f, x, _ = flatten_step(lambda p, s, u: (p * s[1], s[0]), 2.0, (jnp.ones(2), jnp.zeros(2)), None)
    >>> f(2.0, x, None).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    sample = jax.tree.map(lambda u: u[0], inputs) if num_inputs(inputs) else inputs
    out = jax.eval_shape(step, params, state, sample)
    if jax.tree.structure(out) != jax.tree.structure(state) or any(
        jnp.shape(a) != b.shape for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(out))
    ):
        shapes = jax.tree.map(jnp.shape, state), jax.tree.map(lambda b: b.shape, out)
        raise ValueError(f"step must map the state to one of the same shape, got {shapes[0]} to {shapes[1]}")
    dtype = jnp.result_type(*jax.tree.leaves(out))
    x, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), state))

    def flat(params, x, u):
        return ravel_pytree(step(params, unravel(x), u))[0].astype(dtype)

    return flat, x, unravel
