"""Whole branches on the host: both directions, in as many compiled stretches as it takes, met only once."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from cliffs.dynamics._arclength import CLOSED, ENDS, NO_START, OUT_OF_POINTS, trace
from cliffs.dynamics._continuation import make_residual
from cliffs.dynamics._events import Curve, Problem, correct_in_planes, join, make_curve


class Extent(NamedTuple):
    """How far and how finely a branch is followed."""

    bounds: tuple[float, float]
    num_points: int
    max_stretches: int
    max_step: float


@functools.partial(jax.jit, static_argnames=("step", "path", "period", "num_points"))
def _stretch(
    step, params, path, inputs, period, starts, tangents, home, away, sizes, bounds, max_step, min_step, tolerance,
    num_points,
):  # fmt: skip
    residual = make_residual(step, params, (path,), inputs, period)

    def one(start, tangent, size):
        return trace(
            residual, start, tangent, (bounds[:1], bounds[1:]), num_points=num_points, step_size=size,
            max_step=max_step, min_step=min_step, tolerance=tolerance, home=home, away=away,
        )  # fmt: skip

    return jax.vmap(one)(starts, tangents, sizes)


def follow(
    problem: Problem, start: np.ndarray, tangents: list[np.ndarray], extent: Extent, *, singular: bool = False
) -> Curve | None:
    """The branch through `start` along one or two opposite tangents, until both ends are reached; None if it fails.

    A singular start (a branch point or flip) lies on the curve but is left out of its points.
    """
    dtype = start.dtype
    lanes = [tangents[0], tangents[-1]]
    starts, directions = np.stack([start, start]), np.stack(lanes)
    sizes = np.full(2, extent.max_step / 4, dtype)
    limits = [np.asarray(v, dtype) for v in (extent.bounds, extent.max_step, 1e-6 * extent.max_step)]
    parts: list[list] = [[], []]
    ends = [OUT_OF_POINTS, OUT_OF_POINTS]
    for stretch in range(extent.max_stretches):
        step, params, path, inputs, period, tolerance = problem
        out = _stretch(
            step, params, path, inputs, period, starts, directions, start, stretch > 0, sizes, *limits, tolerance,
            num_points=extent.num_points,
        )  # fmt: skip
        points, tangent_rows, jacobians, accepted, codes, sizes = (np.asarray(a) for a in out)
        for lane in range(2):
            if ends[lane] != OUT_OF_POINTS:
                continue
            keep = accepted[lane].copy()
            keep[0] = stretch == 0 and not singular
            parts[lane].append((points[lane][keep], tangent_rows[lane][keep], jacobians[lane][keep]))
            ends[lane] = int(codes[lane])
        if all(end != OUT_OF_POINTS for end in ends) or ends[0] == CLOSED:
            break
        # The last point of a stretch is where the next begins.
        starts, directions = points[:, -1], tangent_rows[:, -1]
    if ends[0] == NO_START:
        return None
    forth = [np.concatenate(columns) for columns in zip(*parts[0])]
    if ends[0] == CLOSED:
        return make_curve(*forth, ends=(ENDS[CLOSED], ENDS[CLOSED]))
    if len(tangents) == 1:
        return make_curve(*forth, ends=("joins another branch", ENDS[ends[0]]))
    back = [np.concatenate(columns)[::-1] for columns in zip(*parts[1])]
    back[1] = -back[1]  # one orientation along the whole branch
    drop = 0 if singular else 1  # both halves hold a regular start
    joined = [np.concatenate([b, f[drop:]]) for b, f in zip(back, forth)]
    return make_curve(*joined, ends=(ENDS[ends[1]], ENDS[ends[0]]))


def crosses(problem: Problem, curve: Curve, point: np.ndarray) -> int | None:
    """The segment of the curve that holds the point, or None.

    The curve's own crossing of the plane through the point, across the nearest segments, is solved for by Newton, so
    that neighbouring branches are told apart however close they come.
    """
    a, chord = curve.points[:-1], np.diff(curve.points, axis=0)
    lengths = np.linalg.norm(chord, axis=1)
    if not len(lengths):
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ((point - a) * chord).sum(1) / lengths**2
    foot = a + np.clip(share, 0, 1)[:, None] * chord
    distance = np.linalg.norm(point - foot, axis=1)
    near = float(np.finfo(point.dtype).eps) ** 0.4 * (1 + np.abs(point).max())
    # A tangent turns by at most 25 degrees per segment: the curve stays within an eighth of its length.
    possible = np.flatnonzero((distance < 0.3 * lengths + near) & (lengths > 0))
    possible = possible[np.argsort(distance[possible])][:4]
    if not len(possible):
        return None
    anchors = np.repeat(point[None], len(possible), axis=0)
    normals = chord[possible] / lengths[possible][:, None]
    points, _, _, errors = correct_in_planes(problem, anchors, normals, foot[possible])
    same = (np.linalg.norm(points - point, axis=1) < near) & (errors <= problem.tolerance)
    return int(possible[np.argmax(same)]) if same.any() else None


def absorb(problem: Problem, curves: list[Curve], new: Curve) -> list[Curve]:
    """The curves with `new`; a loose end of an old one that lies on the new one is joined instead of overlapped."""
    kept = []
    for old in curves:
        ends = [crosses(problem, new, old.points[i]) for i in (0, -1)]
        loose = [end in (ENDS[OUT_OF_POINTS], "step too small") for end in old.ends]
        if ends[0] is not None and ends[1] is not None:
            continue  # the new one covers it
        side = next((i for i in (0, 1) if ends[i] is not None and loose[i]), None)
        if side is None:
            kept.append(old)
            continue
        if side == 1:  # so that the old curve runs away from the joint
            old = _reversed(old)
        at = ends[side]
        assert at is not None
        if new.tangents[at] @ old.tangents[0] < 0:
            new, at = _reversed(new), len(new.points) - 2 - at
        head = Curve(*(x[: at + 1] for x in new[:4]), ends=new.ends)  # type: ignore[call-arg]
        new = join(head, old, (new.ends[0], old.ends[1]))
    return [*kept, new]


def _reversed(curve: Curve) -> Curve:
    first, last = curve.ends
    points, tangents, jacobians, multipliers = (x[::-1] for x in curve[:4])
    return Curve(points, -tangents, jacobians, multipliers, (last, first))
