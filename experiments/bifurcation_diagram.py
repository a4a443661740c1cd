"""Fig. 4 of Pascanu, Mikolov & Bengio (2012, arXiv v1): the one-unit map's bifurcation diagram against its bias.

Left: both attractors (solid), the boundary between their basins (the dashed unstable branch), the folds b1 and b2, and
arrows along which the state moves. Right: the same branches under the states that trajectories from several starts
settle on, found by iterating the map and nothing else. Metrics hold the folds beside their closed form, and the
distance of the brute-force states from the stable branches.
"""

import dataclasses
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the figure."""

    w: float = 5.0
    """The recurrent weight; folds exist above 4."""
    b_low: float = -3.3
    b_high: float = -1.7
    values: int = 161
    """Biases at which trajectories are iterated."""
    transient: int = 2000
    starts: int = 8


def closed_form_folds(w: float) -> np.ndarray:
    """Where `w s'(x) = 1`: `s = (1 ± sqrt(1 - 4 / w)) / 2`, `b = x - w s`; rows `[b, x]`, ascending in b."""
    s = (1 + np.array([1, -1]) * np.sqrt(1 - 4 / w)) / 2
    x = np.log(s / (1 - s))
    return np.stack([x - w * s, x], 1)


def analyse(config: Config):
    """The diagram, the brute-force states and the numbers that compare them."""
    import jax
    import jax.numpy as jnp

    from cliffs.dynamics import attractor_diagram, bifurcation_diagram
    from cliffs.recurrent import OneUnitParams, one_unit_step

    bounds = (config.b_low, config.b_high)
    with jax.enable_x64(True):
        params = OneUnitParams(config.w, 0.0)
        diagram = bifurcation_diagram(one_unit_step, params, "b", bounds, jnp.linspace(-6.0, 6.0, 13)[:, None])
        values = np.linspace(*bounds, config.values)
        starts = jnp.linspace(-4.0, 4.0, config.starts)[:, None]
        states = np.asarray(
            attractor_diagram(
                one_unit_step, params, "b", values, starts, transient=config.transient, record=1
            )
        )  # fmt: skip
    folds = np.array([[p.parameter, p.state[0]] for p in diagram.special if p.kind == "fold"])
    truth = closed_form_folds(config.w)
    # A settled state x has the bias x - w s(x), whichever branch it is on.
    x = states[..., 0]
    off = np.abs(x - config.w / (1 + np.exp(-x)) - values[:, None, None]).max(axis=(1, 2))
    spread = np.ptp(x[:, :, 0], axis=1) > 0.1
    metrics = {
        "folds": folds, "closed_form": truth, "error": np.abs(folds - truth).max(), "complete": diagram.complete,
        "branches": len(diagram.branches), "brute_force_worst_residual": off.max(),
        "two_attractors_from": values[spread].min(), "two_attractors_to": values[spread].max(),
    }  # fmt: skip
    return diagram, values, states, folds, metrics


def draw(config: Config, diagram, values, states, folds):
    """The figure."""
    from cliffs.plotting import COLORS, add_attractors, add_flow, figure, plot_bifurcation_diagram

    fig, (left, right) = figure(1, 2, size=(11.6, 4.9), sharey=True, width_ratios=[1.35, 1])
    low, high = -3.6, 3.9

    def settled(b, x):
        return config.w / (1 + np.exp(-x)) + b

    add_flow(left, settled, np.linspace(config.b_low + 0.03, config.b_high - 0.03, 25), np.linspace(low, high, 21))
    plot_bifurcation_diagram(left, diagram)
    for ax in (left, right):
        ax.axvspan(folds[0, 0], folds[1, 0], color=COLORS["clipped"], alpha=0.06, lw=0, zorder=0)
    for (b, x), name, side in zip(folds, ("$b_1$", "$b_2$"), ("right", "left")):
        left.plot([b, b], [low, x], color=COLORS["unclipped"], lw=0.9, ls=":", zorder=2)
        left.annotate(
            f"{name} = {b:.6f}", (b, low), xytext=(-5 if side == "right" else 5, 8), textcoords="offset points",
            ha=side, fontsize=9.5, color=COLORS["unclipped"], zorder=6,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85},
        )  # fmt: skip
    left.set(title=f"Fixed points of $x \\mapsto {config.w:g}\\,\\sigma(x) + b$", ylim=(low, high), ylabel="state $x$",
             xlim=(config.b_low, config.b_high), xlabel="bias $b$")  # fmt: skip
    left.grid(False)
    left.legend(loc="upper left", frameon=True, framealpha=0.92, edgecolor="none", fontsize=9)

    for branch in diagram.branches:
        right.plot(branch.parameter, branch.states[:, 0], color=COLORS["unstable"], lw=1, alpha=0.7, zorder=2,
                   label="branch (continuation)")  # fmt: skip
    add_attractors(right, values, states, label=f"state after {config.transient:,} steps")
    right.set(title=f"Where {config.starts} starts end, by iteration alone", xlabel="bias $b$",
              xlim=(config.b_low, config.b_high))  # fmt: skip
    right.text(folds[:, 0].mean(), low + 0.25, "two attractors", ha="center", fontsize=9, color=COLORS["clipped"])
    right.grid(False)
    right.legend(loc="upper left", frameon=True, framealpha=0.92, edgecolor="none", fontsize=9, markerscale=3)
    return fig


def part(config: Config) -> dict[str, Any]:
    """Rows, numbers, arrays and the figure for a report."""
    if not config.w > 4:
        raise ValueError(f"w must be above 4, where the map has folds, got {config.w}")
    diagram, values, states, folds, metrics = analyse(config)
    arrays = {"values": values, "settled": states[:, :, 0, 0]}
    for i, branch in enumerate(diagram.branches):
        arrays |= {
            f"b_{i}": branch.parameter, f"x_{i}": branch.states[:, 0], f"stable_{i}": branch.stable,
            f"multiplier_{i}": branch.multipliers[:, 0].real,
        }  # fmt: skip
    truth = metrics["closed_form"]
    rows = [
        (f"Fig. 4: fold b{i + 1}", f"{b:.11f} (off by {abs(b - t):.0e})", f"{t:.11f}")
        for i, (b, t) in enumerate(zip(folds[:, 0], truth[:, 0]))
    ]
    return {
        "rows": rows, "metrics": metrics, "arrays": arrays, "settings": dataclasses.asdict(config),
        "figures": {"bifurcation_diagram": draw(config, diagram, values, states, folds)},
    }  # fmt: skip


def main(config: Config) -> dict:
    """Compute, draw, save; returns the metrics."""
    started = time.perf_counter()
    done = part(config)
    folder = common.save(
        "bifurcation_diagram", metrics=done["metrics"], settings=done["settings"], started=started,
        arrays=done["arrays"], figures=done["figures"],
    )  # fmt: skip
    for row in done["rows"]:
        print(*row, sep="   ")
    print(f"written to {folder}")
    return done["metrics"]


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
