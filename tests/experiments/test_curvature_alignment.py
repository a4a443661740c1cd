"""Integration and planted truths: the steps that are picked, the comparison and what its verdict claims."""

import dataclasses
import json

import numpy as np
import pytest
from experiments import runner
from experiments.hypotheses import curvature_alignment
from experiments.hypotheses import curvature_comparison as comparison
from experiments.hypotheses import curvature_measurement as measurement

from cliffs import stats

NAME = "hypotheses/curvature_alignment"

TINY = curvature_alignment.Config(
    seeds=2, updates=200, points=2, hidden=8, max_norms=(1.0,), iterations=8, top=2, smoothness_batch=10, resamples=50
)


def test_integration_picked_steps_measurements_and_a_second_analysis(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    seen = {}
    pick = measurement.train_and_pick
    monkeypatch.setattr(measurement, "train_and_pick", lambda *args: seen.setdefault("picked", pick(*args)))
    result = runner.execute(NAME, TINY)[0].metrics["clipped at 1"]
    picked = seen["picked"]
    # A plain look at the recorded path: with `points` of the top 1 % of 200 steps all of them are kept.
    for run, norm in enumerate(picked["norm"]):
        top, before, random = picked["step"][run].astype(int)
        assert set(top) == set(1 + np.argsort(norm[1:])[-2:])
        for i, j in zip(top, before):
            window = norm[max(0, i - curvature_alignment.CHUNK) : i]
            assert norm[j] == np.sort(window)[(len(window) - 1) // 2]  # the lower median of the 50 before
        assert len(set(random)) == 2
    assert picked["norm"].shape == (2, 200)
    # The norm is that of the kept parameters, measured again (`measure_all` asserts it to 1 %).
    with np.load(tmp_path / NAME / "arrays.npz") as arrays:
        recorded = np.take_along_axis(picked["norm"], picked["step"].astype(int).reshape(2, -1), 1).reshape(2, 3, 2)
        np.testing.assert_allclose(arrays["clipped_at_1_grad_norm"], recorded, rtol=1e-3)
        np.testing.assert_allclose(arrays["clipped_at_1_final_loss"], picked["loss"][:, -50:].mean(1), rtol=1e-6)
    assert result["learned"] is None  # 200 steps are too few
    assert result["not_learned"]["runs"] == 2
    assert "no run of 2 ended below a loss of 0.4" in result["verdict"]
    # The recorded arrays alone give the same numbers.
    again = runner.execute(NAME, dataclasses.replace(TINY, reanalyse=True))[0].metrics["clipped at 1"]
    assert again["verdict"] == result["verdict"]
    written = json.loads((tmp_path / NAME / "metrics.json").read_text())["metrics"]
    assert written["measured"].keys() == {"git_revision", "written", "seconds"}


def planted(curvature_factor, gradient_factor, turned, seeds=24, points=20):
    """Measurements whose top steps differ from the others by known factors, with noise."""
    rng = np.random.default_rng(0)

    def noisy(top):
        values = np.exp(0.3 * rng.normal(size=(seeds, 3, points)))
        values[:, 0] *= top
        return values

    def cosine():
        values = 0.5 + 0.05 * rng.normal(size=(seeds, 3, points))
        values[:, 0] += turned
        return values

    leading = noisy(curvature_factor)
    along = noisy(curvature_factor)
    along[:, 0, :5] *= -1  # a quarter of the top steps
    return {
        "grad_norm": noisy(gradient_factor),
        "fresh_leading": noisy(curvature_factor),
        "leading": leading,
        "gauss_newton": leading,
        "along_gradient": along,
        "largest": np.where(along < 0, 0.1, 1) * leading,
        "smallest": -np.where(along < 0, 1, 0.1) * leading,
        "converged": np.ones_like(leading),
        **{k: cosine() for k in ("fresh_cosine", "cosine", "share", "gauss_newton_cosine")},
    }


def judged(found, learned):
    arms = {"here": comparison.split(found, learned, 200)}
    count = comparison.correct(arms)
    return arms["here"], comparison.verdict(arms["here"], count, 0.4)


def test_analytic_planted_effects_are_found_with_their_sizes():
    learned = np.arange(24) < 12
    parts, text = judged(planted(4.0, 8.0, 0.3), learned)
    for subset, runs in (("all", 24), ("learned", 12), ("not_learned", 12)):
        part = parts[subset]
        assert part["runs"] == runs
        for control in ("before", "random"):
            assert part[f"fresh_leading_ratio_{control}"]["median"] == pytest.approx(4, rel=0.15)
            assert part[f"along_gradient_ratio_{control}"]["median"] == pytest.approx(4, rel=0.15)
            assert part[f"fresh_cosine_difference_{control}"]["median"] == pytest.approx(0.3, abs=0.03)
        assert part["top"]["negative_along_gradient"] == part["top"]["both_negative"] == 0.25
        assert part["before"]["both_negative"] == 0
    assert parts["all"]["curvature_over_gradient_before"]["median"] == pytest.approx(0.5, rel=0.15)
    assert "of 18 tests for an increase here, corrected with all 18 by Holm, 18 hold" in text
    assert "not:" not in text
    assert "the curvature rises less than the gradient" in text
    assert "negative at 25% of the largest gradients (0% of typical steps)" in text
    assert comparison.number(parts["learned"]["fresh_leading_ratio_before"]) in text


def test_analytic_planted_null_and_a_fall_hold_nothing():
    learned = np.arange(24) < 12
    for found in (planted(1.0, 8.0, 0.0), planted(0.2, 8.0, -0.3)):
        _, text = judged(found, learned)
        assert "corrected with all 18 by Holm, 0 hold" in text


def test_analytic_an_effect_of_runs_that_did_not_learn_alone_is_told_apart():
    learned = np.arange(24) < 12
    null, effect = planted(1.0, 8.0, 0.0), planted(4.0, 8.0, 0.3)
    mixed = {k: np.where(learned[:, None, None], null[k], effect[k]) for k in null}
    parts, text = judged(mixed, learned)
    assert parts["learned"]["fresh_leading_ratio_before"]["median"] == pytest.approx(1, rel=0.15)
    assert parts["not_learned"]["fresh_leading_ratio_before"]["median"] == pytest.approx(4, rel=0.15)
    assert "leading |curvature| against typical steps (learned)" in text
    assert "(not learned)" not in text
    none, text = judged(effect, np.zeros(24, bool))
    assert none["learned"] is None
    assert "no run of 24 ended below a loss of 0.4" in text


def test_parity_holm_by_hand_and_slope():
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5])
    x = np.geomspace(1e-3, 1e3, 20)
    assert comparison.slope(x, 3 * x**1.5) == pytest.approx(1.5)
    assert comparison.over_seeds(np.ones(5), 20, 1)["p"] == 1
