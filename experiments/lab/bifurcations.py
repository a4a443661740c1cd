"""The one-unit map in the plane of weight and bias: folds, flips, branches, basins, cobweb, a training run."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import recurrent
from cliffs.dynamics import (
    BifurcationDiagram,
    Stepping,
    basins_of_attraction,
    bifurcation_curve,
    bifurcation_diagram,
    find_fixed_points,
    state_grid,
)
from cliffs.recurrent import OneUnitParams, one_unit_step
from experiments.lab import descent, look

IDEA = """
Every weight and bias is a dynamical system. Between the **fold** curves, which meet in a **cusp**, it has two resting
states; training runs that cross there meet the cliff. Drag the point through the plane.
"""
BEHIND = (
    "dynamics.bifurcation_curve",
    "dynamics.bifurcation_diagram",
    "dynamics.find_fixed_points",
    "dynamics.basins_of_attraction",
    "recurrent.unroll",
)

W_RANGE, B_RANGE = (-9.0, 9.0), (-8.0, 8.0)
STARTS = np.linspace(-9.0, 9.0, 25)[:, None]
STEPS = 40
STEPPING = Stepping(max_step=0.02)
BASIN_POINTS = 181


class Curve(NamedTuple):
    """A curve of folds or flips in the plane, with its cusp."""

    kind: str
    w: np.ndarray
    b: np.ndarray
    cusps: list[tuple[float, float]]


class Result(NamedTuple):
    """The map at one point of the plane."""

    w: float
    b: float
    x0: float
    fixed: np.ndarray
    """Fixed points, ascending."""
    multipliers: np.ndarray
    states: np.ndarray
    """`x_0 .. x_STEPS`."""
    diagram: BifurcationDiagram
    """Along the bias, at this weight."""
    starts: np.ndarray
    labels: np.ndarray
    """Which attractor each start leads to, as `basins_of_attraction` counts them; negative is none."""
    attractors: list[np.ndarray]
    run: descent.Result
    """A training run in the same plane: that of Fig. 3."""


@functools.lru_cache(maxsize=1)
def curves() -> list[Curve]:
    """The curves of folds and flips, followed once."""
    found = []
    with jax.enable_x64(True):
        for kind, w, b, x, bounds in (
            ("fold", 5.0, -2.6556, 0.96, (3.0, 9.0)),
            ("flip", -5.0, 0.4195, -0.96, (-9.0, -3.0)),
        ):
            params = OneUnitParams(w, b)
            paths = ("w", "b")
            curve = bifurcation_curve(kind, one_unit_step, params, paths, (bounds, (-14.0, 14.0)), jnp.array([x]))
            cusps = [(float(p.parameters[0]), float(p.parameters[1])) for p in curve.special if p.kind == "cusp"]
            weights, biases = curve.parameters.T
            found.append(Curve(kind, weights, biases, cusps))
    return found


@functools.lru_cache(maxsize=128)
def diagram(w: float) -> BifurcationDiagram:
    """All branches of fixed points along the bias at this weight."""
    with jax.enable_x64(True):
        params = OneUnitParams(w, 0.0)
        return bifurcation_diagram(one_unit_step, params, "b", B_RANGE, jnp.asarray(STARTS), stepping=STEPPING)


@functools.lru_cache(maxsize=1)
def warm() -> None:
    """Compiles once what the corners of the plane need (two states, a cycle, the cusp), so that no drag waits."""
    for w, b in ((-6.2, 3.0), (-5.0, 0.42), (6.2, -4.0), (5.0, -2.5), (4.0, -2.0)):
        compute(w, b, 0.5)


@jax.jit
def _states(params: OneUnitParams, x0: jax.Array) -> jax.Array:
    return recurrent.unroll(one_unit_step, params, x0, length=STEPS)


def compute(w: float, b: float, x0: float) -> Result:
    """Fixed points, states, basins and branches, in float64."""
    # A browser's 5.0 arrives as the integer 5, for which programs would be compiled anew.
    w, b, x0 = float(w), float(b), float(x0)
    with jax.enable_x64(True):
        params = OneUnitParams(jnp.asarray(w), jnp.asarray(b))
        found = find_fixed_points(one_unit_step, params, jnp.asarray(STARTS))
        states = _states(params, jnp.asarray(x0))
        grid = state_grid(jnp.zeros(1), [jnp.ones(1)], [jnp.linspace(-9.0, 9.0, BASIN_POINTS)])
        basins = basins_of_attraction(one_unit_step, params, grid)
        attractors: Any = basins.attractors
    return Result(
        w=w,
        b=b,
        x0=x0,
        fixed=np.asarray(found.points)[:, 0],
        multipliers=np.real(np.asarray(found.multipliers)[:, 0]),
        states=np.append(x0, np.asarray(states)),
        diagram=diagram(w),
        starts=np.asarray(grid)[:, 0],
        labels=basins.labels,
        attractors=[np.ravel(a.points) for a in attractors],
        run=descent.compute(5.0, -2.3, 0.1, 0.1),
    )


def told(result: Result) -> str:
    """The sentence under the picture."""
    kinds = [f"{len(a)}-cycle" if len(a) > 1 else "resting state" for a in result.attractors]
    words = {0: "no attractor", 1: f"one {kinds[0]}" if kinds else "", 2: "two resting states"}
    count = (
        words.get(len(kinds), f"{len(kinds)} attractors")
        if len(set(kinds)) < 2
        else " and ".join(f"one {kind}" for kind in kinds)
    )
    multipliers = ", ".join(look.brief(m) for m in result.multipliers)
    end = result.states[-1]
    return (
        f"At *w* = {look.brief(result.w)}, *b* = {look.brief(result.b)} the map has **{count}**; "
        f"multipliers of its fixed points: {multipliers}. "
        f"From *x*₀ = {look.brief(result.x0)} the state comes to {look.brief(end)}."
    )


def view(result: Result, dark: bool) -> dict[str, Any]:
    """The plane: curves, cusp, and where both descents of a training run have been."""
    c = look.colors(dark)
    lines, dots = [], []
    for curve in curves():
        color = c["fourth"] if curve.kind == "fold" else c["fifth"]
        inside = "two attractors inside" if curve.kind == "fold" else "a 2-cycle inside"
        shape = look.points(curve.w, curve.b)
        lines.append({**shape, "color": color, "width": 2, "name": f"{curve.kind}s: {inside}", "fill": 0.16})
        dots += [{"x": w, "y": b, "color": color, "r": 4.5, "text": "cusp"} for w, b in curve.cusps]
    for name, path, color in zip(descent.NAMES, result.run.paths, (c["unclipped"], c["clipped"])):
        lines.append(
            {**look.points(path.w, path.b), "color": color, "width": 2.2, "name": f"training {name}", "replay": True}
        )
    return {
        "dark": dark,
        "x": {"range": list(W_RANGE), "label": "weight w (1)"},
        "y": {"range": list(B_RANGE), "label": "bias b (1)"},
        "lines": lines,
        "dots": dots,
        "handle": "the map",
        "free": "xy",
        "step": [0.1, 0.1],
        "aspect": 0.72,
        "replay": "update",
    }


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """The diagram along the bias, the cobweb, and the basins under it."""
    c, drawn = look.colors(dark), {}
    numbers = {
        "w": result.w,
        "b": result.b,
        "x0": result.x0,
        "end": result.states[-1],
        "fixed": result.fixed,
        "multipliers": result.multipliers,
    }
    drawn[f"Fixed points against the bias, at w = {look.brief(result.w)}"] = _diagram(result, c, dark, numbers)
    drawn["Cobweb: the states one by one, and the basins"] = _cobweb(result, c, dark, numbers)
    return drawn


def _diagram(result: Result, c: dict[str, str], dark: bool, numbers: dict[str, Any]) -> Any:
    panel = look.panel(dark, "bias b (1)", "fixed point x (1)", height=340, **numbers)
    named = set()
    for branch in result.diagram.branches:
        for stable, part in branch.by_stability():
            name = "stable" if stable else "unstable"
            style = {"dash": "solid", "width": 2.4} if stable else {"dash": "dash", "width": 1.8}
            shown = "" if name in named else name
            look.line(panel, branch.parameter[part], branch.states[part, 0], c["ink"], shown, **style)
            named.add(name)
    for kind, color in (("fold", c["fourth"]), ("flip", c["fifth"])):
        mine = [p for p in result.diagram.special if p.kind == kind]
        if mine:
            look.dots(panel, [p.parameter for p in mine], [np.ravel(p.state)[0] for p in mine], color, kind)
    look.line(panel, [result.b] * 2, [-9, 9], c["soft"], "b", dash="dot", width=1.5)
    half = (
        max(1.2, 1.6 * np.ptp([p.parameter for p in result.diagram.special]))
        if len(result.diagram.special) > 1
        else 3.0
    )
    middle = -result.w / 2
    half = max(half, abs(result.b - middle) * 1.1)
    panel.update_xaxes(range=[middle - half, middle + half])
    reach = max(2.0, float(np.abs(result.states).max()), abs(result.w) / 2 + 0.5)
    panel.update_yaxes(range=[-reach * 1.1, reach * 1.1])
    return panel


def _cobweb(result: Result, c: dict[str, str], dark: bool, numbers: dict[str, Any]) -> Any:
    seen = np.concatenate([result.states, result.fixed])
    low, high = float(seen.min()) - 0.6, float(seen.max()) + 0.6
    panel = look.panel(dark, "state x<sub>t</sub> (1)", "next state x<sub>t+1</sub> (1)", height=340, **numbers)
    xs = np.linspace(low, high, 161)
    step = np.asarray(one_unit_step(OneUnitParams(result.w, result.b), jnp.asarray(xs)))
    look.line(panel, [low, high], [low, high], c["soft"], dash="dot", width=1.5)
    look.line(panel, xs, step, c["ink"], "the map", width=2.2)
    x = result.states
    across, up = np.repeat(x, 2)[:-1], np.repeat(x, 2)[1:]
    look.line(panel, across, np.append(low, up[1:]), c["clipped"], "states", width=1.7)
    for stable, symbol, name in ((True, "circle", "stable"), (False, "circle-open", "unstable")):
        mine = result.fixed[(np.abs(result.multipliers) < 1) == stable]
        if len(mine):
            look.dots(panel, mine, mine, c["ink"], name, symbol=symbol, size=10)
    # The basins are a strip along the bottom: one colour an attractor.
    colors = [c["clipped"], c["unclipped"], c["third"], c["fourth"]]
    inside = (result.starts >= low) & (result.starts <= high)
    for k in range(len(result.attractors)):
        mine = result.starts[inside & (result.labels == k)]
        name = f"basin {k + 1}"
        look.dots(
            panel, mine, np.full(len(mine), low + 0.03 * (high - low)), colors[k % 4], name, symbol="square", size=6
        )
    panel.update_xaxes(range=[low, high])
    panel.update_yaxes(range=[low, high])
    return panel
