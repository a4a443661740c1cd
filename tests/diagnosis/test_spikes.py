"""Gradient spikes and the test of what they go together with."""

import math

import numpy as np
import pytest

from cliffs.diagnosis import gradient_spikes, spike_association


def test_analytic_spikes_are_found_against_a_drifting_level():
    norms = np.exp(np.linspace(0, 4, 400))[None] * np.ones((2, 1))
    norms[0, [50, 200, 390]] *= 8
    norms[1, 10] *= 4
    found = gradient_spikes(norms, 5.0, 51)
    assert np.flatnonzero(found[0]).tolist() == [50, 200, 390]
    assert not found[1].any()
    np.testing.assert_array_equal(gradient_spikes(norms[0]), found[0])


def test_parity_scipys_median_filter():
    ndimage = pytest.importorskip("scipy.ndimage")
    norms = np.random.default_rng(0).lognormal(0, 1.5, (3, 300))
    typical = np.stack([ndimage.median_filter(row, 31, mode="nearest") for row in norms])
    np.testing.assert_array_equal(gradient_spikes(norms, 3.0, 31), norms > 3.0 * typical)


def test_property_norms_that_are_not_finite_are_spikes_and_do_not_hide_others():
    norms = np.ones(60)
    norms[[10, 11, 12, 40]] = [np.nan, np.inf, 1.0, 30.0]
    assert np.flatnonzero(gradient_spikes(norms, window=5)).tolist() == [10, 11, 40]


def test_property_association_tells_aligned_events_from_independent_ones():
    rng = np.random.default_rng(0)
    spike = rng.random((4, 500)) < 0.03
    aligned = spike_association(spike, spike | (rng.random(spike.shape) < 0.05), 400)
    assert aligned.event_given_spike == 1.0
    assert aligned.p_value == pytest.approx(1 / 401)
    assert aligned.shifted[1] < 0.3
    values = [spike_association(spike, rng.random(spike.shape) < 0.1, 200, seed=k) for k in range(40)]
    assert 0.25 < np.mean([v.p_value for v in values]) < 0.75  # a p-value is uniform where there is nothing
    assert 0.25 < np.mean([v.fisher_p_value for v in values]) < 0.8
    cells = spike_association(spike, spike, 10)
    assert cells.spike_given_event == 1.0
    assert cells.spike_rate == pytest.approx(spike.mean())
    nothing = spike_association(spike & False, spike, 10)
    assert math.isnan(nothing.event_given_spike)
    assert (nothing.p_value, nothing.fisher_p_value) == (1.0, 1.0)


def test_property_clustered_events_fool_fishers_test_but_not_the_shifts():
    """Spikes and events in one burst of 50 steps for each run, at independent places: nothing goes with anything."""
    rng = np.random.default_rng(1)
    fooled, kept = [], []
    for seed in range(60):
        spike, event = np.zeros((2, 2, 400), bool)
        for run in range(2):
            for x in (spike, event):
                start = rng.integers(350)
                x[run, start : start + 50] = True
        found = spike_association(spike, event, 199, seed=seed)
        fooled.append(found.fisher_p_value < 0.05)
        kept.append(found.p_value < 0.05)
    assert np.mean(fooled) > 0.25
    assert np.mean(kept) < 0.15


@pytest.mark.parametrize("table", [(3, 9, 20, 100), (0, 5, 5, 30), (7, 7, 12, 40), (12, 30, 25, 60)])
def test_parity_fishers_exact_test(table):
    stats = pytest.importorskip("scipy.stats")
    both, spikes, events, updates = table
    spike, event = np.zeros((2, updates), bool)
    spike[:spikes] = True
    event[spikes - both : spikes - both + events] = True
    assert int((spike & event).sum()) == both
    want = stats.fisher_exact(
        [[both, spikes - both], [events - both, updates - spikes - events + both]], alternative="greater"
    )[1]
    assert spike_association(spike, event, 1).fisher_p_value == pytest.approx(want, rel=1e-9)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gradient_spikes(np.ones((2, 3, 4))), "norms must be"),
        (lambda: gradient_spikes(-np.ones(9)), r"norms must not be negative, got -1\.0"),
        (lambda: gradient_spikes(np.ones(9), factor=1.0), "factor"),
        (lambda: gradient_spikes(np.ones(9), window=4), "window"),
        (lambda: spike_association(np.ones(3, bool), np.ones(4, bool)), "spikes and events"),
        (lambda: spike_association(np.ones(3, bool), np.ones(3, bool), 0), "num_shifts"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
