"""Fig. 3: the error surface of one unit with its wall, plain and clipped descent on it, and where the wall is.

Draws the surface in perspective as in the paper, flat with the basin boundary, the field of clipped steps, and writes a
page to turn it by hand (surface.html, which needs nothing else).
"""

import dataclasses
import warnings
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from mpl_toolkits.mplot3d import Axes3D

from cliffs.landscape import (
    DescentPath,
    Surface,
    descend,
    find_walls,
    locate_boundary,
    parameter_direction,
    state_after,
    surface,
)
from cliffs.plotting import figure, plot_paths, plot_steps, plot_surface, plot_surface_3d, surface_html
from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step

NAMES = ("unclipped", "clipped")


@dataclasses.dataclass(frozen=True)
class Config:
    """The surface and the two descents."""

    steps: int = 50
    """T of the error `(s(x_T) - 0.7)^2`."""
    points: int = 201
    """Of the surface along each direction."""
    fine_points: int = 401
    """Of the picture in perspective: on a coarser mesh the wall, which runs across it, looks like a saw."""
    w_range: tuple[float, float] = (4.0, 6.5)
    b_range: tuple[float, float] = (-3.2, -1.6)
    start: tuple[float, float] = (5.0, -2.3)
    learning_rate: float = 0.1
    threshold: float = 0.1
    updates: int = 300
    drawn_updates: int = 80
    """How many of them the picture in perspective shows."""
    wall_steps: int = 150
    """T at which the wall is located from a grid: its peak is then within 1e-11 of the boundary at w = 5."""
    wall_points: int = 50
    """Of that grid, along each direction."""


class Result(NamedTuple):
    """The surface on two grids, both descents, the basin boundary and the wall."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    files: dict[str, str]
    rows: list[tuple[str, str, str]]
    seen: Surface
    fine: Surface
    descents: DescentPath
    """Leaves `[2, updates (+ 1), ...]` in the order of NAMES."""


def run(config: Config) -> Result:
    """Compute surfaces, descents, boundary and wall in float64."""
    origin = OneUnitParams(0.0, 0.0)
    directions = [parameter_direction(origin, name) for name in ("w", "b")]

    def cost(params):
        return one_unit_cost(params, num_steps=config.steps)

    def chain(threshold):
        return optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(config.learning_rate))

    def follow(threshold):
        return descend(cost, OneUnitParams(*map(jnp.asarray, config.start)), chain(threshold), config.updates)

    def boundary(w):
        def final(b):
            start = jnp.asarray(0.5, b.dtype)
            return state_after(one_unit_step, OneUnitParams(w, b), start, None, 400, max_length=400)

        return locate_boundary(final, -3.9, -1.2)

    with jax.enable_x64(True):
        w, b = jnp.linspace(*config.w_range, config.points), jnp.linspace(*config.b_range, config.points)
        clipped = chain(config.threshold)
        seen = jax.jit(lambda: surface(cost, origin, directions, [w, b], optimizer=clipped, chunk_size=4096))()
        dense = [jnp.linspace(*r, config.fine_points) for r in (config.w_range, config.b_range)]
        fine = jax.jit(lambda: surface(cost, origin, directions, dense, gradient=False, chunk_size=4096))()
        both = jax.jit(jax.vmap(follow))(jnp.array([jnp.inf, config.threshold]))
        # Below w = 4 there is one attractor only and no boundary.
        line = np.asarray(jax.jit(jax.vmap(boundary))(w))
        at_five = float(jax.jit(boundary)(jnp.asarray(5.0)))
        wall, wall_arrays = find_wall(config, origin, directions, at_five)
    seen, fine, both = jax.tree.map(np.asarray, (seen, fine, both))
    ends = {name: ending(both, i) for i, name in enumerate(NAMES)}
    metrics = {
        "paths": ends,
        "largest_gradient_norm_on_the_grid": seen.grad_norm.max(),
        "boundary_at_w5": at_five,
        "wall_from_50x50_grid": wall,
    }
    arrays = {
        "w": w,
        "b": b,
        "loss": seen.loss.astype(np.float32),
        "grad_norm": seen.grad_norm.astype(np.float32),
        "boundary": line,
    }
    title = f"Error of one unit after {config.steps} steps (Fig. 3)"
    page = surface_html(seen, raised(config, seen, both), names=("w", "b", "error"), title=title)
    rows = report(config, metrics)
    return Result(config, metrics, arrays | wall_arrays, {"surface.html": page}, rows, seen, fine, both)


def find_wall(config: Config, origin: Any, directions: Any, at_five: float) -> tuple[dict, dict]:
    """The wall from a coarse grid, and how far from the basin boundary at w = 5 it is."""
    axes = [jnp.linspace(4.0, 6.45, config.wall_points), jnp.linspace(-3.2, -1.6, config.wall_points)]
    with warnings.catch_warnings():
        # Where the wall is steepest float64 cannot resolve it; `resolved` counts these.
        warnings.simplefilter("ignore", UserWarning)
        walls = find_walls(lambda p: one_unit_cost(p, num_steps=config.wall_steps), origin, directions, axes)
    column = (walls.axis == 1) & np.isclose(walls.coordinates[:, 0], 5.0)
    wall = {
        "T": config.wall_steps,
        "walls": len(walls.peak),
        "resolved": int(walls.resolved.sum()),
        "b_at_w5": walls.coordinates[column, 1],
        "minus_boundary": walls.coordinates[column, 1] - at_five,
        "peak_at_w5": walls.peak[column],
        "width_at_w5": walls.width[column],
        "spacing": float(axes[1][1] - axes[1][0]),
    }
    arrays = {f"wall_{k}": getattr(walls, k) for k in ("coordinates", "peak", "width", "axis", "resolved")}
    return wall, arrays


def ending(both: DescentPath, i: int) -> dict[str, Any]:
    """Where one descent ends, its longest step, its largest gradient and its late error."""
    w, b = both.params.w[i], both.params.b[i]
    return {
        "end": [w[-1], b[-1]],
        "longest_step": np.hypot(np.diff(w), np.diff(b)).max(),
        "largest_gradient_norm": both.grad_norm[i].max(),
        "median_error_of_last_100": np.median(both.loss[i, -100:]),
    }


def raised(config: Config, seen: Surface, both: DescentPath) -> dict[str, tuple]:
    """Both paths with their loss, within the picture's range; later steps run up and down the wall in one line."""
    paths = {}
    for i, name in enumerate(NAMES):
        # The loss at the start of each step and, for the path's last point, once more.
        loss = np.minimum(np.append(both.loss[i], both.loss[i, -1]), seen.loss.max())
        path = (both.params.w[i], both.params.b[i], loss)
        paths[name] = tuple(x[: config.drawn_updates] for x in path)
    return paths


def report(config: Config, metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The rows of the printed table."""
    ends, wall = metrics["paths"], metrics["wall_from_50x50_grid"]

    def both(key):
        return " / ".join(f"{ends[n][key]:.2g}" for n in ("clipped", "unclipped"))

    largest, late = metrics["largest_gradient_norm_on_the_grid"], both("median_error_of_last_100")
    rows = [
        ("Fig. 3: largest gradient norm on the surface", f"{largest:.3g}", "-"),
        ("Fig. 3: longest step of descent, clipped / not", both("longest_step"), "unclipped is thrown out"),
        ("Fig. 3: median error of the last 100 steps, clipped / not", late, "clipped lower"),
    ]
    if len(wall["minus_boundary"]):
        quantity = f"Fig. 3: wall at w = 5, T = {config.wall_steps}, distance from the basin boundary"
        rows.append((quantity, f"{abs(wall['minus_boundary'][0]):.0e}", "0"))
    return rows


def draw(result: Result) -> dict[str, Any]:
    """The surface in perspective, and flat beside the field of clipped steps."""
    config, both = result.config, result.descents
    flat, panels = figure(1, 2, size=(11.5, 4.5), sharey=True)
    plot_surface(result.seen, panels[0], names=("w", "b"))
    w, line = result.arrays["w"], result.arrays["boundary"]
    panels[0].plot(w, line, ":", color="white", linewidth=1.2, label="basin boundary (T to infinity)")
    paths = {name: (both.params.w[i], both.params.b[i]) for i, name in enumerate(NAMES)}
    plot_paths(paths, panels[0])
    panels[0].set_title(f"Error after {config.steps} steps")
    away = paths["unclipped"]
    legend = panels[0].legend(
        loc="lower left",
        fontsize=8,
        title_fontsize=8,
        facecolor="#6e7781",
        frameon=True,
        framealpha=0.9,
        labelcolor="white",
        title=f"unclipped ends at w = {away[0][-1]:.1f}, b = {away[1][-1]:.1f}",
    )
    legend.get_title().set_color("white")
    plot_surface(result.seen, panels[1], quantity="grad_norm", names=("w", "b"))
    plot_steps(result.seen, panels[1], every=max(config.points // 20, 1), length=0.06)
    panels[1].set_title("log10 of the gradient norm; direction of the clipped steps")
    for ax in panels:
        ax.set(xlim=config.w_range, ylim=config.b_range)

    solid, ax = figure(size=(7.5, 5.6), subplot_kw={"projection": "3d"})
    names, paths = ("w", "b", "error"), raised(config, result.seen, both)
    plot_surface_3d(result.fine, paths, cast(Axes3D, ax), names=names, mesh=config.fine_points)
    ax.set_title(f"Error of one unit after {config.steps} steps")
    ax.legend(loc="upper left")
    return {"surface": solid, "flat": flat}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
