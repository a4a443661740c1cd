"""Fig. 4 (arXiv v1): fixed points of the one-unit map against its bias, and where trajectories end.

Left: both attractors (solid), the boundary between their basins (the dashed unstable branch), the folds b1 and b2, and
arrows along which the state moves. Right: the same branches under the states that trajectories from several starts
settle on, found by iterating the map and nothing else. Metrics hold the folds beside their closed form, and the
distance of the states found by iteration from the stable branches.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics import BifurcationDiagram, attractor_diagram, bifurcation_diagram
from cliffs.plotting import COLORS, figure, plot_attractors, plot_bifurcation_diagram, plot_flow
from cliffs.recurrent import OneUnitParams, one_unit_folds, one_unit_step


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
    """Steps that are iterated before a state counts as settled."""
    starts: int = 8


class Result(NamedTuple):
    """The diagram, the settled states, and the numbers that compare them."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]
    diagram: BifurcationDiagram
    states: np.ndarray
    """`[values, starts, 1, 1]`: where the trajectories end."""


def run(config: Config) -> Result:
    """Follow the branches, iterate the map, and compare."""
    if not config.w > 4:
        raise ValueError(f"w must be above 4, where the map has folds, got {config.w}")
    bounds = (config.b_low, config.b_high)
    with jax.enable_x64(True):
        params = OneUnitParams(config.w, 0.0)
        diagram = bifurcation_diagram(one_unit_step, params, "b", bounds, jnp.linspace(-6.0, 6.0, 13)[:, None])
        values = np.linspace(*bounds, config.values)
        starts = jnp.linspace(-4.0, 4.0, config.starts)[:, None]
        states = np.asarray(
            attractor_diagram(one_unit_step, params, "b", values, starts, transient=config.transient, record=1)
        )
        truth = np.stack(one_unit_folds(config.w), 1)  # rows (b, x)
    folds = np.array([[p.parameter, p.state[0]] for p in diagram.special if p.kind == "fold"])
    # A settled state x has the bias x - w s(x), whichever branch it is on.
    x = states[..., 0]
    off = np.abs(x - config.w / (1 + np.exp(-x)) - values[:, None, None]).max(axis=(1, 2))
    spread = np.ptp(x[:, :, 0], axis=1) > 0.1
    metrics = {
        "folds": folds,
        "closed_form": truth,
        "error": np.abs(folds - truth).max(),
        "complete": diagram.complete,
        "branches": len(diagram.branches),
        "brute_force_worst_residual": off.max(),
        "two_attractors_from": values[spread].min(),
        "two_attractors_to": values[spread].max(),
    }
    arrays = {"values": values, "settled": states[:, :, 0, 0]}
    for i, branch in enumerate(diagram.branches):
        arrays |= {
            f"b_{i}": branch.parameter,
            f"x_{i}": branch.states[:, 0],
            f"stable_{i}": branch.stable,
            f"multiplier_{i}": np.real(branch.multipliers[:, 0]),
        }
    rows = [
        (f"Fig. 4: fold b{i + 1}", f"{b:.11f} (off by {abs(b - t):.0e})", f"{t:.11f}")
        for i, (b, t) in enumerate(zip(folds[:, 0], truth[:, 0]))
    ]
    return Result(config, metrics, arrays, rows, diagram, states)


def draw(result: Result) -> dict[str, Any]:
    """Branches with arrows and folds; beside them where trajectories end. A reader zooms into the SVG."""
    fig, (left, right) = figure(1, 2, size=(11.6, 4.9), sharey=True, width_ratios=[1.35, 1])
    low, high = -3.6, 3.9
    folds = result.metrics["folds"]
    _draw_branches(left, result, low, high)
    _draw_attractors(right, result)
    for ax in (left, right):
        ax.axvspan(folds[0, 0], folds[1, 0], color=COLORS["clipped"], alpha=0.06, lw=0, zorder=0)
        ax.set(xlabel="bias $b$", xlim=(result.config.b_low, result.config.b_high))
        ax.grid(False)
        ax.legend(loc="upper left", frameon=True, framealpha=0.92, edgecolor="none", fontsize=9)
    left.set(ylim=(low, high), ylabel="state $x$")
    right.text(folds[:, 0].mean(), low + 0.25, "two attractors", ha="center", fontsize=9, color=COLORS["clipped"])
    return {"bifurcation_diagram": fig, "bifurcation_diagram.svg": fig}


def _draw_branches(ax: Any, result: Result, low: float, high: float) -> None:
    config = result.config

    def settled(b, x):
        return config.w / (1 + np.exp(-x)) + b

    biases = np.linspace(config.b_low + 0.03, config.b_high - 0.03, 25)
    plot_flow(settled, biases, np.linspace(low, high, 21), ax)
    plot_bifurcation_diagram(result.diagram, ax, parameter="b")
    for (b, x), name, side in zip(result.metrics["folds"], ("$b_1$", "$b_2$"), ("right", "left")):
        ax.plot([b, b], [low, x], color=COLORS["unclipped"], lw=0.9, ls=":", zorder=2)
        ax.annotate(
            f"{name} = {b:.6f}",
            (b, low),
            xytext=(-5 if side == "right" else 5, 8),
            textcoords="offset points",
            ha=side,
            fontsize=9.5,
            color=COLORS["unclipped"],
            zorder=6,
            bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": "none", "alpha": 0.85},
        )
    ax.set(title=f"Fixed points of $x \\mapsto {config.w:g}\\,\\sigma(x) + b$")


def _draw_attractors(ax: Any, result: Result) -> None:
    config = result.config
    for i, branch in enumerate(result.diagram.branches):
        label = "branch (continuation)" if i == 0 else None
        ax.plot(branch.parameter, branch.states[:, 0], color=COLORS["unstable"], lw=1, alpha=0.7, zorder=2, label=label)
    plot_attractors(result.arrays["values"], result.states, ax, label=f"state after {config.transient:,} steps")
    ax.set(title=f"Where {config.starts} starts end, by iteration alone")


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
