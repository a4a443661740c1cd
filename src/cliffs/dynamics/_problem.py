"""A map with one or two free parameters, in units of its own scales: what all continuation works on.

State and parameters are divided by powers of two near their own size, so that step lengths, tolerances and "near"
mean the same for a state of order 1e-6 as for one of order 1, and no digit is lost on the way there and back. What
lies far from zero compared with its size is measured from the middle of where it lies.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, DTypeLike, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._paths import InputPath, Path, get_parameter, set_parameter
from cliffs._precision import spacing
from cliffs.dynamics._units import check_count, entries, nearest_power_of_two
from cliffs.typing import Step


@dataclasses.dataclass(frozen=True)
class Stepping:
    """How a branch is stepped along: lengths are arclengths in units of the problem's scales.

    >>> Stepping(max_step=0.2).sizes(jnp.float32)
    (0.05, 0.2, 3.814697265625e-06)
    """

    max_step: float | Array = 0.05
    """Largest step. Events nearer than a thousandth of it are not told apart."""
    step_size: float | Array | None = None
    """First step, by default a quarter of the largest."""
    min_step: float | Array | None = None
    """A branch whose steps must become smaller ends there; by default 1e-6 of the largest, at least 32 spacings."""
    num_points: int = 600
    """Attempts in one compiled stretch of a branch, accepted or not."""
    tolerance: float | None = None
    """Largest residual of an accepted point, relative to `1 + max|y|` in scaled units; by default 1e-11 in float64,
    1e-5 in float32."""

    def sizes(self, dtype: DTypeLike) -> tuple[float | Array, float | Array, float | Array]:
        """`(step_size, max_step, min_step)` with the defaults filled in; `ValueError` for what cannot be."""
        least = 32 * float(jnp.finfo(dtype).eps)
        floor = jnp.maximum if isinstance(self.max_step, Tracer) else max
        first = self.max_step / 4 if self.step_size is None else self.step_size
        smallest = floor(1e-6 * self.max_step, least) if self.min_step is None else self.min_step
        sizes = (smallest, first, self.max_step)
        if not any(isinstance(v, Tracer) for v in sizes) and not 0 < smallest <= first <= self.max_step:
            raise ValueError(f"steps must be 0 < min_step <= step_size <= max_step, got {sizes}")
        if self.num_points < 3:
            raise ValueError(f"num_points must be at least 3, got {self.num_points}")
        return first, self.max_step, smallest


Bound = float | np.floating | np.integer | Array
"""One end of a parameter's interval; may be traced."""

STEPPING = Stepping()
"""The default everywhere."""


_FAR = 8
"""What lies farther from zero than this many of its scales is measured from its own middle."""


class Map(NamedTuple):
    """What is static of a problem; hashable."""

    step: Step
    paths: tuple[Path | InputPath, ...]
    period: int
    angles: bool = False
    """Whether some entry of the state is an angle."""


class Data(NamedTuple):
    """What is traced of a problem."""

    params: PyTree
    inputs: PyTree
    state_scale: Float[Array, " n"]
    parameter_scale: Float[Array, " k"]
    angle_period: Float[Array, " n"]
    """In scaled units; inf where an entry is no angle."""
    centre: Float[Array, " m"]
    """What is 0 in scaled units, of state and parameters; itself 0 unless they lie far from there."""
    cycle: Int[Array, ""] | None = None
    """The period, where `Map` has 0 for it."""

    def scaled(self, points: Array) -> Array:
        """Joint points `[..., n + k]` in scaled units."""
        return (points - self.centre) / jnp.concatenate([self.state_scale, self.parameter_scale])

    def unscaled(self, points: Any) -> np.ndarray:
        """Joint points `[..., n + k]` in the user's units, as a numpy array."""
        return points * np.concatenate([self.state_scale, self.parameter_scale]) + np.asarray(self.centre)

    @property
    def spacing(self) -> Array:
        """How far apart neighbouring numbers are in scaled units, where that is farthest; at least as at 1."""
        size = jnp.concatenate([self.state_scale, self.parameter_scale])
        return spacing(self.state_scale.dtype) * (1 + jnp.max(jnp.abs(self.centre) / size))

    @property
    def noise(self) -> Array:
        """What residuals may be wrong by where the centre is not 0: nothing is solved for more exactly."""
        return 64 * (self.spacing - spacing(self.state_scale.dtype))


def get_value(params: PyTree, inputs: PyTree, path: Path | InputPath) -> Array:
    """The scalar that a path names, in the parameters or the inputs; `ValueError` where there is none.

    >>> get_value(None, jnp.array([0.5, 1.5]), InputPath(1)).item()
    1.5
    """
    if isinstance(path, InputPath):
        return get_parameter(inputs, path.path)
    return get_parameter(params, path)


def set_value(params: PyTree, inputs: PyTree, path: Path | InputPath, value: ArrayLike) -> tuple[PyTree, PyTree]:
    """`(params, inputs)` with that scalar replaced."""
    if isinstance(path, InputPath):
        return params, set_parameter(inputs, path.path, value)
    return set_parameter(params, path, value), inputs


def make_map(fmap: Map, data: Data) -> Callable[[Array], Array]:
    """One step `y = (x, parameters) -> F(x)` in scaled units; `[n + k] -> [n]`."""
    k = len(fmap.paths)
    middle, middles = data.centre[:-k], data.centre[-k:]

    def once(y):
        params, inputs = data.params, data.inputs
        for i, path in enumerate(fmap.paths):
            params, inputs = set_value(params, inputs, path, middles[i] + y[i - k] * data.parameter_scale[i])
        return (fmap.step(params, middle + y[:-k] * data.state_scale, inputs) - middle) / data.state_scale

    return once


def traced_period(fmap: Map, data: Data) -> tuple[Map, Data]:
    """The problem with its period traced, so that cycles of all periods share one program; forward derivatives only.

    Fixed points need no loop and have a program of their own.
    """
    if fmap.period == 1:
        return fmap, data
    return fmap._replace(period=0), data._replace(cycle=jnp.asarray(fmap.period, jnp.int32))


def iterate_map(fmap: Map, data: Data, steps: int | Int[Array, ""]) -> Callable[[Array], Array]:
    """`steps` steps `y -> F^steps(x)` in scaled units; their number may be traced."""
    k, once = len(fmap.paths), make_map(fmap, data)

    def apply(y):
        def body(x, _):
            return once(jnp.concatenate([x, y[-k:]])), None

        if isinstance(steps, int):
            return jax.lax.scan(body, y[:-k], length=steps)[0]
        return jax.lax.fori_loop(0, steps, lambda i, x: body(x, i)[0], y[:-k])

    return apply


def make_residual(fmap: Map, data: Data) -> Callable[[Array], Array]:
    """`G(y) = F^p(x; parameters) - x` in scaled units, `[n + k] -> [n]`; for angles up to whole turns."""
    steps = fmap.period if data.cycle is None else data.cycle
    apply, k = iterate_map(fmap, data, steps), len(fmap.paths)

    def residual(y):
        change = apply(y) - y[:-k]
        if not fmap.angles:
            return change
        return change - whole_turns(change, data.angle_period)

    return residual


def whole_turns(change: Array, period: Array) -> Array:
    """The multiple of the period nearest to a change of angle; zero for what is no angle."""
    angle = jnp.isfinite(period)
    period = jnp.where(angle, period, 1)
    return jnp.where(angle, period * jnp.round(change / period), 0)


def vectors(step: Step, states: PyTree, *, name: str, axes: int) -> tuple[Step, Array]:
    """The step on vectors and the states as `[*points, n]`; also inside `jit`, where the states may be constants."""
    with jax.ensure_compile_time_eval():
        step, flat, _ = flat_states(step, states, name=name, axes=axes)
    return step, flat


def check_problem(
    step: Step, params: PyTree, paths: tuple[Path | InputPath, ...], start: Array, inputs: PyTree, period: int
) -> None:
    """Raise `ValueError` for what is wrong before anything is traced."""
    for path in paths:
        get_value(params, inputs, path)
    check_count("period", period)
    check_map(step, params, start, inputs)


def check_bounds(bounds: tuple[Bound, Bound], name: str = "bounds") -> None:
    """Raise `ValueError` unless `bounds` is (low, high) with low < high."""
    if len(bounds) != 2 or not (
        any(isinstance(b, Tracer) for b in bounds) or -np.inf < float(bounds[0]) < float(bounds[1]) < np.inf
    ):
        raise ValueError(f"{name} must be (low, high), finite, with low < high, got {tuple(bounds)}")


def make_data(
    step: Step,
    params: PyTree,
    inputs: PyTree,
    states: Float[Array, "points n"],
    ranges: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    scale: PyTree = None,
    parameter_scale: ArrayLike | Sequence[float] | None = None,
    period_of_state: PyTree = None,
) -> Data:
    """A problem's data with its scales: given, or from the states and half the width of each parameter's range."""
    dtype, n = states.dtype, states.shape[1]
    low, high = (jnp.stack([jnp.asarray(pair[side], dtype) for pair in ranges]) for side in (0, 1))  # [k]
    size = (high - low) / 2
    state, parameter = state_size(states), jnp.where(size > 0, size, 1)
    if scale is not None:
        state = jnp.asarray(_positive(entries(step, scale, n, name="scale"), "scale"), dtype)
    if parameter_scale is not None:
        given = _positive(np.asarray(parameter_scale, float), "parameter_scale")
        parameter = jnp.broadcast_to(jnp.asarray(given, dtype), size.shape)
    state, parameter = (jnp.asarray(nearest_power_of_two(size)) for size in (state, parameter))
    angles = jnp.full(n, jnp.inf, dtype)
    if period_of_state is not None:
        turn = np.asarray(entries(step, period_of_state, n, name="period_of_state"))
        if not (turn >= 0).all():
            raise ValueError(f"period_of_state must not be negative, 0 for what is no angle, got {period_of_state!r}")
        # The scale of an angle is about a radian.
        angle = (turn > 0) & np.isfinite(turn)
        if scale is None:
            state = jnp.where(angle, nearest_power_of_two(jnp.asarray(np.where(angle, turn, 6) / 6, dtype)), state)
        angles = jnp.asarray(np.where(angle, turn, np.inf), dtype) / state
    middle = jnp.where(jnp.isfinite(angles), 0, (states.max(0) + states.min(0)) / 2)
    middle, units = jnp.concatenate([middle, (low + high) / 2]), jnp.concatenate([state, parameter])
    centre = jax.lax.stop_gradient(jnp.where(jnp.abs(middle) > _FAR * units, middle, 0))
    return Data(params, inputs, state, parameter, angles, centre)


def _positive(values: Array | np.ndarray, name: str) -> Array | np.ndarray:
    if not isinstance(values, Tracer) and not ((values > 0) & np.isfinite(values)).all():
        raise ValueError(f"{name} must be positive and finite, got {values}")
    return values


def state_size(states: Float[Array, "points n"]) -> Float[Array, " n"]:
    """The size of each entry: half of the points' spread, or of a single point (or equal ones) its modulus.

    Points are equal where they differ by no more than a thousand spacings. An entry that is zero in all points takes
    the largest of the others, or 1.

    >>> (1e6 * state_size(jnp.array([[0.0, 1e-6], [0.0, 3e-6]]))).round(3).tolist()
    [1.0, 1.0]
    """
    spread = (states.max(0) - states.min(0)) / 2
    modulus = jnp.abs(states).max(0)
    size = jnp.where(spread > 1e3 * spacing(states.dtype) * modulus, spread, modulus)
    largest = size.max()
    return jnp.where(
        size > spacing(states.dtype) * largest, size, jnp.where(largest > 0, largest, 1).astype(states.dtype)
    )
