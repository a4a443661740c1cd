"""Annotated shapes are checked while the tests run."""

import jax.numpy as jnp
import jaxtyping
import pytest

from cliffs import spectra


def test_wrong_a_call_against_its_annotation_is_noticed():
    with pytest.raises(jaxtyping.TypeCheckError, match="vectors"):
        spectra.multiply_by_product(lambda p, x, u: x, None, jnp.ones((3, 2)), None, jnp.ones(2))
