"""Four clipping rules on one gradient with two parts, which is dragged: what they leave of its length and direction."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping
from experiments.lab import look

IDEA = """
A gradient of two parts: a bias's and a weight's. Clipping by **norm** shortens the arrow; by **value** or by **leaf**
it is pressed into a box, which **turns it**. EMA clipping allows a multiple of the usual norm. Drag the arrow's tip.
"""
BEHIND = (
    "clipping.clip_by_global_norm",
    "clipping.clip",
    "clipping.clip_by_leaf_norm",
    "clipping.clip_by_ema_norm",
)

ENTRIES = 4
"""The weight's part of the gradient has this many equal entries, the bias's part one."""
HISTORY = 20
"""Updates of the usual norm that the moving average has seen before."""
RULES = ("norm", "value", "leaf", "EMA")
FUNCTIONS = {
    "norm": "clip_by_global_norm",
    "value": "clip",
    "leaf": "clip_by_leaf_norm",
    "EMA": "clip_by_ema_norm",
}
COLORS = {"norm": "clipped", "value": "unclipped", "leaf": "third", "EMA": "fourth"}
REACH = 4.0


class Outcome(NamedTuple):
    """What one rule makes of the gradient."""

    bias: float
    """The bias's part."""
    weight: float
    """The weight's part: its norm with the sign of its entries."""
    norm: float
    angle: float
    """Between the gradient and what is left of it, in degrees."""


class Result(NamedTuple):
    """A gradient, and what each rule makes of it."""

    bias: float
    weight: float
    threshold: float
    usual: float
    multiplier: float
    ema: float
    """The moving average's limit for this gradient."""
    outcomes: dict[str, Outcome]


def gradient(bias: Any, weight: Any) -> dict[str, Any]:
    """Two leaves: one entry, and `ENTRIES` equal ones with the norm `|weight|`."""
    return {"bias": jnp.reshape(bias, 1), "weight": jnp.full(ENTRIES, weight / ENTRIES**0.5)}


@jax.jit
def _apply(bias, weight, threshold, usual, multiplier):
    grads = gradient(bias, weight)

    def once(rule: optax.GradientTransformation) -> Any:
        return rule.update(grads, rule.init(grads))[0]

    average = clipping.clip_by_ema_norm(multiplier, update="clipped")
    before, state = gradient(usual, 0.0 * usual), average.init(grads)
    for _ in range(HISTORY):
        state = average.update(before, state)[1]
    left = {
        "norm": once(clipping.clip_by_global_norm(threshold)),
        "value": once(clipping.clip(threshold)),
        "leaf": once(clipping.clip_by_leaf_norm(threshold)),
        "EMA": average.update(grads, state)[0],
    }
    size = clipping.tree_norm(grads).value

    def outcome(tree: Any) -> dict[str, Any]:
        norm = clipping.tree_norm(tree).value
        cosine = optax.tree.vdot(tree, grads) / jnp.maximum(norm * size, 1e-30)
        part = tree["weight"].sum() / ENTRIES**0.5
        return {"bias": tree["bias"][0], "weight": part, "norm": norm, "cosine": cosine}

    return {name: outcome(tree) for name, tree in left.items()}


def compute(bias: float, weight: float, threshold: float, usual: float, multiplier: float) -> Result:
    """All rules at this gradient; `usual` is the norm of the updates before, which EMA clipping remembers."""
    with jax.enable_x64(True):
        found = _apply(*(jnp.asarray(float(v)) for v in (bias, weight, threshold, usual, multiplier)))
    outcomes = {}
    for name, row in found.items():
        angle = float(np.degrees(np.arccos(np.clip(float(row["cosine"]), -1, 1))))
        # The arc cosine near 1 has the square root of the rounding error.
        outcomes[name] = Outcome(
            float(row["bias"]), float(row["weight"]), float(row["norm"]), angle if angle > 1e-5 else 0.0
        )
    return Result(bias, weight, threshold, usual, multiplier, multiplier * usual, outcomes)


def told(result: Result) -> str:
    """The sentence under the picture."""
    size = float(np.hypot(result.bias, result.weight))
    worst = max(result.outcomes, key=lambda name: result.outcomes[name].angle)
    angle = result.outcomes[worst].angle
    turned = f"**{worst} clipping turns it by {angle:.0f}°**" if angle >= 0.5 else "no rule turns it"
    return f"The gradient's norm is {look.brief(size)}: {turned}; norm and EMA clipping keep its direction always."


def _circle(radius: float) -> dict[str, Any]:
    turn = np.linspace(0, 2 * np.pi, 97)
    return look.points(radius * np.cos(turn), radius * np.sin(turn))


def _box(half_x: float, half_y: float) -> dict[str, Any]:
    return look.points([-half_x, half_x, half_x, -half_x, -half_x], [-half_y, -half_y, half_y, half_y, -half_y])


def view(result: Result, dark: bool) -> dict[str, Any]:
    """What the canvas shows: the regions that the rules clip to, the gradient, and what is left."""
    c, t = look.colors(dark), result.threshold
    # By value the weight's part may reach sqrt(entries) thresholds, since each entry may reach one.
    shapes = {"norm": _circle(t), "value": _box(t, t * ENTRIES**0.5), "leaf": _box(t, t), "EMA": _circle(result.ema)}
    dashes = {"norm": [], "value": [7, 4], "leaf": [2, 3], "EMA": [9, 3, 2, 3]}
    lines = [
        {**shapes[name], "color": c[COLORS[name]], "width": 1.4, "dash": dashes[name], "name": f"by {name}"}
        for name in RULES
    ]
    origin = [0.0, 0.0]
    arrows = [{"from": origin, "to": [result.bias, result.weight], "color": c["ink"], "width": 2}]
    for name in ("EMA", "value", "leaf", "norm"):
        o = result.outcomes[name]
        arrows.append({"from": origin, "to": [o.bias, o.weight], "color": c[COLORS[name]], "width": 3, "text": name})
    return {
        "dark": dark,
        "x": {"range": [-REACH, REACH], "label": "bias's part of the gradient (1 entry)"},
        "y": {"range": [-REACH, REACH], "label": f"weight's part, its norm ({ENTRIES} entries)"},
        "lines": lines,
        "arrows": arrows,
        "handle": "gradient",
        "free": "xy",
        "step": [0.1, 0.1],
        "equal": True,
        "aspect": 0.72,
    }


def figures(result: Result, dark: bool) -> dict[str, Any]:
    """Angle and norm by rule."""
    c, drawn = look.colors(dark), {}
    names = list(reversed(RULES))
    numbers: dict[str, Any] = {name: result.outcomes[name]._asdict() for name in RULES}
    numbers |= {"gradient": [result.bias, result.weight], "threshold": result.threshold}
    numbers |= {"usual": result.usual, "multiplier": result.multiplier}
    size = float(np.hypot(result.bias, result.weight))
    for title, part, unit in (
        ("By how much each rule turns it", "angle", "angle to the gradient (degrees)"),
        ("What is left of its length", "norm", "norm after clipping (1)"),
    ):
        values = [getattr(result.outcomes[name], part) for name in names]
        panel = look.panel(dark, unit, "", height=210, **numbers)
        text = [f"{v:.1f}°" if part == "angle" else look.brief(v) for v in values]
        style = {"color": [c[COLORS[name]] for name in names]}
        panel.add_bar(
            x=values, y=names, orientation="h", marker=style, text=text, textposition="outside", cliponaxis=False
        )
        top = 45.0 if part == "angle" else REACH * 1.5
        panel.update_xaxes(range=[0, max(top, max(values) * 1.15)])
        panel.update_yaxes(ticks="", showgrid=False)
        if part == "norm":
            panel.add_vline(x=size, line={"color": c["ink"], "width": 1.5, "dash": "dash"})
            look.label(panel, size, 1, "gradient", c["ink"], yref="paper", yanchor="bottom")
        panel.update_layout(bargap=0.35, margin_t=24, margin_l=48)
        drawn[title] = panel
    return drawn
