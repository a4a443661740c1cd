"""Branches on the host: their points as numpy arrays, in units of the problem's scales."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics._arclength import Limits, correct
from cliffs.dynamics._problem import Data, Map, iterate_map, make_map, make_residual, traced_period

LANES = 32
"""Points are corrected in groups of this size, so that one compiled program serves every call."""


class Problem(NamedTuple):
    """One map with one free parameter, the precision asked for, and how far and finely its branches are followed."""

    fmap: Map
    data: Data
    limits: Limits
    num_points: int
    max_stretches: int

    @property
    def period(self) -> int:
        """Of the cycles whose branches are followed."""
        return self.fmap.period

    @property
    def tolerance(self) -> float:
        """Largest residual of an accepted point, relative to `1 + max|y|`."""
        return float(self.limits.tolerance)

    @property
    def spacing(self) -> float:
        """How far apart neighbouring numbers are, where that is farthest."""
        return float(self.data.spacing)

    @property
    def max_step(self) -> float:
        """Largest arclength per step."""
        return float(self.limits.max_step)

    @property
    def program(self) -> tuple[Map, Data]:
        """What compiled functions are given: programs for cycles serve all periods."""
        return traced_period(self.fmap, self.data)

    def at_period(self, period: int) -> "Problem":
        """The same map, seen as a problem of cycles of another period."""
        return self._replace(fmap=self.fmap._replace(period=period))

    def gap(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """`a - b` of joint points or states, for angles the shorter way around."""
        difference = np.asarray(a - b)
        if not self.fmap.angles:
            return difference
        turn = np.asarray(self.data.angle_period)
        angle, n = np.isfinite(turn), len(turn)
        state = difference[..., :n]
        safe = np.where(angle, turn, 1)
        state = state - np.where(angle, safe * np.round(state / safe), 0)
        return np.concatenate([state, difference[..., n:]], -1)


class Curve(NamedTuple):
    """A branch: joint points `(x, parameter)`, consistently oriented tangents, `dG/dy` at every point."""

    points: np.ndarray
    tangents: np.ndarray
    jacobians: np.ndarray
    multipliers: np.ndarray
    """Eigenvalues of `dF^p/dx`, `[points, n]`, largest modulus first."""
    piece: np.ndarray
    """Numbers the smooth pieces, `[points]`: between neighbours of different pieces lies a corner."""
    ends: tuple[str, str]

    def reversed(self) -> "Curve":
        """The same branch from its other end."""
        points, tangents, jacobians, multipliers, piece = (x[::-1] for x in self[:5])
        return Curve(points, -tangents, jacobians, multipliers, piece, (self.ends[1], self.ends[0]))


def make_curve(points, tangents, jacobians, ends: tuple[str, str], piece: np.ndarray | None = None) -> Curve:
    """A curve with the multipliers of its points."""
    n = jacobians.shape[1]
    values = np.linalg.eigvals(jacobians[:, :, :n] + np.eye(n)).astype(complex)
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=1), axis=1)
    return Curve(points, tangents, jacobians, values, np.zeros(len(points), int) if piece is None else piece, ends)


def join(first: Curve, second: Curve, ends: tuple[str, str]) -> Curve:
    """The points of one curve after those of another."""
    shift = first.piece.max(initial=0) + 1 - second.piece.min(initial=0)
    if len(first.points) and len(second.points):
        # Loose ends are joined inside a smooth piece.
        shift = first.piece[-1] - second.piece[0]
        if (second.piece + shift < first.piece[-1]).any():
            shift = first.piece.max() + 1 - second.piece.min()
    second = second._replace(piece=second.piece + shift)
    return Curve(*(np.concatenate([a, b]) for a, b in zip(first[:5], second[:5])), ends=ends)  # type: ignore[call-arg]


def insert(curve: Curve, rows: np.ndarray, points, tangents, jacobians, piece: np.ndarray) -> Curve:
    """The curve with more points, each after the row that is named for it."""
    order = np.argsort(np.concatenate([np.arange(len(curve.points)), rows + 0.5]), kind="stable")
    more = make_curve(points, tangents, jacobians, curve.ends, piece)
    columns = (np.concatenate([a, b])[order] for a, b in zip(curve[:5], more[:5]))
    return Curve(*columns, ends=curve.ends)  # type: ignore[call-arg]


def in_groups(call, *arrays: np.ndarray, lanes: int = LANES) -> list[np.ndarray]:
    """`call(*arrays)` on rows in groups of one size, so that it is compiled once; numpy arrays come back."""
    count, groups = len(arrays[0]), []
    for i in range(0, count, lanes):
        rows = np.minimum(np.arange(i, i + lanes), count - 1)
        groups.append([np.asarray(a)[: count - i] for a in call(*(a[rows] for a in arrays))])
    return [np.concatenate(parts) for parts in zip(*groups)]


@functools.partial(jax.jit, static_argnames="fmap")
def _correct(fmap, data, anchors, normals, guesses):
    residual = make_residual(fmap, data)
    return jax.vmap(lambda a, n, g: correct(residual, a, n, g))(anchors, normals, guesses)


def correct_in_planes(problem: Problem, anchors: np.ndarray, normals: np.ndarray, guesses: np.ndarray | None = None):
    """The branch's points in planes through the anchors: `(points, tangents, jacobians, errors)` as numpy arrays."""
    guesses = anchors if guesses is None else guesses
    return in_groups(functools.partial(_correct, *problem.program), anchors, normals, guesses)


@functools.partial(jax.jit, static_argnames="fmap")
def _linearise(fmap, data, points):
    residual = make_residual(fmap, data)
    return jax.vmap(lambda y: (residual(y), jax.jacfwd(residual)(y)))(points)


def linearise(problem: Problem, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(G, dG/dy)` at joint points `[points, n + 1]`."""
    values, jacobians = in_groups(functools.partial(_linearise, *problem.program), points)
    return values, jacobians


@functools.partial(jax.jit, static_argnames="fmap")
def _push(fmap, data, points, tangents):
    once, residual = make_map(fmap, data), make_residual(fmap, data)

    def one(y, t):
        x, dx = jax.jvp(once, (y,), (t,))
        y, t = y.at[:-1].set(x), t.at[:-1].set(dx)
        return y, t / jnp.linalg.norm(t), jax.jacfwd(residual)(y)

    return jax.vmap(one)(points, tangents)


def image(problem: Problem, curve: Curve) -> Curve:
    """The branch of the next phase of the cycles: every point mapped once."""
    call = functools.partial(_push, *problem.program)
    points, tangents, jacobians = in_groups(call, curve.points, curve.tangents, lanes=8 * LANES)
    # Similar matrices have the same eigenvalues: the multipliers are those of the first phase.
    return curve._replace(points=points, tangents=tangents, jacobians=jacobians)


@functools.partial(jax.jit, static_argnames=("fmap", "length"))
def _orbit(fmap, data, points, length):
    def one(y):
        def body(x, _):
            return iterate_map(fmap, data, 1)(y.at[:-1].set(x)), x

        last, states = jax.lax.scan(body, y[:-1], length=length)
        return jnp.concatenate([states, last[None]])

    return jax.vmap(one)(points)


def orbits(problem: Problem, points: np.ndarray) -> np.ndarray:
    """`x, F(x), .., F^p(x)` of joint points, `[points, p + 1, n]`."""
    call = functools.partial(_orbit, problem.fmap, problem.data, length=problem.period)
    (states,) = in_groups(lambda y: (call(y),), points)
    return states


def is_shorter(problem: Problem, orbit: np.ndarray, size: float | np.floating) -> bool:
    """Whether an orbit `[p + 1, n]` repeats after a divisor of p already."""
    return shortest_period(problem, orbit, size) < problem.period


def shortest_period(problem: Problem, orbit: np.ndarray, size: float | np.floating) -> int:
    """The least divisor of p after which an orbit `[p + 1, n]` repeats; p itself where none is found."""
    gaps = np.abs(problem.gap(orbit[1:], orbit[0])).max(1)
    p = problem.period
    return next((d for d in range(1, p) if p % d == 0 and gaps[d - 1] < size), p)


def segment_through(problem: Problem, curve: Curve, point: np.ndarray) -> int | None:
    """The segment of the curve that holds the point, or None.

    The curve's own intersection with the plane through the point, across the nearest segments, is solved for by
    Newton, so that neighbouring branches are told apart however close they come.
    """
    a, chord = curve.points[:-1], np.diff(curve.points, axis=0)  # [segments, m]
    lengths = np.linalg.norm(chord, axis=1)
    if not len(lengths):
        return None
    here = a + problem.gap(point, a)  # the point in the turn of each segment
    with np.errstate(invalid="ignore", divide="ignore"):
        share = ((here - a) * chord).sum(1) / lengths**2
    foot = a + np.clip(share, 0, 1)[:, None] * chord
    distance = np.linalg.norm(here - foot, axis=1)
    near = nearness(problem, point)
    # A tangent turns by at most 25 degrees per segment: the curve stays within an eighth of its length.
    possible = np.flatnonzero((distance < 0.3 * lengths + near) & (lengths > 0))
    possible = possible[np.argsort(distance[possible])][:4]
    if not len(possible):
        return None
    anchors = here[possible]
    normals = chord[possible] / lengths[possible][:, None]
    points, _, _, errors = correct_in_planes(problem, anchors, normals, foot[possible])
    same = (np.linalg.norm(points - anchors, axis=1) < near) & (errors <= problem.tolerance)
    return int(possible[np.argmax(same)]) if same.any() else None


def nearness(problem: Problem, point: np.ndarray) -> float:
    """How far apart two solutions may be computed to be and still be one: rounding, magnified as near a fold."""
    return problem.spacing**0.4 * (1 + float(np.abs(point).max())) ** 0.5
