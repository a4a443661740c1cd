"""The stored reference numbers are what their script computes, and what an independent list has."""

import json

import numpy as np
import pytest
import reference_numbers
from conftest import SHARED


def same(ours, theirs):
    """The same tree of numbers, to double precision; what only one side has is passed over."""
    if isinstance(ours, dict):
        for key in ours.keys() & theirs.keys():
            same(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        np.testing.assert_allclose(float(ours), float(theirs), rtol=1e-14, atol=1e-15)


def test_documented_the_stored_numbers_are_what_the_script_computes(reference):
    assert reference_numbers.compute() == reference


def test_parity_an_independent_list_has_the_same_numbers(reference):
    path = SHARED / "reference" / "one_unit_map.json"
    if not path.exists():
        pytest.skip("the independent list is not on this machine (../shared/reference/one_unit_map.json)")
    same(reference, json.loads(path.read_text()))
