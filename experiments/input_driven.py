"""Figs. 5 and 6: networks with input as a family of maps F_t, and their split into F~ and the input's push U_t.

    python experiments/input_driven.py

Fig. 5: two starts a hair apart under the same maps F_1, F_2, ...; the distance grows as long as the maps agree on a
direction. Fig. 6: every step is the pull of the network without input, F~, whose basin boundary is fixed, and then the
push of the input, U_t. The paper (arXiv v1) draws both by hand; here they are computed, for two units of its form
x_t = W act(x_{t-1}) + W_in u_t + b, and its remark is measured: a bounded input interferes only near the boundary.
"""

import dataclasses
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


@dataclasses.dataclass(frozen=True)
class Config:
    """Figs. 5 and 6 of the paper (arXiv v1), computed."""

    steps: int = 20
    input_scale: float = 0.35
    """Each input is uniform in plus or minus this."""
    separation: float = 1e-3
    """Distance of the two starts of Fig. 5."""
    wide_separation: float = 0.3
    """Distance of the two starts of Fig. 6, wide enough to see every step."""
    wide_steps: int = 8
    sequences: int = 4000
    """Random sequences, from random starts, for the count of switches."""
    scan: int = 801
    grid: int = 161
    seed: int = 3


REACH = 2.6
"""The square of states that is drawn and started from."""


def network() -> tuple[Any, Any]:
    """Two tanh units, bistable along one direction and contracting across it."""
    import jax.numpy as jnp

    from cliffs.recurrent import RNNParams, rnn_step

    w = jnp.array([[1.45, 0.35], [0.45, 0.45]])
    return rnn_step("tanh", "pre_activation"), RNNParams(w, jnp.eye(2), jnp.array([0.05, -0.02]))


def scan_places(boundary: float, count: int) -> Any:
    """`count` places around the boundary, none of them on it: it lies half a spacing from the nearest two."""
    import jax.numpy as jnp

    places = jnp.linspace(boundary - 1.0, boundary + 1.0, count)
    return places + (0.5 * (places[1] - places[0]) if count % 2 else 0.0)


def compute(config: Config) -> dict[str, Any]:
    """All numbers of both figures, in float64."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from cliffs.dynamics import (  # fmt: skip
        basins_of_attraction,
        compose,
        find_fixed_points,
        separation,
        settle,
        split_path,
        split_step,
        state_grid,
    )
    from cliffs.recurrent import unroll

    step, params = network()
    still = split_step(step).autonomous
    keys = jax.random.split(jax.random.key(config.seed), 3)
    inputs = jax.random.uniform(keys[0], (config.steps, 2), minval=-1.0, maxval=1.0) * config.input_scale
    eye = jnp.eye(2)

    grid = state_grid(jnp.zeros(2), list(eye), [jnp.linspace(-REACH, REACH, config.grid)] * 2)
    basins = basins_of_attraction(still, params, grid, grid_axes=2)
    fixed = find_fixed_points(still, params, grid[::16, ::16].reshape(-1, 2))
    saddle = fixed.points[~fixed.stable][0]
    # The boundary of F~ is the saddle's stable manifold; the left eigenvector of the expanding direction is its normal.
    jacobian = np.asarray(jax.jacfwd(lambda x: still(params, x, None))(jnp.asarray(saddle)))
    values, left = np.linalg.eig(jacobian.T)
    normal = np.real(left[:, np.argmax(np.abs(values))])
    normal = normal / np.linalg.norm(normal) * np.sign(normal[0])

    def side(states):
        """Which attractor of F~ the states belong to: the sign of the end across the boundary."""
        end = settle(still, params, states.reshape(-1, 2)).orbit[:, 0]
        return ((end - saddle) @ normal > 0).reshape(states.shape[:-1])

    # Starts on a line across the boundary: where does the *driven* network's end change sides?
    origin, across = jnp.asarray(saddle) + jnp.array([-0.9, 1.3]), jnp.asarray(normal)

    def driven_end(s):
        return unroll(step, params, origin + s * across, inputs, method="scan")[-1]

    low, high = jnp.asarray(-2.0), jnp.asarray(3.0)
    is_upper = jax.jit(lambda s: side(driven_end(s)[None])[0])
    assert not is_upper(low), "the scan must start on the lower side"
    assert is_upper(high), "the scan must end on the upper side"
    still_low, still_high = low, high
    still_upper = jax.jit(lambda s: side((origin + s * across)[None])[0])
    for _ in range(60):
        middle, other = 0.5 * (low + high), 0.5 * (still_low + still_high)
        low, high = (low, middle) if is_upper(middle) else (middle, high)
        still_low, still_high = (still_low, other) if still_upper(other) else (other, still_high)
    places = scan_places(float(low), config.scan)
    ends = jax.vmap(driven_end)(places)
    slopes = jnp.linalg.norm(jax.vmap(jax.jacfwd(driven_end))(places), axis=1)

    def pair(width, count):
        starts = [origin + (low + sign * 0.5 * width) * across for sign in (-1, 1)]
        return starts, [jax.tree.map(np.asarray, split_path(step, params, x, inputs[:count])) for x in starts]

    starts, paths = pair(config.separation, config.steps)
    wide = pair(config.wide_separation, config.wide_steps)[1]
    apart = separation(step, params, starts[0], starts[1], inputs)

    # How often does one push carry a state into the other basin of F~, by its distance from the boundary?
    first = jax.random.uniform(keys[1], (config.sequences, 2), minval=-REACH, maxval=REACH)
    drive = jax.random.uniform(keys[2], (40, config.sequences, 2), minval=-1.0, maxval=1.0) * config.input_scale
    states = unroll(step, params, first, drive)
    sides = np.asarray(side(states))
    distance = np.abs(np.asarray((states - saddle) @ normal))
    switched = sides[1:] != sides[:-1]

    responses = find_fixed_points(compose(step), params, grid[::16, ::16].reshape(-1, 2), inputs)
    return {
        "basins": basins, "axis": np.linspace(-REACH, REACH, config.grid), "fixed": fixed, "saddle": saddle,
        "normal": normal, "paths": paths, "wide": wide, "distance": np.asarray(apart.distance),
        "growth": float(apart.growth),
        "driven_boundary": float(low), "still_boundary": float(still_low), "places": np.asarray(places),
        "ends": np.asarray((ends - saddle) @ normal), "slopes": np.asarray(slopes),
        "expansion": float(np.abs(values).max()),
        "gap": distance[:-1].ravel(), "switched": switched.ravel(), "responses": responses,
        "push": config.input_scale * float(np.abs(normal).sum()),
    }  # fmt: skip


def draw_fig5(result: dict[str, Any]) -> Any:
    """Two trajectories under the same maps, and their distance."""
    import numpy as np

    from cliffs.plotting import COLORS, figure, plot_basins

    fig, (left, right) = figure(1, 2, size=(10.5, 4.4))
    plot_basins(left, result["basins"].labels, result["axis"], result["axis"])
    for path, color, label in zip(
        result["paths"], (COLORS["clipped"], COLORS["unclipped"]), ("one start", "the other")
    ):
        states = np.concatenate([path.before[:1], path.pushed])
        left.plot(*states.T, "-o", color=color, markersize=3.5, linewidth=1.3, label=label)
    left.plot(*result["paths"][0].before[0], "D", color=COLORS["accent"], markersize=7, zorder=5, label="both starts")
    mark_fixed_points(left, result)
    left.set(
        xlabel="unit 1", ylabel="unit 2", title=r"Same maps $F_1, F_2, \ldots$, two starts a hair apart", aspect="equal"
    )
    left.set(xlim=(-2.2, 2.2), ylim=(-1.6, 2.2))
    left.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=8)
    first = np.linalg.norm(result["paths"][0].before[0] - result["paths"][1].before[0])
    distance = np.append(first, result["distance"])
    right.semilogy(distance, "o-", color=COLORS["stable"], markersize=4, label=r"$|\Delta x_t|$, computed")
    t = np.arange(len(distance))
    right.semilogy(
        t, first * result["expansion"] ** t, "--", color=COLORS["accent"],
        label=rf"multiplier of $\tilde{{F}}$'s saddle, {result['expansion']:.2f}$^t$",
    )  # fmt: skip
    right.set(xlabel="step t", ylabel=r"$|\Delta x_t|$", title="The distance grows while the maps agree")
    right.legend(loc="upper left", fontsize=8)
    return fig


def mark_fixed_points(ax: Any, result: dict[str, Any]) -> None:
    """Attractors filled, the saddle open."""
    fixed = result["fixed"]
    ax.plot(
        *fixed.points[fixed.stable].T, "o", color="black", markersize=8, zorder=6, label=r"attractors of $\tilde{F}$"
    )
    ax.plot(
        *result["saddle"], "o", markerfacecolor="white", markeredgecolor="black", markersize=8, zorder=6, label="saddle"
    )


def draw_fig6(result: dict[str, Any]) -> Any:
    """The split of every step; switches by distance; the gradient along a line of starts."""
    import numpy as np

    from cliffs.plotting import COLORS, figure, plot_basins, plot_split_path

    fig, (left, middle, right) = figure(1, 3, size=(15, 4.4))
    plot_basins(left, result["basins"].labels, result["axis"], result["axis"])
    for path, color in zip(result["wide"], (COLORS["clipped"], COLORS["unclipped"])):
        plot_split_path(left, path, color=color)
    mark_fixed_points(left, result)
    left.plot([], [], linestyle=(0, (3, 2)), color="black", lw=0.9, label=r"pull of $\tilde{F}$")
    left.plot([], [], color="black", lw=1.5, label=r"push of $U_t$")
    points = np.concatenate(
        [x for p in result["wide"] for x in (p.before, p.pulled, p.pushed)] + [result["fixed"].points]
    )
    low, high = points.min(0) - 0.25, points.max(0) + 0.25
    left.set(
        xlabel="unit 1", ylabel="unit 2", xlim=(low[0], high[0]), ylim=(low[1], high[1]),
        title=r"$x_t = U_t(\tilde{F}(x_{t-1}))$ over the basins of $\tilde{F}$",
    )  # fmt: skip
    left.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=8)

    edges = np.linspace(0, result["gap"].max(), 41)
    where = np.digitize(result["gap"], edges) - 1
    rate = np.array([result["switched"][where == k].mean() if (where == k).sum() > 20 else np.nan for k in range(40)])
    middle.bar(edges[:-1], 100 * rate, width=np.diff(edges), align="edge", color=COLORS["clipped"], alpha=0.8)
    middle.axvline(result["push"], color=COLORS["accent"], linestyle="--", label="largest push across")
    middle.set(
        xlabel=r"distance of $x_t$ from the saddle, along the normal", ylabel="% in the other basin one step later",
        title="A bounded input interferes near the boundary only",
    )  # fmt: skip
    middle.legend(loc="upper right", fontsize=8)

    right.semilogy(
        result["places"], result["slopes"], color=COLORS["unclipped"], label=r"$|\partial x_T / \partial s|$"
    )
    for name, place, style in (
        ("driven", result["driven_boundary"], "-"), (r"$\tilde{F}$ alone", result["still_boundary"], ":"),
    ):  # fmt: skip
        right.axvline(place, color="black", linestyle=style, linewidth=1.0, label=f"boundary, {name}")
    right.set(
        xlabel="start s along the normal",
        ylabel=r"$|\partial x_T / \partial s|$",
        title="The gradient peaks at the driven boundary",
    )
    right.legend(loc="upper left", fontsize=8)
    return fig


def main(config: Config) -> pathlib.Path:
    """Compute, draw, save and print."""
    import jax
    import numpy as np

    from experiments import common

    started = time.perf_counter()
    with jax.enable_x64(True):
        result = compute(config)
    switched, gap = result["switched"], result["gap"]
    metrics = {
        "attractors": result["fixed"].points[result["fixed"].stable],
        "saddle": result["saddle"],
        "saddle_multiplier": result["expansion"],
        "growth_nats": result["growth"],
        "growth_nats_per_step": result["growth"] / config.steps,
        "driven_boundary": result["driven_boundary"],
        "still_boundary": result["still_boundary"],
        "peak_slope_at": result["places"][np.argmax(result["slopes"])],
        "spacing_of_the_scan": result["places"][1] - result["places"][0],
        "peak_slope": result["slopes"].max(),
        "switches": int(switched.sum()),
        "steps_counted": int(switched.size),
        "farthest_switch": gap[switched].max() if switched.any() else None,
        "largest_push_across": result["push"],
        "periodic_responses": len(result["responses"].points),
        "floquet_multipliers": np.abs(result["responses"].multipliers[:, 0]),
    }
    arrays = {
        "labels": result["basins"].labels.astype(np.int8), "axis": result["axis"], "distance": result["distance"],
        "places": result["places"], "slopes": result["slopes"], "ends": result["ends"],
        "path_low": np.stack(result["paths"][0]), "path_high": np.stack(result["paths"][1]),
    }  # fmt: skip
    figures = {"fig5": draw_fig5(result), "fig6": draw_fig6(result)}
    folder = common.save(
        "input_driven", metrics=metrics, settings=dataclasses.asdict(config), started=started, arrays=arrays,
        figures=figures, seed=config.seed,
    )  # fmt: skip
    times, per_step = np.exp(result["growth"]), np.exp(metrics["growth_nats_per_step"])
    print(f"Fig. 5: {config.separation:g} apart at first, {times:.0f} times farther after {config.steps} steps:")
    print(f"        {per_step:.3f} per step; the multiplier of the saddle of F~ is {result['expansion']:.3f}")
    print(f"Fig. 6: {metrics['switches']} changes of basin in {metrics['steps_counted']} steps, the farthest from")
    print(f"        {metrics['farthest_switch']:.3f} off the saddle (largest push across it: {result['push']:.3f})")
    print(f"        gradient peaks at s = {metrics['peak_slope_at']:.4f}, boundary of the driven network")
    print(f"        {result['driven_boundary']:.4f} (places {metrics['spacing_of_the_scan']:.4f} apart, none on it)")
    print(f"        the boundary of F~ alone is at {result['still_boundary']:.4f}")
    print(f"written to {folder}")
    return folder


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
