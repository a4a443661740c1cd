"""Slow points: local minima of the speed of a map, where trajectories linger."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from cliffs._precision import spacing
from cliffs.dynamics._newton import displacement
from cliffs.typing import Step


def slowest_points(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: PyTree = None,
    *,
    period: int = 1,
    max_iterations: int = 60,
    angle: Float[Array, " n"] | float = 0.0,
) -> tuple[Float[Array, "starts n"], Bool[Array, " starts"]]:
    """Local minima of `q(x) = |F^p(x) - x|^2 / 2` by Newton's method on its gradient with the exact Hessian; pure.

    Gauss-Newton converges slowly where the residual does not vanish, and not at all where its Jacobian is singular,
    which is what a slow point is. So negative curvature is turned positive and steps are damped until `q` falls.

    **Arguments**: as in `solve_fixed_points`, vectors of order 1 only (in units of the scale); `angle`, the periods of
    entries that are angles, 0 for the others.

    **Returns** `(points, minimum)`: `minimum` where the Newton step that remains, `|H^-1 grad q|`, is below
    `e (1 + |x|)`, no eigenvalue of the Hessian H is below `-e` times the largest, and the largest is above
    `e q / (1 + |x|)^2` (no plateau), with `e = eps^(1/3)` of the dtype (6e-6 in float64, 5e-3 in float32).

    Source: Sussillo & Barak (2013), Opening the black box, section 2.

    >>> x, minimum = slowest_points(lambda p, x, u: x + 0.1 + (x - 2) ** 2, None, jnp.array([[1.5]]))
    >>> round(float(x[0, 0]), 3), bool(minimum[0])
    (2.0, True)
    """
    residual = displacement(
        step, params, inputs, period, jnp.broadcast_to(jnp.asarray(angle, starts.dtype), starts.shape[-1:])
    )

    def q(x):
        return 0.5 * jnp.sum(residual(x) ** 2)

    slope, curvature = jax.grad(q), jax.hessian(q)
    small, tiny = spacing(starts.dtype) ** (1 / 3), jnp.finfo(starts.dtype).tiny

    def body(carry, _):
        x, damping = carry
        values, vectors = jnp.linalg.eigh(curvature(x))  # [n], [n, n]
        values = jnp.abs(values)
        shift = damping * jnp.maximum(values[-1], values[0]) + tiny
        x_new = x - vectors @ ((vectors.T @ slope(x)) / (values + shift))
        better = q(x_new) < q(x)
        damping = jnp.clip(jnp.where(better, damping * 0.1, damping * 8 + 1e-3), 1e-14, 1e8)
        return (jnp.where(better, x_new, x), damping), None

    def solve(x):
        x = jax.lax.scan(body, (x, jnp.asarray(1e-3, x.dtype)), length=max_iterations)[0][0]
        values, vectors = jnp.linalg.eigh(curvature(x))
        largest = jnp.abs(values).max()
        left = (vectors.T @ slope(x)) / jnp.maximum(jnp.abs(values), small**2 * largest + tiny)
        size = 1 + jnp.linalg.norm(x)
        # On a plateau every point is a weak minimum: ask that q changes within reach in some direction.
        curved = largest * size**2 > small * q(x)
        close = jnp.linalg.norm(left) <= small * size
        return x, curved & close & (values[0] >= -small * largest)

    return jax.vmap(solve)(starts)
