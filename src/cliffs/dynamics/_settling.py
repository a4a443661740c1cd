"""Where each trajectory ends: iterate until the orbit repeats, escapes, or time is up."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import reachable_tolerance, spacing
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._units import entries, far_origin, offset_noise, relative_size, typical_sizes
from cliffs.typing import Step

_FAR = 1e6


class Settled(NamedTuple):
    """Where each start ended; run axis first."""

    orbit: PyTree
    """Leaves `[starts, max_period, ...]`: the last state and the next ones; for a cycle of period p the first p."""
    period: Int[Array, " starts"]
    """The smallest p with `F^p(x) = x` within the tolerance; 0 where there is none up to `max_period`."""
    escaped: Bool[Array, " starts"]
    mean: PyTree
    """Leaves `[starts, ...]`: mean over the cycle, or over the last `window` steps where there is none."""
    deviation: PyTree
    """Leaves `[starts, ...]`: root mean square deviation from the mean over the same steps: with the mean, it tells
    invariant circles and chaotic attractors apart, roughly."""
    steps: Int[Array, " starts"]
    scale: PyTree
    """Leaves `[starts, ...]`: the typical size of each entry of the state that tolerances were relative to."""
    centre: PyTree = None
    """Leaves `[starts, ...]`: where `|x|` was measured from; None for 0."""

    @property
    def spread(self) -> Float[Array, "*runs starts"]:
        """Root mean square distance (Euclidean) from the mean over the same steps."""
        axes = jnp.ndim(self.period)
        squares = [jnp.sum(x**2, tuple(range(axes, x.ndim))) for x in jax.tree.leaves(self.deviation)]
        return jnp.sqrt(sum(squares))


def settle(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    scale: PyTree = None,
    centre: PyTree = None,
) -> Settled:
    """Iterate `x <- F(x)` until the orbit repeats: `|F^p(x) - x| <= tolerance (scale + |x|)`; pure, for `jit`, `vmap`.

    The distance must not be growing either (unless it is at rounding level), so a trajectory that passes close to a
    saddle is not taken for settled.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`.
    - `settling`: a `Settling`: how long, how exactly, up to which period.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from the starts if None.
    - `centre`: a state; `|x|` is the distance from it. By default 0, but for entries whose starts lie more than a
      thousand of their spreads (or scales) from zero: those are measured from the middle of the starts. A single start
      has no spread: far from zero, give the scale.

    **Returns** `Settled`.

    **Raises** `ValueError` for bad starts, a step that is no map on them, or an unreachable tolerance.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> end = settle(one_unit_step, OneUnitParams(-6.0, 3.0), jnp.array([[0.5]]))
    >>> int(end.period[0]), round(float(abs(end.orbit[0, 0, 0])), 3)
    (2, 2.576)
    """
    step, flat, restore = flat_states(step, starts)
    check_map(step, params, flat[0], inputs)
    tolerance = reachable_tolerance(settling.tolerance, flat.dtype, double=1e-10)
    n = flat.shape[1]
    if centre is None:
        middle = jnp.asarray(far_origin(flat, None if scale is None else entries(step, scale, n, name="scale")))
    else:
        middle = jnp.asarray(entries(step, centre, n, name="centre"), flat.dtype)
    sizes = typical_sizes(step, params, flat, inputs, scale, middle)
    if settling.escape is None:
        low, high = middle - _FAR * jnp.maximum(sizes, 1), middle + _FAR * jnp.maximum(sizes, 1)
    else:
        high = jnp.full_like(sizes, settling.escape)
        low = -high
    # Nothing repeats more exactly than the offset is rounded.
    noise = offset_noise(middle, sizes, flat.dtype)
    orbit, period, out, mean, deviation, steps = _settle(
        step,
        params,
        flat,
        inputs,
        settling.max_steps,
        jnp.maximum(tolerance, noise),
        (low, high),
        (sizes, middle, jnp.maximum(8 * spacing(flat.dtype), noise)),
        max_period=settling.max_period,
        window=settling.window,
    )
    return Settled(
        orbit=restore(orbit),
        period=period,
        escaped=out,
        mean=restore(mean),
        deviation=restore(deviation),
        steps=steps,
        scale=restore(jnp.broadcast_to(sizes, flat.shape)),
        centre=restore(jnp.broadcast_to(middle, flat.shape)),
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_period", "window"))
def _settle(step, params, starts, inputs, max_steps, tolerance, bounds, units, *, max_period, window):
    """From `starts` `[starts, n]`, the `bounds` of what has not escaped and `units` (scale, centre, rounding).

    All fields of `Settled` but the last two, flat.
    """
    low, high = bounds
    scale, centre, rounding = units
    periods = jnp.arange(1, max_period + 1)
    # [period, other]: whether the other is a proper divisor.
    divides = (periods[:, None] % periods == 0) & (periods[:, None] > periods)

    def apply(x):
        return step(params, x, inputs)

    def march(origin, carry, _):
        x, total, squares, out = carry
        new = apply(x)
        out = out | ~jnp.all((low <= new) & (new <= high))  # true for NaN
        x = jnp.where(out, x, new)
        # Sums about the window's first state: squares about zero would cancel.
        return (x, total + (x - origin), squares + (x - origin) ** 2, out), None

    def look(x):
        orbit = jax.lax.scan(lambda s, _: (apply(s), s), x, length=2 * max_period + 1)[1]  # [2 max_period + 1, n]
        first = relative_size(orbit[periods] - x, x - centre, scale)  # [period]
        second = relative_size(orbit[2 * periods] - orbit[periods], x - centre, scale)
        still = (first <= tolerance) & ((second <= first) | (first <= rounding))
        # Near a fixed point with a negative multiplier F^2 converges before F does: wait for F.
        still = still & ~jnp.any(divides & (first <= tolerance**0.5), axis=1)
        return orbit[:max_period], jnp.where(still.any(), periods[still.argmax()], 0)

    def body(carry):
        origin, _, _, out, _, _, steps = carry
        nothing = jnp.zeros_like(origin)
        first = (origin, nothing, nothing, out)
        (x, total, squares, out), _ = jax.lax.scan(functools.partial(march, origin), first, length=window)
        mean = total / window
        variance = squares / window - mean**2
        orbit, period = look(x)
        return (
            x,
            orbit,
            jnp.where(out, 0, period),
            out,
            origin + mean,
            jnp.sqrt(jnp.maximum(variance, 0)),
            steps + window,
        )

    def unfinished(carry):
        _, _, period, out, _, _, steps = carry
        return (period == 0) & ~out & (steps < max_steps)

    def end(x):
        none = jnp.zeros((), periods.dtype)
        first = (x, jnp.zeros((max_period, *x.shape), x.dtype), none, jnp.array(False), x, jnp.zeros_like(x), none)
        last, orbit, period, out, mean, deviation, steps = jax.lax.while_loop(unfinished, body, first)
        # Where it escaped, the orbit stays at the last state within bounds.
        orbit = jnp.where(out, jnp.broadcast_to(last[None], orbit.shape), orbit)
        inside = (jnp.arange(max_period) < period)[:, None]
        cycle = orbit[0] + jnp.sum(jnp.where(inside, orbit - orbit[0], 0), 0) / jnp.maximum(period, 1)
        far = jnp.sum(jnp.where(inside, (orbit - cycle) ** 2, 0), 0) / jnp.maximum(period, 1)
        mean, deviation = jnp.where(period > 0, cycle, mean), jnp.where(period > 0, jnp.sqrt(far), deviation)
        return orbit, period, out, mean, deviation, steps

    return jax.vmap(end)(starts)
