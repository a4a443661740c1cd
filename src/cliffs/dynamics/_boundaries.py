"""Basin boundaries: by bisection between states of any dimension, and in one dimension as preimages."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import merge_distance as default_merge_distance
from cliffs._precision import num_halvings, reachable_tolerance, spacing
from cliffs.dynamics._attractor_matching import same_attractor
from cliffs.dynamics._fixed_points import find_fixed_points
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._settling import settle
from cliffs.dynamics._units import entries, far_origin, offset_noise, typical_sizes
from cliffs.typing import Step


class BoundaryPoint(NamedTuple):
    """Points on basin boundaries; run axis first."""

    states: PyTree
    """Leaves `[pairs, ...]`, the middle of the last bracket."""
    width: Float[Array, " pairs"]
    """Length of the last bracket (Euclidean)."""
    found: Bool[Array, " pairs"]
    """False where both ends lead to the same attractor: then `states` means nothing."""


def bisect_boundary(
    step: Step,
    params: PyTree,
    inside: PyTree,
    outside: PyTree,
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    merge_distance: float | Array | None = None,
    num_iterations: int | None = None,
    scale: PyTree = None,
) -> BoundaryPoint:
    """Where the segment from `inside` to `outside` leaves the basin that `inside` lies in; pure, for `jit` and `vmap`.

    Each bisection follows the middle until it settles. A bracket ends at the spacing of the dtype, so in float64 a
    boundary is located to about 1e-16 times the segment.

    **Arguments**

    - `step`, `params`, `inputs`: the map, its input held fixed.
    - `inside`, `outside`: `[pairs, n]`, or pytrees with leaves `[pairs, ...]`.
    - `settling`: a `Settling`, how trajectories are followed.
    - `merge_distance`: ends closer than this, relative to `scale + |x|`, are one attractor; by default the square root
      of the tolerance.
    - `num_iterations`: 60 in float64 and 31 in float32 by default.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from both ends of the
      segments if None. Far from zero `|x|` is the distance from their middle, as in `settle`.

    **Returns** `BoundaryPoint`. Where the segment crosses several boundaries, one of them.

    **Raises** what `settle` raises.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> ends = jnp.array([[-1.0]]), jnp.array([[2.0]])
    >>> point = bisect_boundary(one_unit_step, OneUnitParams(5.0, -2.5), *ends)
    >>> bool(point.found[0]), abs(float(point.states[0, 0])) < 1e-5
    (True, True)
    """
    flat_step, a, restore = flat_states(step, inside, name="inside")
    _, b, _ = flat_states(step, outside, name="outside")
    if a.shape != b.shape or a.dtype != b.dtype:
        raise ValueError(f"inside and outside must be alike, got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
    check_map(flat_step, params, a[0], inputs)
    merge = default_merge_distance(merge_distance, reachable_tolerance(settling.tolerance, a.dtype, double=1e-10))
    both = jnp.concatenate([a, b])
    given = None if scale is None else entries(flat_step, scale, a.shape[1], name="scale")
    centre = jnp.asarray(far_origin(both, given))
    count = num_halvings(a.dtype) if num_iterations is None else num_iterations
    sizes = typical_sizes(flat_step, params, both, inputs, scale, centre)
    if merge_distance is None:
        merge = jnp.maximum(merge, offset_noise(centre, sizes, a.dtype) ** 0.5)
    low, high, found = _bisect(flat_step, params, a, b, inputs, merge, count, sizes, centre, settling=settling)
    return BoundaryPoint(restore(0.5 * (low + high)), jnp.linalg.norm(high - low, axis=-1), found)


@functools.partial(jax.jit, static_argnums=0, static_argnames="settling")
def _bisect(step, params, a, b, inputs, merge, count, scale, centre, *, settling):
    """From `a` and `b` `[pairs, n]`: the last brackets and whether their two ends lead to different attractors."""

    def end(x):
        return settle(step, params, x, inputs, settling, scale=scale, centre=centre)

    home = end(a)

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        same = same_attractor(end(middle), home, merge)[:, None]
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    return *jax.lax.fori_loop(0, count, halve, (a, b)), ~same_attractor(end(b), home, merge)


class Boundaries1D(NamedTuple):
    """The basin boundaries of a one-dimensional map, sorted; numpy arrays."""

    positions: Float[np.ndarray, " found"]
    depth: Int[np.ndarray, " found"]
    """0 for a point of an unstable cycle itself, k for a preimage of order k."""
    multiplier: Float[np.ndarray, " found"]
    """`dF^p/dx` of the unstable cycle of period p that the boundary leads to."""


@functools.partial(jax.jit, static_argnums=0)
def _preimages(step, params, inputs, grid, targets):
    """Roots of `F(x) = y` between grid points `[cells + 1]`: `(roots, found)`, each `[targets, cells]`."""

    def apply(x):
        return step(params, x[None], inputs)[0]

    values = jax.vmap(apply)(grid)

    def search(target):
        left, right = values[:-1] - target, values[1:] - target
        crosses = (jnp.sign(left) != jnp.sign(right)) & (right != 0)

        def halve(bracket, _):
            low, high = bracket
            middle = 0.5 * (low + high)
            same = jnp.sign(jax.vmap(apply)(middle) - target) == jnp.sign(left)
            return (jnp.where(same, middle, low), jnp.where(same, high, middle)), None

        (low, high), _ = jax.lax.scan(halve, (grid[:-1], grid[1:]), length=64)
        return jnp.where(left == 0, grid[:-1], 0.5 * (low + high)), crosses

    return jax.vmap(search)(targets)


def boundaries_1d(
    step: Step,
    params: PyTree,
    bounds: tuple[float, float],
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    max_period: int = 2,
    depth: int = 4,
    num_cells: int = 2000,
    dtype: DTypeLike | None = None,
) -> Boundaries1D:
    """All basin boundaries of a one-dimensional map on an interval: unstable cycles and their preimages.

    In one dimension a boundary is the stable set of an unstable fixed point or cycle, that is the point and all that
    the map sends to it. Candidates are solved for, then kept if starts on their two sides end differently.

    **Arguments**

    - `step`, `params`, `inputs`: a map on states `[1]`.
    - `bounds`: the interval; its size is the scale of the state.
    - `settling`: a `Settling`, how starts on the two sides of a candidate are followed.
    - `max_period`: unstable cycles up to this period.
    - `depth`: preimages up to this order (a fractal boundary has infinitely many).
    - `num_cells`: how finely the interval is searched for roots.
    - `dtype`: precision, JAX's default float if None.

    **Returns** `Boundaries1D`.

    **Raises** `ValueError` for bounds that are not finite and increasing.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 4 (the dashed line).

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> boundary = boundaries_1d(one_unit_step, OneUnitParams(5.0, -2.5), (-4.0, 4.5))
    >>> boundary.depth.tolist(), boundary.multiplier.round(3).tolist()
    ([0], [1.25])
    """
    low, high = map(float, bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low < high, got {bounds}")
    grid = jnp.linspace(low, high, num_cells + 1, dtype=jnp.zeros((), dtype).dtype)
    check_map(step, params, grid[:1], inputs)
    merge, scale = spacing(grid.dtype) ** 0.5 * (high - low), (high - low) / 2
    points: list[tuple[float, int, float]] = []
    for period in range(1, max_period + 1):
        starts = grid[:: max(num_cells // 250, 1), None]
        found = find_fixed_points(step, params, starts, inputs, period=period, slow_speed=0.0, scale=scale)
        for cycle, multiplier in zip(found.cycles[:, :, 0], np.real(found.multipliers[:, 0])):
            if abs(multiplier) > 1:
                points += [(float(x), 0, float(multiplier)) for x in cycle]
    last = list(points)
    for order in range(1, depth + 1):
        if not last:
            break
        roots, crosses = _preimages(step, params, inputs, grid, jnp.asarray([p[0] for p in last], grid.dtype))
        new = [(float(x), order, p[2]) for r, c, p in zip(np.asarray(roots), np.asarray(crosses), last) for x in r[c]]
        last = [p for p in new if not any(abs(p[0] - q[0]) <= merge for q in points)]
        points += last
    points = sorted(p for p in points if low <= p[0] <= high)
    kept = _separating(step, params, inputs, grid, points, scale, settling) if points else []
    columns = zip(*kept) if kept else ((), (), ())
    positions, orders, multipliers = columns
    return Boundaries1D(np.array(positions, float), np.array(orders, int), np.array(multipliers, float))


def _separating(step, params, inputs, grid, points, scale, settling):
    """Those points whose two sides, a small step away, end on different attractors."""
    positions = np.array([p[0] for p in points])
    gaps = np.diff(positions)
    room = np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))
    aside = np.minimum(1e-5 * float(grid[-1] - grid[0]), 0.3 * room)
    sides = jnp.asarray(np.concatenate([positions - aside, positions + aside])[:, None], grid.dtype)
    ends = settle(step, params, sides, inputs, settling, scale=scale)
    k = len(points)
    left, right = (jax.tree.map(lambda x, s=s: x[s], ends) for s in (slice(k), slice(k, None)))
    merge = default_merge_distance(None, reachable_tolerance(settling.tolerance, grid.dtype, double=1e-10))
    apart = ~np.asarray(same_attractor(left, right, merge))
    return [p for p, keep in zip(points, apart) if keep]
