"""Runs that will not win leave: rules of one's own and successive halving."""

import numpy as np
import pytest
from sweeps import small

from cliffs.sweeps import prune

RATES = tuple(float(r) for r in np.geomspace(0.001, 0.4, 9))


def best_half(evaluations, active):
    last = evaluations["error"][:, -1]
    return last <= np.nanmedian(last[active])


def test_integration_pruned_runs_leave_and_the_others_do_not_notice():
    over = small.grid(1, RATES)
    full = small.run(over=over, stop_when_solved=False)
    seen = []

    def rule(evaluations, active):
        seen.append((evaluations["error"].shape, int(active.sum())))
        return best_half(evaluations, active)

    got = small.run(over=over, stop_when_solved=False, prune=rule)
    assert seen == [((9, 1), 9), ((9, 2), 5), ((9, 3), 3), ((9, 4), 2)]
    assert got.pruned_at is not None
    stays = got.pruned_at < 0
    assert stays.sum() == 1
    np.testing.assert_array_equal(got.steps_run, np.where(stays, 40, got.pruned_at))
    for i, steps in enumerate(got.steps_run):
        np.testing.assert_array_equal(got.metrics.loss[i, :steps], full.metrics.loss[i, :steps])
    assert got.best("error").index == full.best("error").index


def test_property_a_rule_may_write_into_what_it_is_given(tmp_path):
    def rule(evaluations, active):
        evaluations["error"][...] = -7.0
        evaluations["solved"][...] = True
        active[...] = False
        return np.ones(6, bool)

    got, want = small.run(prune=rule, checkpoint=tmp_path), small.run()
    small.assert_same(got, want)
    small.assert_same(small.run(prune=rule, checkpoint=tmp_path), want)


def test_analytic_successive_halving_keeps_a_third_at_each_rung():
    rule = prune.successive_halving("error", eta=3)
    errors = np.linspace(1, 0, 27)[:, None] * np.ones((1, 9))
    active = np.ones(27, bool)
    counts = []
    for evaluation in range(1, 10):
        active = rule({"error": errors[:, :evaluation]}, active)
        counts.append(int(active.sum()))
    assert counts == [9, 9, 3, 3, 3, 3, 3, 3, 1]
    assert np.flatnonzero(active).tolist() == [26]


def test_analytic_rungs_survivors_and_direction():
    rule = prune.successive_halving("accuracy", eta=2, rungs=(2, 3), survivors=3, largest=True)
    values = np.array([[0.1], [np.nan], [0.9], [0.5], [0.7], [0.6], [0.2], [0.3]]) * np.ones((1, 3))
    active = np.ones(8, bool)
    assert rule({"accuracy": values[:, :1]}, active).all()
    active = rule({"accuracy": values[:, :2]}, active)
    assert np.flatnonzero(active).tolist() == [2, 3, 4, 5]
    active = rule({"accuracy": values}, active)
    assert np.flatnonzero(active).tolist() == [2, 4, 5]  # a quarter would be two


def test_property_nan_is_worst_and_diverged_runs_take_no_place():
    rule = prune.successive_halving("error", eta=3)
    errors = np.array([[np.nan], [3.0], [2.0], [1.0], [np.nan], [np.nan]])
    active = np.array([False, True, True, True, True, True])
    assert np.flatnonzero(rule({"error": errors}, active)).tolist() == [2, 3]
    only_nan = np.array([True, False, False, False, True, True])
    assert rule({"error": errors}, only_nan).sum() == 2


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eta": 1}, "eta must be above 1, got 1"),
        ({"first": 0}, "first must be a whole number of at least 1, got 0"),
        ({"survivors": 1.5}, "survivors must be a whole number"),
        ({"rungs": (3, 3)}, r"rungs must be rising numbers of evaluations, counted from 1, got \(3, 3\)"),
        ({"rungs": ()}, "rungs must be rising"),
        ({"rungs": 3}, "rungs must be rising"),
        ({"rungs": (1.5, 2.5)}, "rungs must be rising"),
        ({"eta": "a"}, "eta must be above 1, got 'a'"),
    ],
)
def test_wrong_settings_of_successive_halving_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        prune.successive_halving("error", **options)


@pytest.mark.wrong_arguments
def test_wrong_rules_and_metrics_are_named():
    with pytest.raises(ValueError, match=r"metric must be one of the evaluations \['error', 'solved'\], got 'loss'"):
        small.run(prune=prune.successive_halving("loss"))
    with pytest.raises(ValueError, match=r"prune must return bool \[6\], got int64\[2\]"):
        small.run(prune=lambda evaluations, active: np.array([0, 1]))
    with pytest.raises(
        ValueError, match=r"metric must be the name of an evaluation, got a dict: prune=successive_halv"
    ):
        small.run(prune=prune.successive_halving)
    with pytest.raises(ValueError, match="prune must be a function of"):
        small.run(prune="halving")
    with pytest.raises(ValueError, match=r"prune is called as prune\(evaluations, active\), but .* other arguments"):
        small.run(prune=lambda: 1)
