"""One convention for all pictures: `plot_x(result, ax=None) -> Axes`."""

import inspect
import io

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from tests.untyped import present, untyped

from cliffs import plotting
from cliffs.landscape import PathProjection, Surface
from cliffs.spectra import LyapunovDistribution

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


def test_documented_a_figure_of_its_own_has_a_legend_and_axes_given_have_none():
    path = {"clipped": (np.arange(2.0), np.ones(2))}
    _, ax = plotting.figure()
    assert plotting.plot_paths(path).get_legend() is not None
    assert plotting.plot_paths(path, ax).get_legend() is None
    legend = present(plotting.plot_singular_values(np.zeros((2, 4)), [1, 2]).get_legend())
    assert [text.get_text() for text in legend.get_texts()] == ["largest", "median", "smallest"]
    assert plotting.plot_attractors(np.zeros(2), np.ones((2, 3, 4, 1))).get_legend() is None  # nothing to name
    assert plotting.plot_attractors(np.zeros(2), np.ones((2, 3, 4, 1)), ax).get_xlabel() == ""


def test_property_the_legend_of_a_diagnosis_hides_no_spike():
    norms = np.random.default_rng(0).lognormal(0.0, 0.3, 120)
    norms[[5, 40, 119]] = 50.0
    ax = plotting.plot_diagnosis(norms, max_norm=1.0)
    fig = plotting.figure_of(ax)
    fig.savefig(io.BytesIO())  # places the legend
    box = present(ax.get_legend()).get_window_extent().transformed(ax.transData.inverted())
    assert box.y0 > 50.0


def test_documented_colours_of_a_surface_are_named_and_arrows_without_one_are_seen():
    axis = jnp.linspace(0, 1, 3)
    surface = Surface((axis, axis), jnp.ones((3, 3)), jnp.ones((3, 3)), step=jnp.ones((3, 3, 2)))
    for quantity, label in (("loss", "loss"), ("grad_norm", "log10 of the gradient norm")):
        fig = plotting.figure_of(plotting.plot_surface(surface, quantity=quantity))
        assert fig.axes[1].get_ylabel() == label
    colors = np.asarray(plotting.plot_steps(surface).collections[0].get_facecolor())
    assert to_hex(tuple(colors[0])) == plotting.COLORS["stable"]


LINE = Surface((jnp.arange(3.0),), jnp.ones(3), None)
GRID = Surface((jnp.arange(3.0), jnp.arange(3.0)), jnp.ones((3, 3)), None)
SPREAD = untyped(LyapunovDistribution(jnp.zeros((4, 2)), jnp.zeros(2), jnp.zeros(2), jnp.zeros((2, 3))))
WRONG = {
    "one direction": (lambda: plotting.plot_surface(LINE), r"surface must be two-dimensional, got .* \(3,\)"),
    "points first": (
        lambda: plotting.plot_paths(untyped({"a": np.ones((9, 2))})),
        r"'a' must be the two coordinates of .*\(9, 2\)",
    ),
    "a record": (
        lambda: plotting.plot_paths(untyped({"a": PathProjection(jnp.ones((9, 2)), jnp.ones(9))})),
        "'a' must be the two",
    ),
    "no last loss": (
        lambda: plotting.plot_surface_3d(GRID, {"a": (np.ones(4), np.ones(4), np.ones(3))}),
        r"'a' must be the two coordinates and the loss .* got shapes \[\(4,\), \(4,\), \(3,\)\]",
    ),
    "times": (
        lambda: plotting.plot_singular_values(np.ones((5, 4)), [1, 3]),
        r"logs must be \[seeds, 2, n\] .*\(5, 4\)",
    ),
    "a distribution": (
        lambda: plotting.plot_finite_time_distribution(SPREAD),
        r"exponents must be an array, got a LyapunovDistribution of \['exponents', 'mean'",
    ),
    "both results": (
        lambda: plotting.plot_temporal_components(untyped((np.ones((3, 3)), {"w": np.ones(2)}))),
        "norms must be an array, got a tuple: give the part",
    ),
    "transposed basins": (
        lambda: plotting.plot_basins(np.ones((3, 2), int), np.arange(2), np.arange(3)),
        r"labels must be \[horizontal, vertical\], \(2, 3\), got shape \(3, 2\)",
    ),
}


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_named_before_anything_is_drawn(case):
    draw, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        draw()
