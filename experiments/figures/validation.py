"""Numbers of the literature beside ours: maps whose bifurcations, cycles or exponents are known.

The logistic map's cascade, the Hénon map, the delayed logistic map, networks of one and two neurons, and networks that
are linear in pieces, whose numbers of cycles are published. Three rows are about what packages for continuation do not
offer: the derivative of a fold with respect to another parameter, and 1,000 branches followed at once.

Figures: `validation` (how far ours are from the known numbers), `cycles` (the two cycles of order 83 of a network).
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics import (
    FixedPoints,
    Stepping,
    bifurcation_curve,
    bifurcation_diagram,
    continue_branch,
    find_fixed_points,
    locate_bifurcation,
    solve_bifurcation,
)
from cliffs.plotting import COLORS, figure
from cliffs.recurrent import HenonParams, OneUnitParams, PLRNNParams, henon_step, one_unit_step, plrnn_step, unroll
from cliffs.spectra import lyapunov_exponents

PUBLISHED = pathlib.Path(__file__).resolve().parents[2] / "tests" / "recurrent" / "published_cycles.json"
FEIGENBAUM = 4.669201609102990
HENON_CYCLES = (2, 1, 0, 1, 0, 2, 4, 7, 6, 10)
"""By period from 1 on, at a = 1.4, b = 0.3. One of the two fixed points lies off the attractor."""
TWO_NEURONS, SECOND_BIAS = np.array([[2.0, 3.0], [-3.0, -1.5]]), -4.0
"""Found by trying: with these the line through the plane of biases crosses folds, a flip and Neimark-Sacker curves."""


@dataclasses.dataclass(frozen=True)
class Config:
    """How far to go."""

    groups: tuple[str, ...] = ("cascade", "henon", "delayed_logistic", "one_neuron", "two_neurons", "branches")
    """Which functions below to run; the piecewise-linear networks come last in any case."""
    flips: int = 7
    """Of the logistic map; the last one is that of a cycle of period 2^(flips - 1)."""
    henon_periods: int = 10
    lyapunov_steps: int = 300_000
    published: int = 10
    """Published two-dimensional networks to look for cycles in; the last one has cycles of order 83."""
    starts: int = 64
    branches: int = 1000


class Row(NamedTuple):
    """One known number."""

    quantity: str
    here: float
    known: float
    digits: float
    """Half a unit of the last digit known; 0 where the number is known in closed form."""
    source: str


class Result(NamedTuple):
    """The rows, and the cycles of one network for the figure."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, str, str]]
    cycles: FixedPoints


def run(config: Config, say: Any = print) -> Result:
    """All rows; each group is one function below."""
    table: list[Row] = []
    with jax.enable_x64(True):
        for name in config.groups:
            table += globals()[name](config)
            say(f"{name}: {len(table)} rows")
        counted, found = piecewise_linear(config)
    table += counted
    metrics = {"table": [row._asdict() | {"distance": abs(row.here - row.known)} for row in table]}
    return Result(config, metrics, [printed(row) for row in table], found)


def printed(row: Row) -> tuple[str, str, str]:
    """Cells of the table: the quantity; our number and its distance; the known one and where it is from."""
    if float(row.known).is_integer() and float(row.here).is_integer():
        return row.quantity, f"{row.here:.0f}", f"{row.known:.0f}, {row.source}"
    places = 12 if row.digits == 0 else max(0, round(-math.log10(2 * row.digits)))
    return (
        row.quantity,
        f"{row.here:.{places}f} (off by {abs(row.here - row.known):.0e})",
        f"{row.known:.{places}f}, {row.source}",
    )


def cascade(config: Config) -> Iterator[Row]:
    """Flips of `x -> r x (1 - x)`, each searched a little before where the last two say it is."""
    step = lambda r, x, _: r * x * (1 - x)  # noqa: E731
    flips, gap = [1.0], 2.0  # the fixed point that flips is born at r = 1
    for k in range(config.flips):
        near = flips[-1] + 0.97 * gap
        x = 0.3
        for _ in range(20_000):
            x = near * x * (1 - x)
        point = locate_bifurcation("flip", step, near, (), near, jnp.array([x]), period=2**k)
        flips.append(point.parameter)
        gap = (flips[-1] - flips[-2]) / (FEIGENBAUM if k else 4.45)
    # The third is algebraic of degree 12; the polynomial as given by J. D. Cook (2025), Spacing between branches.
    roots = np.roots([1, -12, 48, -40, -193, 392, 44, 8, -977, -604, 2108, 0, 4913])
    third = next(r.real for r in roots if abs(r.imag) < 1e-9 and 3.5 < r.real < 3.6)
    known = {
        1: (3.0, 0.0, "closed form"),
        2: (1 + math.sqrt(6), 0.0, "closed form, 1 + sqrt(6)"),
        3: (third, 0.0, "root of a polynomial of degree 12"),
        4: (3.564407266095, 5e-13, "Kotsireas & Karamanos (2004)"),
    }
    for k, (value, digits, source) in known.items():
        if k <= config.flips:
            yield Row(f"logistic map, r at the flip of period {2 ** (k - 1)}", flips[k], value, digits, source)
    if config.flips > 4:
        ratio = (flips[-2] - flips[-3]) / (flips[-1] - flips[-2])
        yield Row(f"ratio of the last two gaps, {config.flips} flips", ratio, FEIGENBAUM, 0.5e-3, "Feigenbaum (1978)")


def henon(config: Config) -> Iterator[Row]:
    """Fold, flip, numbers of cycles and Lyapunov exponents of the Hénon map at b = 0.3."""
    starts = np.random.default_rng(0).uniform(-1.0, 1.0, (12, 2))
    diagram = bifurcation_diagram(henon_step, HenonParams(0.0, 0.3), "a", (-0.5, 0.6), starts)
    known = {"fold": -(0.7**2) / 4, "flip": 3 * 0.7**2 / 4}
    for point in diagram.special:
        form = "closed form, -(1 - b)^2 / 4" if point.kind == "fold" else "closed form, 3 (1 - b)^2 / 4"
        yield Row(f"Hénon map, a at the {point.kind}", point.parameter, known[point.kind], 0.0, form)
    # Cycles lie near the attractor: 400 of its points, and one near the fixed point that is off it.
    starts = np.asarray(unroll(henon_step, HenonParams(), jnp.zeros(2), length=420))[20:]
    starts = np.concatenate([starts, [[-1.1, -0.3]]])
    for period in range(1, config.henon_periods + 1):
        found = find_fixed_points(henon_step, HenonParams(), starts, period=period, slow_speed=0.0)
        count, source = HENON_CYCLES[period - 1], "Galias (2001)" if period > 1 else "closed form"
        yield Row(f"Hénon map, cycles of period {period} at a = 1.4", len(found.kind), count, 0.0, source)
    steps = config.lyapunov_steps
    exponents = lyapunov_exponents(henon_step, HenonParams(), jnp.zeros(2), num_steps=steps, warmup=1000)
    yield Row(f"Hénon map, largest exponent, {steps:,} steps", float(exponents[0]), 0.41922, 0.5e-2, "Sprott (2003)")
    yield Row("Hénon map, sum of exponents", float(exponents.sum()), math.log(0.3), 0.0, "closed form, log b")


def delayed_logistic(config: Config) -> Iterator[Row]:
    """`x_t = a x_{t-1} (1 - x_{t-2})`: its fixed point gives way to an invariant circle at a = 2."""
    step = lambda a, s, _: jnp.stack([a * s[0] * (1 - s[1]), s[0]])  # noqa: E731
    starts = np.random.default_rng(0).uniform(0.1, 1.0, (12, 2))
    diagram = bifurcation_diagram(step, 1.5, (), (1.2, 2.5), starts)
    (point,) = [p for p in diagram.special if p.kind == "Neimark-Sacker"]
    yield Row("delayed logistic map, a at Neimark-Sacker", point.parameter, 2.0, 0.0, "closed form")
    yield Row("delayed logistic map, angle of multipliers", abs(point.angle), math.pi / 3, 0.0, "closed form, pi / 3")


def one_neuron(config: Config) -> Iterator[Row]:
    """Folds of `x -> w s(x) + b`, their cusp, and how a fold moves with w."""
    s = (1 + math.sqrt(0.2)) / 2  # w s (1 - s) = 1 at w = 5

    def fold(w: Any) -> Any:
        found = solve_bifurcation("fold", one_unit_step, OneUnitParams(w, 0.0), "b", -2.6, jnp.ones(1))
        return found.parameter

    curve = bifurcation_curve(
        "fold", one_unit_step, OneUnitParams(5.0, -2.66), ("w", "b"), ((3.0, 6.0), (-4.0, 0.0)), jnp.array([0.96])
    )
    (cusp,) = curve.special
    yield Row("one neuron, b at the fold, w = 5", float(fold(5.0)), math.log(s / (1 - s)) - 5 * s, 0.0, "closed form")
    yield Row("one neuron, w at the cusp", float(cusp.parameters[0]), 4.0, 0.0, "closed form")
    yield Row("one neuron, b at the cusp", float(cusp.parameters[1]), -2.0, 0.0, "closed form")
    yield Row(
        "one neuron, d b / d w of the fold", float(jax.jacfwd(fold)(5.0)), -s, 0.0, "closed form, -(1 + sqrt(0.2)) / 2"
    )


def two_neurons(config: Config) -> Iterator[Row]:
    """`x -> tanh(x) W + b`: every bifurcation of fixed points in b_1, against the closed form of its manifolds."""

    def step(b: Any, x: Any, _: Any) -> Any:
        return jnp.tanh(x) @ TWO_NEURONS + jnp.stack([b, SECOND_BIAS])

    starts = np.random.default_rng(0).uniform(-4.0, 4.0, (40, 2))
    diagram = bifurcation_diagram(step, 0.0, (), (-8.0, 8.0), starts)
    for kind in ("fold", "flip", "Neimark-Sacker"):
        found = sorted(p.parameter for p in diagram.special if p.kind == kind)
        known = manifold(kind, TWO_NEURONS, SECOND_BIAS, (-8.0, 8.0))
        source = "Haschke & Steil (2005), closed form"
        yield Row(f"two neurons, {kind} points in b_1", len(found), len(known), 0.0, source)
        if len(found) == len(known):
            for i, (ours, theirs) in enumerate(zip(found, known)):
                yield Row(f"two neurons, b_1 at {kind} {i + 1}", ours, theirs, 0.0, source)


def manifold(kind: str, w: np.ndarray, second: float, bounds: tuple[float, float]) -> list[float]:
    """All b_1 with b_2 = second at which a fixed point of `x -> tanh(x) W + b` bifurcates, in plain numpy.

    With the slopes d of both units the condition is `1 -+ (w_11 d_1 + w_22 d_2) + det(W) d_1 d_2 = 0`, or
    `det(W) d_1 d_2 = 1` with a trace inside of (-2, 2): solved for d_2 given d_1. Then `x = +-artanh(sqrt(1 - d))`
    and `b = x - tanh(x) W`; what is left is a root in d_1. Each unit must act on the other.
    """
    from scipy.optimize import brentq

    det = np.linalg.det(w)

    def biases(d1: Any, signs: tuple[int, int]) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            if kind == "Neimark-Sacker":
                d2 = 1 / (det * d1)
                inside = np.abs(w[0, 0] * d1 + w[1, 1] * d2) < 2
            else:
                sign = 1 if kind == "fold" else -1
                d2 = -(1 - sign * w[0, 0] * d1) / (det * d1 - sign * w[1, 1])
                inside = True
            d2 = np.where(inside & (d2 > 0) & (d2 <= 1), d2, np.nan)
            y = np.stack([np.sqrt(1 - d1) * signs[0], np.sqrt(1 - d2) * signs[1]], -1)
            return np.arctanh(y) - y @ w

    grid = 1 - np.linspace(0.0, 1.0, 200_001)[:-1] ** 2  # dense where a state passes 0
    found = []
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        off = biases(grid, signs)[:, 1] - second
        for i in np.flatnonzero(off[:-1] * off[1:] < 0):
            d1: Any = brentq(lambda d, s=signs: biases(d, s)[1] - second, grid[i + 1], grid[i], xtol=1e-15)
            b1 = float(biases(np.float64(d1), signs)[0])
            if bounds[0] < b1 < bounds[1]:
                found.append(b1)
    return sorted(found)


def branches(config: Config) -> Iterator[Row]:
    """Branches through both folds for many weights in one compiled program, against `b = x - w s(x)`."""
    low, high = -8.0, 0.0
    weights = np.linspace(4.2, 8.0, config.branches)
    x = np.full(config.branches, low)
    for _ in range(200):
        x = weights / (1 + np.exp(-x)) + low

    @jax.jit
    @jax.vmap
    def follow(w: Any, x: Any) -> Any:
        stepping = Stepping(max_step=0.1, num_points=256)
        params = OneUnitParams(w, low)
        branch = continue_branch(
            one_unit_step, params, "b", (low, high), x[None], stepping=stepping, scale=1.0, parameter_scale=1.0
        )
        return branch, branch.left_bounds

    found, reached = follow(weights, x)
    states, b = np.asarray(found.states)[..., 0], np.asarray(found.parameter)
    off = np.abs(states - weights[:, None] / (1 + np.exp(-states)) - b).max()
    done = int(np.asarray(reached).sum())
    yield Row(
        f"one neuron, branches at once out of {config.branches:,}",
        done,
        config.branches,
        0.0,
        "all reach the far bound",
    )
    yield Row("one neuron, largest distance of a branch", float(off), 0.0, 0.0, "closed form, b = x - w s(x)")


def piecewise_linear(config: Config) -> tuple[list[Row], FixedPoints]:
    """Numbers of cycles of published networks; also those of the last network, for the figure."""
    rows, found = [], None
    published = json.loads(PUBLISHED.read_text())["plrnn"][: config.published]
    with jax.enable_x64(True):
        for i, entry in enumerate(published):
            params = PLRNNParams(*(jnp.array(entry[k]) for k in ("a", "w", "h")))
            starts = 3.0 * jax.random.normal(jax.random.key(0), (config.starts, len(params.a)))
            for period, count in entry["cycles"].items():
                if count or period == "15":  # one of the periods with none: each costs a compilation
                    look = find_fixed_points(plrnn_step(), params, starts, period=int(period), slow_speed=0.0)
                    name = f"piecewise-linear network {i + 1}, cycles of order {period}"
                    rows.append(Row(name, len(look.kind), count, 0.0, "Eisenmann et al. (2023)"))
                    found = look if count else found
    assert found is not None
    return rows, found


def draw(result: Result) -> dict[str, Any]:
    """Distances on a logarithmic axis; the cycles of the last network in the plane."""
    table = [row for row in result.metrics["table"] if row["distance"] or not float(row["known"]).is_integer()]
    fig, ax = figure(size=(8.6, 0.27 * len(table) + 1.3))
    for y, row in enumerate(reversed(table)):
        ax.plot(max(row["distance"], 1e-17), y, "o", color=COLORS["clipped"], ms=6, zorder=3)
        if row["digits"]:
            ax.plot([row["digits"]] * 2, [y - 0.3, y + 0.3], color=COLORS["unclipped"], lw=2, zorder=2)
    ax.axvline(2.0**-52, color=COLORS["unstable"], lw=0.8, ls=":", zorder=1)
    ax.text(2.0**-52, len(table) - 0.3, " spacing of float64 at 1", fontsize=8, color=COLORS["unstable"], va="bottom")
    ax.plot([], [], color=COLORS["unclipped"], lw=2, label="half a unit of the last digit that is known")
    ax.set(
        xscale="log",
        xlim=(5e-18, 1e-1),
        ylim=(-0.7, len(table) + 0.6),
        xlabel="distance from the known number (0 is drawn at 1e-17)",
    )
    ax.set_yticks(range(len(table)), [row["quantity"] for row in reversed(table)], fontsize=8)
    ax.legend(loc="lower right", fontsize=8)
    return {"validation": fig, "cycles": _draw_cycles(result.cycles)}


def _draw_cycles(found: FixedPoints) -> Any:
    fig, ax = figure(size=(6.4, 4.6))
    colors = {"attractor": COLORS["clipped"], "saddle": COLORS["unclipped"]}
    for kind, cycle in zip(found.kind, found.cycles):
        closed = np.concatenate([cycle, cycle[:1]])
        color = colors.get(kind, COLORS["unstable"])
        ax.plot(*closed.T, color=color, lw=0.4, alpha=0.5, zorder=2)
        ax.plot(*cycle.T, "o" if kind == "attractor" else "x", color=color, ms=4, label=kind, zorder=3)
    for line in (ax.axhline, ax.axvline):
        line(0, color=COLORS["unstable"], lw=0.8, ls=":", zorder=1)
    ax.set(xlabel="$z_1$", ylabel="$z_2$", title=f"Cycles of order {found.cycles.shape[1]} of a network of two units")
    ax.legend(fontsize=9)
    return fig


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
