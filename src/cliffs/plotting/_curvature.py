"""Curvature against gradient norm, the gradient's cosine with the leading eigenvector, smoothness, spectra."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cliffs.plotting._style import COLORS, figure


def plot_alignment(rows: Mapping[str, tuple[Mapping, Sequence]], colors: Mapping[str, str], *, chance: float) -> Figure:
    """For each kind of run: curvature against gradient norm, cosines with the leading eigenvector, ratios of seeds.

    **Arguments**

    - `rows`: for each title the groups of steps, each with arrays `grad_norm`, `leading` and `cosine`, and the rows of
      `plot_seed_ratios`.
    - `colors`: of the groups, the group of interest first; it is drawn on top.
    - `chance`: the cosine that a random direction has.

    **Returns** a matplotlib `Figure`, a row of three panels for each title.

    >>> ones = np.ones(3)
    >>> steps = {"all": {"grad_norm": ones, "leading": ones, "cosine": 0.5 * ones}}
    >>> ratio = dict(label="a", values=[1.0, 2.0], median=1.5, interval=(1.0, 2.0), color="black")
    >>> len(plot_alignment({"run": (steps, [ratio])}, {"all": "black"}, chance=0.1).axes)
    3
    """
    fig, axes = figure(len(rows), 3, size=(15, 4.0 * len(rows)), squeeze=False)
    for (scatter, cumulative, seeds), (title, (steps, ratios)) in zip(axes, rows.items()):
        on_top_last = {g: (steps[g]["grad_norm"], steps[g]["leading"]) for g in reversed(list(colors))}
        plot_curvature_against_gradient(scatter, on_top_last, colors)
        scatter.set_title(title)
        plot_shares_below(cumulative, {g: steps[g]["cosine"] for g in colors}, colors, chance=chance)
        plot_seed_ratios(seeds, ratios)
        seeds.set_xlabel("top 1 % steps against others (one point a seed)")
        seeds.tick_params(axis="y", labelsize=8)
    return fig


def plot_curvature_against_gradient(ax: Any, groups: Mapping[str, tuple[Any, Any]], colors: Mapping[str, str]) -> None:
    """Leading |eigenvalue| against gradient norm on logarithmic axes, one colour per group of steps.

    **Arguments**: a matplotlib Axes; for each group the gradient norms and the eigenvalues; a colour for each group.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_curvature_against_gradient(ax, {"all": (np.array([1.0, 10.0]), np.array([2.0, 20.0]))}, {"all": "black"})
    >>> ax.get_xscale()
    'log'
    """
    for name, (norm, curvature) in groups.items():
        ax.scatter(norm, curvature, s=6, alpha=0.35, color=colors[name], label=name, linewidths=0, rasterized=True)
    ax.set(xscale="log", yscale="log", xlabel="gradient norm", ylabel="leading |Hessian eigenvalue|")
    legend = ax.legend(fontsize=8, markerscale=2.5)
    for handle in legend.legend_handles:
        handle.set_alpha(1)


def plot_shares_below(ax: Any, groups: Mapping[str, Any], colors: Mapping[str, str], *, chance: float) -> None:
    """The cumulative distribution of a cosine in every group, and what a random direction has.

    **Arguments**: a matplotlib Axes; values for each group; a colour for each group; the cosine of chance.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_shares_below(ax, {"all": np.array([0.2, 0.9])}, {"all": "black"}, chance=0.02)
    >>> [float(y) for y in ax.lines[0].get_ydata()]
    [0.5, 1.0, 1.0]
    """
    for name, values in groups.items():
        x = np.sort(np.asarray(values))
        ax.step(np.append(x, 1.0), np.append(np.arange(1, len(x) + 1) / len(x), 1.0), where="post",
                color=colors[name], label=name, lw=1.6)  # fmt: skip
    ax.axvline(chance, color=COLORS["stable"], lw=1, ls=":", label="random direction")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="|cosine| of gradient and leading eigenvector", ylabel="share of steps")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.04, 1.02))


def plot_seed_ratios(ax: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Ratios of every seed as points on a logarithmic axis, their median with its interval as a bar.

    **Arguments**: a matplotlib Axes; rows with `label`, `values` (per seed), `median`, `interval` and `color`.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_seed_ratios(ax, [dict(label="a", values=[1.0, 2.0], median=1.5, interval=(1.0, 2.0), color="black")])
    >>> [float(x) for x in ax.lines[1].get_xdata()], ax.get_yticklabels()[0].get_text()
    ([1.0, 2.0], 'a')
    """
    for i, row in enumerate(rows):
        values = np.asarray(row["values"])
        spread = 0.22 * np.sin(2.4 * np.arange(len(values)))  # fixed, so that the picture does not change
        ax.plot(values, i + spread, ".", color=row["color"], alpha=0.35, ms=5)
        ax.plot(row["interval"], [i, i], "-", color=COLORS["stable"], lw=3, solid_capstyle="butt")
        ax.plot(row["median"], i, "D", color="white", markeredgecolor=COLORS["stable"], ms=6)
    ax.axvline(1, color=COLORS["unstable"], lw=1)
    ax.set(xscale="log", yticks=range(len(rows)), yticklabels=[r["label"] for r in rows], ylim=(len(rows) - 0.5, -0.5))


def plot_smoothness(ax: Any, smoothness: Any, grad_norm: Any, lines: Mapping[str, tuple[float, float, str]]) -> None:
    """Local smoothness against gradient norm with lines `L0 + L1 ||grad||`.

    **Arguments**: a matplotlib Axes; smoothness and gradient norms; for each label `(L0, L1, colour)`.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_smoothness(ax, np.array([2.0, 5.0]), np.array([1.0, 2.0]), {"fit": (1.0, 1.5, "black")})
    >>> [round(float(y), 4) for y in ax.lines[0].get_ydata()[[0, -1]]]
    [2.5, 4.0]
    """
    y, g = np.ravel(smoothness), np.ravel(grad_norm)
    good = np.isfinite(y) & (y > 0) & (g > 0)
    ax.scatter(g[good], y[good], s=4, alpha=0.2, color=COLORS["clipped"], linewidths=0, rasterized=True)
    x = np.geomspace(g[good].min(), g[good].max(), 200)
    for label, (l0, l1, color) in lines.items():
        ax.plot(x, l0 + l1 * x, color=color, lw=1.8, label=label)
    ax.set(xscale="log", yscale="log", xlabel="gradient norm", ylabel="local smoothness")
    ax.legend(fontsize=8, loc="upper left")


def plot_spectral_density(ax: Any, points: Any, densities: Mapping[str, tuple[Any, str]]) -> None:
    """Smoothed spectral densities on a logarithmic axis of density.

    **Arguments**: a matplotlib Axes; the eigenvalues where the densities were evaluated; for each label the values
    and a colour.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_spectral_density(ax, np.array([0.0, 1.0]), {"here": (np.array([0.5, 0.1]), "black")})
    >>> ax.get_yscale(), float(ax.get_ylim()[1])
    ('log', 1.5)
    """
    for label, (values, color) in densities.items():
        ax.plot(points, values, color=color, lw=1.4, label=label)
    ax.set(yscale="log", xlabel="Hessian eigenvalue", ylabel="density")
    top = max(float(np.max(values)) for values, _ in densities.values())
    ax.set_ylim(1e-7 * top, 3 * top)
    ax.legend(fontsize=8)
