"""What happens along a branch: test functions, refinement where one may vanish, and the points they bracket."""

import itertools
from typing import Any

import numpy as np

from cliffs.dynamics._corners import border_collision
from cliffs.dynamics._curves import Curve, Problem, correct_in_planes, insert
from cliffs.dynamics._multiple import locate_multiple
from cliffs.dynamics._special_points import REAL_PAIR, SpecialPoint, locate, real_pair

DEPTH = 10
"""Halvings of a segment that holds an event: it is bracketed to a thousandth of the step before Newton starts."""

TOUCHES = {
    "fold": ("degenerate fold", "a multiplier touches 1 without the branch turning: a cusp in a second parameter"),
    "branch point": ("branch point", "its test function touches zero: degenerate, more than two branches may meet"),
    "flip": ("flip", "its test function touches zero: degenerate"),
    "Neimark-Sacker": ("Neimark-Sacker", "its test function touches zero: degenerate"),
}
"""What a double zero is reported as; it cannot be told from a very near miss."""

NEAR_TOUCH = 5
"""Within as many of the largest steps of a point where branches touch, they are not told apart."""
STANDS = 0.02
"""Length over which a branch must keep its parameter for the signs of its turning to be rounding noise."""


def _signed(sign: np.ndarray, log: np.ndarray) -> np.ndarray:
    """A determinant scaled by the branch's largest, so that it neither over- nor underflows."""
    top = np.max(log, initial=-np.inf, where=np.isfinite(log))
    return np.real(sign) * np.exp(np.clip(log - (top if np.isfinite(top) else 0), -600, 0))


def test_functions(curve: Curve) -> dict[str, np.ndarray]:
    """One number per point and kind, which changes sign where the kind happens.

    - fold: the tangent's parameter entry; - branch point: `det (G_y; t)`; - flip: `det (J + I)`;
    - Neimark-Sacker: the product of `mu_i mu_j - 1` over all pairs (it also vanishes at neutral saddles).
    """
    n = curve.points.shape[1] - 1
    square = np.concatenate([curve.jacobians, curve.tangents[:, None]], axis=1)  # [points, m, m]
    tests = {
        "fold": np.where(_standing(curve), 0, curve.tangents[:, -1]),
        "branch point": _signed(*np.linalg.slogdet(square)),
        "flip": _signed(*np.linalg.slogdet(curve.jacobians[:, :, :n] + 2 * np.eye(n))),
    }
    if n > 1:
        pairs = _pairs(curve)  # [points, pairs]
        with np.errstate(divide="ignore"):
            log = np.log(np.abs(pairs)).sum(1)
        sign = np.exp(1j * np.angle(pairs).sum(1)).real
        # An area-preserving map has such pairs everywhere; their sign is rounding noise, that of the Jacobian squared.
        size = 1 + np.abs(curve.jacobians[:, :, :n]).max((1, 2))
        resolved = np.abs(pairs).min(1) > np.finfo(curve.points.dtype).eps * np.maximum(10, 2 * size**2)
        tests["Neimark-Sacker"] = _signed(np.where(resolved, np.sign(np.round(sign)), 0), log)
    return tests


test_functions.__test__ = False  # type: ignore[attr-defined]  # not for pytest


def _standing(curve: Curve) -> np.ndarray:
    """Points of segments of solutions at one parameter, as at a linear map's flip: there the branch does not turn."""
    value, eps = curve.points[:, -1], float(np.finfo(curve.points.dtype).eps)
    leaves = np.abs(curve.tangents[:, -1]) > eps**0.4  # as on either side of a pitchfork
    moved = (np.abs(np.diff(value)) > eps**0.75 * (1 + np.abs(value[1:]))) | leaves[1:] | leaves[:-1]
    run = np.append(0, np.cumsum(moved))  # numbers the runs of points at one parameter
    along = np.append(0, np.cumsum(np.linalg.norm(np.diff(curve.points, axis=0), axis=1)))
    first, last = np.searchsorted(run, run), np.searchsorted(run, run, "right") - 1
    # Beside a fold of any usual order the branch stands still over a much shorter length.
    return along[last] - along[first] > STANDS


def _pairs(curve: Curve) -> np.ndarray:
    """`mu_i mu_j - 1` of every pair of multipliers."""
    mu = curve.multipliers
    i, j = np.triu_indices(mu.shape[1], 1)
    return mu[:, i] * mu[:, j] - 1


def sign_changes(values: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Segments of one smooth piece where the sign changes; a point that is exactly zero counts with its predecessor."""
    signs = np.sign(values)
    known = np.flatnonzero(signs)
    if not len(known):
        return known
    signs = signs[known[np.maximum(np.searchsorted(known, np.arange(len(signs)), side="right") - 1, 0)]]
    return np.flatnonzero((signs[:-1] != signs[1:]) & (piece[:-1] == piece[1:]))


def _touches(values: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Points where |value| has a local minimum so low that it may vanish (twice) between the samples."""
    size = np.abs(values)
    left, here, right = size[:-2], size[1:-1], size[2:]
    same = (np.sign(values[:-2]) == np.sign(values[1:-1])) & (np.sign(values[2:]) == np.sign(values[1:-1]))
    same &= (piece[:-2] == piece[1:-1]) & (piece[2:] == piece[1:-1])
    return 1 + np.flatnonzero(
        same & (values[1:-1] != 0) & (here <= left) & (here <= right) & (here <= (left + right) / 2 - here)
    )


def refine(problem: Problem, curve: Curve) -> Curve:
    """More points where a test function changes sign or comes so near to zero that two events may hide in a step."""
    lengths = np.linalg.norm(np.diff(curve.points, axis=0), axis=1)
    # Two folds next to a cusp lie in one step: the local minimum of the test function gives them away.
    shortest = np.median(lengths) / 2**DEPTH if len(lengths) else 0.0
    # Shorter than this, rounding decides the signs of what nearly vanishes.
    shortest = max(shortest, 4 * problem.spacing**0.5)
    stuck: set[bytes] = set()
    for _ in range(2 * DEPTH):
        lengths = np.linalg.norm(np.diff(curve.points, axis=0), axis=1)
        split = np.zeros(len(lengths), bool)
        for values in test_functions(curve).values():
            split[sign_changes(values, curve.piece)] = True
            touched = _touches(values, curve.piece)
            split[touched - 1] = True
            split[touched] = True
        split &= lengths > shortest
        chosen = np.array([i for i in np.flatnonzero(split) if curve.points[i].tobytes() not in stuck], int)
        if not len(chosen):
            break
        a, b = curve.points[chosen], curve.points[chosen + 1]
        # Not the middle: on symmetric problems that is the singular point itself.
        anchors, normals = a + 0.47 * (b - a), (b - a) / lengths[chosen][:, None]
        points, tangents, jacobians, errors = correct_in_planes(problem, anchors, normals)
        moved = np.linalg.norm(points - anchors, axis=1)
        good = (errors <= problem.tolerance) & (moved < 0.5 * lengths[chosen]) & np.isfinite(tangents).all(1)
        stuck.update(p.tobytes() for p in a[~good])
        curve = insert(curve, chosen[good], points[good], tangents[good], jacobians[good], curve.piece[chosen[good]])
    return curve


def find_special_points(problem: Problem, curve: Curve, tolerance: float) -> list[SpecialPoint]:
    """The bifurcations on a refined curve, located; what could be bracketed only is returned flagged."""
    if len(curve.points) < 2:
        return []
    tests = test_functions(curve)
    changes = {kind: set(sign_changes(values, curve.piece).tolist()) for kind, values in tests.items()}
    changes["fold"] -= changes["branch point"]  # a pitchfork's branch turns at the branch point
    if "Neimark-Sacker" in changes:
        pairs_inside = _complex_pairs(curve, (np.abs(curve.multipliers) < 1))
        # Seen from the last point before whose sign is known.
        known = np.where(tests["Neimark-Sacker"] != 0, np.arange(len(curve.points)), 0)
        before = np.maximum.accumulate(known)
        changes["Neimark-Sacker"] = {
            i for i in changes["Neimark-Sacker"] if pairs_inside[before[i]] != pairs_inside[i + 1]
        }
    found = [_locate(problem, curve, kind, i, tolerance) for kind, at in changes.items() for i in sorted(at)]
    corners = np.flatnonzero(curve.piece[:-1] != curve.piece[1:])
    found += [border_collision(problem, curve, int(i), tolerance) for i in corners]
    found = [point for point in found if point is not None]

    explained = np.zeros(len(curve.points) - 1, bool)  # segments
    explained[[i for at in changes.values() for i in at]] = True
    explained[corners] = True
    places = np.array([np.append(p.state, p.parameter) for p in found]).reshape(-1, curve.points.shape[1])
    for kind, values in tests.items():
        for i in _touches(values, curve.piece).tolist():
            point = curve.points[i]
            # Beside a located event the other test functions are rounding noise.
            reach = 4 * np.linalg.norm(curve.points[i + 1] - point) + 40 * problem.spacing**0.5
            if explained[i - 1 : i + 1].any() or (np.linalg.norm(places - point, axis=1) < reach).any():
                continue
            if kind == "Neimark-Sacker" and not _touching_pair_is_complex(curve, i):
                continue
            multiple = _located_multiple(problem, kind, point, tolerance)
            if multiple is None:
                name, note = TOUCHES[kind]
                size = abs(float(values[i]))
                multiple = SpecialPoint(name, float(point[-1]), point[:-1], size, False, note, period=problem.period)
            found.append(multiple)
            places = np.concatenate([places, np.append(multiple.state, multiple.parameter)[None]])
    return found + _unexplained(problem, curve, explained, places, tolerance)


def _unexplained(problem: Problem, curve: Curve, explained, places, tolerance: float) -> list[SpecialPoint]:
    """Changes of the number of stable directions that no event accounts for."""
    found = []
    # Pairs that stay on the unit circle (area-preserving maps) are neither inside nor outside.
    modulus, margin = np.abs(curve.multipliers), np.finfo(curve.points.dtype).eps ** 0.5
    surely, possibly = (modulus < 1 - margin).sum(1), (modulus <= 1 + margin).sum(1)
    sure = np.flatnonzero(surely == possibly)
    before = np.append(0, np.cumsum(explained))  # how many explained segments lie before each point
    for i, j in itertools.pairwise(sure):
        if surely[i] == surely[j] or before[min(j + 1, len(before) - 1)] > before[max(i - 1, 0)]:
            continue
        point = curve.points[(i + j) // 2]
        if len(places) and (np.abs(places - point).max(1) < 1e-4).any():
            continue
        multiple = next(
            (
                m
                for kind in ("branch point", "flip", "Neimark-Sacker")
                if (m := _located_multiple(problem, kind, point, tolerance)) is not None
            ),
            None,
        )
        found.append(
            multiple
            or SpecialPoint(
                kind="unresolved",
                parameter=float(point[-1]),
                state=point[:-1],
                residual=float("nan"),
                located=False,
                note=f"the number of stable directions changes from {surely[i]} to {surely[j]}",
                period=problem.period,
            )
        )
    return found


def _complex_pairs(curve: Curve, chosen: np.ndarray) -> np.ndarray:
    """How many of the chosen multipliers are truly complex, at each point."""
    mu: Any = curve.multipliers
    complex_ = np.abs(mu.imag) > real_pair(curve.points.dtype) * np.abs(mu)
    return (chosen & complex_).sum(1)


def _touching_pair_is_complex(curve: Curve, i: int) -> bool:
    """Whether the pair whose product is nearest to 1 at a point is complex: two real ones are a neutral saddle."""
    mu: Any = curve.multipliers[i]
    first, second = np.triu_indices(len(mu), 1)
    k = np.argmin(np.abs(mu[first] * mu[second] - 1))
    pair = mu[[first[k], second[k]]]
    return bool((np.abs(pair.imag) > real_pair(curve.points.dtype) * np.abs(pair)).all())


def _located_multiple(problem: Problem, kind: str, middle: np.ndarray, tolerance: float) -> SpecialPoint | None:
    """Several multipliers critical at once; of a doubled cycle, where it meets the cycle that it came from."""
    point = None
    if problem.period % 2 == 0 and kind in ("fold", "branch point"):
        point = locate_multiple(problem.at_period(problem.period // 2), "flip", middle, tolerance)
    return point or locate_multiple(problem, kind, middle, tolerance)


def _locate(problem: Problem, curve: Curve, kind: str, i: int, tolerance: float) -> SpecialPoint | None:
    """The event in segment i; None where what vanishes there is no event."""
    a, b = curve.points[i], curve.points[i + 1]
    middle, length = (a + b) / 2, np.linalg.norm(b - a)
    multiple = _located_multiple(problem, kind, middle, tolerance)
    if multiple is not None:
        return multiple
    point = locate(kind, problem.fmap, problem.data, middle, tolerance)
    if kind == "branch point" and problem.period % 2 == 0:
        # Where a cycle of twice the period meets the cycle it came from.
        half = problem.fmap._replace(period=problem.period // 2)
        flip = locate("flip", half, problem.data, middle, tolerance)
        gap = problem.gap(np.append(flip.state, flip.parameter), np.append(point.state, point.parameter))
        if flip.located and np.linalg.norm(gap) < 1e-6:
            point = flip
    if point.note == REAL_PAIR:
        return None
    away = np.linalg.norm(np.append(point.state, point.parameter) - middle)
    if point.located and point.kind == "branch point" and away < NEAR_TOUCH * problem.max_step:
        return point  # where branches touch, the path that was followed may have gone from one to the other
    wandered = not away <= 20 * length + problem.spacing**0.4 * (1 + np.abs(middle).max()) ** 0.5
    if not point.located or wandered:
        note = f"Newton wandered {away:.1e} away from a bracket of length {length:.1e}" if wandered else ""
        point = SpecialPoint(
            kind=kind,
            parameter=float(middle[-1]),
            state=middle[:-1],
            residual=point.residual,
            located=False,
            note=point.note if not point.located and point.note else note,
            period=problem.period,
        )
    return point
