"""Curves of folds and flips in two parameters, through cusps, with the codimension-two points on them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, PyTree

from cliffs._paths import InputPath, Path
from cliffs.dynamics import _normal_forms as forms
from cliffs.dynamics._arclength import CLOSED, ENDS, NO_START, correct, trace
from cliffs.dynamics._continuation import make_limits
from cliffs.dynamics._events import sign_changes
from cliffs.dynamics._extended_systems import defining_system, guess_auxiliary
from cliffs.dynamics._problem import (
    STEPPING,
    Map,
    Stepping,
    check_bounds,
    check_problem,
    get_value,
    make_data,
    make_residual,
    vectors,
)
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
    paths: tuple[Path | InputPath, Path | InputPath],
    bounds: tuple[tuple[float, float], tuple[float, float]],
    state: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    stepping: Stepping = STEPPING,
    scale: PyTree = None,
    parameter_scale: ArrayLike | tuple[float, float] | None = None,
    state_bounds: tuple[PyTree, PyTree] | None = None,
    period_of_state: PyTree = None,
) -> BifurcationCurve:
    """The curve of folds (`J v = v`) or flips (`J v = -v`) through a point, in a plane of two parameters.

    Pseudo-arclength continuation of the extended system `F^p(x) = x`, `J v = ±v`, `v . v = 1` in `(x, v, p1, p2)`. It
    is regular at cusps, so a fold curve runs through them. Codimension-two points are bracketed by their test
    functions and located by Newton.

    **Arguments**

    - `kind`: `"fold"` or `"flip"`.
    - `step`, `params`, `inputs`, `period`: the map; `paths` names the two parameters, whose present values and `state`
      (`[n]` or a pytree) lie near the curve: one of the two, whichever needs the smaller change inside the bounds, is
      corrected first.
    - `bounds`: `((low, high), (low, high))`, one pair for each parameter.
    - `stepping`: lengths of steps, attempts in each direction and tolerance of the accepted points, in units of the
      scales; codimension-two points are solved for to the rounding level.
    - `scale`, `parameter_scale`: as in `continue_branch`, the second a number or a pair; by default the moduli of the
      state's entries and half the widths of the bounds.
    - `state_bounds`, `period_of_state`: as in `continue_branch`.

    **Returns** a `BifurcationCurve`; `ends` says why it stops.

    **Raises** `ValueError` for another kind, paths that do not exist or are not scalar, wrong bounds, present values
    outside of them, a step that is no map on the state's shape, a tolerance that the dtype cannot reach, a state
    from which Newton finds no such bifurcation inside the bounds, or one where it finds a point through which no
    single curve of the kind runs (a pitchfork is no fold; several multipliers critical at once).

    Source: Kuznetsov, Elements of applied bifurcation theory, ch. 9 and 10.7.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> params, bounds = OneUnitParams(5.0, -2.66), ((3.0, 6.0), (-4.0, 0.0))
    >>> curve = bifurcation_curve("fold", one_unit_step, params, ("w", "b"), bounds, jnp.array([0.96]))
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
    check_problem(step, params, tuple(paths), x, inputs, period)
    present = [float(get_value(params, inputs, path)) for path in paths]
    for path, pair, value in zip(paths, bounds, present):
        check_bounds(pair)
        if not pair[0] <= value <= pair[1]:
            raise ValueError(f"bounds={pair} do not hold the present value {value} of {path!r}")
    data = make_data(
        step,
        params,
        inputs,
        x[None],
        tuple(bounds),
        scale=scale,
        parameter_scale=parameter_scale,
        period_of_state=period_of_state,
    )
    limits = make_limits(data, step, tuple(bounds), state_bounds, stepping, x.dtype)
    fmap, n = Map(step, tuple(paths), period, period_of_state is not None), x.shape[0]
    # The critical vector between state and parameters has no bounds.
    pad = [jnp.concatenate([v[:n], jnp.full(n, e, x.dtype), v[n:]]) for v, e in zip(limits[:2], (-jnp.inf, jnp.inf))]
    limits = limits._replace(low=pad[0], high=pad[1])
    y = data.scaled(jnp.concatenate([x, jnp.asarray(present, x.dtype)]))
    start, error = _start(kind, fmap, data, y[:n], y[n:], limits)
    where = f"near {paths[0]!r} = {present[0]}, {paths[1]!r} = {present[1]}"
    if not float(error) <= 10 * float(limits.tolerance) * (1 + float(jnp.max(jnp.abs(start)))):
        raise ValueError(
            f"state={state} leads to no {kind} {where}: Newton stopped at a residual of {float(error):.1e}"
        )
    outside = np.asarray((start < limits.low - limits.tolerance) | (start > limits.high + limits.tolerance))
    if outside.any():
        at = data.unscaled(np.concatenate([start[:n], start[-2:]]))
        raise ValueError(
            f"state={state} leads {where} to the {kind} at {paths[0]!r} = {at[-2]:.6g}, {paths[1]!r} = {at[-1]:.6g}, "
            f"state {at[:-2]}, which lies outside the bounds"
        )
    _check_regular(kind, fmap, data, start, f"state={state} leads {where} to a point that")
    out = _follow(kind, fmap, data, start, limits, num_points=stepping.num_points)
    points, _, _, accepted, ends, _ = (np.asarray(a) for a in out)
    if NO_START in ends:
        raise ValueError(f"state={state} leads to a {kind} {where} from which no curve could be followed")
    halves = [points[i][accepted[i]] for i in (0, 1)]
    if ends[0] == CLOSED:
        z, names = halves[0], (ENDS[CLOSED], ENDS[CLOSED])
    else:
        z, names = np.concatenate([halves[1][:0:-1], halves[0]]), (ENDS[ends[1]], ENDS[ends[0]])
    special = []
    for p in _codimension_two(kind, fmap, data, z, n, ends[0] == CLOSED):
        at = data.unscaled(np.concatenate([p.state, p.parameters]))
        special.append(p._replace(parameters=at[n:], state=at[:n]))
    at = data.unscaled(np.concatenate([z[:, :n], z[:, -2:]], 1))
    vectors_ = z[:, n : 2 * n] * np.asarray(data.state_scale)
    return BifurcationCurve(
        kind=kind,
        parameters=at[:, n:],
        states=at[:, :n],
        vectors=vectors_ / np.linalg.norm(vectors_, axis=1, keepdims=True),
        special=special,
        ends=names,
    )


@functools.partial(jax.jit, static_argnames=("kind", "fmap"))
def _start(kind, fmap, data, x, values, limits):
    """The nearest point of the curve when only one of the two parameters moves: `(z, residual)`.

    One inside the bounds, if there is any.
    """
    n = x.shape[0]
    residual = make_residual(fmap, data)
    y = jnp.concatenate([x, values])
    aux = guess_auxiliary(kind, jax.jacfwd(residual)(y)[:, :-1])
    equations = defining_system(kind, residual, n)
    z = jnp.concatenate([x, aux, values])  # [2 n + 2]

    def moving(free):
        """Newton with only one of the two parameters free to move."""
        return newton(lambda z: jnp.append(equations(z), (1 - free) @ (z[-2:] - values)), z)

    found, errors = jax.vmap(moving)(jnp.eye(2, dtype=z.dtype))
    # Both may work: the smaller change wins.
    beyond = jnp.any((found < limits.low - limits.tolerance) | (found > limits.high + limits.tolerance), axis=1)
    cost = jnp.linalg.norm(found[:, -2:] - values, axis=1) + 1e6 * beyond
    cost = jnp.where(errors < 1e-6, cost, jnp.inf)
    best = jnp.where(jnp.all(jnp.isinf(cost)), jnp.argmin(errors), jnp.argmin(cost))
    return found[best], errors[best]


@functools.partial(jax.jit, static_argnames=("kind", "fmap"))
def _singular_values(kind, fmap, data, z):
    """Of the curve's equations `[2 n + 1, 2 n + 2]`, of `J -+ I` `[n, n]`, and the modulus of `p^T dF/dparameters`."""
    n = (z.shape[0] - 2) // 2
    residual = make_residual(fmap, data)
    whole = jax.jacfwd(defining_system(kind, residual, n))(z)
    jacobian = jax.jacfwd(residual)(jnp.concatenate([z[:n], z[-2:]]))  # [n, n + 2]
    shifted = jacobian[:, :n] + (0 if kind == "fold" else 2) * jnp.eye(n, dtype=z.dtype)
    left, sizes, _ = jnp.linalg.svd(shifted)
    return jnp.linalg.svd(whole, compute_uv=False), sizes, jnp.linalg.norm(left[:, -1] @ jacobian[:, n:])


def _check_regular(kind: str, fmap: Map, data: Any, start: Any, where: str) -> None:
    """Raise `ValueError` at a point through which no single curve of folds or flips runs."""
    whole, shifted, pull = (np.asarray(a) for a in _singular_values(kind, fmap, data, start))
    small = float(np.finfo(start.dtype).eps) ** 0.4
    if len(shifted) > 1 and shifted[-2] < small * max(1.0, shifted[0]):
        raise ValueError(
            f"{where} is no single {kind}: {int((shifted < small * max(1.0, shifted[0])).sum())} multipliers are "
            f"{'+1' if kind == 'fold' else '-1'} at once"
        )
    if whole[-1] > small * max(1.0, whole[0]):
        return
    # Newton's method is slow here, and its point less exact.
    if kind == "fold" and pull < small**0.5 * max(1.0, shifted[0]):
        raise ValueError(
            f"{where} is a branch point (a pitchfork or transcritical point) in both parameters and no fold: the "
            "branch does not turn there, and no curve of folds runs through it"
        )
    raise ValueError(f"{where} is degenerate: more than one curve of {kind}s runs through it, or none")


@functools.partial(jax.jit, static_argnames=("kind", "fmap", "num_points"))
def _follow(kind, fmap, data, start, limits, *, num_points):
    n = (start.shape[0] - 2) // 2
    equations = defining_system(kind, make_residual(fmap, data), n)
    tangent = jnp.linalg.svd(jax.jacfwd(equations)(start), full_matrices=True)[2][-1]
    start, tangent, _, _ = correct(equations, start, tangent)

    def one(sign):
        return trace(equations, start, sign * tangent, limits, num_points=num_points, num_parameters=2)

    return jax.vmap(one)(jnp.array([1.0, -1.0], start.dtype))


@functools.partial(jax.jit, static_argnames=("kind", "fmap"))
def _measure(kind, fmap, data, z):
    """For every point: the left vector (of either sign), its product with the right one, the form, the Jacobian."""
    n = (z.shape[1] - 2) // 2
    residual = make_residual(fmap, data)
    eye = jnp.eye(n, dtype=z.dtype)

    def one(z):
        y, q = jnp.concatenate([z[:n], z[-2:]]), z[n : 2 * n]
        jacobian = forms.state_jacobian(residual, y, n) + eye
        shifted = jacobian - eye if kind == "fold" else jacobian + eye
        p = jnp.linalg.svd(shifted)[0][:, -1]
        form = forms.fold_form(residual, y, q) if kind == "fold" else forms.flip_form(residual, y, q)
        return p, p @ q, p @ form, jnp.linalg.slogdet(jacobian + eye if kind == "fold" else jacobian - eye)[0]

    return jax.vmap(one)(z)


@functools.partial(jax.jit, static_argnames=("kind", "what", "fmap"))
def _solve(kind, what, fmap, data, z, p0):
    """Newton on the curve's equations together with the vanishing of one test function."""
    n = (z.shape[0] - 2) // 2
    residual = make_residual(fmap, data)
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


def _codimension_two(kind, fmap, data, z, n, closed) -> list[CodimensionTwoPoint]:
    """The points of a curve `[points, 2 n + 2]` where a second condition holds, in scaled units."""
    if len(z) < 2:
        return []
    if closed:  # cut elsewhere than at the start, which may be such a point itself
        k = len(z) // 2
        z = np.concatenate([z[k:], z[1 : k + 1]])
    count = 64 * -(-len(z) // 64)  # few shapes, few compilations
    padded = z[np.minimum(np.arange(count), len(z) - 1)]
    p, overlap, form, other = (np.asarray(a)[: len(z)] for a in _measure(kind, fmap, data, padded))
    # A singular vector's sign is arbitrary: carry it along the curve.
    sign = np.cumprod(np.append(1, np.where((p[1:] * p[:-1]).sum(1) < 0, -1, 1)))
    # A flip's coefficient has a pole where a multiplier is +1; its product with `det (J - I)` has none.
    form = form * other if kind == "flip" else form
    tests = dict(zip(CODIMENSION_TWO[kind], (sign * form, sign * overlap, other)))
    found = []
    for what, values in tests.items():
        for i in sign_changes(values, np.zeros(len(z))):
            middle, length = (z[i] + z[i + 1]) / 2, np.linalg.norm(z[i + 1] - z[i])
            solution, residual = _solve(kind, what, fmap, data, jnp.asarray(middle), p[i])
            solution, residual = np.asarray(solution), float(residual)
            limit = max(1e-12 if z.dtype == np.float64 else 1e-5, float(data.noise))
            near = np.linalg.norm(solution - middle) < 3 * length
            located = residual <= limit * (1 + np.abs(solution).max()) and bool(near)
            note = "" if located else f"Newton stopped at a residual of {residual:.1e}" if near else "Newton wandered"
            at = solution if located else middle
            found.append(CodimensionTwoPoint(what, at[-2:], at[:n], residual, located, note))
    return found
