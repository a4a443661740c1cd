"""The experiments on error surfaces, at small settings."""

import json

import numpy as np
import pytest
from experiments import runner
from experiments.hypotheses import cliff_law_walls, stability_map

from cliffs.landscape import compare_laws


def test_integration_stability_map(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    config = stability_map.Config(starts=3, updates=40, rates=4, thresholds=3)
    folder = runner.execute("hypotheses/stability_map", config)[1]
    with np.load(folder / "arrays.npz") as arrays:
        share = arrays["left_share"]
    assert share.shape == (4, 3)
    # The smallest rate throws nobody out, clipped or not; the largest unclipped one all; no clipping is the worst.
    assert not share[0, :2].any()
    assert share[-1, -1] == 1
    assert (share[:, -1] >= share[:, 0]).all()
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert metrics["paths"] == 4 * 3 * 9
    assert metrics["largest_share_left_where_rate_x_threshold_is_at_most_0.03"] == 0
    # 40 updates of at most 1e-5 cannot cross the box.
    assert 0 < metrics["clipped_cells_that_cannot_leave"] < metrics["clipped_cells"] == 8
    assert (folder / "stability_map.png").stat().st_size > 10_000


def test_analytic_verdict_counts_laws_of_networks_that_learned():
    def row(width, direction="random 0", **change):
        t = np.array([20.0, 40, 60, 80, 100])
        return {
            "network": 0,
            "direction": direction,
            "learned": True,
            "peak": 1 / width(t),
            "width": width(t),
            "resolved": np.ones(5, bool),
            "cut_off": np.zeros(5, bool),
            "width_laws": compare_laws(t, width(t))._asdict(),
        } | change

    rows = [row(lambda t: 1 / t), row(lambda t: t**-2), row(lambda t: np.exp(-0.1 * t), "gradient")]
    verdict = cliff_law_walls.judge(
        [
            *rows,
            row(lambda t: t**-9, network=1, learned=False),
            row(lambda t: t**-3, "hessian", resolved=np.arange(5) < 4),
        ]
    )
    all_, random = verdict["all"], verdict["random"]
    assert (all_["exponential_better_by_4"], all_["power_better_by_4"], all_["undecided"]) == (1, 3, 0)
    assert (random["exponential_better_by_4"], random["power_better_by_4"]) == (0, 2)
    assert verdict["gradient"]["exponential_better_by_4"] == 1
    assert random["exponent_quartiles"][1] == pytest.approx(-1.5)
    assert random["width_first_over_last_length_quartiles"][1] == pytest.approx(15)
    # The wall that is not resolved at the end has no growth.
    assert verdict["hessian"]["width_first_over_last_length_quartiles"] is None
    assert all_["walls_at_both_ends"] == 3
    assert verdict["networks"] == {"learned": 1, "left_out": 1}
