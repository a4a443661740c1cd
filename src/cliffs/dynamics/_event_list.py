"""The list of events: each once, however many branches, phases and test functions it was found by."""

import numpy as np

from cliffs.dynamics._curves import Problem, linearise, orbits
from cliffs.dynamics._special_points import DOUBLE, SpecialPoint


class Events:
    """Each event once; located ones win over bracketed ones, branch points over folds."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.points: list[SpecialPoint] = []
        m = len(problem.data.state_scale) + 1
        dtype = np.asarray(problem.data.state_scale).dtype
        self._places = np.zeros((64, m), dtype)  # every point of every event's cycle
        self._owner = np.zeros(64, int)
        self._count = 0

    def add(self, point: SpecialPoint) -> SpecialPoint | None:
        """Add an event with the other points of its cycle; what was not known before is returned."""
        place = np.append(point.state, point.parameter).astype(self._places.dtype)
        apart = np.linalg.norm(self.problem.gap(self._places[: self._count], place), axis=1)
        size = (1 + np.abs(place).max()) ** 0.5
        reach = 0.1 if point.kind == "branch point" else 1e-3  # where branches touch, much is one to within rounding
        for k in dict.fromkeys(self._owner[: self._count][apart < reach * size].tolist()):
            known = self.points[k]
            near = self.problem.spacing**0.4 if point.located and known.located else 1e-3
            if point.note == known.note == DOUBLE and point.period > known.period:
                # A doubled cycle's branch turns where it is born; beside a double multiplier that is ill determined.
                near = self.problem.spacing**0.25
            distance = apart[self._owner[: self._count] == k].min()
            if not (distance < near * size or self._one_root(known, point, place)):
                continue
            if not (_same(known, point) or _same(point, known)):
                continue
            if _rank(known) <= _rank(point):
                return None
            self.points[k] = point = self._with_orbit(point)
            return point
        point = self._with_orbit(point)
        self.points.append(point)
        orbit = point.orbit if point.orbit is not None else point.state[None]
        rows = np.concatenate([orbit, np.full((len(orbit), 1), point.parameter)], 1)
        while self._count + len(rows) > len(self._places):
            self._places = np.concatenate([self._places, np.zeros_like(self._places)])
            self._owner = np.concatenate([self._owner, np.zeros_like(self._owner)])
        self._places[self._count : self._count + len(rows)] = rows
        self._owner[self._count : self._count + len(rows)] = len(self.points) - 1
        self._count += len(rows)
        return point

    def _one_root(self, known: SpecialPoint, point: SpecialPoint, place: np.ndarray) -> bool:
        """Whether all residuals between two places are rounding: of high order, a root is blurred over a neighbourhood.

        Of events on one line of solutions, which differ in the parameter alone, the residual says nothing. There it is
        the least singular value of its derivative that must be rounding: branches touch.
        """
        start = np.append(known.state, known.parameter).astype(place.dtype)
        way = self.problem.gap(place, start)
        between = start + np.linspace(0, 1, 9)[:, None] * way
        # Beside its flip a cycle is a solution of twice its period.
        period = max(known.period, point.period)
        if period % known.period or period % point.period:
            return False
        values, jacobians = linearise(self.problem.at_period(period), between.astype(place.dtype))
        size = (1 + np.abs(place).max()) * (1 + np.abs(jacobians).max())
        if not np.linalg.norm(way[:-1]) > abs(way[-1]):
            if not np.isfinite(jacobians).all() or known.kind not in SWITCHES or point.kind not in SWITCHES:
                return False
            values = np.maximum(np.abs(values).max(), np.linalg.svd(jacobians, compute_uv=False)[:, -1])
        return bool(np.abs(values).max() <= self.problem.spacing * size)

    def _with_orbit(self, point: SpecialPoint) -> SpecialPoint:
        y = np.append(point.state, point.parameter).astype(self._places.dtype)
        orbit = orbits(self.problem.at_period(point.period), y[None])[0, :-1] if point.period > 1 else y[None, :-1]
        return point._replace(orbit=orbit)

    def sorted(self) -> list[SpecialPoint]:
        """By the parameter, then the state."""
        return sorted(self.points, key=lambda p: (p.parameter, tuple(p.state)))


def _rank(point: SpecialPoint) -> tuple:
    return (not point.located, -point.multiplicity, point.kind == "fold", point.period)


SWITCHES = {"branch point", "transcritical", "pitchfork"}
"""Kinds at which branches meet with a multiplier +1."""


def _same(a: SpecialPoint, b: SpecialPoint) -> bool:
    """Whether two kinds at one place are one event: rounding can make a branch point look like a fold too."""
    unity = {*SWITCHES, "fold", "degenerate fold"}
    if a.kind == b.kind or (a.kind in SWITCHES and b.kind in unity):
        return True
    if a.kind == "border collision":
        return not b.located
    # A doubled cycle meets the one that it came from at that one's flip; beside a multiple event all is noise.
    return (a.kind == "flip" and b.period > a.period) or (a.multiplicity > 1 and a.kind in unity and b.kind in unity)
