"""All fixed points and cycles of a map, from many starts at once, with their multipliers and stability."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int, PyTree

from cliffs.rnn import Step


class NewtonResult(NamedTuple):
    """Where each start led; run axis first."""

    points: Float[Array, "starts n"]
    residual: Float[Array, " starts"]
    """`max |F^p(x) - x|`."""
    iterations: Int[Array, " starts"]


class FixedPoints(NamedTuple):
    """The distinct fixed points (or points of cycles) that were found; numpy arrays."""

    points: Float[np.ndarray, "found n"]
    multipliers: Complex[np.ndarray, "found n"]
    """Eigenvalues of the Jacobian of `F^p`, largest modulus first."""
    stable: Bool[np.ndarray, " found"]
    """All multipliers inside the unit circle."""
    kind: list[str]
    """"attractor", "repeller" or "saddle"."""
    residual: Float[np.ndarray, " found"]
    hits: Int[np.ndarray, " found"]
    """How many starts led there."""
    converged: float
    """The share of starts that led to a fixed point within the tolerance."""
    slow_points: Float[np.ndarray, "slow n"]
    """Distinct local minima of the speed that are no fixed points."""
    slow_speeds: Float[np.ndarray, " slow"]
    """`|F^p(x) - x|` (Euclidean) there."""


def iterate(step: Step, params: PyTree, inputs: Any = None, period: int = 1):
    """The map `x -> F^period(x)` of a step with the input held fixed.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> float(iterate(one_unit_step, OneUnitParams(0.0, 1.5), period=2)(jnp.asarray(0.0)))
    1.5
    """

    def once(state, _):
        return step(params, state, inputs), None

    return lambda state: jax.lax.scan(once, state, length=period)[0]


def solve_fixed_points(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: Any = None,
    *,
    period: int = 1,
    max_iterations: int = 100,
) -> NewtonResult:
    """Solve `F^p(x) = x` from every start by damped Newton; pure, for use under `jit` and `vmap` over parameters.

    Each iteration takes the Levenberg-Marquardt step `(J^T J + mu I) dx = -J^T r` for `r = F^p(x) - x`, with `mu`
    falling after a step that lowers `|r|^2` and rising after one that does not. For `mu -> 0` that is Newton's
    method; where `J` is singular it minimises `|r|^2`, which is how slow points are found.

    **Arguments**

    - `step`: `step(params, state[n], inputs) -> state[n]`.
    - `starts`: `[starts, n]`; their dtype is the precision of the search.
    - `inputs`: the constant input.
    - `period`: p; fixed points of `F^p` include those of its divisors.

    **Returns** a `NewtonResult`.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> result = solve_fixed_points(one_unit_step, OneUnitParams(5.0, -3.0), -jnp.ones((1, 1)))
    >>> round(float(result.points[0, 0]), 3)
    -2.679
    """
    apply = iterate(step, params, inputs, period)

    def residual(x):
        return apply(x) - x

    jacobian = jax.jacfwd(residual)
    eps = jnp.finfo(starts.dtype).eps
    eye = jnp.eye(starts.shape[-1], dtype=starts.dtype)

    def body(carry, _):
        x, r, damping, count = carry
        j = jacobian(x)
        scale = jnp.maximum(jnp.sum(j * j) / j.shape[0], 1e-30)
        # Plain Newton when the damping is spent: normal equations square the condition number.
        levenberg = jnp.linalg.solve(j.T @ j + (damping + eps**2) * scale * eye, -(j.T @ r))
        newton = jnp.linalg.solve(j, -r)
        dx = jnp.where((damping < 1e-6) & jnp.all(jnp.isfinite(newton)), newton, levenberg)
        x_new = x + dx
        r_new = residual(x_new)
        norm, norm_new = jnp.sum(r * r), jnp.sum(r_new * r_new)
        better = norm_new < norm  # false for NaN
        damping = jnp.clip(jnp.where(better, damping * 0.1, damping * 8 + 1e-3), 1e-20, 1e8)
        x = jnp.where(better, x_new, x)
        return (x, jnp.where(better, r_new, r), damping, count + (better & (norm > 0))), None

    def solve(x):
        first = (x, residual(x), jnp.asarray(1e-3, x.dtype), jnp.zeros((), jnp.int32))
        (x, r, _, count), _ = jax.lax.scan(body, first, length=max_iterations)
        return NewtonResult(x, jnp.max(jnp.abs(r)), count)

    return jax.vmap(solve)(starts)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("period", "max_iterations"))
def _solve(step, params, starts, inputs, *, period, max_iterations):
    return solve_fixed_points(step, params, starts, inputs, period=period, max_iterations=max_iterations)


def find_fixed_points(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: Any = None,
    *,
    period: int = 1,
    tolerance: float | None = None,
    merge_distance: float | None = None,
    slow_speed: float = 0.1,
    max_iterations: int = 100,
) -> FixedPoints:
    """All distinct solutions of `F^p(x) = x` that the starts lead to, with multipliers and stability class.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; a step that is hashable is compiled once.
    - `starts`: `[starts, n]`, for instance states of trajectories with noise.
    - `tolerance`: largest `max |F^p(x) - x|` of a fixed point; 1e-10 in float64 and 1e-5 in float32 by default.
    - `merge_distance`: points closer than this (Euclidean, relative to `1 + |x|`) are one; by default the square
      root of the tolerance.
    - `slow_speed`: points that are no fixed points but whose speed is below this are reported as slow points.

    **Returns** `FixedPoints`.

    **Raises** `ValueError` for starts that are not `[starts, n]`, a period below 1, a step that does not map the
    state's shape to itself, or a tolerance that the starts' dtype cannot reach.

    Source: Sussillo & Barak (2013), Opening the black box, for slow points; Newton's method for the rest.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> found = find_fixed_points(one_unit_step, OneUnitParams(5.0, -2.5), jnp.linspace(-4, 4, 9)[:, None])
    >>> abs(found.points.ravel() - [-1.776, 0, 1.776]).max() < 1e-3, found.stable.tolist()
    (np.True_, [True, False, True])
    """
    starts = jnp.asarray(starts)
    if starts.ndim != 2 or starts.shape[0] == 0:
        raise ValueError(f"starts must be [starts, n] with at least one start, got shape {starts.shape}")
    if period < 1:
        raise ValueError(f"period must be at least 1, got {period}")
    check_map(step, params, starts[0], inputs)
    tolerance = reachable_tolerance(tolerance, starts.dtype, double=1e-10)
    merge = tolerance**0.5 if merge_distance is None else merge_distance
    result = jax.tree.map(
        np.asarray, _solve(step, params, starts, inputs, period=period, max_iterations=max_iterations)
    )
    converged = result.residual <= tolerance
    points, hits = _distinct(result.points[converged], merge)
    slow, _ = _distinct(result.points[~converged & (result.residual <= slow_speed)], merge)
    apply = iterate(step, params, inputs, period)
    n = starts.shape[1]
    multipliers = np.zeros((len(points), n), complex)
    residual = np.zeros(len(points))
    if len(points):
        jacobians = jax.vmap(jax.jacfwd(apply))(jnp.asarray(points))
        multipliers = np.linalg.eigvals(np.asarray(jacobians))
        multipliers = np.take_along_axis(multipliers, np.argsort(-np.abs(multipliers), axis=1), axis=1)
        residual = np.abs(np.asarray(jax.vmap(apply)(jnp.asarray(points))) - points).max(1)
    inside = np.abs(multipliers) < 1
    kind = ["attractor" if row.all() else "repeller" if not row.any() else "saddle" for row in inside]
    speeds = np.zeros(0)
    if len(slow):
        speeds = np.linalg.norm(np.asarray(jax.vmap(apply)(jnp.asarray(slow))) - slow, axis=1)
    return FixedPoints(
        points, multipliers, np.asarray(inside.all(1)), kind, residual, hits, float(converged.mean()), slow, speeds
    )  # fmt: skip


def reachable_tolerance(tolerance: float | None, dtype: Any, *, double: float, single: float = 1e-5) -> float:
    """The default of a dtype, or the given tolerance if the dtype resolves it; else `ValueError`."""
    eps = float(jnp.finfo(dtype).eps)
    if tolerance is None:
        return double if eps < 1e-12 else single
    if tolerance < 4 * eps:
        raise ValueError(
            f"tolerance={tolerance} is out of reach for {dtype}, which can reach {4 * eps:.1e}: pass float64 states "
            "(jax_enable_x64) or a larger tolerance"
        )
    return tolerance


def check_map(step: Step, params: PyTree, state: Array, inputs: Any) -> None:
    """Raise `ValueError` unless the step maps the state's shape and dtype to themselves."""
    out = jax.eval_shape(lambda s: step(params, s, inputs), state)
    if getattr(out, "shape", None) != state.shape:
        raise ValueError(
            f"step must map a state of shape {state.shape} to the same shape, it gives {getattr(out, 'shape', out)}"
        )
    if out.dtype != state.dtype:
        raise ValueError(f"step turns a {state.dtype} state into {out.dtype}: pass params and starts of one dtype")


def _distinct(points: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """One representative of every cluster, sorted by coordinates, and the size of the clusters."""
    found: list[np.ndarray] = []
    hits: list[int] = []
    for point in points:
        for i, other in enumerate(found):
            if np.linalg.norm(point - other) <= distance * (1 + np.linalg.norm(other)):
                hits[i] += 1
                break
        else:
            found.append(point)
            hits.append(1)
    order = sorted(range(len(found)), key=lambda i: tuple(found[i]))
    return np.array([found[i] for i in order]).reshape(-1, points.shape[1]), np.array([hits[i] for i in order], int)
