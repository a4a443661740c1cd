"""What the records of other experiments say of common claims: the cliff's width, tuning, solvable lengths."""

import pathlib
from typing import Any

from cliffs.records import load_record

ADAPTIVE = ("clip_by_ema_norm", "clip_by_norm_quantile", "clip_by_zscore", "clip_by_ema_leaf_norm", "clip_spikes")


def metrics_of(name: str, results: pathlib.Path | None = None) -> dict[str, Any] | None:
    """The metrics of `kind/name` on disk, or None where it has not been run."""
    from experiments import runner

    folder = (runner.RESULTS if results is None else results) / name
    return load_record(folder).metrics if (folder / "metrics.json").exists() else None


def read(results: pathlib.Path | None = None) -> list[tuple[str, str, str]]:
    """Claim, what was measured, verdict."""
    sources = {
        "hypotheses/cliff_law": width,
        "training/clipping_strategies": tuning,
        "training/success_by_length": reach,
    }
    found = []
    for name, judge in sources.items():
        metrics = metrics_of(name, results)
        found.append(judge(metrics) if metrics else (str(judge.__doc__), f"{name} has no record", "open"))
    return found


def width(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """The cliff's width shrinks as 1/T while its height grows as eta^T"""
    kinds = metrics["kinds"]
    exponents = {k: v["width_exponent_between_the_two_largest_lengths"] for k, v in kinds.items()}
    rates = {k: v["peak_laws"]["rate"] for k, v in kinds.items() if v["peak_laws"]["delta_aic"] > 4}
    measured = "; ".join(
        f"{k}: width as exp({kinds[k]['width_laws']['rate']:.3f} T), height as exp({rates[k]:.3f} T)"
        if k in rates
        else f"{k}: width as T^{e:.2f}, height as T^{kinds[k]['peak_laws']['exponent']:.2f}"
        for k, e in exponents.items()
    )
    return str(width.__doc__), measured, "does not: where the height is exponential, so is the width"


def tuning(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """Adaptive clipping needs no tuning"""
    tables = metrics["strategies"]
    counts = {name: [row["solved"] for row in tables[name]] for name in ADAPTIVE if name in tables}
    runs = next(iter(tables.values()))[0]["runs"]
    measured = "; ".join(f"{name}: {', '.join(map(str, found))} of {runs}" for name, found in counts.items())
    robust = [name for name, found in counts.items() if min(found) >= 0.9 * runs]
    verdict = "does not" if not robust else f"only {' and '.join(robust)}"
    return str(tuning.__doc__), f"solved at three settings each: {measured}", verdict


def reach(metrics: dict[str, Any]) -> tuple[str, str, str]:
    """Vanilla networks fail beyond T = 20 to 50"""
    best = metrics["longest"]
    measured = "; ".join(
        f"{init}: " + ", ".join(f"{method} {length}" for method, length in of.items()) for init, of in best.items()
    )
    longest = max(length for of in best.values() for length in of.values())
    verdict = "does not" if longest > 50 else "holds in this budget"
    return str(reach.__doc__), f"longest length that half of the runs solve: {measured}", verdict
