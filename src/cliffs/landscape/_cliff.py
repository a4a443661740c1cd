"""Where a loss has a wall along a line, how high and how narrow it is, for one or for many sequence lengths."""

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Int, PyTree

from cliffs.landscape._directions import check_independent, shift
from cliffs.landscape._steepest import half_points, rounding, slope_at, zoom
from cliffs.landscape._surface import map_points
from cliffs.typing import Loss, Objective

Number = float | Array | np.ndarray


class CliffProfile(NamedTuple):
    """A wall of `E` along `params + s d`: floats from `cliff_profile`, arrays `[lengths]` from `cliff_profiles`."""

    position: Number
    """The offset `s` where `|dE/ds|` is largest."""
    peak: Number
    """`|dE/ds|` there."""
    width: Number
    """Full width at half maximum of `|dE/ds|`, in units of `s`."""
    floor: Number
    """Median of `|dE/ds|` over the first grid: the slope of the valley."""
    resolved: bool | Array | np.ndarray
    """Whether the width spans at least 16 numbers of the dtype; where not, the true peak is higher and narrower."""
    grad_norm: Number = np.nan
    """`||grad E||` at the position, with respect to all parameters."""
    left: Number = np.nan
    """The part of the width below the position; `right = width - left`."""
    slope_left: Number = np.nan
    """`dE/ds` (with its sign) of the ground ten widths below the wall, or at the bound if that is nearer."""
    slope_right: Number = np.nan
    """The same ten widths above the wall."""
    rise: Number = np.nan
    """`E` at the upper of these two points minus `E` at the lower: the height of the wall as a step of the loss."""
    cut_off: bool | Array | np.ndarray = False
    """Whether `|dE/ds|` does not fall to half the peak within the bounds on some side."""

    @property
    def ratio(self) -> float | np.ndarray:
        """Peak over floor; inf where the floor is 0 in the dtype."""
        with np.errstate(divide="ignore"):
            return np.divide(self.peak, self.floor)


def profile_line(
    loss: Objective,
    params: PyTree,
    direction: PyTree,
    low: Array,
    high: Array,
    num_points: int,
    num_walls: int,
    chunk_size: int,
) -> CliffProfile:
    """`cliff_profile` as a pure function: arguments are its own, the result holds arrays."""
    move = shift(params, [direction])
    at = slope_at(loss, lambda s: move(s[None]), [direction])
    resolution = jax.vmap(lambda s: rounding(move(s[None]), direction, s))

    def evaluate(points):
        out = map_points(at, points.reshape(-1), chunk_size)
        out = {"loss": out["loss"], "slope": out["slopes"][:, 0], "grad_norm": out["grad_norm"]}
        return {k: v.astype(points.dtype).reshape(points.shape) for k, v in out.items()}

    grid = jnp.linspace(low, high, num_points)
    first = evaluate(grid)
    slopes, h = jnp.abs(first["slope"]), jnp.diff(grid)
    change, ends = jnp.abs(jnp.diff(first["loss"])), jnp.maximum(slopes[:-1], slopes[1:])
    # Two kinds of candidates: where the loss changes more than the slopes at the ends explain (a wall between grid
    # points, perhaps of a small step), and where it is steep for certain.
    signed, slope = jnp.diff(first["loss"]), first["slope"]
    low_slope, high_slope = jnp.minimum(slope[:-1], slope[1:]), jnp.maximum(slope[:-1], slope[1:])
    hidden = jnp.maximum(signed - h * high_slope, h * low_slope - signed)
    hidden = jnp.nan_to_num(hidden, nan=-jnp.inf, posinf=-jnp.inf)
    steep = jnp.nan_to_num(jnp.maximum(change / h, ends), nan=-jnp.inf, posinf=-jnp.inf)
    half = max(num_walls // 2, 1)
    i = jnp.concatenate([jax.lax.top_k(hidden, half)[1], jax.lax.top_k(steep, max(num_walls - half, 1))[1]])
    a, b = grid[jnp.maximum(i - 1, 0)], grid[jnp.minimum(i + 2, num_points - 1)]
    found = zoom(evaluate, a, b, resolution)
    best = jnp.argmax(found[1])[None]
    position, peak, grad_norm = (x[best] for x in found)
    ends = jnp.broadcast_to(low, (1,)), jnp.broadcast_to(high, (1,))
    left, right, cut_off = half_points(evaluate, position, peak, *ends, resolution)
    width = left + right
    beside = evaluate(jnp.clip(jnp.concatenate([position - 10 * width, position + 10 * width]), low, high))
    floor = jnp.nanmedian(jnp.where(jnp.isfinite(slopes), slopes, jnp.nan))
    return CliffProfile(
        position=position[0],
        peak=peak[0],
        width=width[0],
        floor=floor,
        resolved=(width > 16 * resolution(position))[0],
        grad_norm=grad_norm[0],
        left=left[0],
        slope_left=beside["slope"][0],
        slope_right=beside["slope"][1],
        rise=beside["loss"][1] - beside["loss"][0],
        cut_off=cut_off[0],
    )


STATIC = ("loss", "num_points", "num_walls", "chunk_size")
_profile = functools.partial(jax.jit, static_argnames=STATIC)(profile_line)


@functools.partial(jax.jit, static_argnames=STATIC)
def _profiles(loss, lengths, params, direction, low, high, num_points, num_walls, chunk_size):
    def one(length):
        return profile_line(lambda p: loss(p, length), params, direction, low, high, num_points, num_walls, chunk_size)

    return jax.vmap(one)(lengths)


def cliff_profile(
    loss: Objective,
    params: PyTree,
    direction: PyTree,
    bounds: tuple[float, float] = (-1.0, 1.0),
    *,
    num_points: int = 257,
    num_walls: int = 8,
    chunk_size: int = 256,
) -> CliffProfile:
    """The steepest wall of a loss on the line `params + s d`, also when it is far narrower than any grid.

    The steepest wall is the point of the largest `|dE/ds|`, not the largest step of the loss. A wall is a step, so
    it shows between grid points that straddle it however narrow it is: `|dE| / h` is a lower bound of the steepest
    slope in an interval. Several intervals, those whose loss changes more than the slopes at their ends explain and
    those that are steep for certain, are divided again and again, following the largest such bound, down to the
    peak or to the resolution of the dtype; the steepest of them is the profile. A ditch that both begins and ends
    between two grid points leaves no trace there and is not found.

    **Arguments**

    - `loss`: `loss(params) -> scalar`. It is compiled once for each function object, for all `params`, directions
      and bounds: keep the function and vary its arguments. A function of one number is a line with `params=0.0`
      and `direction=1.0`.
    - `params`: where `s = 0` is; its dtype is the precision.
    - `direction`: any pytree like `params` but zero (`cliffs.landscape`).
    - `bounds`: the interval of `s`, `low < high`.
    - `num_points`: size of the first grid.
    - `num_walls`: how many intervals are followed.
    - `chunk_size`: evaluations side by side; for recurrent networks on a CPU 1 is fastest.

    **Returns** a `CliffProfile` of floats. Warns when the wall is narrower than the dtype can resolve.

    **Raises** `ValueError` for bounds that are not finite or not increasing, too few points, a direction that is zero
    or not like `params`, or a loss without a finite slope anywhere on the first grid. Elsewhere points that are not
    finite are passed over.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.4.

    >>> profile = cliff_profile(lambda s: jnp.tanh(s / 0.01), 0.0, 1.0, (-1.0, 2.0))
    >>> abs(profile.position) < 1e-4, round(profile.peak), round(profile.width, 4)  # 2 arcosh(sqrt 2) / 100
    (True, 100, 0.0176)
    """
    low, high = _check(bounds, num_points, num_walls, chunk_size)
    params, direction, ends = _cast(params, direction, low, high)
    out = _profile(loss, params, direction, *ends, num_points, num_walls, chunk_size)
    profile = CliffProfile(*(x.item() for x in jax.tree.map(np.asarray, out)))
    _warn(profile, ends[0].dtype)
    return profile


def cliff_profiles(
    loss: Loss,
    lengths: Int[Array | np.ndarray, " k"],
    params: PyTree,
    direction: PyTree,
    bounds: tuple[float, float] = (-1.0, 1.0),
    *,
    num_points: int = 257,
    num_walls: int = 8,
    chunk_size: int = 256,
) -> CliffProfile:
    """`cliff_profile` for every sequence length, in one compiled program.

    **Arguments**: as in `cliff_profile`, but a loss whose batch is the length: `loss(params, length)`, traced, by
    `cliffs.landscape.state_after`, an unroll of the longest length whose later steps are masked. A loss whose
    length must be static needs a Python loop over `cliff_profile`.

    **Returns** a `CliffProfile` of numpy arrays `[k]`. Warns when any wall is narrower than the dtype can resolve.

    >>> profiles = cliff_profiles(lambda s, t: jnp.tanh(s * t), jnp.array([10, 20]), 0.0, 1.0)
    >>> profiles.peak.round(3).tolist()
    [10.0, 20.0]
    """
    low, high = _check(bounds, num_points, num_walls, chunk_size)
    lengths = jnp.asarray(lengths)
    if lengths.ndim != 1 or not lengths.size:
        raise ValueError(f"lengths must be a non-empty array [k], got shape {lengths.shape}")
    params, direction, ends = _cast(params, direction, low, high)
    out = jax.tree.map(
        np.asarray, _profiles(loss, lengths, params, direction, *ends, num_points, num_walls, chunk_size)
    )
    _warn(out, ends[0].dtype)
    return out


def _check(bounds, num_points: int, num_walls: int, chunk_size: int) -> tuple[float, float]:
    low, high = map(float, bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low < high, got {bounds}")
    if not 1 <= num_walls < num_points:
        raise ValueError(f"num_walls must be at least 1 and below num_points={num_points}, got {num_walls}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    return low, high


def _cast(params: PyTree, direction: PyTree, low: float, high: float):
    """Arrays, the direction in the dtype of the parameters, the bounds in the widest of them."""
    params = jax.tree.map(jnp.asarray, params)
    shift(params, [direction])  # its checks
    check_independent([direction])
    direction = jax.tree.map(lambda p, d: jnp.asarray(d, p.dtype), params, direction)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return params, direction, (jnp.asarray(low, dtype), jnp.asarray(high, dtype))


def _warn(profile: CliffProfile, dtype: DTypeLike) -> None:
    position, resolved = np.atleast_1d(profile.position), np.atleast_1d(profile.resolved)
    if (np.atleast_1d(profile.peak) < 0).any():
        raise ValueError("loss must have a finite slope somewhere within bounds, it has none")
    if not resolved.all():
        where = ", ".join(f"{s:.17g}" for s in position[~resolved][:3])
        warnings.warn(
            f"the wall at {where} is narrower than {dtype} resolves there: peak and width are bounds only",
            stacklevel=3,
        )
