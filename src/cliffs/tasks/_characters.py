"""Character prediction over a long text: contiguous batches, the state carried from piece to piece."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Integer

from cliffs.recurrent import ModelParams, RNNStep, readout, unroll


class CharacterPieces(NamedTuple):
    """Consecutive pieces of `batch` parallel streams: piece i + 1 goes on where piece i ended, in each stream."""

    inputs: np.ndarray
    """`[pieces, time, batch]` character indices."""
    targets: np.ndarray
    """`[pieces, time, batch]`, the next character of each, or the one that is `ahead` places on."""


def contiguous_pieces(stream: np.ndarray, batch_size: int, piece_length: int, ahead: int = 1) -> CharacterPieces:
    """Cut a stream into `batch_size` contiguous lanes and those into pieces; what does not fill a piece is left out.

    **Arguments**

    - `stream`: `[characters]` of indices.
    - `batch_size`, `piece_length`: at least 1.
    - `ahead`: which character is to be predicted: 1 is the next one, 5 the fifth.

    **Returns** `CharacterPieces`.

    **Raises** `ValueError` when the stream is too short for one piece, or a size is below 1.

    >>> pieces = contiguous_pieces(np.arange(13), batch_size=2, piece_length=3)
    >>> pieces.inputs[:, :, 0].tolist(), pieces.targets[:, :, 1].tolist()
    ([[0, 1, 2], [3, 4, 5]], [[7, 8, 9], [10, 11, 12]])
    """
    for name, size in (("batch_size", batch_size), ("piece_length", piece_length), ("ahead", ahead)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    pieces = (len(stream) - ahead) // (batch_size * piece_length)
    if pieces < 1:
        raise ValueError(
            f"a stream of {len(stream)} characters is too short for batch_size={batch_size} x "
            f"piece_length={piece_length} and ahead={ahead} more"
        )
    lane = pieces * piece_length

    def cut(x):
        return x[: lane * batch_size].reshape(batch_size, pieces, piece_length).transpose(1, 2, 0)

    return CharacterPieces(cut(stream), cut(stream[ahead:]))


def character_nats(
    step: RNNStep,
    params: ModelParams,
    state: Float[Array, "batch hidden"],
    inputs: Integer[Array, "time batch"],
    targets: Integer[Array, "time batch"],
) -> tuple[Float[Array, "time batch"], Float[Array, "batch hidden"]]:
    """Negative log likelihood `-log p(target)` of every character, in nats, and the state after the last.

    **Arguments**: a step of `rnn_step`, its parameters with read-out, the state before the piece, the piece.

    **Returns** `(nats [time, batch], state [batch, hidden])`.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 4, 3, 4)
    >>> piece = jnp.zeros((7, 2), jnp.int32)
    >>> nats, state = character_nats(recurrent.rnn_step("logistic"), params, jnp.zeros((2, 3)), piece, piece)
    >>> nats.shape, state.shape
    ((7, 2), (2, 3))
    """
    states = unroll(step, params.rnn, state, inputs.astype(jnp.int32))
    logits = readout(params.readout, step.features(states))
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets.astype(jnp.int32))
    return nats, states[-1]


def bits_per_character(
    step: RNNStep, params: ModelParams, pieces: CharacterPieces, initial_state: Array
) -> Float[Array, ""]:
    """Mean bits per character over all pieces, the state carried through.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 4, 3, 4)
    >>> params = params._replace(readout=jax.tree.map(jnp.zeros_like, params.readout))
    >>> pieces = contiguous_pieces(np.arange(41) % 4, 2, 5)
    >>> float(bits_per_character(recurrent.rnn_step("logistic"), params, pieces, jnp.zeros((2, 3))))
    2.0
    """

    def body(state, piece):
        nats, state = character_nats(step, params, state, *piece)
        return state, nats.mean()

    _, nats = jax.lax.scan(body, initial_state, tuple(pieces))
    return nats.mean() / math.log(2)
