"""Bifurcation diagrams: branches of fixed points with their stability, folds and flips located by Newton."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs.dynamics._parameter import Path, get_parameter, set_parameter
from cliffs.dynamics.continuation import Branch, continue_branch, make_problem
from cliffs.dynamics.fixed_points import find_fixed_points
from cliffs.rnn import Step

CRITICAL = {"fold": 1.0, "flip": -1.0}
"""The real multiplier at which each bifurcation happens."""


class SpecialPoint(NamedTuple):
    """A bifurcation point on a branch."""

    kind: str
    """"fold" (a multiplier is +1) or "flip" (a multiplier is -1)."""
    parameter: float
    state: np.ndarray
    residual: float
    """Largest residual of the defining equations: how well it is located."""


class BranchPoints(NamedTuple):
    """The accepted points of a branch, as numpy arrays."""

    parameter: Float[np.ndarray, " points"]
    states: Float[np.ndarray, "points n"]
    multipliers: np.ndarray
    """`[points, n]` complex, largest modulus first."""
    stable: np.ndarray
    left_bounds: bool


class BifurcationDiagram(NamedTuple):
    """What `bifurcation_diagram` returns."""

    branches: list[BranchPoints]
    special: list[SpecialPoint]


@functools.partial(jax.jit, static_argnames=("step", "path", "period"))
def _locate(step, params, path, inputs, period, critical, state, value):
    """Newton on `F^p(x) = x`, `J v = critical v`, `v.v = 1` for `(x, v, lambda)`."""
    problem = make_problem(step, params, path, inputs, period)
    n = state.shape[0]

    def defining(z):
        x, v, lam = z[:n], z[n : 2 * n], z[-1]
        y = jnp.append(x, lam)
        jv = problem.jacobian(y)[:, :-1] @ v + v  # dF/dx v, for G = F - x
        return jnp.concatenate([problem.residual(y), jv - critical * v, (v @ v - 1)[None]])

    jacobian = jax.jacfwd(defining)
    shifted = problem.jacobian(jnp.append(state, value))[:, :-1] + (1 - critical) * jnp.eye(n, dtype=state.dtype)
    v = jnp.linalg.svd(shifted)[2][-1]
    z = jnp.concatenate([state, v, value[None]])
    z, _ = jax.lax.scan(lambda z, _: (z - jnp.linalg.solve(jacobian(z), defining(z)), None), z, length=20)
    return z[:n], z[-1], jnp.max(jnp.abs(defining(z)))


def locate_bifurcation(
    kind: str,
    step: Step,
    params: PyTree,
    path: Path,
    state: Float[Array, " n"],
    value: float,
    *,
    inputs: Any = None,
    period: int = 1,
) -> SpecialPoint:
    """The fold or flip near `(state, value)`: solves `F^p(x; lambda) = x` together with `J v = ±v`, `|v| = 1`.

    **Arguments**: `kind`, `"fold"` or `"flip"`; the map as in `continue_branch`; a point near the bifurcation.

    **Returns** a `SpecialPoint`; check its `residual`.

    **Raises** `ValueError` for another kind.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> point = locate_bifurcation("fold", one_unit_step, OneUnitParams(5.0, -2.6), "b", jnp.array([0.9]), -2.6)
    >>> round(point.parameter, 3)
    -2.656
    """
    if kind not in CRITICAL:
        raise ValueError(f"kind must be one of {sorted(CRITICAL)}, got {kind!r}")
    state = jnp.asarray(state)
    x, lam, residual = _locate(
        step, params, path, inputs, period, CRITICAL[kind], state, jnp.asarray(value, state.dtype)
    )
    return SpecialPoint(kind, float(lam), np.asarray(x), float(residual))


def _special_points(branch: Branch, step, params, path, inputs, period) -> list[SpecialPoint]:
    keep = np.asarray(branch.accepted)
    states, values = np.asarray(branch.states)[keep], np.asarray(branch.parameter)[keep]
    jacobians = np.asarray(branch.jacobians)[keep]
    eye = np.eye(states.shape[1])
    tests = {
        "fold": np.asarray(branch.tangents)[keep][:, -1],
        "flip": np.linalg.slogdet(jacobians + eye)[0],
    }
    found = []
    for kind, test in tests.items():
        for i in np.flatnonzero(np.sign(test[:-1]) * np.sign(test[1:]) < 0):
            point = locate_bifurcation(
                kind, step, params, path, jnp.asarray(states[i]), values[i], inputs=inputs, period=period
            )
            if point.residual < 1e-4:
                found.append(point)
    return found


def bifurcation_diagram(
    step: Step,
    params: PyTree,
    path: Path,
    bounds: tuple[float, float],
    starts: Float[Array, "starts n"],
    *,
    inputs: Any = None,
    period: int = 1,
    num_points: int = 600,
    max_step: float = 0.05,
    num_sections: int = 5,
) -> BifurcationDiagram:
    """All branches of fixed points between two parameter values, with stability, folds and flips.

    Fixed points are searched from the starts at `num_sections` values of the parameter; each that lies on no branch
    found so far is followed both ways.

    **Arguments**

    - `step`, `params`, `path`, `inputs`, `period`: as in `continue_branch`.
    - `bounds`: the parameter interval.
    - `starts`: `[starts, n]`, where Newton starts at every section; their dtype is the precision.
    - `num_points`, `max_step`: of each branch.
    - `num_sections`: how many parameter values are searched for fixed points.

    **Returns** a `BifurcationDiagram`: branches ordered along their arclength, special points sorted by parameter.

    **Raises** `ValueError` for wrong bounds and whatever `continue_branch` refuses.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 4; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> starts = jnp.linspace(-5, 5, 11)[:, None]
    >>> diagram = bifurcation_diagram(one_unit_step, OneUnitParams(5.0, 0.0), "b", (-3.5, -1.5), starts)
    >>> len(diagram.branches), [(p.kind, round(p.parameter, 2)) for p in diagram.special]
    (1, [('fold', -2.66), ('fold', -2.34)])
    """
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds must be (low, high) with low < high, got {bounds}")
    get_parameter(params, path)
    starts = jnp.asarray(starts)
    branches: list[BranchPoints] = []
    special: list[SpecialPoint] = []
    for value in np.linspace(low, high, num_sections):
        here = set_parameter(params, path, jnp.asarray(value, starts.dtype))
        for point in find_fixed_points(step, here, starts, inputs, period=period).points:
            if any(_on_branch(b, point, value) for b in branches):
                continue
            halves = [
                continue_branch(
                    step, here, path, jnp.asarray(point), bounds, inputs=inputs, period=period, direction=direction,
                    num_points=num_points, max_step=max_step,
                )
                for direction in (-1, 1)
            ]  # fmt: skip
            for half in halves:
                special += _special_points(half, step, here, path, inputs, period)
            branches.append(_join(*halves))
    return BifurcationDiagram(branches, _unique(special))


def _join(back: Branch, forth: Branch) -> BranchPoints:
    a, b = np.asarray(back.accepted), np.asarray(forth.accepted)

    def both(x, y):
        return np.concatenate([np.asarray(x)[a][::-1], np.asarray(y)[b][1:]])

    multipliers = np.linalg.eigvals(both(back.jacobians, forth.jacobians))
    multipliers = np.take_along_axis(multipliers, np.argsort(-np.abs(multipliers), axis=1), axis=1)
    return BranchPoints(
        both(back.parameter, forth.parameter),
        both(back.states, forth.states),
        multipliers,
        np.asarray(np.abs(multipliers[:, 0]) < 1),
        bool(back.left_bounds) and bool(forth.left_bounds),
    )


def _on_branch(branch: BranchPoints, point: np.ndarray, value: float) -> bool:
    """Whether a branch crosses `value` at `point`, by interpolation between its points."""
    offset = branch.parameter - value
    for i in np.flatnonzero(offset[:-1] * offset[1:] <= 0):
        span = offset[i] - offset[i + 1]
        share = offset[i] / span if span else 0.0
        crossing = branch.states[i] + share * (branch.states[i + 1] - branch.states[i])
        if np.linalg.norm(crossing - point) < 1e-2 * (1 + np.linalg.norm(point)):
            return True
    ends = np.array([branch.states[0], branch.states[-1]])
    near = np.linalg.norm(ends - point, axis=1) < 1e-1 * (1 + np.linalg.norm(point))
    return bool((near & (np.abs(offset[[0, -1]]) < 0.1)).any())


def _unique(points: list[SpecialPoint]) -> list[SpecialPoint]:
    kept: list[SpecialPoint] = []
    for point in sorted(points, key=lambda p: p.parameter):
        same = (
            p.kind == point.kind
            and abs(p.parameter - point.parameter) < 1e-4
            and np.linalg.norm(p.state - point.state) < 1e-3
            for p in kept
        )
        if not any(same):
            kept.append(point)
    return kept
