"""Table 1 of the paper: four sets of music, clipped against unclipped, beside the numbers of its three versions.

The experiment `music` on each set. Every run is scored at its best validation epoch.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cliffs.plotting import COLORS, figure
from cliffs.stats import bootstrap_interval

ALL_CORES = True

PAPER_TEST = {
    "Piano_midi": {"v1": (7.77, 7.79), "ICML": (7.53, 7.56), "ICML, clip + Omega": (7.46, None)},
    "Nottingham": {"v1": (4.05, 4.57), "ICML": (3.48, 3.80), "ICML, clip + Omega": (3.36, None)},
    "MuseData": {"v1": (7.24, 8.00), "ICML": (7.00, 7.11), "ICML, clip + Omega": (6.97, None)},
    "JSB_Chorales": {},
}
"""Test negative log likelihood in nats a time step, (clipped, unclipped); v2 has the ICML version's SGD columns."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Every set with the settings of arXiv v1: 100 tanh units, pieces of 100, rate 0.001, threshold 120, five runs."""

    data_dir: str | None = None
    """Folder that holds polyphonic/; the data are downloaded when it is not given."""
    datasets: tuple[str, ...] = ("Piano_midi", "Nottingham", "MuseData", "JSB_Chorales")
    hidden: int = 100
    epochs: tuple[int, ...] = (70, 28, 60, 200)
    """Of each set: about 55,000 updates, one piece of one song each; three times as many for MuseData."""
    seeds: int = 5
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


class Result(NamedTuple):
    """Scores and learning curves of every set."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train every set, clipped and unclipped."""
    from experiments.training import music

    metrics, arrays, rows = {}, {}, []
    shared = {"data_dir": config.data_dir, "hidden": config.hidden, "seeds": config.seeds}
    for name, epochs in zip(config.datasets, config.epochs, strict=True):
        done = music.run(music.Config(dataset=name, epochs=epochs, checkpoint=config.checkpoint, **shared))
        of_arms = {arm: scores(done.metrics[arm]) for arm in ("clipped", "unclipped")}
        metrics[name] = {**of_arms, "paper": PAPER_TEST[name]}
        arrays |= {f"{name} / {k}": done.arrays[k] for k in ("train", "valid", "test", "max_norm", "diverged_at")}
        for i, (arm, mine) in enumerate(of_arms.items()):
            theirs = ", ".join(f"{v} {pair[i]}" for v, pair in PAPER_TEST[name].items() if pair[i] is not None)
            rows.append((f"{name}, {arm}: test, nats/step", words(mine), theirs or "-"))
        say(f"{name}: {rows[-2][1]}; unclipped {rows[-1][1]}")
    return Result(config, metrics, arrays, rows)


def scores(summary: dict[str, Any]) -> dict[str, Any]:
    """Mean, deviation and interval over the runs of one arm, and how many of them diverged."""
    found: dict[str, Any] = {"diverged": int((np.asarray(summary["diverged_at"]) >= 0).sum())}
    for fold in ("train", "valid", "test"):
        values = np.asarray(summary[fold], float)
        low, high = bootstrap_interval(values, np.mean) if len(values) > 1 else (values[0], values[0])
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        found[fold] = {"mean": values.mean(), "std": deviation, "low": low, "high": high, "runs": values}
    return found


def words(arm: dict[str, Any]) -> str:
    """An arm's test score as text."""
    test = arm["test"]
    lost = f", {arm['diverged']} diverged" if arm["diverged"] else ""
    count = len(test["runs"])
    return f"{test['mean']:.3f}" + (f" ± {test['std']:.3f} of {count} runs" if count > 1 else ", one run") + lost


def draw(result: Result) -> dict[str, Any]:
    """Validation by epoch, a panel for each set."""
    names = result.config.datasets
    fig, axes = figure(1, len(names), size=(3.4 * len(names), 3.6), squeeze=False)
    for ax, name in zip(axes[0], names):
        valid, limit = (result.arrays[f"{name} / {k}"] for k in ("valid", "max_norm"))
        best = np.nanmin(np.where(np.isfinite(valid), valid, np.nan))
        for arm, color in (("unclipped", COLORS["unclipped"]), ("clipped", COLORS["clipped"])):
            mine = valid[np.isfinite(limit) == (arm == "clipped")]
            for i, curve in enumerate(mine):
                ax.plot(1 + np.arange(len(curve)), curve, color=color, lw=1, label=None if i else arm)
        ax.set(title=name.replace("_", " "), xlabel="epoch", ylim=(best - 0.15, best + 2.5))
    axes[0, 0].set_ylabel("validation, nats/step")
    axes[0, 0].legend()
    return {"music_table": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
