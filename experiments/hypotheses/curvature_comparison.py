"""Statistics of `curvature_alignment`: steps of the largest gradients against others, seed by seed, and the verdict.

Every arm is compared whole and split into the runs that learned and those that did not. Intervals are uncorrected 95 %
bootstraps over seeds; the claims are Wilcoxon signed-rank tests over seeds, corrected together by Holm's procedure.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np
from scipy import stats

from cliffs import curvature
from cliffs.stats import bootstrap_interval, holm

if TYPE_CHECKING:
    from experiments.hypotheses.curvature_alignment import Config

SUBSETS = ("all", "learned", "not_learned")
CONTROLS = ("before", "random")
CLAIMS = ("fresh_leading_ratio", "along_gradient_ratio", "fresh_cosine_difference")
"""What is tested, against both controls; the other quantities are reported with intervals only."""
WORDS = {
    "fresh_leading_ratio": "leading |curvature|",
    "along_gradient_ratio": "|curvature| along g",
    "fresh_cosine_difference": "cosine",
    "before": "typical steps",
    "random": "random steps",
}


def analyse(arms: dict[str, dict[str, np.ndarray]], config: "Config") -> dict:
    """Every number of every arm from its arrays; the verdicts know how many comparisons were made in all."""
    results = {}
    for name, arm in arms.items():
        found = {k: v for k, v in arm.items() if np.shape(v) == np.shape(arm["grad_norm"])}
        # A diverged run has no number for its loss: it has not learned.
        results[name] = split(found, arm["final_loss"] < config.learned_loss, config.resamples) | {
            "smoothness": fit_paths(arm, config),
            "final_loss": over_seeds(arm["final_loss"], config.resamples),
            "norm_quantiles": dict(zip(("median", "p99", "max"), arm["norm_quantiles"])),
            "diverged": int(arm["diverged"]),
        }
    comparisons = correct(results)
    for arm in results.values():
        arm["comparisons"] = comparisons
        arm["verdict"] = verdict(arm, comparisons, config.learned_loss)
    return results


def lines(name: str, result: dict) -> list[str]:
    """The verdict and every contrast as text, split by learned and not learned."""
    out = [f"{name}: {result['verdict']}"]
    for part in (p for p in SUBSETS if result[p]):
        r = result[part]
        out.append(f"  {part.replace('_', ' ')} ({r['runs']} runs)")
        for key in [k.removesuffix("_before") for k in r if k.endswith("_before")]:
            out.append(f"    {key}: " + "; ".join(f"{number(r[f'{key}_{o}'])} against {o}" for o in CONTROLS))
        out.append(f"    slope: {number(r['fresh_slope'])} fresh, {number(r['slope'])} own batch")
    return out


def fit_paths(arm: dict, config: "Config") -> dict:
    """(L0, L1) of every run with its interval over seeds, and of the 99 % bound; how much better than a constant."""
    along, norms, weights = arm["path_smoothness"], arm["path_grad_norm"], arm["path_resolved"].astype(np.float32)
    fits = {}
    for name, quantile in (("median", 0.5), ("bound", 0.99)):
        fit = jax.vmap(lambda y, g, w, q=quantile: curvature.fit_smoothness(y, g, quantile=q, weights=w))(
            along, norms, weights
        )
        fits[name] = {k: over_seeds(getattr(fit, k), config.resamples) for k in ("l0", "l1")}
        fits[name]["error_over_constant"] = over_seeds(fit.error / fit.constant_error, config.resamples)
    pairs = [(g[w > 0], y[w > 0]) for y, g, w in zip(along, norms, weights)]
    fits["rank_correlation"] = over_seeds([stats.spearmanr(*p)[0] for p in pairs], config.resamples)
    fits["slope"] = over_seeds([slope(*p) for p in pairs], config.resamples)
    return fits | {"resolved": float(weights.mean())}


def over_seeds(values, resamples: int, null: float | None = None) -> dict:
    """The median over seeds with its 95 % bootstrap interval (percentiles); with `null` the p-value of a signed-rank
    test against it (two-sided; in the logarithm where the null is 1).
    """
    values = np.asarray(values, float)
    interval = bootstrap_interval(values, num_resamples=resamples, seed=1)
    out = {"median": float(np.median(values)), "interval": list(interval), "values": values}
    if null is not None:
        effect = np.log(values) if null == 1 else values - null
        out["p"] = float(np.asarray(stats.wilcoxon(effect))[1]) if effect.any() else 1.0
    return out


def slope(x, y) -> float:
    """The least-squares slope of log y on log x."""
    x, y = (np.log(v).ravel() for v in (x, y))
    return float(np.polyfit(x - x.mean(), y - y.mean(), 1)[0])


def compare(found: Mapping, resamples: int) -> dict:
    """Ratios and differences between groups, one number per seed, then over seeds; leaves `[runs, group, point]`."""
    out = {}
    middle = {k: np.median(found[k], -1) for k in ("grad_norm", "fresh_leading", "leading", "gauss_newton")}
    # Along the gradient the curvature has a sign: its size is compared here, the sign is counted below.
    middle["along_gradient"] = np.median(np.abs(found["along_gradient"]), -1)
    means = {k: found[k].mean(-1) for k in ("fresh_cosine", "cosine", "share", "gauss_newton_cosine")}
    for other, name in enumerate(CONTROLS, 1):
        ratios = {k: v[:, 0] / v[:, other] for k, v in middle.items()}
        for quantity, ratio in ratios.items():
            out[f"{quantity}_ratio_{name}"] = over_seeds(ratio, resamples, 1)
        # Below 1: the curvature rises less than the gradient does.
        out[f"curvature_over_gradient_{name}"] = over_seeds(ratios["fresh_leading"] / ratios["grad_norm"], resamples, 1)
        for quantity in ("fresh_cosine", "cosine", "share"):
            difference = means[quantity][:, 0] - means[quantity][:, other]
            out[f"{quantity}_difference_{name}"] = over_seeds(difference, resamples, 0)
    for group, name in enumerate(("top", *CONTROLS)):
        along, leading_negative = (
            found["along_gradient"][:, group],
            found["largest"][:, group] < -found["smallest"][:, group],
        )
        out[name] = {k: over_seeds(v[:, group], resamples) for k, v in means.items()} | {
            "gauss_newton_over_hessian": over_seeds(
                np.median(found["gauss_newton"][:, group] / found["leading"][:, group], -1), resamples
            ),
            "negative_along_gradient": float((along < 0).mean()),
            "leading_is_negative": float(leading_negative.mean()),
            "both_negative": float(((along < 0) & leading_negative).mean()),
            "converged": float(found["converged"][:, group].mean()),
        }
    # How fast curvature grows with the gradient: 1 is Zhang's condition, 2 that of one exploding output direction.
    for key, quantity in (("slope", "leading"), ("fresh_slope", "fresh_leading")):
        out[key] = over_seeds([slope(x, y) for x, y in zip(found["grad_norm"], found[quantity])], resamples)
    return out


def split(found: Mapping, learned: np.ndarray, resamples: int) -> dict:
    """`compare` of all runs, of those that learned and of the others; None for a part without runs."""
    masks = dict(zip(SUBSETS, (np.ones_like(learned), learned, ~learned)))
    return {
        name: compare({k: v[m] for k, v in found.items()}, resamples) | {"runs": int(m.sum())} if m.any() else None
        for name, m in masks.items()
    }


def correct(arms: Mapping[str, Mapping]) -> int:
    """Write `adjusted_p` into every claim of every arm and subset, corrected together; their number is returned."""
    family = [
        part[f"{claim}_{other}"]
        for arm in arms.values()
        for part in (arm[s] for s in SUBSETS)
        if part is not None
        for claim in CLAIMS
        for other in CONTROLS
    ]
    for entry, p in zip(family, holm([entry["p"] for entry in family])):
        entry["adjusted_p"] = float(p)
    return len(family)


def number(entry: Mapping) -> str:
    """A median with its interval."""
    low, high = entry["interval"]
    return f"{entry['median']:.2f} [{low:.2f}, {high:.2f}]"


def verdict(parts: Mapping, comparisons: int, learned_loss: float) -> str:
    """What one arm shows: medians over seeds with 95 % intervals, and which claims outlast the correction."""
    a = parts["all"]
    sentences = [
        f"With the Hessian of fresh data, at the 1 % largest gradients ({number(a['grad_norm_ratio_before'])} times "
        f"the typical step's of the 50 before) the leading |curvature| is {number(a['fresh_leading_ratio_before'])} "
        f"times the typical step's and {number(a['fresh_leading_ratio_random'])} times a random step's, and the "
        f"gradient's |cosine| with its eigenvector is {number(a['top']['fresh_cosine'])} where the typical step has "
        f"{number(a['before']['fresh_cosine'])} (difference {number(a['fresh_cosine_difference_before'])})"
    ]
    for name, words in (("learned", f"ended below a loss of {learned_loss:g}"), ("not_learned", "did not")):
        part = parts[name]
        sentences.append(
            f"no run of {a['runs']} {words}"
            if part is None
            else f"in the {part['runs']} of {a['runs']} runs that {words} the leading |curvature| is "
            f"{number(part['fresh_leading_ratio_before'])} times the typical step's and the cosine differs by "
            f"{number(part['fresh_cosine_difference_before'])}"
        )
    relative = a["curvature_over_gradient_before"]
    low, high = relative["interval"]
    growth = "less than" if high < 1 else "more than" if low > 1 else "not clearly otherwise than"
    sentences.append(
        f"from typical to largest the curvature rises {growth} the gradient (ratio of ratios {number(relative)}; slope "
        f"of the logarithms over all steps {number(a['fresh_slope'])})"
    )
    top, before = a["top"], a["before"]
    sentences.append(
        f"curvature along the gradient is negative at {top['negative_along_gradient']:.0%} of the largest gradients "
        f"({before['negative_along_gradient']:.0%} of typical steps), it and the leading eigenvalue together at "
        f"{top['both_negative']:.0%} ({before['both_negative']:.0%})"
    )
    own = {(s, c, o): parts[s][f"{c}_{o}"] for s in SUBSETS if parts[s] for c in CLAIMS for o in CONTROLS}
    failed = [
        f"{WORDS[c]} against {WORDS[o]} ({s.replace('_', ' ')})"
        for (s, c, o), entry in own.items()
        if entry["adjusted_p"] >= 0.05 or entry["interval"][0] <= (0 if c.endswith("difference") else 1)
    ]
    sentences.append(
        f"intervals are not corrected; of {len(own)} tests for an increase here, corrected with all {comparisons} by "
        f"Holm, {len(own) - len(failed)} hold (5 %, and no interval across no effect)"
        + (f", not: {', '.join(failed)}" if failed else "")
    )
    return "; ".join(sentences)
