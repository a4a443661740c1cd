"""Corners of branches: where a map that is smooth in pieces (relu, clipping, thresholds) meets its border.

A branch is continuous there, but its tangent and its multipliers jump. Continuation stops in front of a sharp corner,
or steps over a blunt one without a word: both are found here, and passed.
"""

from typing import Any

import numpy as np

from cliffs.dynamics._curves import (
    Curve,
    Problem,
    correct_in_planes,
    insert,
    linearise,
    orbits,
    shortest_period,
)
from cliffs.dynamics._special_points import SpecialPoint, real_pair

JUMP = 1e-3
"""Between neighbouring points the Jacobian must jump by this, relative to `1 + max|J|`, to be looked at for a corner;
where stability changes by less."""
JOINS = "joins another branch"
"""How a branch ends where only one side of it was new, or where its cycles shrink to shorter ones."""


def mark_corners(problem: Problem, curve: Curve) -> Curve:
    """The curve with two points close about every corner, and its smooth pieces numbered.

    A segment over which the Jacobian changes more abruptly than beside it is halved again and again: a smooth
    change shrinks with it, a jump does not.
    """
    for _ in range(20):
        chosen = _suspicious(curve)
        if not len(chosen):
            break
        left, right, kept = _bisect(problem, curve, chosen)
        if not kept.any():
            break
        rows = np.repeat(chosen[kept], 2)
        points, tangents, jacobians = (
            np.stack([a[kept], b[kept]], 1).reshape(-1, *a.shape[1:]) for a, b in zip(left, right)
        )
        # Pieces are numbered anew: later ones move up by one for each corner before them.
        count = np.searchsorted(chosen[kept], np.arange(len(curve.points)) - 0.5)
        piece = curve.piece + count
        new = curve.piece[rows] + np.repeat(np.arange(kept.sum()), 2) + np.tile([0, 1], kept.sum())
        curve = insert(curve._replace(piece=piece), rows, points, tangents, jacobians, new)
    return curve


def _jumps(curve: Curve) -> np.ndarray:
    size = 1 + np.abs(curve.jacobians).max((1, 2))
    return np.abs(np.diff(curve.jacobians, axis=0)).max((1, 2)) / np.minimum(size[1:], size[:-1])


def _suspicious(curve: Curve) -> np.ndarray:
    if len(curve.points) < 2:
        return np.zeros(0, int)
    lengths = np.linalg.norm(np.diff(curve.points, axis=0), axis=1)
    jump = _jumps(curve)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = np.where(lengths > 0, jump / lengths, 0)
    beside = np.minimum(np.append(rate[1:], rate[-1:]), np.append(rate[:1], rate[:-1]))
    outside = (np.abs(curve.multipliers) > 1).sum(1)
    abrupt = (jump > JUMP) & (rate > 3 * beside)
    least = 1e-3 * np.median(lengths)
    changed = (outside[1:] != outside[:-1]) & (jump > 1e-4) & (lengths < least) & (rate > 30 * beside)
    shortest = 1e2 * np.finfo(curve.points.dtype).eps ** 0.5 * (1 + np.abs(curve.points[:-1]).max(1))
    ends = (rate.size == 1) & (jump > JUMP)
    return np.flatnonzero(
        (abrupt | changed | ends) & (curve.piece[1:] == curve.piece[:-1]) & (lengths > 1e-3 * shortest)
    )


def _bisect(problem: Problem, curve: Curve, chosen: np.ndarray):
    """Both sides of what may be a corner, brought together: `(left, right, whether it is one)`."""
    left = [x[chosen].copy() for x in curve[:3]]
    right = [x[chosen + 1].copy() for x in curve[:3]]
    first = _gap(left, right)
    alive = np.ones(len(chosen), bool)
    # Points of a branch are known to some roundings, Jacobians far worse in single precision: it stops earlier.
    eps = problem.spacing
    least = min(1e4 * eps, 1e2 * eps**0.9) * (1 + np.abs(curve.points[chosen]).max(1))
    failed = np.zeros(len(chosen), int)
    for _ in range(60):
        lengths = np.linalg.norm(right[0] - left[0], axis=1)
        go = np.flatnonzero(alive & (lengths > least) & (failed < 3))
        if not len(go):
            break
        a, b = left[0][go], right[0][go]
        share = np.array([0.47, 0.3, 0.7])[failed[go]][:, None]
        anchors, normals = a + share * (b - a), (b - a) / lengths[go][:, None]
        middle = correct_in_planes(problem, anchors, normals)
        moved = np.linalg.norm(middle[0] - anchors, axis=1)
        # Farther beside the segment lies another branch.
        good = (middle[3] <= problem.tolerance) & (moved < 0.3 * lengths[go]) & np.isfinite(middle[1]).all(1)
        failed[go[~good]] += 1
        failed[go[good]] = 0
        go, middle = go[good], [x[good] for x in middle[:3]]
        to_left = _gap([x[go] for x in left], middle)
        to_right = _gap(middle, [x[go] for x in right])
        # The half with the larger jump is kept.
        for k, row in enumerate(go):
            side = right if to_left[k] > to_right[k] else left
            for column, value in zip(side, middle):
                column[row] = value[k]
        alive[go] &= np.maximum(to_left, to_right) > 0.05 * first[go]
    lengths = np.linalg.norm(right[0] - left[0], axis=1)
    # A jump that stays while the segment shrinks. What is smooth shrinks with it, so the jump must be far above that
    # share too: single precision cannot shrink a segment a thousandfold.
    start = np.linalg.norm(curve.points[chosen + 1] - curve.points[chosen], axis=1)
    stays = _gap(left, right) > np.maximum(0.05, 10 * lengths / start) * first
    is_corner = alive & stays & ((lengths <= least) | (lengths < 1e-3 * start))
    return left, right, is_corner


def _gap(a: list[np.ndarray], b: list[np.ndarray]) -> np.ndarray:
    size = 1 + np.minimum(np.abs(a[2]).max((1, 2)), np.abs(b[2]).max((1, 2)))
    return np.abs(b[2] - a[2]).max((1, 2)) / size


def directions_from(problem: Problem, corner: np.ndarray, reach: float | np.floating, toward: np.ndarray | None = None):
    """Unit tangents of the branches that leave a point where the map has a corner: each lies in its own piece.

    The Jacobian is sampled around the point; the null vector of each piece's Jacobian is a branch if a step along it
    lands on a solution. Of p-cycles: shorter ones are left out.
    """
    m = len(corner)
    rng = np.random.default_rng(0)
    around = [rng.normal(size=(64, m)), np.eye(m), -np.eye(m)]
    if toward is not None:
        around += [toward[None], -toward[None]]
    samples = np.concatenate(around)
    samples /= np.linalg.norm(samples, axis=1, keepdims=True)
    values, jacobians = linearise(problem, (corner + reach * samples).astype(corner.dtype))
    jacobians = jacobians[np.isfinite(jacobians).all((1, 2)) & np.isfinite(values).all(1)]
    pieces: list[np.ndarray] = []
    for jacobian in jacobians:
        if not any(np.abs(jacobian - other).max() < 1e-3 * (1 + np.abs(other).max()) for other in pieces):
            pieces.append(jacobian)
    candidates = [sign * np.linalg.svd(piece)[2][-1] for piece in pieces for sign in (1, -1)]
    if not candidates:
        return []
    steps = np.array(candidates).astype(corner.dtype)
    points, tangents, _, errors = correct_in_planes(problem, (corner + reach * steps).astype(corner.dtype), steps)
    found: list[np.ndarray] = []
    same = 1 - min(1e-4, 10 * float(np.finfo(corner.dtype).eps) ** 0.5)
    for point, tangent, error in zip(points, tangents, errors):
        away = problem.gap(point, corner)
        # The tangent's line must come from the corner.
        if not (error <= problem.tolerance and np.linalg.norm(away - (away @ tangent) * tangent) < 0.01 * reach):
            continue
        if not 0.5 * reach < away @ tangent < 2 * reach or any(tangent @ other > same for other in found):
            continue
        if period_at(problem, point, 1e-2 * reach) == problem.period:
            found.append(tangent)
    return found


def pass_corner(problem: Problem, point: np.ndarray, tangent: np.ndarray):
    """Around a corner just ahead of the last point of a branch: `(corner, first point behind it, its tangent, others)`.

    `others` are tangents of more branches that leave the corner; None where the cycles shrink to shorter ones there,
    so that the branch ends. None in all where there is no corner ahead, or no one branch behind it.
    """
    reach = reach_of(point.dtype, 1e-4)
    found = None
    corner = point
    for reach_now in (reach, max(1e-2 * reach, 4 * np.finfo(point.dtype).eps ** 0.5)):
        ahead = [t for t in directions_from(problem, corner, reach_now, tangent) if t @ tangent > -0.9999]
        if not ahead:
            return None
        anchors = np.array([corner + reach_now * t for t in ahead]).astype(point.dtype)
        points, tangents, jacobians, errors = correct_in_planes(problem, anchors, np.array(ahead).astype(point.dtype))
        good = (errors <= problem.tolerance) & (np.linalg.norm(points - anchors, axis=1) < 0.5 * reach_now)
        if not good.any():
            return None
        found = points[good], tangents[good], jacobians[good]
        corner = meeting_point(point, tangent, found[0][0], found[1][0])
    points, tangents, jacobians = found  # type: ignore[misc]
    _, here = linearise(problem, point[None])
    jump = np.abs(jacobians[0] - here[0]).max() / (1 + np.abs(here).max())
    if jump < 1e-4:
        return None  # smooth: the branch ends here for another reason
    shrinks = period_at(problem, corner, 0.1 * reach_now) < problem.period
    return corner, points[0], tangents[0], None if shrinks else list(tangents[1:])


def reach_of(dtype: np.dtype, wanted: float) -> float:
    """How far from a corner the map is looked at: as near as wanted, but clear of the rounding."""
    return max(wanted, 10 * float(np.finfo(dtype).eps) ** 0.5)


def period_at(problem: Problem, point: np.ndarray, size: float | np.floating) -> int:
    """The shortest period, a divisor of the problem's own, of a solution."""
    return 1 if problem.period == 1 else shortest_period(problem, orbits(problem, point[None])[0], size)


def meeting_point(a: np.ndarray, ta: np.ndarray, b: np.ndarray, tb: np.ndarray) -> np.ndarray:
    """Where two tangent lines come closest."""
    shares = np.linalg.lstsq(np.stack([ta, -tb], 1), b - a, rcond=None)[0]
    return ((a + shares[0] * ta + b + shares[1] * tb) / 2).astype(a.dtype)


def corner_at(curve: Curve, i: int | np.integer) -> np.ndarray:
    """The corner between points i and i + 1 of a curve: where their tangents meet, or between them."""
    a, b = curve.points[i], curve.points[i + 1]
    ta, tb = curve.tangents[i], curve.tangents[i + 1]
    corner = meeting_point(a, ta, b, tb) if ta @ tb < 1 - 1e-9 else (a + b) / 2
    near = np.linalg.norm(corner - (a + b) / 2) <= 2 * np.linalg.norm(b - a)
    return corner if near else (a + b) / 2


def border_collision(problem: Problem, curve: Curve, i: int, tolerance: float) -> SpecialPoint:
    """The corner between points i and i + 1 of a curve, classified by the multipliers of both sides (Feigin).

    Source: di Bernardo, Budd, Champneys & Kowalczyk (2008), Piecewise-smooth dynamical systems, ch. 3.
    """
    ta, tb = curve.tangents[i], curve.tangents[i + 1]
    length = np.linalg.norm(curve.points[i + 1] - curve.points[i])
    corner = corner_at(curve, i)
    value, _ = linearise(problem, corner[None])
    residual = float(np.abs(value).max())
    located = residual <= 10 * tolerance * (1 + np.abs(corner).max())
    mu: Any = curve.multipliers[[i, i + 1]]
    modulus, real = np.abs(mu), np.abs(mu.imag) <= 1e-9 * (1 + np.abs(mu))
    # On segments of cycles at one parameter a multiplier is 1 to within rounding, and the tangent's sign is noise.
    margin = real_pair(corner.dtype)
    stable = np.asarray(modulus < 1 - margin).all(1)
    turns = ta[-1] * tb[-1] < 0 and min(abs(ta[-1]), abs(tb[-1])) > margin
    above, below = ((real & (side * mu.real > 1 + margin)).sum(1) for side in (1, -1))
    critical = (real & (np.abs(mu.real - 1) <= margin)).any()
    beyond = int(above.sum() % 2 and not critical), int(below.sum())
    if turns or beyond[0] % 2:
        note = "non-smooth fold"
    else:
        note = "persistence" if stable.all() or not stable.any() else "loss of stability"
    if beyond[1] % 2:
        note += "; a cycle of twice the period begins or ends here"
    if not located:
        note = f"bracketed to {length:.1e} only: the two sides do not meet (residual {residual:.1e})"
    return SpecialPoint(
        kind="border collision",
        parameter=float(corner[-1]),
        state=corner[:-1],
        residual=residual,
        located=bool(located),
        note=note,
        period=period_at(problem, corner, 0.1 * reach_of(corner.dtype, 1e-6)),
    )
