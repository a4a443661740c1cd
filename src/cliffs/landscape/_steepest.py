"""Zooming in on the steepest point of many intervals at once, however narrow the wall that stands there.

By the mean value theorem the steepest slope inside an interval is at least `|dE| / h` and at least the slopes at its
ends. A wall far narrower than the spacing shows in the first of these only, a resolved one in the others: following
the interval with the largest such bound finds both.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from cliffs._losses import scalar
from cliffs.clipping import tree_norm
from cliffs.typing import Objective

POINTS = 33  # per level: each level divides an interval by 32 / 3
# Changes of the loss below this many rounding errors say nothing about a slope.
NOISE = 512

Evaluate = Callable[[Array], dict[str, Array]]
"""Offsets `[lanes, points]` to loss, slope and gradient norm of that shape."""


def slope_at(loss: Objective, move: Callable[[Array], PyTree], directions: Sequence[PyTree]):
    """`point -> loss, slopes along all directions, gradient norm`, one point at a time."""

    def at(point):
        value, grads = jax.value_and_grad(scalar(loss))(move(point))
        slopes = jnp.stack([optax.tree.vdot(grads, d) for d in directions])
        return {"loss": value, "slopes": slopes, "grad_norm": tree_norm(grads).value}

    return at


def rounding(here: PyTree, direction: PyTree, s: Array) -> Array:
    """The move along the direction that rounding hides: root mean square over the entries that move, at least `s`'s."""
    pairs = list(zip(jax.tree.leaves(here), jax.tree.leaves(direction)))
    length = tree_norm([d for _, d in pairs]).value
    size = tree_norm([jnp.where(d != 0, p, 0) for p, d in pairs]).value
    # A leaf of a narrower dtype moves in its own steps, not in those of the offset.
    eps = [jnp.where((d != 0).any(), float(jnp.finfo(p.dtype).eps), float(jnp.finfo(s.dtype).eps)) for p, d in pairs]
    return jnp.maximum(size / length, jnp.abs(s)).astype(s.dtype) * jnp.stack(eps).max().astype(s.dtype)


def zoom(evaluate: Evaluate, low: Float[Array, " lanes"], high: Float[Array, " lanes"], resolution: Any) -> tuple:
    """The steepest point of every interval: `(position, peak, grad_norm)`.

    `resolution(s)` is a vectorised function; intervals are not divided below it.
    """
    eps = float(jnp.finfo(low.dtype).eps)
    ramp = jnp.linspace(0, 1, POINTS, dtype=low.dtype)

    def take(rows, index):
        return jnp.take_along_axis(rows, jnp.clip(index, 0, rows.shape[1] - 1)[:, None], 1)[:, 0]

    def level(carry, last):
        a, b, certified, *_ = carry
        # (1 - r) a + r b, not a + r (b - a): the ends must be exact.
        points = (1 - ramp) * a[:, None] + ramp * b[:, None]
        out = evaluate(points)
        h, change = jnp.diff(points), jnp.abs(jnp.diff(out["loss"]))
        noise = NOISE * eps * jnp.maximum(jnp.abs(out["loss"][:, :-1]), jnp.abs(out["loss"][:, 1:]))
        mean = jnp.where((change > noise) & (h > 0), change / jnp.where(h > 0, h, 1), 0)
        slopes = jnp.where(jnp.isfinite(out["slope"]), jnp.abs(out["slope"]), -1)
        ends = jnp.maximum(slopes[:, :-1], slopes[:, 1:])
        # A difference quotient is right to a few per cent only: it counts where the slopes miss a wall altogether.
        bound = jnp.where(jnp.isfinite(mean) & (mean > 1.1 * ends), mean, ends)
        i, j = jnp.argmax(bound, 1), jnp.argmax(slopes, 1)
        # One neighbour on each side: the peak may sit at the interval's end.
        new_a, new_b = take(points, i - 1), take(points, i + 2)
        # Below this width the loss of a resolved wall changes by rounding alone: the last levels go by the slopes.
        enough = new_b - new_a > 8 * POINTS * resolution(0.5 * (new_a + new_b))
        by_slope = last & (certified <= 1.1 * take(slopes, j))
        whole = jnp.abs(out["loss"][:, -1] - out["loss"][:, 0])
        whole = jnp.where((whole > noise.max(1)) & jnp.isfinite(whole), whole / (b - a), 0)
        certified = jnp.where(last, certified, jnp.where(enough, bound.max(1), jnp.maximum(certified, whole)))
        new_a = jnp.where(by_slope, take(points, j - 1), jnp.where(enough | last, new_a, a))
        new_b = jnp.where(by_slope, take(points, j + 1), jnp.where(enough | last, new_b, b))
        spot = jnp.where(by_slope, j, i)
        return (new_a, new_b, certified, take(points, spot), take(slopes, j), take(out["grad_norm"], j)), None

    levels = math.ceil(-math.log(eps) / math.log((POINTS - 1) / 3)) + 3
    start = (low, high, *(jnp.zeros_like(low) for _ in range(4)))
    found, _ = jax.lax.scan(level, start, jnp.arange(levels + 2) >= levels)
    _, _, certified, position, peak, norm = found
    missed = certified > 1.1 * jnp.maximum(peak, 0)
    return position, jnp.where(missed, certified, peak), jnp.where(missed, jnp.maximum(norm, certified), norm)


def half_points(evaluate: Evaluate, position: Array, peak: Array, low: Array, high: Array, resolution: Any) -> tuple:
    """How far the slope stays at or above half its peak: `(left, right, cut_off)`, each `[lanes]`."""
    count = int(jnp.finfo(position.dtype).nmant) + 12
    room = jnp.stack([position - low, high - position], 1)[..., None]
    sign = jnp.asarray([[-1], [1]], position.dtype)

    def steep(distances):  # [lanes, side, distances]
        points = position[:, None, None] + sign * distances
        slope = evaluate(points.reshape(len(points), -1))["slope"].reshape(points.shape)
        return jnp.abs(slope) >= 0.5 * peak[:, None, None]

    # From far below the resolution up to the whole of the bounds.
    doubling = jnp.minimum((high - low)[:, None, None] * 2.0 ** jnp.arange(1 - count, 1), room)
    above = steep(doubling.astype(position.dtype))
    cut = above.all(-1, keepdims=True)
    k = jnp.argmin(above, -1, keepdims=True)
    outside = jnp.where(cut, room, jnp.take_along_axis(doubling, k, -1)).astype(position.dtype)
    before = jnp.where(k > 0, jnp.take_along_axis(doubling, jnp.maximum(k - 1, 0), -1), 0)
    inside = jnp.where(cut, room, before).astype(position.dtype)
    ramp = jnp.linspace(0, 1, POINTS, dtype=position.dtype)

    def section(bracket, _):
        inside, outside = bracket
        points = inside + ramp * (outside - inside)
        first = jnp.maximum(jnp.argmin(steep(points).at[..., -1].set(False), -1, keepdims=True), 1)
        return tuple(jnp.take_along_axis(points, i, -1) for i in (first - 1, first)), None

    (inside, outside), _ = jax.lax.scan(section, (inside, outside), length=4)
    # What rounding hides is not known to be narrower than that.
    sides = jnp.maximum(0.5 * (inside + outside)[..., 0], resolution(position)[:, None])
    return sides[:, 0], sides[:, 1], cut.any((1, 2))
