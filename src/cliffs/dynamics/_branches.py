"""Whole branches on the host: both directions, in as many compiled stretches as it takes, met only once."""

import functools

import jax
import numpy as np

from cliffs.dynamics._arclength import CLOSED, ENDS, NO_START, OUT_OF_POINTS, STEP_TOO_SMALL, trace
from cliffs.dynamics._continuation import turns_of
from cliffs.dynamics._corners import JOINS, pass_corner
from cliffs.dynamics._curves import Curve, Problem, join, linearise, make_curve, segment_through
from cliffs.dynamics._problem import make_residual
from cliffs.dynamics._shorter_cycles import corner_before

MAX_CORNERS = 200
"""Sharp corners that are passed in each direction of a branch."""
JOINED = len(ENDS)
"""The code of an end at a corner where cycles shrink to shorter ones, beside those of `ENDS`."""
WORDS = (*ENDS, JOINS)


@functools.partial(jax.jit, static_argnames=("fmap", "num_points"))
def _stretch(fmap, data, limits, starts, tangents, homes, away, sizes, *, num_points):
    residual = make_residual(fmap, data)
    turns = turns_of(fmap, data) if fmap.angles else None

    def one(start, tangent, home, away, size):
        here = limits._replace(step_size=size)
        return trace(residual, start, tangent, here, num_points=num_points, home=home, away=away, turns=turns)

    return jax.vmap(one)(starts, tangents, homes, away, sizes)


def follow(
    problem: Problem, start: np.ndarray, tangents: list[np.ndarray], *, singular: bool = False
) -> tuple[Curve | None, list[tuple[np.ndarray, np.ndarray]]]:
    """The branch through `start` along one or two opposite tangents, until both ends are reached; None if it fails.

    A singular start (a branch point, flip or corner) lies on the curve but is left out of its points. Sharp corners
    are passed; where more than one branch leaves a corner, the others are returned as `(corner, tangent)`. Where cycles
    shrink to shorter ones the branch ends with one point behind the corner.
    """
    dtype = start.dtype
    starts, directions = np.stack([start, start]), np.stack([tangents[0], tangents[-1]])
    # A branch that begins here and has one side only is followed from as near as it can be.
    first = np.full(2, problem.max_step / (200 if len(tangents) == 1 else 4), dtype)
    sizes, away = first, np.zeros(2, bool)
    parts: list[list] = [[], []]  # of each lane: (points, tangents, jacobians, piece)
    ends = [OUT_OF_POINTS, OUT_OF_POINTS]
    others: list[tuple[np.ndarray, np.ndarray]] = []
    corners, stretches, fresh = [0, 0], [0, 0], [True, True]
    homes = np.stack([start, start])
    while True:
        out = _stretch(
            *problem.program,
            problem.limits,
            starts,
            directions,
            homes,
            away,
            sizes,
            num_points=problem.num_points,
        )
        points, tangent_rows, jacobians, accepted, codes, next_sizes = (np.asarray(a) for a in out)
        starts, directions, sizes = points[:, -1].copy(), tangent_rows[:, -1].copy(), next_sizes.copy()
        for lane in range(2):
            if ends[lane] != OUT_OF_POINTS:
                continue
            keep = accepted[lane].copy()
            # The last point of a stretch is where the next begins.
            keep[0] = fresh[lane] and not (singular and stretches[lane] + corners[lane] == 0)
            piece = np.full(keep.sum(), corners[lane])
            parts[lane].append((points[lane][keep], tangent_rows[lane][keep], jacobians[lane][keep], piece))
            ends[lane], fresh[lane] = int(codes[lane]), False
            away[lane] = True
            # Behind a corner that is not sharp, cycles may have become shorter ones: such a corner is not crossed.
            rows = np.flatnonzero(accepted[lane])
            crossed = corner_before(problem, points[lane][rows], tangent_rows[lane][rows])
            if crossed is not None:
                count, nearest = crossed
                parts[lane][-1] = tuple(x[: keep[: rows[count]].sum()] for x in parts[lane][-1])
                starts[lane], directions[lane] = nearest[:2]
                if (nearest[0] != points[lane][rows[count - 1]]).any():
                    parts[lane].append((*(x[None] for x in nearest), np.full(1, corners[lane])))
                ends[lane] = STEP_TOO_SMALL
            if ends[lane] == OUT_OF_POINTS:
                stretches[lane] += 1
                if stretches[lane] >= problem.max_stretches:
                    stretches[lane] = np.iinfo(int).max
            elif ends[lane] == STEP_TOO_SMALL and corners[lane] < MAX_CORNERS:
                passed = pass_corner(problem, starts[lane], directions[lane])
                if passed is not None:
                    corner, starts[lane], directions[lane], more = passed
                    corners[lane] += 1
                    if more is None:
                        parts[lane].append(_one_point(problem, starts[lane], directions[lane], corners[lane]))
                        ends[lane] = JOINED
                        continue
                    others += [(corner, t) for t in more]
                    ends[lane], fresh[lane] = OUT_OF_POINTS, True
                    sizes[lane] = first[lane]
        if ends[0] == CLOSED or not any(
            end == OUT_OF_POINTS and count < np.iinfo(int).max for end, count in zip(ends, stretches)
        ):
            break
        # A lane that has had all its stretches waits for the other.
        sizes = np.where([count == np.iinfo(int).max for count in stretches], 0, sizes).astype(dtype)
    if ends[0] == NO_START:
        return None, []
    forth = [np.concatenate(columns) for columns in zip(*parts[0])]
    if ends[0] == CLOSED:
        return make_curve(*forth[:3], ends=(ENDS[CLOSED], ENDS[CLOSED]), piece=forth[3]), others
    if len(tangents) == 1:
        return make_curve(*forth[:3], ends=(JOINS, WORDS[ends[0]]), piece=forth[3]), others
    back = [np.concatenate(columns)[::-1] for columns in zip(*parts[1])]
    back[1], back[3] = -back[1], -back[3]  # one orientation along the whole branch
    drop = 0 if singular else 1  # both halves hold a regular start
    joined = [np.concatenate([b, f[drop:]]) for b, f in zip(back, forth)]
    return make_curve(*joined[:3], ends=(WORDS[ends[1]], WORDS[ends[0]]), piece=joined[3]), others


def _one_point(problem: Problem, point: np.ndarray, tangent: np.ndarray, piece: int) -> tuple:
    _, jacobians = linearise(problem, point[None])
    return point[None], tangent[None], jacobians, np.full(1, piece)


def absorb(problem: Problem, curves: list[Curve], new: Curve) -> list[Curve]:
    """The curves with `new`; a loose end of an old one that lies on the new one is joined instead of overlapped."""
    kept = []
    for old in curves:
        ends = [segment_through(problem, new, old.points[i]) for i in (0, -1)]
        loose = [end in (ENDS[OUT_OF_POINTS], ENDS[STEP_TOO_SMALL]) for end in old.ends]
        if ends[0] is not None and ends[1] is not None:
            middle = segment_through(problem, new, old.points[len(old.points) // 2])
            if middle is not None:
                continue  # the new one covers it
        side = next((i for i in (0, 1) if ends[i] is not None and loose[i]), None)
        if side is None:
            kept.append(old)
            continue
        if side == 1:  # so that the old curve runs away from the joint
            old = old.reversed()
        at = ends[side]
        assert at is not None
        ahead = _runs_ahead(problem, new, old, at)
        if ahead is None:  # they only touch
            kept.append(old if side == 0 else old.reversed())
            continue
        if not ahead:
            new, at = new.reversed(), len(new.points) - 2 - at
        head = Curve(*(x[: at + 1] for x in new[:5]), ends=new.ends)  # type: ignore[call-arg]
        new = join(head, old, (new.ends[0], old.ends[1]))
    return [*kept, new]


def _runs_ahead(problem: Problem, new: Curve, old: Curve, at: int) -> bool | None:
    """Whether the old curve's first points lie on the new one, and ahead of segment `at` or behind it.

    The tangents' product does not tell: at a corner a branch may turn by more than 90 degrees.
    """
    here = new.points[at]
    for point in old.points[1:6]:
        segment = segment_through(problem, new, point)
        if segment is None:
            continue
        if segment != at:
            return segment > at
        chord = new.points[at + 1] - here
        return bool(problem.gap(point, old.points[0]) @ chord > 0)
    return None
