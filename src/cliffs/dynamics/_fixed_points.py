"""All fixed points and cycles of a map, from many starts at once, with their multipliers and stability."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from cliffs._flatten import check_map as check_map
from cliffs._flatten import flat_states
from cliffs._precision import reachable_tolerance as reachable_tolerance
from cliffs._precision import unit_margin
from cliffs.dynamics._slow_points import slowest_points
from cliffs.typing import Step


class NewtonResult(NamedTuple):
    """Where each start led; run axis first."""

    points: PyTree
    """Leaves `[starts, ...]`, the structure of the starts."""
    residual: Float[Array, " starts"]
    """`|F^p(x) - x|` (Euclidean)."""
    iterations: Int[Array, " starts"]
    """Steps that lowered the residual."""


class FixedPoints(NamedTuple):
    """The distinct fixed points (or cycles of period p) that were found; numpy arrays, one entry per cycle."""

    points: PyTree
    """`[found, n]`, or leaves `[found, ...]` of the state's structure; of a cycle its smallest point in dictionary
    order."""
    multipliers: Complex[np.ndarray, "found n"]
    """Eigenvalues of the Jacobian of `F^p`, largest modulus first."""
    stable: Bool[np.ndarray, " found"]
    """All multipliers inside the unit circle, by more than the margin of `kind`."""
    kind: list[str]
    """"attractor" (all multipliers inside the unit circle), "repeller" (none inside, some outside), "saddle" (some of
    both) or "neutral" (some on the circle, to within the square root of the dtype's spacing, and none outside): there
    linearisation does not decide, as on a line of fixed points."""
    residual: Float[np.ndarray, " found"]
    """`|F^p(x) - x|` (Euclidean)."""
    hits: Int[np.ndarray, " found"]
    """How many starts led there."""
    converged: float
    """The share of starts that led to a solution of `F^p(x) = x` within the tolerance."""
    slow_points: PyTree
    """Distinct local minima of the speed that are no solutions, of the state's structure."""
    slow_speeds: Float[np.ndarray, " slow"]
    """`|F^p(x) - x|` (Euclidean) there."""
    cycles: PyTree
    """`[found, p, n]`, or leaves `[found, p, ...]`: every point of each cycle, in the order of the map."""
    shorter: float
    """The share of starts that led to a cycle whose period divides p and is smaller: not in `points`."""
    slow: float
    """The share of starts that ended at a slow point; the rest found neither."""


def iterate(step: Step, params: PyTree, inputs: Any = None, period: int = 1):
    """The map `x -> F^period(x)` of a step with the input held fixed.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> float(iterate(one_unit_step, OneUnitParams(0.0, 1.5), period=2)(jnp.asarray(0.0)))
    1.5
    """

    def once(state, _):
        return step(params, state, inputs), None

    return lambda state: jax.lax.scan(once, state, length=period)[0]


def solve_fixed_points(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: Any = None,
    *,
    period: int = 1,
    max_iterations: int = 100,
) -> NewtonResult:
    """Solve `F^p(x) = x` from every start by damped Newton; pure, for use under `jit` and `vmap` over parameters.

    Each iteration takes the Levenberg-Marquardt step `(J^T J + mu I) dx = -J^T r` for `r = F^p(x) - x`, with `mu`
    falling after a step that lowers `|r|^2` and rising after one that does not. For `mu -> 0` that is Newton's
    method; where `J` is singular it goes on lowering `|r|^2`. A step to a non-finite residual is never taken.

    **Arguments**

    - `step`: `step(params, state, inputs) -> state`.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`; their dtype is the precision of the search.
    - `inputs`: the constant input.
    - `period`: p; solutions include the cycles of p's divisors.

    **Returns** a `NewtonResult`.

    **Raises** `ValueError` for starts without a leading axis, not finite, or of mixed dtype.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> result = solve_fixed_points(one_unit_step, OneUnitParams(5.0, -3.0), -jnp.ones((1, 1)))
    >>> round(float(result.points[0, 0]), 3)
    -2.679
    """
    step, flat, restore = flat_states(step, starts)
    points, speed, count = _solve(step, params, flat, inputs, max_iterations, period=period)
    return NewtonResult(restore(points), speed, count)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _solve(step, params, starts, inputs, max_iterations, *, period):
    """The number of iterations is traced: one program serves the first pass, the late starts and the polish."""
    apply = iterate(step, params, inputs, period)

    def residual(x):
        return apply(x) - x

    jacobian = jax.jacfwd(residual)
    eps = jnp.finfo(starts.dtype).eps
    eye = jnp.eye(starts.shape[-1], dtype=starts.dtype)

    def body(_, carry):
        x, r, damping, count = carry
        j = jacobian(x)
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
        x = jnp.where(better, x_new, x)
        return (x, jnp.where(better, r_new, r), damping, count + (better & (norm > 0)))

    def solve(x):
        first = (x, residual(x), jnp.asarray(1e-3, x.dtype), jnp.zeros((), jnp.int32))
        x, r, _, count = jax.lax.fori_loop(0, max_iterations, body, first)
        return x, jnp.linalg.norm(r), count

    return jax.vmap(solve)(starts)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _slowest(step, params, starts, inputs, *, period):
    return slowest_points(step, params, starts, inputs, period=period)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _orbits(step, params, points, inputs, *, period):
    """The orbit of p points of every point, `F^p(x) - x` and the Jacobian of `F^p`."""
    apply = iterate(step, params, inputs, period)

    def orbit(x):
        return jax.lax.scan(lambda s, _: (step(params, s, inputs), s), x, length=period)[1]

    return jax.vmap(lambda x: (orbit(x), jnp.linalg.norm(apply(x) - x), jax.jacfwd(apply)(x)))(points)


def find_fixed_points(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: Any = None,
    *,
    period: int = 1,
    tolerance: float | None = None,
    merge_distance: float | None = None,
    slow_speed: float = 0.1,
    max_iterations: int = 100,
) -> FixedPoints:
    """All distinct cycles `F^p(x) = x` of minimal period p that the starts lead to, with multipliers and stability.

    All starts take a few damped Newton steps at once; those that have not converged go on, and what still has a
    residual is taken to the nearest minimum of `|F^p(x) - x|^2`, a slow point. Solutions closer than the merge
    distance are one, and so are the points of one cycle; solutions that an earlier iterate maps to themselves are
    cycles of a smaller period and are left out.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; a step that is hashable is compiled once.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`; for instance states of trajectories with noise.
    - `tolerance`: largest `|F^p(x) - x|` (Euclidean) of a solution; 1e-10 in float64 and 1e-5 in float32 by default.
    - `merge_distance`: points closer than this (Euclidean, relative to `1 + |x|`) are one; by default the square
      root of the tolerance.
    - `slow_speed`: minima of the speed that are no solutions but below this are reported as slow points.

    **Returns** `FixedPoints`, sorted by coordinates.

    **Raises** `ValueError` for starts that are not `[starts, ...]` or not finite, a period below 1, a step that does
    not map the state's shape to itself, or a tolerance that the starts' dtype cannot reach.

    Source: Sussillo & Barak (2013), Opening the black box, for slow points; Newton's method for the rest.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> found = find_fixed_points(one_unit_step, OneUnitParams(5.0, -2.5), jnp.linspace(-4, 4, 9)[:, None])
    >>> abs(found.points.ravel() - [-1.776, 0, 1.776]).max() < 1e-3, found.stable.tolist()
    (np.True_, [True, False, True])
    """
    if period < 1:
        raise ValueError(f"period must be at least 1, got {period}")
    if max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, got {max_iterations}")
    step, flat, restore = flat_states(step, starts)
    check_map(step, params, flat[0], inputs)
    tolerance = reachable_tolerance(tolerance, flat.dtype, double=1e-10)
    merge = tolerance**0.5 if merge_distance is None else merge_distance

    def solve(x, count):
        # Few starts are padded to one shape for all passes: compiling costs more than they do.
        size = min(len(flat), 64)
        points, speed, _ = _solve(step, params, _padded(x, size), inputs, count, period=period)
        return np.array(points)[: len(x)], np.array(speed)[: len(x)]

    first = min(24, max_iterations)
    points, speed = solve(np.asarray(flat), first)
    if first < max_iterations and (late := speed > tolerance).any():
        points[late], speed[late] = solve(points[late], max_iterations - first)
    minimum = np.zeros(len(points), bool)
    # Where Newton stopped it may still be some way up from the minimum.
    near = (speed > tolerance) & (speed <= 3 * slow_speed)
    if near.any():
        outcome = [
            np.array(x)[: near.sum()] for x in _slowest(step, params, _padded(points[near], 1), inputs, period=period)
        ]
        points[near], speed[near], minimum[near] = outcome
    converged = speed <= tolerance
    slow_ones = minimum & ~converged & (speed <= slow_speed)
    cycles, hits, residual, jacobians, shorter = _distinct_cycles(
        step, params, points[converged], speed[converged], inputs, period, merge, solve
    )
    multipliers = np.linalg.eigvals(jacobians) if len(cycles) else np.zeros((0, flat.shape[1]), complex)
    multipliers = np.take_along_axis(multipliers, np.argsort(-np.abs(multipliers), axis=1), axis=1).astype(complex)
    modulus, margin = np.abs(multipliers), unit_margin(flat.dtype)
    inside, outside = np.asarray(modulus < 1 - margin), modulus > 1 + margin
    kind = [
        "attractor" if i.all() else "neutral" if not o.any() else "saddle" if i.any() else "repeller"
        for i, o in zip(inside, outside)
    ]
    order = np.argsort(speed[slow_ones], kind="stable")
    representative, _ = cluster(points[slow_ones][order], merge)
    slow, speeds = points[slow_ones][order][representative], speed[slow_ones][order][representative]
    return FixedPoints(
        restore(cycles[:, 0]), multipliers, np.asarray(inside.all(1)), kind, residual, hits, float(converged.mean()),
        restore(slow), speeds, restore(cycles), shorter / len(flat), float(slow_ones.mean()),
    )  # fmt: skip


def _distinct_cycles(step, params, points, speed, inputs, period, merge, solve):
    """One row per cycle of minimal period p, sorted; hits, residuals, Jacobians; how many points had a shorter one."""
    points = points[np.argsort(speed, kind="stable")]  # the best located point of a cluster stands for it
    n = points.shape[1]
    representative, member = cluster(points, merge)
    hits = np.bincount(member, minlength=len(representative))
    points = points[representative]
    if not len(points):
        return points.reshape(0, period, n), hits, np.zeros(0), np.zeros((0, n, n)), 0
    polished = _padded(solve(points, 6)[0], 1)
    orbits, residual, jacobians = (
        np.asarray(x)[: len(points)] for x in _orbits(step, params, polished, inputs, period=period)
    )
    scale = merge * (1 + np.linalg.norm(orbits[:, 0], axis=1))
    divisors = [d for d in range(1, period) if period % d == 0]
    full = np.array([all(np.linalg.norm(o[d] - o[0]) > s for d in divisors) for o, s in zip(orbits, scale)], bool)
    shorter = int(hits[~full].sum())
    found: list[int] = []
    total: list[int] = []
    for i in np.flatnonzero(full):
        for k, other in enumerate(found):
            if np.linalg.norm(orbits[other] - orbits[i, 0], axis=1).min() <= 2 * scale[i]:
                total[k] += hits[i]
                break
        else:
            found.append(int(i))
            total.append(int(hits[i]))
    shifts = [min(range(period), key=lambda k: tuple(orbits[i, k])) for i in found]
    # The Jacobians of shifted cycles are similar matrices: multipliers do not depend on the shift.
    cycles = np.array([np.roll(orbits[i], -k, axis=0) for i, k in zip(found, shifts)]).reshape(-1, period, n)
    order = sorted(range(len(found)), key=lambda k: tuple(cycles[k, 0]))
    rows = np.array(found, int)[order]
    return cycles[order], np.array(total, int)[order], residual[rows], jacobians[rows], shorter


def cluster(points: Float[np.ndarray, "points n"], distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Group points closer than `distance` times `1 + |x|`: `(index of each group's first point, group of each)`.

    >>> cluster(np.array([[0.0], [5.0], [0.001]]), 0.01)[1].tolist()
    [0, 1, 0]
    """
    centres = np.empty_like(points)
    representative: list[int] = []
    member = np.zeros(len(points), int)
    for i, point in enumerate(points):
        k = len(representative)
        apart = np.linalg.norm(centres[:k] - point, axis=1) if k else np.empty(0)
        if k and apart.min() <= distance * (1 + np.linalg.norm(point)):
            member[i] = int(apart.argmin())
        else:
            centres[k], member[i] = point, k
            representative.append(i)
    return np.array(representative, int), member


def _padded(points: np.ndarray, least: int) -> Array:
    """Rows repeated up to 16, 64, 256, ..., and at least to `least`, so that few shapes are compiled."""
    size = 16
    while size < max(len(points), least):
        size *= 4
    return jnp.asarray(points[np.arange(size) % len(points)])
