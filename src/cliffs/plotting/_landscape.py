"""Error surfaces with descent paths, flat and in perspective; stability maps; the wall and its law."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from mpl_toolkits.mplot3d import Axes3D

from cliffs.landscape import CliffProfile, StabilityMap, Surface
from cliffs.plotting._style import COLORS, add_legend, axes_or_new, figure_of


def plot_surface(
    surface: Surface,
    ax: Axes | None = None,
    *,
    quantity: str = "loss",
    names: tuple[str, str] = ("direction 1", "direction 2"),
    colorbar: bool = True,
) -> Axes:
    """A two-dimensional surface as an image with a colour bar: the loss, or log10 of the gradient norm.

    **Arguments**

    - `surface`: from `cliffs.landscape.surface`.
    - `ax`: where to draw; a new figure when None.
    - `quantity`: `"loss"` or `"grad_norm"`.
    - `names`: of the two directions.
    - `colorbar`: whether to draw one beside the image.

    **Returns** the Axes.

    **Raises** `ValueError` for another quantity, one that the surface does not hold, or a surface along a line.

    >>> axis = np.linspace(0, 1, 3)
    >>> ax = plot_surface(Surface((axis, axis), np.ones((3, 3)), np.ones((3, 3))), quantity="grad_norm")
    >>> float(np.asarray(ax.collections[0].get_array()).max())
    0.0
    """
    if quantity not in ("loss", "grad_norm"):
        raise ValueError(f"quantity must be 'loss' or 'grad_norm', got {quantity!r}")
    values = getattr(surface, quantity)
    if values is None:
        raise ValueError(f"quantity={quantity!r} is not on this surface: it was computed without gradients")
    values = np.asarray(values)
    if values.ndim != 2:
        raise ValueError(f"surface must be two-dimensional, got a loss of shape {values.shape}")
    if quantity == "grad_norm":
        values = np.log10(np.maximum(values, 1e-12))
    ax = axes_or_new(ax)
    x, y = (np.asarray(a) for a in surface.offsets)
    image = ax.pcolormesh(x, y, values.T, shading="gouraud", cmap="viridis", rasterized=True)
    if colorbar:
        label = "loss" if quantity == "loss" else "log10 of the gradient norm"
        figure_of(ax).colorbar(image, ax=ax, label=label)
    ax.set(xlabel=names[0], ylabel=names[1])
    ax.grid(False)
    return ax


def plot_paths(paths: Mapping[str, tuple[np.ndarray, np.ndarray]], ax: Axes | None = None) -> Axes:
    """Descent paths on the plane of a surface; those named "clipped" and "unclipped" have colours of their own.

    **Arguments**: for each label the two coordinates of the path's points, as `project_path(...).coordinates.T`; where
    to draw, a new figure with a legend when None.

    **Returns** the Axes.

    **Raises** `ValueError` for a path that is not two rows of numbers of one length.

    >>> len(plot_paths({"clipped": (np.zeros(2), np.ones(2))}).lines)
    3
    """
    rows = {label: _rows(label, path, 2) for label, path in paths.items()}
    given, ax = ax, axes_or_new(ax)
    for label, (x, y) in rows.items():
        color = COLORS.get(label, COLORS["accent"])
        ax.plot(x, y, "-", color="white", linewidth=2.6, alpha=0.9, zorder=3)
        ax.plot(x, y, ".-", color=color, linewidth=1.4, markersize=3.5, label=label, zorder=4)
        ax.plot(x[0], y[0], "o", color="white", markeredgecolor="black", markersize=6, zorder=5)
    add_legend(ax, given)
    return ax


def _rows(label: str, path: Any, count: int) -> np.ndarray:
    try:
        rows = np.asarray([np.asarray(row, float) for row in path])
    except (TypeError, ValueError):  # a record, or rows of different lengths
        rows = np.zeros(0)
    if rows.ndim != 2 or len(rows) != count:
        shapes = [np.shape(row) for row in path] if isinstance(path, (tuple, list)) else np.shape(path)
        what = "two coordinates" if count == 2 else "two coordinates and the loss"
        raise ValueError(f"paths: {label!r} must be the {what} of the same points, got shapes {shapes}")
    return rows


def plot_steps(surface: Surface, ax: Axes | None = None, *, every: int = 1, length: float | None = None) -> Axes:
    """The field of an optimiser's first steps on a two-dimensional surface, as arrows in the slice.

    **Arguments**

    - `surface`: computed with `optimizer=`.
    - `ax`: where to draw, with white arrows as for an image; a new figure with dark ones when None.
    - `every`: an arrow at every so many points.
    - `length`: all arrows of this length in offsets (their direction only), or their true length when None.

    **Returns** the Axes.

    **Raises** `ValueError` for a surface without steps.

    >>> axis = np.linspace(0, 1, 3)
    >>> ax = plot_steps(Surface((axis, axis), np.ones((3, 3)), None, step=np.ones((3, 3, 2))))
    >>> ax.collections[0].N
    9
    """
    if surface.step is None:
        raise ValueError("surface must hold steps: compute it with optimizer=...")
    color = COLORS["stable"] if ax is None else "white"
    ax = axes_or_new(ax)
    x, y = (np.asarray(a)[::every] for a in surface.offsets)
    step = np.asarray(surface.step)[::every, ::every]
    if length is not None:
        size = np.linalg.norm(step, axis=-1, keepdims=True)
        step = length * step / np.where(size > 0, size, 1)
    options = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003}
    ax.quiver(*np.meshgrid(x, y, indexing="ij"), step[..., 0], step[..., 1], color=color, **options)
    return ax


def plot_surface_3d(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    ax: Axes3D | None = None,
    *,
    names: tuple[str, str, str] = ("direction 1", "direction 2", "loss"),
    view: tuple[float, float] = (32.0, 20.0),
    mesh: int = 60,
) -> Axes3D:
    """A two-dimensional surface in perspective with descent paths on it, after the paper's Fig. 3.

    **Arguments**

    - `surface`: two-dimensional; where its loss is not finite there is a hole.
    - `paths`: for each label the two coordinates and the loss of the path's points; points off the slice's
      rectangle are left out, with the segments to them. `descend` gives no loss for its last point: cut that off.
    - `ax`: an Axes of `projection="3d"`; a new figure with a legend when None.
    - `names`: of the three axes.
    - `view`: elevation and azimuth in degrees.
    - `mesh`: lines drawn along each direction, at most; the lines themselves are left out beyond 120. A steep wall that
      runs across the grid looks like a saw unless the mesh is fine.

    **Returns** the Axes.

    **Raises** `ValueError` for a path that is not three rows of numbers of one length.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 3.

    >>> axis = np.linspace(0, 1, 3)
    >>> ax = plot_surface_3d(Surface((axis, axis), np.ones((3, 3)), None), {"clipped": (axis, axis, axis)})
    >>> ax.name
    '3d'
    """
    rows = {label: _rows(label, path, 3) for label, path in (paths or {}).items()}
    given, ax = ax, cast(Axes3D, axes_or_new(ax, subplot_kw={"projection": "3d"}))
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
    for label, (px, py, pz) in rows.items():
        outside = (px < x.min()) | (px > x.max()) | (py < y.min()) | (py > y.max())
        px, py, pz = (np.where(outside, np.nan, p) for p in (px, py, pz))
        color = COLORS.get(label, COLORS["accent"])
        # Matplotlib sorts whole objects by depth: paths must be told to lie on top.
        ax.plot(px, py, pz + lift, "-", color="white", linewidth=2.2, alpha=0.8, zorder=10)
        ax.plot(px, py, pz + lift, ".-", color=color, linewidth=1.1, markersize=3, label=label, zorder=11)
    ax.view_init(*view)
    for setter, name in zip((ax.set_xlabel, ax.set_ylabel, ax.set_zlabel), names):
        setter(name)
    add_legend(ax, given)
    return ax


def plot_stability_map(result: StabilityMap, ax: Axes | None = None, *, name: str = "share that leaves") -> Axes:
    """The share of starts that leave the valley, learning rate across and clipping threshold up; `inf` is "none".

    **Arguments**: the map; where to draw, a new figure when None; `name`: what the colour is called.

    **Returns** the Axes, with a colour bar beside it.

    >>> cube = np.zeros((3, 2, 4), int)
    >>> result = StabilityMap(np.array([0.1, 0.2, 0.4]), np.array([1.0, np.inf]), cube, cube > 0, cube * 1.0)
    >>> ax = plot_stability_map(result)
    >>> float(np.asarray(ax.collections[0].get_array()).min()), ax.get_yticklabels()[-1].get_text()
    (1.0, 'none')
    """
    ax = axes_or_new(ax)
    share = np.asarray(result.left_share)
    grid = np.arange(share.shape[0]), np.arange(share.shape[1])
    image = ax.pcolormesh(*grid, share.T, cmap="magma", vmin=0, vmax=1, shading="nearest", rasterized=True)
    figure_of(ax).colorbar(image, ax=ax)

    def label(axis, values):
        spots = np.unique(np.linspace(0, len(values) - 1, min(len(values), 7)).round().astype(int))
        axis(spots, ["none" if np.isinf(values[i]) else f"{values[i]:.3g}" for i in spots])

    label(ax.set_xticks, np.asarray(result.learning_rates))
    label(ax.set_yticks, np.asarray(result.thresholds))
    ax.set(xlabel="learning rate", ylabel="clipping threshold", title=name)
    ax.grid(False)
    return ax


def plot_cliff_law(
    lengths: np.ndarray,
    values: np.ndarray,
    laws: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    ax: Axes | None = None,
    *,
    name: str = "width",
    label: str = "measured",
) -> Axes:
    """Measured peaks or widths of a wall against the sequence length T on a logarithmic scale, with laws as lines.

    **Arguments**

    - `lengths`, `values`: `[k]`, a column of `cliff_profiles`.
    - `laws`: for each label a function of T.
    - `ax`: where to draw; a new figure when None.
    - `name`: of the quantity; `label`: of the points.

    **Returns** the Axes.

    >>> ax = plot_cliff_law(np.array([10, 20]), np.array([0.1, 0.01]), {"$m^{-T}$": lambda t: 10.0 ** (-t / 10)})
    >>> ax.get_yscale()
    'log'
    """
    ax = axes_or_new(ax)
    fine = np.linspace(np.min(lengths), np.max(lengths), 200)
    styles = zip((COLORS["clipped"], COLORS["unclipped"], COLORS["good"]), ("-", "--", ":"))
    for (law, function), (color, style) in zip((laws or {}).items(), styles):
        ax.plot(fine, function(fine), style, color=color, label=law)
    ax.plot(lengths, values, "o", color=COLORS["stable"], markersize=4.5, label=label, zorder=4)
    ax.set(yscale="log", xlabel="sequence length T", ylabel=name)
    ax.legend()
    return ax


def plot_profile(
    profile: CliffProfile, offsets: np.ndarray, slope: np.ndarray, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """`|dE/ds|` across a wall in units of its own width and peak: walls of all lengths on one scale.

    **Arguments**: the wall's profile; samples of the slope from `sample_line`; where to draw, a new figure when None,
    with a legend where there is a label; the line's label.

    **Returns** the Axes.

    >>> ax = plot_profile(CliffProfile(0.0, 1.0, 0.2, 0.1, True), np.array([0.0, 0.1]), np.array([1.0, 0.5]))
    >>> ax.lines[0].get_xdata().tolist()
    [0.0, 0.5]
    """
    given, ax = ax, axes_or_new(ax)
    ax.plot((offsets - profile.position) / profile.width, np.abs(slope) / profile.peak, label=label)
    ax.set(xlabel="distance from the peak / width at half maximum", ylabel="slope / peak")
    add_legend(ax, given)
    return ax
