"""Local smoothness against the gradient norm, and the density of a spectrum."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

from cliffs.curvature import SmoothnessFit
from cliffs.plotting._style import COLORS, array_of, axes_or_new


def plot_smoothness(
    smoothness: ArrayLike, grad_norm: ArrayLike, fits: Mapping[str, SmoothnessFit] | None = None, ax: Axes | None = None
) -> Axes:
    """Local smoothness against gradient norm with the lines `l0 + l1 ||grad||` of (L0, L1)-smoothness.

    **Arguments**

    - `smoothness`, `grad_norm`: of any equal shape, from `smoothness_along`; what is not positive and finite is left
      out.
    - `fits`: for each label a fit of `fit_smoothness`.
    - `ax`: where to draw; a new figure when None.

    **Returns** the Axes.

    >>> fit = SmoothnessFit(np.array(1.0), np.array(1.5), np.array(0.0), np.array(0.1))
    >>> ax = plot_smoothness(np.array([2.0, 5.0]), np.array([1.0, 2.0]), {"fit": fit})
    >>> [round(float(y), 4) for y in ax.lines[0].get_ydata()[[0, -1]]]
    [2.5, 4.0]
    """
    y, g = array_of("smoothness", smoothness).ravel(), array_of("grad_norm", grad_norm).ravel()
    good = np.isfinite(y) & (y > 0) & (g > 0)
    ax = axes_or_new(ax)
    few = good.sum() < 500
    ax.scatter(
        g[good],
        y[good],
        s=12 if few else 4,
        alpha=0.7 if few else 0.2,
        color=COLORS["clipped"],
        linewidths=0,
        rasterized=True,
    )
    x = np.geomspace(g[good].min(), g[good].max(), 200)
    for (label, fit), color in zip((fits or {}).items(), ("stable", "accent", "unclipped", "good")):
        ax.plot(x, float(fit.l0) + float(fit.l1) * x, color=COLORS[color], lw=1.8, label=label)
    ax.set(xscale="log", yscale="log", xlabel="gradient norm", ylabel="local smoothness")
    ax.xaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))  # "3", not "3 x 10^0": no label on the next
    if fits:
        ax.legend(fontsize=8, loc="upper left")
    return ax


def plot_spectral_density(
    points: Float[Array | np.ndarray, " points"],
    densities: Mapping[str, Float[Array | np.ndarray, " points"]],
    ax: Axes | None = None,
    *,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Smoothed spectral densities on a logarithmic axis of density.

    **Arguments**

    - `points`: the eigenvalues where the densities were evaluated.
    - `densities`: for each label the values there, from `smoothed`.
    - `ax`: where to draw; a new figure when None.
    - `colors`: for each label a colour; matplotlib's own when None.

    **Returns** the Axes.

    >>> ax = plot_spectral_density(np.array([0.0, 1.0]), {"here": np.array([0.5, 0.1])})
    >>> ax.get_yscale(), float(ax.get_ylim()[1])
    ('log', 1.5)
    """
    ax = axes_or_new(ax)
    for label, values in densities.items():
        ax.plot(points, values, color=(colors or {}).get(label), lw=1.4, label=label)
    top = max(float(np.max(values)) for values in densities.values())
    ax.set(yscale="log", xlabel="eigenvalue", ylabel="density", ylim=(1e-7 * top, 3 * top))
    ax.legend(fontsize=8)
    return ax
