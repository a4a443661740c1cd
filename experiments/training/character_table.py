"""Table 2 of the paper: characters of the Penn Treebank, the next one and the fifth, and of text8; clipped and not.

The experiment `characters` on each, one piece an update (no version of the paper names the batch; for the same time a
single piece learns more here than 5 or 20 side by side) and one learning rate for each arm, the better of two in a
trial of 10,000 updates of the first task. Every run is scored at its best evaluation on the validation text.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from cliffs.plotting import COLORS, figure

ALL_CORES = True

PAPER_TEST = {
    "ptb, next": {"v1": (1.44, 2.24), "ICML": (1.42, 1.50), "ICML, clip + Omega": (1.41, None)},
    "ptb, fifth": {"ICML": (3.89, None), "ICML, clip + Omega": (3.74, None)},
    "text8, next": {"v1": (1.80, 1.82)},
}
"""Test bits per character, (clipped, unclipped); v2 has the ICML version's SGD columns."""
TITLES = {
    "ptb, next": "Penn Treebank, next character",
    "ptb, fifth": "Penn Treebank, fifth character",
    "text8, next": "text8, next character",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ptb, next": {"corpus": "ptb", "ahead": 1, "threshold": 45.0},
    "ptb, fifth": {"corpus": "ptb", "ahead": 5, "threshold": 45.0},
    "text8, next": {"corpus": "text8", "ahead": 1, "threshold": 20.0},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Every task with the settings of arXiv v1: 500 logistic units, no biases, pieces of 180."""

    data_dir: str | None = None
    """Folder that holds ptb/ and text8/; the data are downloaded when it is not given."""
    text8: str | None = None
    """A zip file of text8's form in its place, a prefix of it say."""
    tasks: tuple[str, ...] = tuple(PAPER_TEST)
    updates: tuple[int, ...] = (480_000, 150_000, 45_000)
    """Of each task; a pass over the Penn Treebank has 27,641."""
    evaluate_every: int = 15_000
    batch: int = 1
    hidden: int = 500
    clipped_rate: float = 0.05
    unclipped_rate: float = 0.005
    final_rate: float = 0.05
    """Rates fall to this share of themselves."""
    seeds: int = 1
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


class Result(NamedTuple):
    """Scores and learning curves of every task."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train every task, clipped and unclipped."""
    from experiments.training import characters
    from experiments.training.music_table import scores, words

    metrics, arrays, rows = {}, {}, []
    shared = {
        name: getattr(config, name)
        for name in ("data_dir", "evaluate_every", "batch", "hidden", "final_rate", "seeds", "checkpoint")
    }
    shared |= {"learning_rates": (config.clipped_rate,), "unclipped_rates": (config.unclipped_rate,)}
    for name, updates in zip(config.tasks, config.updates, strict=True):
        file = config.text8 if SETTINGS[name]["corpus"] == "text8" else None
        started = time.process_time()
        done = characters.run(characters.Config(updates=updates, file=file, **SETTINGS[name], **shared))
        of_arms = {arm: scores(done.metrics[arm]) for arm in ("clipped", "unclipped")}
        # Of both arms, since it was last resumed.
        spent = time.process_time() - started
        metrics[name] = {**of_arms, "paper": PAPER_TEST[name], "updates": updates, "processor_seconds": spent}
        arrays |= {f"{name} / {k}": done.arrays[k] for k in ("train", "valid", "test", "max_norm", "diverged_at")}
        for i, (arm, mine) in enumerate(of_arms.items()):
            theirs = ", ".join(f"{v} {pair[i]}" for v, pair in PAPER_TEST[name].items() if pair[i] is not None)
            rows.append((f"{name}, {arm}: test, bits/character", words(mine), theirs or "-"))
        say(f"{name}: {rows[-2][1]}; unclipped {rows[-1][1]}")
    return Result(config, metrics, arrays, rows)


def draw(result: Result) -> dict[str, Any]:
    """Validation by updates, a panel for each task, with the paper's scores as lines."""
    names = result.config.tasks
    fig, axes = figure(1, len(names), size=(4.0 * len(names), 3.6), squeeze=False)
    for ax, name in zip(axes[0], names):
        valid, limit = (result.arrays[f"{name} / {k}"] for k in ("valid", "max_norm"))
        times = result.config.evaluate_every / 1000 * (1 + np.arange(valid.shape[1]))
        for arm, color in (("unclipped", COLORS["unclipped"]), ("clipped", COLORS["clipped"])):
            for i, curve in enumerate(valid[np.isfinite(limit) == (arm == "clipped")]):
                ax.plot(times, curve, color=color, label=None if i else arm)
        for version, (clipped, _) in PAPER_TEST[name].items():
            if "Omega" not in version:
                ax.axhline(clipped, color="black", lw=1, ls=":" if version == "v1" else "--")
                side = {"v1": (1, "right"), "ICML": (0, "left")}[version]
                ax.annotate(
                    f" {version}, clipped, test {clipped} ",
                    (side[0], clipped),
                    xycoords=("axes fraction", "data"),
                    ha=side[1],
                    va="bottom" if version == "v1" else "top",
                    fontsize=8,
                )
        ax.set(title=TITLES[name], xlabel="thousand updates", xlim=(0, times[-1]))
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.05 * (high - low), high)  # room for the words below the lowest line
    axes[0, 0].set_ylabel("validation, bits/character")
    axes[0, 0].legend()
    return {"character_table": fig}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
