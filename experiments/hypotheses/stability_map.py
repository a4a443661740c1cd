"""Which starts does gradient descent throw out of the valley of Fig. 3, by learning rate and clipping threshold?

A grid of starts on the low side of the wall; every start x learning rate x threshold is one path of one compiled
program. A path leaves when it steps out of a box about the valley that is larger than the grid of starts.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs.landscape import StabilityMap, stability_map
from cliffs.plotting import COLORS, figure, plot_stability_map
from cliffs.recurrent import OneUnitParams, one_unit_cost

SHORT = 0.03
"""A clipped step of at most this length (rate x threshold) is called safe."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Surface, starts and the two axes of the map."""

    steps: int = 50
    """T of the error `(s(x_T) - 0.7)^2`."""
    starts: int = 9
    """Along w and along the distance from the wall."""
    updates: int = 300
    rates: int = 21
    rate_range: tuple[float, float] = (1e-3, 10.0)
    thresholds: int = 20
    """The last one is "none"."""
    threshold_range: tuple[float, float] = (1e-2, 1e3)
    box: tuple[float, float, float, float] = (3.0, 7.5, -4.2, -0.6)
    """w from, to, b from, to: outside of it a path has left."""


class Result(NamedTuple):
    """The map and its numbers."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str]]
    map: StabilityMap


def run(config: Config) -> Result:
    """Descend from every start, in float64."""
    with jax.enable_x64(True):
        starts = starts_in_the_valley(config)
        result = jax.tree.map(np.asarray, descend_all(config, starts))
    share = result.left_share
    median = np.median(np.where(result.outside, np.inf, result.final_loss), -1)
    metrics = summarise(config, result, median, starts)
    arrays = {
        "learning_rates": result.learning_rates,
        "thresholds": result.thresholds,
        "left_share": share,
        "outside_share": result.outside.mean(-1),
        "median_final_error": median,
        "start_w": starts.w,
        "start_b": starts.b,
    }
    half = metrics["smallest_rate_at_which_half_or_more_leave_unclipped"]
    span = metrics["smallest_and_largest_share_left_unclipped_from_that_rate_on"]
    worst = metrics["largest_share_left_where_rate_x_threshold_is_at_most_0.03"]
    rows = [
        ("paths", f"{metrics['paths']:,}"),
        ("unclipped: about half or more leave from this rate on", f"{half} (shares {span})"),
        (f"rate x threshold <= {SHORT}: at most so many leave", f"{worst:.0%}"),
        (
            "clipped cells that cannot leave: rate x threshold x updates is below the distance to the box",
            f"{metrics['clipped_cells_that_cannot_leave']} of {metrics['clipped_cells']}",
        ),
    ]
    return Result(config, metrics, arrays, rows, result)


def starts_in_the_valley(config: Config) -> OneUnitParams:
    """A grid over w and the distance from the wall; leaves `[starts]`."""
    w, above = jnp.linspace(4.5, 6.0, config.starts), jnp.linspace(0.02, 0.8, config.starts)
    grid = jnp.stack(jnp.meshgrid(w, above, indexing="ij"), -1).reshape(-1, 2)
    # The boundary is very nearly the line through (4.5, -2.30107) and (5.9, -3.17251).
    return OneUnitParams(grid[:, 0], -2.30107 - 0.622457 * (grid[:, 0] - 4.5) + grid[:, 1])


def descend_all(config: Config, starts: OneUnitParams) -> StabilityMap:
    """Every start with every rate and threshold, as one program."""
    low_w, high_w, low_b, high_b = config.box
    rates = jnp.geomspace(*config.rate_range, config.rates)
    thresholds = jnp.append(jnp.geomspace(*config.threshold_range, config.thresholds - 1), jnp.inf)

    def cost(params):
        return one_unit_cost(params, num_steps=config.steps)

    def chain(rate, threshold):
        return optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(rate))

    def inside(p):
        return (p.w > low_w) & (p.w < high_w) & (p.b > low_b) & (p.b < high_b)

    return jax.jit(lambda: stability_map(cost, starts, chain, rates, thresholds, config.updates, inside))()


def summarise(config: Config, result: StabilityMap, median: np.ndarray, starts: OneUnitParams) -> dict[str, Any]:
    """Who leaves: without clipping, with short clipped steps, and among those that could."""
    share, finite = result.left_share, result.thresholds[:-1]
    low_w, high_w, low_b, high_b = config.box
    w, b = np.asarray(starts.w), np.asarray(starts.b)
    nearest = float(np.min([w - low_w, high_w - w, b - low_b, high_b - b]))
    longest = result.learning_rates[:, None] * finite  # the longest clipped step
    safe, cannot = longest <= SHORT, longest * config.updates < nearest
    could = safe & ~cannot
    unclipped = list(zip(result.learning_rates, share[:, -1]))
    return {
        "starts": len(w),
        "paths": int(share.size * len(w)),
        "unclipped": [{"rate": r, "left": s} for r, s in unclipped],
        "largest_share_left_where_rate_x_threshold_is_at_most_0.03": share[:, :-1][safe].max(),
        "smallest_rate_at_which_half_or_more_leave_unclipped": next((r for r, s in unclipped if s >= 0.5), None),
        "smallest_and_largest_share_left_unclipped_from_that_rate_on": _range_from_half(np.asarray(share)[:, -1]),
        "smallest_distance_of_a_start_to_the_box": nearest,
        "note": "where rate x threshold x updates is below a start's distance to the box it cannot leave",
        "clipped_cells": int(cannot.size),
        "clipped_cells_that_cannot_leave": int(cannot.sum()),
        "largest_share_left_where_rate_x_threshold_is_at_most_0.03_among_cells_that_could": (
            share[:, :-1][could].max() if could.any() else None
        ),
        "cells_at_most_0.03_that_could_leave": int(could.sum()),
        "best_clipped_median_error": median[:, :-1].min(),
        "best_unclipped_median_error": median[:, -1].min(),
    }


def _range_from_half(share: np.ndarray) -> list[float] | None:
    """The smallest and the largest of the shares from the first one that is at least one half on."""
    reached = np.flatnonzero(share >= 0.5)
    return [float(share[reached[0] :].min()), float(share[reached[0] :].max())] if len(reached) else None


def draw(result: Result) -> dict[str, Any]:
    """The map with lines of equal longest step, and the share that leaves against the rate."""
    fig, (left, right) = figure(1, 2, size=(11.5, 4.4))
    found, finite = result.map, result.map.thresholds[:-1]
    plot_stability_map(found, left, name="share of starts that leave the valley")
    # A clipped step is at most rate x threshold long: lines of equal longest step run down the diagonal.
    for step, style in ((0.03, ":"), (0.3, "--"), (3.0, "-")):
        place = np.interp(np.log(step / found.learning_rates), np.log(finite), np.arange(len(finite)), np.nan, np.nan)
        left.plot(place, style, color="white", linewidth=1.2, label=f"{step:g}")
    legend = left.legend(
        title="rate x threshold",
        loc="lower left",
        labelcolor="white",
        fontsize=8,
        title_fontsize=8,
        frameon=True,
        facecolor="#32383f",
        framealpha=1,
    )
    legend.get_title().set_color("white")
    left.set(xlim=(-0.5, len(found.learning_rates) - 0.5), ylim=(-0.5, len(found.thresholds) - 0.5))
    share = found.left_share
    for wanted, color in ((np.inf, "unclipped"), (10.0, "accent"), (1.0, "good"), (0.1, "clipped")):
        j = len(finite) if np.isinf(wanted) else int(np.abs(np.log(finite / wanted)).argmin())
        label = "none" if np.isinf(wanted) else f"{finite[j]:.2g}"
        right.plot(found.learning_rates, share[:, j], ".-", color=COLORS[color], label=label)
    right.set(xscale="log", xlabel="learning rate", ylabel="share of starts that leave")
    right.legend(title="threshold", loc="upper left")
    right.set_title(
        f"{result.metrics['paths']:,} descents of {result.config.updates} updates, T = {result.config.steps}"
    )
    return {"stability_map": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
