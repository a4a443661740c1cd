"""The comparison of strategies, small: its table, and the diagnosis of its real runs."""

import numpy as np
import pytest
from experiments import runner
from experiments.training import clipping_strategies
from tests.untyped import present, untyped

from cliffs.diagnosis import diagnose

CONFIG = clipping_strategies.Config(
    length=10, hidden=20, learning_rate=0.5, seeds=2, updates=400, evaluate_every=200, test_batch=200
)


@pytest.fixture(scope="module")
def runs():
    return {name: clipping_strategies.run_strategy(name, CONFIG) for name in ("none", "clip_by_global_norm")}


def test_integration_rows_count_what_the_runs_did(runs):
    for name, result in runs.items():
        rows = clipping_strategies.summarise(result)
        wanted = sorted(clipping_strategies.STRATEGIES[name][1])
        np.testing.assert_allclose([row["threshold"] for row in rows], wanted, rtol=1e-6)
        for row in rows:
            mine = result.grid["threshold"] == np.float32(row["threshold"])
            assert row["solved"] == (result.solved_at[mine] >= 0).sum()
            assert row["interval"][0] <= row["success"] <= row["interval"][1]
            norms = result.metrics.grad_norm[mine]
            above = norms[np.isfinite(norms)] > np.float32(row["threshold"])
            np.testing.assert_allclose(row["clip_fraction"], above.mean(), atol=2 / above.size)
            np.testing.assert_allclose(row["cosine"], 1.0, atol=1e-6)


def test_integration_diagnosis_of_real_runs_says_what_their_norms_say(runs):
    result = runs["clip_by_global_norm"]
    seen = set()
    for i, steps in enumerate(result.steps_run):
        norms, losses = result.metrics.grad_norm[i, :steps], result.metrics.loss[i, :steps]
        threshold = float(result.grid["threshold"][i])
        found = diagnose(norms, max_norm=threshold, losses=losses)
        seen |= set(found.names())
        share = (norms > threshold).mean()
        assert ("threshold too low" in found.names()) == (share > 0.5)
        assert ("threshold never binds" in found.names()) == (share <= 0.5 and threshold > 10 * norms.max())
        for finding in found.findings:
            if finding.name == "cliff spikes":
                for at in untyped(finding.evidence["steps"]):
                    assert norms[at] > 5 * np.median(norms[max(at - 50, 0) : at + 50])
        range_ = present(found.threshold)
        assert range_.low < range_.suggested < range_.high
        assert range_.clip_fraction == (norms > range_.suggested).mean()
    assert "threshold too low" in seen
    assert len(seen) > 1


def test_analytic_truth_of_the_worked_example_and_the_spike():
    table = clipping_strategies.worked_example()
    np.testing.assert_allclose(table["norm"]["result"], [4.9752, 0.4975], atol=1e-4)
    np.testing.assert_allclose(table["norm"]["turned_by_degrees"], 0, atol=0.05)
    assert table["value"]["result"] == [5, 1]
    # m = 0.95 + 0.05 * 1000 = 50.95 before the comparison, three times that passes.
    passed = clipping_strategies.spike_passing()
    np.testing.assert_allclose(passed["before"]["spike_after"], 152.85, rtol=1e-5)
    np.testing.assert_allclose([passed[k]["spike_after"] for k in ("after", "clipped")], 3, rtol=1e-5)


def test_integration_the_table_of_strategies_is_drawn_from_the_runs(runs, monkeypatch, tmp_path):
    few = {name: clipping_strategies.STRATEGIES[name] for name in runs}
    monkeypatch.setattr(clipping_strategies, "STRATEGIES", few)
    monkeypatch.setattr(clipping_strategies, "run_strategy", lambda name, config: runs[name])
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    result, folder = runner.execute("training/clipping_strategies", CONFIG)
    assert set(result.metrics["strategies"]) == set(runs)
    cells, bars = clipping_strategies.draw(result)["strategies"].axes
    written = [text.get_text() for text in cells.texts]
    for parts in result.metrics["strategies"].values():
        for part in parts:
            assert f"{part['solved']} of {part['runs']}" in written
    best = clipping_strategies.best(result.metrics["strategies"]["clip_by_global_norm"])
    assert f" {best['steps_to_solve']:.0f}" in [text.get_text() for text in bars.texts]
    assert {p.stem for p in folder.glob("*.png")} == {"strategies", "norm_versus_value", "diagnosis"}
