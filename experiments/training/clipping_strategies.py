"""Which clipping rules solve temporal order, and how much does the threshold matter? Seeds and thresholds in one sweep.

Figures: `strategies` (runs solved at three thresholds, updates to solve), `norm_versus_value` (the plane), `diagnosis`
(the norms of an unclipped run with the suggested threshold). Metrics also hold the worked example (10, 1) at threshold
5, and what of a thousandfold spike passes each variant of the moving-average rule.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping as c
from cliffs import recurrent, sweeps, tasks, training
from cliffs.diagnosis import diagnose
from cliffs.plotting import COLORS, figure, plot_diagnosis
from cliffs.stats import wilson_interval
from experiments.training._resumable import whole_sweep

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the comparison."""

    length: int = 20
    hidden: int = 50
    batch: int = 20
    learning_rate: float = 0.1
    seeds: int = 10
    updates: int = 3000
    evaluate_every: int = 200
    test_batch: int = 1000
    """Fresh sequences per evaluation; a run is solved when fewer than 1 % are wrong."""
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


# The numeric argument that the sweep varies, for each strategy. AGC's, AdaGC's and the multiples are dimensionless.
STRATEGIES = {"none": (lambda t: optax.identity(), (float("inf"),))} | {
    name: (info.factory, info.thresholds) for name, info in c.STRATEGIES.items()
}
ON_MATRIX = tuple(name for name, info in c.STRATEGIES.items() if info.on_matrix)


def optimizer(name: str, threshold, learning_rate: float) -> optax.GradientTransformation:
    """SGD with the strategy under telemetry: before the learning rate, or after it for rules on the matrix."""
    strategy = c.with_telemetry(STRATEGIES[name][0](threshold))
    parts = (optax.sgd(learning_rate), strategy) if name in ON_MATRIX else (strategy, optax.sgd(learning_rate))
    return optax.chain(*parts)


class Result(NamedTuple):
    """A table for each strategy, and the norms of one unclipped run."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]
    notes: list[str]


def run(config: Config, say: Any = print) -> Result:
    """Sweep every strategy, then the worked examples and the diagnosis of an unclipped run."""
    table, arrays, norms = {}, {}, np.zeros(0)
    for name in STRATEGIES:
        begun = time.perf_counter()
        result = run_strategy(name, config)
        table[name] = summarise(result)
        arrays |= {f"{name}_solved_at": result.solved_at, f"{name}_threshold": result.grid["threshold"]}
        if name == "none":  # the longest unclipped run, as a real history to diagnose
            norms = np.asarray(result.metrics.grad_norm)[np.argmax(result.steps_run)][: result.steps_run.max()]
        say(f"{name}: {time.perf_counter() - begun:.1f} s")
    diagnosis = diagnose(norms)
    metrics = {
        "strategies": table,
        "worked_example": worked_example(),
        "ema_spike": spike_passing(),
        "diagnosis_of_an_unclipped_run": {"findings": diagnosis.names(), "report": str(diagnosis)},
    }
    rows = [("strategy", "runs solved (threshold)")]
    for name, parts in table.items():
        rows.append((name, ", ".join(f"{p['solved']}/{p['runs']} ({p['threshold']:g})" for p in parts)))
    return Result(config, metrics, arrays | {"unclipped_norms": norms}, rows, [str(diagnosis)])


def run_strategy(name: str, config: Config) -> sweeps.SweepResult:
    """All seeds and thresholds of one strategy as one compiled sweep."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    place = 1 if name in ON_MATRIX else 0

    def key(run, what):
        return jax.random.fold_in(jax.random.key(run["seed"]), what)

    def init(run):
        params = recurrent.paper_init("smart_tanh", key(run, 0), 6, config.hidden, 4)
        return training.init_train_state(params, optimizer(name, run["threshold"], config.learning_rate))

    def update(state, run):
        batch = tasks.temporal_order(jax.random.fold_in(key(run, 1), state.step), config.batch, config.length)
        tx = optimizer(name, run["threshold"], config.learning_rate)
        state, metrics = training.train_step(state, batch, loss, tx)
        seen = state.opt_state[place]
        return state, metrics._replace(aux={"cosine": seen.cosine, "clipped": seen.clipped.astype(jnp.float32)})

    def evaluate(state, run):
        fresh = jax.random.fold_in(key(run, 2), state.step)
        error = loss(state.params, tasks.temporal_order(fresh, config.test_batch, config.length))[1]
        return {"error": error, "solved": error < 0.01}

    grid = sweeps.product_grid(threshold=np.array(STRATEGIES[name][1], np.float32), seed=np.arange(config.seeds))
    options = {"evaluate_every": config.evaluate_every, "stop_when_solved": True, "progress": False}
    options |= {"folder": config.checkpoint, "name": name}
    return whole_sweep(init, update, grid, config.updates, evaluate=evaluate, **options)


def summarise(result: sweeps.SweepResult) -> list[dict]:
    """One dict per threshold."""
    rows = []
    for threshold in np.unique(result.grid["threshold"]):
        mine = result.grid["threshold"] == threshold
        solved = result.solved_at[mine]
        won = int((solved >= 0).sum())
        clipped, cosine = (np.asarray(result.metrics.aux[k])[mine] for k in ("clipped", "cosine"))
        rows.append(
            {
                "threshold": float(threshold),
                "runs": int(mine.sum()),
                "solved": won,
                "success": won / int(mine.sum()),
                "interval": wilson_interval(won, int(mine.sum())),
                "steps_to_solve": float(np.median(solved[solved >= 0])) if won else None,
                "diverged": int((result.diverged_at[mine] >= 0).sum()),
                "clip_fraction": float(np.nanmean(clipped)),
                "cosine": float(np.nanmean(cosine)),
                "final_error": float(np.mean([e[np.isfinite(e)][-1] for e in result.evaluations["error"][mine]])),
            }
        )
    return rows


def worked_example() -> dict:
    """(10, 1) at threshold 5, by norm and by value."""
    g = jnp.array([10.0, 1.0])
    table = {}
    for name, rule in (("norm", c.clip_by_global_norm(5.0)), ("value", c.clip(5.0))):
        out = np.asarray(rule.update(g, rule.init(g))[0], float)
        cosine = out @ np.asarray(g) / np.linalg.norm(out) / np.linalg.norm(g)
        table[name] = {
            "result": out.tolist(),
            "norm": float(np.linalg.norm(out)),
            "turned_by_degrees": float(np.degrees(np.arccos(min(cosine, 1.0)))),
        }
    return table


def spike_passing() -> dict:
    """What is left of a spike of 1000 after 100 norms of 1, and of the next norm of 1, in the three variants."""
    table = {}
    for variant in ("before", "after", "clipped"):
        rule = c.clip_by_ema_norm(update=variant)
        out, state = jnp.zeros(1), cast(Any, rule.init(jnp.zeros(1)))
        update = cast(Callable[..., Any], jax.jit(rule.update))
        for size in [1.0] * 100 + [1000.0]:
            out, state = update(jnp.array([size]), state)
        table[variant] = {"spike_after": float(out[0]), "average_after": float(state.mean)}
    return table


def draw(result: Result) -> dict[str, Any]:
    """The table of strategies, the plane with norm and value clipping, an unclipped run's norms."""
    fig, ax = figure(size=(10, 3.8))
    plot_diagnosis(result.arrays["unclipped_norms"], ax=ax)
    strategies = _draw_strategies(result.metrics["strategies"])
    return {"strategies": strategies, "norm_versus_value": _draw_plane(), "diagnosis": fig}


def best(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The threshold at which most runs were solved, and among equals the fastest."""
    return max(parts, key=lambda p: (p["solved"], -(p["steps_to_solve"] or np.inf)))


def _draw_strategies(table: dict[str, list[dict[str, Any]]]) -> Any:
    """A cell for every strategy and threshold, coloured by the runs solved; the best strategies on top."""
    names = sorted(table, key=lambda n: (best(table[n])["solved"], sum(p["solved"] for p in table[n])), reverse=True)
    columns = max(map(len, table.values()))
    fig, (cells, bars) = figure(1, 2, size=(11, 0.36 * len(names) + 1.4), width_ratios=[1.5, 1], sharey=True)
    for i, name in enumerate(names):
        for j, part in enumerate(sorted(table[name], key=lambda p: p["threshold"])):
            place = j if len(table[name]) > 1 else columns // 2
            share = part["success"]
            color = (0.102, 0.498, 0.216, 0.06 + 0.85 * share)
            cells.barh(i, 0.96, 0.9, left=place - 0.48, color=color)
            text = f"{part['solved']} of {part['runs']}"
            ink = "white" if share > 0.6 else COLORS["stable"]
            cells.text(place - 0.08, i, text, ha="right", va="center", fontsize=9, color=ink)
            limit = "no threshold" if np.isinf(part["threshold"]) else f"at {part['threshold']:g}"
            cells.text(place + 0.02, i, limit, ha="left", va="center", fontsize=8, color=ink, alpha=0.8)
        top = best(table[name])
        if top["solved"]:
            bars.barh(i, top["steps_to_solve"], 0.7, color=COLORS["good"], alpha=0.25 + 0.7 * top["success"])
            bars.text(top["steps_to_solve"], i, f" {top['steps_to_solve']:.0f}", va="center", fontsize=8)
    cells.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5), xlim=(-0.55, columns - 0.45))
    cells.set(xticks=range(columns), title="runs that solved the task, by threshold")
    cells.set_xticklabels(["tight", "middle", "loose"] if columns == 3 else [""] * columns)
    cells.grid(False)
    bars.set(xlabel="median over solved runs", title="updates to solve, best threshold")
    bars.grid(axis="y", visible=False)
    return fig


def _draw_plane(gradient: tuple[float, float] = (10.0, 1.0), threshold: float = 5.0) -> Any:
    """A gradient clipped by norm and by value, and the angle that value clipping adds in every direction."""
    g = jnp.asarray(gradient, jnp.float32)
    rules = {
        "norm": c.clip_by_global_norm(threshold),
        "value": c.clip(threshold),
        "soft": c.soft_clip_by_global_norm(threshold),
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
    left.set(
        xlim=(-1.15 * threshold, reach),
        ylim=(-1.15 * threshold, 1.6 * threshold),
        aspect="equal",
        xlabel="first entry",
        ylabel="second entry",
        title=f"threshold {threshold:g}",
    )
    left.legend(fontsize=8, loc="upper right")

    directions = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    for factor, style in ((1.5, ":"), (3.0, "--"), (10.0, "-")):
        out = jax.vmap(lambda d: rules["value"].update(d, rules["value"].init(d))[0])(factor * threshold * directions)
        out = np.asarray(out)
        cosine = np.sum(out * np.asarray(directions), 1) / np.linalg.norm(out, axis=1)
        turned = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        right.plot(np.degrees(angle), turned, style, color=colors["value"], label=f"value, |g| = {factor:g} thresholds")
    right.plot([0, 360], [0, 0], color=colors["norm"], label="norm, soft: 0 everywhere")
    right.set(
        xlabel="direction of the gradient (degrees)",
        ylabel="turned by (degrees)",
        title="what value clipping does to the direction",
        xticks=range(0, 361, 45),
        ylim=(-2, 62),
    )
    right.legend(fontsize=8, ncols=2, loc="upper center")
    return fig


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
