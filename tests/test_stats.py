"""Intervals and corrections against scipy and closed forms."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from cliffs.stats import bootstrap_interval, holm, wilson_interval


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "trials"), [(0, 8), (3, 8), (8, 8), (16, 16), (37, 100), (1, 1), (5, 10**9)])
def test_parity_wilson_interval_against_scipy(successes, trials, confidence):
    want = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose(
        np.array(wilson_interval(successes, trials, confidence)), (want.low, want.high), atol=1e-13
    )


def test_analytic_wilson_interval_of_no_and_of_only_successes():
    # With r = 0 the interval is [0, z^2 / (n + z^2)]; with r = 1 its mirror image.
    z = 1.959963984540054
    for n in (1, 7, 100):
        assert wilson_interval(0, n)[0] == 0.0
        assert wilson_interval(0, n)[1] == pytest.approx(z**2 / (n + z**2), rel=1e-12)
        assert wilson_interval(n, n)[1] == 1.0
        assert wilson_interval(n, n)[0] == pytest.approx(n / (n + z**2), rel=1e-12)


def test_invariance_wilson_interval_of_arrays_is_that_of_their_entries():
    low, high = wilson_interval(np.arange(5), [4, 5, 6, 7, 8])
    single = [wilson_interval(k, n) for k, n in zip(range(5), (4, 5, 6, 7, 8))]
    np.testing.assert_array_equal(np.stack([low, high], 1), single)


def test_property_wilson_interval_covers_the_true_rate_as_often_as_it_says():
    k = np.arange(51)
    low, high = wilson_interval(k, 50)
    coverage = [
        scipy.stats.binom.pmf(k, 50, rate)[(low <= rate) & (rate <= high)].sum() for rate in np.linspace(0.05, 0.95, 91)
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.01)
    assert np.min(coverage) > 0.9


def test_parity_bootstrap_interval_against_scipy():
    values = np.random.default_rng(3).lognormal(size=40)
    for statistic in (np.median, np.mean):
        ours = bootstrap_interval(values, statistic, 0.9, num_resamples=20_000)
        want = scipy.stats.bootstrap(
            (values,), statistic, confidence_level=0.9, n_resamples=20_000, method="percentile", rng=1
        ).confidence_interval
        # Two samples of the same distribution: their ends differ by the noise of 20,000 draws.
        np.testing.assert_allclose(np.array(ours), want, atol=0.03 * values.std())


def test_analytic_bootstrap_interval_of_a_mean_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(2.0, 3.0, 2000)
    low, high = bootstrap_interval(values, np.mean, num_resamples=4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_invariance_bootstrap_draws_seeds_together_for_all_columns():
    values = np.random.default_rng(1).normal(size=(12, 3))
    low, high = map(np.asarray, bootstrap_interval(values, seed=5))
    assert low.shape == high.shape == (3,)
    for k in range(3):
        assert bootstrap_interval(values[:, k], seed=5) == (low[k], high[k])
    one, other = (bootstrap_interval(values[:, 0], np.mean, seed=seed) for seed in (5, 6))
    assert one != other
    assert bootstrap_interval([4.0]) == (4.0, 4.0)


def test_analytic_bootstrap_says_nan_where_a_seed_has_none():
    assert all(math.isnan(end) for end in bootstrap_interval([1.0, 2.0, math.nan]))


def test_property_holm_is_the_largest_correction_of_the_ordered_tests():
    p = np.random.default_rng(0).random(20) ** 4
    adjusted = holm(p)
    order = np.argsort(p)
    # By definition: max over the tests up to this one of (n - k) p, at most 1.
    want = [min(1.0, float(max((20 - k) * p[order[k]] for k in range(rank + 1)))) for rank in range(20)]
    np.testing.assert_allclose(adjusted[order], want, rtol=1e-15)
    assert (adjusted >= p).all()
    assert (adjusted <= np.minimum(1, 20 * p)).all()  # never more than Bonferroni


def test_analytic_holm_of_a_textbook_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_integration_holm_rejects_what_its_step_down_rule_rejects():
    for trial in range(50):
        p = np.random.default_rng(trial).random(8) ** 6
        rejected = np.zeros(8, bool)
        for k, i in enumerate(np.argsort(p)):
            if p[i] > 0.05 / (8 - k):
                break
            rejected[i] = True
        np.testing.assert_array_equal(holm(p) <= 0.05, rejected)


def test_property_the_library_loads_no_scipy():
    code = "import cliffs, cliffs.stats, cliffs.records, sys; assert 'scipy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: wilson_interval(3, 0), "trials must be at least 1, got 0"),
        (lambda: wilson_interval(9, 8), "successes must be between 0 and trials=8, got 9"),
        (lambda: wilson_interval(-1, 8), "successes must be"),
        (lambda: wilson_interval(1, 8, 95), "confidence must be between 0 and 1, got 95"),
        (lambda: bootstrap_interval([]), r"at least one seed, got shape \(0,\)"),
        (lambda: bootstrap_interval(3.0), r"at least one seed, got shape \(\)"),
        (lambda: bootstrap_interval([1.0], confidence=0), "confidence must be"),
        (lambda: bootstrap_interval([1.0], num_resamples=0), "num_resamples must be at least 1, got 0"),
        (lambda: bootstrap_interval([1.0, 2.0], lambda x, axis: 3.0), "statistic must reduce the axis"),
        (lambda: holm([0.5, 1.5]), "p_values must be"),
        (lambda: holm([0.5, math.nan]), "p_values must be"),
    ],
)
def test_wrong_arguments_are_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
