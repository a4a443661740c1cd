"""Events at which several multipliers are critical at once, as the symmetry of a map can make them.

The usual defining systems are singular there. These are overdetermined (all critical vectors at once) but consistent
and of full rank, so that Gauss-Newton converges as Newton's method does.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics._arclength import value_and_jacobian
from cliffs.dynamics._curves import Problem, is_shorter, linearise, orbits
from cliffs.dynamics._fixed_points import solve_fixed_points
from cliffs.dynamics._problem import make_residual
from cliffs.dynamics._special_points import SpecialPoint, real_pair

CRITICAL = {"fold": 1.0, "branch point": 1.0, "flip": -1.0}
"""The critical multiplier of each kind but Neimark-Sacker."""
NEAR_CRITICAL = 0.02
"""Beside an event a multiplier as near as this to the critical value may become critical together with another."""
WANDER = 5e-3
"""A multiple point is accepted within this distance of its bracket: points of the branch are uncertain beside it."""


def locate_multiple(problem: Problem, kind: str, middle: np.ndarray, tolerance: float) -> SpecialPoint | None:
    """The multiple event beside a joint point of a branch, in scaled units; None where there is no such event.

    The unknowns are `(x, lambda)` and all critical vectors V (`[n, k]`):

    - +1 and -1: `G = 0`, `J V = ±V`, `V0^T V = I`; at a branch point also the left vectors P, with `P^T (J - I) = 0`
      and `P^T G_lambda = 0`;
    - Neimark-Sacker: `J (U + iW) = (c + is)(U + iW)`, `c^2 + s^2 = 1`, with the phases fixed by the first guess.
    """
    n = len(middle) - 1
    _, jacobians = linearise(problem, middle[None])
    jacobian = jacobians[0, :, :n] + np.eye(n)
    if not np.isfinite(jacobians).all():
        return None
    count = _count_critical(jacobian, kind)
    for k in range(count, 1, -1):
        systems = (
            [("branch", CRITICAL[kind]), ("plain", CRITICAL[kind])]
            if CRITICAL.get(kind) == 1.0
            else [("plain", -1.0) if kind == "flip" else ("pair", 0.0)]
        )
        for system, multiplier in systems:
            first = _first_guess(system, multiplier, jacobian, middle, k)
            if first is None:
                continue
            z, residual = _gauss_newton(problem, system, multiplier, first, n, k)
            y = np.append(z[:n], z[n])
            if not residual <= 10 * tolerance * (1 + np.abs(y).max()):
                continue
            if not np.linalg.norm(problem.gap(y, middle)) < WANDER * (1 + np.abs(middle).max()):
                continue
            name = kind if kind in ("flip", "Neimark-Sacker") else "branch point" if system == "branch" else "fold"
            vectors = z[n + 1 :]
            angle = float("nan")
            if system == "pair":
                basis = vectors[: n * k].reshape(n, k) + 1j * vectors[n * k : 2 * n * k].reshape(n, k)
                angle = float(abs(np.arctan2(vectors[-1], vectors[-2])))
                if abs(np.sin(angle)) < real_pair(middle.dtype):
                    continue
                what = f"{k} pairs of multipliers"
            else:
                basis = vectors[: n * k].reshape(n, k)
                what = f"{k} multipliers are {int(multiplier):+d}, a kernel of dimension {k}"
            if np.linalg.matrix_rank(basis, tol=1e-3) < k:
                continue
            return SpecialPoint(
                kind=name,
                parameter=float(y[-1]),
                state=y[:-1],
                residual=float(residual),
                note=f"multiple: {what}",
                vector=basis / np.linalg.norm(basis, axis=0),
                angle=angle,
                period=problem.period,
                multiplicity=k,
            )
    return None


def _count_critical(jacobian: np.ndarray, kind: str) -> int:
    """How many multipliers (or pairs of them) may be critical together."""
    values: Any = np.linalg.eigvals(jacobian)
    if kind in CRITICAL:
        return int((np.abs(values - CRITICAL[kind]) < NEAR_CRITICAL).sum())
    pairs = np.asarray(values.imag > real_pair(jacobian.dtype)) & (np.abs(np.abs(values) - 1) < NEAR_CRITICAL)
    return int(pairs.sum())


def _first_guess(system: str, multiplier: float, jacobian: np.ndarray, middle: np.ndarray, k: int) -> Any:
    n = len(middle) - 1
    if system == "pair":
        eig: Any = np.linalg.eig(jacobian)
        values, vectors = eig
        order = np.argsort(np.abs(np.abs(values) - 1) + 1e3 * (values.imag <= 0))[:k]
        basis: Any = np.linalg.qr(vectors[:, order])[0]
        mean = values[order].mean()
        if np.ptp(np.angle(values[order])) > 10 * NEAR_CRITICAL:
            return None  # they cross together at different angles
        mean = mean / abs(mean)
        parts = [basis.real.ravel(), basis.imag.ravel(), [mean.real, mean.imag]]
    else:
        left, _, right = np.linalg.svd(jacobian - multiplier * np.eye(n))
        parts = [right[-k:].T.ravel()]
        if system == "branch":
            parts.append(left[:, -k:].ravel())
    return np.concatenate([middle[:-1], middle[-1:], *parts]).astype(middle.dtype)


@functools.partial(jax.jit, static_argnames=("fmap", "system", "n", "k"))
def _equations(fmap, data, system, multiplier, z, z0, n, k):
    residual, eye = make_residual(fmap, data), jnp.eye(k, dtype=z.dtype)

    def equations(z):
        y = z[: n + 1]
        value, jacobian = value_and_jacobian(residual)(y)  # [n], [n, n + 1]
        step_jacobian = jacobian[:, :n] + jnp.eye(n, dtype=z.dtype)
        rest, rest0 = z[n + 1 :], z0[n + 1 :]
        first, first0 = (v[: n * k].reshape(n, k) for v in (rest, rest0))
        if system == "pair":
            second, second0 = (v[n * k : 2 * n * k].reshape(n, k) for v in (rest, rest0))
            c, s = rest[-2], rest[-1]
            parts = [
                value,
                (step_jacobian @ first - c * first + s * second).ravel(),
                (step_jacobian @ second - s * first - c * second).ravel(),
                (first0.T @ first + second0.T @ second - eye).ravel(),
                (first0.T @ second - second0.T @ first).ravel(),
                (c * c + s * s - 1)[None],
            ]
        else:
            shifted = step_jacobian - multiplier * jnp.eye(n, dtype=z.dtype)
            parts = [value, (shifted @ first).ravel(), (first0.T @ first - eye).ravel()]
            if system == "branch":
                left, left0 = (v[n * k :].reshape(n, k) for v in (rest, rest0))
                parts += [(left.T @ shifted).ravel(), left.T @ jacobian[:, n], (left0.T @ left - eye).ravel()]
        return jnp.concatenate(parts)

    return value_and_jacobian(equations)(z)


def _gauss_newton(problem: Problem, system: str, multiplier: float, first: np.ndarray, n: int, k: int):
    """`(z, largest residual)` of the best iterate."""
    z, best, least = first, first, np.inf
    for _ in range(12):
        value, jacobian = (np.asarray(a) for a in _equations(*problem.program, system, multiplier, z, first, n, k))
        if not (np.isfinite(value).all() and np.isfinite(jacobian).all()):
            break
        error = np.abs(value).max()
        if error < least:
            best, least = z, error
        elif error > 0.5 * least and least < 1e-9:
            break  # the rounding level
        z = (z - np.linalg.lstsq(jacobian, value, rcond=None)[0]).astype(first.dtype)
    return best, least


def solutions_beside(problem: Problem, point: SpecialPoint, bounds: tuple[float, float]) -> list[np.ndarray]:
    """Solutions (joint points) close to a multiple event, before and behind it, where branches born there run.

    They are sought by Newton's method from states displaced along many directions of the kernel, so that none of
    the directions of a symmetry is missed.
    """
    basis = np.asarray(point.vector).reshape(len(point.state), -1)  # [n, k]
    k = basis.shape[1]
    lattice = np.array([d for d in itertools.product((-1, 0, 1), repeat=min(k, 3)) if any(d)], float)
    if k > 3:
        lattice = np.pad(lattice, ((0, 0), (0, k - 3)))
    rng = np.random.default_rng(0)
    directions = np.concatenate([lattice, rng.normal(size=(16 * k, k))])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    # As seen from the kernel's own basis and from the coordinate axes: a symmetry may single out either.
    projected = np.eye(len(basis)) @ basis
    projected = projected[np.linalg.norm(projected, axis=1) > 0.1]
    directions = np.concatenate([directions, projected, -projected])
    moves = np.concatenate([a * directions @ basis.T for a in (0.03, 0.1, 0.3)]).astype(point.state.dtype)
    found: list[np.ndarray] = []
    for shift in (0.01, -0.01):
        value = point.parameter + shift
        if not bounds[0] <= value <= bounds[1]:
            continue
        starts = point.state + moves
        solved = solve_at(problem, np.full(1, value, starts.dtype), starts)[0]
        good, orbit = accepted(problem, solved, value)
        base = len(found)
        for y, states in zip(good, orbit):
            if np.abs(problem.gap(y[:-1], point.state)).max() > 1:
                continue
            if is_shorter(problem, states, 1e-4) or np.abs(problem.gap(y[:-1], point.state)).max() < 1e-3:
                continue
            if not any(np.abs(problem.gap(y, other)).max() < 1e-6 for other in found[base:]):
                found.append(y)
    return found


@functools.partial(jax.jit, static_argnames="fmap")
def _solve_at(fmap, data, values, starts):
    residual = make_residual(fmap, data)

    def displaced(value, x, _):  # its fixed points are the solutions, also where states are angles
        return x + residual(jnp.append(x, value))

    return jax.vmap(lambda v: solve_fixed_points(displaced, v, starts).points)(values)


def solve_at(problem: Problem, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Where Newton leads from every start at every parameter value: `[values, starts, n]`."""
    return np.asarray(_solve_at(*problem.program, jnp.asarray(values), jnp.asarray(starts)))


def accepted(problem: Problem, states: np.ndarray, value: float | np.floating) -> tuple[np.ndarray, np.ndarray]:
    """Those joint points whose residual is that of a solution, with their orbits `[.., p + 1, n]`."""
    points = np.concatenate([states, np.full((len(states), 1), value, states.dtype)], 1)
    points = points[np.isfinite(points).all(1)]
    if not len(points):
        return points, np.zeros((0, problem.period + 1, states.shape[1]), states.dtype)
    low, high = np.asarray(problem.limits.low), np.asarray(problem.limits.high)
    orbit = orbits(problem, points)
    size = problem.tolerance**0.6 * (1 + np.abs(points[:, :-1]).max(1))
    good = np.abs(problem.gap(orbit[:, -1], orbit[:, 0])).max(1) < size
    good &= ((points >= low) & (points <= high)).all(1)
    return points[good], orbit[good]
