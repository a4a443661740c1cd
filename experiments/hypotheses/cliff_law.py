"""The law of the cliff: how high and how narrow a wall of the loss is, against the sequence length T.

Three kinds of walls in one dimension, each measured with the same tool:

- where the start state crosses the boundary of two basins (Fig. 3): peak `C m^T`, width `C' m^-T`, with m the
  multiplier of the unstable fixed point on the boundary;
- where an attractor vanishes in a fold: the passage through the bottleneck takes `pi / sqrt(mu)` steps, so the wall
  stands at `mu ~ T^-2` from the fold and its width is `~ T^-3`;
- where a fixed point loses its stability, `x_T = w^T x_0` with a bounded read-out at w = 1: width `~ 1/T`.

Then networks of 50 units trained on temporal order at T = 20 whose sequences are prolonged by distractors: the
steepest wall at T = 20 along the gradient, the Hessian's leading eigenvector and random directions, followed to each
longer T, and which law describes its width.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from cliffs.landscape import CliffProfile, parameter_direction, sample_line
from cliffs.plotting import COLORS, figure, plot_cliff_law, plot_profile
from cliffs.recurrent import OneUnitParams

ALL_CORES = True
NAMES = {
    "gradient": "along the gradient",
    "hessian": "along the Hessian's eigenvector",
    "random": "along random directions",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    w: tuple[float, ...] = (4.5, 5.0, 5.5, 6.0)
    """Recurrent weights of the one-unit map at which the law is fitted."""
    w_drawn: float = 5.0
    """Which of them is drawn."""
    lengths: tuple[int, ...] = (25, 40, 50, 70, 85, 100)
    kind_lengths: tuple[int, ...] = (20, 40, 80, 160, 320, 640)
    """Lengths at which the three kinds of walls are compared."""
    seeds: int = 4
    """Networks that are trained and measured."""
    network_lengths: tuple[int, ...] = (20, 30, 45, 70, 100)
    random_directions: int = 2
    hidden: int = 50
    batch: int = 4
    """Sequences in the loss of the trained networks."""
    updates: int = 4000
    learning_rate: float = 0.03
    threshold: float = 1.0
    reach: float = 0.3
    """Walls are sought up to this far along a direction of the length of the parameters."""
    window: float = 2.0
    """At the next length the wall is looked for this many of its widths to both sides of where it stood."""
    learned: float = 0.1
    """Networks whose training error at T = 20 is above this are measured, but not part of the verdict."""
    seed: int = 0


class Result(NamedTuple):
    """The laws of the one-unit map, of three kinds of walls, and of trained networks."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]
    profiles: CliffProfile
    """At the weight that is drawn; leaves `[lengths]`."""
    law: Any
    lines: dict[int, Any]
    """Length to samples of the slope across the wall."""


def run(config: Config, say: Any = print) -> Result:
    """Measure the three kinds of walls in float64, then the networks."""
    from experiments.hypotheses import cliff_law_walls as walls

    with jax.enable_x64(True):
        rows, (profiles, law, loss) = walls.one_unit(config)
        say("the law of the one-unit map")
        kinds = walls.kinds(np.array(config.kind_lengths))
        say("three kinds of walls")
        base, lines = OneUnitParams(config.w_drawn, 0.0), {}
        for i in shown(config):
            t, middle, wide = config.lengths[i], profiles.position[i], 8 * profiles.width[i]
            bounds, direction = (middle - wide, middle + wide), parameter_direction(base, "b")
            lines[t] = sample_line(lambda p, t=t: loss(p, t), base, direction, bounds, tolerance=1e-3)
    networks, errors = walls.networks(config, say)
    verdict = walls.judge(networks)
    metrics = {
        "one_unit": rows,
        "kinds": kinds,
        "networks": networks,
        "network_errors_at_T20": errors,
        "verdict": verdict,
    }
    return Result(config, metrics, report(metrics), profiles, law, lines)


def shown(config: Config) -> tuple[int, int, int]:
    """Which lengths' walls are drawn across: the first, the third, the last."""
    return 0, min(2, len(config.lengths) - 1), len(config.lengths) - 1


def report(metrics: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the printed table."""
    rows: list[tuple[str, ...]] = [("wall", "measured", "expected")]
    for row in metrics["one_unit"]:
        law = row["law"]
        fitted = f"{law['peak_multiplier']:.6f} from the peaks, {law['width_multiplier']:.6f} from the widths"
        rows.append((f"w = {row['w']}: multiplier", fitted, f"{row['multiplier']:.6f}"))
    for name, wall in metrics["kinds"].items():
        w = wall["width_laws"]
        last = wall["width_exponent_between_the_two_largest_lengths"]
        laws = f"width ~ T^{w['exponent']:.2f} (at the end T^{last:.3f}) or {np.exp(w['rate']):.4f}^T"
        rows.append((name, f"{laws}, delta AIC {w['delta_aic']:+.1f}"))
    for name, part in metrics["verdict"].items():
        rows.append((f"networks, {name}", ", ".join(f"{k} {v}" for k, v in part.items() if not isinstance(v, list))))
    return rows


def draw(result: Result) -> dict[str, Any]:
    """The law of the one-unit map, three kinds of walls, trained networks."""
    return {
        "one_unit": _draw_one_unit(result),
        "kinds": _draw_kinds(result),
        "networks": _draw_networks(result),
    }


def _draw_one_unit(result: Result) -> Any:
    config, profiles, law = result.config, result.profiles, result.law
    lengths = np.array(config.lengths)
    fig, axes = figure(1, 3, size=(14, 4))
    peak = f"{law.peak_constant:.4f} · {law.peak_multiplier:.4f}$^T$"
    laws = {peak: lambda t: law.peak_constant * law.peak_multiplier**t}
    plot_cliff_law(lengths, np.asarray(profiles.peak), laws, axes[0], name="peak of |dE/db|")
    axes[0].set_title(f"w = {config.w_drawn:g}; the boundary's multiplier is {law.multiplier:.4f}")
    width = f"{law.width_constant:.4f} · {law.width_multiplier:.4f}$^{{-T}}$"
    laws = {
        width: lambda t: law.width_constant * law.width_multiplier**-t,
        "~ 1/T": lambda t: np.asarray(profiles.width)[0] * lengths[0] / t,
    }
    plot_cliff_law(lengths, np.asarray(profiles.width), laws, axes[1], name="width at half maximum")
    for i, (t, line) in zip(shown(config), result.lines.items()):
        profile = jax.tree.map(lambda x, i=i: x[i], profiles)
        plot_profile(profile, line.offsets, line.slope, axes[2], label=f"T = {t}")
    axes[2].legend()
    axes[2].set_title("the same wall at every scale")
    return fig


def _log_axes(ax: Any, lengths: Any, quantity: str) -> None:
    ax.set(xlabel="sequence length T", ylabel=f"{quantity} of the wall")
    if not any(len(line.get_xdata()) for line in ax.lines):
        ax.text(0.5, 0.5, "no wall was resolved", ha="center", va="center", transform=ax.transAxes)
        return  # logarithmic axes cannot be empty
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(lengths, [str(t) for t in lengths])
    ax.minorticks_off()


def _draw_kinds(result: Result) -> Any:
    fig, axes = figure(1, 2, size=(11, 4.4))
    for ax, quantity in zip(axes, ("width", "peak")):
        for (name, wall), color in zip(result.metrics["kinds"].items(), ("unclipped", "clipped", "good")):
            power = wall[f"{quantity}_laws"]
            best = f"T^{power['exponent']:.2f}" if power["delta_aic"] < 0 else f"{np.exp(power['rate']):.3f}^T"
            label = f"{name}: {best}"
            ax.plot(wall["lengths"], wall[quantity], "o-", color=COLORS[color], markersize=4, label=label)
        _log_axes(ax, result.config.kind_lengths, quantity)
    axes[0].set_title("three kinds of walls, three laws")
    axes[1].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return fig


def _draw_networks(result: Result) -> Any:
    lengths = np.array(result.config.network_lengths)
    fig, axes = figure(1, 2, size=(11, 4.4))
    for ax, quantity in zip(axes, ("width", "peak")):
        drawn = set()
        for row in result.metrics["networks"]:
            kind = row["direction"].split()[0]
            color = COLORS[{"gradient": "unclipped", "hessian": "good"}.get(kind, "clipped")]
            use = row["resolved"] & ~row["cut_off"]
            style = {"marker": "o", "alpha": 0.6, "markersize": 3.5, "linestyle": "-" if row["learned"] else ":"}
            label = None if kind in drawn else NAMES[kind]
            ax.plot(lengths[use], row[quantity][use], color=color, label=label, **style)
            drawn.add(kind)
        _log_axes(ax, lengths, quantity)
    title = f"one wall for each line, {result.config.seeds} networks (dotted: did not learn)"
    axes[0].set_title(title, fontsize=10)
    axes[1].legend()
    return fig


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
