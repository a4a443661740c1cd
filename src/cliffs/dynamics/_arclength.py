"""The predictor and corrector that follow any curve `residual(y) = 0`, `m - 1` equations for `m` unknowns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cliffs.dynamics._linear import solve

ENDS = ("ran out of points", "left the bounds", "closed on itself", "step too small", "start is no solution")
"""Why a curve ended, by the code that a `Trace` carries."""
OUT_OF_POINTS, LEFT_BOUNDS, CLOSED, STEP_TOO_SMALL, NO_START = range(5)

NEWTON = 4
"""Corrector iterations; a step that needs more is refused and halved."""


class Trace(NamedTuple):
    """Points along a curve; rows where `accepted` is false repeat the point before."""

    points: Float[Array, "points m"]
    tangents: Float[Array, "points m"]
    jacobians: Float[Array, "points m-1 m"]
    accepted: Bool[Array, " points"]
    end: Int[Array, ""]
    step_size: Float[Array, ""]
    """The length that the next step would have had."""


def value_and_jacobian(residual: Callable):
    """`y -> (residual(y), d residual / dy)` in one forward pass."""

    def twice(y):
        r = residual(y)
        return r, r

    def both(y):
        jacobian, value = jax.jacfwd(twice, has_aux=True)(y)
        return value, jacobian

    return both


def correct(residual: Callable, anchor: Array, normal: Array, guess: Array | None = None):
    """Newton's method on the curve's crossing of the plane through `anchor` across `normal`.

    **Returns** `(y, tangent, jacobian, error)`: the tangent points along `normal`, the error is the largest residual
    relative to `1 + max|y|`.
    """
    both = value_and_jacobian(residual)
    m = normal.shape[0]

    def newton(carry, _):
        y, _ = carry
        r, jacobian = both(y)
        g = jnp.append(r, normal @ (y - anchor))
        # One factorisation gives Newton's step and the null vector of the jacobian along the normal.
        rhs = jnp.stack([g, jnp.zeros_like(g).at[-1].set(1)], axis=1)
        step, tangent = solve(jnp.concatenate([jacobian, normal[None]]), rhs).T
        error = jnp.max(jnp.abs(r)) / (1 + jnp.max(jnp.abs(y)))
        return (y - step, (y, tangent / jnp.linalg.norm(tangent), jacobian, error)), None

    start = anchor if guess is None else guess
    nothing = (start, normal, jnp.zeros((m - 1, m), start.dtype), jnp.asarray(jnp.inf, start.dtype))
    (_, last), _ = jax.lax.scan(newton, (start, nothing), length=NEWTON + 1)
    return last


def trace(
    residual: Callable,
    start: Float[Array, " m"],
    tangent: Float[Array, " m"],
    bounds: tuple[Array, Array],
    *,
    num_points: int,
    step_size: Array,
    max_step: Array,
    min_step: Array,
    tolerance: float | Array,
    home: Float[Array, " m"] | None = None,
    away: Bool[Array, ""] | bool = False,
) -> Trace:
    """Follow `residual(y) = 0` from `start` along `tangent` (Keller 1977) until one of `ENDS` happens.

    - `bounds`: `(low, high)`, arrays of k entries, for the last k entries of `y`. The last point of a curve that leaves
      them lies on the bound.
    - `home`, `away`: where a closed curve began, and whether it has left there; for a later stretch of a curve.

    A step is refused and halved when its corrector fails or moves more than half the step, or when the tangent turns
    by more than 25 degrees; easy steps grow by 1.3.
    """
    low, high = bounds
    k, dtype = low.shape[0], start.dtype
    home_point = start if home is None else home
    same = jnp.finfo(dtype).eps ** 0.4

    def outside(y):
        return jnp.any((y[-k:] < low) | (y[-k:] > high))

    def body(carry, _):
        y, t, jac, size, end, away, beyond = carry
        alive = end == OUT_OF_POINTS
        # Near home a step ends in the plane through home: a closed curve then hits home itself.
        ahead = (home_point - y) @ t
        homing = away & (ahead > 0) & (ahead <= size) & (jnp.linalg.norm(home_point - y) < 1.5 * size)
        length = jnp.where(homing, ahead, size)
        target = y + length * t
        y_new, t_new, jac_new, error = correct(residual, target, t)
        turn = t_new @ t
        moved = jnp.linalg.norm(y_new - target)
        closed = homing & (jnp.linalg.norm(y_new - home_point) < 1e-3 * length + same) & (error < jnp.sqrt(tolerance))
        good = (error <= tolerance) & (turn > 0.906) & (moved < 0.5 * length) & jnp.all(jnp.isfinite(t_new))
        left = good & outside(y_new) & ~closed
        accept = alive & (good | closed) & ~left
        grow = jnp.where(turn > 0.985, 1.3, 1.0)
        # A short step home says nothing about how long the next may be.
        eased = jnp.where(homing, size, jnp.minimum(size * grow, max_step))
        size = jnp.where(good | closed, eased, length * 0.5).astype(dtype)
        reason = jnp.where(closed, CLOSED, jnp.where(left, LEFT_BOUNDS, OUT_OF_POINTS))
        reason = jnp.where(~good & ~closed & (size < min_step), STEP_TOO_SMALL, reason)
        end = jnp.where(alive, reason, end)
        beyond = jnp.where(alive & left, y_new, beyond)
        t_new = jnp.where(closed & ~jnp.all(jnp.isfinite(t_new)), t, t_new)
        y_new = jnp.where(closed, home_point, y_new)
        y, t, jac = (jnp.where(accept, a, b) for a, b in ((y_new, y), (t_new, t), (jac_new, jac)))
        away = away | (accept & (jnp.linalg.norm(y - home_point) > 2 * size))
        return (y, t, jac, size, end, away, beyond), (y, t, jac, accept)

    r0, jac0 = value_and_jacobian(residual)(start)
    solved = jnp.max(jnp.abs(r0)) <= tolerance * (1 + jnp.max(jnp.abs(start)))
    end = jnp.where(solved & jnp.all(jnp.isfinite(tangent)), OUT_OF_POINTS, NO_START)
    first = (start, tangent, jac0, jnp.asarray(step_size, dtype), end, jnp.asarray(away), start)
    (y, t, jac, size, end, _, beyond), rows = jax.lax.scan(body, first, length=num_points - 2)

    # One point more, on the bound that the curve left.
    over = beyond - y
    limit = jnp.where(over[-k:] > 0, high, low)
    share = jnp.where(over[-k:] == 0, jnp.inf, (limit - y[-k:]) / over[-k:])
    share = jnp.where((beyond[-k:] < low) | (beyond[-k:] > high), share, jnp.inf)
    j = jnp.argmin(share)
    normal = jnp.zeros_like(y).at[j - k].set(jnp.sign(over[j - k]))
    share = jnp.clip(jnp.where(jnp.isfinite(share[j]), share[j], 0), 0, 1)
    anchor = (y + share * over).at[j - k].set(limit[j])
    y_land, t_land, jac_land, error = correct(residual, anchor, normal)
    # The plane's crossing can be degenerate (a fold on the bound): then the curve ends one step before the bound.
    landed = (end == LEFT_BOUNDS) & (error <= tolerance) & (jnp.linalg.norm(y_land - anchor) < jnp.linalg.norm(over))
    y_land = y_land.at[j - k].set(limit[j])
    landed = landed & (t_land @ over > 0) & ~outside(y_land)
    last = (jnp.where(landed, y_land, y), jnp.where(landed, t_land, t), jnp.where(landed, jac_land, jac), landed)
    points, tangents, jacobians, accepted = (
        jnp.concatenate([a[None], b, c[None]]) for a, b, c in zip((start, tangent, jac0, jnp.asarray(True)), rows, last)
    )
    return Trace(points, tangents, jacobians, accepted, end, size)
