"""Fixed points, multipliers and Lyapunov exponents of a network while it trains, against its gradient spikes.

The paper's hypothesis (arXiv v1, section 2.5): a gradient explodes when a change of the parameters crosses a boundary
between basins of attraction or a bifurcation. Networks train on temporal order, with and without clipping, and every
update is asked whether it crossed either. The dynamical system is the network with its input held at the mean
distractor, what it sees on average while it has to remember; F~ of Fig. 6 with the input's mean kept.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

INF = float("inf")


@dataclasses.dataclass(frozen=True)
class Config:
    """A network's attractors while it trains, and its gradient spikes."""

    seeds: int = 6
    thresholds: tuple[float, ...] = (INF, 1.0)
    updates: int = 400
    length: int = 20
    hidden: int = 50
    learning_rate: float = 0.1
    batch: int = 20
    settle_steps: int = 384
    """How long the final state of a sequence is followed to its attractor."""
    spike_factor: float = 5.0
    """A spike is a gradient norm above this many times the running median."""
    median_window: int = 51
    snapshots: int = 3
    """At how many times all fixed points are searched for."""
    shifts: int = 2000
    """Circular shifts of the permutation test."""
    jump: float = 0.1
    """The tracked point has jumped to another branch when it moves farther than this in one update (root mean square
    over the units)."""
    seed: int = 0


class Result(NamedTuple):
    """What every update did, and whether it goes with the gradient spikes."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    notes: list[str]
    found: dict[str, Any]
    """All that is drawn, leaves `[runs, updates, ...]`."""


def run(config: Config, say: Any = print) -> Result:
    """Train, find the events, count how often they go with a spike."""
    from scipy.stats import spearmanr

    from cliffs.diagnosis import gradient_spikes
    from experiments.hypotheses import training_dynamics_events as dynamics
    from experiments.hypotheses import training_dynamics_report as report

    out = dynamics.train(config)
    say(f"trained {len(out['seed'])} runs")
    track = dynamics.tracked_point(config, out["params"])
    found = dynamics.attractors(config, out["seed"], out["params"])
    say(f"attractors of {out['norm'].size} parameter sets")
    times, counts = dynamics.count_fixed_points(config, out["params"])
    events = dynamics.event_table(found, track, config.jump)
    spike = gradient_spikes(out["norm"], config.spike_factor, config.median_window)
    table = report.association_table(dynamics.association, out["max_norm"], spike, events, config.shifts)
    log_norm, multipliers = np.log(np.maximum(out["norm"], 1e-30)), np.abs(track["multipliers"])
    correlation = {
        "driven_exponent": [spearmanr(n, d)[0] for n, d in zip(log_norm, found["driven"])],
        "tracked_multiplier": [spearmanr(n, m[:-1, 0])[0] for n, m in zip(log_norm, multipliers)],
    }
    tracked, verdicts = dynamics.tracking_record(track, config.jump), report.verdicts(table)
    metrics = {
        "association": table,
        "verdicts": verdicts,
        "tracked_point": tracked,
        "rank_correlation": correlation,
        "fixed_points": {"updates": times, "counts": counts},
        "final_error": out["error"][:, -50:].mean(1),
        "largest_norm": out["norm"].max(1),
        "share_of_ends_without_a_cycle": found["without_cycle"].mean(1),
        "mean_number_of_attractors_of_a_batch": found["attractors"].mean(1),
        "max_norm": out["max_norm"],
        "seeds": out["seed"],
    }
    arrays = {k: out[k] for k in ("norm", "loss", "error")}
    arrays |= {k: found[k] for k in ("driven", "exponent", "attractors")}
    arrays |= {"spike": spike, "multipliers": multipliers[..., :4].astype(np.float32)}
    arrays |= {f"event_{k}": v for k, v in events.items()}
    by_run = ", ".join(f"{v:.2f}" for v in correlation["driven_exponent"])
    notes = [
        *report.table_lines(table),
        *report.verdict_lines(verdicts),
        *report.run_lines(out, found, tracked),
        f"rank correlation of the norm with the largest driven exponent, by run: {by_run}",
    ]
    drawn = {k: v for k, v in out.items() if k != "params"} | found | {"multipliers": track["multipliers"]}
    drawn |= {"known": track["residual"] < dynamics.RESIDUAL, "events": events, "spike": spike}
    return Result(config, metrics, arrays, notes, drawn)


def draw(result: Result) -> dict[str, Any]:
    """One run without and one with clipping, and the association with events shifted in time."""
    from experiments.hypotheses import training_dynamics_report as report

    return {
        "runs": report.draw_runs(result.config.length, result.found),
        "association": report.draw_association(result.metrics["association"]),
    }


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
