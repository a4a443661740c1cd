"""Echo state training: a fixed random network, and a read-out by ridge regression. Memory capacity of such networks.

The recurrent weights stay as they were drawn; the network is only given the right spectral radius. Nothing is
backpropagated, so nothing explodes or vanishes in training; what is left is how much of the past the states hold.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, DTypeLike, Float, Key

from cliffs.recurrent import ReadoutParams, RNNParams, scale_to_spectral_radius


def echo_state_params(
    key: Key[Array, ""],
    features: int,
    hidden: int,
    *,
    spectral_radius: float | Array = 0.9,
    input_scale: float | Array = 1.0,
    density: float = 1.0,
    dtype: DTypeLike = jnp.float32,
) -> RNNParams:
    """A fixed reservoir: Gaussian recurrent weights at a given spectral radius, inputs `U[-1, 1] input_scale`.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `features`, `hidden`: number of inputs and of units.
    - `spectral_radius`, `input_scale`: non-negative; may be traced, so that a sweep can run over them.
    - `density`: share of the recurrent weights that are not 0.
    - `dtype`: of the weights.

    **Returns** `RNNParams` without bias, for a step of `rnn_step`.

    **Raises** `ValueError` for sizes below 1, a density outside of (0, 1], or a negative spectral radius.

    Source: Jaeger (2001), The "echo state" approach to analysing and training recurrent neural networks.

    >>> params = echo_state_params(jax.random.key(0), 1, 20, spectral_radius=0.8)
    >>> float(jnp.abs(jnp.linalg.eigvals(params.w_rec)).max().round(3))
    0.8...
    """
    for name, size in (("features", features), ("hidden", hidden)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, got {density}")
    key_rec, key_kept, key_in = jax.random.split(key, 3)
    w_rec = jax.random.normal(key_rec, (hidden, hidden), dtype)
    w_rec = jnp.where(jax.random.bernoulli(key_kept, density, w_rec.shape), w_rec, 0)
    w_in = jax.random.uniform(key_in, (features, hidden), dtype, -1, 1) * input_scale
    return RNNParams(scale_to_spectral_radius(w_rec, spectral_radius), w_in.astype(dtype))


def ridge_readout(
    states: Float[Array | np.ndarray, "time *batch hidden"],
    targets: Float[Array | np.ndarray, "time *batch outputs"],
    *,
    ridge: float | Array = 1e-6,
    bias: bool = True,
) -> ReadoutParams:
    """The read-out that minimises `sum ||states W + b - targets||^2 + ridge ||W||^2` over all steps and sequences.

    By QR of the states with `sqrt(ridge) I` below them, which keeps the digits that normal equations lose. The bias is
    not penalised.

    **Arguments**

    - `states`: `[time, *batch, hidden]`, what the read-out sees; leave the first steps, which still remember the
      initial state, out.
    - `targets`: `[time, *batch, outputs]`.
    - `ridge`: non-negative; may be traced.
    - `bias`: whether to fit b.

    **Returns** `ReadoutParams`.

    **Raises** `ValueError` for a negative ridge or a different number of rows.

    Source: Hoerl & Kennard (1970); Jaeger (2001).

    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> fit = ridge_readout(x, 3 * x + 1, ridge=0.0)
    >>> round(float(fit.w_out[0, 0]), 4), round(float(fit.bias[0]), 4)
    (3.0, 1.0)
    """
    if not isinstance(ridge, Tracer) and not ridge >= 0:
        raise ValueError(f"ridge must be non-negative, got {ridge}")
    if states.shape[:-1] != targets.shape[:-1]:
        wanted = f"({', '.join(map(str, states.shape[:-1]))}, outputs)"
        raise ValueError(f"targets must be {wanted} for states of shape {states.shape}, got {targets.shape}")
    x, y = (jnp.asarray(a).reshape(-1, a.shape[-1]) for a in (states, targets))
    x_mean, y_mean = (a.mean(0) if bias else jnp.zeros(a.shape[1], a.dtype) for a in (x, y))
    below = jnp.sqrt(jnp.asarray(ridge, x.dtype)) * jnp.eye(x.shape[1], dtype=x.dtype)
    q, r = jnp.linalg.qr(jnp.concatenate([x - x_mean, below]))
    right = q[: len(x)].T @ (y - y_mean)
    w_out = jax.scipy.linalg.solve_triangular(r, right)
    return ReadoutParams(w_out, y_mean - x_mean @ w_out if bias else None)


class MemoryCapacity(NamedTuple):
    """How much of its past input a network's state holds."""

    total: Float[Array, ""]
    """The sum over the delays."""
    curve: Float[Array, " delays"]
    """Squared correlation of `u_{t-k}` with the best linear read-out, for k = 0, 1, ..."""


def memory_capacity(
    states: Float[Array, "time hidden"],
    inputs: Float[Array, " time"],
    *,
    max_delay: int,
    ridge: float | Array = 0.0,
) -> MemoryCapacity:
    """`MC = sum_k corr(u_{t-k}, y_k(t))^2` over k = 0 .. max_delay, `y_k` the best linear read-out for that delay.

    Read-outs are fitted on the first half of the steps and judged on the second, so a long list of delays adds no
    spurious capacity.

    **Arguments**

    - `states`: `[time, hidden]`, `states[t]` after `inputs[t]`, the first steps left out. Use float64: states of
      a contracting network are nearly dependent.
    - `inputs`: `[time]`, independent draws.
    - `max_delay`: the largest k. Jaeger sums from k = 1; `curve[1:].sum()` is his number.
    - `ridge`: of the read-outs.

    **Returns** `MemoryCapacity`; at most `hidden` in theory for independent inputs.

    **Raises** `ValueError` for other shapes, and when there are too few steps: each half needs `max_delay` and `hidden`
    more.

    Source: Jaeger (2001), Short term memory in echo state networks.

    >>> inputs = jax.random.normal(jax.random.key(0), (2000,))
    >>> delay_line = jnp.stack([jnp.roll(inputs, k) for k in range(3)], -1)[3:]
    >>> round(float(memory_capacity(delay_line, inputs[3:], max_delay=6).total), 2)
    3.0...
    """
    if states.ndim != 2 or inputs.shape != states.shape[:1]:
        shapes = f"{states.shape} and {inputs.shape}"
        raise ValueError(f"states and inputs must be [time, hidden] and [time], got shapes {shapes}")
    time, hidden = states.shape
    rows = (time - max_delay) // 2
    if max_delay < 0 or rows <= hidden:
        raise ValueError(
            f"max_delay={max_delay} leaves {rows} steps in each half of {time}, more than hidden={hidden} are needed"
        )
    # past[t, k] = u_{t - k}, for t from max_delay on
    past = jnp.stack([inputs[max_delay - k : max_delay - k + 2 * rows] for k in range(max_delay + 1)], -1)
    seen = states[max_delay : max_delay + 2 * rows]
    fitted = ridge_readout(seen[:rows], past[:rows], ridge=ridge)
    answers, wanted = seen[rows:] @ fitted.w_out, past[rows:]
    answers, wanted = answers - answers.mean(0), wanted - wanted.mean(0)
    power = (answers**2).sum(0) * (wanted**2).sum(0)
    curve = jnp.where(power > 0, (answers * wanted).sum(0) ** 2 / jnp.where(power > 0, power, 1), 0)
    return MemoryCapacity(curve.sum(), curve)


def linear_memory_capacity(
    w_rec: Float[Array, "n n"], w_in: Float[Array, " n"], *, max_delay: int, num_doublings: int = 40
) -> MemoryCapacity:
    """The memory capacity of the linear network `x_t = x_{t-1} W + u_t w` for independent inputs, in closed form.

    With `v_k = w W^k` and the covariance `C = sum_k v_k^T v_k`, delay k has `v_k C^-1 v_k^T`; over all k they add up to
    the rank of `[v_0, v_1, ...]`, n for almost every network.

    **Arguments**

    - `w_rec`: `[n, n]`, spectral radius below 1.
    - `w_in`: `[n]`.
    - `max_delay`: the largest k.
    - `num_doublings`: C is summed over `2^num_doublings` delays.

    **Returns** `MemoryCapacity`. Where C is singular to rounding, NaN or numbers without digits: use float64, and a
    network of modest size.

    **Raises** `ValueError` for input weights of another shape.

    Source: Jaeger (2001), Short term memory in echo state networks, proposition 2; Ganguli, Huh & Sompolinsky (2008).

    >>> ring = 0.5 * jnp.roll(jnp.eye(2), 1, 1)
    >>> capacity = linear_memory_capacity(ring, jnp.array([1.0, 0.0]), max_delay=3)
    >>> [f"{c:.4f}" for c in capacity.curve.tolist()]  # (1 - r^4) r^(4 floor(k / 2))
    ['0.9375', '0.9375', '0.0586', '0.0586']
    """
    if jnp.shape(w_in) != jnp.shape(w_rec)[:1]:
        raise ValueError(f"w_in must be [n] for w_rec of shape {jnp.shape(w_rec)}, got shape {jnp.shape(w_in)}")

    def double(carry, _):
        covariance, power = carry
        return (covariance + power.T @ covariance @ power, power @ power), None

    (covariance, _), _ = jax.lax.scan(double, (jnp.outer(w_in, w_in), w_rec), length=num_doublings)
    _, directions = jax.lax.scan(lambda v, _: (v @ w_rec, v), w_in, length=max_delay + 1)
    curve = (directions * jnp.linalg.solve(covariance, directions.T).T).sum(-1)
    return MemoryCapacity(curve.sum(), curve)
