"""One convention for all pictures: `plot_x(result, ax=None) -> Axes`."""

import inspect

import numpy as np
import pytest
from matplotlib.axes import Axes

from cliffs import plotting

DRAWING = [name for name in vars(plotting) if name.startswith("plot_")]


@pytest.mark.parametrize("name", DRAWING)
def test_documented_every_picture_takes_axes_last_and_returns_them(name):
    function = getattr(plotting, name)
    parameters = inspect.signature(function).parameters
    ordered = [p.name for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert ordered[-1] == "ax"
    assert parameters["ax"].default is None
    assert "**Returns** the Axes" in function.__doc__
    assert ">>> " in function.__doc__


def test_property_a_picture_is_drawn_on_the_axes_given():
    _, (first, second) = plotting.figure(1, 2)
    path = {"clipped": (np.arange(2.0), np.ones(2))}
    drawn = plotting.plot_paths(path, second)
    assert drawn is second
    assert not first.lines
    assert isinstance(plotting.plot_paths(path), Axes)
