"""The counting behind the experiment on gradient spikes and crossings."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from experiments.hypotheses.training_dynamics_events import (
    association,
    event_table,
    stability_events,
    tracking_record,
)
from experiments.hypotheses.training_dynamics_report import (
    EVENTS,
    GROUPS,
    SIDES,
    association_table,
    draw_association,
    table_lines,
    verdict_lines,
    verdicts,
)

from cliffs.diagnosis import gradient_spikes


def test_analytic_spikes_are_found_against_a_drifting_level():
    norms = np.exp(np.linspace(0, 4, 400))[None] * np.ones((2, 1))
    norms[0, [50, 200, 390]] *= 8
    norms[1, 10] *= 4
    found = gradient_spikes(norms, 5.0, 51)
    assert np.flatnonzero(found[0]).tolist() == [50, 200, 390]
    assert not found[1].any()


def test_property_association_tells_aligned_events_from_independent_ones():
    rng = np.random.default_rng(0)
    spike = rng.random((4, 500)) < 0.03
    aligned = association(spike, spike | (rng.random(spike.shape) < 0.05), 400)
    assert aligned["p_event_given_spike"] == 1.0
    assert aligned["p_value"] == pytest.approx(1 / 401)
    assert aligned["shifted_high"] < 0.3
    values = [association(spike, rng.random(spike.shape) < 0.1, 200, seed=k)["p_value"] for k in range(40)]
    assert 0.25 < np.mean(values) < 0.75  # a p-value is uniform where there is nothing
    cells = association(spike, spike, 10)
    assert cells["p_spike_given_event"] == 1.0
    assert cells["p_spike"] == pytest.approx(spike.mean())
    nothing = association(spike & False, spike, 10)
    assert nothing["p_event_given_spike"] is None


def test_analytic_a_change_of_stability_is_an_event_of_the_update_between():
    moduli = np.array([[0.9, 0.9, 1.1, 1.1, 0.8]])[..., None]
    track = {
        "multipliers": moduli,
        "residual": np.array([[0, 0, 0, 1e-4, 0]]),
        "lost": np.zeros((1, 5), bool),
        "moved": np.zeros((1, 5)),
    }
    none = {"basin": np.zeros((1, 4, 2), bool), "ended": np.zeros((1, 4, 2), bool)}
    events = event_table(none, track, 0.1)["stability"]
    # Update 1 changes the stability, update 2 loses the point; what follows an unknown point is not judged.
    assert events[0, :, 1].tolist() == [False, True, True, False]
    assert events[0, :, 0].tolist() == [False, False, True, True]


def test_analytic_a_jump_to_another_point_is_no_bifurcation():
    track = {
        "multipliers": np.array([[0.9, 1.1, 0.9]])[..., None],
        "residual": np.zeros((1, 3)),
        "lost": np.zeros((1, 3), bool),
        "moved": np.array([[0, 0.5, 0.01]]),
    }
    events = stability_events(track, 0.1)
    assert events["jumps"].tolist() == [[True, False]]
    assert events["changed"].tolist() == [[False, True]]
    record = tracking_record(track, 0.1)
    assert record["share_unstable_of_known"].tolist() == pytest.approx([1 / 3])
    assert record["jumps_by_limit"] == {"0.025": 1, "0.05": 1, "0.1": 1, "0.2": 1, "0.4": 1}


def test_property_every_side_gets_its_verdict_and_the_number_of_tests():
    rng = np.random.default_rng(0)
    spike = rng.random((4, 500)) < 0.03
    chance = association(spike, rng.random(spike.shape) < 0.1, 200)
    aligned = association(spike, spike, 999)
    table = {g: {s: dict.fromkeys(EVENTS, chance) for s in SIDES} for g in GROUPS}
    table["clipped"]["before"] = dict.fromkeys(EVENTS, aligned)
    found = verdicts(table)
    assert found["tests"] == 24
    assert found["any"]["clipped"]["before"]["p_value_bonferroni"] == pytest.approx(0.024)
    lines = verdict_lines(found)
    assert sum("spikes (" in line for line in lines) == 6
    (line,) = [line for line in lines if "clipped, before" in line and "unclipped" not in line]
    assert line.endswith(": more than by chance")


def test_integration_a_report_on_runs_without_a_spike_says_so():
    events = {key: np.zeros((2, 30, 2), bool) for key in EVENTS}
    table = association_table(association, np.array([np.inf, 1.0]), np.zeros((2, 30), bool), events, 10)
    assert "no spikes" in "\n".join(verdict_lines(verdicts(table)))
    assert any(line.split()[-4:] == ["0.000", "-", "0.000", "1.0000"] for line in table_lines(table))
    assert draw_association(table).axes
    plt.close("all")
