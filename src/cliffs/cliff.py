"""Where a loss has a wall along a line, how high and how narrow it is, and how both scale with the sequence length."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

POINTS = 65


class CliffProfile(NamedTuple):
    """A wall of `E` along a line parametrised by `s`; all plain floats."""

    position: float
    """Where `|dE/ds|` is largest."""
    peak: float
    """`|dE/ds|` there."""
    width: float
    """Full width at half maximum of `|dE/ds|`."""
    floor: float
    """Median of `|dE/ds|` over the first grid: the slope of the valley."""
    resolved: bool
    """Whether the width spans at least 16 numbers of the dtype; where not, the true peak is higher and narrower."""


class CliffLaw(NamedTuple):
    """`peak ~ peak_constant m^T` and `width ~ width_constant m^-T`, fitted in logarithms."""

    peak_multiplier: float
    peak_constant: float
    width_multiplier: float
    width_constant: float


@functools.partial(jax.jit, static_argnums=0)
def _along(loss, points):
    return jax.vmap(jax.value_and_grad(loss))(points)


def cliff_profile(loss: Callable[[Any], Array], bounds: tuple[float, float], *, dtype: Any = None) -> CliffProfile:
    """The steepest wall of a loss on an interval, also when it is far narrower than any grid.

    A wall is a step of the loss, so it shows between grid points that straddle it however narrow it is: the interval
    with the largest change of the loss is divided again and again until the change is spread over several points;
    from there the peak of `|dE/ds|` and its half-height points are found by zooming in.

    **Arguments**

    - `loss`: `loss(s) -> E(s)` of a scalar, for instance `lambda b: one_unit_cost(OneUnitParams(5.0, b))`.
    - `bounds`: the interval, `low < high`.
    - `dtype`: precision of `s`; the default float type (float64 where JAX has x64 enabled) if None.

    **Returns** a `CliffProfile`. Warns when the wall is narrower than the dtype can resolve.

    **Raises** `ValueError` for bounds that are not finite or not increasing.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.4.

    >>> profile = cliff_profile(lambda s: jnp.tanh(s / 0.01), (-1.0, 2.0))
    >>> abs(profile.position) < 1e-4, round(profile.peak)
    (True, 100)
    """
    low, high = map(float, bounds)
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"bounds must be finite with low < high, got {bounds}")
    dtype = jnp.zeros((), dtype).dtype if dtype is None else jnp.dtype(dtype)

    def evaluate(a, b):
        points = np.unique(np.linspace(a, b, POINTS).astype(dtype))
        points = np.pad(points, (0, POINTS - len(points)), "edge")
        values, slopes = _along(loss, jnp.asarray(points))
        return points, np.asarray(values), np.abs(np.asarray(slopes))

    points, values, slopes = evaluate(low, high)
    floor = float(np.median(slopes))
    for _ in range(20):
        change = np.abs(np.diff(values))
        i = int(np.argmax(change))
        if change[i] < 0.2 * change.sum() or np.spacing(points[i]) * POINTS > high - low:
            break
        # One neighbour on each side: the peak may sit at the interval's end.
        low, high = float(points[max(i - 1, 0)]), float(points[min(i + 2, POINTS - 1)])
        points, values, slopes = evaluate(low, high)
    a, b = low, high
    for _ in range(20):
        i = int(np.argmax(slopes))
        a, b = float(points[max(i - 2, 0)]), float(points[min(i + 2, POINTS - 1)])
        if b - a < 16 * np.spacing(dtype.type(max(abs(a), abs(b)))):
            break
        points, values, slopes = evaluate(a, b)
    i = int(np.argmax(slopes))
    position, peak = float(points[i]), float(slopes[i])

    def slope(s):
        return float(_along(loss, jnp.full(POINTS, s, dtype))[1][0])

    def half_point(direction):
        step = max((high - low) / POINTS, float(np.spacing(dtype.type(position))))
        outside = position
        for _ in range(80):
            outside = outside + direction * step
            if abs(slope(outside)) < peak / 2:
                break
            step *= 1.5
        inside = position
        for _ in range(60):
            middle = 0.5 * (inside + outside)
            inside, outside = (middle, outside) if abs(slope(middle)) >= peak / 2 else (inside, middle)
        return 0.5 * (inside + outside)

    width = half_point(1) - half_point(-1)
    resolved = bool(width > 16 * np.spacing(dtype.type(abs(position))))
    if not resolved:
        warnings.warn(
            f"the wall at {position:.17g} is narrower than {dtype} resolves there: peak and width are bounds only",
            stacklevel=2,
        )
    return CliffProfile(position, peak, float(width), floor, resolved)


def cliff_law(lengths: Float[np.ndarray, " k"], profiles: list[CliffProfile]) -> CliffLaw:
    """Fit `log peak` and `log width` against the sequence length T by least squares.

    Where the start state crosses a basin boundary, theory says `peak ~ C m^T` and `width ~ C' m^-T` with m the
    multiplier of the unstable fixed point on the boundary (not `width ~ 1/T`).

    **Arguments**: lengths `[k]`, at least two; the profile at each.

    **Returns** a `CliffLaw`; `width_multiplier` is that of `m^-T`, so both multipliers should agree.

    **Raises** `ValueError` for fewer than two lengths or a different number of profiles.

    >>> profiles = [CliffProfile(0.0, 3 * 2.0**t, 5 * 2.0**-t, 1.0, True) for t in (2, 4, 8)]
    >>> law = cliff_law(np.array([2, 4, 8]), profiles)
    >>> round(law.peak_multiplier, 6), round(law.width_constant, 6)
    (2.0, 5.0)
    """
    if len(lengths) < 2 or len(lengths) != len(profiles):
        raise ValueError(f"lengths and profiles must be as many, at least 2, got {len(lengths)} and {len(profiles)}")
    slope, start = np.polyfit(lengths, np.log([p.peak for p in profiles]), 1)
    width_slope, width_start = np.polyfit(lengths, np.log([p.width for p in profiles]), 1)
    return CliffLaw(*map(float, np.exp([slope, start, -width_slope, width_start])))
