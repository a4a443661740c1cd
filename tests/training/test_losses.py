"""Losses at the last step and at every step, against numpy and the tasks' own criteria."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent, tasks, training

STEP = recurrent.rnn_step("tanh")


def model(features, outputs, dtype=jnp.float32):
    params = recurrent.init_model(
        jax.random.key(0),
        features,
        8,
        outputs,
        w_rec=recurrent.orthogonal(),
        w_in=recurrent.glorot(),
        w_out=recurrent.glorot(),
        dtype=dtype,
    )
    return params


@pytest.mark.parametrize("max_length", [None, 24])
def test_parity_regression_is_the_squared_error_at_the_last_step(max_length):
    params, batch = model(2, 1), tasks.addition(jax.random.key(1), 50, 20, max_length=max_length)
    value, wrong = jax.jit(training.regression_loss(STEP))(params, batch)
    outputs = training.predictions(STEP, params, batch.inputs)[batch.length - 1]
    h = np.zeros((50, 8))
    for u in np.asarray(batch.inputs)[: int(batch.length)]:
        h = np.tanh(h @ np.asarray(params.rnn.w_rec) + u @ np.asarray(params.rnn.w_in))
    want = h @ np.asarray(params.readout.w_out)
    np.testing.assert_allclose(outputs, want, atol=1e-5)
    np.testing.assert_allclose(value, ((want - np.asarray(batch.targets)) ** 2).mean(), rtol=1e-4)
    assert float(wrong) == pytest.approx(float(tasks.wrong_value(outputs, batch).mean()))
    strict = training.regression_loss(STEP, tolerance=0.04)(params, batch)[1]
    assert float(strict) == pytest.approx(float(tasks.wrong_value(outputs, batch, tolerance=0.04).mean()))
    assert float(strict) > float(wrong)


@pytest.mark.parametrize("max_length", [None, 24])
def test_parity_sequence_classification_is_the_mean_over_the_mask(max_length):
    params, batch = model(1, 2), tasks.delayed_xor(jax.random.key(2), 50, 12, delay=2, max_length=max_length)
    value, wrong = jax.jit(training.sequence_classification_loss(STEP))(params, batch)
    outputs = np.asarray(training.predictions(STEP, params, batch.inputs))
    nats = (
        np.log(np.exp(outputs).sum(-1)) - np.take_along_axis(outputs, np.asarray(batch.targets)[..., None], -1)[..., 0]
    )
    np.testing.assert_allclose(value, nats[4 : int(batch.length)].mean(), rtol=1e-5)
    assert float(wrong) == pytest.approx(float(tasks.wrong_sequence(jnp.asarray(outputs), batch).mean()))


def test_parity_last_step_nats_is_the_classification_loss():
    params, batch = model(6, 4), tasks.temporal_order(jax.random.key(3), 20, 12, max_length=20)
    ours = jax.jit(training.readout_loss(STEP, training.last_step_nats(STEP)))(params, batch)
    theirs = jax.jit(training.classification_loss(STEP))(params, batch)
    assert jax.tree.map(float, ours) == jax.tree.map(float, theirs)


@pytest.mark.parametrize("kind", ["memorisation", "addition"])
def test_property_padding_leaves_no_trace_in_loss_or_gradient(x64, kind):
    """The same sequences with nonsense in the padding give the same loss and gradient."""
    if kind == "memorisation":
        draw = lambda key: tasks.memorisation(key, 8, 3, positions=2, values=2, max_length=9)  # noqa: E731
        loss, params = training.sequence_classification_loss(STEP), model(4, 3, jnp.float64)
    else:
        draw = lambda key: tasks.addition(key, 8, 10, max_length=19)  # noqa: E731
        loss, params = training.regression_loss(STEP), model(2, 1, jnp.float64)

    def both(key):
        batch = draw(key)
        padding = jnp.arange(len(batch.inputs))[:, None, None] >= batch.length
        noisy = batch._replace(inputs=jnp.where(padding, 7.0, batch.inputs))
        pair = jax.tree.map(lambda *x: jnp.stack(x), batch, noisy)
        return padding.any(), jax.vmap(jax.value_and_grad(loss, has_aux=True), (None, 0))(params, pair)

    padded, results = jax.jit(jax.vmap(both))(jax.random.split(jax.random.key(5), 4))
    assert bool(padded.any())
    for leaf in jax.tree.leaves(results):
        np.testing.assert_allclose(leaf[:, 0], leaf[:, 1], rtol=1e-12, atol=1e-15)


def test_integration_a_gated_cell_takes_every_loss():
    step = recurrent.lstm_cell(5)
    readout = recurrent.ReadoutParams(jnp.ones((5, 2)))
    params = recurrent.ModelParams(step.init(jax.random.key(0), 1), readout)
    batch = tasks.delayed_copy(jax.random.key(1), 3, 8, delay=2)
    value, _ = jax.jit(training.sequence_classification_loss(step))(params, batch)
    assert float(value) == pytest.approx(np.log(2), abs=1e-6)  # two equal outputs
    single = params._replace(readout=recurrent.ReadoutParams(jnp.ones((5, 1))))
    targets = tasks.SequenceBatch(batch.inputs, jnp.zeros((3, 1)), batch.length)
    assert np.isfinite(float(training.regression_loss(step)(single, targets)[0]))


@pytest.mark.parametrize("gated", [False, True])
def test_property_sequences_of_lengths_of_their_own_count_as_each_alone(gated):
    cell = recurrent.lstm_cell(8)
    step = cell if gated else STEP
    numbers, classes = model(2, 1), model(6, 4)
    if gated:
        numbers, classes = (m._replace(rnn=cell.init(jax.random.key(4), n)) for m, n in ((numbers, 2), (classes, 6)))
    lengths = jnp.array([10, 14, 20])
    batch = tasks.addition(jax.random.key(1), 3, 20)
    cases = [
        (training.regression_loss(step), numbers, batch._replace(length=lengths)),
        (training.classification_loss(step), classes, tasks.temporal_order(jax.random.key(2), 3, 20)),
        (
            training.readout_loss(step, training.last_step_nats(step)),
            classes,
            tasks.temporal_order(jax.random.key(2), 3, 20),
        ),
    ]
    for loss, params, batch in cases:
        alone = [
            loss(params, tasks.SequenceBatch(batch.inputs[:n, i : i + 1], batch.targets[i : i + 1], jnp.asarray(n)))[0]
            for i, n in enumerate(lengths)
        ]
        together = jax.jit(loss)(params, batch._replace(length=lengths))[0]
        np.testing.assert_allclose(together, np.mean(alone), rtol=1e-5)


@pytest.mark.wrong_arguments
def test_wrong_targets_and_lengths_are_named():
    numbers, order = tasks.addition(jax.random.key(0), 3, 20), tasks.temporal_order(jax.random.key(0), 3, 20)
    copy = tasks.delayed_copy(jax.random.key(1), 3, 8, delay=2)
    squares, nats = training.regression_loss(STEP), training.classification_loss(STEP)
    cases = [
        (squares, model(2, 1), numbers._replace(targets=numbers.targets[:, 0]), r"outputs are, \(3, 1\), got \(3,\)"),
        (squares, model(2, 1), numbers._replace(length=jnp.array([20, 20])), r"one number or .*batch.*got \(2,\)"),
        (nats, model(2, 1), numbers, r"targets must be classes, integers \(3,\), got float32\[3, 1\]"),
        (nats, model(6, 4), order._replace(targets=jnp.ones((3, 4), int)), r"got int32\[3, 4\]"),
        (
            training.sequence_classification_loss(STEP),
            model(1, 2),
            copy._replace(targets=copy.targets[-1]),
            r"\(8, 3\)",
        ),
    ]
    for loss, params, batch, words in cases:
        with pytest.raises(ValueError, match=words):
            loss(params, batch)


@pytest.mark.wrong_arguments
def test_wrong_batch_without_mask_is_named():
    with pytest.raises(ValueError, match=r"batch\.mask is None"):
        training.sequence_classification_loss(STEP)(model(6, 4), tasks.temporal_order(jax.random.key(0), 2, 20))
