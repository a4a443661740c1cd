"""The lab's computing against closed forms and the library's records; that it loads nothing that draws."""

import ast
import json
import pathlib

import numpy as np
import pytest
from experiments import runner
from experiments.lab import bifurcations, cliff, clipping, descent, growth, look

ROOT = pathlib.Path(__file__).parents[2]
NEEDS_MARIMO = {"pad.py", "page.py"}


def test_invariance_only_two_files_of_the_lab_need_more_than_the_library_and_none_is_an_experiment():
    files = sorted((ROOT / "experiments" / "lab").glob("*.py"))
    assert {path.name for path in files} > NEEDS_MARIMO
    for path in files:
        body = ast.parse(path.read_text()).body
        names = [a.name for node in body if isinstance(node, ast.Import) for a in node.names]
        names += [node.module or "" for node in body if isinstance(node, ast.ImportFrom)]
        drawing = {name.split(".")[0] for name in names} & {"marimo", "plotly", "anywidget", "traitlets", "matplotlib"}
        assert not drawing or path.name in NEEDS_MARIMO, path.name
    assert not [name for name in runner.experiments() if "/lab" in name and "benchmarks" not in name]
    assert "experiments/lab" not in runner.listing()


def test_analytic_each_rule_clips_the_dragged_gradient_to_its_region():
    found = clipping.compute(3.0, 4.0, 1.0, 0.5, 3.0)
    norm, value, leaf, ema = (found.outcomes[name] for name in clipping.RULES)
    np.testing.assert_allclose([norm.bias, norm.weight], [0.6, 0.8])
    # Four equal entries of 2 are cut to 1 each: a part of norm 2.
    np.testing.assert_allclose([value.bias, value.weight], [1.0, 2.0])
    np.testing.assert_allclose([leaf.bias, leaf.weight], [1.0, 1.0])
    np.testing.assert_allclose([ema.bias, ema.weight], [0.9, 1.2])
    turned = np.degrees([np.arctan2(2, 1), np.arctan2(1, 1)] - np.arctan2(4, 3))
    np.testing.assert_allclose([value.angle, leaf.angle], np.abs(turned), rtol=1e-6)
    assert norm.angle == ema.angle == 0
    assert "value clipping turns it by 10" in clipping.told(found)


def test_parity_both_descents_are_those_of_the_recorded_figure():
    found = descent.compute(5.0, -2.3, 0.1, 0.1)
    record = json.loads((ROOT / "results" / "figures" / "error_surface" / "metrics.json").read_text())
    for name, path in zip(("unclipped", "clipped"), found.paths):
        expected = record["metrics"]["paths"][name]
        np.testing.assert_allclose(path.longest, expected["longest_step"], rtol=1e-6)
    np.testing.assert_allclose(
        [found.paths[0].w[-1], found.paths[0].b[-1]], record["metrics"]["paths"]["unclipped"]["end"], rtol=1e-6
    )
    assert [descent.outside(path) for path in found.paths] == [True, False]
    assert descent.told(found).count("thrown out") == 1


def test_analytic_the_gradient_of_a_linear_network_is_a_power_of_its_matrix():
    found = growth.compute(1.3, 0, "identity")
    # The sum of a product's logarithms is log |det W^T|.
    np.testing.assert_allclose(found.log_product.sum(), growth.STEPS * np.log(found.singular).sum(), rtol=1e-6)
    np.testing.assert_allclose(found.radius, 1.3, rtol=1e-6)
    # dE/dx_T is a vector of ones; over many steps the norm grows by the spectral radius each.
    np.testing.assert_allclose(found.norms[-1], growth.UNITS**0.5, rtol=1e-9)
    assert 1.2 < found.growth ** (1 / (growth.STEPS - 1)) < 1.4
    assert growth.verdict(found) == "explodes"
    assert found.can_explode


def test_analytic_the_wall_of_the_one_unit_map_follows_its_law():
    found = cliff.compute(5.0, 60, -2.66)
    s = 1 / (1 + np.exp(-0.5))
    # At the wall the first state is itself the unstable fixed point.
    np.testing.assert_allclose(found.wall.boundary, 0.5 - 5 * s, rtol=1e-9)
    np.testing.assert_allclose(found.wall.multiplier, 5 * s * (1 - s), rtol=1e-7)
    m = found.wall.multiplier
    # To 50 digits: peak -> 1.81847 m^T, width -> 0.16121 m^-T.
    np.testing.assert_allclose([found.peak / m**60, found.width * m**60], [1.81847, 0.16121], rtol=5e-3)
    assert found.wall.law is not None
    np.testing.assert_allclose(found.wall.law.peak_constant, 1.81847, rtol=1e-3)
    assert found.resolved
    assert f"{found.peak:.0f}" in cliff.told(found)
    assert np.nanmax(found.grad_norm) >= found.peak * (1 - 1e-6)


def test_wrong_numbers_that_are_not_finite_are_gaps():
    assert look.numbers_of([1.0, np.nan, np.inf]) == [1.0, None, None]
    assert look.plain({"a": np.array([1.0, np.nan]), "b": "x", "c": True}) == {"a": [1.0, None], "b": "x", "c": True}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "0.0123"), (5751.2, "5751"), (1.234e-7, "1.23 × 10⁻⁷"), (-2.5, "−2.5"), (0, "0"), (np.inf, "∞")],
)
def test_documented_numbers_of_sentences_are_short(value, text):
    assert look.brief(value) == text


def test_property_every_picture_names_its_axes_and_keeps_to_the_colours():
    pytest.importorskip("plotly", reason="plotly is not installed: pip install '.[lab]'")
    tabs = (
        (clipping, clipping.compute(3.0, 4.0, 1.0, 0.5, 3.0)),
        (descent, descent.compute(5.0, -2.3, 0.1, 0.1)),
        (growth, growth.compute(1.3, 0, "identity")),
    )
    for tab, found in tabs:
        for dark in (False, True):
            for title, figure in tab.figures(found, dark).items():
                assert title
                assert figure.layout.xaxis.title.text
                assert figure.layout.paper_bgcolor == look.colors(dark)["card"]
                assert figure.layout.meta
                used = {trace.line.color for trace in figure.data if trace.type == "scatter" and trace.line.color}
                assert used <= set(look.colors(dark).values())
        assert all(f"cliffs.{name}" for name in tab.BEHIND)


def test_documented_the_functions_named_under_the_controls_exist():
    from experiments.lab import catastrophe, omega, training_run

    import cliffs

    for tab in (bifurcations, catastrophe, cliff, clipping, descent, growth, omega, training_run):
        for name in tab.BEHIND:
            thing = cliffs
            for part in name.split("."):
                thing = getattr(thing, part)
        assert tab.IDEA.strip()
