"""What does each clipping rule do for a small transformer in trouble: bad batch, hot warm-up, heavy-tailed noise?

A decoder (4 layers, 128 wide) learns a language made in code, whose entropy is known, with AdamW. Every rule of the
registry runs at its default and at two more settings, on the same seeds and rows with and without each trouble: final
loss above the language's own, and, against the untroubled twin, the jump of the loss and the updates until it is back.
The learning rate is the same for all. A rule that is better by less than the interval is not better.
"""

import dataclasses
import inspect
import time
from typing import Any, NamedTuple

import numpy as np

from cliffs.clipping import STRATEGIES
from cliffs.stats import bootstrap_interval
from cliffs.sweeps import SweepResult
from experiments.training import _transformer_report as report
from experiments.training._troubles import Corpus, Setting, corpus, train

ALL_CORES = True

LEFT_OUT = {
    "clip_or_shrink": "shrinks a recurrent matrix, of which a transformer has none; without it, it is the global norm",
    "spectral_normalize": "bounds the singular values of that matrix; on all kernels it is another model, no clip",
    "project_spectral_radius": "bounds the eigenvalues of a matrix that is applied again and again: there is none",
}
TROUBLES = report.TROUBLES


@dataclasses.dataclass(frozen=True)
class Config(Setting):
    """Settings of the comparison."""

    only: tuple[str, ...] = ()
    """Some rules instead of all; without any clipping is always among them."""
    window: int = 5
    """Updates whose mean excess over the untroubled twin is looked at."""
    tolerance: float = 0.1
    """Back: the mean excess is below this, in nats."""


class Result(NamedTuple):
    """A cell for every rule, setting and trouble; the recommendation; mean losses of each cell."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    rows: list[tuple[str, ...]]
    notes: list[str]


def run(config: Config, say: Any = print) -> Result:
    """One sweep for each rule."""
    text = corpus(config)
    cells, arrays, finals = [], {}, {}
    for name in rules(config):
        begun = time.perf_counter()
        runs = compared_runs(config, text, name)
        for threshold, by_trouble in runs.items():
            label = f"{name} {threshold:g}"
            finals[label] = {trouble: r["final"] for trouble, r in by_trouble.items()}
            for trouble, r in by_trouble.items():
                cell = {"rule": name, "threshold": threshold, "trouble": trouble, **summarise(r, config)}
                if name == "clip_update_rms":  # with Adam inside, telemetry compares the gradient with Adam's update
                    del cell["clip_fraction"]
                cells.append(cell)
                arrays[f"{label} {trouble} loss"] = r["loss"].mean(0).astype(np.float32)
                arrays[f"{label} {trouble} final"] = r["final"].astype(np.float32)
        say(f"{name}: {time.perf_counter() - begun:.1f} s")
    compared = compare(finals)
    for cell in cells:
        cell |= compared[f"{cell['rule']} {cell['threshold']:g}", cell["trouble"]]
    metrics = {
        "floor": text.floor,
        "uniform_guess": float(np.log(text.symbols) - text.floor),
        "left_out": LEFT_OUT,
        "defaults": {name: default_of(name) for name in rules(config)},
        "cells": cells,
        "recommendation": recommend(finals, {name: default_of(name) for name in rules(config)}),
    }
    return Result(config, metrics, arrays, report.table(metrics), report.words(metrics))


def rules(config: Config) -> list[str]:
    """No clipping, and every rule of the registry that fits a transformer."""
    names = [name for name in STRATEGIES if name not in LEFT_OUT]
    unknown = set(config.only) - set(names)
    if unknown:
        raise ValueError(f"only must name some of {names}, got {sorted(unknown)}")
    return ["none", *(name for name in names if not config.only or name in config.only)]


def thresholds(name: str) -> tuple[float, ...]:
    """The registry's three settings, from tight to loose."""
    return (float("inf"),) if name == "none" else STRATEGIES[name].thresholds


def default_of(name: str) -> float:
    """The rule's own default, or the middle one of its three settings where it has none."""
    three = thresholds(name)
    if name == "none":
        return three[0]
    own = next(iter(inspect.signature(STRATEGIES[name].factory).parameters.values())).default
    return float(own) if own in three else three[1]


def compared_runs(config: Config, text: Corpus, name: str) -> dict[float, dict[str, dict[str, np.ndarray]]]:
    """Losses, jumps, recoveries and final losses by threshold and trouble; arrays `[seeds, ...]`."""
    result = train(config, text, name, grid(config, name))
    ends = {"bad batch": config.bad_at + config.bad_updates, "hot warm-up": config.hot_updates}
    found: dict[float, dict[str, dict[str, np.ndarray]]] = {}
    for i, threshold in enumerate(thresholds(name)):
        parts = {trouble: rows_of(result, text, config, i, j) for j, trouble in enumerate(TROUBLES)}
        for trouble, r in parts.items():
            excess = r["loss"] - parts["clean"]["loss"]
            start = ends["bad batch"] if trouble == "bad batch" else 0  # the bad batch's own loss is no jump
            r["jump"] = moving_mean(excess[:, start:], config.window).max(1)
            if trouble in ends:
                back = moving_mean(excess[:, ends[trouble] :], config.window) < config.tolerance
                r["recovery"] = np.where(back.any(1), back.argmax(1), np.inf)
        found[threshold] = parts
    return found


def grid(config: Config, name: str) -> dict[str, np.ndarray]:
    """Thresholds times troubles times seeds, in this order."""
    cases = [(t, trouble, seed) for t in thresholds(name) for trouble in TROUBLES for seed in range(config.seeds)]

    def column(value, dtype):
        return np.array([value(trouble) for _, trouble, _ in cases], dtype)

    return {
        "threshold": np.array([t for t, _, _ in cases], np.float32),
        "seed": np.array([seed for _, _, seed in cases]),
        "bad": column(lambda trouble: trouble == "bad batch", int),
        "heat": column(lambda trouble: config.hot if trouble == "hot warm-up" else 1, np.float32),
        "noise": column(lambda trouble: config.noise if trouble == "heavy-tailed noise" else 0, np.float32),
    }


def rows_of(result: SweepResult, text: Corpus, config: Config, threshold: int, trouble: int) -> dict[str, np.ndarray]:
    """What the runs of one cell left behind; a diverged run counts with the loss of a uniform guess."""
    first = (threshold * len(TROUBLES) + trouble) * config.seeds
    mine = slice(first, first + config.seeds)
    guess = np.log(text.symbols)
    lost = result.diverged_at[mine] >= 0
    loss = np.nan_to_num(np.asarray(result.metrics.loss)[mine], nan=guess, posinf=guess)
    final = np.where(lost, guess, np.asarray(result.evaluations["loss"])[mine, -1]) - text.floor
    clipped = np.asarray(result.metrics.aux["clipped"])[mine]
    return {"loss": loss, "final": final, "lost": lost, "clipped": np.nanmean(clipped, axis=1)}


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Means of `window` neighbours along the last axis, `[..., steps - window + 1]`."""
    return np.lib.stride_tricks.sliding_window_view(values, min(window, values.shape[-1]), axis=-1).mean(-1)


def summarise(r: dict[str, np.ndarray], config: Config) -> dict[str, Any]:
    """One cell's numbers over its seeds."""
    cell: dict[str, Any] = {
        "final": float(r["final"].mean()),
        "final_interval": bootstrap_interval(r["final"], np.mean),
        "jump": float(r["jump"].mean()),
        "jump_interval": bootstrap_interval(r["jump"], np.mean),
        "clip_fraction": float(r["clipped"].mean()),
        "diverged": int(r["lost"].sum()),
    }
    if "recovery" in r:
        cell |= {
            "recovery": float(np.median(r["recovery"])),
            "recovered": int(np.isfinite(r["recovery"]).sum()),
        }
    return cell


def compare(finals: dict[str, dict[str, np.ndarray]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Final losses against those without clipping of the same seeds and the same trouble."""
    found = {}
    for label, by_trouble in finals.items():
        for trouble, final in by_trouble.items():
            change = final - finals["none inf"][trouble]
            interval = bootstrap_interval(change, np.mean)
            found[label, trouble] = {"change": float(change.mean()), "change_interval": interval}
    return found


def recommend(finals: dict[str, dict[str, np.ndarray]], defaults: dict[str, float]) -> dict[str, Any]:
    """The best in each trouble and what cannot be told from it; the smallest regret over all four, tuned or not.

    Regret: the final loss above that of the best setting in the same trouble, same seeds. The best is chosen on the
    seeds that are shown, so that its own interval flatters it; the comparison with the others is paired.
    """
    untuned = [f"{name} {default:g}" for name, default in defaults.items()]
    by_trouble, regrets = {}, {}
    for trouble in TROUBLES:
        mean = {label: float(by[trouble].mean()) for label, by in finals.items()}
        best = min(mean, key=lambda label: mean[label])
        gaps = {label: by[trouble] - finals[best][trouble] for label, by in finals.items()}
        intervals = {label: bootstrap_interval(gap, np.mean) for label, gap in gaps.items()}
        by_trouble[trouble] = {
            "best": best,
            "final": mean[best],
            "as_good": sorted((k for k, (low, _) in intervals.items() if low <= 0), key=lambda k: mean[k]),
        }
        regrets[trouble] = gaps
    worst = {k: max(float(regrets[t][k].mean()) for t in TROUBLES) for k in finals}

    def smallest(labels):
        label = min(labels, key=lambda k: worst[k])
        parts = {
            trouble: {"regret": float(gap[label].mean()), "interval": bootstrap_interval(gap[label], np.mean)}
            for trouble, gap in regrets.items()
        }
        return {"setting": label, "worst_regret": worst[label], "by_trouble": parts}

    return {
        "by_trouble": by_trouble,
        "overall": smallest(finals),
        "overall_at_defaults": smallest(untuned),
        "no_clipping": smallest(["none inf"]),
        "worst_regret": dict(sorted(worst.items(), key=lambda item: item[1])),
    }


def draw(result: Result) -> dict[str, Any]:
    """Final losses of all settings, and the excess of some rules over their untroubled twins."""
    return {"transformer": report.draw(result.metrics, result.arrays, result.config)}


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
