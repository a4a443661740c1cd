"""How the singular values of Jacobian products grow, which steps a gradient comes from, and finite-time exponents."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from cliffs.plotting._style import COLORS, add_legend, array_of, axes_or_new, figure_of


def plot_singular_values(
    logs: np.ndarray,
    steps: Sequence[int] | np.ndarray,
    ax: Axes | None = None,
    *,
    decades: tuple[float, float] = (-12, 8),
) -> Axes:
    """Singular values of `J_t ... J_1` against t, over seeds.

    The largest, the median and the smallest value are drawn by their median over seeds with the 10 to 90 % band; the
    grey fan holds all n values of the first seed.

    **Arguments**

    - `logs`: `[seeds, times, n]`, or `[times, n]` of one seed: logarithms (nats) of singular values, largest first, as
      `log_singular_values` gives them.
    - `steps`: `[times]`, the number of factors: `range(1, times + 1)` where no time is left out.
    - `ax`: where to draw; a new figure with a legend when None.
    - `decades`: limits of the axis, in powers of ten.

    **Returns** the Axes.

    **Raises** `ValueError` for logarithms of another shape.

    >>> len(plot_singular_values(np.zeros((3, 2, 4)), [1, 2]).collections)
    3
    """
    tens = array_of("logs", logs) / np.log(10)
    tens = tens[None] if tens.ndim == 2 else tens
    if tens.ndim != 3 or tens.shape[1] != len(steps):
        wanted = f"[seeds, {len(steps)}, n] for {len(steps)} steps"
        raise ValueError(
            f"logs must be {wanted}, got shape {np.shape(logs)}: take the times of steps, logs[:, steps - 1]"
        )
    given, ax = ax, axes_or_new(ax)
    ax.plot(steps, tens[0], color=COLORS["unstable"], lw=0.4, alpha=0.5, rasterized=True)
    n = tens.shape[-1]
    for which, color, label in (
        (0, "unclipped", "largest"),
        (n // 2, "accent", "median"),
        (n - 1, "clipped", "smallest"),
    ):
        # Nearest rank: a value can be -inf, between which nothing can be interpolated.
        low, middle, high = np.nanquantile(tens[:, :, which], [0.1, 0.5, 0.9], axis=0, method="nearest")
        ax.fill_between(steps, np.maximum(low, -400), high, color=COLORS[color], alpha=0.2, lw=0)
        ax.plot(steps, middle, color=COLORS[color], lw=1.6, label=label)
    ax.axhline(0, color=COLORS["stable"], lw=0.7)
    ax.set(ylim=decades, xlabel="steps in the product", ylabel="log10 singular value")
    add_legend(ax, given)
    return ax


def plot_temporal_components(norms: np.ndarray, ax: Axes | None = None) -> Axes:
    """The norms of all temporal components `dE_t/dx_t dx_t/dx_k d+x_k/dtheta` as an image, k across, t down.

    **Arguments**: `norms` `[t, k]`, the first of what `cliffs.spectra.temporal_components` returns; where to draw, a
    new figure when None.

    **Returns** the Axes, with a colour bar beside it.

    >>> ax = plot_temporal_components(np.tril(np.ones((3, 3))))
    >>> ax.images[0].get_array().shape
    (3, 3)
    """
    norms = array_of("norms", norms)
    norms = np.where(norms > 0, norms, np.nan)
    ax = axes_or_new(ax)
    low, high = np.nanmin(norms), np.nanmax(norms)
    scale = LogNorm(max(low, high * 1e-12), high if high > low else low * 10)
    image = ax.imshow(norms, norm=scale, cmap=mpl.colormaps["magma"])
    figure_of(ax).colorbar(image, ax=ax, label="norm of the component")
    ax.set(xlabel="step k of the parameters", ylabel="step t of the cost")
    ax.grid(False)
    return ax


def plot_finite_time_distribution(
    exponents: np.ndarray, ax: Axes | None = None, *, names: Sequence[str] | None = None
) -> Axes:
    """How finite-time exponents are spread: histograms for many samples, for up to 50 every sample as a dot.

    Each exponent's histogram is scaled to a maximum of 1, so a narrow distribution does not flatten the others.

    **Arguments**

    - `exponents`: `[..., k]` in nats per step, as `lyapunov_distribution(...).exponents`; what is not finite is left
      out.
    - `ax`: where to draw; a new figure when None.
    - `names`: of the k exponents.

    **Returns** the Axes.

    >>> ax = plot_finite_time_distribution(np.random.default_rng(0).normal(size=(4, 5, 2)))
    >>> ax.get_yticklabels()[0].get_text(), len(ax.lines[0].get_xdata())  # a row of 20 dots for each exponent
    ('exponent 1', 20)
    """
    exponents = array_of("exponents", exponents)
    ax = axes_or_new(ax)
    samples = np.asarray(exponents, float).reshape(-1, np.shape(exponents)[-1])
    columns = [column[np.isfinite(column)] for column in samples.T]
    names = list(names) if names else [f"exponent {i + 1}" for i in range(len(columns))]
    shades = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(columns)))
    if len(samples) <= 50:
        _rows_of_dots(ax, columns, names, shades)
    else:
        _histograms(ax, columns, names, shades)
    ax.set(xlabel="finite-time exponent (nats per step)")
    return ax


def _rows_of_dots(ax: Axes, columns: list[np.ndarray], names: list[str], shades: np.ndarray) -> None:
    """One row an exponent: a dot for each sample, a bar at the median."""
    for row, (values, shade) in enumerate(zip(columns, shades)):
        spread = 0.24 * np.sin(2.4 * np.arange(len(values)))  # fixed, so that the picture does not change
        ax.plot(values, row + spread, ".", color=shade, ms=6, alpha=0.8)
        if len(values):
            ax.plot([np.median(values)] * 2, [row - 0.38, row + 0.38], color=COLORS["stable"], lw=1.6)
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))


def _histograms(ax: Axes, columns: list[np.ndarray], names: list[str], shades: np.ndarray) -> None:
    """One histogram an exponent.

    Its number of bins grows with the cube root of the samples (Rice's rule); no bin is narrower than a 200th of the
    axis, where it would be a hairline.
    """
    every = np.concatenate(columns)
    reach = max(float(np.ptp(every)), 1e-6 * max(1.0, float(np.abs(every).max()))) if every.size else 1.0
    for values, name, shade in zip(columns, names, shades):
        if not values.size:
            continue
        width = max(float(np.ptp(values)) / np.ceil(2 * len(values) ** (1 / 3)), reach / 200)
        count = max(1, int(np.ceil(np.ptp(values) / width)))
        middle = 0.5 * (values.min() + values.max())
        edges = middle + width * (np.arange(count + 1) - count / 2)
        counts, _ = np.histogram(values, edges)
        ax.stairs(counts / counts.max(), edges, fill=True, color=shade, alpha=0.7, label=name)
    ax.set(ylabel="samples, share of the fullest bin")
    if ax.patches:
        ax.legend(fontsize=8)
