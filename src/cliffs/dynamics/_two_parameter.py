"""Curves of folds and flips in two parameters, through cusps, with the codimension-two points on them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from cliffs._paths import Path, get_parameter
from cliffs._precision import reachable_tolerance
from cliffs.dynamics import _normal_forms as forms
from cliffs.dynamics._arclength import CLOSED, ENDS, correct, trace
from cliffs.dynamics._continuation import check_bounds, check_problem, make_residual, vectors
from cliffs.dynamics._extended_systems import defining_system, guess_auxiliary
from cliffs.dynamics._special_points import newton
from cliffs.typing import Step

CODIMENSION_TWO = {
    "fold": ("cusp", "1:1 resonance", "fold-flip"),
    "flip": ("generalized flip", "1:2 resonance", "fold-flip"),
}
"""What is looked for on each kind of curve."""


class CodimensionTwoPoint(NamedTuple):
    """A point of a curve where a second condition holds."""

    kind: str
    """On fold curves "cusp" (the quadratic coefficient vanishes), "1:1 resonance" or "fold-flip"; on flip curves
    "generalized flip" (the cubic coefficient vanishes), "1:2 resonance" or "fold-flip"."""
    parameters: np.ndarray
    state: np.ndarray
    residual: float
    located: bool
    note: str = ""


class BifurcationCurve(NamedTuple):
    """A curve of folds or flips; numpy arrays in the order of arclength."""

    kind: str
    parameters: Float[np.ndarray, "points 2"]
    states: Float[np.ndarray, "points n"]
    vectors: Float[np.ndarray, "points n"]
    """The critical eigenvector, `|v| = 1`."""
    special: list[CodimensionTwoPoint]
    ends: tuple[str, str]
    """Why the curve stops at either end, in the words of `cliffs.dynamics.ENDS`."""


def bifurcation_curve(
    kind: str,
    step: Step,
    params: PyTree,
    paths: tuple[Path, Path],
    state: PyTree,
    bounds: tuple[tuple[float, float], tuple[float, float]],
    *,
    inputs: Any = None,
    period: int = 1,
    num_points: int = 800,
    max_step: float = 0.1,
    tolerance: float | None = None,
) -> BifurcationCurve:
    """The curve of folds (`J v = v`) or flips (`J v = -v`) through a point, in a plane of two parameters.

    Pseudo-arclength continuation of the extended system `F^p(x) = x`, `J v = ±v`, `v . v = 1` in `(x, v, p1, p2)`. It
    is regular at cusps, so a fold curve runs through them. Codimension-two points are bracketed by their test
    functions and located by Newton.

    **Arguments**

    - `kind`: `"fold"` or `"flip"`.
    - `step`, `params`, `inputs`, `period`: the map; `paths` names the two parameters, whose present values and `state`
      (`[n]` or a pytree) lie near the curve: one of the two, whichever needs the smaller change, is corrected first.
    - `bounds`: `((low, high), (low, high))`, one pair for each parameter.
    - `num_points`: attempts in each direction; `max_step`: largest arclength per step, in units of `(x, v, p1, p2)`.
    - `tolerance`: of the accepted points, 1e-11 in float64 and 1e-5 in float32 by default; codimension-two points are
      solved for to the rounding level.

    **Returns** a `BifurcationCurve`; `ends` says honestly why it stops.

    **Raises** `ValueError` for another kind, paths that do not exist or are not scalar, wrong bounds, present values
    outside of them, a step that is no map on the state's shape, a tolerance that the dtype cannot reach, or a state
    from which Newton finds no such bifurcation.

    Source: Kuznetsov, Elements of applied bifurcation theory, ch. 9 and 10.7.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> curve = bifurcation_curve(
    ...     "fold", one_unit_step, OneUnitParams(5.0, -2.66), ("w", "b"), jnp.array([0.96]), ((3.0, 6.0), (-4.0, 0.0))
    ... )
    >>> [(p.kind, p.parameters.round(3).tolist()) for p in curve.special]
    [('cusp', [4.0, -2.0])]
    """
    if kind not in CODIMENSION_TWO:
        raise ValueError(f"kind must be one of {sorted(CODIMENSION_TWO)}, got {kind!r}")
    if len(paths) != 2 or paths[0] == paths[1]:
        raise ValueError(f"paths must name two different parameters, got {paths!r}")
    if len(bounds) != 2 or any(np.ndim(b) != 1 for b in bounds):
        raise ValueError(f"bounds must be ((low, high), (low, high)), got {bounds!r}")
    step, x = vectors(step, state, name="state", axes=0)
    present = [float(get_parameter(params, path)) for path in paths]
    for path, pair, value in zip(paths, bounds, present):
        check_problem(step, params, path, x, inputs, period)
        check_bounds(pair)
        if not pair[0] <= value <= pair[1]:
            raise ValueError(f"bounds={pair} do not hold the present value {value} of {path!r}")
    if num_points < 3 or max_step <= 0:
        raise ValueError(f"num_points must be at least 3 and max_step positive, got {num_points=}, {max_step=}")
    tolerance = reachable_tolerance(tolerance, x.dtype, double=1e-11)
    paths = (paths[0], paths[1])
    values = jnp.stack([get_parameter(params, path).astype(x.dtype) for path in paths])
    limits = jnp.asarray(bounds, x.dtype)
    start, error = _start(kind, step, params, paths, x, values, inputs, period)
    if not float(error) <= 10 * tolerance * (1 + float(jnp.max(jnp.abs(start)))):
        raise ValueError(
            f"state={state} leads to no {kind} near {paths[0]!r} = {float(values[0])}, {paths[1]!r} = "
            f"{float(values[1])}: Newton stopped at a residual of {float(error):.1e}"
        )
    out = _follow(
        kind, step, params, paths, start, (limits[:, 0], limits[:, 1]), inputs, period, num_points,
        jnp.asarray(max_step, x.dtype), tolerance,
    )  # fmt: skip
    points, _, _, accepted, ends, _ = (np.asarray(a) for a in out)
    halves = [points[i][accepted[i]] for i in (0, 1)]
    if ends[0] == CLOSED:
        z, names = halves[0], (ENDS[CLOSED], ENDS[CLOSED])
    else:
        z, names = np.concatenate([halves[1][:0:-1], halves[0]]), (ENDS[ends[1]], ENDS[ends[0]])
    n = x.shape[0]
    special = _codimension_two(kind, step, params, paths, inputs, period, z, n)
    return BifurcationCurve(kind, z[:, -2:], z[:, :n], z[:, n : 2 * n], special, names)


@functools.partial(jax.jit, static_argnames=("kind", "step", "paths", "period"))
def _start(kind, step, params, paths, x, values, inputs, period):
    """The nearest point of the curve when only one of the two parameters moves: `(z, residual)`."""
    n = x.shape[0]
    residual = make_residual(step, params, paths, inputs, period)
    y = jnp.concatenate([x, values])
    aux = guess_auxiliary(kind, jax.jacfwd(residual)(y)[:, :-1])
    equations = defining_system(kind, residual, n)
    z = jnp.concatenate([x, aux, values])

    def moving(free):
        """Newton with only one of the two parameters free to move."""
        return newton(lambda z: jnp.append(equations(z), (1 - free) @ (z[-2:] - values)), z)

    found, errors = jax.vmap(moving)(jnp.eye(2, dtype=z.dtype))
    # Both may work: the smaller change wins.
    cost = jnp.where(errors < 1e-6, jnp.linalg.norm(found[:, -2:] - values, axis=1), jnp.inf)
    best = jnp.where(jnp.all(jnp.isinf(cost)), jnp.argmin(errors), jnp.argmin(cost))
    return found[best], errors[best]


@functools.partial(jax.jit, static_argnames=("kind", "step", "paths", "period", "num_points"))
def _follow(kind, step, params, paths, start, bounds, inputs, period, num_points, max_step, tolerance):
    n = (start.shape[0] - 2) // 2
    equations = defining_system(kind, make_residual(step, params, paths, inputs, period), n)
    tangent = jnp.linalg.svd(jax.jacfwd(equations)(start), full_matrices=True)[2][-1]
    start, tangent, _, _ = correct(equations, start, tangent)

    def one(sign):
        return trace(
            equations, start, sign * tangent, bounds, num_points=num_points, step_size=max_step / 4,
            max_step=max_step, min_step=1e-6 * max_step, tolerance=tolerance,
        )  # fmt: skip

    return jax.vmap(one)(jnp.array([1.0, -1.0], start.dtype))


@functools.partial(jax.jit, static_argnames=("kind", "step", "paths", "period"))
def _measure(kind, step, params, paths, inputs, period, z):
    """For every point: the left vector (of either sign), its product with the right one, the form, the Jacobian."""
    n = (z.shape[1] - 2) // 2
    residual = make_residual(step, params, paths, inputs, period)
    eye = jnp.eye(n, dtype=z.dtype)

    def one(z):
        y, q = jnp.concatenate([z[:n], z[-2:]]), z[n : 2 * n]
        jacobian = forms.state_jacobian(residual, y, n) + eye
        shifted = jacobian - eye if kind == "fold" else jacobian + eye
        p = jnp.linalg.svd(shifted)[0][:, -1]
        form = forms.fold_form(residual, y, q) if kind == "fold" else forms.flip_form(residual, y, q)
        return p, p @ q, p @ form, jnp.linalg.slogdet(jacobian + eye if kind == "fold" else jacobian - eye)[0]

    return jax.vmap(one)(z)


@functools.partial(jax.jit, static_argnames=("kind", "what", "step", "paths", "period"))
def _solve(kind, what, step, params, paths, inputs, period, z, p0):
    """Newton on the curve's equations together with the vanishing of one test function."""
    n = (z.shape[0] - 2) // 2
    residual = make_residual(step, params, paths, inputs, period)
    equations = defining_system(kind, residual, n)
    eye = jnp.eye(n, dtype=z.dtype)
    q0 = z[n : 2 * n]

    def bordered(matrix, column, row):
        """The null vector scaled by `row`, and a number that vanishes with the determinant."""
        whole = jnp.block([[matrix, column[:, None]], [row[None], jnp.zeros((1, 1), z.dtype)]])
        solution = jnp.linalg.solve(whole, jnp.zeros(n + 1, z.dtype).at[-1].set(1))
        return solution[:n], solution[n]

    other = guess_auxiliary("flip" if kind == "fold" else "fold", jax.jacfwd(residual)(jnp.append(z[:n], z[-2:])))

    def test(z):
        y, q = jnp.concatenate([z[:n], z[-2:]]), z[n : 2 * n]
        jacobian = forms.state_jacobian(residual, y, n) + eye
        if what == "fold-flip":
            return bordered(jacobian + eye if kind == "fold" else jacobian - eye, other, other)[1]
        p, _ = bordered((jacobian - eye if kind == "fold" else jacobian + eye).T, q0, p0)
        if what.endswith("resonance"):
            return p @ q
        return p @ (forms.fold_form if kind == "fold" else forms.flip_form)(residual, y, q)

    return newton(lambda z: jnp.append(equations(z), test(z)), z)


def _codimension_two(kind, step, params, paths, inputs, period, z, n) -> list[CodimensionTwoPoint]:
    if len(z) < 2:
        return []
    count = 64 * -(-len(z) // 64)  # few shapes, few compilations
    padded = z[np.minimum(np.arange(count), len(z) - 1)]
    p, overlap, form, other = (
        np.asarray(a)[: len(z)] for a in _measure(kind, step, params, paths, inputs, period, padded)
    )
    # A singular vector's sign is arbitrary: carry it along the curve.
    sign = np.cumprod(np.append(1, np.where((p[1:] * p[:-1]).sum(1) < 0, -1, 1)))
    tests = dict(zip(CODIMENSION_TWO[kind], (sign * form, sign * overlap, other)))
    found = []
    for what, values in tests.items():
        for i in np.flatnonzero(np.sign(values[:-1]) * np.sign(values[1:]) < 0):
            middle, length = (z[i] + z[i + 1]) / 2, np.linalg.norm(z[i + 1] - z[i])
            solution, residual = _solve(kind, what, step, params, paths, inputs, period, jnp.asarray(middle), p[i])
            solution, residual = np.asarray(solution), float(residual)
            limit = 1e-12 if z.dtype == np.float64 else 1e-5
            near = np.linalg.norm(solution - middle) < 3 * length
            located = residual <= limit * (1 + np.abs(solution).max()) and bool(near)
            note = "" if located else f"Newton stopped at a residual of {residual:.1e}" if near else "Newton wandered"
            at = solution if located else middle
            found.append(CodimensionTwoPoint(what, at[-2:], at[:n], residual, located, note))
    return found
