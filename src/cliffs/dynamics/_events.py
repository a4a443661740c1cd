"""What happens along a branch: test functions, refinement where one may vanish, and the points they bracket."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics._arclength import correct
from cliffs.dynamics._continuation import make_residual
from cliffs.dynamics._special_points import SpecialPoint, locate_bifurcation

LANES = 32
"""Planes are corrected in groups of this size, so that one compiled program serves every call."""
DEPTH = 10
"""Halvings of a segment that holds an event: it is bracketed to a thousandth of the step before Newton starts."""


TOUCHES = {
    "fold": ("degenerate fold", "a multiplier touches 1 without the branch turning: a cusp in a second parameter"),
    "branch point": ("branch point", "its test function touches zero: degenerate, more than two branches may cross"),
    "flip": ("flip", "its test function touches zero: degenerate"),
    "Neimark-Sacker": ("Neimark-Sacker", "its test function touches zero: degenerate"),
}
"""What a double zero is reported as; it cannot be told from a very near miss."""


class Problem(NamedTuple):
    """One map with one free parameter, and the precision asked for."""

    step: Any
    params: Any
    path: Any
    inputs: Any
    period: int
    tolerance: float


class Curve(NamedTuple):
    """A branch on the host: joint points `(x, parameter)`, consistently oriented tangents, `dG/dy` at every point."""

    points: np.ndarray
    tangents: np.ndarray
    jacobians: np.ndarray
    multipliers: np.ndarray
    """Eigenvalues of `dF^p/dx`, `[points, n]`, largest modulus first."""
    ends: tuple[str, str]


def make_curve(points: np.ndarray, tangents: np.ndarray, jacobians: np.ndarray, ends: tuple[str, str]) -> Curve:
    """A curve with the multipliers of its points."""
    n = jacobians.shape[1]
    values = np.linalg.eigvals(jacobians[:, :, :n] + np.eye(n)).astype(complex)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)
    return Curve(points, tangents, jacobians, values, ends)


def join(first: Curve, second: Curve, ends: tuple[str, str], order: Any = slice(None)) -> Curve:
    """The points of one curve after those of another, then put in `order`."""
    points, tangents, jacobians, multipliers = (np.concatenate([a, b])[order] for a, b in zip(first[:4], second[:4]))
    return Curve(points, tangents, jacobians, multipliers, ends)


@functools.partial(jax.jit, static_argnames=("step", "path", "period"))
def _correct(step, params, path, inputs, period, anchors, normals, guesses):
    residual = make_residual(step, params, (path,), inputs, period)
    return jax.vmap(lambda a, n, g: correct(residual, a, n, g))(anchors, normals, guesses)


def correct_in_planes(problem: Problem, anchors: np.ndarray, normals: np.ndarray, guesses: np.ndarray | None = None):
    """The curve's points in planes through the anchors: `(points, tangents, jacobians, errors)` as numpy arrays."""
    guesses = anchors if guesses is None else guesses
    step, params, path, inputs, period, _ = problem
    groups = []
    for i in range(0, len(anchors), LANES):
        rows = np.minimum(np.arange(i, i + LANES), len(anchors) - 1)
        out = _correct(step, params, path, inputs, period, anchors[rows], normals[rows], guesses[rows])
        groups.append([np.asarray(a)[: len(anchors) - i] for a in out])
    return [np.concatenate(parts) for parts in zip(*groups)]


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
    square = np.concatenate([curve.jacobians, curve.tangents[:, None]], axis=1)
    tests = {
        "fold": curve.tangents[:, -1],
        "branch point": _signed(*np.linalg.slogdet(square)),
        "flip": _signed(*np.linalg.slogdet(curve.jacobians[:, :, :n] + 2 * np.eye(n))),
    }
    if n > 1:
        mu = curve.multipliers
        i, j = np.triu_indices(n, 1)
        pairs = mu[:, i] * mu[:, j] - 1
        with np.errstate(divide="ignore"):
            log = np.log(np.abs(pairs)).sum(1)
        sign = np.exp(1j * np.angle(pairs).sum(1)).real
        # An area-preserving map has such pairs everywhere; their sign is rounding noise.
        resolved = np.abs(pairs).min(1) > 10 * np.finfo(curve.points.dtype).eps
        tests["Neimark-Sacker"] = _signed(np.where(resolved, np.sign(np.round(sign)), 0), log)
    return tests


test_functions.__test__ = False  # type: ignore[attr-defined]  # not for pytest


def _crossings(values: np.ndarray) -> np.ndarray:
    """Segments where the sign changes; a point that hits zero exactly counts with its predecessor."""
    signs = np.sign(values)
    known = np.flatnonzero(signs)
    if not len(known):
        return known
    signs = signs[known[np.maximum(np.searchsorted(known, np.arange(len(signs)), side="right") - 1, 0)]]
    return np.flatnonzero(signs[:-1] != signs[1:])


def _touches(values: np.ndarray) -> np.ndarray:
    """Points where |value| has a local minimum so low that it may vanish (twice) between the samples."""
    size = np.abs(values)
    left, here, right = size[:-2], size[1:-1], size[2:]
    same = (np.sign(values[:-2]) == np.sign(values[1:-1])) & (np.sign(values[2:]) == np.sign(values[1:-1]))
    return 1 + np.flatnonzero(
        same & (values[1:-1] != 0) & (here <= left) & (here <= right) & (here <= (left + right) / 2 - here)
    )


def refine(problem: Problem, curve: Curve) -> Curve:
    """More points where a test function changes sign or comes so near to zero that two events may hide in a step."""
    lengths = np.linalg.norm(np.diff(curve.points, axis=0), axis=1)
    # Two folds next to a cusp lie in one step: the local minimum of the test function gives them away.
    shortest = np.median(lengths) / 2**DEPTH if len(lengths) else 0.0
    # Shorter than this, rounding decides the signs of what nearly vanishes.
    shortest = max(shortest, 4 * np.finfo(curve.points.dtype).eps ** 0.5)
    stuck: set[tuple] = set()
    for _ in range(2 * DEPTH):
        lengths = np.linalg.norm(np.diff(curve.points, axis=0), axis=1)
        split: set[int] = set()
        for values in test_functions(curve).values():
            split.update(_crossings(values).tolist())
            for i in _touches(values).tolist():
                split.update((i - 1, i))
        chosen = [i for i in sorted(split) if lengths[i] > shortest and curve.points[i].tobytes() not in stuck]
        if not chosen:
            break
        a, b = curve.points[chosen], curve.points[np.add(chosen, 1)]
        # Not the middle: on symmetric problems that is the singular point itself.
        anchors, normals = a + 0.47 * (b - a), (b - a) / lengths[chosen][:, None]
        points, tangents, jacobians, errors = correct_in_planes(problem, anchors, normals)
        moved = np.linalg.norm(points - anchors, axis=1)
        good = (errors <= problem.tolerance) & (moved < 0.5 * lengths[chosen]) & np.isfinite(tangents).all(1)
        stuck.update(p.tobytes() for p in a[~good])
        position = np.concatenate([np.arange(len(curve.points)), np.asarray(chosen)[good] + 0.5])
        more = make_curve(points[good], tangents[good], jacobians[good], curve.ends)
        curve = join(curve, more, curve.ends, np.argsort(position))
    return curve


def find_special_points(problem: Problem, curve: Curve, locate_tolerance: float | None) -> list[SpecialPoint]:
    """The bifurcations on a refined curve, located; what could be bracketed only is returned flagged."""
    tests = test_functions(curve)
    crossings = {kind: set(_crossings(values).tolist()) for kind, values in tests.items()}
    crossings["fold"] -= crossings["branch point"]  # a pitchfork's branch turns at the branch point
    inside = np.abs(curve.multipliers) < 1
    if "Neimark-Sacker" in crossings:
        complex_ = np.abs(np.imag(curve.multipliers)) > 1e-9
        pairs_inside = (inside & complex_).sum(1)
        crossings["Neimark-Sacker"] = {i for i in crossings["Neimark-Sacker"] if pairs_inside[i] != pairs_inside[i + 1]}
    found = [_locate(problem, curve, kind, i, locate_tolerance) for kind, at in crossings.items() for i in sorted(at)]

    explained = set().union(*crossings.values())
    places = np.array([np.append(p.state, p.parameter) for p in found]).reshape(-1, curve.points.shape[1])
    for kind, values in tests.items():
        for i in _touches(values).tolist():
            point = curve.points[i]
            # Beside a located event the other test functions are rounding noise.
            reach = 4 * np.linalg.norm(curve.points[i + 1] - point) + 40 * np.finfo(point.dtype).eps ** 0.5
            if not explained & {i - 1, i} and not (np.linalg.norm(places - point, axis=1) < reach).any():
                name, note = TOUCHES[kind]
                found.append(
                    SpecialPoint(name, float(point[-1]), point[:-1], abs(float(values[i])), False, note,
                                 period=problem.period)
                )  # fmt: skip
    # Pairs that stay on the unit circle (area-preserving maps) are neither inside nor outside.
    modulus, margin = np.abs(curve.multipliers), np.finfo(curve.points.dtype).eps ** 0.5
    surely, possibly = (modulus < 1 - margin).sum(1), (modulus <= 1 + margin).sum(1)
    sure = np.flatnonzero(surely == possibly)
    for i, j in itertools.pairwise(sure):
        if surely[i] == surely[j] or explained & set(range(i - 1, j + 1)):
            continue
        point = curve.points[(i + j) // 2]
        if not any(np.abs(point - np.append(p.state, p.parameter)).max() < 1e-4 for p in found):
            found.append(
                SpecialPoint(
                    "unresolved", float(point[-1]), point[:-1], float("nan"), False,
                    f"the number of stable directions changes from {surely[i]} to {surely[j]}", period=problem.period,
                )
            )  # fmt: skip
    return found


def _locate(problem: Problem, curve: Curve, kind: str, i: int, tolerance: float | None) -> SpecialPoint:
    a, b = curve.points[i], curve.points[i + 1]
    middle, length = (a + b) / 2, np.linalg.norm(b - a)
    step, params, path, inputs, period, _ = problem

    def newton(kind, period):
        return locate_bifurcation(
            kind, step, params, path, jnp.asarray(middle[:-1]), middle[-1], inputs=inputs, period=period,
            tolerance=tolerance,
        )  # fmt: skip

    point = newton(kind, period)
    if kind == "branch point" and period % 2 == 0:
        # Where a cycle of twice the period meets the cycle it came from.
        flip = newton("flip", period // 2)
        if flip.located and _distance(flip, point) < 1e-6:
            point = flip
    eps = np.finfo(curve.points.dtype).eps
    away = np.linalg.norm(np.append(point.state, point.parameter) - middle)
    if not point.located or away > 20 * length + eps**0.4 * (1 + np.abs(middle).max()):
        note = point.note or f"Newton wandered {away:.1e} away from a bracket of length {length:.1e}"
        point = point._replace(
            kind=kind, parameter=float(middle[-1]), state=middle[:-1], located=False, note=note
        )  # fmt: skip
    return point


def _distance(a: SpecialPoint, b: SpecialPoint) -> float:
    return float(np.linalg.norm(np.append(a.state - b.state, a.parameter - b.parameter)))


def distinct(points: list[SpecialPoint], dtype: Any) -> list[SpecialPoint]:
    """Each point once, sorted by the parameter; located ones win over bracketed ones, crossings over folds."""
    kept: list[SpecialPoint] = []
    near = float(np.finfo(dtype).eps) ** 0.4
    for point in sorted(points, key=lambda p: (not p.located, p.kind == "fold")):
        reach = near if point.located else 1e-3
        if not any(_distance(p, point) < reach * (1 + np.abs(p.state).max()) and _same(p, point) for p in kept):
            kept.append(point)
    return sorted(kept, key=lambda p: (p.parameter, tuple(p.state)))


def _same(a: SpecialPoint, b: SpecialPoint) -> bool:
    """Whether two kinds at one place are one event: rounding can make a branch point look like a fold too."""
    crossing = {"branch point", "transcritical", "pitchfork"}
    unity = {*crossing, "fold"}
    return a.kind == b.kind or (a.kind in crossing and b.kind in unity) or (a.kind == "flip" and b.period > a.period)
