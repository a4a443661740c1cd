"""Where trajectories end, and the basins of attraction on any grid or slice of states, for many parameters at once."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import reachable_tolerance, unit_margin
from cliffs.dynamics._fixed_points import iterate, solve_fixed_points
from cliffs.typing import Step

ESCAPED, UNDECIDED, BOUNDARY, NEUTRAL = -1, -2, -3, -4
"""Labels that are no attractor: the state grew without bound or became NaN; it came to no cycle of at most `max_period`
in `max_steps`; it stays on an unstable fixed point or cycle, so the start lies on a basin boundary; it came to a
neutral one (leading multiplier of modulus 1 to within the square root of the dtype's spacing), as on a line of fixed
points, where every start has an end of its own, or at a bifurcation."""


class Settled(NamedTuple):
    """Where each start ended; run axis first."""

    orbit: PyTree
    """Leaves `[starts, max_period, ...]`: the last state and the next ones; for a cycle of period p the first p."""
    period: Int[Array, " starts"]
    """The smallest p with `F^p(x) = x` within the tolerance; 0 where there is none up to `max_period`."""
    escaped: Bool[Array, " starts"]
    mean: PyTree
    """Leaves `[starts, ...]`: mean over the cycle, or over the last `window` steps where there is none."""
    spread: Float[Array, " starts"]
    """Root mean square distance from the mean over the same steps: with the mean, it tells invariant circles and
    chaotic attractors apart, roughly."""
    steps: Int[Array, " starts"]


def settle(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: Any = None,
    *,
    max_steps: int = 4096,
    max_period: int = 4,
    tolerance: float | None = None,
    escape: float = 1e6,
    window: int = 64,
) -> Settled:
    """Iterate `x <- F(x)` until the orbit repeats: `|F^p(x) - x| <= tolerance (1 + |x|)`; pure, for `jit` and `vmap`.

    The distance must not be growing either (unless it is at rounding level), so a trajectory that passes close to a
    saddle is not taken for settled.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]`.
    - `max_steps`: after which a start is given up (rounded up to a multiple of `window`).
    - `max_period`: the longest cycle that is recognised.
    - `tolerance`: 1e-10 in float64 and 1e-5 in float32 by default.
    - `escape`: a component beyond this, or not finite, has escaped; the state stops at its last value within.
    - `window`: steps between two looks.

    **Returns** `Settled`.

    **Raises** `ValueError` for bad starts, a step that is no map on them, counts below 1, or an unreachable tolerance.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> end = settle(one_unit_step, OneUnitParams(-6.0, 3.0), jnp.array([[0.5]]))
    >>> int(end.period[0]), round(float(abs(end.orbit[0, 0, 0])), 3)
    (2, 2.576)
    """
    for name, value in (("max_steps", max_steps), ("max_period", max_period), ("window", window)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    step, flat, restore = flat_states(step, starts)
    check_map(step, params, flat[0], inputs)
    tolerance = reachable_tolerance(tolerance, flat.dtype, double=1e-10)
    orbit, period, out, mean, spread, steps = _settle(
        step, params, flat, inputs, max_steps, tolerance, escape, max_period=max_period, window=window
    )
    return Settled(restore(orbit), period, out, restore(mean), spread, steps)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("max_period", "window"))
def _settle(step, params, starts, inputs, max_steps, tolerance, escape, *, max_period, window):
    rounding = 8 * jnp.finfo(starts.dtype).eps
    periods = jnp.arange(1, max_period + 1)
    divides = (periods[:, None] % periods == 0) & (periods[:, None] > periods)

    def apply(x):
        return step(params, x, inputs)

    def march(origin, carry, _):
        x, total, squares, out = carry
        new = apply(x)
        out = out | ~jnp.all(jnp.abs(new) <= escape)  # true for NaN
        x = jnp.where(out, x, new)
        # Squares about the window's first state: those about zero would cancel.
        return (x, total + x, squares + jnp.sum((x - origin) ** 2), out), None

    def look(x):
        orbit = jax.lax.scan(lambda s, _: (apply(s), s), x, length=2 * max_period + 1)[1]
        size = 1 + jnp.linalg.norm(x)
        first = jnp.linalg.norm(orbit[periods] - x, axis=1)
        second = jnp.linalg.norm(orbit[2 * periods] - orbit[periods], axis=1)
        still = (first <= tolerance * size) & ((second <= first) | (first <= rounding * size))
        # Near a fixed point with a negative multiplier F^2 converges before F does: wait for F.
        still = still & ~jnp.any(divides & (first <= tolerance**0.5 * size), axis=1)
        return orbit[:max_period], jnp.where(still.any(), periods[still.argmax()], 0)

    def body(carry):
        origin, _, _, out, _, _, steps = carry
        first = (origin, jnp.zeros_like(origin), jnp.zeros((), origin.dtype), out)
        (x, total, squares, out), _ = jax.lax.scan(functools.partial(march, origin), first, length=window)
        mean = total / window
        variance = squares / window - jnp.sum((mean - origin) ** 2)
        orbit, period = look(x)
        return x, orbit, jnp.where(out, 0, period), out, mean, jnp.sqrt(jnp.maximum(variance, 0)), steps + window

    def unfinished(carry):
        _, _, period, out, _, _, steps = carry
        return (period == 0) & ~out & (steps < max_steps)

    def fate(x):
        none = jnp.zeros((), periods.dtype)
        first = (x, jnp.zeros((max_period, *x.shape), x.dtype), none, jnp.array(False), x, x[0], none)
        last, orbit, period, out, mean, spread, steps = jax.lax.while_loop(unfinished, body, first)
        # Where it escaped, the orbit stays at the last state within bounds.
        orbit = jnp.where(out, jnp.broadcast_to(last[None], orbit.shape), orbit)
        inside = (jnp.arange(max_period) < period)[:, None]
        cycle = jnp.sum(jnp.where(inside, orbit, 0), 0) / jnp.maximum(period, 1)
        far = jnp.sum(jnp.where(inside, (orbit - cycle) ** 2, 0)) / jnp.maximum(period, 1)
        mean, spread = jnp.where(period > 0, cycle, mean), jnp.where(period > 0, jnp.sqrt(far), spread)
        return orbit, period, out, mean, spread, steps

    return jax.vmap(fate)(starts)


class Attractor(NamedTuple):
    """A stable fixed point or cycle; numpy arrays."""

    points: PyTree
    """Leaves `[period, ...]`, in the order of the map."""
    period: int
    multipliers: np.ndarray
    """Eigenvalues of the Jacobian of `F^period`, largest modulus first."""


class Basins(NamedTuple):
    """What `basins_of_attraction` returns."""

    labels: np.ndarray
    """`[*grid]`, with `over_params` `[runs, *grid]`: index into the attractors, or `ESCAPED` (-1), `UNDECIDED` (-2),
    `BOUNDARY` (-3), `NEUTRAL` (-4)."""
    attractors: list[Any]
    """`Attractor`s sorted by the coordinates of their mean; with `over_params` one such list per run."""


def state_grid(origin: PyTree, directions: Sequence[PyTree], coordinates: Sequence[Any]) -> PyTree:
    """A slice of state space: `origin + sum_i c_i direction_i` for every combination of coordinates.

    **Arguments**: a state; states of the same structure, one per axis; `[n_i]` coordinates, one array per axis.

    **Returns** states with leaves `[n_1, n_2, ..., *shape]`.

    **Raises** `ValueError` when there are not as many directions as coordinates.

    >>> state_grid(jnp.zeros(3), [jnp.eye(3)[0], jnp.eye(3)[2]], [jnp.arange(4.0), jnp.arange(5.0)]).shape
    (4, 5, 3)
    """
    if len(directions) != len(coordinates) or not directions:
        raise ValueError(
            f"directions and coordinates must be as many, at least 1, got {len(directions)} and {len(coordinates)}"
        )
    mesh = jnp.meshgrid(*map(jnp.asarray, coordinates), indexing="ij")

    def place(x, *along):
        x = jnp.asarray(x)
        return x + sum(c[(...,) + (None,) * x.ndim] * jnp.asarray(d) for c, d in zip(mesh, along))

    return jax.tree.map(place, origin, *directions)


def basins_of_attraction(
    step: Step,
    params: PyTree,
    starts: PyTree,
    inputs: Any = None,
    *,
    grid_axes: int = 1,
    over_params: bool = False,
    merge_distance: float | None = None,
    **settings: Any,
) -> Basins:
    """Which attractor each start of a grid leads to: stable fixed points, cycles, escape.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `starts`: states with `grid_axes` leading axes, for instance of `state_grid`.
    - `over_params`: whether the leaves of `params` have a leading run axis: one compiled program serves all runs.
    - `merge_distance`: attractors closer than this, relative to `1 + |x|`, are one; by default the square root of the
      tolerance.
    - further keywords go to `settle`.

    **Returns** `Basins`.

    **Raises** `ValueError` for starts without the grid axes and whatever `settle` refuses.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> basins = basins_of_attraction(one_unit_step, OneUnitParams(5.0, -2.5), jnp.linspace(-3, 2, 6)[:, None])
    >>> basins.labels.tolist(), [round(float(a.points[0, 0]), 2) for a in basins.attractors]
    ([0, 0, 0, -3, 1, 1], [-1.78, 1.78])
    """
    if grid_axes < 1:
        raise ValueError(f"grid_axes must be at least 1, got {grid_axes}")
    flat_step, grid, restore = flat_states(step, starts, axes=grid_axes)
    shape, n = grid.shape[:-1], grid.shape[-1]
    flat = grid.reshape(-1, n)
    tolerance = reachable_tolerance(settings.get("tolerance"), flat.dtype, double=1e-10)
    merge = tolerance**0.5 if merge_distance is None else merge_distance
    if not over_params:
        params = jax.tree.map(lambda p: jnp.asarray(p)[None], params)
    ends = jax.vmap(lambda p: settle(flat_step, p, flat, inputs, **settings))(params)
    ends = jax.tree.map(np.asarray, ends)
    runs = len(ends.period)
    labels = np.where(ends.escaped, ESCAPED, UNDECIDED)
    groups = [_group(o, p, merge) for o, p in zip(ends.orbit, ends.period)]
    solved = _polish(flat_step, params, inputs, [(i, o, p) for i, (reps, _) in enumerate(groups) for o, p in reps])
    attractors = []
    for i, (reps, member) in enumerate(groups):
        mine = [next(solved) for _ in reps]
        order = sorted(range(len(mine)), key=lambda k: tuple(mine[k].points.mean(0)))
        leading = np.array([abs(a.multipliers[0]) for a in mine] + [0.0])
        names = np.where(leading > 1 + unit_margin(flat.dtype), BOUNDARY, NEUTRAL)
        stable = [k for k in order if leading[k] < 1 - unit_margin(flat.dtype)]
        names[stable] = np.arange(len(stable))
        labels[i] = np.where(member >= 0, names[member], labels[i])
        attractors.append([mine[k]._replace(points=restore(mine[k].points)) for k in stable])
    labels = labels.reshape(runs, *shape)
    return Basins(labels, attractors) if over_params else Basins(labels[0], attractors[0])


def _group(orbits: np.ndarray, periods: np.ndarray, merge: float) -> tuple[list[tuple[np.ndarray, int]], np.ndarray]:
    """The distinct cycles among settled orbits as `(points, period)`; which one each start belongs to (-1: none)."""
    member = np.full(len(periods), -1)
    found: list[tuple[np.ndarray, int]] = []
    for period in np.unique(periods[periods > 0]):
        rows = np.flatnonzero(periods == period)
        while len(rows):
            cycle = orbits[rows[0], :period]
            apart = np.linalg.norm(orbits[rows, 0][:, None] - cycle[None], axis=-1).min(1)
            same = apart <= merge * (1 + np.linalg.norm(orbits[rows, 0], axis=1))
            same[0] = True
            member[rows[same]] = len(found)
            found.append((cycle, int(period)))
            rows = rows[~same]
    return found, member


def _polish(step, params, inputs, cycles):
    """Each `(run, points, period)` taken to rounding by Newton, with its multipliers; an iterator of `Attractor`s."""
    results: dict[int, Attractor] = {}
    for period in {p for *_, p in cycles}:
        rows = [k for k, (*_, p) in enumerate(cycles) if p == period]
        size = max(16, 1 << (len(rows) - 1).bit_length())
        padded = [rows[i % len(rows)] for i in range(size)]
        mine = jax.tree.map(lambda p, padded=padded: p[jnp.array([cycles[k][0] for k in padded])], params)
        points = jnp.asarray(np.array([cycles[k][1][0] for k in padded]))
        orbits, jacobians = map(np.asarray, _cycle(step, mine, points, inputs, period=period))
        for j, k in enumerate(rows):
            values = np.linalg.eigvals(jacobians[j])
            results[k] = Attractor(orbits[j], period, values[np.argsort(-np.abs(values))])
    return iter([results[k] for k in range(len(cycles))])


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _cycle(step, params, points, inputs, *, period):
    def one(p, x):
        x = solve_fixed_points(step, p, x[None], inputs, period=period, max_iterations=8).points[0]
        orbit = jax.lax.scan(lambda s, _: (step(p, s, inputs), s), x, length=period)[1]
        return orbit, jax.jacfwd(iterate(step, p, inputs, period))(x)

    return jax.vmap(one)(params, points)
