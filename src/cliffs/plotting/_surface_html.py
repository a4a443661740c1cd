"""A rotatable error surface as one small HTML file that needs nothing else: no library, no network.

The page is surface.html beside this file; the data take the place of `__DATA__`.
"""

import importlib.resources
import json
from collections.abc import Mapping

import numpy as np

from cliffs.landscape import Surface
from cliffs.plotting._style import COLORS


def surface_html(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None,
    *,
    names: tuple[str, str, str] = ("direction 1", "direction 2", "loss"),
    title: str = "Error surface",
    max_points: int = 90,
) -> str:
    """A page that draws the surface on a canvas: drag to turn, wheel to zoom, double click to reset.

    **Arguments**

    - `surface`: two-dimensional and finite; thinned out to at most `max_points` along each direction.
    - `paths`: for each label the two coordinates and the loss of the path's points; points off the rectangle are
      left out, with the segments to them.
    - `names`: of the three axes; `title`.

    **Returns** the page as text, about 60 kB for 90 x 90 points.

    **Raises** `ValueError` for a surface that is not two-dimensional or not finite.

    >>> axis = np.linspace(0, 1, 3)
    >>> page = surface_html(Surface((axis, axis), np.ones((3, 3)), None), {"clipped": (axis, axis, axis)})
    >>> page.startswith("<!doctype html>"), "http" in page
    (True, False)
    """
    z = np.asarray(surface.loss, float)
    if z.ndim != 2 or not np.isfinite(z).all():
        raise ValueError(f"surface must be two-dimensional and finite, got shape {z.shape}")
    keep = [np.unique(np.linspace(0, n - 1, min(n, max_points)).round().astype(int)) for n in z.shape]
    x, y = (np.asarray(a, float)[k] for a, k in zip(surface.offsets, keep))
    z = z[np.ix_(*keep)]

    def short(values):
        return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]

    lines = []
    for label, (px, py, pz) in (paths or {}).items():
        px, py, pz = (np.asarray(p, float) for p in (px, py, pz))
        outside = (px < x.min()) | (px > x.max()) | (py < y.min()) | (py > y.max())
        row = [short(np.where(outside, np.nan, p)) for p in (px, py, pz)]
        lines.append({"label": label, "color": COLORS.get(label, COLORS["accent"]), "points": list(zip(*row))})
    data = {
        "x": short(x),
        "y": short(y),
        "z": [short(row) for row in z],
        "paths": lines,
        "names": names,
        "title": title,
    }
    page = importlib.resources.files("cliffs.plotting").joinpath("surface.html").read_text()
    return page.replace("__DATA__", json.dumps(data, separators=(",", ":")).replace("</", "<\\/"))
