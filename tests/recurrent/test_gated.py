"""flax cells as steps."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs import recurrent, tasks, training
from cliffs.recurrent import ModelParams, ReadoutParams, glorot

CELLS = [recurrent.simple_cell(5), recurrent.lstm_cell(5), recurrent.gru_cell(5)]


@pytest.mark.parametrize("step", CELLS, ids=lambda s: type(s.cell).__name__)
def test_parity_unroll_equals_flax_rnn(step):
    params = step.init(jax.random.key(0), 3)
    inputs = jax.random.normal(jax.random.key(1), (7, 2, 3))
    states = recurrent.unroll(step, params, step.initial_state((2,)), inputs)
    layer = nn.RNN(step.cell, time_major=True)
    start = step.initial_state((2,))
    want = layer.apply({"params": {"cell": params}}, inputs, initial_carry=start)
    np.testing.assert_allclose(step.features(states), untyped(want), atol=1e-6)


def test_analytic_open_forget_gate_keeps_the_cell(x64):
    step = recurrent.lstm_cell(4, forget_bias=100.0)
    params = step.init(jax.random.key(0), 2, jnp.float64)
    params = jax.tree.map(lambda p: p * (jnp.abs(p) > 50), params)  # all but the forget bias
    start = (jnp.arange(4.0), jnp.zeros(4))
    states = recurrent.unroll(step, params, start, jnp.zeros((50, 2)))
    np.testing.assert_allclose(states[0][-1], start[0], rtol=1e-12)


@pytest.mark.parametrize("step", CELLS, ids=lambda s: type(s.cell).__name__)
def test_integration_a_cell_trains_with_a_readout(step):
    params = ModelParams(step.init(jax.random.key(0), 6), ReadoutParams(glorot()(jax.random.key(1), (5, 4)), None))
    loss = training.classification_loss(step)
    batch = tasks.temporal_order(jax.random.key(2), 8, 10)
    (value, error), grads = jax.value_and_grad(loss, has_aux=True)(params, batch)
    assert 1.0 < value < 2.0
    assert 0 <= error <= 1
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.wrong_arguments
def test_wrong_size_names_the_argument():
    with pytest.raises(ValueError, match="hidden"):
        recurrent.lstm_cell(0)
