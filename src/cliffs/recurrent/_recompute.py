"""Recomputation in blocks of time: one state a block is kept, the rest is computed again in the backward pass."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cliffs.recurrent._blocks import over_blocks
from cliffs.recurrent._tangents import aval_of
from cliffs.typing import Step


def over_blocks_with_rest(
    function: Callable[[Any, Any, int], tuple[Any, Any]], carry: PyTree, xs: PyTree, length: int, *, num_steps: int
) -> tuple[PyTree, PyTree]:
    """As `over_blocks`, for any length, each block computed a second time in the backward pass.

    `function(carry, x, count)` gets its number of steps; a shorter block comes first where `length` does not divide
    `num_steps`.
    """
    rest = num_steps % length
    checkpointed = {n: jax.checkpoint(lambda carry, xs, n=n: function(carry, xs, n)) for n in (rest, length)}
    first, ys = None, None
    if rest:
        carry, first = checkpointed[rest](carry, jax.tree.map(lambda x: x[:rest], xs))
    if num_steps - rest or not rest:
        others = jax.tree.map(lambda x: x[rest:], xs)
        carry, ys = over_blocks(checkpointed[length], carry, others, length, num_steps=num_steps - rest)
    if first is None or ys is None:
        return carry, ys if first is None else first
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, ys)


def settled_types(step: Step, params: PyTree, state: PyTree, inputs: PyTree) -> PyTree:
    """The initial state in the types that the step returns, as `lax.scan` would promote it."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), inputs)
    out = jax.eval_shape(lambda s, u: step(params, s, u), state, one)
    if jax.tree.structure(out) != jax.tree.structure(state):
        return state
    return jax.tree.map(lambda x, y: jnp.broadcast_to(jnp.asarray(x, jnp.result_type(x, y)), y.shape), state, out)


def block_of_remat(
    block: Callable[[Any, Any, int], Any], state: PyTree, inputs: PyTree, num_steps: int, remat: bool | int
) -> int:
    """How many steps form one block: with k steps, k residuals and T / k states are in memory."""
    if num_steps == 0:
        return 1

    def kept(count):
        xs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), inputs)
        pulled = jax.eval_shape(lambda s, u: jax.vjp(lambda s: block(s, u, count), s)[1], state, xs)
        return _bytes(pulled)

    few = min(2, num_steps)
    of_step = max((kept(2 * few) - kept(few)) // few, 1)
    of_state = max(_bytes(state), 1)
    best = min(max(round(math.sqrt(num_steps * of_state / of_step)), 1), num_steps)
    if remat is True:
        return best

    def needed(k):
        return k * of_step + -(-num_steps // k) * of_state

    if needed(best) > remat:
        raise ValueError(
            f"remat={remat} bytes cannot be met: blocks of {best} of the {num_steps} steps need {needed(best)} bytes "
            "for one run, and no other length needs less"
        )
    return max(k for k in range(best, num_steps + 1) if needed(k) <= remat)


def _bytes(tree: PyTree) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in map(aval_of, jax.tree.leaves(tree)))
