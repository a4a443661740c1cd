"""The predictor and corrector that follow any curve `residual(y) = 0`, `m - 1` equations for `m` unknowns."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cliffs.dynamics._linear import solve

ENDS = (
    "ran out of points",
    "left the bounds",
    "closed on itself",
    "step too small",
    "start is no solution",
    "left the state's bounds",
)
"""Why a curve ended, by the code that a `Trace` carries."""
OUT_OF_POINTS, LEFT_BOUNDS, CLOSED, STEP_TOO_SMALL, NO_START, LEFT_STATE = range(6)

NEWTON = 4
"""Corrector iterations; a step that needs more is refused and halved."""
LEAST_TURN, EASY_TURN = 0.906, 0.985
"""Cosines of the angle between neighbouring tangents: 25 degrees is refused, below 10 the steps grow."""
OFF_CHORD = 1e-3
"""How far, as a share of its length, a step may lead beside the direction that its two tangents give it."""


class Trace(NamedTuple):
    """Points along a curve; rows where `accepted` is false repeat the point before."""

    points: Float[Array, "points m"]
    tangents: Float[Array, "points m"]
    jacobians: Float[Array, "points m-1 m"]
    accepted: Bool[Array, " points"]
    end: Int[Array, ""]
    step_size: Float[Array, ""]
    """The length that the next step would have had."""


class Limits(NamedTuple):
    """Where a curve ends, and how it is stepped along."""

    low: Float[Array, " m"]
    """-inf for unknowns without a bound."""
    high: Float[Array, " m"]
    step_size: Float[Array, ""]
    max_step: Float[Array, ""]
    min_step: Float[Array, ""]
    tolerance: Float[Array, ""]


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
    """Newton's method on the curve's intersection with the plane through `anchor` across `normal`.

    **Returns** `(y, tangent, jacobian, error)`: the tangent points along `normal`, the error is the largest residual
    relative to `1 + max|y|`.
    """
    both = value_and_jacobian(residual)
    m = normal.shape[0]

    def newton(carry, _):
        y, _ = carry
        r, jacobian = both(y)  # [m - 1], [m - 1, m]
        g = jnp.append(r, normal @ (y - anchor))
        # One factorisation gives Newton's step and the null vector of the jacobian along the normal.
        rhs = jnp.stack([g, jnp.zeros_like(g).at[-1].set(1)], axis=1)  # [m, 2]
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
    limits: Limits,
    *,
    num_points: int,
    num_parameters: int = 1,
    home: Float[Array, " m"] | None = None,
    away: Bool[Array, ""] | bool = False,
    turns: Callable[[Array], Array] | None = None,
) -> Trace:
    """Follow `residual(y) = 0` from `start` along `tangent` (Keller 1977) until one of `ENDS` happens.

    - `limits`: the last point of a curve that leaves its bounds lies on the bound.
    - `num_parameters`: how many of the last unknowns are parameters.
    - `home`, `away`: where a closed curve began, and whether it has left there; for a later stretch of a curve.
    - `turns`: the whole turns of the angles in a difference of two points, where there are angles.

    A step is refused and halved when its corrector fails or moves more than half the step, when the tangent turns
    by more than 25 degrees, or when it leads beside where its tangents point: a discontinuous map has parallel
    branches. Easy steps grow by 1.3.
    """
    low, high = limits.low, limits.high
    dtype, max_step = start.dtype, limits.max_step
    home_point = start if home is None else home
    same = jnp.finfo(dtype).eps ** 0.4
    noise = jnp.sqrt(limits.tolerance)  # of the points, where they are ill determined

    def outside(y):
        return jnp.any((y < low) | (y > high))

    def body(carry, _):
        y, t, jac, size, end, away, beyond = carry  # [m], [m], [m - 1, m], three scalars, [m]
        alive = end == OUT_OF_POINTS
        gap = home_point - y
        if turns is not None:
            gap = gap - turns(gap)
        here = y + gap  # home, in the same turn as y
        # Near home a step ends in the plane through home: a closed curve then hits home itself.
        ahead = gap @ t
        homing = away & (ahead > 0) & (ahead <= size) & (jnp.linalg.norm(gap) < 1.5 * size)
        length = jnp.where(homing, ahead, size)
        target = y + length * t
        y_new, t_new, jac_new, error = correct(residual, target, t)
        turn = t_new @ t
        moved = jnp.linalg.norm(y_new - target)
        closed = homing & (jnp.linalg.norm(y_new - here) < 1e-3 * length + same) & (error < jnp.sqrt(limits.tolerance))
        finite = jnp.all(jnp.isfinite(t_new)) & jnp.all(jnp.isfinite(jac_new))
        # The trapezoidal rule errs by the cube of the step, at a corner by no more than half its turn.
        chord, along = y_new - y, t + t_new
        beside = jnp.linalg.norm(chord - (chord @ along) / (along @ along) * along)
        allowed = (OFF_CHORD + 0.5 * jnp.linalg.norm(t_new - t)) * length + noise * (1 + jnp.max(jnp.abs(y)))
        continuous = beside <= allowed
        good = (error <= limits.tolerance) & (turn > LEAST_TURN) & (moved < 0.5 * length) & finite & continuous
        left = good & outside(y_new) & ~closed
        accept = alive & (good | closed) & ~left
        grow = jnp.where(turn > EASY_TURN, 1.3, 1.0)
        # A short step home says nothing about how long the next may be.
        eased = jnp.where(homing, size, jnp.minimum(size * grow, max_step))
        size = jnp.where(good | closed, eased, length * 0.5).astype(dtype)
        reason = jnp.where(closed, CLOSED, jnp.where(left, LEFT_BOUNDS, OUT_OF_POINTS))
        reason = jnp.where(~good & ~closed & (size < limits.min_step), STEP_TOO_SMALL, reason)
        end = jnp.where(alive, reason, end)
        beyond = jnp.where(alive & left, y_new, beyond)
        t_new = jnp.where(closed & ~finite, t, t_new)
        jac_new = jnp.where(closed & ~finite, jac, jac_new)
        y_new = jnp.where(closed, here, y_new)
        y, t, jac = (jnp.where(accept, a, b) for a, b in ((y_new, y), (t_new, t), (jac_new, jac)))
        away = away | (accept & (jnp.linalg.norm(y - home_point) > 2 * size))
        return (y, t, jac, size, end, away, beyond), (y, t, jac, accept)

    r0, jac0 = value_and_jacobian(residual)(start)
    solved = jnp.max(jnp.abs(r0)) <= limits.tolerance * (1 + jnp.max(jnp.abs(start)))
    end = jnp.where(solved & jnp.all(jnp.isfinite(tangent)), OUT_OF_POINTS, NO_START)
    first = (start, tangent, jac0, limits.step_size.astype(dtype), end, jnp.asarray(away), start)
    (y, t, jac, size, end, _, beyond), rows = jax.lax.scan(body, first, length=num_points - 2)

    # One point more, on the bound that the curve left first.
    over = beyond - y
    limit = jnp.where(over > 0, high, low)
    share = jnp.where(over == 0, jnp.inf, (limit - y) / over)
    share = jnp.where((beyond < low) | (beyond > high), share, jnp.inf)
    j = jnp.argmin(share)
    normal = jnp.zeros_like(y).at[j].set(jnp.sign(over[j]))
    share = jnp.clip(jnp.where(jnp.isfinite(share[j]), share[j], 0), 0, 1)
    anchor = (y + share * over).at[j].set(jnp.where(jnp.isfinite(limit[j]), limit[j], y[j]))
    y_land, t_land, jac_land, error = correct(residual, anchor, normal)
    # The plane can touch the curve (a fold on the bound): then the curve ends one step before the bound.
    landed = (end == LEFT_BOUNDS) & (error <= limits.tolerance)
    landed = landed & (jnp.linalg.norm(y_land - anchor) < jnp.linalg.norm(over))
    y_land = y_land.at[j].set(anchor[j])
    landed = landed & (t_land @ over > 0) & ~outside(y_land)
    end = jnp.where((end == LEFT_BOUNDS) & (j < y.shape[0] - num_parameters), LEFT_STATE, end)
    last = (jnp.where(landed, y_land, y), jnp.where(landed, t_land, t), jnp.where(landed, jac_land, jac), landed)
    points, tangents, jacobians, accepted = (
        jnp.concatenate([a[None], b, c[None]]) for a, b, c in zip((start, tangent, jac0, jnp.asarray(True)), rows, last)
    )
    return Trace(points, tangents, jacobians, accepted, end, size)
