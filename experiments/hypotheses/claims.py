"""Does what is commonly taught about gradient clipping hold? Each claim with a number, an interval and a verdict.

Ten claims of a common teaching example on Pascanu, Mikolov & Bengio. Those about training are measured here: clipped
SGD on temporal order (T = 50), addition (T = 100) and multiplication (T = 50), several thresholds with the same seeds,
and Omega at T = 200. Those about cliffs, strategies and lengths are read from the records of the experiments that
measured them, and left open where there is no record.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from cliffs import recurrent, training
from cliffs.clipping import read_telemetry, with_telemetry
from cliffs.plotting import figure
from cliffs.stats import bootstrap_interval, wilson_interval
from experiments.training import _trials
from experiments.training._trials import INF, Trials

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config(Trials):
    """Three tasks at the lengths of the claims, every threshold with the same seeds."""

    problems: tuple[tuple[str, int, int], ...] = (
        ("temporal_order", 50, 10_000),
        ("addition", 100, 3_000),
        ("multiplication", 50, 3_000),
    )
    """Task, length and updates. Of the last two no run learns 40 steps in 10,000 updates (`pathological`)."""
    thresholds: tuple[float, ...] = (INF, 100.0, 10.0, 5.0, 1.0, 0.1)
    init: str = "smart_tanh"
    learning_rate: float = 0.1
    updates: int = 10_000
    """Of the networks with and without Omega."""
    evaluate_every: int = 250
    seeds: int = 20
    omega_length: int = 200
    """Temporal order with and without Omega, `omega_seeds` runs each."""
    omega_seeds: int = 5
    glorot_draws: int = 1_000


class Result(NamedTuple):
    """One row for each claim, and the counts they stand on."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]
    files: dict[str, str]


class Claim(NamedTuple):
    """What is taught, what was measured, and whether the one is the other."""

    claim: str
    measured: str
    verdict: str


def run(config: Config, say: Any = print) -> Result:
    """Measure, read, judge."""
    tables, arrays = {}, {}
    for task, length, updates in config.problems:
        result = train(dataclasses.replace(config, updates=updates), task, length)
        name = f"{task}, T={length}"
        tables[name] = [row_of(config, result, threshold) for threshold in config.thresholds]
        arrays |= _trials.arrays_of(result, f"{task}_{length}")
        say(f"{name}: " + "; ".join(f"{r['threshold']:g}: {r['solved']}, {r['lost']} lost" for r in tables[name]))
    omega = with_and_without_omega(config)
    say(f"Omega at T={config.omega_length}: {omega}")
    radius = glorot_radius(config)
    found = [*of_training(tables), *of_records(), of_omega(config, omega), of_glorot(radius, config.hidden)]
    metrics = {"tables": tables, "omega": omega, "glorot_radius": radius, "claims": [c._asdict() for c in found]}
    rows = [(c.claim, c.measured, c.verdict) for c in found]
    return Result(config, metrics, arrays, rows, {"claims.md": page(config, found)})


def train(config: Config, task: str, length: int) -> Any:
    """All thresholds and seeds of a task, with telemetry."""
    from experiments.training.pathological import PROBLEMS

    problem, step = PROBLEMS[task], recurrent.rnn_step("tanh")
    error = problem.error(step)
    chosen = {str(threshold): (threshold, 0.0) for threshold in config.thresholds}
    return _trials.train(
        config,
        _trials.grid_of(config, chosen),
        name=f"{task}_{length}",
        sample=lambda key, size: problem.sample(key, size, length),
        init=lambda key, run: recurrent.paper_init(config.init, key, problem.features, config.hidden, problem.outputs),
        loss=lambda run: training.readout_loss(step, error),
        judge=training.readout_loss(step, error),
        clip=lambda run: with_telemetry(optax.clip_by_global_norm(run["max_norm"])),
    )


def row_of(config: Config, result: Any, threshold: float) -> dict[str, Any]:
    """One threshold: how many solved the task, how many were lost, and how many steps were clipped.

    Lost: the loss is no longer finite, or its mean since the last evaluation is 5 % above that before the first one (a
    plateau scatters by less), in a run that has not solved its task.
    """
    mine = np.isclose(result.grid["max_norm"], threshold)
    log = read_telemetry(result.state)
    loss = np.ma.filled(np.ma.masked_invalid(result.metrics.loss[mine]), INF)
    thrown_out = (loss[:, -1] > 1.05 * loss[:, 0]) & (result.solved_at[mine] < 0)
    lost = int(((result.diverged_at[mine] >= 0) | thrown_out).sum())
    low, high = wilson_interval(lost, config.seeds)
    clipped = np.asarray(log["clip_count"])[mine] / np.maximum(np.asarray(log["compared_count"])[mine], 1)
    solved_at = result.solved_at[mine]
    return {
        "threshold": threshold,
        **_trials.count(result, mine),
        "lost": lost,
        "lost_low": low,
        "lost_high": high,
        "share_below": float(1 - clipped.mean()),
        "solved_at": solved_at,
    }


def with_and_without_omega(config: Config) -> dict[str, Any]:
    """Temporal order at the long length: clip against clip + Omega."""
    from experiments.training import success_by_length

    own = success_by_length.Config(
        hidden=config.hidden,
        seeds=config.omega_seeds,
        updates=config.updates,
        evaluate_every=config.evaluate_every,
        test_batch=config.test_batch,
        checkpoint=config.checkpoint,
    )
    result = success_by_length.train(own, config.init, config.omega_length)
    return {name: _trials.count(result, result.grid["method"] == i) for i, name in enumerate(_trials.methods(own))}


def glorot_radius(config: Config) -> dict[str, float]:
    """The spectral radius of Glorot's uniform initialisation over many draws."""
    keys = jax.random.split(jax.random.key(config.seed), config.glorot_draws)
    draws = jax.vmap(lambda key: jax.nn.initializers.glorot_uniform()(key, (config.hidden, config.hidden)))(keys)
    radius = np.abs(np.linalg.eigvals(np.asarray(draws, np.float64))).max(1)
    low, high = bootstrap_interval(radius, np.mean)
    return {"mean": radius.mean(), "low": float(low), "high": float(high), "std": radius.std()}


def _ask(table: list[dict[str, Any]], threshold: float) -> dict[str, Any]:
    return next(row for row in table if row["threshold"] == threshold)


def of_training(tables: dict[str, list[dict[str, Any]]]) -> list[Claim]:
    """Divergence, clipped steps, the best threshold, and speed."""
    none = {name: _ask(table, INF) for name, table in tables.items()}
    clipped = {name: [row for row in table if row["threshold"] < INF] for name, table in tables.items()}
    best = {name: max(rows, key=lambda r: r["solved"]) for name, rows in clipped.items()}
    # Where few runs learn at any threshold, nothing can be said of thresholds.
    learned = [name for name, row in best.items() if 2 * row["solved"] >= row["runs"]]

    def lost(row: dict[str, Any]) -> str:
        return f"{100 * row['lost'] / row['runs']:.0f} % [{100 * row['lost_low']:.0f}, {100 * row['lost_high']:.0f}]"

    inside = [0.3 <= r["lost"] / r["runs"] <= 0.6 for r in none.values()]
    claims = [
        Claim(
            "30 to 60 % of the unclipped runs are lost, next to none of the clipped ones",
            "; ".join(
                f"{n}: {lost(r)}, at threshold {best[n]['threshold']:g}: {lost(best[n])}" for n, r in none.items()
            ),
            "holds" if all(inside) else "does not" if not any(inside) else "only for some of the tasks",
        )
    ]
    shares = {t: [_ask(table, t)["share_below"] for table in tables.values()] for t in _thresholds(clipped)}
    within = [t for t, found in shares.items() if all(0.95 <= s <= 0.99 for s in found)]
    claims.append(
        Claim(
            "95 to 99 % of the steps are below the threshold",
            "; ".join(f"threshold {t:g}: {100 * min(s):.1f} to {100 * max(s):.1f} %" for t, s in shares.items()),
            f"only at threshold {', '.join(f'{t:g}' for t in within)}" if within else "does not",
        )
    )
    if 5.0 in shares:
        five = {name: _ask(table, 5.0) for name, table in tables.items()}
        near = [five[n]["solved"] >= best[n]["low"] * best[n]["runs"] for n in learned]
        claims.append(
            Claim(
                "a threshold of 5 suits most tasks",
                "; ".join(
                    f"{n}: {row['solved']} of {row['runs']} at 5, {best[n]['solved']} at {best[n]['threshold']:g}"
                    for n, row in five.items()
                ),
                "open" if not near else f"holds on {sum(near)} of {len(near)} tasks that half of the runs learn",
            )
        )
    claims.append(
        Claim(
            "the result does not depend much on the threshold",
            "; ".join(
                f"{n}: " + ", ".join(f"{r['solved']} at {r['threshold']:g}" for r in rows)
                for n, rows in clipped.items()
            ),
            "open" if not learned else "holds" if all(_overlap(clipped[n]) for n in learned) else "does not",
        )
    )
    faster = {n: _pairs(none[n], best[n]) for n in tables}
    some = [ratio for ratio in faster.values() if ratio is not None]
    claims.append(
        Claim(
            "clipping costs no speed of convergence",
            "; ".join(
                f"{n}: " + ("no seed solves it both ways" if r is None else f"clipped takes {r:.2f} of the updates")
                for n, r in faster.items()
            ),
            "open" if not some else "holds" if max(some) <= 1.1 else "does not",
        )
    )
    return claims


def _thresholds(clipped: dict[str, list[dict[str, Any]]]) -> list[float]:
    return [row["threshold"] for row in next(iter(clipped.values()))]


def _overlap(rows: list[dict[str, Any]]) -> bool:
    return max(r["low"] for r in rows) <= min(r["high"] for r in rows)


def _pairs(none: dict[str, Any], clipped: dict[str, Any]) -> float | None:
    """The median ratio of updates to the solution, over seeds that solve the task both ways."""
    both = (none["solved_at"] >= 0) & (clipped["solved_at"] >= 0)
    return float(np.median(clipped["solved_at"][both] / none["solved_at"][both])) if both.any() else None


def of_records() -> list[Claim]:
    """The claims that other experiments measured."""
    from experiments.hypotheses import claims_of_records

    return [Claim(*found) for found in claims_of_records.read()]


def of_omega(config: Config, found: dict[str, Any]) -> Claim:
    """Omega at the long length."""
    clip, omega = found["clip"], found["clip + Omega"]
    verdict = "holds" if omega["low"] > clip["high"] else "open" if not omega["solved"] else "not separate"
    return Claim(
        f"Omega helps at T = {config.omega_length}",
        f"{config.updates} updates: clip {_trials.words(clip)}; with Omega {_trials.words(omega)}",
        verdict + ("" if omega["solved"] else ": nothing is learned in this budget"),
    )


def of_glorot(radius: dict[str, float], hidden: int) -> Claim:
    """The circular law."""
    mean = f"mean {radius['mean']:.3f} [{radius['low']:.3f}, {radius['high']:.3f}]"
    return Claim(
        "the spectral radius of Glorot's initialisation is about 1",
        f"{hidden} units: {mean}, deviation {radius['std']:.3f}",
        "holds" if abs(radius["mean"] - 1) < 0.1 else "does not",
    )


def page(config: Config, claims: list[Claim]) -> str:
    """The claims as one page of Markdown."""
    tasks = ", ".join(f"{task} (T = {length}, {updates} updates)" for task, length, updates in config.problems)
    lines = [
        "# Claims about gradient clipping, measured",
        "",
        f"{config.seeds} seeds, {config.hidden} tanh units ({config.init}), rate {config.learning_rate}, batches of "
        f"{config.batch}: {tasks}. Intervals are 95 %: Wilson's for shares, the "
        "bootstrap's for means. Lost: no longer finite, or the loss ends 5 % above where it began. Open: "
        "among others where less than half of the runs learn at any threshold.",
        "",
        "| claim | measured | verdict |",
        "| --- | --- | --- |",
        *[f"| {c.claim} | {c.measured} | {c.verdict} |" for c in claims],
        "",
    ]
    return "\n".join(lines)


def draw(result: Result) -> dict[str, Any]:
    """Runs that were solved and lost, and steps below the threshold, by threshold."""
    tables = result.metrics["tables"]
    fig, axes = figure(1, len(tables), size=(4 * len(tables), 3.6), sharey=True, squeeze=False)
    for ax, (name, table) in zip(axes[0], tables.items()):
        places = np.arange(len(table))
        _trials.draw_rates(ax, places, table, label="solved", **_trials.STYLES["clip"])
        lost = [{"rate": r["lost"] / r["runs"], "low": r["lost_low"], "high": r["lost_high"]} for r in table]
        _trials.draw_rates(ax, places + 0.08, lost, label="lost", **_trials.STYLES["SGD"])
        below = [100 * r["share_below"] for r in table]
        ax.plot(places, below, ":", color="black", label="steps below the threshold")
        labels = ["none" if r["threshold"] == INF else f"{r['threshold']:g}" for r in table]
        ax.set(title=name, xlabel="threshold", xticks=places, xticklabels=labels, ylabel="")
    axes[0, 0].set_ylabel("% of runs, % of steps")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return {"claims": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
