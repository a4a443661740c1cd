"""Which starts does gradient descent throw out of the valley of Fig. 3, by learning rate and clipping threshold?

    python experiments/stability_map.py

A grid of starts on the low side of the wall; every start x learning rate x threshold is one path of one compiled
program. A path leaves when it steps out of a box about the valley that is larger than the grid of starts.
"""

import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))


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


def main(config: Config) -> pathlib.Path:
    """Compute, draw, write results/stability_map/."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs.landscape import stability_map
    from cliffs.plotting import COLORS, figure, plot_stability_map
    from cliffs.recurrent import OneUnitParams, one_unit_cost
    from experiments import common

    started = time.perf_counter()
    low_w, high_w, low_b, high_b = config.box
    with jax.enable_x64(True):
        w = jnp.linspace(4.5, 6.0, config.starts)
        above = jnp.linspace(0.02, 0.8, config.starts)
        # The boundary is very nearly the line through (4.5, -2.30107) and (5.9, -3.17251).
        grid = jnp.stack(jnp.meshgrid(w, above, indexing="ij"), -1).reshape(-1, 2)
        starts = OneUnitParams(grid[:, 0], -2.30107 - 0.622457 * (grid[:, 0] - 4.5) + grid[:, 1])
        rates = jnp.geomspace(*config.rate_range, config.rates)
        thresholds = jnp.append(jnp.geomspace(*config.threshold_range, config.thresholds - 1), jnp.inf)

        def cost(params):
            return one_unit_cost(params, num_steps=config.steps)

        def chain(rate, threshold):
            return optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(rate))

        def inside(p):
            return (p.w > low_w) & (p.w < high_w) & (p.b > low_b) & (p.b < high_b)

        run = jax.jit(lambda: stability_map(cost, starts, chain, rates, thresholds, config.updates, inside))
        result = jax.tree.map(np.asarray, run())
    share = result.left_share
    median = np.median(np.where(result.outside, np.inf, result.final_loss), -1)

    fig, axes = figure(1, 2, size=(11.5, 4.4))
    image = plot_stability_map(axes[0], result, name="share of starts that leave the valley")
    fig.colorbar(image, ax=axes[0])
    # A clipped step is at most rate x threshold long: lines of equal longest step run down the diagonal.
    finite = result.thresholds[:-1]
    for step, style in ((0.03, ":"), (0.3, "--"), (3.0, "-")):
        place = np.interp(np.log(step / result.learning_rates), np.log(finite), np.arange(len(finite)), np.nan, np.nan)
        axes[0].plot(place, style, color="white", linewidth=1.2, label=f"{step:g}")
    axes[0].legend(
        title="rate x threshold", loc="lower left", labelcolor="white", fontsize=8, title_fontsize=8, frameon=True,
        facecolor="#32383f", framealpha=1,
    ).get_title().set_color("white")  # fmt: skip
    axes[0].set_xlim(-0.5, len(rates) - 0.5)
    axes[0].set_ylim(-0.5, len(thresholds) - 0.5)
    longest = result.learning_rates[:, None] * finite
    for wanted, color in ((np.inf, COLORS["unclipped"]), (10.0, COLORS["accent"]), (1.0, COLORS["good"]),
                          (0.1, COLORS["clipped"])):  # fmt: skip
        j = len(finite) if np.isinf(wanted) else int(np.abs(np.log(finite / wanted)).argmin())
        label = "none" if np.isinf(wanted) else f"{finite[j]:.2g}"
        axes[1].plot(result.learning_rates, share[:, j], ".-", color=color, label=label)
    axes[1].set_xscale("log")
    axes[1].set_xlabel("learning rate")
    axes[1].set_ylabel("share of starts that leave")
    axes[1].legend(title="threshold", loc="upper left")
    axes[1].set_title(f"{share.size * len(grid):,} descents of {config.updates} updates, T = {config.steps}")
    safe = longest <= 0.03
    nearest = float(np.min([
        np.asarray(starts.w) - low_w, high_w - np.asarray(starts.w), np.asarray(starts.b) - low_b,
        high_b - np.asarray(starts.b),
    ]))  # fmt: skip
    cannot = longest * config.updates < nearest
    metrics = {
        "starts": len(grid), "paths": int(share.size * len(grid)),
        "unclipped": [{"rate": r, "left": s} for r, s in zip(result.learning_rates, share[:, -1])],
        "largest_share_left_where_rate_x_threshold_is_at_most_0.03": share[:, :-1][safe].max(),
        "smallest_rate_at_which_half_or_more_leave_unclipped": next(
            (r for r, s in zip(result.learning_rates, share[:, -1]) if s >= 0.5), None
        ),
        "smallest_and_largest_share_left_unclipped_from_that_rate_on": _range_from_half(share[:, -1]),
        "smallest_distance_of_a_start_to_the_box": nearest,
        "note": "where rate x threshold x updates is below a start's distance to the box it cannot leave",
        "clipped_cells": int(cannot.size), "clipped_cells_that_cannot_leave": int(cannot.sum()),
        "largest_share_left_where_rate_x_threshold_is_at_most_0.03_among_cells_that_could": (
            share[:, :-1][safe & ~cannot].max() if (safe & ~cannot).any() else None
        ),
        "cells_at_most_0.03_that_could_leave": int((safe & ~cannot).sum()),
        "best_clipped_median_error": median[:, :-1].min(), "best_unclipped_median_error": median[:, -1].min(),
    }  # fmt: skip
    arrays = {
        "learning_rates": result.learning_rates, "thresholds": result.thresholds, "left_share": share,
        "outside_share": result.outside.mean(-1), "median_final_error": median, "start_w": starts.w,
        "start_b": starts.b,
    }  # fmt: skip
    folder = common.save(
        "stability_map", metrics=metrics, settings=dataclasses.asdict(config), started=started, arrays=arrays,
        figures={"stability_map": fig},
    )  # fmt: skip
    rate, worst = metrics["smallest_rate_at_which_half_or_more_leave_unclipped"], share[:, :-1][safe].max()
    span = metrics["smallest_and_largest_share_left_unclipped_from_that_rate_on"]
    print(f"{metrics['paths']:,} paths; about half or more of the unclipped leave from rate {rate} on: {span}")
    print(
        f"rate x threshold <= 0.03: at most {worst:.0%} leave; {(safe & cannot).sum()} of these {safe.sum()} cells "
        f"cannot: rate x threshold x updates is below the {nearest:.2f} to the box"
    )
    return folder


def _range_from_half(share):
    """The smallest and the largest of the shares from the first one that is at least one half on."""
    import numpy as np

    reached = np.flatnonzero(share >= 0.5)
    return [float(share[reached[0] :].min()), float(share[reached[0] :].max())] if len(reached) else None


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
