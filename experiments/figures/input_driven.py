"""Figs. 5 and 6 (arXiv v1): networks with input as a family of maps F_t, and their split into F~ and the push U_t.

Fig. 5: two starts a hair apart under the same maps F_1, F_2, ...; the distance grows as long as the maps agree on a
direction. Fig. 6: every step is the pull of the network without input, F~, whose basin boundary is fixed, and then the
push of the input, U_t. The paper draws both by hand; here they are computed, for two units of its form
x_t = W act(x_{t-1}) + W_in u_t + b, and its remark is measured: a bounded input interferes only near the boundary.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics import (
    basins_of_attraction,
    compose,
    find_fixed_points,
    separation,
    settle,
    split_path,
    split_step,
    state_grid,
)
from cliffs.plotting import COLORS, figure, plot_basins, plot_split_path
from cliffs.recurrent import RNNParams, rnn_step, unroll

REACH = 2.6
"""The square of states that is drawn and started from."""


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
    batch: int = 4000
    """Random sequences, from random starts, for the count of switches."""
    scan: int = 801
    """Places along a line of starts at which the gradient is computed."""
    grid: int = 161
    """Points of the basins' picture in each direction."""
    seed: int = 3


class Result(NamedTuple):
    """What both figures are drawn from."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str]]
    basins: np.ndarray
    attractors: np.ndarray
    """`[attractors, 2]` of the network without input."""
    paths: list[Any]
    """Both trajectories of Fig. 5."""
    wide: list[Any]
    """Both trajectories of Fig. 6."""
    gap: np.ndarray
    """The distance from the boundary before every counted step, and whether it led into the other basin."""
    switched: np.ndarray


def run(config: Config) -> Result:
    """All numbers of both figures, in float64."""
    with jax.enable_x64(True):
        return compute(config)


def network() -> tuple[Any, RNNParams]:
    """Two tanh units, bistable along one direction and contracting across it."""
    w = jnp.array([[1.45, 0.35], [0.45, 0.45]])
    return rnn_step("tanh", "pre_activation"), RNNParams(w, jnp.eye(2), jnp.array([0.05, -0.02]))


def scan_places(boundary: float, count: int) -> jax.Array:
    """`count` places around the boundary, none of them on it: it lies half a spacing from the nearest two."""
    places = jnp.linspace(boundary - 1.0, boundary + 1.0, count)
    return places + (0.5 * (places[1] - places[0]) if count % 2 else 0.0)


def bisect(is_upper: Any, low: Any, high: Any) -> jax.Array:
    """Where `is_upper` changes from False to True between two numbers, after 60 halvings."""
    if is_upper(low) or not is_upper(high):
        raise ValueError(f"the line of starts must cross the boundary between {low} and {high}")
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_upper(middle) else (middle, high)
    return low


def compute(config: Config) -> Result:
    """`run` in float64."""
    step, params = network()
    still = split_step(step).autonomous
    keys = jax.random.split(jax.random.key(config.seed), 3)
    inputs = jax.random.uniform(keys[0], (config.steps, 2), minval=-1.0, maxval=1.0) * config.input_scale
    grid = state_grid(jnp.zeros(2), list(jnp.eye(2)), [jnp.linspace(-REACH, REACH, config.grid)] * 2)
    coarse = grid[:: max(1, config.grid // 10), :: max(1, config.grid // 10)].reshape(-1, 2)
    basins = basins_of_attraction(still, params, grid, grid_axes=2)
    fixed = find_fixed_points(still, params, coarse)
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

    bounds = jnp.asarray(-2.0), jnp.asarray(3.0)
    driven = bisect(jax.jit(lambda s: side(driven_end(s)[None])[0]), *bounds)
    alone = bisect(jax.jit(lambda s: side((origin + s * across)[None])[0]), *bounds)
    places = scan_places(float(driven), config.scan)
    ends = jax.vmap(driven_end)(places)
    slopes = np.asarray(jnp.linalg.norm(jax.vmap(jax.jacfwd(driven_end))(places), axis=1))

    def pair(width, count):
        starts = [origin + (driven + sign * 0.5 * width) * across for sign in (-1, 1)]
        return starts, [jax.tree.map(np.asarray, split_path(step, params, x, inputs[:count])) for x in starts]

    starts, paths = pair(config.separation, config.steps)
    wide = pair(config.wide_separation, config.wide_steps)[1]
    apart = separation(step, params, starts[0], starts[1], inputs)

    # How often does one push carry a state into the other basin of F~, by its distance from the boundary?
    first = jax.random.uniform(keys[1], (config.batch, 2), minval=-REACH, maxval=REACH)
    drive = jax.random.uniform(keys[2], (40, config.batch, 2), minval=-1.0, maxval=1.0) * config.input_scale
    states = unroll(step, params, first, drive)
    sides = np.asarray(side(states))
    distance = np.abs(np.asarray((states - saddle) @ normal))
    gap, switched = distance[:-1].ravel(), (sides[1:] != sides[:-1]).ravel()
    responses = find_fixed_points(compose(step), params, coarse, inputs)
    growth, places = float(apart.growth), np.asarray(places)
    metrics = {
        "attractors": fixed.points[fixed.stable],
        "saddle": saddle,
        "saddle_multiplier": float(np.abs(values).max()),
        "growth_nats": growth,
        "growth_nats_per_step": growth / config.steps,
        "driven_boundary": float(driven),
        "still_boundary": float(alone),
        "peak_slope_at": places[np.argmax(slopes)],
        "spacing_of_the_scan": places[1] - places[0],
        "peak_slope": slopes.max(),
        "switches": int(switched.sum()),
        "steps_counted": int(switched.size),
        "farthest_switch": gap[switched].max() if switched.any() else None,
        "largest_push_across": config.input_scale * float(np.abs(normal).sum()),
        "periodic_responses": len(responses.points),
        "floquet_multipliers": np.abs(responses.multipliers[:, 0]),
    }
    arrays = {
        "labels": basins.labels.astype(np.int8),
        "axis": np.linspace(-REACH, REACH, config.grid),
        "distance": np.asarray(apart.distance),
        "places": places,
        "slopes": slopes,
        "ends": np.asarray((ends - saddle) @ normal),
        "path_low": np.stack(paths[0]),
        "path_high": np.stack(paths[1]),
    }
    attractors = fixed.points[fixed.stable]
    rows = report(config, metrics)
    return Result(config, metrics, arrays, rows, basins.labels, attractors, paths, wide, gap, switched)


def report(config: Config, metrics: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of the printed table."""
    times, per_step = np.exp(metrics["growth_nats"]), np.exp(metrics["growth_nats_per_step"])
    push, farthest = metrics["largest_push_across"], metrics["farthest_switch"]
    return [
        (f"Fig. 5: distance after {config.steps} steps / {config.separation:g}", f"{times:.0f}"),
        (
            "Fig. 5: growth per step; multiplier of the saddle of F~",
            f"{per_step:.3f}; {metrics['saddle_multiplier']:.3f}",
        ),
        ("Fig. 6: changes of basin / steps", f"{metrics['switches']} / {metrics['steps_counted']}"),
        ("Fig. 6: farthest of them from the saddle; largest push across", f"{farthest or 0:.3f}; {push:.3f}"),
        (
            "Fig. 6: gradient peaks at; boundary of the driven network",
            f"{metrics['peak_slope_at']:.4f}; {metrics['driven_boundary']:.4f} "
            f"(places {metrics['spacing_of_the_scan']:.4f} apart, none on it)",
        ),
        ("Fig. 6: boundary of F~ alone", f"{metrics['still_boundary']:.4f}"),
    ]


def draw(result: Result) -> dict[str, Any]:
    """Fig. 5 and Fig. 6."""
    fig5, (left, right) = figure(1, 2, size=(10.5, 4.4))
    _draw_pair(left, result)
    _draw_distance(right, result)
    fig6, (left, middle, right) = figure(1, 3, size=(15, 4.4))
    _draw_split(left, result)
    _draw_switches(middle, result)
    _draw_slopes(right, result)
    return {"fig5": fig5, "fig6": fig6}


def _draw_pair(ax: Any, result: Result) -> None:
    plot_basins(result.basins, result.arrays["axis"], result.arrays["axis"], ax)
    labels = ("one start", "the other")
    for path, color, label in zip(result.paths, (COLORS["clipped"], COLORS["unclipped"]), labels):
        states = np.concatenate([path.before[:1], path.pushed])
        ax.plot(*states.T, "-o", color=color, markersize=3.5, linewidth=1.3, label=label)
    ax.plot(*result.paths[0].before[0], "D", color=COLORS["accent"], markersize=7, zorder=5, label="both starts")
    _mark_fixed_points(ax, result)
    ax.set(xlabel="unit 1", ylabel="unit 2", aspect="equal", xlim=(-2.2, 2.2), ylim=(-1.6, 2.2))
    ax.set(title=r"Same maps $F_1, F_2, \ldots$, two starts a hair apart")
    ax.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=8)


def _draw_distance(ax: Any, result: Result) -> None:
    first = np.linalg.norm(result.paths[0].before[0] - result.paths[1].before[0])
    distance = np.append(first, result.arrays["distance"])
    ax.semilogy(distance, "o-", color=COLORS["stable"], markersize=4, label=r"$|\Delta x_t|$, computed")
    expansion = result.metrics["saddle_multiplier"]
    t = np.arange(len(distance))
    label = rf"multiplier of $\tilde{{F}}$'s saddle, {expansion:.2f}$^t$"
    ax.semilogy(t, first * expansion**t, "--", color=COLORS["accent"], label=label)
    ax.set(xlabel="step t", ylabel=r"$|\Delta x_t|$", title="The distance grows while the maps agree")
    ax.legend(loc="upper left", fontsize=8)


def _mark_fixed_points(ax: Any, result: Result) -> None:
    """Attractors filled, the saddle open."""
    label = r"attractors of $\tilde{F}$"
    ax.plot(*result.attractors.T, "o", color="black", markersize=8, zorder=6, label=label)
    style = {"markerfacecolor": "white", "markeredgecolor": "black", "markersize": 8, "zorder": 6}
    ax.plot(*result.metrics["saddle"], "o", label="saddle", **style)


def _draw_split(ax: Any, result: Result) -> None:
    plot_basins(result.basins, result.arrays["axis"], result.arrays["axis"], ax)
    for path, color in zip(result.wide, (COLORS["clipped"], COLORS["unclipped"])):
        plot_split_path(path, ax, color=color)
    _mark_fixed_points(ax, result)
    ax.plot([], [], linestyle=(0, (3, 2)), color="black", lw=0.9, label=r"pull of $\tilde{F}$")
    ax.plot([], [], color="black", lw=1.5, label=r"push of $U_t$")
    states = [x for p in result.wide for x in (p.before, p.pulled, p.pushed)]
    points = np.concatenate([*states, result.attractors, result.metrics["saddle"][None]])
    low, high = points.min(0) - 0.25, points.max(0) + 0.25
    ax.set(xlabel="unit 1", ylabel="unit 2", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set(title=r"$x_t = U_t(\tilde{F}(x_{t-1}))$ over the basins of $\tilde{F}$")
    ax.legend(loc="lower right", frameon=True, framealpha=0.9, fontsize=8)


def _draw_switches(ax: Any, result: Result) -> None:
    edges = np.linspace(0, result.gap.max(), 41)
    where = np.digitize(result.gap, edges) - 1
    rate = [result.switched[where == k].mean() if (where == k).sum() > 20 else np.nan for k in range(40)]
    ax.bar(edges[:-1], 100 * np.array(rate), width=np.diff(edges), align="edge", color=COLORS["clipped"], alpha=0.8)
    push = result.metrics["largest_push_across"]
    ax.axvline(push, color=COLORS["accent"], linestyle="--", label="largest push across")
    ax.set(xlabel=r"distance of $x_t$ from the saddle, along the normal", ylabel="% in the other basin one step later")
    ax.set(title="A bounded input interferes near the boundary only")
    ax.legend(loc="upper right", fontsize=8)


def _draw_slopes(ax: Any, result: Result) -> None:
    label = r"$|\partial x_T / \partial s|$"
    ax.semilogy(result.arrays["places"], result.arrays["slopes"], color=COLORS["unclipped"], label=label)
    for name, key, style in (("driven", "driven_boundary", "-"), (r"$\tilde{F}$ alone", "still_boundary", ":")):
        ax.axvline(result.metrics[key], color="black", linestyle=style, linewidth=1.0, label=f"boundary, {name}")
    ax.set(xlabel="start s along the normal", ylabel=label, title="The gradient peaks at the driven boundary")
    ax.legend(loc="upper left", fontsize=8)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
