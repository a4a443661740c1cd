"""Error surfaces with descent paths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cliffs.landscape import Surface
from cliffs.plotting._style import COLORS


def plot_surface(ax: Any, surface: Surface, *, quantity: str = "loss", names: tuple[str, str] = ("w", "b")) -> Any:
    """A two-dimensional surface as an image: the loss, or log10 of the gradient norm.

    **Arguments**: a matplotlib Axes; the surface; `"loss"` or `"grad_norm"`; the directions' names.

    **Returns** the image, for a colour bar.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> axis = np.linspace(0, 1, 3)
    >>> image = plot_surface(ax, Surface((axis, axis), np.ones((3, 3)), np.ones((3, 3))), quantity="grad_norm")
    >>> float(np.asarray(image.get_array()).max())
    0.0
    """
    x, y = (np.asarray(a) for a in surface.offsets)
    if quantity == "loss":
        values = np.asarray(surface.loss)
    elif quantity == "grad_norm":
        values = np.log10(np.maximum(np.asarray(surface.grad_norm), 1e-12))
    else:
        raise ValueError(f"quantity must be 'loss' or 'grad_norm', got {quantity!r}")
    image = ax.pcolormesh(x, y, values.T, shading="gouraud", cmap="viridis", rasterized=True)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    ax.grid(False)
    return image


def plot_paths(ax: Any, paths: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Descent paths on a surface's axes, named `"clipped"`, `"unclipped"` or by any other label.

    **Arguments**: a matplotlib Axes; for each label the two coordinates of the path's points.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> plot_paths(ax, {"clipped": (np.zeros(2), np.ones(2))})
    """
    for label, (x, y) in paths.items():
        color = COLORS.get(label, COLORS["accent"])
        ax.plot(x, y, "-", color="white", linewidth=2.6, alpha=0.9, zorder=3)
        ax.plot(x, y, ".-", color=color, linewidth=1.4, markersize=3.5, label=label, zorder=4)
        ax.plot(x[0], y[0], "o", color="white", markeredgecolor="black", markersize=6, zorder=5)
