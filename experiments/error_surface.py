"""Fig. 3: the error surface of one unit with its wall, plain and clipped descent on it, and where the wall is.

    python experiments/error_surface.py

Writes the surface in perspective as in the paper, flat with the basin boundary, the field of clipped steps, and a
page to turn it by hand (results/error_surface/surface.html, self-contained).
"""

import dataclasses
import pathlib
import sys
import time
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


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
    """T at which the wall is located from a 50 x 50 grid: its peak is then within 1e-11 of the boundary at w = 5."""


def main(config: Config) -> pathlib.Path:
    """Compute, draw, write results/error_surface/."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs.landscape import descend, find_walls, locate_boundary, parameter_direction, state_after, surface
    from cliffs.plotting import figure, plot_paths, plot_steps, plot_surface, plot_surface_3d, surface_html
    from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step
    from experiments import common

    started = time.perf_counter()
    with jax.enable_x64(True):
        origin = OneUnitParams(0.0, 0.0)
        directions = [parameter_direction(origin, name) for name in ("w", "b")]
        w, b = jnp.linspace(*config.w_range, config.points), jnp.linspace(*config.b_range, config.points)

        def cost(params):
            return one_unit_cost(params, num_steps=config.steps)

        def chain(threshold):
            return optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(config.learning_rate))

        def follow(threshold):
            return descend(cost, OneUnitParams(*map(jnp.asarray, config.start)), chain(threshold), config.updates)

        clipped = chain(config.threshold)
        seen = jax.jit(lambda: surface(cost, origin, directions, [w, b], optimizer=clipped, chunk_size=4096))()
        dense = [jnp.linspace(*r, config.fine_points) for r in (config.w_range, config.b_range)]
        fine = jax.jit(lambda: surface(cost, origin, directions, dense, gradient=False, chunk_size=4096))()
        both = jax.jit(jax.vmap(follow))(jnp.array([jnp.inf, config.threshold]))

        def boundary(w):
            def final(b):
                start = jnp.asarray(0.5, b.dtype)
                return state_after(one_unit_step, OneUnitParams(w, b), start, 400, max_length=400)

            return locate_boundary(final, -3.9, -1.2)

        # Below w = 4 there is one attractor only and no boundary.
        line = np.asarray(jax.jit(jax.vmap(boundary))(w))
        axes = [jnp.linspace(4.0, 6.45, 50), jnp.linspace(-3.2, -1.6, 50)]
        with warnings.catch_warnings():
            # Where the wall is steepest float64 cannot resolve it; `resolved` below counts these.
            warnings.simplefilter("ignore", UserWarning)
            walls = find_walls(lambda p: one_unit_cost(p, num_steps=config.wall_steps), origin, directions, axes)
        at_five = float(jax.jit(boundary)(jnp.asarray(5.0)))
    seen, fine, both = jax.tree.map(np.asarray, (seen, fine, both))
    column = (walls.axis == 1) & np.isclose(walls.coordinates[:, 0], 5.0)
    paths, ends = {}, {}
    for i, name in enumerate(("unclipped", "clipped")):
        pw, pb = both.params.w[i], both.params.b[i]
        paths[name] = (pw, pb)
        ends[name] = {
            "end": [pw[-1], pb[-1]],
            "longest_step": np.hypot(np.diff(pw), np.diff(pb)).max(),
            "largest_gradient_norm": both.grad_norm[i].max(),
            "median_error_of_last_100": np.median(both.loss[i, -100:]),
        }

    flat, panels = figure(1, 2, size=(11.5, 4.5), sharey=True)
    image = plot_surface(panels[0], seen)
    flat.colorbar(image, ax=panels[0])
    panels[0].plot(w, line, ":", color="white", linewidth=1.2, label="basin boundary (T to infinity)")
    plot_paths(panels[0], paths)
    away = paths["unclipped"]
    panels[0].set_title(f"Error after {config.steps} steps")
    panels[0].legend(
        loc="lower left", fontsize=8, title_fontsize=8, facecolor="#6e7781", frameon=True, framealpha=0.9,
        labelcolor="white", title=f"unclipped ends at w = {away[0][-1]:.1f}, b = {away[1][-1]:.1f}",
    ).get_title().set_color("white")  # fmt: skip
    image = plot_surface(panels[1], seen, quantity="grad_norm")
    flat.colorbar(image, ax=panels[1])
    plot_steps(panels[1], seen, every=max(config.points // 20, 1), length=0.06)
    panels[1].set_title("log10 of the gradient norm; direction of the clipped steps")
    for ax in panels:
        ax.set_xlim(*config.w_range)
        ax.set_ylim(*config.b_range)

    raised = {n: (*paths[n], _loss_on(both.loss[i], seen)) for i, n in enumerate(("unclipped", "clipped"))}
    # Later steps run up and down the wall within a line's width.
    early = {n: tuple(x[: config.drawn_updates] for x in path) for n, path in raised.items()}
    solid, ax = figure(size=(7.5, 5.6), subplot_kw={"projection": "3d"})
    plot_surface_3d(ax, fine, early, mesh=config.fine_points)
    ax.set_title(f"Error of one unit after {config.steps} steps")
    ax.legend(loc="upper left")
    metrics = {
        "paths": ends,
        "largest_gradient_norm_on_the_grid": seen.grad_norm.max(),
        "boundary_at_w5": at_five,
        "wall_from_50x50_grid": {
            "T": config.wall_steps, "walls": len(walls.peak), "resolved": int(walls.resolved.sum()),
            "b_at_w5": walls.coordinates[column, 1], "minus_boundary": walls.coordinates[column, 1] - at_five,
            "peak_at_w5": walls.peak[column], "width_at_w5": walls.width[column],
            "spacing": float(axes[1][1] - axes[1][0]),
        },
    }  # fmt: skip
    arrays = {
        "w": w, "b": b, "loss": seen.loss.astype(np.float32), "grad_norm": seen.grad_norm.astype(np.float32),
        "boundary": line, "wall_coordinates": walls.coordinates, "wall_peak": walls.peak, "wall_width": walls.width,
        "wall_axis": walls.axis, "wall_resolved": walls.resolved,
    }  # fmt: skip
    folder = common.save(
        "error_surface", metrics=metrics, settings=dataclasses.asdict(config), started=started, arrays=arrays,
        figures={"surface": solid, "flat": flat},
    )  # fmt: skip
    page = surface_html(seen, early, title=f"Error of one unit after {config.steps} steps (Fig. 3)")
    common.write_atomic(folder / "surface.html", lambda path: path.write_text(page))
    wall = metrics["wall_from_50x50_grid"]
    print(f"boundary at w = 5: b = {at_five:.15f}")
    print(f"wall from a 50 x 50 grid at T = {config.wall_steps}: off by {wall['minus_boundary'][0]:.1e}")
    for name, row in ends.items():
        print(
            f"{name}: longest step {row['longest_step']:.3g}, ends at w = {row['end'][0]:.2f}, b = {row['end'][1]:.2f}"
        )
    return folder


def _loss_on(loss, seen):
    """The loss at the start of each step and, for the path's last point, once more; within the picture's range."""
    import numpy as np

    return np.minimum(np.append(loss, loss[-1]), seen.loss.max())


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
