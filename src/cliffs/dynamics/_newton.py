"""Damped Newton for `F^p(x) = x`, vectors only, compiled once for each step: for fixed points, and for all cycles."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from cliffs._precision import spacing
from cliffs.dynamics._units import wrapped
from cliffs.typing import Step

_PATIENCE = 12
"""Rejected steps in a row, each with more damping, after which a lane has come to rest."""


def iterate(
    step: Step, params: PyTree, inputs: PyTree = None, period: int | Int[Array, ""] = 1
) -> Callable[[PyTree], PyTree]:
    """The map `x -> F^period(x)` of a step, its input held fixed; of a traced period only forward derivatives.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> float(iterate(one_unit_step, OneUnitParams(0.0, 1.5), period=2)(jnp.asarray(0.0)))
    1.5
    """

    def once(state, _):
        return step(params, state, inputs), None

    if not isinstance(period, int):
        return lambda state: jax.lax.fori_loop(0, period, lambda _, x: step(params, x, inputs), state)
    return lambda state: jax.lax.scan(once, state, length=period)[0]


def displacement(
    step: Step, params: PyTree, inputs: PyTree, period: int | Int[Array, ""], angle: Float[Array, " n"]
) -> Callable[[Float[Array, " n"]], Float[Array, " n"]]:
    """`x -> F^period(x) - x`, with angles brought to half a period either way; its zeros are the cycles.

    >>> turn = displacement(lambda p, x, u: x + 6, None, None, 1, jnp.array([6.0]))
    >>> turn(jnp.array([1.0])).tolist()
    [0.0]
    """
    apply = iterate(step, params, inputs, period)
    return lambda x: wrapped(apply(x) - x, angle)


def newton(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: PyTree,
    angle: Float[Array, " n"] | Float[np.ndarray, " n"],
    max_iterations: int | Int[Array, ""],
    *,
    period: int,
) -> tuple[Float[Array, "starts n"], Float[Array, "starts n"], Int[Array, " starts"]]:
    """`(points, residuals F^p(x) - x, steps that lowered them)`, as of `solve_fixed_points`.

    The number of iterations is traced: one program serves the first pass, the late starts and the polish. So is the
    period, but for fixed points, which need no loop.
    """
    cycle = None if period == 1 else jnp.asarray(period, jnp.int32)
    return _newton(step, params, starts, inputs, angle, jnp.asarray(max_iterations, jnp.int32), cycle)


@functools.partial(jax.jit, static_argnums=0)
def _newton(step, params, starts, inputs, angle, max_iterations, cycle):
    period = 1 if cycle is None else cycle
    residual = displacement(step, params, inputs, period, angle)
    jacobian = jax.jacfwd(residual)
    eps = spacing(starts.dtype)
    eye = jnp.eye(starts.shape[-1], dtype=starts.dtype)

    def body(carry):
        x, r, damping, count, rejected, left = carry
        j = jacobian(x)  # [n, n]
        scale = jnp.maximum(jnp.sum(j * j) / j.shape[0], 1e-30)
        # Plain Newton when the damping is spent: normal equations square the condition number.
        levenberg = jnp.linalg.solve(j.T @ j + (damping + eps**2) * scale * eye, -(j.T @ r))
        newton = jnp.linalg.solve(j, -r)
        dx = jnp.where((damping < 1e-6) & jnp.all(jnp.isfinite(newton)), newton, levenberg)
        x_new = x + dx
        r_new = residual(x_new)
        norm, norm_new = jnp.sum(r * r), jnp.sum(r_new * r_new)
        better = norm_new < norm  # false for NaN
        damping = jnp.clip(jnp.where(better, damping * 0.1, damping * 8 + 1e-3), 1e-20, 1e8)
        x, r = jnp.where(better, x_new, x), jnp.where(better, r_new, r)
        rejected = jnp.where(better, 0, rejected + 1)
        return x, r, damping, count + (better & (norm > 0)), rejected, left - 1

    def unfinished(carry):
        _, r, _, _, rejected, left = carry
        return (left > 0) & (rejected < _PATIENCE) & jnp.any(r != 0)

    def solve(x):
        zero = jnp.zeros((), jnp.int32)
        first = (x, residual(x), jnp.asarray(1e-3, x.dtype), zero, zero, max_iterations)
        x, r, _, count, _, _ = jax.lax.while_loop(unfinished, body, first)
        return x, r, count

    return jax.vmap(solve)(starts)
