"""Re-run the paper's main figures and results: one command, one table, figures under results/.

python experiments/reproduce.py                          # no data needed, a few minutes on two cores
python experiments/reproduce.py --data-dir DATA          # with Penn Treebank and Nottingham
python experiments/reproduce.py --scale paper            # the paper's sizes, for a GPU
"""

import dataclasses
import pathlib
import sys
import time
from typing import Any, Literal

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """Re-run the paper's main figures and results."""

    scale: Literal["default", "paper"] = "default"
    """"paper" takes the paper's sizes; beyond them only temporal order's rate (ICML: 0.01) and the budgets differ."""
    data_dir: str | None = None
    """Folder with ptb/ and polyphonic/; without it the natural tasks are left out."""
    budget: float = 1.0
    """Share of the updates to run: a small one tries a scale out before hours are spent on it."""
    seed: int = 0


def error_surface(steps: int = 50, points: int = 160) -> dict[str, Any]:
    """Fig. 3: the error surface of the one-unit map, a clipped and an unclipped path from the same start."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs.landscape import descend, surface
    from cliffs.plotting import figure, plot_paths, plot_surface
    from cliffs.recurrent import OneUnitParams, one_unit_cost

    learning_rate, threshold, start, updates = 0.1, 0.1, (5.0, -2.3), 300
    with jax.enable_x64(True):
        w, b = jnp.linspace(4.0, 6.5, points), jnp.linspace(-3.2, -1.6, points)
        origin = OneUnitParams(jnp.zeros(()), jnp.zeros(()))
        directions = [OneUnitParams(jnp.ones(()), jnp.zeros(())), OneUnitParams(jnp.zeros(()), jnp.ones(()))]

        def cost(params):
            return one_unit_cost(params, num_steps=steps)

        def follow(max_norm):
            chain = optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(learning_rate))
            return descend(cost, OneUnitParams(*map(jnp.asarray, start)), chain, updates)

        slice_ = jax.jit(lambda: surface(cost, origin, directions, [w, b]))()
        both = jax.jit(jax.vmap(follow))(jnp.array([INF, threshold]))
        slice_, both = jax.tree.map(np.asarray, (slice_, both))
    ends = {}
    for i, name in enumerate(("unclipped", "clipped")):
        late = both.loss[i, -100:]
        ends[name] = {
            "end": [both.params.w[i, -1], both.params.b[i, -1]],
            "median_error_of_last_100": np.median(late),
            "lowest_error": both.loss[i].min(),
            "largest_gradient_norm": both.grad_norm[i].max(),
            "longest_step": np.hypot(np.diff(both.params.w[i]), np.diff(both.params.b[i])).max(),
        }
    paths = {n: (both.params.w[i], both.params.b[i]) for i, n in enumerate(("unclipped", "clipped"))}
    fig, axes = figure(1, 2, size=(11, 4.4), sharey=True)
    for ax, quantity, title in zip(
        axes,
        ("loss", "grad_norm"),
        (f"Error after {steps} steps", "log10 of the gradient norm"),
    ):
        image = plot_surface(ax, slice_, quantity=quantity)
        fig.colorbar(image, ax=ax)
        ax.set_title(title)
    plot_paths(axes[0], paths)
    axes[0].set_xlim(float(w[0]), float(w[-1]))
    axes[0].set_ylim(float(b[0]), float(b[-1]))
    away = paths["unclipped"]
    outside = f"\nunclipped ends at w = {away[0][-1]:.1f}, b = {away[1][-1]:.1f}"
    axes[0].legend(
        loc="lower left",
        fontsize=8,
        title_fontsize=8,
        facecolor="white",
        frameon=True,
        framealpha=0.85,
        title="gradient descent" + outside,
    )
    settings = {"T": steps, "learning_rate": learning_rate, "threshold": threshold, "start": start, "updates": updates}
    rows = [
        ("Fig. 3: largest gradient norm on the surface", f"{slice_.grad_norm.max():.3g}", "-"),
        (
            "Fig. 3: longest step of descent, clipped / not",
            " / ".join(f"{ends[n]['longest_step']:.2g}" for n in ("clipped", "unclipped")),
            "unclipped is thrown out",
        ),
        (
            "Fig. 3: median error of the last 100 steps, clipped / not",
            " / ".join(f"{ends[n]['median_error_of_last_100']:.2g}" for n in ("clipped", "unclipped")),
            "clipped lower",
        ),
    ]
    arrays = {"w": w, "b": b, "loss": slice_.loss, "grad_norm": slice_.grad_norm}
    return {"rows": rows, "metrics": ends, "arrays": arrays, "figures": {"error_surface": fig}, "settings": settings}


def main(config: Config) -> pathlib.Path:
    """Run all parts, write results/reproduce/, print the table."""
    from cliffs.sweeps import use_all_cores

    use_all_cores()
    from experiments import bifurcation_diagram, common, natural, temporal_order

    where = "reproduce" if config.scale == "default" else "reproduce_paper"
    if config.budget != 1:
        where += "_trial"
    began = time.perf_counter()
    parts = {
        "error_surface": error_surface,
        "bifurcations": lambda: bifurcation_diagram.part(bifurcation_diagram.Config()),
        "temporal_order": lambda: temporal_order.part(temporal_order.scaled(config.scale, config.budget), config.seed),
    }
    if config.data_dir is not None:
        music, characters = (
            natural.scaled(c, config.scale, config.budget) for c in (natural.Music(), natural.Characters())
        )
        parts["music"] = lambda: natural.music_part(music, config.data_dir, f"{where}/music")
        parts["characters"] = lambda: natural.characters_part(characters, config.data_dir, f"{where}/characters")
    outputs, seconds = {}, {}
    for name, part in parts.items():
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        outputs[name] = part()
        seconds[name] = round(time.perf_counter() - started, 1)
        # Each part is on disk as soon as it is done: nothing is lost when a later one is stopped.
        done = outputs[name]
        folder = common.save(
            f"{where}/{name}", metrics=done["metrics"], settings=done["settings"], started=started, seed=config.seed,
            arrays=done["arrays"], figures=done["figures"],
        )  # fmt: skip
    print(report(outputs, seconds, common.machine()))
    total = time.perf_counter() - began
    figures = sorted(str(p) for name in outputs for p in (folder.parent / name).glob("*.png"))
    print(f"\n{total:.0f} s in all. Figures:\n  " + "\n  ".join(figures))
    return folder.parent


def report(outputs: dict[str, Any], seconds: dict[str, float], machine: dict[str, Any]) -> str:
    """The table of all parts as text."""
    rows = [("quantity", "here", "expected / paper")]
    for name, output in outputs.items():
        rows += [*output["rows"], (f"  ({name}: {seconds[name]} s)", "", "")]
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    where = f"{machine['device']}, {machine['cores']} cores, {machine['devices']} JAX devices, jax {machine['jax']}"
    return "\n" + "\n".join(lines) + f"\n\nMeasured on {where}."


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
