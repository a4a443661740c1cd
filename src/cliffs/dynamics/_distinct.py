"""Which of many solutions of `F^p(x) = x` are the same point, or points of the same cycle.

A distance alone cannot tell: rounding blurs a root of order k over a neighbourhood of size `eps^(1/k)`, and two simple
roots may be closer than that. So the residual between two solutions decides. Where it is nowhere larger than rounding
they are one root, if that ends farther out; where it does not, the solutions lie on a continuum, such as a line of
fixed points, and each is a solution of its own.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from cliffs._precision import rounding
from cliffs.dynamics._newton import displacement, newton
from cliffs.dynamics._slow_points import slowest_points
from cliffs.dynamics._units import relative_size, wrapped
from cliffs.typing import Step

_WIDE = 0.5
"""How far apart, relative to `scale + |x|`, neighbours may be among the points that one root of high order has caught.
A continuum of solutions that is shorter than the scale in every direction is taken for such a root."""
_INSIDE = np.linspace(0.125, 0.875, 7)
"""Where on the segment between two solutions the residual is looked at."""
_OUTSIDE = np.array([0.1, 0.3, 1.0])
"""And how far out on either side of its middle."""


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """`F^p(x) = x` in units of the scale, with what the search and the comparison of solutions need; host arrays."""

    step: Step
    params: PyTree
    inputs: PyTree
    period: int
    angle: Float[np.ndarray, " n"]
    """The periods of the angles; 0 for the other entries."""
    num_starts: int
    rounding: float
    """What values relative to `1 + |x|` may be wrong by: a few spacings, or those of an offset that was taken off."""

    def solve(self, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """At most `count` Newton iterations: `(points, residuals)`, each `[points, n]`."""
        # Few starts are padded to one shape for all passes: compiling costs more than they do.
        padded = _padded(points, min(self.num_starts, 64))
        out = newton(self.step, self.params, padded, self.inputs, self.angle, count, period=self.period)
        x, r = (np.array(a)[: len(points)] for a in out[:2])
        return self.canonical(x), r

    def slowest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The slow points near each: `(points, residuals, whether it is a minimum of the speed)`."""
        out = _slowest(self.step, self.params, _padded(points, 1), self.inputs, self.angle, period=self.period)
        x, r, minimum = (np.array(a)[: len(points)] for a in out)
        return self.canonical(x), r, minimum

    def orbits(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Orbits `[points, period, n]`, residuals `[points, n]`, Jacobians of `F^p` `[points, n, n]`, and growths.

        A growth `[points]` is how much of an error in a later point of the orbit is left at its end, at most.
        """
        out = _orbits(self.step, self.params, _padded(points, 1), self.inputs, self.angle, period=self.period)
        orbit, r, jacobian, growth = (np.array(a)[: len(points)] for a in out)
        return self.canonical(orbit), r, jacobian, growth

    def between(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The largest relative residual on each segment from `a` to `b`, and beyond its ends.

        Beyond: the smaller of the largest ones on the two sides.
        """
        packed = _padded(np.concatenate([a, b], 1), 1)
        out = _between(self.step, self.params, packed, self.inputs, self.angle, period=self.period)
        inside, outside = (np.array(x)[: len(a)] for x in out)
        return inside, outside

    def error(self, residual: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Residuals relative to `1 + |x|`; of an angle to 1."""
        with np.errstate(over="ignore"):  # a size whose square is no float is far from 0 all the same
            return relative_size(residual, np.where(self.angle > 0, 0, points))

    def speed(self, residual: np.ndarray) -> np.ndarray:
        """Lengths of residuals."""
        with np.errstate(over="ignore"):
            return np.linalg.norm(residual, axis=1)

    def apart(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Distances relative to `1 + |a|`."""
        return self.error(wrapped(b - a, self.angle), a)

    def canonical(self, points: np.ndarray) -> np.ndarray:
        """Angles in `[0, period)`, where what lies below a whole period by no more than rounding is 0."""
        period = np.where(self.angle > 0, self.angle, 1)
        turned = points - period * np.floor(points / period + rounding(points.dtype))
        return np.where(self.angle > 0, np.maximum(turned, 0), points)


class Distinct(NamedTuple):
    """One row per cycle of minimal period p, sorted; in units of the scale."""

    cycles: Float[np.ndarray, "found period n"]
    hits: Int[np.ndarray, " found"]
    residual: Float[np.ndarray, "found n"]
    jacobians: Float[np.ndarray, "found n n"]
    margin: Float[np.ndarray, " found"]
    """By how much the moduli of the multipliers change over what rounding leaves open about the point's place."""
    shorter: int
    """How many points had a shorter period."""


def distinct_cycles(
    problem: Problem, points: np.ndarray, error: np.ndarray, tolerance: float, merge: float, by_distance: bool
) -> Distinct:
    """The distinct cycles among solutions `[solutions, n]`; with `by_distance` the distance `merge` decides alone."""
    n, dtype = points.shape[1], points.dtype
    if not len(points):
        return Distinct(
            cycles=np.zeros((0, problem.period, n), dtype),
            hits=np.zeros(0, int),
            residual=np.zeros((0, n), dtype),
            jacobians=np.zeros((0, n, n), dtype),
            margin=np.zeros(0),
            shorter=0,
        )
    points = points[np.argsort(error, kind="stable")]  # the best located point of a cluster stands for it
    representative, member = cluster(points, merge if by_distance else tolerance, problem.angle)
    hits = np.bincount(member, minlength=len(representative))
    found = _Solutions(problem, problem.solve(points[representative], 6)[0], tolerance, merge, by_distance)
    if found.singular.any():
        # Newton's method creeps towards a root of higher order.
        polished = found.points.copy()
        polished[found.singular] = problem.solve(polished[found.singular], 100)[0]
        found = _Solutions(problem, polished, tolerance, merge, by_distance)
    groups = found.groups()
    found = _Solutions(problem, found.centres(groups), tolerance, merge, by_distance)
    return found.cycles(np.array([hits[g].sum() for g in groups]))


class _Solutions:
    """Polished solutions with their orbits, and the question which are the same."""

    def __init__(self, problem: Problem, points: np.ndarray, tolerance: float, merge: float, by_distance: bool):
        self.problem, self.points, self.tolerance = problem, points, tolerance
        self.merge, self.by_distance = merge, by_distance
        self.orbits, self.residual, self.jacobians, growth = problem.orbits(points)
        eye = np.eye(points.shape[1])
        finite = np.isfinite(self.jacobians).all((1, 2))
        jacobians = np.array([j if ok else 2 * eye for j, ok in zip(self.jacobians, np.atleast_1d(finite))])
        _, values, rows = np.linalg.svd(jacobians - eye)
        self.least, self.kernel = values[:, -1], rows[:, -1]  # [points], [points, n]
        size = 1 + np.linalg.norm(jacobians, 2, axis=(1, 2))
        grown = np.maximum(size, np.where(np.isfinite(growth), growth, 0))
        self.noise = np.maximum(problem.rounding * grown, problem.error(self.residual, points))
        self.singular = finite & (self.least <= 10 * tolerance**0.5 * np.minimum(size, 10))

    def same(self, i: np.ndarray, other: np.ndarray, noise: np.ndarray, singular: np.ndarray) -> np.ndarray:
        """Whether solutions `self.points[i]` and `other` are the same."""
        apart = self.problem.apart(self.points[i], other)
        if self.by_distance:
            return apart <= self.merge
        same = apart <= self.problem.rounding
        wide = self.singular[i] & singular & (apart <= _WIDE)
        asked = np.flatnonzero((wide | (apart <= self.merge)) & ~same)
        if len(asked):
            inside, outside = self.problem.between(self.points[i][asked], other[asked])
            limit = 4 * np.maximum(self.noise[i], noise)[asked]
            isolated = (outside > 10 * limit) | (apart[asked] <= self.merge)
            same[asked] = (inside <= limit) & isolated
        return same

    def groups(self) -> list[np.ndarray]:
        """Which solutions are one point: lists of their indices, in the order of each list's first."""
        count = len(self.points)
        a, b = _spanning_tree(self.points, self.problem.angle)
        joined = self.same(a, self.points[b], self.noise[b], self.singular[b])
        name = np.arange(count)
        # Along a continuum of solutions neighbours are the same to within rounding, its ends are not.
        continuum = self._on_continuum(a, b, joined)
        for i, j in zip(a[joined & ~continuum], b[joined & ~continuum]):
            name[name == name[j]] = name[i]
        if continuum.any():
            rows = np.unique(np.concatenate([a[continuum], b[continuum]]))
            representative, member = cluster(self.points[rows], self.merge, self.problem.angle)
            for row, k in zip(rows, member):
                name[name == name[row]] = name[rows[representative[k]]]
        firsts = {int(k): i for i, k in reversed(list(enumerate(name)))}
        return [np.flatnonzero(name == k) for k in sorted(firsts, key=firsts.__getitem__)]

    def _on_continuum(self, a: np.ndarray, b: np.ndarray, joined: np.ndarray) -> np.ndarray:
        """Whether the residual stays at rounding far beyond both ends of an edge between equal solutions."""
        on = np.zeros(len(a), bool)
        asked = np.flatnonzero(joined & self.singular[a] & self.singular[b])
        if len(asked) and not self.by_distance:
            outside = self.problem.between(self.points[a[asked]], self.points[b[asked]])[1]
            on[asked] = outside <= 40 * np.maximum(self.noise[a], self.noise[b])[asked]
        return on

    def centres(self, groups: list[np.ndarray]) -> np.ndarray:
        """One point for each group: the best, or of a root of higher order the middle of what rounding leaves open."""
        firsts = np.array([g[np.argmin(self.noise[g])] for g in groups])
        best = self.points[firsts]
        middle = best.copy()
        for k, g in enumerate(groups):
            if len(g) > 1 and self.singular[g].all():
                middle[k] = best[k] + wrapped(self.points[g] - best[k], self.problem.angle).mean(0)
        middle = self.problem.canonical(middle)
        error = self.problem.error(self.problem.orbits(middle)[1], middle)
        return np.where((error <= self.noise[firsts])[:, None], middle, best)

    def cycles(self, hits: np.ndarray) -> Distinct:
        """Solutions grouped into cycles of minimal period p."""
        period, rows = self.problem.period, np.arange(len(self.points))
        phases, first = self._phases(), period * rows
        orbits = phases.points.reshape(self.orbits.shape)
        full = np.ones(len(rows), bool)
        for d in range(1, period):
            if period % d == 0:
                full &= ~self.same(rows, orbits[:, d], phases.noise[first + d], phases.singular[first + d])
        found: list[int] = []
        total: list[int] = []
        for i in np.flatnonzero(full):
            if found and period > 1:
                # Of every cycle so far the point that is nearest.
                nearest = self.problem.apart(self.points[i], orbits[found]).argmin(1)
                there = first[found] + nearest
                here = np.full(len(found), i)
                match = self.same(here, phases.points[there], phases.noise[there], phases.singular[there])
                if match.any():
                    total[int(match.argmax())] += int(hits[i])
                    continue
            found.append(int(i))
            total.append(int(hits[i]))
        shifts = [min(range(period), key=lambda k: tuple(orbits[i, k])) for i in found]
        # The Jacobians of shifted cycles are similar matrices: multipliers do not depend on the shift.
        cycles = np.array([np.roll(orbits[i], -k, axis=0) for i, k in zip(found, shifts)])
        cycles = cycles.reshape(-1, *self.orbits.shape[1:])
        order = sorted(range(len(found)), key=lambda k: tuple(cycles[k, 0]))
        rows = np.array(found, int)[order]
        return Distinct(
            cycles=cycles[order],
            hits=np.array(total, int)[order],
            residual=self.residual[rows],
            jacobians=self.jacobians[rows],
            margin=self._margin(rows),
            shorter=int(hits[~full].sum()),
        )

    def _phases(self) -> "_Solutions":
        """All points of all orbits as solutions of their own: `period` for each."""
        if self.problem.period == 1:
            return self
        points = self.orbits.reshape(-1, self.points.shape[1])
        # An expanding map has multiplied the rounding of the first point in the later ones.
        polished = self.problem.solve(points, 3)[0]
        near = self.problem.apart(points, polished) <= self.merge
        points = np.where(near[:, None], polished, points)
        return _Solutions(self.problem, points, self.tolerance, self.merge, self.by_distance)

    def _margin(self, rows: np.ndarray) -> np.ndarray:
        """How far moduli of multipliers move when a nearly singular root is moved as far as rounding allows."""
        margin = np.zeros(len(rows))
        asked = np.flatnonzero(self.singular[rows])
        if len(asked):
            here = rows[asked]
            reach = np.minimum(self.noise[here] / np.maximum(self.least[here], 1e-300), 1e-2)
            move = reach[:, None] * self.kernel[here] * (1 + np.abs(self.points[here]))
            moduli = [_moduli(self.problem.orbits(self.points[here] + s * move)[2]) for s in (-1, 0, 1)]
            margin[asked] = np.max([np.abs(moduli[0] - moduli[1]), np.abs(moduli[2] - moduli[1])], axis=(0, 2))
        return np.where(np.isfinite(margin), margin, 0)


def _moduli(jacobians: np.ndarray) -> np.ndarray:
    finite = np.where(np.isfinite(jacobians), jacobians, 0)
    return np.sort(np.abs(np.linalg.eigvals(finite)), axis=-1)


def cluster(
    points: Float[np.ndarray, "points n"], distance: float, angle: Any = 0.0
) -> tuple[Int[np.ndarray, " groups"], Int[np.ndarray, " points"]]:
    """Group points closer than `distance` relative to `1 + |x|`: `(index of each group's first point, group of each)`.

    >>> cluster(np.array([[0.0], [5.0], [0.001]]), 0.01)[1].tolist()
    [0, 1, 0]
    """
    centres = np.empty_like(points)
    representative: list[int] = []
    member = np.zeros(len(points), int)
    for i, point in enumerate(points):
        k = len(representative)
        apart = relative_size(wrapped(centres[:k] - point, np.asarray(angle)), point) if k else np.empty(0)
        if k and apart.min() <= distance:
            member[i] = int(apart.argmin())
        else:
            centres[k], member[i] = point, k
            representative.append(i)
    return np.array(representative, int), member


def _spanning_tree(points: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The `points - 1` edges `(from, to)` of the shortest tree that joins all points (Prim)."""
    count = len(points)
    nearest, distance = np.zeros(count, int), np.full(count, np.inf)
    outside = np.ones(count, bool)
    edges = []
    last = 0
    for _ in range(count - 1):
        outside[last] = False
        apart = relative_size(wrapped(points - points[last], angle), points)
        closer = outside & (apart < distance)
        nearest[closer], distance[closer] = last, apart[closer]
        last = int(np.where(outside, distance, np.inf).argmin())
        edges.append((nearest[last], last))
    pairs = np.array(edges, int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _padded(points: np.ndarray, least: int) -> Array:
    """Rows repeated up to 16, 64, 256, ..., and at least to `least`, so that few shapes are compiled."""
    size = 16
    while size < max(len(points), least):
        size *= 4
    return jnp.asarray(points[np.arange(size) % len(points)])


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _slowest(step, params, starts, inputs, angle, *, period):
    x, minimum = slowest_points(step, params, starts, inputs, period=period, angle=angle)
    return x, jax.vmap(displacement(step, params, inputs, period, angle))(x), minimum


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _orbits(step, params, points, inputs, angle, *, period):
    """The orbit of p points of every point, `F^p(x) - x`, the Jacobian of `F^p` and the growth of later errors."""
    residual = displacement(step, params, inputs, period, angle)
    eye = jnp.eye(points.shape[-1], dtype=points.dtype)

    def orbit(x):
        return jax.lax.scan(lambda s, _: (step(params, s, inputs), s), x, length=period)[1]

    def growth(points):
        if period == 1:
            return jnp.zeros((), points.dtype)
        jacobians = jax.vmap(jax.jacfwd(lambda x: step(params, x, inputs)))(points[1:])
        _, products = jax.lax.scan(lambda p, j: (p @ j, p @ j), eye, jacobians, reverse=True)
        return jnp.linalg.norm(products, axis=(1, 2)).max()

    def one(x):
        points = orbit(x)
        return points, residual(x), jax.jacfwd(residual)(x) + eye, growth(points)

    return jax.vmap(one)(points)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _between(step, params, pairs, inputs, angle, *, period):
    """`pairs` `[m, 2 n]`, two points in a row, to relative residuals `[m]` between and `[m]` beyond them."""
    residual = displacement(step, params, inputs, period, angle)

    def error(x):
        return relative_size(residual(x), jnp.where(angle > 0, 0, x))

    inside, far = (jnp.asarray(t, pairs.dtype)[:, None] for t in (_INSIDE, _OUTSIDE))

    def one(pair):
        a, b = jnp.split(pair, 2)
        way = wrapped(b - a, angle)
        middle, length = a + 0.5 * way, relative_size(way, jnp.where(angle > 0, 0, a))
        # Where both points are the same there is no direction to go.
        unit = way / jnp.where(length > 0, length, 1)
        places = jnp.concatenate([a + inside * way, middle + far * unit, middle - far * unit])  # [13, n]
        errors = jax.vmap(error)(places)
        within, ahead, behind = jnp.split(errors, [len(_INSIDE), len(_INSIDE) + len(_OUTSIDE)])
        return within.max(), jnp.minimum(ahead.max(), behind.max())

    return jax.vmap(one)(pairs)
