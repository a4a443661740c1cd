"""Backpropagation through time for the vanilla network with the weight gradient formed in large products.

Reverse-mode autodiff through a `lax.scan` adds `state^T delta_t` to the weight gradient at every step: T small
products and T passes over the accumulator. Here the reverse scan only stores the deltas and one product over
all steps follows (Theano's and cuDNN's way). Where one step is already a large product, or where the deltas of
all steps would leave the cache or the memory, the product is formed in blocks of time instead.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from cliffs.recurrent._blocks import block_length, over_blocks

ACTIVATIONS = {
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}

# act'(z) as a function of act(z): the forward pass need not be kept twice.
SLOPES = {
    "tanh": lambda a: 1 - a * a,
    "logistic": lambda a: a * (1 - a),
    "relu": lambda a: (a > 0).astype(a.dtype),
    "identity": jnp.ones_like,
}


def fast_unroll(
    activation: str,
    form: str,
    w_rec: Array,
    w_in: Array | None,
    bias: Array | None,
    state: Array,
    inputs: Array,
) -> Array:
    """States `[time, *batch, hidden]` of the vanilla network; `w_in=None` means `inputs` is the drive itself."""
    length = block_length(
        inputs.shape[0],
        state.size // state.shape[-1] if state.size else 1,
        state.shape[-1],
        w_rec.dtype.itemsize,
    )
    # The activity a_t = act(z_t) carries both forms: they differ in which of a and z is called the state.
    start = ACTIVATIONS[activation](state) if form == "pre_activation" else state
    return _states(activation, form, length, w_rec, w_in, bias, start, inputs)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _states(activation, form, length, w_rec, w_in, bias, start, inputs):
    return _forward_scan(activation, form, length, False, w_rec, w_in, bias, start, inputs)[0]


def _forward_scan(activation, form, length, keep, w_rec, w_in, bias, start, inputs):
    """The states and, for the pre-activation form when `keep` is set, the activities beside them."""
    act = ACTIVATIONS[activation]

    def step(a, drive):
        z = a @ w_rec + drive
        a = act(z)
        if form == "post_activation":
            return a, (a, None)
        return a, (z, a if keep else None)

    def block(a, u):
        drive = u if w_in is None else u @ w_in
        return jax.lax.scan(step, a, drive if bias is None else drive + bias)

    return over_blocks(block, start, inputs, length, num_steps=inputs.shape[0])[1]


def _forward(activation, form, length, w_rec, w_in, bias, start, inputs):
    want_inputs = inputs.perturbed
    w_rec, w_in, bias, start, inputs = jax.tree.map(
        lambda p: p.value, (w_rec, w_in, bias, start, inputs), is_leaf=lambda p: hasattr(p, "perturbed")
    )
    states, kept = _forward_scan(activation, form, length, True, w_rec, w_in, bias, start, inputs)
    activity = states if form == "post_activation" else kept
    return states, (w_rec, w_in, bias, start, inputs, activity, _Flag(want_inputs))


def _backward(activation, form, length, residuals, cotangent):
    w_rec, w_in, bias, start, inputs, activity, want_inputs = residuals
    if isinstance(cotangent, SymbolicZero):
        cotangent = jnp.zeros_like(activity)
    slope = SLOPES[activation]
    w_rec_t = w_rec.T
    previous = jnp.concatenate([start[None], activity])[: activity.shape[0]]
    want_inputs = want_inputs.value or w_in is None

    def step(carry, x):
        a, g = x  # carry = dE/da_t by way of later steps
        delta = (carry + g) * slope(a) if form == "post_activation" else carry * slope(a) + g
        return delta @ w_rec_t, delta

    def block(carry, x):
        back, (g_rec, g_in, g_bias) = carry
        u, a, before, g = x
        back, delta = jax.lax.scan(step, back, (a, g), reverse=True)
        g_rec = g_rec + _outer(before, delta)
        g_in = None if w_in is None else g_in + _outer(u, delta)
        g_bias = None if bias is None else g_bias + delta.sum(tuple(range(delta.ndim - 1)))
        g_u = (delta if w_in is None else delta @ w_in.T) if want_inputs else None
        return (back, (g_rec, g_in, g_bias)), g_u

    zeros: PyTree = jax.tree.map(jnp.zeros_like, (w_rec, w_in, bias))
    carry, g_u = over_blocks(
        block,
        (jnp.zeros_like(start), zeros),
        (inputs, activity, previous, cotangent),
        length,
        num_steps=inputs.shape[0],
        reverse=True,
    )
    back, (g_rec, g_in, g_bias) = carry
    return g_rec, g_in, g_bias, back, (g_u if want_inputs else jnp.zeros_like(inputs))


_states.defvjp(_forward, _backward, symbolic_zeros=True)


@jax.tree_util.register_static
class _Flag:
    """A static bool that travels among the residuals."""

    def __init__(self, value: bool):
        self.value = bool(value)

    def __eq__(self, other):
        return isinstance(other, _Flag) and self.value == other.value

    def __hash__(self):
        return hash(self.value)


def _outer(left: Array, right: Array) -> Array:
    axes = tuple(range(left.ndim - 1))
    return jnp.tensordot(left, right, (axes, axes))
