"""What clipping does: the plane with norm and value clipping, and strategies side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cliffs.clipping import clip, clip_by_global_norm, soft_clip_by_global_norm
from cliffs.plotting._style import COLORS, figure


def plot_norm_versus_value(gradient: Sequence[float] = (10.0, 1.0), threshold: float = 5.0) -> Figure:
    """A gradient in the plane, clipped by norm and by value, and where each rule maps the whole plane.

    **Arguments**: `gradient` two numbers; `threshold` of both rules.

    **Returns** a matplotlib `Figure`: the two results, and the angle that value clipping adds in every direction.

    >>> len(plot_norm_versus_value().axes)
    2
    """
    g = jnp.asarray(gradient, jnp.float32)
    rules = {
        "norm": clip_by_global_norm(threshold),
        "value": clip(threshold),
        "soft": soft_clip_by_global_norm(threshold),
    }
    colors = {"norm": COLORS["clipped"], "value": COLORS["unclipped"], "soft": COLORS["good"]}
    fig, (left, right) = figure(1, 2, size=(10.5, 4.2))
    angle = np.linspace(0, 2 * np.pi, 361)
    left.plot(threshold * np.cos(angle), threshold * np.sin(angle), color=colors["norm"], lw=1, alpha=0.6)
    box = threshold * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    left.plot(*box.T, color=colors["value"], lw=1, alpha=0.6)
    left.annotate(
        "", tuple(map(float, g)), (0, 0), arrowprops={"arrowstyle": "->", "color": COLORS["unstable"], "lw": 2}
    )
    left.plot([], [], color=COLORS["unstable"], lw=2, label=f"gradient ({g[0]:g}, {g[1]:g})")
    for name, rule in rules.items():
        out = np.asarray(rule.update(g, rule.init(g))[0])
        left.annotate("", tuple(out), (0, 0), arrowprops={"arrowstyle": "->", "color": colors[name], "lw": 2})
        left.plot([], [], color=colors[name], lw=2, label=f"{name}: ({out[0]:.4g}, {out[1]:.4g})")
    reach = 1.12 * max(threshold, *map(abs, map(float, g)))
    left.set(xlim=(-1.15 * threshold, reach), ylim=(-1.15 * threshold, 1.6 * threshold), aspect="equal",
             xlabel="first entry", ylabel="second entry", title=f"threshold {threshold:g}")  # fmt: skip
    left.legend(fontsize=8, loc="upper right")

    directions = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    for factor, style in ((1.5, ":"), (3.0, "--"), (10.0, "-")):
        out = jax.vmap(lambda d: rules["value"].update(d, rules["value"].init(d))[0])(factor * threshold * directions)
        out = np.asarray(out)
        cosine = np.sum(out * np.asarray(directions), 1) / np.linalg.norm(out, axis=1)
        turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        right.plot(np.degrees(angle), turned, style, color=colors["value"], label=f"value, |g| = {factor:g} thresholds")
    right.plot([0, 360], [0, 0], color=colors["norm"], label="norm, soft: 0 everywhere")
    right.set(xlabel="direction of the gradient (degrees)", ylabel="turned by (degrees)",
              title="what value clipping does to the direction", xticks=range(0, 361, 45), ylim=(-2, 62))  # fmt: skip
    right.legend(fontsize=8, ncols=2, loc="upper center")
    return fig


def plot_strategies(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Strategies side by side: success rate, steps to solve, clip fraction and mean cosine, a bar per threshold.

    **Arguments**: `rows`, for every strategy a list over its thresholds of dicts with `threshold`, `success`,
    `interval` (two numbers), `steps_to_solve` (None where nothing was solved), `clip_fraction`, `cosine`.

    **Returns** a matplotlib `Figure`.

    >>> row = dict(threshold=1.0, success=0.5, interval=(0.2, 0.8), steps_to_solve=100, clip_fraction=0.1, cosine=1.0)
    >>> len(plot_strategies({"clip": [row, row], "none": [row]}).axes)
    4
    """
    names = list(rows)
    fig, axes = figure(1, 4, size=(15, 0.42 * len(names) + 1.8), sharey=True)
    titles = {
        "success": "runs solved (95 % Wilson interval)",
        "steps_to_solve": "median updates to solve (of solved runs)",
        "clip_fraction": "share of updates changed",
        "cosine": "mean cosine with the gradient",
    }
    shades = [COLORS["clipped"], COLORS["good"], COLORS["accent"], COLORS["unclipped"], COLORS["stable"]]
    for ax, (key, title) in zip(axes, titles.items()):
        for i, name in enumerate(names):
            count = len(rows[name])
            for j, row in enumerate(rows[name]):
                y, value = i + 0.8 * ((j + 0.5) / count - 0.5), row[key]
                if value is None or not np.isfinite(value):
                    ax.text(0.01, y, "none solved" if key == "steps_to_solve" else "-", fontsize=6, va="center",
                            color=COLORS["unstable"], transform=ax.get_yaxis_transform())  # fmt: skip
                    continue
                ax.barh(y, value, 0.8 / count, color=shades[j % len(shades)])
                if key == "success":
                    low, high = row["interval"]
                    ax.plot([low, high], [y, y], color=COLORS["stable"], lw=0.8)
                if key == "success":
                    ax.text(1.03, y, f"{row['threshold']:g}", fontsize=6, va="center")
        ax.set_title(title, fontsize=10)
    axes[0].set(yticks=range(len(names)), yticklabels=names, xlim=(0, 1.15))
    axes[0].text(1.03, -0.8, "threshold", fontsize=6, va="center")
    axes[0].set_ylim(len(names) - 0.4, -1.0)
    axes[2].set_xlim(0, 1)
    axes[3].set_xlim(left=0)
    return fig
