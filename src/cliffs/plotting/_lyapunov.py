"""Lyapunov exponents against a parameter, and whole spectra."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cliffs.plotting._style import COLORS, figure


def plot_order_to_chaos(
    gains: Sequence[float] | np.ndarray,
    measured: Mapping[int, np.ndarray],
    mean_field: tuple[Any, Any],
    spectra: Mapping[float, np.ndarray] | None = None,
) -> Figure:
    """The largest exponent of random networks against their gain, with the mean-field curve, and some spectra.

    **Arguments**

    - `gains`: `[gains]`.
    - `measured`: network size to exponents `[gains, seeds]` in nats per step.
    - `mean_field`: `(gains, exponents)` of the curve for n to infinity.
    - `spectra`: gain to a whole spectrum `[n]`, largest first.

    **Returns** a matplotlib `Figure`: the curve, the surroundings of the transition, and the spectra where given.

    >>> len(plot_order_to_chaos([0.5, 1.5], {10: np.zeros((2, 3))}, ([0.5, 1.5], [-0.7, 0.07])).axes)
    2
    """
    gains = np.asarray(gains, float)
    fig, axes = cast("tuple[Figure, Any]", figure(1, 3 if spectra else 2, size=(5.0 * (3 if spectra else 2), 4.2)))
    shades = mpl.colormaps["viridis"](np.linspace(0.85, 0.1, len(measured)))
    for panel, ax in enumerate(axes[:2]):
        ax.axhline(0, color=COLORS["unstable"], lw=0.8)
        ax.axvline(1, color=COLORS["unstable"], lw=0.8, ls=":")
        for (n, values), shade in zip(measured.items(), shades):
            values = np.asarray(values)
            low, middle, high = np.nanquantile(values, [0.1, 0.5, 0.9], axis=1)
            ax.fill_between(gains, low, high, color=shade, alpha=0.2, lw=0)
            ax.plot(gains, middle, "o-", color=shade, ms=3, lw=1, label=f"n = {n}, {values.shape[1]} networks")
        ax.plot(*mean_field, color=COLORS["unclipped"], lw=2, label="mean field, n to infinity")
        ax.set(xlabel="gain g", ylabel="largest Lyapunov exponent (nats per step)" if panel == 0 else "")
    axes[0].set(title="x' = g J tanh(x): median, 10 to 90 %")
    axes[0].legend(fontsize=8, loc="lower right")
    near = (gains >= 0.85) & (gains <= 1.5)
    inside = np.concatenate([np.asarray(v)[near].ravel() for v in measured.values()])
    axes[1].set(xlim=(0.85, 1.5), title="around the transition")
    if np.isfinite(inside).any():
        low, high = np.nanmin(inside), np.nanmax(inside)
        axes[1].set(ylim=(max(low, -0.12), high + 0.02))
    if spectra:
        _spectra(axes[2], spectra)
    return fig


def _spectra(ax: Axes, spectra: Mapping[float, np.ndarray]) -> None:
    shades = mpl.colormaps["plasma"](np.linspace(0.05, 0.85, len(spectra)))
    for (gain, values), shade in zip(spectra.items(), shades):
        index = (np.arange(len(values)) + 0.5) / len(values)
        ax.plot(index, values, color=shade, lw=1.6, label=f"g = {gain:g}")
    ax.axhline(0, color=COLORS["unstable"], lw=0.8)
    n = len(next(iter(spectra.values())))
    ax.set(xlabel="index / n", ylabel="exponent (nats per step)", title=f"whole spectrum, one network of n = {n}")
    ax.set(ylim=(max(-4.0, min(np.min(v) for v in spectra.values())), None))
    ax.legend(fontsize=8)


def plot_finite_time_distribution(exponents: np.ndarray, names: Sequence[str] | None = None) -> Figure:
    """Histograms of finite-time exponents, one colour per exponent.

    **Arguments**: `exponents` `[..., k]` in nats per step; `names` of the k exponents.

    **Returns** a matplotlib `Figure`.

    >>> len(plot_finite_time_distribution(np.zeros((4, 5, 2))).axes)
    1
    """
    samples = np.asarray(exponents).reshape(-1, np.shape(exponents)[-1])
    fig, ax = cast("tuple[Figure, Any]", figure())
    shades = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, samples.shape[1]))
    for i, shade in enumerate(shades):
        values = samples[:, i][np.isfinite(samples[:, i])]
        label = names[i] if names else f"exponent {i + 1}"
        ax.hist(values, bins=40, density=bool(np.ptp(values) > 0), color=shade, alpha=0.7, label=label)
    ax.set(xlabel="finite-time exponent (nats per step)", ylabel="density")
    ax.legend(fontsize=8)
    return fig
