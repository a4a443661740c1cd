"""The vanilla network as one kernel: the recurrent matrix stays on the chip for the whole loop, forward and backward.

A scan reads the recurrent matrix from memory at every step. This Pallas kernel loads it once, walks through time with
the state in registers, and writes the states (backward: the deltas); the weight gradients follow as one product over
all steps. It is written for one network; `jax.vmap` makes it one program per network, side by side on the chip.

No accelerator was at hand when this was written: it is tested in Pallas' interpret mode against the scan, it has not
been timed, and `unroll` takes it only when asked (`method="persistent"`).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cliffs.recurrent._fast_unroll import ACTIVATIONS, SLOPES
from cliffs.recurrent._linear_map import linear_map
from cliffs.recurrent._tangents import states_before

LARGEST = 256
SMALLEST = 16  # a tile of a matrix unit


class KernelCost(NamedTuple):
    """Operations and memory traffic of one pass of the kernel."""

    flops: int
    """Multiplications and additions of the products, and a few for the activation."""
    bytes: int
    """Read from and written to the chip's memory."""


def persistent_cost(time: int, batch: int, hidden: int, itemsize: int = 4) -> dict[str, KernelCost]:
    """FLOPs and bytes of the forward and the backward kernel for one network, and the bytes of a scan beside them.

    **Arguments**: steps, sequences, units, bytes per number.

    **Returns** `{"forward", "backward", "forward_scan"}`, each a `KernelCost`; the scan reads the matrix at each step.

    >>> cost = persistent_cost(100, 20, 50)
    >>> cost["forward"].flops, cost["forward"].bytes < cost["forward_scan"].bytes
    (10100000, True)
    """
    states, matrix, one = time * batch * hidden, hidden * hidden, batch * hidden
    product = 2 * states * hidden
    return {
        "forward": KernelCost(product + states, itemsize * (matrix + 2 * states + one)),
        "backward": KernelCost(product + 4 * states, itemsize * (matrix + 3 * states + one)),
        "forward_scan": KernelCost(product + states, itemsize * (time * matrix + 2 * states + 2 * time * one)),
    }


def persistent_states(
    activation: str,
    w: Float[Array, "hidden hidden"],
    drive: Float[Array, "time batch hidden"],
    start: Float[Array, "batch hidden"],
    *,
    interpret: bool | None = None,
) -> Float[Array, "time batch hidden"]:
    """States of `h_t = act(h_{t-1} w + drive_t)` by the kernel.

    First derivatives in forward and reverse mode, under `vmap`; second derivatives are refused by Pallas.

    **Arguments**

    - `activation`: a name of `cliffs.recurrent.ACTIVATIONS`.
    - `w`: the recurrent matrix, at most 256 units. At 256 units float32 it is 256 KB, more than one multiprocessor of
      today's GPUs holds; bfloat16 fits.
    - `drive`: `u_t W_in + b`, time first.
    - `start`: `h_0`.
    - `interpret`: run the kernel as ordinary JAX operations; None is True where the default device is a CPU.

    **Returns** `[time, batch, hidden]`.

    **Raises** `ValueError` for another activation or more units.

    >>> persistent_states("tanh", jnp.eye(3), jnp.zeros((5, 2, 3)), jnp.ones((2, 3))).shape
    (5, 2, 3)
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
    hidden = w.shape[0]
    if hidden > LARGEST:
        raise ValueError(f"w must have at most {LARGEST} units to stay on the chip, got {hidden}")
    if interpret is None:
        interpret = jax.default_backend() == "cpu"
    # Tiles have sides that are powers of two. Rows and columns of zeros in `w` keep the rest to itself.
    batch, wide, rows = start.shape[0], _padded(hidden), _padded(start.shape[0])
    w = jnp.pad(w, ((0, wide - hidden),) * 2)
    drive = jnp.pad(drive, ((0, 0), (0, rows - batch), (0, wide - hidden)))
    start = jnp.pad(start, ((0, rows - batch), (0, wide - hidden)))
    return _states(activation, interpret, w, drive, start)[:, :batch, :hidden]


def _padded(size: int) -> int:
    return max(SMALLEST, 1 << (size - 1).bit_length())


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _states(activation: str, interpret: bool, w: Array, drive: Array, start: Array) -> Array:
    return _call(partial(_forward, activation), "forward", interpret, drive, w, (drive,), start)[0]


@_states.defjvp
def _states_jvp(activation, interpret, primals, tangents):
    w, drive, start = primals
    d_w, d_drive, d_start = tangents
    states = _states(activation, interpret, w, drive, start)
    change = d_drive + states_before(start, states) @ d_w
    slopes = SLOPES[activation](states)

    def tangent(residuals, linear):
        (w, _, slopes), (change, d_start) = residuals, linear

        def step(d_h, x):
            slope, d_drive = x
            d_h = slope * (d_h @ w + d_drive)
            return d_h, d_h

        return jax.lax.scan(step, d_start, (slopes, change))[1]

    def transpose(residuals, cotangent):
        _, w_t, slopes = residuals
        zeros = jnp.zeros_like(cotangent[0])
        delta, back = _call(_backward, "backward", interpret, cotangent, w_t, (slopes, cotangent), zeros)
        return delta, back

    return states, linear_map(tangent, transpose, (w, w.T, slopes), (change, d_start))


def _call(kernel: Any, which: str, interpret: bool, like: Array, w: Array, sequences: tuple, start: Array) -> Any:
    """Run `kernel(w, *sequences, start) -> (sequence, last)`; whole arrays are handed over, in the chip's memory."""
    from jax.experimental import pallas as pl

    time, batch, hidden = like.shape
    cost = persistent_cost(time, batch, hidden, like.dtype.itemsize)[which]
    estimate = pl.CostEstimate(flops=cost.flops, bytes_accessed=cost.bytes, transcendentals=like.size)
    shapes = [jax.ShapeDtypeStruct(like.shape, like.dtype), jax.ShapeDtypeStruct(start.shape, start.dtype)]
    return pl.pallas_call(kernel, out_shape=shapes, cost_estimate=estimate, interpret=interpret)(w, *sequences, start)


def _forward(activation: str, w_ref, drive_ref, start_ref, states_ref, last_ref) -> None:
    w = w_ref[...]  # loaded once
    act = ACTIVATIONS[activation]

    def step(t, h):
        h = act(_dot(h, w) + drive_ref[t]).astype(h.dtype)
        states_ref[t] = h
        return h

    last_ref[...] = jax.lax.fori_loop(0, drive_ref.shape[0], step, start_ref[...])


def _backward(w_t_ref, slopes_ref, cotangent_ref, zeros_ref, delta_ref, back_ref) -> None:
    w_t = w_t_ref[...]
    length = slopes_ref.shape[0]

    def step(k, back):
        t = length - 1 - k
        delta = (slopes_ref[t] * (back + cotangent_ref[t])).astype(back.dtype)
        delta_ref[t] = delta
        return _dot(delta, w_t).astype(back.dtype)

    back_ref[...] = jax.lax.fori_loop(0, length, step, zeros_ref[...])


def _dot(x: Array, w: Array) -> Array:
    at_least_float32 = jnp.promote_types(x.dtype, "float32")
    return jnp.dot(x, w, precision=jax.lax.Precision.HIGHEST, preferred_element_type=at_least_float32)
