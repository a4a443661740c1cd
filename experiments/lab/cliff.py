"""The cliff in one dimension: the gradient's norm along the bias, and how height and width depend on T."""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.landscape import (
    CliffLaw,
    boundary_multiplier,
    cliff_law,
    cliff_profiles,
    locate_boundary,
    parameter_direction,
    state_after,
    surface,
)
from cliffs.recurrent import OneUnitParams, one_unit_step
from experiments.lab import look

IDEA = """
One unit, *x* ← *w* s(*x*) + *b*, after *T* steps. At one bias its start lies on the boundary between two resting
states, and there the error jumps: the longer the sequence, **the higher and the narrower the wall**, by one law.
"""
BEHIND = (
    "landscape.surface",
    "landscape.cliff_profiles",
    "landscape.cliff_law",
    "landscape.boundary_multiplier",
)

LENGTHS = np.array([25, 32, 40, 50, 60, 70, 85, 100])
"""T at which the law is fitted."""
MAX_LENGTH = 120
REACH = 0.6
"""The picture shows biases up to this far from the wall."""


class Wall(NamedTuple):
    """What depends on the weight alone."""

    boundary: float
    """The bias where the start state lies on the boundary of two basins."""
    multiplier: float
    """Of the unstable fixed point there."""
    peak: np.ndarray
    """At LENGTHS; NaN where float64 does not resolve the wall."""
    width: np.ndarray
    law: CliffLaw | None
    """None where fewer than four lengths are resolved."""


class Result(NamedTuple):
    """The wall at one T, and the place of an optimiser."""

    w: float
    length: int
    wall: Wall
    bias: np.ndarray
    grad_norm: np.ndarray
    """`||dE/d(w, b)||` at these biases."""
    peak: float
    width: float
    position: float
    resolved: bool
    here: float
    """The optimiser's bias."""
    norm_here: float
    slope_here: float
    """`dE/db` there."""


def loss(params: OneUnitParams, length: Any) -> jax.Array:
    """`E = (s(x_T) - 0.7)^2` with T traced: one compiled program for every position of the slider."""
    x = state_after(one_unit_step, params, jnp.asarray(0.5), None, length, max_length=MAX_LENGTH)
    return (jax.nn.sigmoid(x) - 0.7) ** 2


def _line(w: Any, bias: Any, length: Any) -> Any:
    base = OneUnitParams(w, jnp.zeros_like(w))
    return surface(lambda p: loss(p, length), base, [parameter_direction(base, "b")], [bias], chunk_size=1024)


_line_jit = jax.jit(_line)


@jax.jit
def _boundary(w: jax.Array) -> jax.Array:
    def final(b):
        return state_after(one_unit_step, OneUnitParams(w, b), jnp.asarray(0.5), None, 400, max_length=400)

    return locate_boundary(final, -4.2, -1.5)


def profiles(w: float, lengths: Any) -> Any:
    """The walls at these lengths; those that float64 cannot resolve are marked, not warned of."""
    base = OneUnitParams(jnp.asarray(w), jnp.asarray(0.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cliff_profiles(loss, np.asarray(lengths), base, parameter_direction(base, "b"), (-4.2, -1.5))


@functools.lru_cache(maxsize=256)
def wall(w: float) -> Wall:
    """The wall's place, multiplier and law at this weight, in float64."""
    with jax.enable_x64(True):
        boundary = float(_boundary(jnp.asarray(w)))
        starts = jnp.linspace(-4.0, 4.0, 17)[:, None]
        found = OneUnitParams(jnp.asarray(w), jnp.asarray(boundary))
        multiplier = boundary_multiplier(one_unit_step, found, starts, near=np.array([0.5]))
        rows = profiles(w, LENGTHS)
        good = np.asarray(rows.resolved & ~rows.cut_off)
        law = None
        if good.sum() >= 4:
            kept = jax.tree.map(lambda x: x[good], rows)
            law = cliff_law(LENGTHS[good], kept, multiplier=multiplier, corrections=2)
    peak, width = (np.where(good, x, np.nan) for x in (rows.peak, rows.width))
    return Wall(boundary, multiplier, peak, width, law)


def compute(w: float, length: int, here: float) -> Result:
    """The gradient's norm along the bias at this weight and T, the wall on it, and the numbers at the bias `here`."""
    w, here = float(w), float(here)
    known = wall(w)
    # Ever finer towards the wall: it is far narrower than a pixel.
    near = np.concatenate([[0.0], np.geomspace(1e-13, REACH, 150)])
    fine = known.boundary + np.concatenate([-near[:0:-1], near])
    grid = np.linspace(known.boundary - REACH, known.boundary + REACH, 301)
    bias = np.append(np.sort(np.concatenate([fine, grid])), here)
    with jax.enable_x64(True):
        line = _line_jit(jnp.asarray(w), jnp.asarray(bias), length)
        one = profiles(w, np.array([length]))
    norm = np.asarray(line.grad_norm)
    return Result(
        w=w,
        length=length,
        wall=known,
        bias=bias[:-1],
        grad_norm=norm[:-1],
        peak=float(one.peak[0]),
        width=float(one.width[0]),
        position=float(one.position[0]),
        resolved=bool(one.resolved[0] and not one.cut_off[0]),
        here=here,
        norm_here=float(norm[-1]),
        slope_here=float(np.asarray(line.slopes)[-1, 0]),
    )


def told(result: Result, rate: float = 0.1) -> str:
    """The sentence under the picture."""
    r, brief = result, look.brief
    if r.resolved:
        wall = f"The wall at *b* = {brief(r.position, 5)} is **{brief(r.peak)} high and {brief(r.width)} wide**"
    else:
        wall = f"The wall at *b* = {brief(r.wall.boundary, 5)} is narrower than float64 can resolve"
    step = f"a gradient step at rate {rate:g} moves *b* by {brief(-rate * r.slope_here)}"
    growth = f"Every further step of time makes the wall {brief(r.wall.multiplier, 4)} times higher and narrower"
    return f"{wall}. {growth}. At the optimiser the norm is {brief(r.norm_here)}: {step}."


def view(result: Result, dark: bool) -> dict[str, Any]:
    """What the canvas shows: the norm along the bias, with the optimiser on it."""
    c = look.colors(dark)
    top = max(3.0, 2 * float(np.nanmax(result.grad_norm)))
    middle = result.wall.boundary
    return {
        "dark": dark,
        "x": {"range": [middle - REACH, middle + REACH], "label": "bias b (1)"},
        "y": {"range": [1e-6, top], "label": "gradient norm ‖∂E/∂(w, b)‖ (1)", "log": True},
        "lines": [
            {
                **look.points(result.bias, np.maximum(result.grad_norm, 1e-12)),
                "color": c["unclipped"],
                "width": 2.2,
                "name": "gradient norm",
                "curve": True,
            },
            {
                "x": [middle, middle],
                "y": [1e-6, top],
                "color": c["soft"],
                "width": 1.3,
                "dash": [5, 4],
                "name": "boundary of the two basins",
            },
        ],
        "handle": "optimiser",
        "free": "curve",
        "step": [0.01, 0.0],
        "aspect": 0.36,
    }


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Height and width of the wall against T, with the law."""
    c = look.colors(dark)
    ts = np.arange(5, MAX_LENGTH + 1)
    law, drawn = result.wall.law, {}
    for name, values, here, sign in (
        ("height", result.wall.peak, result.peak, 1),
        ("width", result.wall.width, result.width, -1),
    ):
        unit = "|∂E/∂b| at the peak (1)" if name == "height" else "width at half height, in b (1)"
        numbers = {"w": result.w, "T": result.length, "multiplier": result.wall.multiplier}
        numbers |= {"peak": result.peak, "wide": result.width, "here": result.here}
        panel = look.panel(dark, "length T (steps)", unit, ylog=True, height=290, **numbers)
        if law is not None:
            constant = law.peak_constant if sign > 0 else law.width_constant
            text = f"law: {look.brief(constant)} · {result.wall.multiplier:.4f}<sup>{'' if sign > 0 else '−'}T</sup>"
            look.line(panel, ts, constant * result.wall.multiplier ** (sign * ts), c["clipped"], text)
        look.dots(panel, LENGTHS, values, c["ink"], "measured", symbol="circle-open")
        if result.resolved:
            look.dots(panel, [result.length], [here], c["unclipped"], f"T = {result.length}", size=12)
        panel.update_xaxes(range=[0, MAX_LENGTH + 4])
        look.decades(panel, *(trace.y for trace in panel.data))
        drawn[f"The wall's {name} against T"] = panel
    return drawn
