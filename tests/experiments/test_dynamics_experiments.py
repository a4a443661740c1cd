"""Small parts of the experiments on dynamics: the places of a scan, and what a spectrum resolves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.figures import input_driven
from experiments.hypotheses import order_to_chaos

from cliffs.spectra import kaplan_yorke_dimension


@pytest.mark.parametrize("count", [800, 801])
def test_property_no_place_of_the_scan_is_on_the_boundary(x64, count):
    """A place on the bisected boundary would make the peak of the slopes agree with it by construction."""
    places = np.asarray(input_driven.scan_places(0.3, count))
    spacing = places[1] - places[0]
    assert len(places) == count
    assert np.sort(np.abs(places - 0.3))[:2] == pytest.approx([spacing / 2] * 2, rel=1e-6)


def test_analytic_an_unresolved_exponent_is_neither_positive_nor_a_dimension():
    """At gain 1 the largest exponent is 0, of which a run of T steps shows a few 1/T of either sign."""
    above = order_to_chaos.resolved_spectra(np.array([[4e-3, -0.1], [0.2, -0.1]]), 600)
    assert (above > 0).sum(1).tolist() == [0, 1]
    dimension = jax.vmap(kaplan_yorke_dimension)(jnp.asarray(above))
    assert dimension.tolist() == [0.0, 2.0]
