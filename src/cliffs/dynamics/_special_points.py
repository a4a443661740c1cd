"""Bifurcation points: solved for by Newton's method, classified by their normal form."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike, Float, PyTree

from cliffs._paths import InputPath, Path
from cliffs._precision import reachable_tolerance, spacing
from cliffs.dynamics import _normal_forms as forms
from cliffs.dynamics._arclength import value_and_jacobian
from cliffs.dynamics._extended_systems import KINDS, auxiliary_size, defining_system, guess_auxiliary
from cliffs.dynamics._problem import Data, Map, check_problem, make_data, make_residual, traced_period, vectors
from cliffs.typing import Step


class SpecialPoint(NamedTuple):
    """A bifurcation point on a branch; check `located` before trusting its digits."""

    kind: str
    """"fold" (a multiplier is +1 and the branch turns), "transcritical", "pitchfork" or "branch point" (+1 where two
    branches meet), "flip" (-1), "Neimark-Sacker" (a complex pair on the unit circle), "border collision" (the branch
    meets a corner of a map that is smooth in pieces); "degenerate fold" or "unresolved" for what could be bracketed
    only."""
    parameter: float
    state: np.ndarray
    residual: float
    """Largest residual of the defining equations, in units of the scales: how well it is located."""
    located: bool = True
    """Whether Newton's method reached the tolerance, near the bracket that was found on the branch."""
    note: str = ""
    """Why it was not located; for a located one "supercritical" or "subcritical" where that applies, for a border
    collision "persistence", "non-smooth fold" or "loss of stability", or what is degenerate there: a vanishing
    coefficient, a strong resonance, several critical multipliers at once."""
    coefficient: float = float("nan")
    """The normal form's: quadratic for folds and transcritical points, cubic for flips and pitchforks, the first
    Lyapunov coefficient for Neimark-Sacker points (NaN at strong resonances, where it decides nothing)."""
    vector: np.ndarray | None = None
    """The critical eigenvector, `|v| = 1`; complex for Neimark-Sacker points. Of a multiple point `[n, multiplicity]`,
    a basis of the kernel."""
    angle: float = float("nan")
    """The argument of the critical multiplier of a Neimark-Sacker point, in radians."""
    period: int = 1
    """Of the cycle that bifurcates."""
    multiplicity: int = 1
    """How many multipliers (of a Neimark-Sacker point: pairs) are critical at once, as a symmetry can make them."""
    orbit: np.ndarray | None = None
    """`[period, n]`: all points of the cycle; an event of a cycle is listed once."""


class Located(NamedTuple):
    """What `solve_bifurcation` returns: arrays, so that it can be vmapped."""

    state: Float[Array, " n"]
    parameter: Float[Array, ""]
    auxiliary: Float[Array, " aux"]
    """The other unknowns of the defining system, in scaled units: the critical vector of a fold or flip."""
    residual: Float[Array, ""]
    """In units of the state's scale."""


def solve_bifurcation(
    kind: str,
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    value: Float[Array, ""] | float,
    state: Float[Array, " n"],
    inputs: PyTree = None,
    *,
    period: int = 1,
    max_iterations: int = 20,
    scale: PyTree = None,
    parameter_scale: ArrayLike | None = None,
) -> Located:
    """Newton's method on a bifurcation's defining system; pure, for use under `jit` and `vmap`.

    **Arguments**

    - `kind`: `"fold"`, `"flip"`, `"Neimark-Sacker"` or `"branch point"`.
    - the map as in `continue_branch`; `value` and `state` `[n]`, a point near the bifurcation.
    - `scale`, `parameter_scale`: as in `continue_branch`; by default the moduli of the state's entries and the value.

    **Returns** `Located`; under tracing nothing is raised: check `residual`. Derivatives are those of the solution, by
    the implicit function theorem, in forward and reverse mode.

    Source: Moore & Spence (1980) for folds; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> fold_of = lambda w: solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", -2.6, jnp.ones(1))
    >>> [round(float(b), 3) for b in jax.vmap(fold_of)(jnp.array([4.5, 5.0])).parameter]
    [-2.307, -2.656]
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    state = jnp.asarray(state)
    value = jnp.asarray(value, state.dtype)
    data = _data_at(step, params, inputs, state, value, scale, parameter_scale)
    y = data.scaled(jnp.append(state, value))
    found = _solve_scaled(kind, Map(step, (path,), period), data, y, max_iterations)
    return found._replace(
        state=found.state * data.state_scale + data.centre[:-1],
        parameter=found.parameter * data.parameter_scale[0] + data.centre[-1],
    )


def _data_at(step, params, inputs, state, value, scale, parameter_scale) -> Data:
    """Of a problem that is known at one point only."""
    size = jnp.abs(value)
    ranges = ((-size, size),)
    return make_data(step, params, inputs, state[None], ranges, scale=scale, parameter_scale=parameter_scale)


def _solve_scaled(kind: str, fmap: Map, data: Data, y: Array, max_iterations: int = 20) -> Located:
    n = y.shape[0] - 1
    size, residual = auxiliary_size(kind, n), make_residual(fmap, data)
    aux = guess_auxiliary(kind, jax.jacfwd(residual)(y))
    equations = defining_system(kind, residual, n, aux[: 2 * n])
    # Derivatives by the implicit function theorem: those of the iterates are 0 where the first guess is the solution.
    z, least = jax.lax.custom_root(
        equations,
        jnp.concatenate([y[:n], aux, y[n:]]),
        lambda f, z: newton(f, z, max_iterations),
        lambda linear, value: jnp.linalg.solve(jax.jacfwd(linear)(value), value),
        has_aux=True,
    )
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


_solve = functools.partial(jax.jit, static_argnames=("kind", "fmap", "max_iterations"))(_solve_scaled)


def locate_bifurcation(
    kind: str,
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    value: float | np.floating | Array,
    state: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    tolerance: float | None = None,
    scale: PyTree = None,
    parameter_scale: ArrayLike | None = None,
) -> SpecialPoint:
    """The bifurcation near `(value, state)`, by Newton on its defining system, with its normal form.

    **Arguments**

    - `kind`: `"fold"`, `"flip"`, `"Neimark-Sacker"` or `"branch point"` (which is then told apart into transcritical
      and pitchfork); the map as in `continue_branch`; a point near the bifurcation.
    - `tolerance`: largest residual of a located point, relative to `1 + max|x|` in units of the state's scale; 1e-12
      in float64, 1e-5 in float32.
    - `scale`, `parameter_scale`: as in `continue_branch`; by default the moduli of the state's entries and the value.

    **Returns** a `SpecialPoint`. Where Newton did not reach the tolerance, `located` is False and `note` says so.

    **Raises** `ValueError` for another kind, a path that does not exist or is not scalar, a step that is no map on the
    state's shape, or a tolerance that the state's dtype cannot reach.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> point = locate_bifurcation("fold", one_unit_step, OneUnitParams(5.0, -2.6), "b", -2.6, jnp.array([0.9]))
    >>> round(point.parameter, 3), point.located
    (-2.656, True)
    """
    step, state = vectors(step, state, name="state", axes=0)
    check_problem(step, params, (path,), state, inputs, period)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {kind!r}")
    if kind == "Neimark-Sacker" and state.shape[0] < 2:
        raise ValueError("kind='Neimark-Sacker' needs a pair of complex multipliers, so a state of two or more entries")
    tolerance = reachable_tolerance(tolerance, state.dtype, double=1e-12)
    value = jnp.asarray(value, state.dtype)
    data = _data_at(step, params, inputs, state, value, scale, parameter_scale)
    y = data.scaled(jnp.append(state, value))
    tolerance = max(tolerance, float(data.noise))
    return unscaled(locate(kind, Map(step, (path,), period), data, y, tolerance), data)


def locate(kind: str, fmap: Map, data: Data, y: Any, tolerance: float) -> SpecialPoint:
    """As `locate_bifurcation`, from a joint point `[n + 1]` and with a result in scaled units."""
    # The system of branch points has a reverse derivative, for which a loop must have its length.
    program = (fmap, data) if kind == "branch point" else traced_period(fmap, data)
    found = _solve(kind, *program, jnp.asarray(y))
    x, residual, n = np.asarray(found.state), float(found.residual), len(found.state)
    if 100 * spacing(x.dtype) < residual < tolerance**0.5:
        # Newton's method creeps towards a point of higher order.
        again = jnp.append(found.state, found.parameter)
        more = _solve(kind, *program, again, max_iterations=80)
        if float(more.residual) < 0.5 * residual:
            found, x, residual = more, np.asarray(more.state), float(more.residual)
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
        values = _normal_form(kind, *program, found.state, found.parameter, vector, aux[-2:])
        name, coefficient, note, vector = _classify(kind, values, vector, angle)
        # Extended systems have other solutions: an imperfect branch point, a "pair" on the real line.
        if kind == "branch point" and abs(aux[0]) > 10 * tolerance:
            located = False
            note = f"imperfect: two branches pass close by (G + mu p = 0 with mu = {aux[0]:.1e}); take smaller steps"
        if kind == "Neimark-Sacker" and abs(aux[-1]) < real_pair(x.dtype):
            located, note = False, REAL_PAIR
    return SpecialPoint(
        kind=name,
        parameter=float(found.parameter),
        state=x,
        residual=residual,
        located=located,
        note=note,
        coefficient=coefficient,
        vector=vector,
        angle=angle,
        period=fmap.period,
    )


FLAT = 1e-10
"""Where two branches cross at a smaller angle than the square root of this, they touch as far as can be told."""
DOUBLE = "degenerate: the multiplier is double with one eigenvector, as where a map preserves areas: no coefficient"
REAL_PAIR = "the critical pair is real"


def real_pair(dtype: DTypeLike) -> float:
    """Below this sine of its angle a pair counts as real: rounding splits a double real multiplier by about as much."""
    return float(np.finfo(dtype).eps) ** (1 / 3)


def unscaled(point: SpecialPoint, data: Data) -> SpecialPoint:
    """A point in the user's units; eigenvectors get their length 1, and coefficients theirs, in those units."""
    state, centre = np.asarray(data.state_scale), np.asarray(data.centre)
    vector, coefficient = point.vector, point.coefficient
    if vector is not None:
        vector = (vector.T * state).T
        length = np.linalg.norm(vector, axis=0)
        vector = vector / length
        if point.multiplicity == 1:
            order = 1 if point.kind in ("fold", "transcritical") else 2
            coefficient = coefficient / float(length) ** order
    orbit = None if point.orbit is None else point.orbit * state + centre[:-1]
    return point._replace(
        parameter=point.parameter * float(data.parameter_scale[0]) + float(centre[-1]),
        state=point.state * state + centre[:-1],
        vector=vector,
        coefficient=coefficient,
        orbit=orbit,
    )


@functools.partial(jax.jit, static_argnames=("kind", "fmap"))
def _normal_form(kind, fmap, data, state, value, vector, multiplier):
    residual = make_residual(fmap, data)
    y = jnp.append(state, value)
    if kind == "fold":
        return forms.fold_coefficient(residual, y, vector)
    if kind == "flip":
        return forms.flip_coefficient(residual, y, vector)
    if kind == "Neimark-Sacker":
        return (forms.neimark_sacker_coefficient(residual, y, vector, multiplier[0] + 1j * multiplier[1]),)
    return forms.branching_equation(residual, y)


def _classify(kind: str, values: Any, vector: np.ndarray | None, angle: float):
    """`(kind, coefficient, note, vector)` from the normal form's coefficients (and an NS point's angle)."""
    if kind == "Neimark-Sacker":
        for order in (1, 2, 3, 4):
            if abs(angle - 2 * np.pi / order % (2 * np.pi)) < 1e-4:
                note = f"strong resonance 1:{order}: the Lyapunov coefficient does not decide"
                return kind, float("nan"), note, vector
    # Of Neimark-Sacker points one coefficient, of the others also how far the multiplier is from being double.
    eps = float(jnp.finfo(np.asarray(values[0]).dtype).eps)
    overlap = values[0][-1] if kind == "branch point" else 1.0 if kind == "Neimark-Sacker" else values[1]
    double = not overlap > eps**0.5
    if kind in ("fold", "flip") and double:
        return kind, float("nan"), DOUBLE, vector
    if kind != "branch point":
        value, name = float(values[0]), {"fold": "quadratic", "flip": "cubic"}.get(kind, "Lyapunov")
        # Linear maps get here: with a coefficient of rounding noise its sign says nothing.
        # A fold is no better located than rounding over this coefficient, so it must be far above rounding itself.
        if not abs(value) > (eps**0.5 if kind == "fold" else 1e3 * eps):
            return kind, value, f"degenerate: the {name} coefficient vanishes", vector
        # A flip's coefficient is that of -u + c u^3, which is stable for c > 0.
        good = value > 0 if kind == "flip" else value < 0
        return kind, value, "" if kind == "fold" else "supercritical" if good else "subcritical", vector
    (a, b, c, cubic, _), d1 = np.asarray(values[0], float), np.asarray(values[1])
    vector = d1[:-1] / np.linalg.norm(d1[:-1])
    small = 1e-5 if values[0].dtype == jnp.float64 else 1e-2
    if b * b - a * c <= FLAT * (a * a + b * b + c * c + cubic * cubic):
        return "branch point", float(a), "isolated or degenerate: no second branch to this order", vector
    if abs(a) > small * (abs(a) + abs(b) + abs(cubic)):
        return "transcritical", float("nan") if double else float(a), DOUBLE if double else "", vector
    if abs(cubic) <= small * abs(b):
        return "branch point", float(cubic), "degenerate: no quadratic or cubic term along the critical vector", vector
    if double:
        return "pitchfork", float("nan"), DOUBLE, vector
    return "pitchfork", float(cubic), "supercritical" if cubic < 0 else "subcritical", vector


def switching_tangents(
    step: Step, params: PyTree, path: Path | InputPath, point: SpecialPoint, inputs: PyTree = None
) -> list[np.ndarray]:
    """Unit tangents `(dx, dparameter)` of the two branches that meet at a branch point.

    **Returns** two vectors of `n + 1` entries, or none where the point is degenerate or multiple.

    >>> step = lambda r, x, _: r * x * (1 - x)
    >>> point = locate_bifurcation("branch point", step, 0.9, (), 0.9, jnp.array([0.05]))
    >>> tangents = switching_tangents(step, 0.9, (), point)
    >>> point.kind, sorted(bool(abs(t[0]) > 0.1) for t in tangents)
    ('transcritical', [False, True])
    """
    dtype = np.asarray(point.state).dtype
    n = len(point.state)
    ones = jnp.ones(n, dtype), jnp.ones(1, dtype)
    data = Data(params, inputs, *ones, jnp.full(n, jnp.inf, dtype), jnp.zeros(n + 1, dtype))
    return scaled_switching_tangents(Map(step, (path,), point.period), data, point)


def scaled_switching_tangents(fmap: Map, data: Data, point: SpecialPoint) -> list[np.ndarray]:
    """As `switching_tangents`, of a point in scaled units."""
    if point.multiplicity > 1:
        return []
    dtype = np.asarray(point.state).dtype
    state, value = jnp.asarray(point.state), jnp.asarray(point.parameter, dtype)
    coefficients, d1, d2 = jax.tree.map(
        np.asarray, _normal_form("branch point", fmap, data, state, value, None, np.zeros(2))
    )
    a, b, c, *_ = coefficients.astype(float)
    if point.kind == "pitchfork":
        shares = [(1.0, 0.0), (-c, 2 * b)]
    elif b * b - a * c <= 0:
        return []
    else:
        root = np.sqrt(b * b - a * c)
        shares = [(-b + root, a), (-b - root, a)] if abs(a) >= abs(c) else [(c, -b + root), (c, -b - root)]
    tangents = [s * d1 + t * d2 for s, t in shares]
    return [(t / np.linalg.norm(t)).astype(dtype) for t in tangents]
