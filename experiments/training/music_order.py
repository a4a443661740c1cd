"""What do a new order of the songs every epoch and a falling learning rate do on Nottingham, one at a time?

The experiment `music` with fewer seeds: the songs in the order of the file, a constant rate, and both.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

from cliffs.plotting import COLORS, figure

ALL_CORES = True
VARIANTS = {
    "file order, constant rate": {"shuffle_songs": False, "final_rate": 1.0},
    "new orders, constant rate": {"final_rate": 1.0},
    "file order, falling rate": {"shuffle_songs": False},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which of the experiment `music`'s settings are the same in all variants."""

    data_dir: str | None = None
    """Folder that holds polyphonic/Nottingham.mat; the data are downloaded when it is not given."""
    dataset: str = "Nottingham"
    hidden: int = 100
    epochs: int = 28
    seeds: int = 2
    checkpoint: str | None = None
    """A folder: what was stopped goes on from there."""


class Result(NamedTuple):
    """Scores and learning curves of every variant."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config, say: Any = print) -> Result:
    """Train every variant, clipped and unclipped."""
    from experiments.training import music

    metrics, arrays, rows = {}, {}, []
    for name, changes in VARIANTS.items():
        if config.checkpoint is not None:
            changes = {**changes, "checkpoint": str(pathlib.Path(config.checkpoint) / name.replace(" ", "_"))}
        done = music.run(music.Config(**(dataclasses.asdict(config) | changes)))
        metrics[name] = done.metrics
        arrays |= {f"{name} / {k}": done.arrays[k] for k in ("train", "valid", "test", "max_norm")}
        rows += [(f"{name}: {quantity}", *rest) for quantity, *rest in done.rows]
        say(name)
    return Result(config, metrics, arrays, rows)


def draw(result: Result) -> dict[str, Any]:
    """Validation by epoch, a panel for each variant."""
    fig, axes = figure(1, len(VARIANTS), size=(12, 3.6), sharey=True)
    for ax, name in zip(axes, VARIANTS):
        valid, limit = (result.arrays[f"{name} / {k}"] for k in ("valid", "max_norm"))
        for curve, clipped in zip(valid, np.isfinite(limit)):
            label = "clipped" if clipped else "unclipped"
            seen = [line.get_label() for line in ax.lines]
            ax.plot(1 + np.arange(len(curve)), curve, color=COLORS[label], label=None if label in seen else label)
        ax.set(title=name, xlabel="epoch", ylim=(None, 9))
    axes[0].set_ylabel("validation, nats/step")
    axes[0].legend()
    return {"music_order": fig}


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
