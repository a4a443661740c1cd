"""The experiments on error surfaces, at small settings."""

import json
import re

import numpy as np
import pytest
from experiments import cliff_law, common, stability_map

from cliffs.landscape import Surface
from cliffs.plotting.surface_html import surface_html


def test_integration_stability_map(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    folder = stability_map.main(stability_map.Config(starts=3, updates=40, rates=4, thresholds=3))
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
    assert (folder / "stability_map.png").stat().st_size > 10_000


def test_analytic_verdict_counts_laws():
    def row(width):
        t = np.array([20.0, 40, 60, 80, 100])
        from cliffs.cliff_scaling import compare_laws

        return {
            "peak": 1 / width(t), "width": width(t), "cut_off": np.zeros(5, bool),
            "width_laws": compare_laws(t, width(t))._asdict(),
        }  # fmt: skip

    verdict = cliff_law.judge([row(lambda t: 1 / t), row(lambda t: t**-2), row(lambda t: np.exp(-0.1 * t))])
    assert (verdict["exponential_better_by_4"], verdict["power_better_by_4"], verdict["undecided"]) == (1, 2, 0)
    assert verdict["median_exponent_of_width"] == pytest.approx(-2)
    assert verdict["width_first_over_last_length_quartiles"][1] == pytest.approx(25)


def test_integration_page_is_small_self_contained_and_holds_the_surface():
    x, y = np.linspace(4, 6, 200), np.linspace(-3, -2, 150)
    z = np.add.outer(x, 10 * y)
    path = (np.array([5.0, 5.5, 9.0, 5.1]), np.full(4, -2.5), np.ones(4))
    page = surface_html(Surface((x, y), z, None), {"clipped": path}, title="a </script> title", max_points=50)
    assert len(page) < 100_000
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert page.count("</script>") == 1
    data = json.loads(re.search(r"const D=(.*);\n", page).group(1).replace("<\\/", "</"))
    assert (len(data["x"]), len(data["y"])) == (50, 50)
    np.testing.assert_allclose(data["z"], np.add.outer(data["x"], 10 * np.array(data["y"])), rtol=1e-3)
    assert data["paths"][0]["points"][2] == [None, None, None]  # off the rectangle
    assert data["paths"][0]["points"][1][:2] == [5.5, -2.5]
    assert data["title"] == "a </script> title"


@pytest.mark.parametrize("loss", [np.ones(3), np.full((3, 3), np.nan)])
def test_wrong_use_of_the_page(loss):
    axis = np.linspace(0, 1, 3)
    with pytest.raises(ValueError, match="two-dimensional and finite"):
        surface_html(Surface((axis, axis), loss, None))
