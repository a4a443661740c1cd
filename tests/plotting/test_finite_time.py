"""The picture of finite-time exponents: readable for few samples and for narrow distributions."""

import numpy as np
import pytest

from cliffs.plotting import figure, figure_of, plot_finite_time_distribution


def widths(ax):
    """Of all bars, as shares of the axis."""
    reach = np.ptp(ax.get_xlim())
    return np.concatenate([np.diff(np.unique(patch.get_path().vertices[:, 0])) for patch in ax.patches]) / reach


@pytest.mark.parametrize("count", [60, 500, 20_000])
def test_property_no_bar_is_a_hairline_however_few_or_narrow(count):
    rng = np.random.default_rng(0)
    samples = np.stack([rng.normal(0, 1, count), rng.normal(-3, 1e-4, count), np.full(count, 2.0)], 1)
    ax = plot_finite_time_distribution(samples)
    assert widths(ax).min() > 1 / 300
    # Twice the cube root of the samples, with room for the last.
    assert len(widths(ax)) <= 2 * np.ceil(2 * count ** (1 / 3)) + 3
    assert ax.get_ylim()[1] >= 1


def test_property_few_samples_are_all_shown():
    samples = np.random.default_rng(1).normal(size=(8, 3))
    samples[2, 1] = np.nan
    _, ax = figure()
    assert plot_finite_time_distribution(samples, ax, names=["a", "b", "c"]) is ax
    dots = [np.asarray(line.get_xdata()) for line in ax.lines if line.get_marker() == "."]
    assert [len(x) for x in dots] == [8, 7, 8]
    np.testing.assert_array_equal(dots[0], samples[:, 0])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]


def test_analytic_equal_samples_and_no_samples_are_drawn():
    for samples in (np.zeros((4, 5, 2)), np.zeros((200, 2)), np.full((200, 1), np.nan)):
        ax = plot_finite_time_distribution(samples)
        figure_of(ax).draw_without_rendering()
