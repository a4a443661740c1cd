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
class TemporalOrder:
    """Temporal order: success rate against the clipping threshold."""

    length: int = 20
    max_length: int | None = None
    """When given, every batch has one length from `length` up to, not including, this."""
    hidden: int = 50
    init: str = "smart_tanh"
    learning_rate: float = 0.1
    batch_size: int = 20
    updates: int = 10_000
    thresholds: tuple[float, ...] = (INF, 10.0, 1.0, 0.3, 0.1)
    seeds: int = 16
    evaluate_every: int = 200
    evaluation_size: int = 1_000
    success_error: float = 0.01
    """Solved: less than this share of fresh sequences wrong."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Re-run the paper's main figures and results."""

    scale: Literal["default", "paper"] = "default"
    """"paper" takes the sizes of the ICML version; nothing but sizes differs."""
    data_dir: str | None = None
    """Folder with ptb/ and polyphonic/; without it the natural tasks are left out."""
    budget: float = 1.0
    """Share of the updates to run: a small one tries a scale out before hours are spent on it."""
    seed: int = 0


def temporal_order_config(scale: str, budget: float = 1.0) -> TemporalOrder:
    """The ICML settings: lengths 50 to 200, learning rate 0.01, 5M updates, 10,000 test sequences, 5 seeds."""
    from experiments.natural import budgeted

    config = TemporalOrder()
    if scale == "paper":
        config = TemporalOrder(
            length=50, max_length=200, learning_rate=0.01, updates=5_000_000, seeds=5, evaluate_every=2_000,
            evaluation_size=10_000,
        )  # fmt: skip
    updates, every = budgeted(config.updates, config.evaluate_every, budget)
    return dataclasses.replace(config, updates=updates, evaluate_every=every)


def error_surface(steps: int = 50, points: int = 160) -> dict[str, Any]:
    """Fig. 3: the error surface of the one-unit map, a clipped and an unclipped path from the same start."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from cliffs.landscape import descend, surface
    from cliffs.maps import OneUnitParams, one_unit_cost
    from cliffs.plotting import figure
    from cliffs.plotting.landscape import plot_paths, plot_surface

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


def closed_form_folds(w: float) -> list[float]:
    """Where `w s'(x) = 1`: `s = (1 ± sqrt(1 - 4 / w)) / 2`, `b = x - w s`; ascending."""
    import numpy as np

    root = np.sqrt(1 - 4 / w)
    values = []
    for s in ((1 + root) / 2, (1 - root) / 2):
        values.append(np.log(s / (1 - s)) - w * s)
    return sorted(values)


def bifurcations(w: float = 5.0) -> dict[str, Any]:
    """Fig. 4: fixed points of the one-unit map against its bias, both folds."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from cliffs.dynamics import bifurcation_diagram
    from cliffs.maps import OneUnitParams, one_unit_step
    from cliffs.plotting import figure
    from cliffs.plotting.bifurcations import add_flow, plot_bifurcation_diagram

    with jax.enable_x64(True):
        starts = jnp.linspace(-6.0, 6.0, 13)[:, None]
        diagram = bifurcation_diagram(one_unit_step, OneUnitParams(w, -2.5), "b", (-3.3, -1.7), starts)
    folds = sorted(p.parameter for p in diagram.special if p.kind == "fold")
    truth = closed_form_folds(w)
    errors = [abs(found - true) for found, true in zip(folds, truth)]
    fig, ax = figure(size=(6.4, 4.4))
    add_flow(ax, lambda b, x: w / (1 + np.exp(-x)) + b, np.linspace(-3.25, -1.75, 19), np.linspace(-3.6, 3.8, 17))
    plot_bifurcation_diagram(ax, diagram)
    for name, b, x, dy in (("b1", folds[0], -3.4, 0), ("b2", folds[-1], -3.4, 0)):
        ax.axvline(b, color="#8c959f", linewidth=0.8, linestyle=":")
        ax.annotate(f"{name} = {b:.4f}", (b, x + dy), xytext=(4, 0), textcoords="offset points", fontsize=9)
    ax.set_title(f"Fixed points of x = {w:g} s(x) + b")
    ax.legend(loc="upper left", frameon=True, framealpha=0.9)
    rows = [
        (f"Fig. 4: fold b{i + 1}", f"{b:.11f} (off by {e:.0e})", f"{t:.11f}")
        for i, (b, e, t) in enumerate(zip(folds, errors, truth))
    ]
    arrays = {}
    for i, branch in enumerate(diagram.branches):
        arrays |= {f"b_{i}": branch.parameter, f"x_{i}": branch.states[:, 0], f"stable_{i}": branch.stable}
    metrics = {"folds": folds, "closed_form": truth, "errors": errors}
    return {"rows": rows, "metrics": metrics, "arrays": arrays, "figures": {"bifurcations": fig}, "settings": {"w": w}}


def train_temporal_order(config: TemporalOrder, seed: int = 0, progress: bool = True):
    """All seeds and thresholds as one compiled program; returns a `SweepResult`."""
    import jax
    import optax

    from cliffs import initializers, rnn, tasks, training
    from cliffs.sweep import product_grid, sweep

    step = rnn.rnn_step("logistic" if config.init == "sigmoid" else "tanh")
    loss = training.classification_loss(step)

    def keys(run):
        return jax.random.split(jax.random.fold_in(jax.random.key(seed), run["seed"]), 3)

    def optimizer(run):
        return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(config.learning_rate))

    def sample(key, size):
        return tasks.temporal_order(key, size, config.length, max_length=config.max_length)

    def init(run):
        params = initializers.paper_init(config.init, keys(run)[0], 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(run))

    def update(state, run):
        batch = sample(jax.random.fold_in(keys(run)[1], state.step), config.batch_size)
        return training.train_step(state, batch, loss, optimizer(run))

    def evaluate(state, run):
        batch = sample(jax.random.fold_in(keys(run)[2], state.step), config.evaluation_size)
        error = loss(state.params, batch)[1]
        return {"error": error, "solved": error < config.success_error}

    grid = product_grid(max_norm=config.thresholds, seed=list(range(config.seeds)))
    return sweep(
        init, update, grid, config.updates, evaluate=evaluate, evaluate_every=config.evaluate_every,
        stop_when_solved=True, progress=progress,
    )  # fmt: skip


def temporal_order(config: TemporalOrder, seed: int = 0, progress: bool = True) -> dict[str, Any]:
    """Fig. 7's question: how often is temporal order learned, by clipping threshold?"""
    import matplotlib
    import numpy as np

    from cliffs.plotting import COLORS, figure
    from experiments.common import wilson

    result = train_temporal_order(config, seed, progress)
    table = []
    for threshold in config.thresholds:
        mine = result.grid["max_norm"] == threshold
        solved_at = result.solved_at[mine]
        wins = int((solved_at >= 0).sum())
        norms = result.metrics.grad_norm[mine]
        norms = norms[np.isfinite(norms)]
        low, high = wilson(wins, config.seeds)
        table.append(
            {
                "threshold": threshold, "solved": wins, "seeds": config.seeds, "rate": wins / config.seeds,
                "low": low, "high": high, "diverged": int((result.diverged_at[mine] >= 0).sum()),
                "median_updates": float(np.median(solved_at[solved_at >= 0])) if wins else None,
                "clipped_steps": float((norms > threshold).mean()), "largest_norm": float(norms.max(initial=0)),
            }
        )  # fmt: skip
    best = max((r for r in table if r["threshold"] < INF), key=lambda r: (r["rate"], -(r["median_updates"] or INF)))
    none = next(r for r in table if r["threshold"] == INF)

    def text(r):
        name = "no clipping" if r["threshold"] == INF else f"threshold {r['threshold']:g}"
        return (
            f"Temporal order T={config.length}{f'..{config.max_length - 1}' if config.max_length else ''}: {name}",
            f"{100 * r['rate']:.0f} % solved [{100 * r['low']:.0f}, {100 * r['high']:.0f}], {r['solved']}/{r['seeds']}"
            + (f", median {r['median_updates']:.0f} updates" if r["solved"] else ""),
            "-",
        )

    fig, axes = figure(1, 2, size=(10.5, 3.9))
    places = np.arange(len(table))
    labels = ["none" if r["threshold"] == INF else f"{r['threshold']:g}" for r in table]
    rates = np.array([r["rate"] for r in table])
    error = np.abs(np.array([[r["low"], r["high"]] for r in table]).T - rates)
    colors = [COLORS["unclipped" if r["threshold"] == INF else "clipped"] for r in table]
    axes[0].bar(places, 100 * rates, color=colors, width=0.6)
    axes[0].errorbar(places, 100 * rates, 100 * error, fmt="none", color="black", capsize=4, linewidth=1.2)
    axes[0].set_xticks(places, labels)
    axes[0].set_ylim(0, 105)
    axes[0].set_xlabel("clipping threshold")
    axes[0].set_ylabel("% of seeds that solve the task")
    axes[0].set_title(f"{config.seeds} seeds, 95 % Wilson intervals")
    updates = np.arange(1, config.updates // config.evaluate_every + 1) * config.evaluate_every
    for r, label in zip(table, labels):
        mine = result.solved_at[result.grid["max_norm"] == r["threshold"]]
        curve = [100 * ((mine >= 0) & (mine <= u)).mean() for u in updates]
        shade = matplotlib.colormaps["viridis"](0.15 + 0.7 * labels.index(label) / len(labels))
        style = {"color": COLORS["unclipped"], "linewidth": 2.4} if label == "none" else {"color": shade}
        axes[1].plot(updates, curve, label=label, **style)
    axes[1].set_xscale("log")
    axes[1].set_ylim(0, 105)
    axes[1].set_xlabel("updates")
    axes[1].set_ylabel("% solved so far")
    axes[1].legend(title="threshold")
    axes[1].set_title(f"Length {config.length}, {config.hidden} {config.init} units, rate {config.learning_rate}")
    metrics = {
        "table": table, "best_threshold": best["threshold"], "intervals_disjoint": best["low"] > none["high"],
    }  # fmt: skip
    arrays = {
        "max_norm": result.grid["max_norm"], "seed": result.grid["seed"], "solved_at": result.solved_at,
        "diverged_at": result.diverged_at, "steps_run": result.steps_run, "error": result.evaluations["error"],
    }  # fmt: skip
    return {
        "rows": [text(r) for r in table], "metrics": metrics, "arrays": arrays,
        "figures": {"temporal_order": fig}, "settings": dataclasses.asdict(config),
    }  # fmt: skip


def main(config: Config) -> pathlib.Path:
    """Run all parts, write results/reproduce/, print the table."""
    from cliffs.sweep import use_all_cores

    use_all_cores()
    from experiments import common, natural

    where = "reproduce" if config.scale == "default" else "reproduce_paper"
    if config.budget != 1:
        where += "_trial"
    began = time.perf_counter()
    parts = {
        "error_surface": error_surface,
        "bifurcations": bifurcations,
        "temporal_order": lambda: temporal_order(temporal_order_config(config.scale, config.budget), config.seed),
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
    figures = sorted(str(p) for p in folder.parent.rglob("*.png"))
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
