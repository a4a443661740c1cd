"""The surface in perspective, and as a page to turn by hand."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import present, untyped

from cliffs.landscape import Surface
from cliffs.plotting import figure_of, plot_surface_3d, surface_html


def jax_surface(x, y, loss):
    return Surface((jnp.asarray(x), jnp.asarray(y)), jnp.asarray(loss), None)


def test_documented_a_surface_with_holes_keeps_its_paths():
    axis = np.linspace(0, 1, 5)
    z = np.add.outer(np.zeros(5), np.arange(5.0))
    path = (axis, axis, np.arange(5.0))
    for hole in (np.nan, np.inf):
        broken = z.copy()
        broken[2, 2] = hole
        # Descending coordinates as well.
        for x in (axis, axis[::-1]):
            ax = plot_surface_3d(jax_surface(x, axis, broken), {"clipped": path})
            figure_of(ax).draw_without_rendering()
            np.testing.assert_allclose(untyped(ax.lines[-1]).get_data_3d()[2], np.arange(5.0) + 0.012 * 4)
            assert ax.collections[0].get_clim() == (0, 4)
    page = surface_html(jax_surface(axis[::-1], axis, z), {"clipped": path})
    assert "null" not in present(re.search(r"const D=(.*);\n", page)).group(1)


def test_integration_page_is_small_self_contained_and_holds_the_surface():
    x, y = np.linspace(4, 6, 200), np.linspace(-3, -2, 150)
    z = np.add.outer(x, 10 * y)
    path = (np.array([5.0, 5.5, 9.0, 5.1]), np.full(4, -2.5), np.ones(4))
    page = surface_html(jax_surface(x, y, z), {"clipped": path}, title="a </script> title", max_points=50)
    assert len(page) < 100_000
    assert not re.search(r"https?:|src=|@import|url\(", page)
    assert page.count("</script>") == 1
    data = json.loads(present(re.search(r"const D=(.*);\n", page)).group(1).replace("<\\/", "</"))
    assert (len(data["x"]), len(data["y"])) == (50, 50)
    np.testing.assert_allclose(data["z"], np.add.outer(data["x"], 10 * np.array(data["y"])), rtol=1e-3)
    assert data["paths"][0]["points"][2] == [None, None, None]  # off the rectangle
    assert data["paths"][0]["points"][1][:2] == [5.5, -2.5]
    assert data["title"] == "a </script> title"


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("loss", [np.ones(3), np.full((3, 3), np.nan)])
def test_wrong_surfaces_make_no_page(loss):
    axis = np.linspace(0, 1, 3)
    with pytest.raises(ValueError, match="two-dimensional and finite"):
        surface_html(jax_surface(axis, axis, loss))
