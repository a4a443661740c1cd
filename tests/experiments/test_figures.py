"""Integration: the figures' numbers, on small settings."""

import json

import numpy as np
from experiments import runner
from experiments.benchmarks import continuation
from experiments.figures import bifurcation_diagram, cusp

from cliffs.records import load_record


def test_integration_fig4_has_both_folds_and_iteration_agrees(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    name = "figures/bifurcation_diagram"
    _, folder = runner.execute(name, bifurcation_diagram.Config(values=81, transient=3000))
    assert folder == tmp_path / name
    assert {p.name for p in folder.iterdir()} == {
        "metrics.json",
        "arrays.npz",
        "bifurcation_diagram.png",
        "bifurcation_diagram.svg",
    }
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert metrics["error"] < 1e-12
    assert metrics["complete"]
    np.testing.assert_allclose(
        [metrics["folds"][0][0], metrics["folds"][1][0]], [-2.65561033863, -2.34438966137], atol=1e-11
    )
    # Iteration sees two attractors on the grid's points between the folds and nowhere else; step 0.02.
    assert -2.6556 <= metrics["two_attractors_from"] <= -2.6356
    assert -2.3644 <= metrics["two_attractors_to"] <= -2.3444
    assert metrics["brute_force_worst_residual"] < 1e-6


def test_integration_the_plane_of_both_parameters_agrees_with_the_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    result, folder = runner.execute("figures/cusp", cusp.Config(pixels=61, transient=400))
    assert max(result.metrics["curve_errors"].values()) < 1e-12
    (point,) = result.curves["fold"].special
    np.testing.assert_allclose([*point.parameters, *point.state], [4, -2, 0], atol=1e-12)
    assert result.metrics["plane_agreement"] > 0.995
    assert abs(result.metrics["gap_exponent"] - 1.5) < 1e-3
    assert (folder / "cusp.png").stat().st_size > 10_000


def test_integration_the_benchmark_runs_without_its_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    result, folder = runner.execute("benchmarks/continuation", continuation.Config(branches=8, turns=1, peers=False))
    assert result.metrics["ratio_jaxcont"] is None
    assert result.metrics["fold_error"]["cliffs"] < 1e-12
    assert load_record(folder).metrics["rows"]["pycont_lite"] is None
