"""Pseudo-arclength continuation of the fixed points and cycles of a map in one scalar parameter.

One compiled scan follows a branch around its folds; the step length adapts inside the scan, and the whole is a
pure function of the start, so hundreds of branches are one `vmap`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._paths import Path, get_parameter, set_parameter
from cliffs._precision import reachable_tolerance
from cliffs.dynamics._arclength import ENDS, LEFT_BOUNDS, NO_START, correct, trace
from cliffs.dynamics._fixed_points import iterate
from cliffs.typing import Step


class Branch(NamedTuple):
    """Points along a branch, in the order of arclength; rows that were not accepted repeat the point before."""

    states: Float[Array, "points n"]
    parameter: Float[Array, " points"]
    jacobians: Float[Array, "points n n"]
    """`dF^p/dx` at every point; its eigenvalues are the multipliers."""
    tangents: Float[Array, "points n+1"]
    """Unit tangents `(dx, dparameter)`; the last entry changes sign at a fold."""
    accepted: Bool[Array, " points"]
    """False where a step was refused (and halved), or the branch had ended."""
    end: Int[Array, ""]
    """Why the branch ended, an index into `cliffs.dynamics.ENDS`."""

    @property
    def left_bounds(self) -> Bool[Array, ""]:
        """Whether the branch ended because the parameter left its bounds; the last accepted point lies on a bound."""
        return self.end == LEFT_BOUNDS

    @property
    def why(self) -> str:
        """The end in words; only for a single branch outside of tracing."""
        return ENDS[int(self.end)]


def make_residual(step: Step, params: PyTree, paths: tuple[Path, ...], inputs: Any, period: int) -> Callable:
    """`G(x, parameters) = F^p(x) - x` as a function of the joint vector `y = (x, parameters)`."""
    k = len(paths)

    def residual(y):
        p = params
        for i, path in enumerate(paths):
            p = set_parameter(p, path, y[i - k])
        return iterate(step, p, inputs, period)(y[:-k]) - y[:-k]

    return residual


def vectors(step: Step, states: PyTree, *, name: str, axes: int) -> tuple[Step, Array]:
    """The step on vectors and the states as `[*points, n]`; also inside `jit`, where the states may be constants."""
    with jax.ensure_compile_time_eval():
        step, flat, _ = flat_states(step, states, name=name, axes=axes)
    return step, flat


def check_problem(step: Step, params: PyTree, path: Path, start: Array, inputs: Any, period: int) -> None:
    """Raise `ValueError` for what is wrong before anything is traced."""
    get_parameter(params, path)
    if period < 1:
        raise ValueError(f"period must be at least 1, got {period}")
    check_map(step, params, start, inputs)


def check_bounds(bounds: Any, name: str = "bounds") -> None:
    """Raise `ValueError` unless `bounds` is (low, high) with low < high."""
    if len(bounds) != 2 or not (
        any(isinstance(b, Tracer) for b in bounds) or -np.inf < float(bounds[0]) < float(bounds[1]) < np.inf
    ):
        raise ValueError(f"{name} must be (low, high), finite, with low < high, got {tuple(bounds)}")


def continue_branch(
    step: Step,
    params: PyTree,
    path: Path,
    start: PyTree,
    bounds: tuple[float, float],
    *,
    inputs: Any = None,
    period: int = 1,
    direction: int = 1,
    num_points: int = 400,
    step_size: float = 0.05,
    max_step: float = 0.2,
    min_step: float = 1e-7,
    tolerance: float | None = None,
) -> Branch:
    """Follow the solutions of `F^p(x; lambda) = x` from `start` by pseudo-arclength continuation.

    Predictor along the tangent, corrector by Newton on `(G(y), t . (y - y_pred)) = 0`. A step whose corrector fails,
    or whose tangent turns by more than 25 degrees, is refused and halved; easy steps grow by 1.3. Pure: it may be
    used under `jit` and `vmap` over parameters, starts and bounds.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; `path` names the scalar parameter inside `params`, for instance
      `"b"` or `("rnn", "w_rec", (0, 1))`.
    - `start`: `[n]`, a fixed point of `F^p` at the parameter's present value (Newton polishes it first); its dtype is
      the precision of the branch. A pytree is flattened in the order of its leaves.
    - `bounds`: the branch ends where the parameter leaves this interval, with a point on the bound.
    - `direction`: +1 or -1, the sign of the parameter's first change.
    - `num_points`: attempts, accepted or not.
    - `step_size`, `max_step`, `min_step`: first, largest and smallest arclength per step, in units of the joint vector.
    - `tolerance`: largest residual of an accepted point, relative to `1 + max|y|`; by default 1e-11 in float64, 1e-5
      in float32.

    **Returns** a `Branch` whose first point is the start; `branch.end` says honestly why it stops: it left the bounds,
    closed on itself, ran out of points, or the step became too small.

    **Raises** `ValueError` for a path that does not exist or is not scalar, a step that is no map on the state's
    shape, bounds that do not hold the present value, a tolerance below the dtype's resolution, or (outside of tracing)
    a start from which Newton reaches no fixed point. Under tracing the last is `end == 4`.

    Source: H. B. Keller (1977), Numerical solution of bifurcation and nonlinear eigenvalue problems.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.0), "b", jnp.array([-2.68]), (-3.5, -2.0))
    >>> branch.why, bool(jnp.max(branch.states) > 2)
    ('left the bounds', True)
    """
    step, start = vectors(step, start, name="start", axes=0)
    check_problem(step, params, path, start, inputs, period)
    value = get_parameter(params, path)
    tolerance = reachable_tolerance(tolerance, start.dtype, double=1e-11)
    if direction not in (-1, 1):
        raise ValueError(f"direction must be 1 or -1, got {direction}")
    if num_points < 3:
        raise ValueError(f"num_points must be at least 3, got {num_points}")
    check_bounds(bounds)
    sizes = (min_step, step_size, max_step)
    if not any(isinstance(v, Tracer) for v in sizes) and not 0 < min_step <= step_size <= max_step:
        raise ValueError(f"steps must be 0 < min_step <= step_size <= max_step, got {sizes}")
    if not any(isinstance(v, Tracer) for v in (value, *bounds)) and not bounds[0] <= float(value) <= bounds[1]:
        raise ValueError(f"bounds={tuple(bounds)} do not hold the parameter's present value {float(value)}")
    branch = _continue(
        step, params, path, start, jnp.asarray(bounds, start.dtype), inputs, period, direction, num_points,
        step_size, max_step, min_step, tolerance,
    )  # fmt: skip
    if not isinstance(branch.end, Tracer) and np.ndim(branch.end) == 0 and int(branch.end) == NO_START:
        raise ValueError(
            f"start={start} leads to no fixed point of period {period} at {path!r} = {float(value)}: Newton did not "
            f"reach a residual of {tolerance:.1e}"
        )
    return branch


@functools.partial(jax.jit, static_argnames=("step", "path", "period", "num_points"))
def _continue(
    step, params, path, start, bounds, inputs, period, direction, num_points, step_size, max_step, min_step, tolerance
):  # fmt: skip
    n, dtype = start.shape[0], start.dtype
    residual = make_residual(step, params, (path,), inputs, period)
    along = jnp.zeros(n + 1, dtype).at[-1].set(direction)
    y = jnp.append(start, get_parameter(params, path).astype(dtype))
    # Two rounds of Newton at the present value: a start may be rough.
    y, *_ = correct(residual, y, along)
    y, tangent, _, _ = correct(residual, y, along)
    result = trace(
        residual, y, tangent, (bounds[:1], bounds[1:]), num_points=num_points, step_size=jnp.asarray(step_size, dtype),
        max_step=jnp.asarray(max_step, dtype), min_step=jnp.asarray(min_step, dtype), tolerance=tolerance,
    )  # fmt: skip
    eye = jnp.eye(n, dtype=dtype)
    points, jacobians = result.points, result.jacobians[:, :, :-1] + eye
    return Branch(points[:, :-1], points[:, -1], jacobians, result.tangents, result.accepted, result.end)
