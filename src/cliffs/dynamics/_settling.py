"""Where each trajectory ends: iterate until the orbit repeats, escapes, or time is up."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import reachable_tolerance, spacing
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._units import relative_size, typical_sizes
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
) -> Settled:
    """Iterate `x <- F(x)` until the orbit repeats: `|F^p(x) - x| <= tolerance (scale + |x|)`; pure, for `jit`, `vmap`.

    The distance must not be growing either (unless it is at rounding level), so a trajectory that passes close to a
    saddle is not taken for settled.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`.
    - `settling`: a `Settling`: how long, how exactly, up to which period.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from the starts if None.

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
    sizes = typical_sizes(step, params, flat, inputs, scale)
    escape = _FAR * jnp.maximum(sizes, 1) if settling.escape is None else jnp.full_like(sizes, settling.escape)
    orbit, period, out, mean, deviation, steps = _settle(
        step,
        params,
        flat,
        inputs,
        settling.max_steps,
        tolerance,
        escape,
        sizes,
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
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_period", "window"))
def _settle(step, params, starts, inputs, max_steps, tolerance, escape, scale, *, max_period, window):
    """From `starts` `[starts, n]`, `escape` and `scale` `[n]`: the fields of `Settled` but the last, flat."""
    rounding = 8 * spacing(starts.dtype)
    periods = jnp.arange(1, max_period + 1)
    # [period, other]: whether the other is a proper divisor.
    divides = (periods[:, None] % periods == 0) & (periods[:, None] > periods)

    def apply(x):
        return step(params, x, inputs)

    def march(origin, carry, _):
        x, total, squares, out = carry
        new = apply(x)
        out = out | ~jnp.all(jnp.abs(new) <= escape)  # true for NaN
        x = jnp.where(out, x, new)
        # Squares about the window's first state: those about zero would cancel.
        return (x, total + x, squares + (x - origin) ** 2, out), None

    def look(x):
        orbit = jax.lax.scan(lambda s, _: (apply(s), s), x, length=2 * max_period + 1)[1]  # [2 max_period + 1, n]
        first = relative_size(orbit[periods] - x, x, scale)  # [period]
        second = relative_size(orbit[2 * periods] - orbit[periods], x, scale)
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
        variance = squares / window - (mean - origin) ** 2
        orbit, period = look(x)
        return x, orbit, jnp.where(out, 0, period), out, mean, jnp.sqrt(jnp.maximum(variance, 0)), steps + window

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
        cycle = jnp.sum(jnp.where(inside, orbit, 0), 0) / jnp.maximum(period, 1)
        far = jnp.sum(jnp.where(inside, (orbit - cycle) ** 2, 0), 0) / jnp.maximum(period, 1)
        mean, deviation = jnp.where(period > 0, cycle, mean), jnp.where(period > 0, jnp.sqrt(far), deviation)
        return orbit, period, out, mean, deviation, steps

    return jax.vmap(end)(starts)
