"""Bifurcation diagrams in one call: all branches with their stability, and the bifurcations on them."""

import collections
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from cliffs._paths import Path, set_parameter
from cliffs._precision import reachable_tolerance
from cliffs.dynamics._arclength import ENDS, LEFT_BOUNDS
from cliffs.dynamics._branches import Extent, absorb, crosses, follow
from cliffs.dynamics._continuation import check_bounds, check_problem, make_residual, vectors
from cliffs.dynamics._events import Curve, Problem, correct_in_planes, distinct, find_special_points, refine
from cliffs.dynamics._fixed_points import iterate, solve_fixed_points
from cliffs.dynamics._special_points import SpecialPoint, crossing_tangents
from cliffs.typing import Step


class BranchPoints(NamedTuple):
    """The points of a branch in the order of arclength, as numpy arrays."""

    parameter: Float[np.ndarray, " points"]
    states: Float[np.ndarray, "points n"]
    multipliers: np.ndarray
    """`[points, n]` complex, largest modulus first."""
    stable: np.ndarray
    ends: tuple[str, str]
    """Why the branch stops before its first and after its last point: the words of `cliffs.dynamics.ENDS`, or "joins
    another branch" at a branch point from which only one side was new."""
    period: int = 1

    @property
    def left_bounds(self) -> bool:
        """Whether both ends lie where the parameter leaves its bounds."""
        return all(end == ENDS[LEFT_BOUNDS] for end in self.ends)

    @property
    def complete(self) -> bool:
        """Whether nothing of the branch inside the bounds is missing."""
        return not any(end in self.ends for end in ("ran out of points", "step too small"))


class BifurcationDiagram(NamedTuple):
    """What `bifurcation_diagram` returns."""

    branches: list[BranchPoints]
    special: list[SpecialPoint]
    notes: tuple[str, ...] = ()
    """What is missing: unfinished branches, points that were not located, candidates that were given up."""

    @property
    def complete(self) -> bool:
        """Whether every branch was followed to its ends and every special point is located."""
        return not self.notes


class _Seed(NamedTuple):
    """Where a branch may be followed from: a regular point (no tangent) or a singular one with its tangent."""

    point: np.ndarray
    period: int
    tangent: np.ndarray | None = None


def bifurcation_diagram(
    step: Step,
    params: PyTree,
    path: Path,
    bounds: tuple[float, float],
    starts: PyTree,
    *,
    inputs: Any = None,
    period: int = 1,
    max_period: int | None = None,
    num_points: int = 600,
    max_stretches: int = 20,
    max_step: float = 0.05,
    num_sections: int = 5,
    max_branches: int = 64,
    tolerance: float | None = None,
) -> BifurcationDiagram:
    """All branches of fixed points (or p-cycles) between two parameter values, with stability and bifurcations.

    Solutions of `F^p(x; lambda) = x` are searched from the starts at `num_sections` values of the parameter; each that
    lies on no branch found so far is followed both ways. Folds, flips, Neimark-Sacker and branch points are bracketed
    along the branches, located by Newton and classified; the second branch through every branch point is followed
    too, and with `max_period` the cycles of twice the period that flips give birth to.

    **Arguments**

    - `step`, `params`, `path`, `inputs`, `period`: as in `continue_branch`.
    - `bounds`: the parameter interval.
    - `starts`: `[starts, n]` or a pytree with leaves `[starts, ...]` (then states are reported flattened), where
      Newton starts at every section; their dtype is the precision.
    - `max_period`: follow doublings up to cycles of this period; by default only `period` itself.
    - `num_points`: attempts in one compiled stretch of a branch; `max_stretches`: stretches in each direction.
    - `max_step`: largest arclength per step, in units of the joint vector (state, parameter). Events nearer than a
      thousandth of this are not told apart.
    - `num_sections`: how many parameter values are searched for fixed points.
    - `max_branches`: how many branches are followed at most.
    - `tolerance`: of located special points, as in `locate_bifurcation`.

    **Returns** a `BifurcationDiagram`: branches ordered along their arclength, special points sorted by parameter, and
    `notes` on everything that is not complete.

    **Raises** `ValueError` for wrong bounds and whatever `continue_branch` and `locate_bifurcation` refuse.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 4; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> starts = jnp.linspace(-5, 5, 11)[:, None]
    >>> diagram = bifurcation_diagram(one_unit_step, OneUnitParams(5.0, 0.0), "b", (-3.5, -1.5), starts)
    >>> len(diagram.branches), [(p.kind, round(p.parameter, 2)) for p in diagram.special], diagram.complete
    (1, [('fold', -2.66), ('fold', -2.34)], True)
    """
    check_bounds(bounds)
    step, starts = vectors(step, starts, name="starts", axes=1)
    check_problem(step, params, path, starts[0], inputs, period)
    reachable_tolerance(tolerance, starts.dtype, double=1e-12)
    if max_step <= 0 or num_points < 3 or min(max_stretches, num_sections, max_branches) < 1:
        raise ValueError(
            f"max_step must be positive, num_points at least 3, the other counts at least 1, got {max_step=}, "
            f"{num_points=}, {max_stretches=}, {num_sections=}, {max_branches=}"
        )
    accept = reachable_tolerance(None, starts.dtype, double=1e-11)
    extent = Extent((float(bounds[0]), float(bounds[1])), num_points, max_stretches, max_step)
    base = Problem(step, params, path, inputs, period, accept)
    curves: dict[int, list[Curve]] = collections.defaultdict(list)
    special: list[SpecialPoint] = []
    notes: list[str] = []
    seeds = _search(base, bounds, starts, num_sections)
    if not seeds:
        notes.append(f"the starts lead to no solution of period {period} at any of {num_sections} sections")
    queue, singular = collections.deque(seeds), []
    while queue:
        seed = queue.popleft()
        problem = base._replace(period=seed.period)
        started = _start(problem, seed, curves, max_step)
        if started is None:
            continue
        if not started[1]:
            singular.append(seed)
            continue
        if sum(map(len, curves.values())) >= max_branches:
            notes.append(f"stopped after max_branches={max_branches} branches")
            break
        curve = follow(problem, started[0], started[1], extent, singular=seed.tangent is not None)
        if curve is None or len(curve.points) < 2:
            notes.append(f"no branch could be followed from {started[0]} (period {seed.period})")
            continue
        curve = refine(problem, curve)
        for point in find_special_points(problem, curve, tolerance):
            known = len(special)
            special = distinct([*special, point], starts.dtype)
            if len(special) > known and point.located:
                queue.extend(_switches(problem, point, max_period or period))
        curves[seed.period] = absorb(problem, curves[seed.period], curve)

    lost = [seed.point for seed in singular if not _near(seed.point, curves[seed.period], 2 * max_step)]
    if lost:
        notes.append(f"{len(lost)} degenerate solutions were given up, the first (state, parameter) is {lost[0]}")
    branches = [_branch(curve, p) for p in sorted(curves) for curve in curves[p]]
    notes += [f"branch {i} (period {b.period}): {b.ends}" for i, b in enumerate(branches) if not b.complete]
    notes += [f"{p.kind} near {p.parameter:.6g}: {p.note}" for p in special if not p.located]
    return BifurcationDiagram(branches, special, tuple(notes))


def _near(point: np.ndarray, curves: list[Curve], distance: float) -> bool:
    return any(np.linalg.norm(curve.points - point, axis=1).min() < distance for curve in curves)


def _branch(curve: Curve, period: int) -> BranchPoints:
    multipliers = curve.multipliers
    return BranchPoints(
        curve.points[:, -1], curve.points[:, :-1], multipliers, np.abs(multipliers[:, 0]) < 1, curve.ends, period
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("step", "path", "period"))
def _solve_sections(step, params, path, inputs, period, values, starts):
    def at(value):
        here = set_parameter(params, path, value)
        points = solve_fixed_points(step, here, starts, inputs, period=period).points

        def orbit(x):  # x, F(x), .. F^p(x)
            once = iterate(step, here, inputs, 1)
            return jnp.concatenate([x[None], jax.lax.scan(lambda x, _: (once(x),) * 2, x, length=period)[1]])

        return jax.vmap(orbit)(points)

    return jax.vmap(at)(values)


def _search(problem: Problem, bounds: tuple[float, float], starts: Any, num_sections: int) -> list[_Seed]:
    """Solutions of minimal period p at some values of the parameter, as seeds."""
    # Off the round numbers, where symmetric problems have their degenerate points.
    shares = (np.arange(num_sections) + 0.381966) / num_sections
    values = np.asarray(bounds[0] + (bounds[1] - bounds[0]) * shares, starts.dtype)
    step, params, path, inputs, period, tolerance = problem
    orbits = np.asarray(_solve_sections(step, params, path, inputs, period, values, starts))
    reach = tolerance**0.6
    seeds: list[_Seed] = []
    for value, section in zip(values, orbits):
        found: list[np.ndarray] = []
        for orbit in section:
            size = reach * (1 + np.abs(orbit[0]).max())
            gaps = np.abs(orbit[1:] - orbit[0]).max(1)
            if not (gaps[-1] < size) or any(gaps[d - 1] < 100 * size for d in range(1, period) if period % d == 0):
                continue
            for point in orbit[:-1]:
                if not any(np.abs(point - other).max() < size for other in found):
                    found.append(point)
        seeds += [_Seed(np.append(x, value), period) for x in found]
    return seeds


@functools.partial(jax.jit, static_argnames=("step", "path", "period"))
def _jacobian(step, params, path, inputs, period, y):
    return jax.jacfwd(make_residual(step, params, (path,), inputs, period))(y)


def _start(problem: Problem, seed: _Seed, curves: dict[int, list[Curve]], max_step: float):
    """`(point, tangents)` to follow, without tangents where the point is singular; None where all is known already."""
    step, params, path, inputs, period, tolerance = problem
    point = seed.point
    if seed.tangent is None:
        _, sizes, right = np.linalg.svd(np.asarray(_jacobian(step, params, path, inputs, period, point)))
        if sizes[-1] < 1e-6 * max(1.0, sizes[0]):
            return point, []  # its branches are reached from others of their points
        points, tangents, _, errors = correct_in_planes(problem, point[None], right[-1:])
        if not errors[0] <= tolerance or any(crosses(problem, c, points[0]) is not None for c in curves[period]):
            return None
        return points[0], [tangents[0], -tangents[0]]
    directions = []
    for tangent in (seed.tangent, -seed.tangent):
        ahead, _, _, errors = correct_in_planes(problem, (point + 0.2 * max_step * tangent)[None], tangent[None])
        if errors[0] <= tolerance and not any(crosses(problem, c, ahead[0]) is not None for c in curves[period]):
            directions.append(tangent)
    return (point, directions) if directions else None


def _switches(problem: Problem, point: SpecialPoint, max_period: int) -> list[_Seed]:
    """The branches that a special point gives birth to."""
    y = np.append(point.state, np.asarray(point.parameter, point.state.dtype))
    if point.kind in ("transcritical", "pitchfork"):
        step, params, path, inputs, *_ = problem
        tangents = crossing_tangents(step, params, path, point, inputs=inputs)
        return [_Seed(y, point.period, t) for t in tangents]
    if point.kind == "flip" and 2 * point.period <= max_period and point.vector is not None:
        # The doubled branch leaves along the critical vector; its parameter changes to second order only.
        return [_Seed(y, 2 * point.period, np.append(point.vector, 0).astype(y.dtype))]
    return []
