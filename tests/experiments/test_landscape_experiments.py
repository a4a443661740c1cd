"""The experiments on error surfaces, at small settings."""

import json
import re

import numpy as np
import pytest
from experiments import cliff_law, common, stability_map

from cliffs.landscape import Surface
from cliffs.plotting import figure, plot_surface_3d, surface_html


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
    # 40 updates of at most 1e-5 cannot cross the box.
    assert 0 < metrics["clipped_cells_that_cannot_leave"] < metrics["clipped_cells"] == 8
    assert (folder / "stability_map.png").stat().st_size > 10_000


def test_analytic_verdict_counts_laws_of_networks_that_learned():
    def row(width, direction="random 0", **change):
        t = np.array([20.0, 40, 60, 80, 100])
        from cliffs.landscape import compare_laws

        return {
            "network": 0, "direction": direction, "learned": True, "peak": 1 / width(t), "width": width(t),
            "resolved": np.ones(5, bool), "cut_off": np.zeros(5, bool),
            "width_laws": compare_laws(t, width(t))._asdict(),
        } | change  # fmt: skip

    rows = [row(lambda t: 1 / t), row(lambda t: t**-2), row(lambda t: np.exp(-0.1 * t), "gradient")]
    verdict = cliff_law.judge([
        *rows, row(lambda t: t**-9, network=1, learned=False),
        row(lambda t: t**-3, "hessian", resolved=np.arange(5) < 4),
    ])  # fmt: skip
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


def test_documented_a_surface_with_holes_keeps_its_paths():
    axis = np.linspace(0, 1, 5)
    z = np.add.outer(np.zeros(5), np.arange(5.0))
    path = (axis, axis, np.arange(5.0))
    for hole in (np.nan, np.inf):
        broken = z.copy()
        broken[2, 2] = hole
        # Descending coordinates as well.
        for x in (axis, axis[::-1]):
            fig, ax = figure(subplot_kw={"projection": "3d"})
            shape = plot_surface_3d(ax, Surface((x, axis), broken, None), {"clipped": path})
            fig.canvas.draw()
            np.testing.assert_allclose(ax.lines[-1].get_data_3d()[2], np.arange(5.0) + 0.012 * 4)
            assert shape.get_clim() == (0, 4)
    page = surface_html(Surface((axis[::-1], axis), z, None), {"clipped": path})
    assert "null" not in re.search(r"const D=(.*);\n", page).group(1)


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
