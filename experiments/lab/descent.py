"""Clipping on the surface of the paper's Fig. 3: plain and clipped descent from one start."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs.clipping import clip_by_global_norm
from cliffs.landscape import Surface, descend, parameter_direction, surface
from cliffs.recurrent import OneUnitParams, one_unit_cost
from experiments.lab import look

IDEA = """
The paper's Fig. 3 from above: the error of one unit after 50 steps, with a wall across it. **Plain descent** meets the
wall and is thrown out of the valley; **clipped descent** takes the same directions in short steps and stays. Drag the
start.
"""
BEHIND = (
    "landscape.surface",
    "landscape.descend",
    "clipping.clip_by_global_norm",
    "recurrent.one_unit_cost",
)

W_RANGE, B_RANGE = (4.0, 6.5), (-3.2, -1.6)
POINTS = 121
UPDATES = 80
NAMES = ("without clipping", "with clipping")


class Path(NamedTuple):
    """One descent; numpy arrays, updates first."""

    w: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    norm: np.ndarray
    longest: float
    """The longest step, in (w, b)."""


class Result(NamedTuple):
    """Both descents from one start."""

    start: tuple[float, float]
    threshold: float
    rate: float
    paths: tuple[Path, Path]
    """Without and with clipping."""


def cost(params: OneUnitParams) -> jax.Array:
    """The error of Fig. 3, T = 50."""
    return one_unit_cost(params, num_steps=50)


@functools.lru_cache(maxsize=1)
def ground() -> Surface:
    """The surface itself, once."""
    origin = OneUnitParams(0.0, 0.0)
    directions = [parameter_direction(origin, name) for name in ("w", "b")]
    axes = [jnp.linspace(*r, POINTS) for r in (W_RANGE, B_RANGE)]
    found = jax.jit(lambda: surface(cost, origin, directions, axes, gradient=False, chunk_size=4096))()
    return jax.tree.map(np.asarray, found)


@jax.jit
def _both(w, b, threshold, rate):
    def follow(limit):
        optimizer = optax.chain(clip_by_global_norm(limit), optax.sgd(rate))
        return descend(cost, OneUnitParams(w, b), optimizer, UPDATES)

    return jax.vmap(follow)(jnp.stack([jnp.full_like(threshold, jnp.inf), threshold]))


def compute(w: float, b: float, threshold: float, rate: float) -> Result:
    """`UPDATES` updates from (w, b) with and without a threshold, in float64."""
    with jax.enable_x64(True):
        both = jax.tree.map(np.asarray, _both(*(jnp.asarray(float(v)) for v in (w, b, threshold, rate))))
    paths = []
    for i in range(2):
        ws, bs = both.params.w[i], both.params.b[i]
        longest = float(np.hypot(np.diff(ws), np.diff(bs)).max())
        paths.append(Path(ws, bs, both.loss[i], both.grad_norm[i], longest))
    return Result((w, b), threshold, rate, (paths[0], paths[1]))


def outside(path: Path) -> bool:
    """Whether a descent ends outside of the picture."""
    return not (W_RANGE[0] <= path.w[-1] <= W_RANGE[1] and B_RANGE[0] <= path.b[-1] <= B_RANGE[1])


def told(result: Result) -> str:
    """The sentence under the picture."""
    parts = []
    for name, path in zip(NAMES, result.paths):
        end = f"({look.brief(path.w[-1])}, {look.brief(path.b[-1])})"
        left = ", **thrown out of the valley**" if outside(path) else ""
        parts.append(f"{name} the longest step is **{look.brief(path.longest, 2)}** and the path ends at {end}{left}")
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def view(result: Result, dark: bool) -> dict[str, Any]:
    """What the canvas shows: the surface from above, both paths, the start to be dragged."""
    c, seen = look.colors(dark), ground()
    lines = []
    for name, path, color, width in zip(NAMES, result.paths, (c["unclipped"], c["clipped"]), (2.2, 2.6)):
        lines.append({**look.points(path.w, path.b), "color": color, "width": width, "name": name, "replay": True})
    return {
        "dark": dark,
        "x": {"range": list(W_RANGE), "label": "weight w (1)"},
        "y": {"range": list(B_RANGE), "label": "bias b (1)"},
        "heat": {
            # Rows from the top of the picture down; brighter is a smaller error.
            "values": look.shades(seen.loss.T[::-1], 0.0, 0.36),
            "columns": POINTS,
            "low": c["low"],
            "high": c["high"],
            "name": "error E, 0 to 0.36",
        },
        "lines": lines,
        "handle": "start",
        "free": "xy",
        "step": [0.02, 0.02],
        "aspect": 0.62,
        "replay": "update",
    }


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Gradient norm and error on the way."""
    c, drawn = look.colors(dark), {}
    numbers = {
        "start": result.start,
        "threshold": result.threshold,
        "rate": result.rate,
        "longest": [p.longest for p in result.paths],
        "end": [[p.w[-1], p.b[-1]] for p in result.paths],
    }
    for title, part, unit in (
        ("Gradient norm on the way", "norm", "‖gradient‖ (1)"),
        ("Error on the way", "loss", "error E (1)"),
    ):
        panel = look.panel(dark, "update", unit, ylog=True, height=250, **numbers)
        for name, path, color in zip(NAMES, result.paths, (c["unclipped"], c["clipped"])):
            values = np.maximum(getattr(path, part), 1e-12)
            look.line(
                panel, np.arange(UPDATES), values, color, name, dash="solid" if color == c["unclipped"] else "dash"
            )
        if part == "norm":
            look.line(panel, [0, UPDATES - 1], [result.threshold] * 2, c["soft"], "threshold", dash="dot", width=1.5)
        look.decades(panel, *(trace.y for trace in panel.data))
        drawn[title] = panel
    return drawn
