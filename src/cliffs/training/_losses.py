"""Losses of recurrent networks with a linear read-out, put together from an unroll and an error of its states.

An *error* is `error(params, states, batch) -> (scalar, share of wrong sequences)`, with the states after every step,
`[time, batch, ...]`. It is what penalties on the gradient's way back in time need (`cliffs.penalties`), which have to
know how the states are judged. `readout_loss` makes a `loss(params, batch)` of it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from cliffs.recurrent import ModelParams, readout, unroll
from cliffs.typing import Loss, Step

StatesError = Callable[[PyTree, PyTree, PyTree], tuple[Array, Array]]
"""`error(params, states, batch) -> (scalar, share of wrong sequences)`."""


def readout_loss(step: Step, error: StatesError, *, unroll: Callable[..., PyTree] = unroll) -> Loss:
    """The loss `error(params, states, batch)` with `states = unroll(step, params.rnn, 0, batch.inputs)`.

    **Arguments**

    - `step`: a step with a `features` method (those of `rnn_step` and the cells of `cliffs.recurrent`), or any step
      whose state is the array `[*batch, hidden]` that the read-out sees.
    - `error`: one of `last_step_nats`, `last_step_squares`, `every_step_nats`, or a function of your own.
    - `unroll`: `cliffs.recurrent.unroll`, or another function with its first four arguments, for instance
      `functools.partial(cliffs.penalties.unroll_with_omega, weight=4.0)`.

    **Returns** `loss(params: ModelParams, batch) -> (scalar, share of wrong sequences)`. The initial state is zero.

    >>> from cliffs import recurrent, tasks
    >>> step = recurrent.rnn_step("tanh")
    >>> loss = readout_loss(step, last_step_nats(step))
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 100, 10, 100)
    >>> value, wrong = loss(params, tasks.random_permutation(jax.random.key(1), 20, 12))
    >>> round(float(value), 1)  # log 100
    4.6
    """

    def loss(params: ModelParams, batch):
        inputs = batch.inputs.astype(params.readout.w_out.dtype)
        return error(params, unroll(step, params.rnn, zero_state(step, params, inputs.shape[1:-1]), inputs), batch)

    return loss


def regression_loss(step: Step, *, tolerance: float = 0.2) -> Loss:
    """Squared error at the last step, and the share of sequences that miss their numbers by more than `tolerance`.

    **Arguments**: `step` as in `readout_loss`; `tolerance` as in `cliffs.tasks.wrong_value`.

    **Returns** `loss(params: ModelParams, batch: SequenceBatch) -> (mean over the batch of sum_i (y_i - t_i)^2, share
    wrong)`, for targets `[batch, outputs]`.

    >>> from cliffs import recurrent, tasks
    >>> step = recurrent.rnn_step("tanh")
    >>> params = recurrent.paper_init("basic_tanh", jax.random.key(0), 2, 10, 1)
    >>> value, wrong = regression_loss(step)(params, tasks.addition(jax.random.key(1), 20, 50))
    >>> value.shape, wrong.shape
    ((), ())
    """
    return readout_loss(step, last_step_squares(step, tolerance=tolerance))


def sequence_classification_loss(step: Step) -> Loss:
    """Cross-entropy at every step of the batch's mask, and the share of sequences with at least one wrong step.

    **Arguments**: `step` as in `readout_loss`.

    **Returns** `loss(params: ModelParams, batch: SequenceBatch) -> (nats per step, share wrong)`: the mean over the
    steps of the mask of all sequences. Targets are `[time, batch]` classes.

    >>> from cliffs import recurrent, tasks
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 7, 10, 6)
    >>> batch = tasks.memorisation(jax.random.key(1), 20, 30)
    >>> value, wrong = sequence_classification_loss(recurrent.rnn_step("logistic"))(params, batch)
    >>> round(float(value), 1)  # log 6
    1.8
    """
    return readout_loss(step, every_step_nats(step))


def last_step_nats(step: Step) -> StatesError:
    """Cross-entropy at step `batch.length - 1` against `[batch]` classes.

    A sequence is wrong where another class has the largest output.

    **Raises** `ValueError` for targets of another shape or that are no classes, and for lengths that do not fit.

    >>> from cliffs import recurrent
    >>> callable(last_step_nats(recurrent.rnn_step()))
    True
    """

    def error(params, states, batch):
        logits = _last_outputs(step, params, states, batch)
        check_classes(logits, batch.targets)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return nats.mean(), (logits.argmax(-1) != batch.targets).mean()

    return error


def last_step_squares(step: Step, *, tolerance: float = 0.2) -> StatesError:
    """Squared error at step `batch.length - 1` against `[batch, outputs]` numbers.

    A sequence is wrong where it exceeds `tolerance^2`.

    **Raises** `ValueError` for targets of another shape than the outputs, and for lengths that do not fit.

    >>> from cliffs import recurrent
    >>> callable(last_step_squares(recurrent.rnn_step(), tolerance=0.04))
    True
    """

    def error(params, states, batch):
        outputs = _last_outputs(step, params, states, batch)
        if outputs.shape != jnp.shape(batch.targets):  # which could well be broadcast to something else
            got = jnp.shape(batch.targets)
            raise ValueError(f"batch.targets must be [*batch, outputs] as the outputs are, {outputs.shape}, got {got}")
        squares = ((outputs - batch.targets) ** 2).sum(-1)
        return squares.mean(), (squares > tolerance**2).mean()

    return error


def every_step_nats(step: Step) -> StatesError:
    """Cross-entropy at the steps of `batch.mask` against `[time, batch]` classes.

    A sequence with one wrong step is wrong.

    **Raises** `ValueError` for a batch without a mask, or with targets of another shape or that are no classes.

    >>> from cliffs import recurrent
    >>> callable(every_step_nats(recurrent.rnn_step()))
    True
    """

    def error(params, states, batch):
        if batch.mask is None:
            raise ValueError("batch.mask is None: this batch wants an output at the last step alone")
        logits = readout(params.readout, _features(step)(states))
        check_classes(logits, batch.targets)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        wrong = (logits.argmax(-1) != batch.targets) & batch.mask
        return jnp.where(batch.mask, nats, 0).sum() / batch.mask.sum(), wrong.any(0).mean()

    return error


def predictions(step: Step, params: ModelParams, inputs: Float[Array, "time batch features"]) -> Array:
    """The outputs `[time, batch, outputs]` of the network at every step, from the zero state.

    Give its row `batch.length - 1`, or all rows, to the criteria of `cliffs.tasks`.

    >>> from cliffs import recurrent, tasks
    >>> params = recurrent.paper_init("basic_tanh", jax.random.key(0), 2, 10, 1)
    >>> predictions(recurrent.rnn_step(), params, tasks.addition(jax.random.key(1), 4, 20).inputs).shape
    (21, 4, 1)
    """
    inputs = inputs.astype(params.readout.w_out.dtype)
    states = unroll(step, params.rnn, zero_state(step, params, inputs.shape[1:-1]), inputs)
    return readout(params.readout, _features(step)(states))


def zero_state(step: Step, params: ModelParams, batch_shape: tuple[int, ...]) -> PyTree:
    """The state that a sequence starts from: the step's own `initial_state`, or zeros `[*batch_shape, hidden]`.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("basic_tanh", jax.random.key(0), 2, 10, 1)
    >>> zero_state(recurrent.rnn_step(), params, (3,)).shape
    (3, 10)
    """
    w_out = params.readout.w_out
    own = getattr(step, "initial_state", None)
    return own(batch_shape, w_out.dtype) if own else jnp.zeros((*batch_shape, w_out.shape[0]), w_out.dtype)


def _features(step):
    return getattr(step, "features", lambda states: states)


def _last_outputs(step, params, states, batch):
    return readout(params.readout, _features(step)(last_states(states, batch.length)))


def last_states(states: PyTree, length: ArrayLike) -> PyTree:
    """The states after step `length - 1`: one length for all sequences, or one for each, `[*batch]`.

    >>> last_states(jnp.arange(6.0).reshape(3, 2, 1), jnp.array([1, 3])).tolist()
    [[0.0], [5.0]]
    """
    if not jnp.ndim(length):
        return jax.tree.map(lambda x: x[length - 1], states)
    length = jnp.asarray(length)

    def last(x):
        if x.shape[1 : 1 + length.ndim] != length.shape:
            raise ValueError(f"batch.length must be one number or [*batch], got {length.shape} for states {x.shape}")
        where = (length - 1).reshape(1, *length.shape, *[1] * (x.ndim - 1 - length.ndim))
        return jnp.take_along_axis(x, where, 0)[0]

    return jax.tree.map(last, states)


def check_classes(logits: Array, targets: ArrayLike) -> None:
    """Raise `ValueError` for targets that are not one class for each row of the logits."""
    kind, shape = jnp.result_type(targets), jnp.shape(targets)
    if not jnp.issubdtype(kind, jnp.integer) or shape != logits.shape[:-1]:
        raise ValueError(f"batch.targets must be classes, integers {logits.shape[:-1]}, got {kind}{list(shape)}")
