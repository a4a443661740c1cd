"""The law of the cliff: peak and width of a wall against the sequence length."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cliffs.landscape import CliffProfile
from cliffs.plotting._style import COLORS


def plot_cliff_law(
    ax: Any,
    lengths: np.ndarray,
    values: np.ndarray,
    laws: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    *,
    name: str = "width",
    label: str = "measured",
) -> None:
    """Measured peaks or widths against T on a logarithmic scale, with laws as lines.

    **Arguments**: a matplotlib Axes; `[k]` lengths and values; for each law's label a function of T; the quantity's
    name; the points' label.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_cliff_law(ax, np.array([10, 20]), np.array([0.1, 0.01]), {"$m^{-T}$": lambda t: 10.0 ** (-t / 10)})
    >>> ax.get_yscale()
    'log'
    """
    fine = np.linspace(np.min(lengths), np.max(lengths), 200)
    styles = zip((COLORS["clipped"], COLORS["unclipped"], COLORS["good"]), ("-", "--", ":"))
    for (law, function), (color, style) in zip((laws or {}).items(), styles):
        ax.plot(fine, function(fine), style, color=color, label=law)
    ax.plot(lengths, values, "o", color=COLORS["stable"], markersize=4.5, label=label, zorder=4)
    ax.set_yscale("log")
    ax.set_xlabel("sequence length T")
    ax.set_ylabel(name)
    ax.legend()


def plot_profile(ax: Any, offsets: np.ndarray, slope: np.ndarray, profile: CliffProfile, *, label: str = "") -> None:
    """`|dE/ds|` across a wall in units of its own width and peak: walls of all lengths on one scale.

    **Arguments**: a matplotlib Axes; samples of the slope, from `cliffs.landscape.sample_line`; the wall's profile.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_profile(ax, np.array([0.0, 0.1]), np.array([1.0, 0.5]), CliffProfile(0.0, 1.0, 0.2, 0.1, True))
    """
    ax.plot((offsets - profile.position) / profile.width, np.abs(slope) / profile.peak, label=label)
    ax.set_xlabel("distance from the peak / width at half maximum")
    ax.set_ylabel("slope / peak")
