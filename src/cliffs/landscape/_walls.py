"""Finding on a slice what its grid is too coarse to show: walls, and the points that a line needs to be drawn."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs.landscape._directions import check_independent, shift
from cliffs.landscape._steepest import half_points, rounding, slope_at, zoom
from cliffs.landscape._surface import Surface, map_points, surface
from cliffs.typing import Objective


class Walls(NamedTuple):
    """Walls of a loss on a slice, the steepest first; numpy arrays. Each stands across a line of the grid.

    A table of places on a slice. A `CliffProfile` describes one wall on one line, with the slopes of the ground on both
    sides, which a search over a grid does not measure.
    """

    coordinates: Float[np.ndarray, "walls directions"]
    """Where `|dE/ds|` along the line is largest, in offsets of the slice."""
    axis: Int[np.ndarray, " walls"]
    """Which direction the line runs along."""
    peak: Float[np.ndarray, " walls"]
    """`|dE/ds|` there; only a lower bound where not resolved."""
    grad_norm: Float[np.ndarray, " walls"]
    """`||grad E||` there, with respect to all parameters."""
    width: Float[np.ndarray, " walls"]
    """Full width at half maximum along the line."""
    resolved: Bool[np.ndarray, " walls"]
    """Whether the width spans at least 16 numbers of the dtype; if not, the wall is higher and narrower."""


class LineSamples(NamedTuple):
    """A loss at points of a line that lie closer where it bends; numpy arrays."""

    offsets: Float[np.ndarray, " points"]
    loss: Float[np.ndarray, " points"]
    slope: Float[np.ndarray, " points"]
    """`dE/ds`."""
    grad_norm: Float[np.ndarray, " points"]
    complete: bool
    """Whether every interval is within the tolerance; False when the dtype or `max_points` ended the refinement, or
    when the loss or its slope is not finite at some of the points."""


def find_walls(
    loss: Objective,
    params: PyTree,
    directions: Sequence[PyTree],
    offsets: Sequence[Float[Array | np.ndarray, " _"]],
    *,
    contrast: float = 10.0,
    chunk_size: int = 256,
) -> Walls:
    """The walls of a loss that cross the lines of a grid, also those far narrower than its spacing.

    On every line of the grid, in each direction, an interval is suspected of a wall when the loss changes over it by
    more than twice what the slopes at its ends explain, and a grid point when the slope has a local maximum there.
    All suspects are divided at once, always following the largest certain lower bound of the slope (`|dE| / h` and
    the slopes at the points), until the peak is found or the dtype ends; those whose peak exceeds `contrast` times
    the median slope are walls. A ditch that begins and ends between two neighbouring points leaves no trace in them
    and is not found.

    **Arguments**

    - `loss`, `params`, `directions`, `offsets`: the slice and its grid, as in `cliffs.landscape.surface`; offsets
      strictly increasing, at least two along each direction. One direction is a search on one line.
    - `contrast`: how much steeper than the median of `|dE/ds|` on the grid a wall must be. Points where the loss is not
      finite are ignored.
    - `chunk_size`: evaluations side by side; for recurrent networks on a CPU 1 is fastest.

    **Returns** `Walls`, none or many. Warns when any of them is narrower than the dtype can resolve.

    **Raises** what `surface` raises, and `ValueError` for offsets that do not increase.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.4 and Fig. 3.

    >>> walls = find_walls(lambda s: jnp.tanh(1e4 * (s - 0.3)), jnp.float32(0), [1.0], [jnp.linspace(-1, 1, 10)])
    >>> abs(walls.coordinates - 0.3).max() < 1e-6, walls.resolved.tolist()
    (np.True_, [True])
    """
    axes: list[Any] = [np.asarray(o) for o in offsets]
    if any(a.ndim != 1 or len(a) < 2 or not (np.diff(a) > 0).all() for a in axes):
        raise ValueError("offsets must be strictly increasing, with at least two values along each direction")
    params = jax.tree.map(jnp.asarray, params)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    shift(params, directions)  # its checks
    for d in directions:
        check_independent([d])
    directions = [jax.tree.map(lambda p, d: jnp.asarray(d, p.dtype), params, d) for d in directions]
    grid = jax.tree.map(np.asarray, jax.jit(lambda: surface(loss, params, directions, axes, chunk_size=chunk_size))())
    base, axis, low, high = _suspects(grid, contrast)
    empty = Walls(np.zeros((0, len(axes))), *(np.zeros(0, t) for t in (int, dtype, dtype, dtype, bool)))
    if len(axis) == 0:
        return empty
    limits = np.array([[a[0], a[-1]] for a in axes])[axis]
    measure = _measure(loss, params, directions, chunk_size)
    found = measure(*(jnp.asarray(x, dtype) for x in (base, low, high, limits)), jnp.asarray(axis))
    position, peak, norm, left, right, resolution = (np.asarray(x) for x in found)
    coordinates = base.astype(position.dtype)
    coordinates[np.arange(len(axis)), axis] = position
    width = left + right
    floor = np.array([_floor(grid.slopes[..., i]) for i in range(len(axes))])[axis]
    order = [i for i in np.argsort(-peak, kind="stable") if peak[i] > contrast * floor[i]]
    keep: list[int] = []
    for i in order:  # two suspects may have led to the same wall
        same = [
            k
            for k in keep
            if axis[k] == axis[i]
            and (np.delete(base[k], axis[k]) == np.delete(base[i], axis[i])).all()
            and abs(position[k] - position[i]) <= max(width[k], width[i], 4 * resolution[i])
        ]
        if not same:
            keep.append(i)
    if not keep:
        return empty
    resolved = width > 16 * resolution
    if not resolved[keep].all():
        worst = next(i for i in keep if not resolved[i])
        warnings.warn(
            f"{(~resolved[keep]).sum()} of {len(keep)} walls, the first at {coordinates[worst].tolist()}, are narrower "
            f"than {dtype} resolves there: their peaks and widths are bounds only",
            stacklevel=2,
        )
    return Walls(*(x[keep] for x in (coordinates, axis, peak, norm, width, resolved)))


def _floor(slopes: Any) -> float:
    """The median steepness where the loss is finite; a loss that overflows on a part still has walls elsewhere."""
    finite = np.abs(slopes[np.isfinite(slopes)])
    return float(np.median(finite)) if finite.size else np.inf


def _suspects(grid: Surface, contrast: float):
    """Base point `[k, directions]`, direction, and interval of every line segment that may hold a wall."""
    rows: list[tuple] = []
    axes = [np.asarray(a) for a in grid.offsets]
    for i, points in enumerate(axes):
        # The line's own axis last.
        value = np.moveaxis(np.asarray(grid.loss), i, -1)
        signed = np.moveaxis(np.asarray(grid.slopes)[..., i], i, -1)
        slope = np.abs(signed)
        ends = np.maximum(slope[..., :-1], slope[..., 1:])
        with np.errstate(invalid="ignore"):
            h, change = np.diff(points), np.diff(value)
            above = change - h * np.maximum(signed[..., :-1], signed[..., 1:])
            below = h * np.minimum(signed[..., :-1], signed[..., 1:]) - change
            hidden = np.maximum(above, below) > h * ends
            hidden &= np.abs(np.diff(value)) > 64 * np.finfo(value.dtype).eps * np.abs(value[..., 1:])
        padded = np.pad(slope, [(0, 0)] * (slope.ndim - 1) + [(1, 1)], constant_values=-1)
        peaks = (slope >= padded[..., :-2]) & (slope >= padded[..., 2:]) & (slope > contrast * _floor(slope))
        for spots, first, last in ((np.argwhere(hidden), 0, 1), (np.argwhere(peaks), -1, 1)):
            for spot in spots:
                j = spot[-1]
                others = [axes[1 - i][spot[0]]] if len(axes) == 2 else []
                base = np.insert(others, i, points[j])
                rows.append((base, i, points[max(j + first, 0)], points[min(j + last, len(points) - 1)]))
    if not rows:
        return (np.zeros((0, len(axes))), *(np.zeros(0, int) for _ in range(3)))
    return tuple(np.array(column) for column in zip(*rows))


def _measure(loss, params, directions, chunk_size):
    move = shift(params, directions)
    at = slope_at(loss, move, directions)

    @jax.jit
    def measure(base, low, high, limits, axis):
        onto = jax.nn.one_hot(axis, base.shape[1], dtype=bool)

        def place(points):  # [lanes, points] -> [lanes, points, directions]
            return jnp.where(onto[:, None], points[..., None], base[:, None])

        def evaluate(points):
            flat = place(points).reshape(-1, base.shape[1])
            out = map_points(at, flat, chunk_size)
            chosen = jnp.where(onto[:, None], out.pop("slopes").reshape(*points.shape, -1), 0).sum(-1)
            return {k: v.reshape(points.shape) for k, v in out.items()} | {"slope": chosen}

        def resolution(s):
            def one(point, which, s):
                sizes = jnp.stack([rounding(move(point), d, s) for d in directions])
                return jnp.where(which, sizes, 0).max()

            return jax.vmap(one)(place(s[:, None])[:, 0], onto, s)

        position, peak, norm = zoom(evaluate, low, high, resolution)
        left, right, _ = half_points(evaluate, position, peak, limits[:, 0], limits[:, 1], resolution)
        return position, peak, norm, left, right, resolution(position)

    return measure


def sample_line(
    loss: Objective,
    params: PyTree,
    direction: PyTree,
    bounds: tuple[float, float] = (-1.0, 1.0),
    *,
    num_points: int = 65,
    tolerance: float = 0.01,
    max_points: int = 4096,
    chunk_size: int = 256,
) -> LineSamples:
    """A loss and its slope on a line, sampled where they bend: intervals are halved until the trapezoid rule holds.

    An interval is halved while `|E_b - E_a - h (E'_a + E'_b) / 2|` exceeds `tolerance` times the range of E, so a wall
    ends up covered by points however narrow it is. Points where E or its slope is not finite are ignored, and the
    intervals that end there are left as they are.

    **Arguments**: as in `cliffs.landscape.cliff_profile`; `tolerance`, relative to the range of the loss on the line;
    `max_points`, where to stop; the intervals that are furthest off come first.

    **Returns** `LineSamples`. Warns when the dtype cannot resolve the line to the tolerance or `max_points` is reached.

    **Raises** `ValueError` for bounds that are not finite or not increasing, fewer than 3 points, a tolerance that is
    not positive, or a direction that is zero.

    >>> line = sample_line(lambda s: jnp.tanh(1e3 * s), 0.0, 1.0)
    >>> line.complete, bool(np.abs(np.diff(line.loss)).max() < 0.5)
    (True, True)
    """
    low, high = map(float, bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low < high, got {bounds}")
    if num_points < 3 or not tolerance > 0:
        raise ValueError(f"num_points must be at least 3 and tolerance positive, got {num_points} and {tolerance}")
    params = jax.tree.map(jnp.asarray, params)
    shift(params, [direction])  # its checks
    check_independent([direction])
    direction = jax.tree.map(lambda p, d: jnp.asarray(d, p.dtype), params, direction)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    move = shift(params, [direction])
    at = slope_at(loss, lambda s: move(s[None]), [direction])
    resolve = jax.jit(jax.vmap(lambda s: rounding(move(s[None]), direction, s)))
    run = jax.jit(lambda points: map_points(at, points, chunk_size))

    def evaluate(points):
        # Padded to powers of two: few compiles serve all rounds.
        size = 2 ** int(np.ceil(np.log2(max(len(points), 64))))
        out = run(jnp.asarray(np.pad(points, (0, size - len(points)), "edge")))
        out = {k: np.asarray(v)[: len(points)] for k, v in out.items()}
        return np.stack([points, out["loss"], out["slopes"][:, 0], out["grad_norm"]])

    table = evaluate(np.linspace(low, high, num_points).astype(dtype))
    unresolved = False
    while True:
        s, value, slope, _ = table
        h = np.diff(s)
        finite = np.isfinite(value) & np.isfinite(slope)
        usable, span = finite[:-1] & finite[1:], np.ptp(value[finite]) if finite.any() else 0
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(usable, np.abs(np.diff(value) - 0.5 * h * (slope[:-1] + slope[1:])), 0)
            wrong = error > tolerance * span
        room = h > 4 * np.asarray(resolve(jnp.asarray(s[1:])))
        unresolved = bool((wrong & ~room).any())
        wanted = np.flatnonzero(wrong & room)
        if len(wanted) and len(s) >= max_points:
            warnings.warn(f"max_points={max_points} reached: {len(wanted)} intervals are still too wide", stacklevel=2)
        wanted = wanted[np.argsort(-error[wanted], kind="stable")][: max(max_points - len(s), 0)]
        if not len(wanted):
            break
        new = evaluate((s[wanted] + 0.5 * h[wanted]).astype(dtype))
        table = np.concatenate([table, new], 1)
        table = table[:, np.argsort(table[0], kind="stable")]
    if unresolved:
        warnings.warn(f"the line has a wall that is narrower than {dtype} resolves", stacklevel=2)
    return LineSamples(*table, complete=bool(finite.all() and not wrong.any()))
