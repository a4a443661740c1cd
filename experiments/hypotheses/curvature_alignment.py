"""The paper's hypothesis along real training: where the gradient explodes, curvature explodes in the same direction.

Pascanu, Mikolov & Bengio (2012, section 2.4) suppose that "when gradients explode so does the curvature along v" and
that gradient and leading eigenvector of the curvature are aligned. Here: temporal order (T = 20, 50 tanh units), plain
SGD, 32 seeds with clipping at norm 1 (the ICML 2013 setting) and the same seeds without. The steps whose gradient norm
is in the top 1 % of their run are compared with random steps of the run, and with the typical step of the 50 before
each (so that the phase of training is the same). Gradient and Hessian are those of the step's own mini-batch; the
Hessian is measured on a second, fresh mini-batch too ("fresh"), which shares no noise with the gradient that was picked
for its size, and comes first. Many runs do not learn (`learned_loss`): every comparison is made for all runs, for those
that learned and for those that did not. Ratios are of medians within a seed; intervals are bootstraps over seeds.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cliffs.curvature import SmoothnessFit
from cliffs.plotting import COLORS, figure, plot_smoothness, plot_spectral_density

ALL_CORES = True
GROUPS = ("top 1 %", "typical step before", "random step")
SHADES: dict[str, str] = dict(zip(GROUPS, (COLORS["unclipped"], COLORS["clipped"], COLORS["unstable"])))
CHUNK = 50
"""Updates between two looks of the host; also the window in which a typical step is sought."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    seeds: int = 32
    updates: int = 3000
    learning_rate: float = 0.01
    max_norms: tuple[float, ...] = (1.0, float("inf"))
    length: int = 20
    hidden: int = 50
    batch: int = 20
    init: str = "smart_tanh"
    points: int = 20
    """Steps per run and group whose curvature is measured."""
    iterations: int = 25
    """Lanczos iterations."""
    top: int = 5
    """Size of the eigenspace whose share of the gradient's energy is measured: the largest |eigenvalues| among so many
    leading ones and the smallest."""
    smoothness_every: int = 10
    smoothness_batch: int = 100
    """Sequences of the fixed held-out batch on which smoothness is measured."""
    resamples: int = 2000
    learned_loss: float = 0.4
    """A run has learned when its mean loss over the last 50 mini-batches (never seen before) is below this: above it
    lie the plateaus, ln 2 where one of the two symbols is told apart and ln 4 where none is."""
    reanalyse: bool = False
    """Compare and draw again from the arrays that the last full run recorded, without training."""


class Result(NamedTuple):
    """The numbers of every arm, and the arrays that they come from."""

    config: Config
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    notes: list[str]
    arms: dict[str, dict[str, np.ndarray]]
    size: int
    """Number of parameters."""
    density: tuple[np.ndarray, dict[str, np.ndarray]] | None
    """Eigenvalues and spectral densities; None after `reanalyse`."""


def run(config: Config, say: Any = print) -> Result:
    """Train and measure every arm, or take what the last full run measured; then compare."""
    from experiments.hypotheses import curvature_comparison as comparison
    from experiments.hypotheses import curvature_measurement as measurement

    if config.updates % CHUNK or not 1 <= config.points <= config.updates // 100:
        raise ValueError(f"updates must be a multiple of {CHUNK} and points at most updates / 100, got {config}")
    problem = measurement.Problem(config)
    measured, density = None, None  # by this very run
    if config.reanalyse:
        arms, measured = recorded(config)
    else:
        arms, density = measurement.measure_all(problem, say)
    results = comparison.analyse(arms, config)
    notes = [line for name in results for line in comparison.lines(name, results[name])]
    arrays = {f"{name.replace(' ', '_')}_{k}": v for name, arm in arms.items() for k, v in arm.items()}
    return Result(config, results | {"measured": measured}, arrays, notes, arms, problem.size, density)


def arm_name(max_norm: float) -> str:
    """How an arm is called."""
    return f"clipped at {max_norm:g}" if np.isfinite(max_norm) else "unclipped"


def recorded(config: Config) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """The arrays of every arm from the record on disk, and when and by which code they were measured."""
    from cliffs.records import load_record
    from experiments import runner

    record = load_record(runner.RESULTS / "hypotheses" / "curvature_alignment")
    measured = record.metrics.get("measured") or {
        "git_revision": record.revision,
        "written": record.written,
        "seconds": record.seconds,
    }
    arms = {}
    for name in map(arm_name, config.max_norms):
        prefix = f"{name.replace(' ', '_')}_"
        arms[name] = {k.removeprefix(prefix): v for k, v in record.arrays.items() if k.startswith(prefix)}
    return arms, measured


def draw(result: Result) -> dict[str, Any]:
    """Alignment, smoothness, and the spectrum where it was measured."""
    made = {"alignment": _draw_alignment(result), "smoothness": _draw_smoothness(result)}
    if result.density is not None:
        points, curves = result.density
        made["density"], ax = figure()
        plot_spectral_density(points, curves, ax, colors=SHADES)
        ax.set(title="spectrum at the largest gradient of one clipped run", xlabel="Hessian eigenvalue")
    return made


def _draw_alignment(result: Result) -> Any:
    """For each arm: curvature against gradient norm, cosines with the leading eigenvector, how many times larger."""
    fig, axes = figure(len(result.arms), 3, size=(15, 4.0 * len(result.arms)), squeeze=False, width_ratios=[1, 1, 1.25])
    for (scatter, cumulative, ratios), (name, found) in zip(axes, result.arms.items()):
        slope = result.metrics[name]["all"]["fresh_slope"]["median"]
        _draw_scatter(scatter, found)
        scatter.set_title(f"{name}: curvature grows as norm^{slope:.2f}")
        cumulative.set_title("alignment with the top curvature")
        _draw_cosines(cumulative, found, chance=result.size**-0.5)
        _draw_ratios(ratios, result.metrics[name])
    return fig


def _draw_scatter(ax: Any, found: dict[str, np.ndarray]) -> None:
    for i, (name, color) in reversed(list(enumerate(SHADES.items()))):  # the group of interest on top
        norm, curvature = (found[k][:, i].ravel() for k in ("grad_norm", "fresh_leading"))
        ax.scatter(norm, curvature, s=6, alpha=0.35, color=color, label=name, linewidths=0, rasterized=True)
    ax.set(xscale="log", yscale="log", xlabel="gradient norm", ylabel="leading |Hessian eigenvalue|")
    for handle in ax.legend(fontsize=8, markerscale=2.5).legend_handles:
        handle.set_alpha(1)


def _draw_cosines(ax: Any, found: dict[str, np.ndarray], *, chance: float) -> None:
    """The cumulative distribution of the cosine in every group, and what a random direction has."""
    for i, (name, color) in enumerate(SHADES.items()):
        x = np.sort(found["fresh_cosine"][:, i].ravel())
        share = np.append(np.arange(1, len(x) + 1) / len(x), 1.0)
        ax.step(np.append(x, 1.0), share, where="post", color=color, label=name, lw=1.6)
    ax.axvline(chance, color=COLORS["stable"], lw=1, ls=":", label="random direction")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="|cosine| of gradient and leading eigenvector", ylabel="share of steps")
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.04, 1.02))


def _draw_ratios(ax: Any, numbers: dict[str, Any]) -> None:
    """How many times larger at the top 1 % than at the typical step before: a dot a seed, the median with interval."""
    rows = [("gradient norm", "all", "grad_norm"), ("curvature", "all", "fresh_leading")]
    rows += [(f"curvature, {part.replace('_', ' ')}", part, "fresh_leading") for part in ("learned", "not_learned")]
    rows.append(("curvature along\nthe gradient", "all", "along_gradient"))
    rows = [row for row in rows if numbers[row[1]]]
    for i, (_, part, key) in enumerate(rows):
        entry = numbers[part][f"{key}_ratio_before"]
        values, (low, high) = np.asarray(entry["values"]), entry["interval"]
        spread = 0.22 * np.sin(2.4 * np.arange(len(values)))  # fixed, so that the picture does not change
        color = COLORS["unclipped"] if key == "grad_norm" else COLORS["clipped"]
        ax.plot(np.clip(values, 0.3, 60), i + spread, ".", color=color, alpha=0.35, ms=5)
        ax.plot([low, high], [i, i], "-", color=COLORS["stable"], lw=3, solid_capstyle="butt")
        ax.plot(entry["median"], i, "D", color="white", markeredgecolor=COLORS["stable"], ms=6)
        text = f"{entry['median']:.1f} times  [{low:.1f}, {high:.1f}]"
        ax.text(1.02, i, text, transform=ax.get_yaxis_transform(), va="center", fontsize=9)
    ax.axvline(1, color=COLORS["unstable"], lw=1)
    ax.set(
        xscale="log", xlim=(0.25, 70), ylim=(len(rows) - 0.5, -0.5), title="top 1 % of gradients against typical steps"
    )
    ax.set(yticks=range(len(rows)), yticklabels=[label for label, _, _ in rows])
    ax.set_xticks([0.5, 1, 2, 5, 10, 20, 50], ["0.5", "1", "2", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.set_xlabel("times larger (a dot a seed; those beyond the axis at its edge)")


def _draw_smoothness(result: Result) -> Any:
    fig, axes = figure(1, len(result.arms), size=(5.5 * len(result.arms), 4.2), squeeze=False, sharey=True)
    for ax, (name, arm) in zip(axes[0], result.arms.items()):
        numbers, fits = result.metrics[name]["smoothness"], {}
        for which, words in (("median", "median"), ("bound", "99 % bound")):
            l0, l1 = (numbers[which][k]["median"] for k in ("l0", "l1"))
            label = f"{words} of the median seed: L0 = {l0:.2g}, L1 = {l1:.2g}"
            fits[label] = SmoothnessFit(*map(jnp.asarray, (l0, l1, np.nan, np.nan)))
        mask = arm["path_resolved"]
        plot_smoothness(arm["path_smoothness"][mask], arm["path_grad_norm"][mask], fits, ax)
        ax.set_title(f"{name}: rank correlation {numbers['rank_correlation']['median']:.2f}")
    return fig


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
