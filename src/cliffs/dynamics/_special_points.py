"""Bifurcation points: solved for by Newton's method, classified by their normal form."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs._paths import Path
from cliffs._precision import reachable_tolerance
from cliffs.dynamics import _normal_forms as forms
from cliffs.dynamics._arclength import value_and_jacobian
from cliffs.dynamics._continuation import check_problem, make_residual, vectors
from cliffs.dynamics._extended_systems import KINDS, auxiliary_size, defining_system, guess_auxiliary
from cliffs.typing import Step


class SpecialPoint(NamedTuple):
    """A bifurcation point on a branch; check `located` before trusting its digits."""

    kind: str
    """"fold" (a multiplier is +1 and the branch turns), "transcritical", "pitchfork" or "branch point" (+1 where two
    branches cross), "flip" (-1), "Neimark-Sacker" (a complex pair on the unit circle); "degenerate fold" or
    "unresolved" for what could be bracketed only."""
    parameter: float
    state: np.ndarray
    residual: float
    """Largest residual of the defining equations: how well it is located."""
    located: bool = True
    """Whether Newton's method reached the tolerance, near the bracket that was found on the branch."""
    note: str = ""
    """Why it was not located; for a located one "supercritical" or "subcritical" where that applies, or what is
    degenerate there: a vanishing coefficient, a strong resonance."""
    coefficient: float = float("nan")
    """The normal form's: quadratic for folds and transcritical points, cubic for flips and pitchforks, the first
    Lyapunov coefficient for Neimark-Sacker points (NaN at the resonances 1:3 and 1:4, where it decides nothing)."""
    vector: np.ndarray | None = None
    """The critical eigenvector, `|v| = 1`; complex for Neimark-Sacker points."""
    angle: float = float("nan")
    """The argument of the critical multiplier of a Neimark-Sacker point, in radians."""
    period: int = 1
    """Of the cycle that bifurcates."""


class Located(NamedTuple):
    """What `solve_bifurcation` returns: arrays, so that it can be vmapped."""

    state: Float[Array, " n"]
    parameter: Float[Array, ""]
    auxiliary: Float[Array, " aux"]
    """The other unknowns of the defining system: the critical vector of a fold or flip."""
    residual: Float[Array, ""]


def solve_bifurcation(
    kind: str,
    step: Step,
    params: PyTree,
    path: Path,
    state: Float[Array, " n"],
    value: Float[Array, ""] | float,
    *,
    inputs: Any = None,
    period: int = 1,
    max_iterations: int = 20,
) -> Located:
    """Newton's method on a bifurcation's defining system; pure, for use under `jit` and `vmap`.

    **Arguments**

    - `kind`: `"fold"`, `"flip"`, `"Neimark-Sacker"` or `"branch point"`.
    - the map as in `continue_branch`; `state` `[n]` and `value`, a point near the bifurcation.

    **Returns** `Located`; under tracing nothing is raised: check `residual`.

    Source: Moore & Spence (1980) for folds; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> fold_of = lambda w: solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", jnp.ones(1), -2.6)
    >>> [round(float(b), 3) for b in jax.vmap(fold_of)(jnp.array([4.5, 5.0])).parameter]
    [-2.307, -2.656]
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    state = jnp.asarray(state)
    n, size = state.shape[0], auxiliary_size(kind, state.shape[0])
    residual = make_residual(step, params, (path,), inputs, period)
    y = jnp.append(state, jnp.asarray(value, state.dtype))
    aux = guess_auxiliary(kind, jax.jacfwd(residual)(y))
    equations = defining_system(kind, residual, n, aux[: 2 * n])
    z, least = newton(equations, jnp.concatenate([state, aux, y[n:]]), max_iterations)
    return Located(z[:n], z[-1], z[n : n + size], least)


def newton(equations: Any, z: Array, max_iterations: int = 20) -> tuple[Array, Array]:
    """The best iterate of Newton's method and its largest residual.

    The best, since the last ones only jitter at the rounding level, or have left for infinity.
    """
    both = value_and_jacobian(equations)

    def body(carry, _):
        z, best, least = carry
        value, jacobian = both(z)
        error = jnp.max(jnp.abs(value))
        better = error < least
        best, least = jnp.where(better, z, best), jnp.where(better, error, least)
        return (z - jnp.linalg.solve(jacobian, value), best, least), None

    first = (z, z, jnp.asarray(jnp.inf, z.dtype))
    (_, z, least), _ = jax.lax.scan(body, first, length=max_iterations)
    return z, least


_solve = functools.partial(jax.jit, static_argnames=("kind", "step", "path", "period", "max_iterations"))(
    solve_bifurcation
)


def locate_bifurcation(
    kind: str,
    step: Step,
    params: PyTree,
    path: Path,
    state: Float[Array, " n"],
    value: float | np.floating | Array,
    *,
    inputs: Any = None,
    period: int = 1,
    tolerance: float | None = None,
) -> SpecialPoint:
    """The bifurcation near `(state, value)`, by Newton on its defining system, with its normal form.

    **Arguments**

    - `kind`: `"fold"`, `"flip"`, `"Neimark-Sacker"` or `"branch point"` (which is then told apart into transcritical
      and pitchfork); the map as in `continue_branch`; a point near the bifurcation.
    - `tolerance`: largest residual of a located point, relative to `1 + max|x|`; 1e-12 in float64, 1e-5 in float32.

    **Returns** a `SpecialPoint`. Where Newton did not reach the tolerance, `located` is False and `note` says so.

    **Raises** `ValueError` for another kind, a path that does not exist or is not scalar, a step that is no map on the
    state's shape, or a tolerance that the state's dtype cannot reach.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> point = locate_bifurcation("fold", one_unit_step, OneUnitParams(5.0, -2.6), "b", jnp.array([0.9]), -2.6)
    >>> round(point.parameter, 3), point.located
    (-2.656, True)
    """
    step, state = vectors(step, state, name="state", axes=0)
    check_problem(step, params, path, state, inputs, period)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    if kind == "Neimark-Sacker" and state.shape[0] < 2:
        raise ValueError("kind='Neimark-Sacker' needs a pair of complex multipliers, so a state of two or more entries")
    tolerance = reachable_tolerance(tolerance, state.dtype, double=1e-12)
    found = _solve(kind, step, params, path, state, value, inputs=inputs, period=period)
    x, residual, n = np.asarray(found.state), float(found.residual), state.shape[0]
    located = bool(residual <= tolerance * (1 + np.abs(x).max()))
    note = "" if located else f"Newton stopped at a residual of {residual:.1e}"
    aux = np.asarray(found.auxiliary)
    vector, angle, coefficient = None, float("nan"), float("nan")
    name = kind
    if kind in ("fold", "flip"):
        vector = aux / np.linalg.norm(aux)
    elif kind == "Neimark-Sacker":
        vector = aux[:n] + 1j * aux[n : 2 * n]
        vector = vector / np.linalg.norm(vector)
        angle = float(abs(np.arctan2(aux[-1], aux[-2])))
    if located:
        values = _normal_form(kind, step, params, path, inputs, period, found.state, found.parameter, vector, aux[-2:])
        name, coefficient, note, vector = _classify(kind, values, vector, aux[-2:])
        # Extended systems have other solutions: an imperfect branch point, a "pair" on the real line.
        if kind == "branch point" and abs(aux[0]) > 10 * tolerance:
            located = False
            note = f"imperfect: two branches pass close by (G + mu p = 0 with mu = {aux[0]:.1e}); take smaller steps"
        if kind == "Neimark-Sacker" and abs(aux[-1]) < 1e-6:
            located, note = False, "the critical pair is real"
    return SpecialPoint(name, float(found.parameter), x, residual, located, note, coefficient, vector, angle, period)


@functools.partial(jax.jit, static_argnames=("kind", "step", "path", "period"))
def _normal_form(kind, step, params, path, inputs, period, state, value, vector, multiplier):
    residual = make_residual(step, params, (path,), inputs, period)
    y = jnp.append(state, value)
    if kind == "fold":
        return forms.fold_coefficient(residual, y, vector)
    if kind == "flip":
        return forms.flip_coefficient(residual, y, vector)
    if kind == "Neimark-Sacker":
        return forms.neimark_sacker_coefficient(residual, y, vector, multiplier[0] + 1j * multiplier[1])
    return forms.branching_equation(residual, y)


def _classify(kind: str, values: Any, vector: np.ndarray | None, multiplier: np.ndarray):
    """`(kind, coefficient, note, vector)` from the normal form's coefficients (and an NS point's `(Re mu, Im mu)`)."""
    if kind == "Neimark-Sacker":
        mu = complex(*multiplier)
        for order in (3, 4):
            if abs(mu**order - 1) < 1e-4:
                return (
                    kind,
                    float("nan"),
                    f"strong resonance 1:{order}: the Lyapunov coefficient does not decide",
                    vector,
                )
    if kind != "branch point":
        value, name = float(values), {"fold": "quadratic", "flip": "cubic"}.get(kind, "Lyapunov")
        # Linear maps get here: with a coefficient of rounding noise its sign says nothing.
        if not abs(value) > 1e3 * float(jnp.finfo(values.dtype).eps):
            return kind, value, f"degenerate: the {name} coefficient vanishes", vector
        # A flip's coefficient is that of -u + c u^3, which is stable for c > 0.
        good = value > 0 if kind == "flip" else value < 0
        return kind, value, "" if kind == "fold" else "supercritical" if good else "subcritical", vector
    (a, b, c, cubic), d1 = np.asarray(values[0], float), np.asarray(values[1])
    vector = d1[:-1] / np.linalg.norm(d1[:-1])
    small = 1e-5 if values[0].dtype == jnp.float64 else 1e-2
    if b * b - a * c <= 0:
        return "branch point", float(a), "isolated or degenerate: no second branch to this order", vector
    if abs(a) > small * (abs(a) + abs(b) + abs(cubic)):
        return "transcritical", float(a), "", vector
    if abs(cubic) <= small * abs(b):
        return "branch point", float(cubic), "degenerate: no quadratic or cubic term along the critical vector", vector
    return "pitchfork", float(cubic), "supercritical" if cubic < 0 else "subcritical", vector


def crossing_tangents(
    step: Step, params: PyTree, path: Path, point: SpecialPoint, *, inputs: Any = None
) -> list[np.ndarray]:
    """Unit tangents `(dx, dparameter)` of the two branches that cross at a branch point.

    **Returns** two vectors of `n + 1` entries, or none where the point is degenerate.

    >>> step = lambda r, x, _: r * x * (1 - x)
    >>> point = locate_bifurcation("branch point", step, 0.9, (), jnp.array([0.05]), 0.9)
    >>> tangents = crossing_tangents(step, 0.9, (), point)
    >>> point.kind, sorted(bool(abs(t[0]) > 0.1) for t in tangents)
    ('transcritical', [False, True])
    """
    dtype = np.asarray(point.state).dtype
    state, value = jnp.asarray(point.state), jnp.asarray(point.parameter, dtype)
    coefficients, d1, d2 = jax.tree.map(
        np.asarray,
        _normal_form("branch point", step, params, path, inputs, point.period, state, value, None, np.zeros(2)),
    )
    a, b, c, _ = coefficients.astype(float)
    if point.kind == "pitchfork":
        shares = [(1.0, 0.0), (-c, 2 * b)]
    elif b * b - a * c <= 0:
        return []
    else:
        root = np.sqrt(b * b - a * c)
        shares = [(-b + root, a), (-b - root, a)] if abs(a) >= abs(c) else [(c, -b + root), (c, -b - root)]
    tangents = [s * d1 + t * d2 for s, t in shares]
    return [(t / np.linalg.norm(t)).astype(dtype) for t in tangents]
