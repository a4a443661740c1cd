"""The heat map of a sweep shows what its table says."""

import dataclasses

import numpy as np
import pytest
from sweeps import small

from cliffs.sweeps import SweepResult, product_grid


def made_up():
    """Two rates, three thresholds, four seeds; the share that solves grows with both; one pair diverges throughout."""
    grid = product_grid(rate=[0.1, 0.2], max_norm=[0.5, 1.0, np.inf], seed=[0, 1, 2, 3])
    solves = grid["seed"] < np.repeat([0, 1, 2, 2, 3, 4], 4)
    gone = (grid["rate"] == 0.2) & np.isinf(grid["max_norm"])
    error = np.where(solves, 0.0, 1.0)[:, None]
    return SweepResult(grid, {}, {}, {"error": error}, np.where(solves, 10, -1), np.where(gone, 3, -1), np.full(24, 1))


def test_analytic_cells_are_the_rates_of_the_table():
    pytest.importorskip("matplotlib")
    from cliffs.plotting import plot_heatmap

    ax = plot_heatmap(made_up(), "max_norm", "rate")
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0, 0.25, 0.5], [0.5, 0.75, 1]])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.5", "1", "inf"]
    assert sorted(t.get_text() for t in ax.texts) == ["0", "0.25", "0.5", "0.5", "0.75", "1"]
    errors = plot_heatmap(made_up(), "max_norm", "rate", value="error").images[0].get_array()
    np.testing.assert_array_equal(
        np.ma.getmaskarray(np.ma.asarray(errors)), [[False] * 3, [False, False, True]]
    )  # all of these diverged


def test_analytic_nan_and_complex_numbers_have_their_cells():
    pytest.importorskip("matplotlib")
    from cliffs.plotting import plot_heatmap

    none = np.full(4, -1)
    grid = {"x": np.array([np.nan, np.nan, 1.0, 1.0]), "z": np.array([1j, 2.0, 2.0, 1j])}
    result = SweepResult(grid, {}, {}, {}, np.array([5, -1, 5, 5]), none, np.full(4, 10))
    np.testing.assert_array_equal(plot_heatmap(result, "x", "z").images[0].get_array(), [[1, 1], [1, 0]])


@pytest.mark.wrong_arguments
def test_wrong_names_are_refused():
    pytest.importorskip("matplotlib")
    from cliffs.plotting import plot_heatmap

    with pytest.raises(ValueError, match="by must name columns of the grid"):
        plot_heatmap(small.run(), "lr", "seed")
    untold = dataclasses.replace(made_up(), solved_at=np.full(24, -1))
    with pytest.raises(ValueError, match=r"value='success' needs an entry 'solved' .* choose one of .*'error'"):
        plot_heatmap(untold, "rate", "max_norm")
    with pytest.raises(ValueError, match=r"value must be one of .*'success'.*got 'accuracy'"):
        plot_heatmap(small.run(), "rate", "seed", value="accuracy")
