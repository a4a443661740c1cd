"""Bifurcation diagrams in one call: all branches with their stability, and the bifurcations on them."""

import collections
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, PyTree

from cliffs._paths import InputPath, Path
from cliffs._precision import reachable_tolerance, unit_margin
from cliffs.dynamics._arclength import ENDS, LEFT_BOUNDS, OUT_OF_POINTS, STEP_TOO_SMALL
from cliffs.dynamics._branches import absorb, follow
from cliffs.dynamics._continuation import make_limits
from cliffs.dynamics._corners import border_collision, directions_from, mark_corners, reach_of
from cliffs.dynamics._curves import (
    Curve,
    Problem,
    correct_in_planes,
    image,
    is_shorter,
    linearise,
    orbits,
    segment_through,
)
from cliffs.dynamics._events import Events, find_special_points, refine
from cliffs.dynamics._multiple import accepted, solutions_beside, solve_at
from cliffs.dynamics._problem import STEPPING, Data, Map, Stepping, check_bounds, check_problem, make_data, vectors
from cliffs.dynamics._shorter_cycles import split_where_shorter
from cliffs.dynamics._special_points import SpecialPoint, scaled_switching_tangents, unscaled
from cliffs.dynamics._units import check_count
from cliffs.typing import Step


class BranchPoints(NamedTuple):
    """The points of a branch in the order of arclength, as numpy arrays."""

    parameter: Float[np.ndarray, " points"]
    states: Float[np.ndarray, "points n"]
    multipliers: np.ndarray
    """`[points, n]` complex, largest modulus first."""
    stable: np.ndarray
    """Whether all multipliers lie inside the unit circle, by more than the margin within which `find_fixed_points`
    calls a point neutral."""
    ends: tuple[str, str]
    """Why the branch stops before its first and after its last point: the words of `cliffs.dynamics.ENDS`, or "joins
    another branch" at a branch point from which only one side was new, or at a corner where cycles of this period
    shrink to a shorter one."""
    period: int = 1

    @property
    def left_bounds(self) -> bool:
        """Whether both ends lie where the parameter leaves its bounds."""
        return all(end == ENDS[LEFT_BOUNDS] for end in self.ends)

    @property
    def complete(self) -> bool:
        """Whether nothing of the branch inside the bounds is missing."""
        return not any(end in self.ends for end in (ENDS[OUT_OF_POINTS], ENDS[STEP_TOO_SMALL]))

    def by_stability(self) -> list[tuple[bool, slice]]:
        """Runs of equal stability along the branch, each with the first point of the next, so that they can be drawn.

        >>> three = np.arange(3.0)
        >>> BranchPoints(three, three[:, None], three[:, None], three < 1, ("", "")).by_stability()
        [(True, slice(0, 2, None)), (False, slice(1, 3, None))]
        """
        edges = np.flatnonzero(np.diff(self.stable.astype(int))) + 1
        firsts, lasts = [0, *edges.tolist()], [*(edges + 1).tolist(), len(self.stable)]
        return [(bool(self.stable[a]), slice(a, b)) for a, b in zip(firsts, lasts)]


class BifurcationDiagram(NamedTuple):
    """What `bifurcation_diagram` returns."""

    branches: list[BranchPoints]
    special: list[SpecialPoint]
    notes: tuple[str, ...] = ()
    """What is missing: unfinished branches, points that were not located, candidates that were given up."""
    dropped_starts: int = 0
    """Starts that were left out because they are not finite."""

    @property
    def complete(self) -> bool:
        """Whether every branch was followed to its ends and every special point is located."""
        return not self.notes


class _Seed(NamedTuple):
    """Where a branch may be followed from: a regular point (no tangent) or a singular one with its tangent."""

    point: np.ndarray
    period: int
    tangent: np.ndarray | None = None
    why: str = ""
    """For the notes: what said that there is a branch."""
    two_sided: bool = True


def bifurcation_diagram(
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    bounds: tuple[float, float],
    starts: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    max_period: int | None = None,
    stepping: Stepping = STEPPING,
    max_stretches: int = 20,
    num_sections: int = 5,
    max_branches: int = 64,
    tolerance: float | None = None,
    scale: PyTree = None,
    parameter_scale: ArrayLike | None = None,
    state_bounds: tuple[PyTree, PyTree] | None = None,
    period_of_state: PyTree = None,
) -> BifurcationDiagram:
    """All branches of fixed points (or p-cycles) between two parameter values, with stability and bifurcations.

    Solutions of `F^p(x; lambda) = x` are searched from the starts at `num_sections` values of the parameter; each that
    lies on no branch found so far is followed both ways. Folds, flips, Neimark-Sacker and branch points are bracketed
    along the branches, located by Newton and classified; so are the corners of maps that are smooth in pieces (relu),
    as border collisions, where the Jacobian J jumps by more than a thousandth of `1 + max|J|`. A branch ends where the
    map itself jumps. The branches that begin at these points are followed too, with `max_period` also the cycles of
    twice the period. Every phase of a cycle has its place on a branch; an event of a cycle is listed once.

    **Arguments**

    - `step`, `params`, `path`, `inputs`, `period`: as in `continue_branch`.
    - `bounds`: the parameter interval.
    - `starts`: `[starts, n]` or a pytree with leaves `[starts, ...]` (then states are reported flattened), where
      Newton starts at every section; their dtype is the precision. Starts that are not finite are dropped and counted.
    - `max_period`: follow doublings up to cycles of this period; by default only `period` itself.
    - `stepping`: lengths of steps, number of attempts in one compiled stretch of a branch, and tolerance, in units of
      the scales; `max_stretches`: stretches in each direction. Events nearer than a thousandth of the largest step
      are not told apart.
    - `num_sections`: how many parameter values are searched for fixed points.
    - `max_branches`: how many branches are followed at most; each phase of a cycle counts.
    - `tolerance`: of located special points, as in `locate_bifurcation`.
    - `scale`, `parameter_scale`: the typical size of the state and of the parameter, as in `continue_branch`; by
      default half the spread of the starts, entry by entry, and half the width of the bounds.
    - `state_bounds`, `period_of_state`: as in `continue_branch`.

    **Returns** a `BifurcationDiagram`: branches ordered along their arclength, special points sorted by parameter, and
    `notes` on everything that is not complete.

    **Raises** `ValueError` for wrong bounds and whatever `continue_branch` and `locate_bifurcation` refuse.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 4; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> import jax.numpy as jnp
    >>> starts = jnp.linspace(-5, 5, 11)[:, None]
    >>> diagram = bifurcation_diagram(one_unit_step, OneUnitParams(5.0, 0.0), "b", (-3.5, -1.5), starts)
    >>> len(diagram.branches), [(p.kind, round(p.parameter, 2)) for p in diagram.special], diagram.complete
    (1, [('fold', -2.66), ('fold', -2.34)], True)
    """
    check_bounds(bounds)
    starts, dropped = _finite(starts)
    step, starts = vectors(step, starts, name="starts", axes=1)
    check_problem(step, params, (path,), starts[0], inputs, period)
    dtype = starts.dtype
    accept = reachable_tolerance(tolerance, dtype, double=1e-12)
    for name, count in (
        ("max_stretches", max_stretches),
        ("num_sections", num_sections),
        ("max_branches", max_branches),
    ):
        check_count(name, count)
    if max_period is not None:
        check_count("max_period", max_period, least=period)
    data = make_data(
        step,
        params,
        inputs,
        starts,
        (bounds,),
        scale=scale,
        parameter_scale=parameter_scale,
        period_of_state=period_of_state,
    )
    limits = make_limits(data, step, (bounds,), state_bounds, stepping, dtype)
    fmap = Map(step, (path,), period, period_of_state is not None)
    base = Problem(fmap, data, limits, stepping.num_points, max_stretches)
    accept = max(accept, float(data.noise))
    survey = _Survey(base, accept, period if max_period is None else max_period, max_branches)
    scaled = np.asarray((starts - data.centre[:-1]) / data.state_scale)
    survey.run(_search(base, scaled, num_sections), num_sections)
    branches = [_branch(curve, p, data) for p in sorted(survey.curves) for curve in survey.curves[p]]
    special = [unscaled(p, data) for p in survey.events.sorted()]
    notes = survey.notes + [
        f"branch {i} (period {b.period}): {b.ends}" for i, b in enumerate(branches) if not b.complete
    ]
    notes += [f"{p.kind} near {p.parameter:.6g}: {p.note}" for p in special if not p.located]
    return BifurcationDiagram(branches, special, tuple(notes), dropped)


def _finite(starts: PyTree) -> tuple[PyTree, int]:
    """The starts without those that are not finite, and how many these were."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(starts)]
    if not leaves or any(x.ndim < 1 or x.dtype.kind != "f" for x in leaves) or len({len(x) for x in leaves}) != 1:
        return starts, 0  # what is wrong with them is said elsewhere
    good = np.logical_and.reduce([np.isfinite(x).reshape(len(x), -1).all(1) for x in leaves])
    if good.all():
        return starts, 0
    if not good.any():
        raise ValueError(f"starts must hold at least one that is finite, got {len(good)} with NaN or inf")
    return jax.tree.map(lambda x: x[good], starts), int((~good).sum())


def _branch(curve: Curve, period: int, data: Data) -> BranchPoints:
    points, multipliers = data.unscaled(curve.points), curve.multipliers
    stable = np.abs(multipliers[:, 0]) < 1 - unit_margin(curve.points.dtype)
    return BranchPoints(
        parameter=points[:, -1],
        states=points[:, :-1],
        multipliers=multipliers,
        stable=stable,
        ends=curve.ends,
        period=period,
    )


def _search(problem: Problem, starts: np.ndarray, num_sections: int) -> list[_Seed]:
    """Solutions of minimal period p at some values of the parameter, all phases of each, as seeds."""
    # Off the round numbers, where symmetric problems have their degenerate points.
    shares = (np.arange(num_sections) + 0.381966) / num_sections
    low, high = float(problem.limits.low[-1]), float(problem.limits.high[-1])
    values = (low + (high - low) * shares).astype(starts.dtype)
    seeds: list[_Seed] = []
    for value, states in zip(values, solve_at(problem, values, starts)):
        _, orbit = accepted(problem, states, value)
        found = np.zeros((0, starts.shape[1]), starts.dtype)
        for states in orbit:
            size = problem.tolerance**0.6 * (1 + np.abs(states[0]).max())
            if is_shorter(problem, states, 100 * size):
                continue
            for x in states[:-1]:
                if not (np.abs(problem.gap(found, x)).max(1) < size).any():
                    found = np.concatenate([found, x[None]])
        seeds += [_Seed(np.append(x, value), problem.period) for x in found]
    return seeds


class _Survey:
    """What has been found so far: branches by period, events, and where more branches may begin."""

    def __init__(self, base: Problem, accept: float, max_period: int, max_branches: int):
        self.base, self.accept, self.max_period, self.max_branches = base, accept, max_period, max_branches
        self.curves: dict[int, list[Curve]] = collections.defaultdict(list)
        self.events = Events(base)
        self.notes: list[str] = []
        self.queue: collections.deque[_Seed] = collections.deque()
        self.unscaled = base.data.unscaled

    def run(self, seeds: list[_Seed], num_sections: int) -> None:
        """Follow everything that the seeds lead to."""
        if not seeds:
            self.notes.append(
                f"the starts lead to no solution of period {self.base.period} at any of {num_sections} sections"
            )
        self.queue.extend(seeds)
        singular: list[_Seed] = []
        while self.queue:
            seed = self.queue.popleft()
            problem = self.base.at_period(seed.period)
            point, tangents = self._start(problem, seed)
            if tangents is None:
                singular.append(seed)
            if not tangents:
                continue
            if sum(map(len, self.curves.values())) >= self.max_branches:
                self.notes.append(f"stopped after max_branches={self.max_branches} branches")
                break
            curve, others = follow(problem, point, tangents, singular=seed.tangent is not None)
            if curve is None or len(curve.points) < 2:
                self.notes.append(f"no branch could be followed from {self.unscaled(point)} (period {seed.period})")
                continue
            self.queue.extend(_Seed(y, seed.period, t, two_sided=False) for y, t in others)
            self._take(problem, curve)
        lost = [s for s in singular if not self._near(s)]
        if lost:
            self.notes.append(
                f"{len(lost)} degenerate solutions were given up, the first (state, parameter) is "
                f"{self.unscaled(lost[0].point)}"
            )

    def _take(self, problem: Problem, curve: Curve) -> None:
        """A new branch: its events, its other phases, and the branches that begin at its events."""
        curve = mark_corners(problem, refine(problem, mark_corners(problem, curve)))
        parts, cuts = split_where_shorter(problem, curve)
        for i in cuts:
            self._take_end(problem, border_collision(problem, curve, i, self.accept))
        for part in parts:
            self._take_part(problem, part)

    def _take_part(self, problem: Problem, curve: Curve) -> None:
        for point in find_special_points(problem, curve, self.accept):
            new = self.events.add(point)
            if new is not None and new.located:
                self.queue.extend(self._switches(new))
        known = self.curves[problem.period]
        known[:] = absorb(problem, known, curve)
        phase = curve
        for _ in range(problem.period - 1):
            phase = image(problem, phase)
            if not np.isfinite(phase.points).all():
                self.notes.append(f"a phase of the cycles of period {problem.period} is not finite")
                break
            probes = phase.points[np.linspace(0, len(phase.points) - 1, 5).astype(int)[1:-1]]
            if not any(segment_through(problem, c, y) is not None for c in known for y in probes):
                known.append(phase)

    def _take_end(self, problem: Problem, point: SpecialPoint) -> None:
        """A corner where cycles shrink to shorter ones: all the cycles that begin there."""
        seeds = self._cycles_at(problem, point)
        if point.located:
            sides = {np.sign(seed.tangent[-1]) for seed in seeds if seed.tangent is not None}
            count = max(1, round(len(seeds) / problem.period))
            note = f"a cycle of period {problem.period} begins or ends here"
            if len(sides) > 1:
                note = f"persistence: a cycle of period {problem.period} on both sides"
            elif count > 1:
                note = f"{count} cycles of period {problem.period} begin or end here"
            point = point._replace(note=note)
        self.events.add(point)
        self.queue.extend(seeds)

    def _cycles_at(self, problem: Problem, point: SpecialPoint) -> list[_Seed]:
        """The branches of a problem's cycles that leave a corner."""
        y = np.append(point.state, np.asarray(point.parameter, point.state.dtype))
        where = f"born at the {point.kind} at {self.unscaled(y)[-1]:.6g}"
        tangents = directions_from(problem, y, reach_of(y.dtype, 1e-5))
        return [_Seed(y, problem.period, t.astype(y.dtype), where, two_sided=False) for t in tangents]

    def _near(self, seed: _Seed) -> bool:
        """Whether a degenerate solution lies on a branch that was found from others of its points."""
        distance = 2 * self.base.max_step
        return any(
            np.linalg.norm(self.base.gap(c.points, seed.point), axis=1).min() < distance
            for c in self.curves[seed.period]
        )

    def _start(self, problem: Problem, seed: _Seed) -> tuple[np.ndarray, list[np.ndarray] | None]:
        """`(point, tangents)` to follow: none where all is known already, None where the point is singular."""
        curves = self.curves[problem.period]
        if seed.tangent is None:
            _, jacobians = linearise(problem, seed.point[None])
            if not np.isfinite(jacobians).all():
                return seed.point, []
            _, sizes, right = np.linalg.svd(jacobians[0])
            if sizes[-1] < 1e-6 * max(1.0, sizes[0]):
                return seed.point, None  # its branches are reached from others of their points
            points, tangents, _, errors = correct_in_planes(problem, seed.point[None], right[-1:])
            if not errors[0] <= problem.tolerance:
                self.notes.append(f"the solution near {self.unscaled(seed.point)} (period {seed.period}) was lost")
                return seed.point, []
            if any(segment_through(problem, c, points[0]) is not None for c in curves):
                return seed.point, []
            return points[0], [tangents[0], -tangents[0]]
        directions, failed = [], 0
        sides = [seed.tangent, -seed.tangent] if seed.two_sided else [seed.tangent]
        shares = (1.0,) if seed.two_sided else (0.3, 0.6, 1.0)
        for tangent in sides:
            ahead = self._ahead(problem, seed.point, tangent)
            if ahead is None:
                failed += 1
                continue
            # What is known of a branch from its other end may stop a little behind that point: nearer ones count too.
            anchors = np.stack([seed.point + share * (ahead - seed.point) for share in shares]).astype(ahead.dtype)
            probes, _, _, errors = correct_in_planes(problem, anchors, np.stack([tangent] * len(anchors)))
            probes = probes[errors <= problem.tolerance]
            if not any(segment_through(problem, c, probe) is not None for c in curves for probe in probes):
                directions.append(tangent)
        if failed:
            self.notes.append(
                f"{failed} of {len(sides)} sides of a branch of period {seed.period} {seed.why or 'at a corner'} "
                f"could not be followed from {self.unscaled(seed.point)}"
            )
        return seed.point, directions

    def _ahead(self, problem: Problem, point: np.ndarray, tangent: np.ndarray) -> np.ndarray | None:
        """A point of the branch that leaves a singular point along a tangent: as far ahead as Newton stays on it."""
        for share in (0.2, 0.05, 0.01, 2e-3, 4e-4):
            length = share * problem.max_step
            anchor = point + length * tangent
            ahead, tangents, _, errors = correct_in_planes(problem, anchor[None], tangent[None])
            if not (errors[0] <= problem.tolerance and np.linalg.norm(ahead[0] - anchor) < 0.5 * length):
                continue
            if tangents[0] @ tangent < 0.7:
                continue
            if problem.period > 1 and is_shorter(problem, orbits(problem, ahead)[0], 1e-2 * length):
                continue  # the shorter cycle that it meets there
            return ahead[0]
        return None

    def _switches(self, point: SpecialPoint) -> list[_Seed]:
        """The branches that a special point gives birth to."""
        y = np.append(point.state, np.asarray(point.parameter, point.state.dtype))
        problem = self.base.at_period(point.period)
        doubled = 2 * point.period <= self.max_period
        where = f"born at the {point.kind} at {self.unscaled(y)[-1]:.6g}"
        if point.multiplicity > 1:
            if point.kind == "Neimark-Sacker" or (point.kind == "flip" and not doubled):
                return []
            if point.kind == "flip":
                problem = self.base.at_period(2 * point.period)
            low, high = float(problem.limits.low[-1]), float(problem.limits.high[-1])
            return [_Seed(x, problem.period) for x in solutions_beside(problem, point, (low, high))]
        if point.kind in ("transcritical", "pitchfork"):
            tangents = scaled_switching_tangents(problem.fmap, problem.data, point)
            return [_Seed(y, point.period, t, where) for t in tangents]
        if point.kind == "flip" and doubled and point.vector is not None:
            # The doubled branch leaves along the critical vector; its parameter changes to second order only.
            return [_Seed(y, 2 * point.period, np.append(point.vector, 0).astype(y.dtype), where)]
        if point.kind == "border collision":
            seeds = self._cycles_at(problem, point)
            if doubled and "twice the period" in point.note:
                seeds += self._cycles_at(self.base.at_period(2 * point.period), point)
            return seeds
        return []
