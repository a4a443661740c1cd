"""Truncated backpropagation: full backpropagation on one piece, the state carried between pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import recurrent
from cliffs.training import init_train_state, init_truncated, train_step, truncated_step

STEP = recurrent.rnn_step("tanh")
HIDDEN, BATCH, TIME = 5, 3, 12


def problem(dtype=jnp.float32):
    key = jax.random.key(0)
    params = recurrent.paper_init("basic_tanh", key, 2, HIDDEN, 1, dtype).rnn
    inputs = jax.random.normal(jax.random.fold_in(key, 1), (TIME, BATCH, 2), dtype)
    return params, inputs, jnp.zeros((BATCH, HIDDEN), dtype)


def loss(params, batch):
    hidden, inputs = batch
    states = recurrent.unroll(STEP, params, hidden, inputs)
    return jnp.mean(states**2), states[-1]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_parity_one_piece_of_the_whole_sequence_is_full_backpropagation(x64, dtype):
    params, inputs, start = problem(dtype)
    tx = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5, momentum=0.9))
    full, ours = init_train_state(params, tx), init_truncated(params, tx, start)
    for _ in range(3):
        full, want = train_step(full, (start, inputs), loss, tx)
        ours, got = truncated_step(ours, inputs, loss, tx, reset=True)
        assert got.loss == want.loss
        assert got.grad_norm == want.grad_norm
    jax.tree.map(np.testing.assert_array_equal, ours.train, full)
    assert ours.hidden.dtype == dtype


@pytest.mark.parametrize("length", [1, 3, 4])
def test_parity_the_state_is_carried_and_the_gradient_stops_at_the_piece(x64, length):
    params, inputs, start = problem(jnp.float64)
    frozen = optax.sgd(0.0)
    state = init_truncated(params, frozen, start)
    states = recurrent.unroll(STEP, params, start, inputs)
    for k, piece in enumerate(inputs.reshape(-1, length, BATCH, 2)):
        state, metrics = truncated_step(state, piece, loss, frozen)
        np.testing.assert_allclose(state.hidden, states[(k + 1) * length - 1], atol=1e-14)

        # The same piece's loss in the unroll of everything, cut where the piece begins.
        def cut(p, k=k, length=length):
            before = recurrent.unroll(STEP, p, start, inputs[: k * length])[-1] if k else start
            here = recurrent.unroll(STEP, p, jax.lax.stop_gradient(before), inputs[k * length : (k + 1) * length])
            return jnp.mean(here**2)

        value, gradient = jax.value_and_grad(cut)(params)
        np.testing.assert_allclose(metrics.loss, value, rtol=1e-12)
        np.testing.assert_allclose(metrics.grad_norm, optax.tree.norm(gradient), rtol=1e-11)


def test_property_a_reset_begins_from_zero_only_where_asked():
    params, inputs, start = problem()
    tx = optax.sgd(0.1)

    def run(resets, first):
        state = init_truncated(params, tx, first)
        return jax.lax.scan(
            lambda s, x: truncated_step(s, x[0], loss, tx, reset=x[1]),
            state,
            (inputs.reshape(3, 4, BATCH, 2), jnp.array(resets)),
        )

    zero, one = (run([True, False, True], first) for first in (start, start + 1))
    jax.tree.map(np.testing.assert_array_equal, zero, one)
    carried = run([False, False, False], start + 1)
    assert not np.array_equal(carried[1].loss, one[1].loss)


def test_integration_a_bad_piece_is_marked_and_does_not_spoil_the_state():
    params, inputs, start = problem()
    tx = optax.sgd(0.1)
    state, _ = truncated_step(init_truncated(params, tx, start), inputs[:4], loss, tx)
    bad, metrics = truncated_step(state, inputs[4:8].at[2, 0].set(jnp.nan), loss, tx)
    assert not np.isfinite(metrics.loss)
    assert (int(bad.diverged_at), int(bad.step)) == (1, 2)
    jax.tree.map(np.testing.assert_array_equal, bad.train.params, state.train.params)
    assert (np.asarray(bad.hidden[0]) == 0).all()  # the sequence that held the NaN
    assert (np.asarray(bad.hidden[1:]) != 0).all()


def test_property_states_may_be_trees_and_runs_may_be_mapped():
    cell = recurrent.lstm_cell(4)
    tx = optax.sgd(0.1)

    def lstm_loss(params, batch):
        hidden, inputs = batch
        states = recurrent.unroll(cell, params, hidden, inputs)
        return jnp.mean(cell.features(states) ** 2), jax.tree.map(lambda s: s[-1], states)

    def one(key):
        state = init_truncated(cell.init(key, 2), tx, cell.initial_state((BATCH,)))
        for piece in jnp.ones((2, 3, BATCH, 2)):
            state, _ = truncated_step(state, piece, lstm_loss, tx)
        return state

    states = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 3))
    assert states.step.tolist() == [2, 2, 2]
    assert all(leaf.shape == (3, BATCH, 4) for leaf in jax.tree.leaves(states.hidden))
