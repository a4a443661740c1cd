"""How the singular values of Jacobian products grow, and which steps a gradient comes from."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from cliffs.plotting._style import COLORS, figure


def plot_singular_value_growth(
    steps: Sequence[int] | np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    columns: int = 4,
    decades: tuple[float, float] = (-12, 8),
) -> Figure:
    """Singular values of `J_t ... J_1` against t, one panel per initialisation, over seeds.

    **Arguments**

    - `steps`: `[times]`, the number of factors.
    - `curves`: name to logarithms (nats) of singular values `[seeds, times, n]`, largest first.
    - `columns`: panels per row.
    - `decades`: limits of the axis, in powers of ten.

    **Returns** a matplotlib `Figure`: the largest, the median and the smallest value, the median over seeds with the
    10 to 90 % band; the grey fan holds all n values of the first seed.

    >>> len(plot_singular_value_growth([1, 2], {"a": np.zeros((3, 2, 4))}).axes)
    1
    """
    rows = -(-len(curves) // columns)
    columns = min(columns, len(curves))
    fig, axes = cast(
        "tuple[Figure, Any]",
        figure(rows, columns, size=(3.6 * columns, 3.0 * rows), sharex=True, sharey=True, squeeze=False),
    )
    for ax in axes.ravel()[len(curves) :]:
        ax.remove()
    for index, (ax, (name, logs)) in enumerate(zip(axes.ravel(), curves.items())):
        tens = np.asarray(logs) / np.log(10)
        ax.plot(steps, tens[0], color=COLORS["unstable"], lw=0.4, alpha=0.5, rasterized=True)
        n = tens.shape[-1]
        for which, color, label in (
            (0, COLORS["unclipped"], "largest"),
            (n // 2, COLORS["accent"], "median"),
            (n - 1, COLORS["clipped"], "smallest"),
        ):
            low, middle, high = np.nanquantile(tens[:, :, which], [0.1, 0.5, 0.9], axis=0, method="nearest")
            ax.fill_between(steps, np.maximum(low, -400), high, color=color, alpha=0.2, lw=0)
            ax.plot(steps, middle, color=color, lw=1.6, label=label)
        ax.axhline(0, color=COLORS["stable"], lw=0.7)
        ax.set(title=name, ylim=decades)
        if index % columns == 0:
            ax.set(ylabel="log10 singular value")
        if index >= len(curves) - columns:
            ax.set(xlabel="steps in the product")
            ax.tick_params(labelbottom=True)
    axes[0, 0].legend(fontsize=8, loc="lower right")
    return fig


def plot_growth_rates(rates: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """The rate `log s_1 / T` of every seed, one row per initialisation.

    **Arguments**: `rates`, name to `[seeds]` in nats per step.

    **Returns** a matplotlib `Figure`; every dot is a seed, the bar is the median.

    >>> len(plot_growth_rates({"a": np.zeros(3), "b": np.ones(3)}).axes)
    1
    """
    fig, ax = cast("tuple[Figure, Any]", figure(size=(6.4, 0.42 * len(rates) + 1.4)))
    spread = np.random.default_rng(0)
    for row, values in enumerate(map(np.asarray, rates.values())):
        jitter = spread.uniform(-0.22, 0.22, len(values))
        color = COLORS["unclipped"] if np.median(values) > 0 else COLORS["clipped"]
        ax.plot(values, row + jitter, ".", color=color, ms=4, alpha=0.6)
        ax.plot([np.median(values)] * 2, [row - 0.35, row + 0.35], color=COLORS["stable"], lw=1.6)
    ax.axvline(0, color=COLORS["stable"], lw=0.7)
    # Rates lie between -4 and 0.01: linear up to the threshold, logarithmic beyond.
    ax.set_xscale("symlog", linthresh=0.05)
    every = np.concatenate([np.ravel(v) for v in rates.values()])
    low, high = 1.3 * min(every.min(), -0.02), 1.3 * max(every.max(), 0.02)
    marks = [m for m in (-4, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 4) if low <= m <= high]
    ax.set_xticks(marks, [f"{m:g}" for m in marks])
    ax.minorticks_off()
    ax.set(xlim=(low, high))
    ax.set(
        yticks=range(len(rates)), yticklabels=list(rates), xlabel="growth of the largest singular value (nats per step)"
    )
    ax.set(title=title)
    ax.invert_yaxis()
    return fig


def plot_temporal_components(norms: np.ndarray, title: str = "") -> Figure:
    """The norms of all temporal components `dE_t/dx_t dx_t/dx_k d+x_k/dtheta` as an image, k across, t down.

    **Arguments**: `norms` `[t, k]` from `cliffs.spectra.temporal_components`.

    **Returns** a matplotlib `Figure`.

    >>> len(plot_temporal_components(np.tril(np.ones((3, 3)))).axes)
    2
    """
    norms = np.where(np.asarray(norms) > 0, norms, np.nan)
    fig, ax = cast("tuple[Figure, Any]", figure(size=(5.2, 4.2)))
    low, high = np.nanmin(norms), np.nanmax(norms)
    image = ax.imshow(
        norms, norm=LogNorm(max(low, high * 1e-12), high if high > low else low * 10), cmap=mpl.colormaps["magma"]
    )
    fig.colorbar(image, ax=ax, label="norm of the component")
    ax.set(xlabel="step k of the parameters", ylabel="step t of the cost", title=title)
    ax.grid(False)
    return fig
