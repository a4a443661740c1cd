"""How a wall grows and narrows with the sequence length, and the unstable fixed point that it comes from.

The wall of the paper's Fig. 3 stands where the start state crosses the boundary between two basins of attraction. On
the boundary the state runs into an unstable fixed point; a deviation grows there by its multiplier m at every step,
so the slope of the loss grows as `m^T` and, since the loss is bounded, the wall's width shrinks as `m^-T`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree, Real

from cliffs.dynamics import find_fixed_points
from cliffs.landscape._cliff import CliffProfile
from cliffs.typing import Step


class CliffLaw(NamedTuple):
    """`peak ~ peak_constant m^T` and `width ~ width_constant m^-T`, fitted in logarithms."""

    peak_multiplier: float
    peak_constant: float
    width_multiplier: float
    width_constant: float
    multiplier: float | None = None
    """What theory expects of both multipliers, as given to `cliff_law`."""
    peak_multiplier_error: float = np.nan
    """Standard errors of the four numbers above, from the scatter about the fit; NaN where as many numbers are fitted
    as there are lengths."""
    peak_constant_error: float = np.nan
    width_multiplier_error: float = np.nan
    width_constant_error: float = np.nan
    peak_rms: float = np.nan
    """Root mean square of the residuals of `log peak`, and of `log width`."""
    width_rms: float = np.nan

    @property
    def deviation(self) -> tuple[float, float]:
        """The fitted multipliers of peak and width against the expected one, relative; NaN if none was given."""
        expected = np.nan if self.multiplier is None else self.multiplier
        return self.peak_multiplier / expected - 1, self.width_multiplier / expected - 1


class LawComparison(NamedTuple):
    """An exponential and a power law fitted to the same positive numbers; plain floats."""

    rate: float
    """r of `C exp(r T)`; the multiplier is `exp(r)`."""
    exponent: float
    """p of `C T^p`."""
    rms_exponential: float
    """Root mean square of the residuals of the logarithm."""
    rms_power: float
    delta_aic: float
    """AIC of the power law minus AIC of the exponential: positive where the exponential describes the numbers better;
    differences beyond about 4 count as considerable, beyond 10 as decisive (Burnham & Anderson 2002)."""


def cliff_law(
    lengths: Sequence[float] | Real[np.ndarray, " k"],
    profiles: CliffProfile | Sequence[CliffProfile],
    *,
    multiplier: float | None = None,
    corrections: int = 0,
) -> CliffLaw:
    """Fit `log peak` and `log width` against the sequence length T by least squares.

    `log y = log C ± T log m (+ a T m^-T + b m^-T)`, where the terms in brackets are the first corrections to the law
    at finite T: the peak lies `O(m^-T)` away from the boundary, where the multiplier is a little different, and the
    transient has decayed as `m^-T`. They vanish for large T; without them a fit from short lengths on is biased (at
    w = 5 and T = 25 the one-unit map's peak is 12 % below the law). With them noise is fitted as well: ask for them
    only where the numbers are exact to much better than the corrections. `m` in them is refined by iteration.

    **Arguments**

    - `lengths`: `[k]`, at least two different ones.
    - `profiles`: from `cliff_profiles`, or a list; only walls that are resolved and not cut off, since peak and width
      of others are bounds.
    - `multiplier`: what theory expects, from `boundary_multiplier`; kept beside the fit, not used in it.
    - `corrections`: how many of the two bracketed terms to fit, 0 to 2; at least as many lengths as numbers fitted.

    **Returns** a `CliffLaw`; `width_multiplier` is that of `m^-T`, so both multipliers should agree.

    **Raises** `ValueError` for too few lengths, a different number of profiles, numbers that are not positive, or walls
    that are not resolved or cut off; `RuntimeError` when the iteration for the corrections does not settle.

    Source: the linearised map at the boundary's fixed point. Measured for w = 5: `peak -> 1.81847 m^T`,
    `width -> 0.16121 m^-T`, m = 1.1750 (float64 and 50-digit arithmetic agree).

    >>> profiles = [CliffProfile(0.0, 3 * 2.0**t, 5 * 2.0**-t, 1.0, True) for t in (2, 4, 8)]
    >>> law = cliff_law(np.array([2, 4, 8]), profiles)
    >>> round(law.peak_multiplier, 6), round(law.width_constant, 6)
    (2.0, 5.0)
    """
    lengths = np.asarray(lengths, float)
    rows = [profiles] if isinstance(profiles, CliffProfile) else list(profiles)
    peak, width = (np.concatenate([np.atleast_1d(getattr(p, k)) for p in rows]) for k in ("peak", "width"))
    if lengths.ndim != 1 or len(np.unique(lengths)) < 2 or len(lengths) != len(peak):
        raise ValueError(f"lengths and profiles must be as many, at least 2, got {lengths.shape} and {len(peak)}")
    if not np.isfinite(lengths).all():
        raise ValueError(f"lengths must be finite, got {lengths.tolist()}")
    resolved, cut_off = (
        np.concatenate([np.broadcast_to(getattr(p, k), np.atleast_1d(p.peak).shape) for p in rows])
        for k in ("resolved", "cut_off")
    )
    for name, bad in (("resolved", ~resolved.astype(bool)), ("not cut off", cut_off.astype(bool))):
        if bad.any():
            raise ValueError(f"profiles must be {name}: leave out the walls at lengths {lengths[bad].tolist()}")
    if not (np.isfinite(peak) & np.isfinite(width) & (peak > 0) & (width > 0)).all():
        raise ValueError(f"peaks and widths must be positive and finite, got {peak.tolist()} and {width.tolist()}")
    most = min(len(np.unique(lengths)) - 2, 2)
    if not 0 <= corrections <= most:
        raise ValueError(f"corrections must be 0 to {most} for {len(lengths)} lengths, got {corrections}")

    def fit(values, sign):
        base, logs = np.stack([np.ones_like(lengths), sign * lengths], 1), np.log(values)

        def columns(rate):
            decay = np.exp(-abs(rate) * lengths)
            return np.concatenate([base, np.stack([lengths * decay, decay], 1)[:, :corrections]], 1)

        rate = np.linalg.lstsq(base, logs, rcond=None)[0][1]
        for _ in range(200):
            new = np.linalg.lstsq(columns(rate), logs, rcond=None)[0][1]
            settled = abs(new - rate) <= 1e-9 * abs(new)
            rate = 0.5 * (rate + new)
            if settled:
                break
        else:
            raise RuntimeError(f"the fit with corrections={corrections} did not settle: ask for fewer")
        design = columns(rate)
        solution = np.linalg.lstsq(design, logs, rcond=None)[0]
        residual, free = logs - design @ solution, len(lengths) - design.shape[1]
        errors = np.full(2, np.nan)
        if free > 0:
            # The inverse of R, not of the normal equations: these would square the condition number.
            root = np.linalg.pinv(np.linalg.qr(design, mode="r"))
            errors = np.sqrt(np.sum(residual**2) / free * np.sum(root**2, 1)[:2])
        values = np.exp(solution[:2])
        return *(float(x) for x in (*values, *(values * errors))), float(np.sqrt(np.mean(residual**2)))

    (peak_c, peak_m, peak_ce, peak_me, peak_rms), (width_c, width_m, width_ce, width_me, width_rms) = (
        fit(peak, 1),
        fit(width, -1),
    )
    return CliffLaw(
        peak_m, peak_c, width_m, width_c, multiplier, peak_me, peak_ce, width_me, width_ce, peak_rms, width_rms
    )


def compare_laws(
    lengths: Sequence[float] | Real[np.ndarray, " k"], values: Sequence[float] | Real[np.ndarray, " k"]
) -> LawComparison:
    """Whether positive numbers grow (or fall) exponentially or as a power of the sequence length.

    `log y` is fitted by least squares against `T` and against `log T`, both with two parameters, and the fits are
    compared by `AIC = k log(mean squared residual) + const`.

    **Raises** `ValueError` for fewer than three different lengths or numbers that are not positive.

    >>> t = np.array([10.0, 20.0, 40.0, 80.0])
    >>> bool(compare_laws(t, 3 / t).delta_aic < -10), round(compare_laws(t, 3 / t).exponent, 6)
    (True, -1.0)
    """
    lengths, values = np.asarray(lengths, float), np.asarray(values, float)
    if lengths.shape != values.shape or lengths.ndim != 1 or len(lengths) < 3:
        raise ValueError(f"lengths and values must be as many, at least 3, got {lengths.shape} and {values.shape}")
    if not (np.isfinite(values) & np.isfinite(lengths) & (values > 0) & (lengths > 0)).all():
        raise ValueError(f"lengths and values must be positive and finite, got {lengths.tolist()}, {values.tolist()}")
    if len(np.unique(lengths)) < 3:
        raise ValueError(f"lengths must hold at least 3 different ones to tell the laws apart, got {lengths.tolist()}")
    slopes, errors = [], []
    for x in (lengths, np.log(lengths)):
        line = np.polyfit(x, np.log(values), 1)
        slopes.append(float(line[0]))
        # A perfect fit has no finite logarithm: its error is rounding.
        errors.append(max(float(np.mean((np.polyval(line, x) - np.log(values)) ** 2)), 1e-28))
    delta = len(lengths) * (np.log(errors[1]) - np.log(errors[0]))
    return LawComparison(slopes[0], slopes[1], errors[0] ** 0.5, errors[1] ** 0.5, float(delta))


def state_after(
    step: Step, params: PyTree, initial_state: PyTree, inputs: PyTree, length: int | Array, *, max_length: int
) -> PyTree:
    """`x_T` with T traced: an unroll of `max_length` steps whose steps from `T` on change nothing.

    **Arguments**: as of `cliffs.unroll`, `inputs` with `max_length` steps or None; `length`, an integer or a traced
    integer, at most `max_length` (longer ones count as `max_length`).

    **Returns** the state, a pytree like `initial_state`. Every step is computed for the longest length, so steps
    that overflow later on would spoil the gradient: bounded maps only.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> two = state_after(one_unit_step, OneUnitParams(0.0, 3.0), jnp.asarray(1.0), None, 2, max_length=9)
    >>> float(two)
    3.0
    """

    def body(state, x):
        t, u = x
        new = step(params, state, u)
        return jax.tree.map(lambda n, old: jnp.where(t < length, n, old), new, state), None

    return jax.lax.scan(body, initial_state, (jnp.arange(max_length), inputs), length=max_length)[0]


def locate_boundary(final: Callable[[Array], PyTree], low: ArrayLike, high: ArrayLike) -> Array:
    """Where, between two parameter values, the attractor that the state ends in changes: by bisection.

    **Arguments**

    - `final`: `final(s) -> state` after many steps (a pytree); s in the dtype of `low`.
    - `low`, `high`: offsets whose final states differ.

    **Returns** the last number that ends nearer to `final(low)`, up to one spacing of the dtype. A start within
    `d` of the boundary needs about `-log d / log m` steps to leave it: `final` must take that many (about 250 for
    m = 1.175 in float64). Pure: vmap it for a whole curve. Where both ends lead to the same state the result is NaN.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> def final(b):
    ...     return state_after(one_unit_step, OneUnitParams(5.0, b), jnp.asarray(0.5), None, 200, max_length=200)
    >>> round(float(locate_boundary(final, -3.0, -2.0)), 4)
    -2.6123
    """
    low, high = jnp.asarray(low, jnp.result_type(low, float)), jnp.asarray(high, jnp.result_type(high, float))
    below, above = final(low), final(high)

    def distance(a, b):
        return sum(jnp.sum((x - y) ** 2) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))

    def halve(carry, _):
        a, b = carry
        middle = a + 0.5 * (b - a)
        end = final(middle)
        near = distance(end, below) < distance(end, above)
        return (jnp.where(near, middle, a), jnp.where(near, b, middle)), None

    bits = jnp.finfo(low.dtype).nmant + 14
    (a, _), _ = jax.lax.scan(halve, (low, high), length=bits)
    apart = distance(below, above) > jnp.finfo(low.dtype).eps * (
        1 + distance(below, jax.tree.map(jnp.zeros_like, below))
    )
    return jnp.where(apart, a, jnp.nan)


def boundary_multiplier(
    step: Step,
    params: PyTree,
    starts: Float[Array, "starts n"],
    inputs: PyTree = None,
    *,
    near: Sequence[float] | Float[Array | np.ndarray, " n"] | None = None,
) -> float:
    """The multiplier of the unstable fixed point on a basin boundary: how fast a deviation grows there.

    **Arguments**

    - `step`, `params`, `starts`, `inputs`: as of `cliffs.dynamics.find_fixed_points`; `params` on the boundary.
    - `near`: a state `[n]`; of several unstable fixed points the nearest is taken, such as the one that the state at
      the boundary lingers at. Without it there must be exactly one.

    **Returns** the largest modulus of its multipliers.

    **Raises** `ValueError` when there is no unstable fixed point, or several and no `near`.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> params = OneUnitParams(5.0, -2.6123)
    >>> round(boundary_multiplier(one_unit_step, params, jnp.linspace(-4.0, 4.0, 9)[:, None]), 3)
    1.175
    """
    found = find_fixed_points(step, params, starts, inputs)
    points, multipliers = found.points[~found.stable], np.abs(found.multipliers[~found.stable]).max(1, initial=0)
    if len(points) == 0 or (len(points) > 1 and near is None):
        raise ValueError(f"starts must lead to one unstable fixed point (or say near=...), got {len(points)}")
    pick = 0 if near is None else int(np.linalg.norm(points - np.asarray(near), axis=1).argmin())
    return float(multipliers[pick])
