"""The numbers of docs/which-clipping.md below its main table are those of the committed records.

The main table has a test of its own, with the experiment that it comes from.
"""

import pathlib

import numpy as np

from cliffs.records import load_record

ROOT = pathlib.Path(__file__).resolve().parents[2]
TROUBLES = ("clean", "bad batch", "heavy-tailed noise")
PAGE = (ROOT / "docs" / "which-clipping.md").read_text()


def metrics(name):
    return load_record(ROOT / "results" / name).metrics


def test_documented_suggested_thresholds_transfer_as_the_page_says():
    found = metrics("training/threshold_transfer")
    for trouble in TROUBLES:
        m = found[trouble]
        low, high = (100 * x for x in m["above_best_interval"])
        row = (
            f"| {trouble} | {m['suggested']['median']:.2g} | {m['best_threshold']:g} | {100 * m['above_best']:+.1f} % "
        )
        assert row + f"[{low:+.1f}, {high:+.1f}] |" in PAGE
    within, surely = (sum(found[t][key] for t in TROUBLES) for key in ("within", "surely_within"))
    assert f"within 1 % in {within} of 3 cases, and surely so (by the interval) in {surely}" in PAGE


def test_documented_gains_under_noise_are_those_measured():
    found = metrics("hypotheses/noise_and_clipping")
    noises = ("Gaussian", "t, 3 degrees", "t, 1.5 degrees")
    lines = {"least squares, SGD": [found["least_squares"][n] for n in noises]}
    for optimizer in ("SGD", "Adam"):
        lines[f"small network, {optimizer}"] = [found["network"][f"{optimizer}, {n}"] for n in noises]
    for name, cells in lines.items():
        words = []
        for cell in cells:
            best = int(np.argmin(cell["ratio"][:-1]))  # the last threshold is no clipping
            ratio, low, high = (cell[key][best] for key in ("ratio", "ratio_low", "ratio_high"))
            words.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}]")
        assert f"| {name} | {' | '.join(words)} |" in PAGE
    tails = found["network"]["Adam, t, 1.5 degrees"]
    best = int(np.argmin(tails["ratio"][:-1]))
    assert f"falls from {tails['quantile_90'][-1]:.3f} to {tails['quantile_90'][best]:.3f}" in PAGE.replace("\n", " ")


def test_documented_the_bias_of_clipping_is_that_measured():
    found, page = metrics("hypotheses/clipping_bias"), PAGE.replace("\n", " ")
    at = {r["threshold"]: r for r in found["by_threshold"]}[1.0]
    assert f"{at['measured']:.4f} (closed form {at['closed_form']:.4f})" in page
    batches = {(r["batch"], r["clipped"]): r for r in found["by_batch"]}
    assert f"{batches[64, 'examples']['measured']:.4f} at batch 64" in page
    mean = batches[4, "batch"]
    assert f"{mean['measured']:.4f} at batch 4 (exact {mean['exact']:.4f})" in page
    assert all(abs(batches[n, "batch"]["measured"]) < 0.001 for n in (16, 64))
    feedback = {r["b1"]: r["measured"] for r in found["error_feedback_on_noise"]}
    without = max(feedback)
    assert f"{feedback[without]:.3f} without, {feedback[0.6]:.3f} at `b1=0.6`, {feedback[0.3]:.3f} at 0.3" in page
