"""Lyapunov exponents by the QR method, for autonomous and input-driven steps, differentiable.

What is not regular has a defined outcome:

- A singular Jacobian annihilates a direction: that exponent is -inf, the others are right, and the gradient of the
  finite ones is right. When a Jacobian is singular only up to rounding, QR finds noise of the size of the dtype's eps
  in the place of the zero: a large negative number, which means "at most log(eps) at such a step", not a rate.
- A trajectory that leaves to infinity gives NaN in all its exponents.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs._flatten import flatten_step, num_inputs
from cliffs.spectra._scaled_products import generic_frame, safe_log, unit_rows
from cliffs.typing import Step


def lyapunov_exponents(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    num_steps: int | None = None,
    num_exponents: int | None = None,
    warmup: int = 0,
    interval: int = 1,
) -> Float[Array, " k"]:
    """The k leading Lyapunov exponents `lim 1/T log |growth of k-volumes|`, largest first, in nats per step.

    Tangent vectors are pushed through the step by forward mode and re-orthonormalised by QR every `interval` steps;
    the logarithms of R's diagonal add up. The initial frame is a fixed random one: a unit vector may span a contracting
    direction that it never leaves. It takes some steps (`warmup`) to turn into the leading directions. In between the
    vectors keep length 1, so nothing overflows, but they turn towards the leading one: `interval * (l_1 - l_k)` must
    stay well below `-log(eps)`, 36 in float64 and 16 in float32, or the trailing exponents drown in rounding.

    **Arguments**

    - `step`, `params`, `initial_state`: the map and where it starts; the state may be a pytree.
    - `inputs`: `[time, ...]` for a driven step; None for an autonomous one, with `num_steps`.
    - `num_steps`: steps that count, a multiple of `interval`; with inputs, time minus `warmup` by default.
    - `num_exponents`: k; all n by default.
    - `warmup`: steps before those, on which the frame turns but nothing is counted.
    - `interval`: steps between re-orthonormalisations.

    **Returns** `[k]`, the finite-time exponents of this trajectory, those of the QR's directions one after the other:
    near ones may still be out of order where the steps are few. `vmap` over states gives their distribution
    (`lyapunov_distribution`), `grad` goes through (`gradient_flossing`). For singular Jacobians and unbounded
    trajectories see the module's text.

    **Raises** `ValueError` for a missing or unsuitable number of steps, exponents or interval, or a step that does
    not map the state to one of the same shape.

    Source: Benettin et al. (1980); Engelken (2023), Gradient flossing.

    >>> from cliffs.recurrent import linear_step
    >>> a = jnp.diag(jnp.array([2.0, 0.5]))
    >>> exponents = lyapunov_exponents(linear_step, a, jnp.zeros(2), num_steps=50, warmup=50)
    >>> bool(jnp.allclose(exponents, jnp.log(jnp.array([2.0, 0.5]))))
    True
    """
    logs = _block_logs(step, params, initial_state, inputs, num_steps, num_exponents, warmup, interval)
    return logs.mean(0) / interval


def _block_logs(step, params, initial_state, inputs, num_steps, num_exponents, warmup, interval):
    """`[blocks, k]`: the logarithm of each direction's growth over every block of `interval` counted steps."""
    flat, x, _ = flatten_step(step, params, initial_state, inputs)
    n = x.shape[0]
    k = n if num_exponents is None else num_exponents
    given = num_inputs(inputs)
    available = None if given is None else given - warmup
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
        x, vectors, logs = carry  # tangent vectors as rows
        x, linear = jax.linearize(lambda x: flat(params, x, u), x)
        vectors = jax.vmap(linear)(vectors)
        if interval > 1:
            term, vectors = unit_rows(vectors)
            logs = logs + term
        return (x, vectors, logs), None

    def block(carry, u):
        x, vectors = carry
        zero = jnp.zeros(k, x.dtype)
        (x, vectors, logs), _ = jax.lax.scan(push, (x, vectors, zero), u, length=interval)
        vectors, diagonal = _orthonormalise(vectors)
        return (x, vectors), jnp.where(jnp.isfinite(x).all(), logs + diagonal, jnp.nan)

    blocks = (warmup + count) // interval
    if given is not None:
        inputs = jax.tree.map(lambda u: u[: blocks * interval].reshape(blocks, interval, *u.shape[1:]), inputs)
    _, logs = jax.lax.scan(block, (x, generic_frame(n, k, x.dtype).T), inputs if given else None, length=blocks)
    return logs[warmup // interval :]


@jax.custom_jvp
def _orthonormalise(vectors: Float[Array, "k n"]) -> tuple[Float[Array, "k n"], Float[Array, " k"]]:
    """`(orthonormal rows, log |diagonal of R|)` of the QR decomposition of the transpose."""
    q, r = jnp.linalg.qr(vectors.T)
    return q.T, safe_log(jnp.abs(jnp.diagonal(r)))


@_orthonormalise.defjvp
def _orthonormalise_jvp(primals, tangents):
    # As jnp.linalg.qr's rule, but a zero on R's diagonal leaves the directions before it right and all finite.
    (vectors,), (change,) = primals, tangents
    q, r = jnp.linalg.qr(vectors.T)
    diagonal = jnp.diagonal(r)
    dead = diagonal == 0
    r = r + jnp.diag(jnp.where(dead, 1, 0).astype(r.dtype))
    change = jnp.where(dead[:, None], 0, change)
    relative = jax.lax.linalg.triangular_solve(r, change.T, left_side=False, lower=False)
    inner = q.T @ relative
    lower = jnp.tril(inner, -1)
    turn = q @ (lower - lower.T - inner) + relative
    turn = jnp.where(dead[None, :], 0, turn)
    return (q.T, safe_log(jnp.abs(diagonal))), (turn.T, jnp.where(dead, 0, jnp.diagonal(inner)))


class LyapunovDistribution(NamedTuple):
    """Finite-time exponents of many trajectories."""

    exponents: Float[Array, "runs windows k"]
    """Of every run and every window of its trajectory."""
    mean: Float[Array, " k"]
    """Over runs and windows."""
    standard_deviation: Float[Array, " k"]
    """Over runs and windows; NaN where some sample is -inf."""
    quantiles: Float[Array, "5 k"]
    """At 5, 25, 50, 75 and 95 %, nearest rank."""


def lyapunov_distribution(
    step: Step,
    params: PyTree,
    initial_states: PyTree,
    inputs: PyTree = None,
    *,
    window: int | None = None,
    params_axis: int | None = None,
    inputs_axis: int | None = None,
    num_steps: int | None = None,
    num_exponents: int | None = None,
    warmup: int = 0,
    interval: int = 1,
) -> LyapunovDistribution:
    """The distribution of finite-time Lyapunov exponents over initial states, seeds and windows of time.

    **Arguments**

    - `step`, `params`, `initial_states`: the map; the states with a leading run axis, `[runs, ...]`.
    - `inputs`: `[time, ...]` shared by all runs, or `[runs, time, ...]` with `inputs_axis=0`; None for an autonomous
      map.
    - `window`: steps of one sample, a divisor of `num_steps` and a multiple of `interval`; the whole run by default.
    - `params_axis`: 0 when `params` has a leading run axis (one network per seed), None when they are shared.
    - the others: see `lyapunov_exponents`.

    **Returns** a `LyapunovDistribution`. Samples of one run are not independent. A run that leaves to infinity makes
    the summary NaN; its exponents show which.

    **Raises** `ValueError` as `lyapunov_exponents`, and for a window that does not divide the steps.

    Source: Grassberger, Badii & Politi (1988), on finite-time exponents.

    >>> from cliffs.recurrent import HenonParams, henon_step
    >>> starts = 0.1 * jax.random.normal(jax.random.key(0), (8, 2))
    >>> d = lyapunov_distribution(henon_step, HenonParams(), starts, num_steps=100, window=50, warmup=50)
    >>> d.exponents.shape, d.quantiles.shape
    ((8, 2, 2), (5, 2))
    """

    def one(params, state, inputs):
        return _block_logs(step, params, state, inputs, num_steps, num_exponents, warmup, interval)

    driven = bool(jax.tree.leaves(inputs))
    axes = (params_axis, 0, inputs_axis if driven else None)
    logs = jax.vmap(one, in_axes=axes)(params, initial_states, inputs)  # [runs, blocks, k]
    runs, blocks, k = logs.shape
    window = blocks * interval if window is None else window
    if window < 1 or window % interval or (blocks * interval) % window:
        raise ValueError(
            f"window must be a multiple of interval ({interval}) and divide num_steps ({blocks * interval}), "
            f"got {window}"
        )
    exponents = logs.reshape(runs, -1, window // interval, k).sum(2) / window
    samples = exponents.reshape(-1, k)
    # -inf - (-inf) would be NaN: a direction that is lost in some sample has no spread.
    lost = jnp.any(samples == -jnp.inf, axis=0)
    spread = jnp.where(lost, jnp.nan, jnp.std(jnp.where(lost, 0, samples), axis=0))
    levels = jnp.array([0.05, 0.25, 0.5, 0.75, 0.95], samples.dtype)
    # Interpolation between -inf and a number would be NaN: nearest rank.
    quantiles = jnp.quantile(samples, levels, axis=0, method="nearest")
    return LyapunovDistribution(exponents, samples.mean(0), spread, quantiles)


def gradient_flossing(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    num_exponents: int,
    target: float = 0.0,
    num_steps: int | None = None,
    warmup: int = 0,
    interval: int = 1,
) -> Float[Array, ""]:
    """The penalty `sum_i (l_i - target)^2` over the k leading finite-time exponents of one trajectory.

    At `target=0` the k directions are pushed to neither grow nor shrink, which keeps gradients alive through long
    products. Differentiable in `params`, `initial_state` and real `inputs`; average over a batch by `vmap`. Directions
    with exponent -inf (a singular Jacobian) add nothing: no gradient leads back from them.

    **Arguments**: `num_exponents` is k; `target` in nats per step; the others as in `lyapunov_exponents`.

    **Returns** a scalar.

    **Raises** `ValueError` as `lyapunov_exponents`.

    Source: Engelken (NeurIPS 2023), Gradient flossing: improving gradient descent through dynamic control of
    Jacobians; the sum, not the mean, over the k exponents.

    >>> from cliffs.recurrent import linear_step
    >>> penalty = gradient_flossing(linear_step, 2 * jnp.eye(2), jnp.zeros(2), num_exponents=2, num_steps=10)
    >>> bool(jnp.isclose(penalty, 2 * jnp.log(2.0) ** 2))
    True
    """
    exponents = lyapunov_exponents(
        step,
        params,
        initial_state,
        inputs,
        num_steps=num_steps,
        num_exponents=num_exponents,
        warmup=warmup,
        interval=interval,
    )
    lost = exponents == -jnp.inf
    return jnp.sum(jnp.where(lost, 0, jnp.where(lost, 0, exponents) - target) ** 2)


def kaplan_yorke_dimension(exponents: Float[Array, " k"]) -> Float[Array, ""]:
    """`j + (l_1 + ... + l_j) / |l_{j+1}|` with j the largest number of leading exponents with a sum >= 0.

    **Arguments**: `exponents` `[k]`, the whole spectrum in nats per step, in any order.

    **Returns** a scalar: 0 when the largest is negative, k when all sums are non-negative (of a part of the spectrum
    a lower bound), j when the next exponent is -inf, NaN when one of them is NaN.

    Source: Kaplan & Yorke (1979).

    >>> round(float(kaplan_yorke_dimension(jnp.array([0.41922, -1.62319]))), 4)
    1.2583
    """
    exponents = jnp.sort(exponents, descending=True)
    sums = jnp.cumsum(exponents)
    j = jnp.sum(jnp.cumprod(sums >= 0))
    inside = jnp.where(j > 0, sums[jnp.maximum(j - 1, 0)], 0.0)
    following = jnp.abs(exponents[jnp.minimum(j, len(exponents) - 1)])
    share = jnp.where(j < len(exponents), inside / jnp.where(following > 0, following, 1), 0.0)
    return jnp.where(jnp.isnan(exponents).any(), jnp.nan, j + share)
