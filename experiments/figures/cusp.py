"""The one-unit map's folds and flips in the plane of its two parameters, and the cusp where the folds meet.

Left: the fold curve with its cusp and the flip curve for negative weights of `x -> w s(x) + b`, over colours that say
what trajectories do, found by iterating the map from two starts at every point of the plane. Right: the branches of
fixed points for several weights; their folds move together and vanish at the cusp. The cusp is (w, b) = (4, -2) at
x = 0 (`w s'(x) = 1` and `s''(x) = 0`); the flip curve turns at (-4, 2).
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.dynamics import BifurcationDiagram, Stepping, attractor_diagram, bifurcation_curve, bifurcation_diagram
from cliffs.plotting import COLORS, figure
from cliffs.recurrent import OneUnitParams, one_unit_flips, one_unit_folds, one_unit_step

BOX = (-7.5, 10.5)
"""Of the bias."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the figure."""

    w_max: float = 9.0
    """The plane reaches from -w_max to w_max."""
    pixels: int = 301
    """Of the background, in each direction; 0 leaves it out."""
    transient: int = 600
    """Steps that are iterated at every pixel before the state counts as settled."""


class Result(NamedTuple):
    """The curves of folds and flips, the branches for several weights, and the background of the plane."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]
    curves: dict[str, Any]
    diagrams: dict[float, BifurcationDiagram]


def run(config: Config) -> Result:
    """Follow both curves, the branches of several weights, and iterate the map all over the plane."""
    if not config.w_max > 5 or config.pixels < 0:
        raise ValueError(f"w_max must be above 5 and pixels not negative, got {config}")
    found, errors = curves(config)
    (cusp,) = found["fold"].special
    turn = found["flip"].parameters[np.argmax(found["flip"].parameters[:, 0])]
    metrics = {
        "cusp": {"w": cusp.parameters[0], "b": cusp.parameters[1], "x": cusp.state[0], "residual": cusp.residual},
        "cusp_error": float(np.abs(np.append(cusp.parameters, cusp.state) - [4, -2, 0]).max()),
        "curve_errors": errors,
        "flip_curve_turns_near": turn,
        "ends": {k: c.ends for k, c in found.items()},
        "gap_exponent": cusp_law(4 + np.geomspace(1e-4, 1e-2, 9)),
    }
    arrays = {f"{k}_{name}": v for k, c in found.items() for name, v in (("wb", c.parameters), ("x", c.states[:, 0]))}
    if config.pixels:
        w, b, image = phases(config)
        metrics["plane_agreement"] = agreement(w, b, image)
        arrays |= {"w": w, "b": b, "phase": image}
    rows = [
        ("cusp (w, b, x), distance from (4, -2, 0)", f"{metrics['cusp_error']:.1e}", "0"),
        *((f"{kind} curve, distance from the closed form", f"{error:.1e}", "0") for kind, error in errors.items()),
        ("exponent of b2 - b1 against w - 4", f"{metrics['gap_exponent']:.4f}", "1.5"),
    ]
    return Result(config, metrics, arrays, rows, found, slices())


def curves(config: Config) -> tuple[dict[str, Any], dict[str, float]]:
    """Fold and flip curve by continuation, with the distance from their closed form."""
    found, errors = {}, {}
    for kind, w, b, x, sign in (("fold", 5.0, -2.66, 0.96, 1), ("flip", -5.0, 0.42, -0.96, -1)):
        bounds = (((3.0, config.w_max) if sign > 0 else (-config.w_max, -3.0)), BOX)
        with jax.enable_x64(True):
            curve = bifurcation_curve(
                kind,
                one_unit_step,
                OneUnitParams(w, b),
                ("w", "b"),
                bounds,
                jnp.array([x]),
                stepping=Stepping(max_step=0.02),
            )
        # Along the curve the state x is the natural parameter: w = +-1 / s'(x), b = x - w s(x).
        s = 1 / (1 + np.exp(-curve.states[:, 0]))
        weight = sign / (s * (1 - s))
        truth = np.stack([weight, curve.states[:, 0] - weight * s], 1)
        found[kind], errors[kind] = curve, float(np.abs(curve.parameters - truth).max())
    return found, errors


def slices() -> dict[float, BifurcationDiagram]:
    """One bifurcation diagram for each of several weights."""
    with jax.enable_x64(True):
        starts = jnp.linspace(-8.0, 8.0, 17)[:, None]
        return {
            w: bifurcation_diagram(one_unit_step, OneUnitParams(w, 0.0), "b", (-5.0, 1.0), starts)
            for w in (3.0, 4.05, 5.0, 6.0, 7.0)
        }


def phases(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What trajectories do at every point of the plane: 0 one fixed point, 1 two of them, 2 a cycle of two."""
    w = np.linspace(-config.w_max, config.w_max, config.pixels, dtype=np.float32)
    b = np.linspace(*BOX, config.pixels, dtype=np.float32)
    starts = jnp.array([[-12.0], [12.0]], jnp.float32)

    @jax.jit
    def column(w):
        states = attractor_diagram(
            one_unit_step, OneUnitParams(w, jnp.float32(0)), "b", b, starts, transient=config.transient, record=2
        )[..., 0]  # [biases, starts, record]
        cycle = jnp.abs(states[..., 1] - states[..., 0]).max(1) > 0.05
        two = jnp.abs(states[:, 0, 0] - states[:, 1, 0]) > 0.05
        return jnp.where(cycle, 2, jnp.where(two, 1, 0)).astype(jnp.int8)

    return w, b, np.asarray(jax.lax.map(column, w, batch_size=64))


def agreement(w: np.ndarray, b: np.ndarray, image: np.ndarray) -> float:
    """The share of the plane where iteration and the closed forms of both curves agree."""
    want = np.zeros(image.shape, int)
    with jax.enable_x64(True):
        for closed_form, phase, inside in ((one_unit_folds, 1, w > 4), (one_unit_flips, 2, w < -4)):
            low, high = np.asarray(closed_form(w[inside].astype(float)).b).T
            between = (b.astype(float) > low[:, None]) & (b.astype(float) < high[:, None])
            want[inside] = np.where(between, phase, 0)
    return float((want == image).mean())


def cusp_law(w: np.ndarray) -> float:
    """The exponent of `b2 - b1` against `w - 4` in the closed form, for weights near 4; a cusp has 3/2."""
    with jax.enable_x64(True):
        gap = np.diff(one_unit_folds(w).b)[:, 0]
    return float(np.polyfit(np.log(w - 4), np.log(gap), 1)[0])


def draw(result: Result) -> dict[str, Any]:
    """The plane of both parameters, and branches for several weights."""
    fig, (left, right) = figure(1, 2, size=(12.2, 5.2), width_ratios=[1.15, 1])
    _draw_plane(left, result)
    _draw_branches(right, result)
    return {"cusp": fig}


def _draw_plane(ax: Any, result: Result) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patheffects import withStroke

    arrays, reach = result.arrays, result.config.w_max
    if "phase" in arrays:
        w, b = arrays["w"], arrays["b"]
        ax.imshow(
            arrays["phase"].T,
            origin="lower",
            extent=(w[0], w[-1], b[0], b[-1]),
            aspect="auto",
            vmin=0,
            vmax=2,
            alpha=0.9,
            cmap=ListedColormap(["#f6f8fa", "#cfe3ff", "#fbe3b5"]),
            interpolation="nearest",
            rasterized=True,
            zorder=0,
        )
    for kind, color in (("fold", COLORS["unclipped"]), ("flip", COLORS["good"])):
        p = result.curves[kind].parameters
        ax.plot(p[:, 0], p[:, 1], color=color, lw=2.2, label=f"{kind} curve", zorder=3)
    for point in result.curves["fold"].special:
        w0, b0 = point.parameters
        ax.plot(w0, b0, "*", color=COLORS["accent"], ms=15, mec="white", mew=1, zorder=5, label="cusp")
        halo = [withStroke(linewidth=3, foreground="white")]
        place = {"xytext": (-10, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
        ax.annotate(f"({w0:.0f}, {b0:.0f})", (w0, b0), path_effects=halo, **place)
    for w0, b0, text in ((-7.1, 4.2, "cycle of two"), (1.2, 3.0, "one fixed point")):
        ax.text(w0, b0, text, ha="center", va="center", fontsize=10, color="#424a53", zorder=4)
    line = {"arrowstyle": "-", "color": "#424a53", "lw": 0.8}
    ax.annotate(
        "two attractors", (7.4, -3.9), xytext=(4.6, -6.2), ha="center", color="#424a53", zorder=4, arrowprops=line
    )
    ax.set(xlim=(-reach, reach), ylim=BOX, xlabel="recurrent weight $w$", ylabel="bias $b$")
    ax.set(title="Attractors of $x \\mapsto w\\,\\sigma(x) + b$")
    ax.grid(False)
    ax.legend(loc="upper right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")


def _draw_branches(ax: Any, result: Result) -> None:
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.05, 0.82, len(result.diagrams)))
    for (w0, diagram), color in zip(result.diagrams.items(), shades):
        for branch in diagram.branches:
            for stable, rows in branch.by_stability():
                style = "-" if stable else (0, (3, 2))
                ax.plot(branch.parameter[rows], branch.states[rows, 0], color=color, lw=1.9, zorder=3, ls=style)
        ax.plot([], [], color=color, lw=1.9, label=f"w = {w0:g}")
    folds = result.curves["fold"]
    ax.plot(folds.parameters[:, 1], folds.states[:, 0], color=COLORS["unclipped"], lw=1.3, label="folds, all $w$")
    ax.plot(-2, 0, "*", color=COLORS["accent"], ms=14, mec="white", mew=1, zorder=6, label="cusp")
    ax.set(xlim=(-5, 1), ylim=(-3.6, 5.2), xlabel="bias $b$", ylabel="fixed point $x$")
    ax.set(title="Branches: the folds meet at the cusp")
    ax.legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
