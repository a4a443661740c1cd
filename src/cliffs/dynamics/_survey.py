"""Which branches there are: each is followed once, from solutions that were searched for or from another's events."""

import collections
from typing import NamedTuple

import numpy as np

from cliffs.dynamics._branches import absorb, follow
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
from cliffs.dynamics._event_list import Events
from cliffs.dynamics._events import find_special_points, refine
from cliffs.dynamics._multiple import accepted, solutions_beside, solve_at
from cliffs.dynamics._shorter_cycles import split_where_shorter
from cliffs.dynamics._special_points import SpecialPoint, scaled_switching_tangents


class Seed(NamedTuple):
    """Where a branch may be followed from: a regular point (no tangent) or a singular one with its tangent."""

    point: np.ndarray
    period: int
    tangent: np.ndarray | None = None
    why: str = ""
    """For the notes: what said that there is a branch."""
    two_sided: bool = True


class Survey:
    """What has been found so far: branches by period, events, and where more branches may begin."""

    def __init__(self, base: Problem, accept: float, max_period: int, max_branches: int):
        self.base, self.accept, self.max_period, self.max_branches = base, accept, max_period, max_branches
        self.curves: dict[int, list[Curve]] = collections.defaultdict(list)
        self.events = Events(base)
        self.notes: list[str] = []
        self.queue: collections.deque[Seed] = collections.deque()
        self.unscaled = base.data.unscaled

    def run(self, seeds: list[Seed], num_sections: int) -> None:
        """Follow everything that the seeds lead to."""
        if not seeds:
            self.notes.append(
                f"the starts lead to no solution of period {self.base.period} at any of {num_sections} sections"
            )
        self.queue.extend(seeds)
        singular: list[Seed] = []
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
            self.queue.extend(Seed(y, seed.period, t, two_sided=False) for y, t in others)
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

    def _cycles_at(self, problem: Problem, point: SpecialPoint) -> list[Seed]:
        """The branches of a problem's cycles that leave a corner."""
        y = np.append(point.state, np.asarray(point.parameter, point.state.dtype))
        where = f"born at the {point.kind} at {self.unscaled(y)[-1]:.6g}"
        tangents = directions_from(problem, y, reach_of(y.dtype, 1e-5))
        return [Seed(y, problem.period, t.astype(y.dtype), where, two_sided=False) for t in tangents]

    def _near(self, seed: Seed) -> bool:
        """Whether a degenerate solution lies on a branch that was found from others of its points."""
        distance = 2 * self.base.max_step
        return any(
            np.linalg.norm(self.base.gap(c.points, seed.point), axis=1).min() < distance
            for c in self.curves[seed.period]
        )

    def _start(self, problem: Problem, seed: Seed) -> tuple[np.ndarray, list[np.ndarray] | None]:
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

    def _switches(self, point: SpecialPoint) -> list[Seed]:
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
            return [Seed(x, problem.period) for x in solutions_beside(problem, point, (low, high))]
        if point.kind == "branch point" and point.vector is not None:
            # No equation tells the directions of branches that touch: they are sought on both sides.
            low, high = float(problem.limits.low[-1]), float(problem.limits.high[-1])
            return [Seed(x, problem.period) for x in solutions_beside(problem, point, (low, high))]
        if point.kind in ("transcritical", "pitchfork"):
            tangents = scaled_switching_tangents(problem.fmap, problem.data, point)
            return [Seed(y, point.period, t, where) for t in tangents]
        if point.kind == "flip" and doubled and point.vector is not None:
            # The doubled branch leaves along the critical vector; its parameter changes to second order only.
            return [Seed(y, 2 * point.period, np.append(point.vector, 0).astype(y.dtype), where)]
        if point.kind == "border collision":
            seeds = self._cycles_at(problem, point)
            if doubled and "twice the period" in point.note:
                seeds += self._cycles_at(self.base.at_period(2 * point.period), point)
            return seeds
        return []


def search(problem: Problem, starts: np.ndarray, num_sections: int) -> list[Seed]:
    """Solutions of minimal period p at some values of the parameter, all phases of each, as seeds."""
    # Off the round numbers, where symmetric problems have their degenerate points.
    shares = (np.arange(num_sections) + 0.381966) / num_sections
    low, high = float(problem.limits.low[-1]), float(problem.limits.high[-1])
    values = (low + (high - low) * shares).astype(starts.dtype)
    seeds: list[Seed] = []
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
        seeds += [Seed(np.append(x, value), problem.period) for x in found]
    return seeds
