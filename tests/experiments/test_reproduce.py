"""The main job's parts, small."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from experiments import bifurcation_diagram, common, reproduce, temporal_order


@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (3, 8), (8, 8), (16, 16), (37, 100)])
def test_parity_wilson_interval_against_scipy(successes, trials):
    want = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(common.wilson(successes, trials), (want.low, want.high), atol=1e-7)


def test_parity_closed_form_folds(reference):
    for w, folds in reference["folds_sigmoid"].items():
        np.testing.assert_allclose(bifurcation_diagram.closed_form_folds(float(w)), np.array(folds, float), rtol=1e-13)


def test_integration_temporal_order_part_counts_its_runs():
    config = dataclasses.replace(
        temporal_order.TemporalOrder(),
        length=10,
        max_length=13,
        hidden=20,
        updates=1000,
        seeds=3,
        thresholds=(float("inf"), 1.0),
        evaluate_every=250,
        evaluation_size=100,
    )
    part = temporal_order.part(config, progress=False)
    for row in part["metrics"]["table"]:
        mine = part["arrays"]["max_norm"] == row["threshold"]
        assert row["solved"] == (part["arrays"]["solved_at"][mine] >= 0).sum()
        assert row["low"] <= row["rate"] <= row["high"]
    text = reproduce.report({"order": part}, {"order": 1.0}, common.machine())
    assert "no clipping" in text
    assert "threshold 1" in text


def test_integration_the_papers_temporal_order_runs_for_a_few_updates():
    config = temporal_order.scaled("paper", budget=4e-7)
    assert (config.updates, config.length, config.max_length, config.learning_rate) == (2, 50, 200, 0.01)
    part = temporal_order.part(dataclasses.replace(config, seeds=1, evaluation_size=100), progress=False)
    assert len(part["rows"]) == len(config.thresholds)
    assert np.isfinite(part["arrays"]["error"]).all()


def test_results_are_complete_and_written_atomically(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    folder = common.save(
        "a/b", metrics={"x": np.float32(1.5), "bad": float("nan")}, settings={"n": 3}, started=0.0, seed=7,
        arrays={"y": np.arange(3)},
    )  # fmt: skip
    record = json.loads((folder / "metrics.json").read_text())
    assert record["metrics"] == {"x": 1.5, "bad": "nan"}
    assert {"settings", "seed", "seconds", "machine", "git_revision"} <= set(record)
    assert np.load(folder / "arrays.npz")["y"].tolist() == [0, 1, 2]

    def broken(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        common.write_atomic(folder / "metrics.json", broken)
    assert json.loads((folder / "metrics.json").read_text())["seed"] == 7
    assert sorted(p.name for p in folder.iterdir()) == ["arrays.npz", "metrics.json"]
