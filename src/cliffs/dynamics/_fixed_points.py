"""All fixed points and cycles of a map, from many starts at once, with their multipliers and stability."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import merge_distance as default_merge_distance
from cliffs._precision import reachable_tolerance, rounding, unit_margin
from cliffs.dynamics._distinct import Problem, cluster, distinct_cycles
from cliffs.dynamics._newton import iterate as iterate
from cliffs.dynamics._newton import newton
from cliffs.dynamics._units import (
    ScaledStep,
    ShiftedStep,
    check_count,
    entries,
    far_origin,
    offset_noise,
    typical_sizes,
)
from cliffs.typing import Step


class NewtonResult(NamedTuple):
    """Where each start led; run axis first."""

    points: PyTree
    """Leaves `[starts, ...]`, the structure of the starts."""
    residual: Float[Array, " starts"]
    """`|F^p(x) - x|` (Euclidean), in the state's units."""
    iterations: Int[Array, " starts"]
    """Steps that lowered the residual."""


class FixedPoints(NamedTuple):
    """The distinct fixed points (or cycles of period p) that were found; numpy arrays, one entry per cycle."""

    points: PyTree
    """`[found, n]`, or leaves `[found, ...]` of the state's structure; of a cycle its smallest point in dictionary
    order."""
    multipliers: Complex[np.ndarray, "found n"]
    """Eigenvalues of the Jacobian of `F^p`, largest modulus first; NaN where the Jacobian is not finite."""
    stable: Bool[np.ndarray, " found"]
    """All multipliers inside the unit circle, by more than the margin of `kind`."""
    kind: list[str]
    """"attractor" (all multipliers inside the unit circle), "repeller" (none inside, some outside), "saddle" (some of
    both), "neutral" (some on the circle, none outside: there linearisation does not decide, as on a line of fixed
    points), or "undetermined" where the Jacobian is not finite. On the circle is what lies within the square root of
    the dtype's spacing of it, or within what rounding of the point's place does to the multipliers."""
    residual: Float[np.ndarray, " found"]
    """`|F^p(x) - x|` (Euclidean), in the state's units."""
    hits: Int[np.ndarray, " found"]
    """How many starts led there."""
    converged: float
    """The share of starts that led to a solution of `F^p(x) = x` within the tolerance."""
    slow_points: PyTree
    """Distinct local minima of the speed that are no solutions, of the state's structure."""
    slow_speeds: Float[np.ndarray, " slow"]
    """`|F^p(x) - x|` (Euclidean) there, in the state's units."""
    cycles: PyTree
    """`[found, p, n]`, or leaves `[found, p, ...]`: every point of each cycle, in the order of the map."""
    shorter: float
    """The share of starts that led to a cycle whose period divides p and is smaller: not in `points`."""
    slow: float
    """The share of starts that ended at a slow point; the rest found neither."""
    nonfinite: int
    """How many starts were not finite: they were left out, and the shares are of the others."""

    def __repr__(self) -> str:
        shares = f"{self.converged:.0%} of the starts converged"
        shares += "".join(
            f", {share:.0%} {what}"
            for share, what in ((self.shorter, "to a shorter cycle"), (self.slow, "slow"))
            if share
        )
        places = [jax.tree.map(lambda x, i=i: np.asarray(x)[i], self.points) for i in range(min(len(self.kind), 20))]
        largest = [mu.real if mu.imag == 0 else mu for mu in self.multipliers[:, 0]]
        with np.printoptions(precision=6, threshold=8, edgeitems=3):
            lines = [
                f"{kind} at {place}, largest multiplier {mu:.4g}" for kind, place, mu in zip(self.kind, places, largest)
            ]
        lines += [f"... and {len(self.kind) - 20} more"] if len(self.kind) > 20 else []
        return "\n  ".join([f"<FixedPoints: {len(self.kind)} found, {shares}", *lines]) + ">"


def solve_fixed_points(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    max_iterations: int = 100,
    scale: PyTree = None,
) -> NewtonResult:
    """Solve `F^p(x) = x` from every start by damped Newton; pure, for use under `jit` and `vmap` over parameters.

    Each iteration takes the Levenberg-Marquardt step `(J^T J + mu I) dx = -J^T r` for `r = F^p(x) - x`, with `mu`
    falling after a step that lowers `|r|^2` and rising after one that does not. For `mu -> 0` that is Newton's
    method; where `J` is singular it goes on lowering `|r|^2`. A step to a non-finite residual is never taken. All this
    is done on `x / scale`.

    **Arguments**

    - `step`: `step(params, state, inputs) -> state`.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`; their dtype is the precision of the search.
    - `inputs`: the constant input.
    - `period`: p; solutions include the cycles of p's divisors.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from the starts if None.

    **Returns** a `NewtonResult`.

    **Raises** `ValueError` for starts without a leading axis, not finite, or of mixed dtype, or counts that are not
    whole or below 1.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> result = solve_fixed_points(one_unit_step, OneUnitParams(5.0, -3.0), -jnp.ones((1, 1)))
    >>> round(float(result.points[0, 0]), 3)
    -2.679
    """
    for name, count in (("period", period), ("max_iterations", max_iterations)):
        if not isinstance(count, Tracer):
            check_count(name, count)
    step, flat, restore = flat_states(step, starts)
    sizes = typical_sizes(step, params, flat, inputs, scale)
    no_angle = jnp.zeros_like(sizes)
    points, residual, count = newton(
        ScaledStep(step), (params, sizes), flat / sizes, inputs, no_angle, max_iterations, period=period
    )
    return NewtonResult(restore(points * sizes), jnp.linalg.norm(residual * sizes, axis=-1), count)


def find_fixed_points(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    tolerance: float | None = None,
    merge_distance: float | None = None,
    slow_speed: float = 0.1,
    max_iterations: int = 100,
    scale: PyTree = None,
    period_of_state: PyTree = None,
) -> FixedPoints:
    """All distinct cycles `F^p(x) = x` of minimal period p that the starts lead to, with multipliers and stability.

    All starts take a few damped Newton steps at once; those that have not converged go on, and what still has a
    residual is taken to the nearest minimum of `|F^p(x) - x|^2`, a slow point. Two solutions are one where the residual
    between them is no more than rounding: so a root of higher order, which rounding blurs over a whole neighbourhood,
    counts once, and two that are resolved count as two, however close. The points of one cycle are one, too; solutions
    that an earlier iterate maps to themselves are cycles of a smaller period and are left out.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; a step that is hashable is compiled once.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`; for instance states of trajectories with noise.
      Those that are not finite are left out and counted.
    - `tolerance`: largest `|F^p(x) - x|` of a solution, relative to `scale + |x|` (Euclidean over the entries); 1e-10
      in float64 and 1e-5 in float32 by default.
    - `merge_distance`: points closer than this, relative to `scale + |x|`, are one, whatever lies between them. By
      default the residual decides as said above, and points of a continuum of solutions are merged within the square
      root of the tolerance.
    - `slow_speed`: minima of the speed that are no solutions but below this, relative to the scale, are reported as
      slow points.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from the starts if None.
      Answers do not depend on the units of the state, as long as the starts are given in the same units. Entries whose
      starts lie more than a thousand of their spreads (or scales) from zero are measured from the middle of the starts.
    - `period_of_state`: the period of the entries that are angles, a number or one for each entry, with 0 (in a list
      also None) for those that are none. States that differ by whole periods are one, reported in `[0, period)`.

    **Returns** `FixedPoints`, sorted by coordinates.

    **Raises** `ValueError` for starts that are not `[starts, ...]` or none of them finite, a period below 1, a step
    that does not map the state's shape to itself, or a tolerance that the starts' dtype cannot reach.

    Source: Sussillo & Barak (2013), Opening the black box, for slow points; Newton's method for the rest.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> found = find_fixed_points(one_unit_step, OneUnitParams(5.0, -2.5), jnp.linspace(-4, 4, 9)[:, None])
    >>> abs(found.points.ravel() - [-1.776, 0, 1.776]).max() < 1e-3, found.stable.tolist()
    (np.True_, [True, False, True])
    """
    check_count("period", period)
    check_count("max_iterations", max_iterations)
    step, flat, restore = flat_states(step, starts, nonfinite="drop")
    flat = np.asarray(flat)
    kept = np.isfinite(flat).all(1)
    flat = flat[kept]
    n, dtype = flat.shape[1], flat.dtype
    check_map(step, params, jnp.asarray(flat[0]), inputs)
    tolerance = reachable_tolerance(tolerance, dtype, double=1e-10)
    turn = 0 if period_of_state is None else period_of_state
    angle = np.asarray(entries(step, turn, n, name="period_of_state"), dtype)
    if not ((angle >= 0) & np.isfinite(angle)).all():
        raise ValueError(f"period_of_state must be finite and not negative, got {period_of_state}")
    given = None if scale is None else entries(step, scale, n, name="scale")
    origin = np.where(angle > 0, 0, far_origin(flat, given))
    if origin.any():
        step, params, flat = ShiftedStep(step), (params, origin), flat - origin
    sizes = np.asarray(typical_sizes(step, params, jnp.asarray(flat), inputs, given))
    # The scale of an angle is about a radian. Powers of two throughout: nothing is rounded.
    sizes = np.where(angle > 0, np.exp2(np.round(np.log2(np.where(angle > 0, angle, 6) / 6))), sizes).astype(dtype)
    noise = float(offset_noise(origin, sizes, dtype))
    tolerance, least = max(tolerance, noise), max(rounding(dtype), noise)
    problem = Problem(ScaledStep(step), (params, sizes), inputs, period, angle / sizes, len(flat), least)

    first = min(24, max_iterations)
    points, residual = problem.solve(flat / sizes, first)
    error = problem.error(residual, points)
    if first < max_iterations and (late := error > tolerance).any():
        points[late], residual[late] = problem.solve(points[late], max_iterations - first)
        error = problem.error(residual, points)
    speed, minimum = problem.speed(residual), np.zeros(len(points), bool)
    # Where Newton stopped it may still be some way up from the minimum.
    near = (error > tolerance) & (speed <= 3 * slow_speed)
    if near.any():
        points[near], residual[near], minimum[near] = problem.slowest(points[near])
        error, speed = problem.error(residual, points), problem.speed(residual)
    converged = error <= tolerance
    slow = minimum & ~converged & (speed <= slow_speed)
    merge = default_merge_distance(merge_distance, tolerance)
    by_distance = merge_distance is not None
    found = distinct_cycles(problem, points[converged], error[converged], tolerance, merge, by_distance)
    multipliers, margin = sorted_multipliers(found.jacobians), np.maximum(found.margin, unit_margin(dtype))
    inside = np.abs(multipliers) < 1 - margin[:, None]
    outside = np.abs(multipliers) > 1 + margin[:, None]
    order = np.argsort(speed[slow], kind="stable")
    lowest = points[slow][order]
    representative = cluster(lowest, merge)[0]
    return FixedPoints(
        points=restore(found.cycles[:, 0] * sizes + origin),
        multipliers=multipliers,
        stable=np.asarray(inside.all(1)),
        kind=[_kind(i, o, v) for i, o, v in zip(inside, outside, multipliers)],
        residual=np.linalg.norm(found.residual * sizes, axis=1),
        hits=found.hits,
        converged=float(converged.mean()),
        slow_points=restore(lowest[representative] * sizes + origin),
        slow_speeds=np.linalg.norm(residual[slow][order][representative] * sizes, axis=1),
        cycles=restore(found.cycles * sizes + origin),
        shorter=found.shorter / len(flat),
        slow=float(slow.mean()),
        nonfinite=int((~kept).sum()),
    )


def sorted_multipliers(jacobians: Float[np.ndarray, "found n n"]) -> Complex[np.ndarray, "found n"]:
    """Eigenvalues, largest modulus first; of a Jacobian that is not finite NaN, but its one entry for n = 1."""
    finite = np.isfinite(jacobians).all((1, 2))
    values = np.full(jacobians.shape[:2], np.nan, complex)
    if finite.any():
        values[finite] = np.linalg.eigvals(jacobians[finite])
    if jacobians.shape[1] == 1:
        values[~finite] = jacobians[~finite, 0]
    return np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)


def _kind(inside: np.ndarray, outside: np.ndarray, multipliers: np.ndarray) -> str:
    if np.isnan(multipliers).any():
        return "undetermined"
    if inside.all():
        return "attractor"
    if not outside.any():
        return "neutral"
    return "saddle" if inside.any() else "repeller"
