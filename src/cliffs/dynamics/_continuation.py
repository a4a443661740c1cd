"""Pseudo-arclength continuation of the fixed points and cycles of a map in one scalar parameter.

One compiled scan follows a branch around its folds; the step length adapts inside the scan, and the whole is a
pure function of the start, so hundreds of branches are one `vmap`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, DTypeLike, Float, Int, PyTree

from cliffs._paths import InputPath, Path
from cliffs._precision import reachable_tolerance
from cliffs.dynamics._arclength import ENDS, LEFT_BOUNDS, NO_START, Limits, correct, trace
from cliffs.dynamics._problem import (
    STEPPING,
    Bound,
    Data,
    Map,
    Stepping,
    check_bounds,
    check_problem,
    get_value,
    make_data,
    make_residual,
    vectors,
    whole_turns,
)
from cliffs.dynamics._units import entries
from cliffs.typing import Step


class Branch(NamedTuple):
    """Points along a branch, in the order of arclength; rows that were not accepted repeat the point before."""

    states: Float[Array, "points n"]
    parameter: Float[Array, " points"]
    jacobians: Float[Array, "points n n"]
    """`dF^p/dx` at every point; its eigenvalues are the multipliers."""
    tangents: Float[Array, "points n+1"]
    """Tangents `(dx, dparameter)`, of length 1 in units of the problem's scales; the last entry changes sign at a
    fold."""
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


def continue_branch(
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    bounds: tuple[Bound, Bound],
    start: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    direction: int = 1,
    stepping: Stepping = STEPPING,
    scale: PyTree = None,
    parameter_scale: ArrayLike | None = None,
    state_bounds: tuple[PyTree, PyTree] | None = None,
    period_of_state: PyTree = None,
) -> Branch:
    """Follow the solutions of `F^p(x; lambda) = x` from `start` by pseudo-arclength continuation.

    Predictor along the tangent, corrector by Newton on `(G(y), t . (y - y_pred)) = 0`. A step whose corrector fails,
    whose tangent turns by more than 25 degrees, or that leads beside its tangents (the map jumps) is refused and
    halved; easy steps grow by 1.3. Pure: it may be used under `jit` and `vmap` over parameters, starts and bounds.

    **Arguments**

    - `step`, `params`, `inputs`, `period`: the map; `path` names the scalar parameter inside `params`, for instance
      `"b"` or `("rnn", "w_rec", (0, 1))`, or as an `InputPath` inside `inputs`.
    - `bounds`: the branch ends where the parameter leaves this interval, with a point on the bound.
    - `start`: `[n]`, a fixed point of `F^p` at the parameter's present value (Newton polishes it first); its dtype is
      the precision of the branch. A pytree is flattened in the order of its leaves.
    - `direction`: +1 or -1, the sign of the parameter's first change.
    - `stepping`: lengths of steps, number of attempts and tolerance, in units of the scales.
    - `scale`: the typical size of the state, a number, `[n]` or a pytree like the state; by default the moduli of the
      start's entries. `parameter_scale`: that of the parameter; by default half the width of the bounds. Answers do
      not depend on the units of either.
    - `state_bounds`: `(low, high)`, each a number, `[n]` or a pytree like the state: the branch ends there too.
    - `period_of_state`: the period of entries that are angles, a number, `[n]` or a pytree like the state, 0 for the
      others. A solution then repeats up to whole turns.

    **Returns** a `Branch` whose first point is the start; `branch.end` says why it stops: it left the bounds of the
    parameter or the state, closed on itself, ran out of points, or the step became too small.

    **Raises** `ValueError` for a path that does not exist or is not scalar, a step that is no map on the state's
    shape, bounds that do not hold the present value, a tolerance below the dtype's resolution, or (outside of tracing)
    a start from which Newton reaches no fixed point. Under tracing the last is `end == 4`.

    Source: H. B. Keller (1977), Numerical solution of bifurcation and nonlinear eigenvalue problems.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> branch = continue_branch(one_unit_step, OneUnitParams(5.0, -3.0), "b", (-3.5, -2.0), jnp.array([-2.68]))
    >>> branch.why, bool(jnp.max(branch.states) > 2)
    ('left the bounds', True)
    """
    step, start = vectors(step, start, name="start", axes=0)
    check_problem(step, params, (path,), start, inputs, period)
    value = get_value(params, inputs, path)
    if direction not in (-1, 1):
        raise ValueError(f"direction must be 1 or -1, got {direction}")
    check_bounds(bounds)
    if not any(isinstance(v, Tracer) for v in (value, *bounds)) and not bounds[0] <= float(value) <= bounds[1]:
        raise ValueError(f"bounds={tuple(bounds)} do not hold the parameter's present value {float(value)}")
    data = make_data(
        step,
        params,
        inputs,
        start[None],
        (bounds,),
        scale=scale,
        parameter_scale=parameter_scale,
        period_of_state=period_of_state,
    )
    fmap = Map(step, (path,), period, period_of_state is not None)
    limits = make_limits(data, step, (bounds,), state_bounds, stepping, start.dtype)
    branch = _continue(fmap, data, start, value, limits, direction, num_points=stepping.num_points)
    if not isinstance(branch.end, Tracer) and np.ndim(branch.end) == 0 and int(branch.end) == NO_START:
        raise ValueError(
            f"start={start} leads to no fixed point of period {period} at {path!r} = {float(value)}: Newton did not "
            f"reach a residual of {float(limits.tolerance):.1e}"
        )
    return branch


def make_limits(
    data: Data,
    step: Step,
    bounds: tuple[tuple[Bound, Bound], ...],
    state_bounds: tuple[PyTree, PyTree] | None,
    stepping: Stepping,
    dtype: DTypeLike,
) -> Limits:
    """Bounds and steps in scaled units: `low` and `high` are `[n + k]`."""
    n = data.state_scale.shape[0]
    tolerance = reachable_tolerance(stepping.tolerance, dtype, double=1e-11)
    sizes = [jnp.asarray(v, dtype) for v in stepping.sizes(dtype)]
    ends = []
    for side, nothing in enumerate((-np.inf, np.inf)):
        given = nothing if state_bounds is None else state_bounds[side]
        state = jnp.asarray(entries(step, given, n, name="state_bounds"), dtype)
        ends.append(data.scaled(jnp.concatenate([state, *(jnp.asarray(pair[side], dtype)[None] for pair in bounds)])))
    if state_bounds is not None and not np.all(np.asarray(ends[0][:n] < ends[1][:n])):
        raise ValueError(f"state_bounds must be (low, high) with low < high, got {state_bounds!r}")
    first, largest, smallest = sizes
    # A step that rounding could make turns nowhere.
    smallest = jnp.minimum(jnp.maximum(smallest, 32 * data.spacing), first).astype(dtype)
    tolerance = jnp.maximum(tolerance, data.noise).astype(dtype)
    return Limits(ends[0], ends[1], first, largest, smallest, tolerance)


@functools.partial(jax.jit, static_argnames=("fmap", "num_points"))
def _continue(fmap, data, start, value, limits, direction, *, num_points):
    n, dtype = start.shape[0], start.dtype
    residual = make_residual(fmap, data)
    along = jnp.zeros(n + 1, dtype).at[-1].set(direction)
    y = data.scaled(jnp.append(start, value.astype(dtype)))  # [n + 1]
    # Two rounds of Newton at the present value: a start may be rough.
    y, *_ = correct(residual, y, along)
    y, tangent, _, _ = correct(residual, y, along)
    turns = turns_of(fmap, data) if fmap.angles else None
    result = trace(residual, y, tangent, limits, num_points=num_points, turns=turns)
    eye = jnp.eye(n, dtype=dtype)
    back = jnp.append(data.state_scale, data.parameter_scale)
    points = result.points * back + data.centre
    jacobians = result.jacobians[:, :, :-1] + eye
    jacobians = jacobians * data.state_scale[:, None] / data.state_scale
    return Branch(points[:, :-1], points[:, -1], jacobians, result.tangents, result.accepted, result.end)


def turns_of(fmap: Map, data: Data):
    """The whole turns in a difference of two joint points `[n + k]`."""
    period = jnp.concatenate([data.angle_period, jnp.full(len(fmap.paths), jnp.inf, data.angle_period.dtype)])
    return lambda gap: whole_turns(gap, period)
