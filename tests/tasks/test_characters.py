"""Contiguous batches and carried state of the character task."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliffs import recurrent, tasks


@given(length=st.integers(35, 400), batch=st.integers(1, 5), piece=st.integers(1, 6), ahead=st.integers(1, 5))
def test_property_lanes_read_on_and_targets_are_characters_ahead(length, batch, piece, ahead):
    stream = np.arange(length)
    pieces = tasks.contiguous_pieces(stream, batch, piece, ahead)
    for lane in range(batch):
        read = pieces.inputs[:, :, lane].ravel()
        assert (np.diff(read) == 1).all()
    np.testing.assert_array_equal(pieces.targets, pieces.inputs + ahead)
    assert pieces.inputs.size <= length - ahead
    assert pieces.inputs.size > length - ahead - batch * piece


def test_invariance_carried_state_equals_one_long_unroll(x64):
    step = recurrent.rnn_step("logistic")
    weights = recurrent.gaussian(0.5)
    params = recurrent.init_model(
        jax.random.key(0), 7, 4, 7, w_rec=weights, w_in=weights, w_out=weights, bias=False, dtype=jnp.float64
    )
    stream = np.asarray(jax.random.randint(jax.random.key(1), (61,), 0, 7))
    start = jnp.zeros((2, 4))
    short = tasks.bits_per_character(step, params, tasks.contiguous_pieces(stream, 2, 5), start)
    whole = tasks.bits_per_character(step, params, tasks.contiguous_pieces(stream, 2, 30), start)
    assert float(short) == pytest.approx(float(whole), rel=1e-12)


@pytest.mark.parametrize("symbols", [2, 49, 50])
def test_analytic_a_uniform_model_costs_log2_of_the_alphabet(symbols):
    params = recurrent.paper_init("sigmoid", jax.random.key(0), symbols, 3, symbols)
    params = params._replace(readout=jax.tree.map(jnp.zeros_like, params.readout))
    pieces = tasks.contiguous_pieces(np.arange(100) % symbols, 3, 8)
    bits = tasks.bits_per_character(recurrent.rnn_step("logistic"), params, pieces, jnp.zeros((3, 3)))
    assert float(bits) == pytest.approx(math.log2(symbols), rel=1e-6)


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    with pytest.raises(ValueError, match="too short"):
        tasks.contiguous_pieces(np.arange(10), 3, 4)
    with pytest.raises(ValueError, match="batch_size"):
        tasks.contiguous_pieces(np.arange(10), 0, 4)
