"""Lyapunov exponents by the QR method, for autonomous and input-driven steps, differentiable."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.rnn import Step


def lyapunov_exponents(
    step: Step,
    params: PyTree,
    initial_state: Float[Array, " n"],
    inputs: PyTree = None,
    *,
    num_steps: int | None = None,
    num_exponents: int | None = None,
    warmup: int = 0,
    interval: int = 1,
) -> Float[Array, " k"]:
    """The k leading Lyapunov exponents `lim 1/T log |growth of k-volumes|`, largest first, in nats per step.

    Tangent vectors are pushed through the step by forward mode and re-orthonormalised by QR every `interval` steps;
    the logarithms of R's diagonal add up. The initial frame is the first k unit vectors.

    **Arguments**

    - `step`, `params`, `initial_state`: the map and where it starts.
    - `inputs`: `[time, ...]` for a driven step; None for an autonomous one, with `num_steps`.
    - `num_steps`: steps that count, a multiple of `interval`; with inputs, time minus `warmup` by default.
    - `num_exponents`: k; all n by default.
    - `warmup`: steps before those, on which the frame turns but nothing is counted.
    - `interval`: steps between re-orthonormalisations; the frame must not collapse within it.

    **Returns** `[k]`, the finite-time exponents of this trajectory. `vmap` over states gives their distribution, `grad`
    goes through (Engelken 2023 uses that as a penalty).

    **Raises** `ValueError` for a missing or unsuitable number of steps, exponents or interval.

    Source: Benettin et al. (1980); Engelken (2023), Gradient flossing.

    >>> from cliffs.maps import linear_step
    >>> a = jnp.diag(jnp.array([2.0, 0.5]))
    >>> exponents = lyapunov_exponents(linear_step, a, jnp.zeros(2), num_steps=50)
    >>> bool(jnp.allclose(exponents, jnp.log(jnp.array([2.0, 0.5]))))
    True
    """
    n = initial_state.shape[0]
    k = n if num_exponents is None else num_exponents
    driven = bool(jax.tree.leaves(inputs))
    available = jax.tree.leaves(inputs)[0].shape[0] - warmup if driven else None
    count = available if num_steps is None else num_steps
    if count is None:
        raise ValueError("num_steps is needed for an autonomous map (inputs is None)")
    if not 1 <= k <= n:
        raise ValueError(f"num_exponents must be between 1 and {n}, got {k}")
    if interval < 1 or count < 1 or count % interval or warmup < 0 or warmup % interval:
        raise ValueError(
            f"num_steps and warmup must be multiples of interval, got num_steps={count}, warmup={warmup}, "
            f"interval={interval}"
        )
    if available is not None and count > available:
        raise ValueError(f"num_steps={count} and warmup={warmup} exceed the inputs' {available + warmup} steps")

    def push(carry, u):
        state, frame = carry

        def at(x):
            return step(params, x, u)

        new, linear = jax.linearize(at, state)
        return (new, jax.vmap(linear, in_axes=1, out_axes=1)(frame)), None

    def block(carry, u):
        state, frame = carry
        (state, frame), _ = jax.lax.scan(push, (state, frame), u, length=interval)
        frame, r = jnp.linalg.qr(frame)
        return (state, frame), jnp.log(jnp.abs(jnp.diagonal(r)))

    blocks = (warmup + count) // interval
    if driven:
        inputs = jax.tree.map(lambda u: u[: blocks * interval].reshape(blocks, interval, *u.shape[1:]), inputs)
    start = (initial_state, jnp.eye(n, k, dtype=initial_state.dtype))
    _, logs = jax.lax.scan(block, start, inputs, length=blocks)
    return logs[warmup // interval :].sum(0) / count


def kaplan_yorke_dimension(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    """`j + (l_1 + ... + l_j) / |l_{j+1}|` with j the largest number of leading exponents with a sum >= 0.

    **Arguments**: `exponents` `[k]`, the whole spectrum, largest first.

    **Returns** a scalar: 0 when the first is negative, k when all sums are non-negative.

    Source: Kaplan & Yorke (1979).

    >>> round(float(kaplan_yorke_dimension(jnp.array([0.41922, -1.62319]))), 4)
    1.2583
    """
    sums = jnp.cumsum(exponents)
    j = jnp.sum(jnp.cumprod(sums >= 0))
    inside = jnp.where(j > 0, sums[jnp.maximum(j - 1, 0)], 0.0)
    following = jnp.abs(exponents[jnp.minimum(j, len(exponents) - 1)])
    share = jnp.where(j < len(exponents), inside / jnp.where(following > 0, following, 1), 0.0)
    return j + share
