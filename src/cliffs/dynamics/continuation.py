"""Pseudo-arclength continuation of the fixed points and cycles of a map in one scalar parameter.

One compiled scan follows a branch around its folds; the step length adapts inside the scan, and the whole is a
pure function of the start, so hundreds of branches are one `vmap`.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree

from cliffs.dynamics._parameter import Path, get_parameter, set_parameter
from cliffs.dynamics.fixed_points import check_map, iterate, reachable_tolerance
from cliffs.rnn import Step


class Branch(NamedTuple):
    """Points along a branch, in the order of arclength; entries after the end repeat the last point."""

    states: Float[Array, "points n"]
    parameter: Float[Array, " points"]
    jacobians: Float[Array, "points n n"]
    """`dF^p/dx` at every point; its eigenvalues are the multipliers."""
    tangents: Float[Array, "points n+1"]
    """Unit tangents `(dx, dparameter)`; the last entry changes sign at a fold."""
    accepted: Bool[Array, " points"]
    """False where a step was refused (and halved), or the branch had left the bounds."""
    left_bounds: Bool[Array, ""]
    """Whether the branch ended because the parameter left its bounds: the part before is returned."""


class Problem(NamedTuple):
    """`G(x, lambda) = F^p(x; lambda) - x` as functions of the joint vector `y = (x, lambda)`."""

    residual: Any
    jacobian: Any


def make_problem(step: Step, params: PyTree, path: Path, inputs: Any, period: int) -> Problem:
    """The residual and its `[n, n + 1]` Jacobian for a parameter inside `params`."""

    def residual(y):
        return iterate(step, set_parameter(params, path, y[-1]), inputs, period)(y[:-1]) - y[:-1]

    return Problem(residual, jax.jacfwd(residual))


def null_vector(matrix: Float[Array, "n m"], near: Float[Array, " m"]) -> Float[Array, " m"]:
    """The unit null vector of an `[n, n + 1]` matrix that points along `near`."""
    bordered = jnp.concatenate([matrix, near[None]])
    vector = jnp.linalg.solve(bordered, jnp.zeros(len(near), matrix.dtype).at[-1].set(1))
    return vector / jnp.linalg.norm(vector)


def continue_branch(
    step: Step,
    params: PyTree,
    path: Path,
    start: Float[Array, " n"],
    bounds: tuple[float, float],
    *,
    inputs: Any = None,
    period: int = 1,
    direction: int = 1,
    num_points: int = 400,
    step_size: float = 0.05,
    max_step: float = 0.2,
    tolerance: float | None = None,
) -> Branch:
    """Follow the solutions of `F^p(x; lambda) = x` from `start` by pseudo-arclength continuation.

    Predictor along the tangent, corrector by Newton on `(G(y), t . (y - y_pred)) = 0`. A step whose corrector fails,
    or whose tangent turns by more than 25 degrees, is refused and halved; easy steps grow by 1.3.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; `path` names the scalar parameter inside `params`, for instance
      `"b"` or `("rnn", "w_rec", (0, 1))`.
    - `start`: `[n]`, a fixed point at the parameter's present value (Newton polishes it first).
    - `bounds`: the branch ends where the parameter leaves this interval.
    - `direction`: +1 or -1, the sign of the parameter's first change.
    - `num_points`: attempts, accepted or not.
    - `step_size`, `max_step`: first and largest arclength per step, in units of the joint vector.
    - `tolerance`: largest residual of an accepted point; by default 1e-11 in float64, 1e-5 in float32.

    **Returns** a `Branch` whose first point is the start.

    **Raises** `ValueError` for a path that does not exist or is not scalar, a step that is no map on the state's
    shape, bounds that do not hold the present value, or a tolerance below the dtype's resolution.

    Source: H. B. Keller (1977), Numerical solution of bifurcation and nonlinear eigenvalue problems.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.0), "b", jnp.array([-2.68]), (-3.5, -2.0))
    >>> bool(branch.left_bounds), bool(jnp.max(branch.states) > 2)
    (True, True)
    """
    value = get_parameter(params, path)
    check_map(step, params, start, inputs)
    tolerance = reachable_tolerance(tolerance, start.dtype, double=1e-11)
    if direction not in (-1, 1):
        raise ValueError(f"direction must be 1 or -1, got {direction}")
    if not isinstance(value, Tracer) and not bounds[0] <= float(value) <= bounds[1]:
        raise ValueError(f"bounds={bounds} do not hold the parameter's present value {float(value)}")
    return _continue(
        step, params, path, start, jnp.asarray(bounds, start.dtype), inputs, period, direction, num_points,
        step_size, max_step, tolerance,
    )  # fmt: skip


@functools.partial(jax.jit, static_argnames=("step", "path", "period", "num_points"))
def _continue(
    step, params, path, start, bounds, inputs, period, direction, num_points, step_size, max_step, tolerance
):  # fmt: skip
    n = start.shape[0]
    problem = make_problem(step, params, path, inputs, period)
    eye = jnp.eye(n, dtype=start.dtype)

    def correct(y, tangent):
        """Newton in the plane through `y` across the tangent."""
        anchor = y

        def newton(y, _):
            g = jnp.append(problem.residual(y), tangent @ (y - anchor))
            return y - jnp.linalg.solve(jnp.concatenate([problem.jacobian(y), tangent[None]]), g), None

        y, _ = jax.lax.scan(newton, y, length=6)
        return y, jnp.max(jnp.abs(problem.residual(y)))

    along = jnp.zeros(n + 1, start.dtype).at[-1].set(1)
    value = get_parameter(params, path).astype(start.dtype)
    y0, _ = correct(jnp.append(start, value), along)
    t0 = null_vector(problem.jacobian(y0), along * direction)
    t0 = t0 * jnp.where(t0[-1] * direction < 0, -1, 1)

    def body(carry, _):
        y, tangent, size, alive = carry
        y_new, error = correct(y + size * tangent, tangent)
        t_new = null_vector(problem.jacobian(y_new), tangent)
        turn = t_new @ tangent
        # A corrector that ran off to another branch moved much farther than the step.
        near = jnp.linalg.norm(y_new - y) < 2 * size
        good = (error <= tolerance) & (turn > 0.906) & near & jnp.all(jnp.isfinite(t_new))
        inside = (y_new[-1] >= bounds[0]) & (y_new[-1] <= bounds[1])
        accept = good & inside & alive
        size = jnp.where(good, jnp.minimum(size * jnp.where(turn > 0.985, 1.3, 1.0), max_step), size * 0.5)
        y, tangent = jnp.where(accept, y_new, y), jnp.where(accept, t_new, tangent)
        alive = alive & ~(good & ~inside)
        return (y, tangent, size, alive), (y, tangent, accept)

    first = (y0, t0, jnp.asarray(step_size, start.dtype), jnp.array(True))
    (_, _, _, alive), (ys, tangents, accepted) = jax.lax.scan(body, first, length=num_points - 1)
    ys, tangents = jnp.concatenate([y0[None], ys]), jnp.concatenate([t0[None], tangents])
    accepted = jnp.concatenate([jnp.ones(1, bool), accepted])
    jacobians = jax.vmap(lambda y: problem.jacobian(y)[:, :-1])(ys) + eye
    return Branch(ys[:, :-1], ys[:, -1], jacobians, tangents, accepted, ~alive)
