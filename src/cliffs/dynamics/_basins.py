"""Basins of attraction on any grid or slice of states, for many parameters at once."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import merge_distance as default_merge_distance
from cliffs._precision import reachable_tolerance, spacing, unit_margin
from cliffs.dynamics._fixed_points import solve_fixed_points, sorted_multipliers
from cliffs.dynamics._newton import iterate
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._settling import settle
from cliffs.dynamics._units import ShiftedStep, entries, far_origin, relative_size, typical_sizes
from cliffs.typing import Step

ESCAPED, UNDECIDED, BOUNDARY, NEUTRAL, NONFINITE = -1, -2, -3, -4, -5
"""Labels that are no attractor: the state grew without bound or became NaN; it came to no cycle of at most `max_period`
in `max_steps`, or to one without multipliers; it stays on an unstable fixed point or cycle, so the start lies on a
basin boundary; it came to a neutral one (leading multiplier of modulus 1 to within the square root of the dtype's
spacing), as on a line of fixed points, where every start has an end of its own, or at a bifurcation; the start itself
was not finite."""


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
    `BOUNDARY` (-3), `NEUTRAL` (-4), `NONFINITE` (-5)."""
    attractors: list[Attractor] | list[list[Attractor]]
    """Sorted by the coordinates of their mean; with `over_params` one such list per run."""
    nonfinite: int = 0
    """How many starts were not finite: they are labelled `NONFINITE` and were not followed."""


def state_grid(
    origin: PyTree, directions: Sequence[PyTree], coordinates: Sequence[Float[Array | np.ndarray, " _"]]
) -> PyTree:
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
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    grid_axes: int = 1,
    over_params: bool = False,
    merge_distance: float | Array | None = None,
    scale: PyTree = None,
) -> Basins:
    """Which attractor each start of a grid leads to: stable fixed points, cycles, escape.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `starts`: states with `grid_axes` leading axes, for instance of `state_grid`.
    - `settling`: a `Settling`, how trajectories are followed.
    - `over_params`: whether the leaves of `params` have a leading run axis: one compiled program serves all runs.
    - `merge_distance`: attractors closer than this, relative to `scale + |x|`, are one; by default the square root of
      the tolerance.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from the starts if None.
      Entries whose starts lie more than a thousand of their spreads (or scales) from zero are measured from the middle
      of the starts: there `|x|` is the distance from it.

    **Returns** `Basins`.

    **Raises** `ValueError` for starts without the grid axes or none of them finite, `over_params` without parameters,
    and whatever `settle` refuses.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> basins = basins_of_attraction(one_unit_step, OneUnitParams(5.0, -2.5), jnp.linspace(-3, 2, 6)[:, None])
    >>> basins.labels.tolist(), [round(float(a.points[0, 0]), 2) for a in basins.attractors]
    ([0, 0, 0, -3, 1, 1], [-1.78, 1.78])
    """
    if grid_axes < 1:
        raise ValueError(f"grid_axes must be at least 1, got {grid_axes}")
    flat_step, grid, restore = flat_states(step, starts, axes=grid_axes, nonfinite="drop")
    shape, n = grid.shape[:-1], grid.shape[-1]
    whole = np.asarray(grid).reshape(-1, n)
    kept = np.isfinite(whole).all(1)
    flat = jnp.asarray(whole[kept])
    tolerance = reachable_tolerance(settling.tolerance, flat.dtype, double=1e-10)
    if not over_params:
        params = jax.tree.map(lambda p: jnp.asarray(p)[None], params)
    elif not jax.tree.leaves(params):
        raise ValueError(f"over_params needs parameters with a leading run axis, got params={params!r}")
    first = jax.tree.map(lambda p: p[0], params)
    check_map(flat_step, first, flat[0], inputs)
    scale = None if scale is None else entries(flat_step, scale, n, name="scale")
    origin = far_origin(whole[kept], scale)
    if origin.any():
        shifted = ShiftedStep(flat_step, settling.escape)
        params = params, jnp.broadcast_to(origin, (len(jax.tree.leaves(params)[0]) if over_params else 1, n))
        flat, first = flat - origin, (first, jnp.asarray(origin))
        sizes = typical_sizes(shifted, first, flat, inputs, scale)
        # Nothing repeats more exactly than the offset is rounded.
        tolerance = max(tolerance, 8 * spacing(flat.dtype) * float(jnp.max(jnp.abs(origin) / sizes)))
        escape = None if settling.escape is None else float("inf")
        flat_step, settling = shifted, dataclasses.replace(settling, tolerance=tolerance, escape=escape)
    else:
        sizes = typical_sizes(flat_step, first, flat, inputs, scale)
    merge = default_merge_distance(merge_distance, tolerance)

    def follow(p):
        return settle(flat_step, p, flat, inputs, settling, scale=sizes, centre=0.0)

    # Maps without parameters have nothing to map over.
    ends = jax.vmap(follow)(params) if jax.tree.leaves(params) else jax.tree.map(lambda x: x[None], follow(params))
    ends = jax.tree.map(np.asarray, ends)
    runs = len(ends.period)
    labels = np.full((runs, len(whole)), NONFINITE)
    groups = [_group(o, p, merge, np.asarray(sizes)) for o, p in zip(ends.orbit, ends.period)]
    solved = _polish(
        flat_step, params, inputs, sizes, [(i, o, p) for i, (reps, _) in enumerate(groups) for o, p in reps]
    )
    attractors = []
    for i, (reps, member) in enumerate(groups):
        mine = [next(solved) for _ in reps]
        order = sorted(range(len(mine)), key=lambda k: tuple(mine[k].points.mean(0)))
        leading = np.array([abs(a.multipliers[0]) for a in mine] + [0.0])
        names = np.where(leading > 1 + unit_margin(flat.dtype), BOUNDARY, NEUTRAL)
        names[np.isnan(leading)] = UNDECIDED
        stable = [k for k in order if leading[k] < 1 - unit_margin(flat.dtype)]
        names[stable] = np.arange(len(stable))
        others = np.where(ends.escaped[i], ESCAPED, UNDECIDED)
        labels[i, kept] = np.where(member >= 0, names[member], others)
        attractors.append([mine[k]._replace(points=restore(mine[k].points + origin)) for k in stable])
    labels, lost = labels.reshape(runs, *shape), int((~kept).sum())
    return Basins(labels, attractors, lost) if over_params else Basins(labels[0], attractors[0], lost)


def _group(
    orbits: np.ndarray, periods: np.ndarray, merge: float, scale: np.ndarray
) -> tuple[list[tuple[np.ndarray, int]], np.ndarray]:
    """The distinct cycles among settled orbits `[starts, max_period, n]`, and to which one each start belongs.

    The cycles are `(points, period)`; -1 is no cycle.
    """
    member = np.full(len(periods), -1)
    found: list[tuple[np.ndarray, int]] = []
    for period in np.unique(periods[periods > 0]):
        rows = np.flatnonzero(periods == period)
        while len(rows):
            cycle = orbits[rows[0], :period]
            here = orbits[rows, 0][:, None]  # [rows, 1, n] against [1, period, n]
            same = relative_size(here - cycle[None], here, scale).min(1) <= merge
            same[0] = True
            member[rows[same]] = len(found)
            found.append((cycle, int(period)))
            rows = rows[~same]
    return found, member


def _polish(step, params, inputs, scale, cycles) -> Iterator[Attractor]:
    """Each `(run, points, period)` taken to rounding by Newton, with its multipliers."""
    results: dict[int, Attractor] = {}
    for period in {p for *_, p in cycles}:
        rows = [k for k, (*_, p) in enumerate(cycles) if p == period]
        size = max(16, 1 << (len(rows) - 1).bit_length())
        padded = [rows[i % len(rows)] for i in range(size)]
        mine = jax.tree.map(lambda p, padded=padded: p[jnp.array([cycles[k][0] for k in padded])], params)
        points = jnp.asarray(np.array([cycles[k][1][0] for k in padded]))
        orbits, jacobians = map(np.asarray, _cycle(step, mine, points, inputs, scale, period=period))
        for j, k in enumerate(rows):
            results[k] = Attractor(orbits[j], period, sorted_multipliers(jacobians[j : j + 1])[0])
    return iter([results[k] for k in range(len(cycles))])


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _cycle(step, params, points, inputs, scale, *, period):
    """`points` `[cycles, n]` to orbits `[cycles, period, n]` and Jacobians `[cycles, n, n]`."""

    def one(p, x):
        x = solve_fixed_points(step, p, x[None], inputs, period=period, max_iterations=8, scale=scale).points[0]
        orbit = jax.lax.scan(lambda s, _: (step(p, s, inputs), s), x, length=period)[1]
        return orbit, jax.jacfwd(iterate(step, p, inputs, period))(x)

    return jax.vmap(one, in_axes=(0 if jax.tree.leaves(params) else None, 0))(params, points)
