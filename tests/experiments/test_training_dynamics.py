"""The counting behind the experiment on gradient spikes and crossings."""

import numpy as np
import pytest
from experiments.training_dynamics import association, event_table, spikes


def test_analytic_spikes_are_found_against_a_drifting_level():
    norms = np.exp(np.linspace(0, 4, 400))[None] * np.ones((2, 1))
    norms[0, [50, 200, 390]] *= 8
    norms[1, 10] *= 4
    found = spikes(norms, 5.0, 51)
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
    track = {"multipliers": moduli, "residual": np.array([[0, 0, 0, 1.0, 0]]), "lost": np.zeros((1, 5), bool)}
    none = {"basin": np.zeros((1, 4, 2), bool), "ended": np.zeros((1, 4, 2), bool)}
    events = event_table(none, track)["stability"]
    # Update 1 changes the stability, update 2 loses the point; what follows an unknown point is not judged.
    assert events[0, :, 1].tolist() == [False, True, True, False]
    assert events[0, :, 0].tolist() == [False, False, True, True]
