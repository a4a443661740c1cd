"""Where branches of cycles shrink to shorter cycles (or fixed points) at a corner, and end.

The shorter cycles solve `F^p(x) = x` too, and continuation passes from one to the other where the corner is not sharp.
"""

import itertools

import numpy as np

from cliffs.dynamics._arclength import CLOSED, ENDS, LEAST_TURN
from cliffs.dynamics._corners import JOINS, corner_at, period_at, reach_of
from cliffs.dynamics._curves import Curve, Problem, correct_in_planes, join, linearise, orbits, shortest_period


def corner_before(problem: Problem, points: np.ndarray, tangents: np.ndarray):
    """The first corner that continuation may have crossed to shorter cycles, or to another phase of the cycles.

    **Returns** `(k, (point, tangent, jacobian))`: the corner lies in front of point k, and that is the last point of
    the branch before it. None where p-cycles stay themselves; those of a doubled branch go through its flip.
    """
    if problem.period == 1 or len(points) < 2:
        return None
    orbit = orbits(problem, points)
    sizes = 10 * problem.tolerance * (1 + np.abs(points).max(1))
    shorter = np.array([shortest_period(problem, *pair) for pair in zip(orbit, sizes)]) < problem.period
    lost = shorter[1:] & np.append(shorter[2:], True)
    changed = lost.copy()
    for d in range(1, problem.period):
        if problem.period % d == 0:
            apart = problem.gap(orbit[:, d], orbit[:, 0])
            size = np.abs(apart).max(1)
            changed |= np.abs(np.diff(apart, axis=0)).max(1) > 0.5 * np.maximum(size[1:], size[:-1])
    for k in np.flatnonzero(changed & (lost | ~shorter[:-1])):  # not where the branch begins at a corner or flip
        nearest, blocked = _approach(problem, points[k], tangents[k], float(np.linalg.norm(points[k + 1] - points[k])))
        if lost[k] or blocked:
            return int(k) + 1, nearest
    return None


def _approach(problem: Problem, point: np.ndarray, tangent: np.ndarray, length: float):
    """As far along a branch of p-cycles as its smooth piece reaches, and whether that is less than the length."""
    _, jacobians = linearise(problem, point[None])
    here, step, left = (point, tangent, jacobians[0]), length, length
    for _ in range(200):
        if min(step, left) < float(problem.limits.min_step):
            break
        step = min(step, left)
        anchor = here[0] + step * here[1]
        found = tuple(x[0] for x in correct_in_planes(problem, anchor[None], here[1][None]))
        size = 10 * problem.tolerance * (1 + np.abs(found[0]).max())
        smooth = np.abs(found[2] - here[2]).max() < 0.02 * (1 + np.abs(here[2]).max())
        if (
            found[3] <= problem.tolerance
            and np.linalg.norm(found[0] - anchor) < 0.1 * step
            and found[1] @ here[1] > LEAST_TURN
            and smooth
            and period_at(problem, found[0], size) == problem.period
        ):
            here, left = found[:3], left - step
        else:
            step /= 2
    return here, left >= float(problem.limits.min_step)


def split_where_shorter(problem: Problem, curve: Curve) -> tuple[list[Curve], list[int]]:
    """The parts of a branch of p-cycles between corners where these shrink to shorter cycles, and those segments.

    Parts that consist of shorter cycles are left out, and what is shorter than events are told apart.
    """
    corners = np.flatnonzero(curve.piece[:-1] != curve.piece[1:])
    if problem.period == 1 or not len(corners):
        return [curve], []
    size = 0.1 * reach_of(curve.points.dtype, 1e-6)
    cuts = [int(i) for i in corners if period_at(problem, corner_at(curve, i), size) < problem.period]
    if not cuts:
        return [curve], []
    edges = [0, *(i + 1 for i in cuts), len(curve.points)]
    ends = [curve.ends[0], *[JOINS] * len(cuts), curve.ends[1]]
    parts = [
        Curve(*(x[a:b] for x in curve[:5]), ends=(ends[k], ends[k + 1]))  # type: ignore[call-arg]
        for k, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    if curve.ends[0] == ENDS[CLOSED]:
        first, last = parts[0], parts.pop()
        parts[0] = join(last, Curve(*(x[1:] for x in first[:5]), ends=first.ends), (JOINS, JOINS))  # type: ignore[call-arg]
    return [part for part in parts if _has_cycles(problem, part)], cuts


def _has_cycles(problem: Problem, curve: Curve) -> bool:
    middle = curve.points[len(curve.points) // 2]
    away = np.linalg.norm(problem.gap(curve.points[[0, -1]], middle), axis=1).max()
    return bool(away > 1e-3 * problem.max_step) and period_at(problem, middle, 1e-3 * away) == problem.period
