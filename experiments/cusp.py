"""Where the one-unit map `x -> w s(x) + b` folds and flips, in the plane of its two parameters.

Left: the fold curve with its cusp, the flip curve for negative weights, over colours that say what trajectories do,
found by iterating the map from two starts at every point of the plane. Right: the branches of fixed points for several
weights; their folds move together and vanish at the cusp. The cusp is (w, b) = (4, -2) at x = 0 (`w s'(x) = 1` and
`s''(x) = 0`); the flip curve turns at (-4, 2).
"""

import dataclasses
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy as np

from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the figure."""

    w_max: float = 9.0
    """The plane reaches from -w_max to w_max."""
    pixels: int = 301
    """Of the background, in each direction; 0 leaves it out."""
    transient: int = 600


BOX = (-7.5, 10.5)
"""Of the bias."""


def sigmoid(x):
    """Logistic function."""
    return 1 / (1 + np.exp(-x))


def curves(config: Config):
    """Fold and flip curve by continuation, with the distance from their closed form."""
    import jax
    import jax.numpy as jnp

    from cliffs.dynamics import bifurcation_curve
    from cliffs.recurrent import OneUnitParams, one_unit_step

    found, errors = {}, {}
    for kind, w, b, x, sign in (("fold", 5.0, -2.66, 0.96, 1), ("flip", -5.0, 0.42, -0.96, -1)):
        bounds = (((3.0, config.w_max) if sign > 0 else (-config.w_max, -3.0)), BOX)
        with jax.enable_x64(True):
            curve = bifurcation_curve(
                kind, one_unit_step, OneUnitParams(w, b), ("w", "b"), jnp.array([x]), bounds, max_step=0.05
            )
        s = sigmoid(curve.states[:, 0])
        weight = sign / (s * (1 - s))
        truth = np.stack([weight, curve.states[:, 0] - weight * s], 1)
        found[kind], errors[kind] = curve, float(np.abs(curve.parameters - truth).max())
    return found, errors


def slices():
    """One bifurcation diagram for each of several weights."""
    import jax
    import jax.numpy as jnp

    from cliffs.dynamics import bifurcation_diagram
    from cliffs.recurrent import OneUnitParams, one_unit_step

    with jax.enable_x64(True):
        starts = jnp.linspace(-8.0, 8.0, 17)[:, None]
        return {
            w: bifurcation_diagram(one_unit_step, OneUnitParams(w, 0.0), "b", (-5.0, 1.0), starts)
            for w in (3.0, 4.05, 5.0, 6.0, 7.0)
        }


def phases(config: Config):
    """What trajectories do at every point of the plane: 0 one fixed point, 1 two of them, 2 a cycle of two."""
    import jax
    import jax.numpy as jnp

    from cliffs.dynamics import attractor_diagram
    from cliffs.recurrent import OneUnitParams, one_unit_step

    w = np.linspace(-config.w_max, config.w_max, config.pixels, dtype=np.float32)
    b = np.linspace(*BOX, config.pixels, dtype=np.float32)
    starts = jnp.array([[-12.0], [12.0]], jnp.float32)

    @jax.jit
    def column(w):
        states = attractor_diagram(
            one_unit_step, OneUnitParams(w, jnp.float32(0)), "b", b, starts, transient=config.transient, record=2
        )[..., 0]
        cycle = jnp.abs(states[..., 1] - states[..., 0]).max(1) > 0.05
        two = jnp.abs(states[:, 0, 0] - states[:, 1, 0]) > 0.05
        return jnp.where(cycle, 2, jnp.where(two, 1, 0)).astype(jnp.int8)

    return w, b, np.asarray(jax.lax.map(column, w, batch_size=64))


def cusp_law(w: np.ndarray) -> float:
    """The exponent of `b2 - b1` against `w - 4` in the closed form, for weights near 4; a cusp has 3/2."""
    s = (1 + np.sqrt(1 - 4 / w)) / 2
    x = np.log(s / (1 - s))
    gap = w * (2 * s - 1) - 2 * x
    return float(np.polyfit(np.log(w - 4), np.log(gap), 1)[0])


def draw(config: Config, found, diagrams, plane):
    """The figure."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patheffects import withStroke

    from cliffs.plotting import COLORS, figure

    halo = [withStroke(linewidth=3, foreground="white")]
    fig, (left, right) = figure(1, 2, size=(12.2, 5.2), width_ratios=[1.15, 1])
    if plane is not None:
        w, b, image = plane
        left.imshow(
            image.T, origin="lower", extent=(w[0], w[-1], b[0], b[-1]), aspect="auto", vmin=0, vmax=2, alpha=0.9,
            cmap=ListedColormap(["#f6f8fa", "#cfe3ff", "#fbe3b5"]), interpolation="nearest", rasterized=True, zorder=0,
        )  # fmt: skip
    for kind, color in (("fold", COLORS["unclipped"]), ("flip", COLORS["good"])):
        p = found[kind].parameters
        left.plot(p[:, 0], p[:, 1], color=color, lw=2.2, label=f"{kind} curve", zorder=3)
    for point in found["fold"].special:
        w0, b0 = point.parameters
        left.plot(w0, b0, "*", color=COLORS["accent"], ms=15, mec="white", mew=1, zorder=5, label="cusp")
        left.annotate(f"({w0:.0f}, {b0:.0f})", (w0, b0), xytext=(-10, -4), textcoords="offset points", ha="right",
                      va="top", path_effects=halo)  # fmt: skip
    for w0, b0, text in ((-7.1, 4.2, "cycle of two"), (1.2, 3.0, "one fixed point")):
        left.text(w0, b0, text, ha="center", va="center", fontsize=10, color="#424a53", zorder=4)
    left.annotate("two attractors", (7.4, -3.9), xytext=(4.6, -6.2), ha="center", color="#424a53", zorder=4,
                  arrowprops={"arrowstyle": "-", "color": "#424a53", "lw": 0.8})  # fmt: skip
    left.set(xlim=(-config.w_max, config.w_max), ylim=BOX, xlabel="recurrent weight $w$", ylabel="bias $b$",
             title="Attractors of $x \\mapsto w\\,\\sigma(x) + b$")  # fmt: skip
    left.grid(False)
    left.legend(loc="upper right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")

    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.05, 0.82, len(diagrams)))
    for (w0, diagram), color in zip(diagrams.items(), shades):
        for branch in diagram.branches:
            edges = np.flatnonzero(np.diff(branch.stable.astype(int))) + 1
            for piece in np.split(np.arange(len(branch.stable)), edges):
                rows = np.append(piece, min(piece[-1] + 1, len(branch.stable) - 1))
                right.plot(
                    branch.parameter[rows], branch.states[rows, 0], color=color, lw=1.9, zorder=3,
                    ls="-" if branch.stable[piece[0]] else (0, (3, 2)),
                )  # fmt: skip
        right.plot([], [], color=color, lw=1.9, label=f"w = {w0:g}")
    p, x = found["fold"].parameters, found["fold"].states[:, 0]
    right.plot(p[:, 1], x, color=COLORS["unclipped"], lw=1.3, label="folds, all $w$", zorder=4)
    right.plot(-2, 0, "*", color=COLORS["accent"], ms=14, mec="white", mew=1, zorder=6, label="cusp")
    right.set(xlim=(-5, 1), ylim=(-3.6, 5.2), xlabel="bias $b$", ylabel="fixed point $x$",
              title="Branches: the folds meet at the cusp")  # fmt: skip
    right.legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.9, edgecolor="none")
    return fig


def main(config: Config) -> dict:
    """Compute, draw, save; returns the metrics."""
    if not config.w_max > 5 or config.pixels < 0:
        raise ValueError(f"w_max must be above 5 and pixels not negative, got {config}")
    started = time.perf_counter()
    found, errors = curves(config)
    diagrams = slices()
    plane = phases(config) if config.pixels else None
    (cusp,) = found["fold"].special
    turn = found["flip"].parameters[np.argmax(found["flip"].parameters[:, 0])]
    metrics = {
        "cusp": {"w": cusp.parameters[0], "b": cusp.parameters[1], "x": cusp.state[0], "residual": cusp.residual},
        "cusp_error": float(np.abs(np.append(cusp.parameters, cusp.state) - [4, -2, 0]).max()),
        "curve_errors": errors, "flip_curve_turns_near": turn, "ends": {k: c.ends for k, c in found.items()},
        "gap_exponent": cusp_law(4 + np.geomspace(1e-4, 1e-2, 9)),
    }  # fmt: skip
    arrays = {f"{k}_{name}": v for k, c in found.items() for name, v in (("wb", c.parameters), ("x", c.states[:, 0]))}
    if plane is not None:
        w, b, image = plane
        metrics["plane_agreement"] = agreement(w, b, image)
        arrays |= {"w": w, "b": b, "phase": image}
    folder = common.save(
        "cusp", metrics=metrics, settings=dataclasses.asdict(config), started=started, arrays=arrays,
        figures={"cusp": draw(config, found, diagrams, plane)},
    )  # fmt: skip
    print(f"cusp off (4, -2, 0) by {metrics['cusp_error']:.1e}; curves off the closed form by {errors}")
    print(f"written to {folder}")
    return metrics


def agreement(w, b, image) -> float:
    """The share of the plane where iteration and the closed forms of both curves agree."""
    weight, bias = np.meshgrid(w.astype(float), b.astype(float), indexing="ij")
    want = np.zeros(weight.shape, int)
    for sign, phase in ((1, 1), (-1, 2)):
        inside = sign * weight > 4
        root = np.sqrt(1 - 4 / np.where(inside, np.abs(weight), 5.0))
        ends = []
        for s in ((1 + root) / 2, (1 - root) / 2):
            ends.append(np.log(s / (1 - s)) - weight * s)
        low, high = np.minimum(*ends), np.maximum(*ends)
        want[inside & (bias > low) & (bias < high)] = phase
    return float((want == image).mean())


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
