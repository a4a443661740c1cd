"""What is made of trained runs: claims, the border of learning rates, occupations of state space."""

import numpy as np
import pytest
from experiments.hypotheses import claims, claims_of_records
from experiments.training import critical_rate, generators

INF = float("inf")


def row(threshold, solved, lost, share=0.97, solved_at=(100, 200)):
    return {
        "threshold": threshold,
        "solved": solved,
        "runs": 20,
        "low": max(0.0, solved / 20 - 0.1),
        "high": min(1.0, solved / 20 + 0.1),
        "lost": lost,
        "lost_low": max(0.0, lost / 20 - 0.1),
        "lost_high": min(1.0, lost / 20 + 0.1),
        "share_below": share,
        "solved_at": np.array(solved_at),
    }


def test_analytic_claims_about_training_are_judged_by_their_counts():
    tables = {"a task": [row(INF, 5, 8), row(5.0, 18, 0), row(1.0, 20, 0, share=0.5, solved_at=(100, 100))]}
    verdicts = {c.claim: c for c in claims.of_training(tables)}
    assert [c.verdict for c in verdicts.values()] == [
        "holds",  # 40 % of the unclipped runs are lost
        "only at threshold 5",  # 97 % below it
        "holds on 1 of 1 tasks that half of the runs learn",  # 18 of 20 within the best one's interval
        "holds",
        "holds",  # clipped takes 0.75 of the updates
    ]
    assert "clipped takes 0.75" in verdicts["clipping costs no speed of convergence"].measured
    tables["another"] = [row(INF, 20, 0), row(5.0, 2, 0), row(1.0, 20, 0, solved_at=(200, 400))]
    verdicts = {c.claim: c.verdict for c in claims.of_training(tables)}
    assert list(verdicts.values()) == [
        "only for some of the tasks",
        "only at threshold 5",
        "holds on 1 of 2 tasks that half of the runs learn",
        "does not",
        "does not",
    ]
    none = {"a hard task": [row(INF, 0, 0), row(5.0, 0, 0), row(1.0, 0, 0)]}
    for rows in none.values():
        for each in rows:
            each["solved_at"] = np.array([-1, -1])
    verdicts = {c.claim: c.verdict for c in claims.of_training(none)}
    assert list(verdicts.values()) == ["does not", "only at threshold 5, 1", "open", "open", "open"]


def test_documented_claims_without_a_record_are_open(tmp_path):
    found = claims_of_records.read(tmp_path)
    assert [verdict for _, _, verdict in found] == ["open"] * 3
    assert all("has no record" in measured for _, measured, _ in found)


def test_analytic_the_border_is_the_largest_rate_that_learns_and_its_slope_the_exponent():
    config = critical_rate.Config(delays=(4, 8, 16), rates=(0.25, 0.5, 1.0, 2.0, 4.0), seeds=3)
    # At delay d every seed learns at rates up to 16 / d, with a hole below; one seed learns at none.
    solved = np.zeros((3, 1, 5, 3), bool)
    for i, delay in enumerate(config.delays):
        solved[i, 0] = (np.array(config.rates) <= 16 / delay)[:, None]
    solved[:, 0, 0], solved[..., 2] = False, False
    borders = critical_rate.border(config, solved)
    np.testing.assert_array_equal(borders[:, 0, :2], np.array([[4.0, 2.0, 1.0]] * 2).T)
    assert np.isnan(borders[..., 2]).all()
    fit = critical_rate.slope(config, borders[:, 0], resamples=20)
    assert fit["beta"] == pytest.approx(1.0)


def test_analytic_occupations_are_compared_by_hellingers_distance():
    config, rng = generators.Config(), np.random.default_rng(0)
    data = rng.uniform(-1, 1, (4_000, 3))
    assert generators.hellinger(config, data, data) == pytest.approx(0.0, abs=1e-7)
    assert generators.hellinger(config, data + 2.5, data) == pytest.approx(1.0)
    assert generators.hellinger(config, np.full((10, 3), np.nan), data) == 1.0


def test_analytic_the_lorenz_data_are_standardised_and_turn_around_two_wings():
    data = generators.lorenz(generators.Config(data_steps=4_000))
    np.testing.assert_allclose(data.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(data.std(0), 1, atol=1e-3)
    signs = np.sign(data[:, 0])
    assert 0.3 < (signs > 0).mean() < 0.7
    assert (np.diff(signs) != 0).sum() > 20
