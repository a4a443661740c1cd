"""Truncated backpropagation through time: one update for each piece of a long sequence, the state carried on."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int, PyTree

from cliffs.training._step import StepMetrics, TrainState, init_train_state, train_step


class TruncatedState(NamedTuple):
    """What a run on a long sequence carries from piece to piece; a state for `train_step`-like updates and sweeps."""

    train: TrainState
    hidden: PyTree
    """The recurrent state after the last piece: where the next one goes on."""

    @property
    def step(self) -> Int[Array | np.ndarray, "*runs"]:
        """How many pieces were seen."""
        return self.train.step

    @property
    def diverged_at(self) -> Int[Array | np.ndarray, "*runs"]:
        """The first piece whose loss or new parameters were not finite; -1 while there was none."""
        return self.train.diverged_at


def init_truncated(params: PyTree, optimizer: optax.GradientTransformation, hidden: PyTree) -> TruncatedState:
    """The state before the first piece; `hidden` is the recurrent state that it starts from.

    >>> int(init_truncated(jnp.zeros(2), optax.sgd(0.1), jnp.zeros(3)).step)
    0
    """
    return TruncatedState(init_train_state(params, optimizer), hidden)


def truncated_step(
    state: TruncatedState,
    piece: PyTree,
    loss: Callable[[PyTree, PyTree], tuple[Array, PyTree]],
    optimizer: optax.GradientTransformation,
    *,
    reset: Bool[Array, ""] | bool = False,
) -> tuple[TruncatedState, StepMetrics]:
    """One update on the next piece of a sequence: the gradient stops at the piece's start, the state goes on.

    With pieces of k steps this is backpropagation truncated after k steps at most. If the piece is the whole sequence
    it is full backpropagation, `train_step`.

    **Arguments**

    - `state`: `TruncatedState`.
    - `piece`: whatever `loss` takes.
    - `loss`: `loss(params, (hidden, piece)) -> (scalar, hidden after the piece)`, where `hidden` is the state before.
    - `optimizer`: any optax chain.
    - `reset`: whether the piece opens a new sequence: the state before it is then zero. For another start put it into
      `state.hidden` by `_replace`.

    **Returns** `(TruncatedState, StepMetrics)`; the metrics' `aux` is empty. Entries of the state after the piece that
    are not finite go on as zeros, so that one bad piece does not spoil all later ones; the run is then marked in
    `diverged_at` and its parameters stay as they were, as in `train_step`.

    Source: Williams & Peng (1990), "An efficient gradient-based algorithm for on-line training of recurrent network
    trajectories", Neural Computation 2.

    >>> from cliffs import recurrent
    >>> step, params = recurrent.rnn_step("tanh"), recurrent.RNNParams(*map(jnp.ones, ((2, 2), (1, 2), (2,))))
    >>> def loss(params, batch):
    ...     hidden, inputs = batch
    ...     states = recurrent.unroll(step, params, hidden, inputs)
    ...     return jnp.sum(states**2), states[-1]
    >>> state = init_truncated(params, optax.sgd(0.1), jnp.zeros(2))
    >>> for piece in jnp.ones((3, 5, 1)):  # 15 steps in three pieces
    ...     state, metrics = truncated_step(state, piece, loss, optax.sgd(0.1))
    >>> int(state.step), state.hidden.shape
    (3, (2,))
    """
    hidden = jax.tree.map(lambda h: jnp.where(reset, jnp.zeros_like(h), h), state.hidden)
    train, metrics = train_step(state.train, (hidden, piece), loss, optimizer)
    after = jax.tree.map(lambda h: jnp.where(jnp.isfinite(h), h, jnp.zeros_like(h)), metrics.aux)
    return TruncatedState(train, after), metrics._replace(aux=())
