"""LSTM and GRU over a block of time, with derivatives by hand.

Both keep the gates of every step. The tangent recurrence and its transpose (backpropagation through time) are
written out; the transposed weights are made once, outside of the loop, since a product with `w.T` inside it runs at
60 % of the speed. The weight gradient is one product over all steps: it is the transpose of `before @ dw`.

Names: `w` `[hidden, gates * hidden]` with the gates side by side, `drive` `[time, *batch, gates * hidden]` the inputs'
part of the gates with the biases, `before` `[time, *batch, hidden]` the state that each step started from.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cliffs.recurrent._blocks import block_length, over_blocks
from cliffs.recurrent._gated import CellStep
from cliffs.recurrent._linear_map import linear_map
from cliffs.recurrent._tangents import is_zero, materialise, states_before, total

# The gates of all steps are kept besides the deltas. With larger ones a program of a usual size needs more than 32 MB,
# which glibc maps anew at every call: at 256 units the page faults cost as much as two of the five products.
WHOLE_SEQUENCE_BYTES, BLOCK_ROWS = 2**22, 512
LSTM_GATES, GRU_GATES = "ifog", "rzn"  # names of flax's parameters, in the order in which the rules keep them


def gated_kind(step: CellStep, params: PyTree, state: PyTree, inputs: Array) -> Literal["lstm", "gru"] | None:
    """Which rule serves a flax cell; None where the cell has other gates, types or shapes than the rule knows."""
    from flax import linen as nn

    cell = step.cell
    lstm = type(cell) in (nn.LSTMCell, nn.OptimizedLSTMCell)
    if not (lstm or type(cell) is nn.GRUCell) or cell.dtype is not None:
        return None
    if cell.gate_fn is not nn.sigmoid or cell.activation_fn is not nn.tanh:
        return None
    hidden = jax.tree.leaves(state)[-1]
    arrays = jax.tree.leaves((params, state))
    same_type = len({jnp.result_type(x) for x in arrays}) == 1
    same_batch = inputs is not None and len({jnp.shape(x) for x in jax.tree.leaves(state)}) == 1
    if not (same_type and same_batch and jnp.shape(inputs)[1:-1] == jnp.shape(hidden)[:-1]):
        return None
    return ("lstm" if lstm else "gru") if jnp.result_type(hidden, inputs) == jnp.result_type(hidden) else None


def gated_unroll(kind: Literal["lstm", "gru"], params: PyTree, state: PyTree, inputs: Array) -> PyTree:
    """All states of a flax LSTM `(c, h)` or GRU `h`, each `[time, *batch, hidden]`."""
    gates = LSTM_GATES if kind == "lstm" else GRU_GATES
    w_in, w = (jnp.concatenate([params[side + g]["kernel"] for g in gates], axis=-1) for side in "ih")
    # flax keeps the LSTM's biases on the recurrent side, the GRU's on the inputs', and one more for its new gate.
    bias = jnp.concatenate([params[("h" if kind == "lstm" else "i") + g]["bias"] for g in gates])
    last = jax.tree.leaves(state)[-1]
    inputs = inputs.astype(last.dtype)
    rows = last.size // last.shape[-1] if last.size else 1
    length = block_length(
        inputs.shape[0],
        rows,
        w.shape[-1],
        last.dtype.itemsize,
        whole_bytes=WHOLE_SEQUENCE_BYTES,
        block_rows=BLOCK_ROWS,
    )

    def block(state, u):
        if kind == "lstm":
            states = lstm_states(w, w_in, bias, u, *state)
        else:
            states = gru_states(w, params["hn"]["bias"], u @ w_in + bias, state)
        return jax.tree.map(lambda x: x[-1], states) if length < inputs.shape[0] else state, states

    return over_blocks(block, state, inputs, length, num_steps=inputs.shape[0])[1]


@jax.custom_jvp
def lstm_states(w: Array, w_in: Array, bias: Array, inputs: Array, cell: Array, hidden: Array) -> tuple[Array, Array]:
    """Cells and hidden states `[time, *batch, hidden]`; the gates stand in the order input, forget, output, new."""
    return _lstm_scan(w, inputs @ w_in + bias, cell, hidden, keep=False)[0]


def _lstm_scan(w: Array, drive: Array, cell: Array, hidden: Array, keep: bool) -> Any:
    """States, and where `keep` is set the gates and the squashed cell of every step."""

    def step(carry, d):
        c, h = carry
        z = h @ w + d  # [*batch, 4 * hidden]
        size = c.shape[-1]
        # The barrier lets XLA run the three logistic gates as one long vector loop.
        opened = jax.lax.optimization_barrier(jax.nn.sigmoid(z[..., : 3 * size]))
        i, f, o = jnp.split(opened, 3, axis=-1)
        g = jnp.tanh(z[..., 3 * size :])
        c = f * c + i * g
        squashed = jnp.tanh(c)
        h = o * squashed
        return (c, h), ((c, h), (i, f, o, g, squashed) if keep else None)

    return jax.lax.scan(step, (cell, hidden), drive)[1]


def _lstm_jvp(primals, tangents):
    w, w_in, bias, inputs, cell, hidden = primals
    d_w, d_w_in, d_bias, d_inputs, d_cell, d_hidden = tangents
    drive = inputs @ w_in + bias  # [time, *batch, 4 * hidden]
    (cells, hiddens), gates = _lstm_scan(w, drive, cell, hidden, keep=True)
    changes = [] if is_zero(d_inputs) else [d_inputs @ w_in]
    if not (is_zero(d_w) and is_zero(d_w_in) and is_zero(d_bias)):
        # One product serves the gradients of all three: few inputs alone would make a thin, slow one.
        ones = jnp.ones((*inputs.shape[:-1], 1), inputs.dtype)
        seen = jnp.concatenate([states_before(hidden, hiddens), inputs, ones], axis=-1)
        d_weights = jnp.concatenate([materialise(d_w), materialise(d_w_in), materialise(d_bias)[None]])
        changes.append(seen @ d_weights)
    change = total(changes, drive.shape, drive.dtype)
    residuals = (*gates, states_before(cell, cells), w, w.T)
    linear = (change, materialise(d_cell), materialise(d_hidden))
    return (cells, hiddens), linear_map(_lstm_tangent, _lstm_transpose, residuals, linear)


lstm_states.defjvp(_lstm_jvp, symbolic_zeros=True)


def _lstm_tangent(residuals, linear):
    *stored, w, _ = residuals

    def step(carry, x):
        d_c, d_h = carry
        (i, f, o, g, squashed, c), change = x
        d_i, d_f, d_o, d_g = jnp.split(d_h @ w + change, 4, axis=-1)
        d_c = f * d_c + c * f * (1 - f) * d_f + i * (1 - g * g) * d_g + g * i * (1 - i) * d_i
        d_h = o * (1 - squashed * squashed) * d_c + squashed * o * (1 - o) * d_o
        return (d_c, d_h), (d_c, d_h)

    change, d_cell, d_hidden = linear
    return jax.lax.scan(step, (d_cell, d_hidden), (tuple(stored), change))[1]


def _lstm_transpose(residuals, cotangent):
    *stored, _, w_t = residuals

    def step(carry, x):
        back_c, back_h = carry  # dE/dc_t and dE/dh_t by way of later steps
        (i, f, o, g, squashed, c), (g_c, g_h) = x
        back_h = back_h + g_h
        back_c = back_c + g_c + back_h * o * (1 - squashed * squashed)
        parts = (
            back_c * g * i * (1 - i),
            back_c * c * f * (1 - f),
            back_h * squashed * o * (1 - o),
            back_c * i * (1 - g * g),
        )
        delta = jnp.concatenate(parts, axis=-1)  # [*batch, 4 * hidden]
        return (back_c * f, delta @ w_t), delta

    zeros = jnp.zeros_like(stored[0][0])
    (back_c, back_h), delta = jax.lax.scan(step, (zeros, zeros), (tuple(stored), cotangent), reverse=True)
    return delta, back_c, back_h


@jax.custom_jvp
def gru_states(w: Array, bias: Array, drive: Array, hidden: Array) -> Array:
    """Hidden states `[time, *batch, hidden]`; the gates stand in the order reset, update, new.

    `bias` `[hidden]` is added to the new gate's recurrent part, which the reset gate multiplies.
    """
    return _gru_scan(w, bias, drive, hidden, keep=False)[0]


def _gru_scan(w: Array, bias: Array, drive: Array, hidden: Array, keep: bool) -> Any:
    """States, and where `keep` is set the gates and the new gate's recurrent part at every step."""

    def step(h, d):
        size = h.shape[-1]
        a = h @ w  # [*batch, 3 * hidden]
        opened = jax.lax.optimization_barrier(jax.nn.sigmoid(a[..., : 2 * size] + d[..., : 2 * size]))
        r, z = jnp.split(opened, 2, axis=-1)
        q = a[..., 2 * size :] + bias
        n = jnp.tanh(d[..., 2 * size :] + r * q)
        h = n + z * (h - n)
        return h, (h, (r, z, q, n) if keep else None)

    return jax.lax.scan(step, hidden, drive)[1]


def _gru_jvp(primals, tangents):
    w, bias, drive, hidden = primals
    d_w, d_bias, d_drive, d_hidden = tangents
    hiddens, gates = _gru_scan(w, bias, drive, hidden, keep=True)
    before = states_before(hidden, hiddens)
    of_weights = d_w if is_zero(d_w) else before @ d_w
    of_bias = d_bias if is_zero(d_bias) else jnp.pad(d_bias, (2 * hidden.shape[-1], 0))
    recurrent = total([of_bias, of_weights], drive.shape, drive.dtype)
    residuals = (*gates, before, w, w.T)
    linear = (recurrent, materialise(d_drive), materialise(d_hidden))
    return hiddens, linear_map(_gru_tangent, _gru_transpose, residuals, linear)


gru_states.defjvp(_gru_jvp, symbolic_zeros=True)


def _gru_tangent(residuals, linear):
    *stored, w, _ = residuals

    def step(d_h, x):
        (r, z, q, n, h), recurrent, outer = x
        a_r, a_z, d_q = jnp.split(d_h @ w + recurrent, 3, axis=-1)
        e_r, e_z, e_n = jnp.split(outer, 3, axis=-1)
        d_n = (1 - n * n) * (e_n + r * d_q + q * r * (1 - r) * (a_r + e_r))
        d_h = (1 - z) * d_n + (h - n) * z * (1 - z) * (a_z + e_z) + z * d_h
        return d_h, d_h

    recurrent, d_drive, d_hidden = linear
    return jax.lax.scan(step, d_hidden, (tuple(stored), recurrent, d_drive))[1]


def _gru_transpose(residuals, cotangent):
    *stored, _, w_t = residuals

    def step(back, x):
        (r, z, q, n, h), g = x
        back = back + g
        delta_n = back * (1 - z) * (1 - n * n)
        delta_r, delta_z = delta_n * q * r * (1 - r), back * (h - n) * z * (1 - z)
        delta = jnp.concatenate([delta_r, delta_z, delta_n * r], axis=-1)  # [*batch, 3 * hidden]
        return back * z + delta @ w_t, (delta, delta_n)

    back, (delta, delta_n) = jax.lax.scan(step, jnp.zeros_like(stored[0][0]), (tuple(stored), cotangent), reverse=True)
    of_drive = jnp.concatenate([delta[..., : 2 * back.shape[-1]], delta_n], axis=-1)
    return delta, of_drive, back
