"""Error surfaces with descent paths, flat and in perspective; stability maps."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from cliffs.landscape import StabilityMap, Surface
from cliffs.plotting._style import COLORS


def plot_surface(ax: Any, surface: Surface, *, quantity: str = "loss", names: tuple[str, str] = ("w", "b")) -> Any:
    """A two-dimensional surface as an image: the loss, or log10 of the gradient norm.

    **Arguments**: a matplotlib Axes; the surface; `"loss"` or `"grad_norm"`; the directions' names.

    **Returns** the image, for a colour bar.

    **Raises** `ValueError` for another quantity, or one that the surface does not hold.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> axis = np.linspace(0, 1, 3)
    >>> image = plot_surface(ax, Surface((axis, axis), np.ones((3, 3)), np.ones((3, 3))), quantity="grad_norm")
    >>> float(np.asarray(image.get_array()).max())
    0.0
    """
    x, y = (np.asarray(a) for a in surface.offsets)
    if quantity not in ("loss", "grad_norm"):
        raise ValueError(f"quantity must be 'loss' or 'grad_norm', got {quantity!r}")
    values = getattr(surface, quantity)
    if values is None:
        raise ValueError(f"quantity={quantity!r} is not on this surface: it was computed without gradients")
    values = np.asarray(values)
    if quantity == "grad_norm":
        values = np.log10(np.maximum(values, 1e-12))
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


def plot_steps(ax: Any, surface: Surface, *, every: int = 1, length: float | None = None) -> Any:
    """The field of an optimiser's first steps on a two-dimensional surface, as arrows in the slice.

    **Arguments**: a matplotlib Axes; a surface with `step`; every how many points an arrow; `length`: all arrows of
    this length in offsets (their direction only), or their true length when None.

    **Returns** the quiver.

    **Raises** `ValueError` for a surface without steps.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> axis = np.linspace(0, 1, 3)
    >>> field = Surface((axis, axis), np.ones((3, 3)), None, step=np.ones((3, 3, 2)))
    >>> plot_steps(ax, field).N
    9
    """
    if surface.step is None:
        raise ValueError("surface must hold steps: compute it with optimizer=...")
    x, y = (np.asarray(a)[::every] for a in surface.offsets)
    step = np.asarray(surface.step)[::every, ::every]
    if length is not None:
        size = np.linalg.norm(step, axis=-1, keepdims=True)
        step = length * step / np.where(size > 0, size, 1)
    return ax.quiver(
        *np.meshgrid(x, y, indexing="ij"), step[..., 0], step[..., 1], angles="xy", scale_units="xy", scale=1,
        color="white", width=0.003,
    )  # fmt: skip


def plot_surface_3d(
    ax: Any,
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    *,
    names: tuple[str, str, str] = ("w", "b", "error"),
    view: tuple[float, float] = (32.0, 20.0),
    mesh: int = 60,
) -> Any:
    """A two-dimensional surface in perspective with descent paths on it, after the paper's Fig. 3.

    **Arguments**

    - `ax`: a matplotlib Axes of `projection="3d"`.
    - `surface`: two-dimensional; where its loss is not finite there is a hole.
    - `paths`: for each label the two coordinates and the loss of the path's points; points off the slice's
      rectangle are left out, with the segments to them.
    - `names`: of the three axes.
    - `view`: elevation and azimuth in degrees.
    - `mesh`: lines drawn along each direction, at most; the lines themselves are left out beyond 120. A steep wall that
      runs across the grid looks like a saw unless the mesh is fine.

    **Returns** the surface.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 3.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure(subplot_kw={"projection": "3d"})
    >>> axis = np.linspace(0, 1, 3)
    >>> shape = plot_surface_3d(ax, Surface((axis, axis), np.ones((3, 3)), None), {"clipped": (axis, axis, axis)})
    """
    x, y = (np.asarray(a) for a in surface.offsets)
    z = np.asarray(surface.loss, float)
    finite = np.isfinite(z)
    z = np.where(finite, z, np.nan)
    options: dict[str, Any] = {"cmap": "viridis", "edgecolor": (1, 1, 1, 0.25), "linewidth": 0.25, "rasterized": True}
    if mesh > 120:
        options |= {"edgecolor": "none", "linewidth": 0, "antialiased": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Z contains NaN")
        shape = ax.plot_surface(*np.meshgrid(x, y, indexing="ij"), z, rcount=mesh, ccount=mesh, **options)
    # The colour scale from what is there, and the paths a little above the surface.
    low, high = (z[finite].min(), z[finite].max()) if finite.any() else (0.0, 1.0)
    shape.set_clim(low, high)
    lift = 0.012 * (high - low)
    for label, (px, py, pz) in (paths or {}).items():
        px, py, pz = (np.asarray(p, float) for p in (px, py, pz))
        outside = (px < x.min()) | (px > x.max()) | (py < y.min()) | (py > y.max())
        px, py, pz = (np.where(outside, np.nan, p) for p in (px, py, pz))
        color = COLORS.get(label, COLORS["accent"])
        # Matplotlib sorts whole objects by depth: paths must be told to lie on top.
        ax.plot(px, py, pz + lift, "-", color="white", linewidth=2.2, alpha=0.8, zorder=10)
        ax.plot(px, py, pz + lift, ".-", color=color, linewidth=1.1, markersize=3, label=label, zorder=11)
    ax.view_init(*view)
    for setter, name in zip((ax.set_xlabel, ax.set_ylabel, ax.set_zlabel), names):
        setter(name)
    return shape


def plot_stability_map(ax: Any, result: StabilityMap, *, name: str = "share that leaves") -> Any:
    """The share of starts that leave the valley, learning rate across and clipping threshold up; `inf` is "none".

    **Arguments**: a matplotlib Axes; the map; what the colour is called.

    **Returns** the image, for a colour bar.

    >>> from cliffs.plotting import figure
    >>> fig, ax = figure()
    >>> cube = np.zeros((3, 2, 4), int)
    >>> result = StabilityMap(np.array([0.1, 0.2, 0.4]), np.array([1.0, np.inf]), cube, cube > 0, cube * 1.0)
    >>> float(np.asarray(plot_stability_map(ax, result).get_array()).min())
    1.0
    """
    share = np.asarray(result.left_share)
    image = ax.pcolormesh(
        np.arange(share.shape[0]), np.arange(share.shape[1]), share.T, cmap="magma", vmin=0, vmax=1, shading="nearest",
        rasterized=True,
    )  # fmt: skip

    def label(axis, values):
        spots = np.unique(np.linspace(0, len(values) - 1, min(len(values), 7)).round().astype(int))
        axis(spots, ["none" if np.isinf(values[i]) else f"{values[i]:.3g}" for i in spots])

    label(ax.set_xticks, np.asarray(result.learning_rates))
    label(ax.set_yticks, np.asarray(result.thresholds))
    ax.set_xlabel("learning rate")
    ax.set_ylabel("clipping threshold")
    ax.set_title(name)
    ax.grid(False)
    return image
