"""Polyphonic music prediction: the next time step's 88 keys as independent Bernoulli variables.

Every step of a song is predicted, the first one from silence. Songs are cut into pieces; the state is carried from
piece to piece within a song and is zero at its start; padding at the end of a song is masked.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Real

from cliffs.recurrent import ModelParams, RNNStep, readout, unroll


class MusicPieces(NamedTuple):
    """Pieces in playing order, one stream."""

    inputs: np.ndarray
    """`[pieces, time, keys]` uint8: the step before, silence at a song's start."""
    targets: np.ndarray
    """`[pieces, time, keys]` uint8."""
    mask: np.ndarray
    """`[pieces, time]` bool: False on padding."""
    first: np.ndarray
    """`[pieces]` bool: whether the piece opens a song, so the state before it is zero."""
    song: np.ndarray
    """`[pieces]` int: the song's index."""


def song_pieces(songs: Sequence[np.ndarray], piece_length: int) -> MusicPieces:
    """Cut songs `[time, keys]` into non-overlapping pieces of `piece_length` steps, the last of each padded.

    **Raises** `ValueError` for an empty list, an empty song, or `piece_length < 1`.

    >>> pieces = song_pieces([np.ones((5, 2), np.uint8), np.ones((2, 2), np.uint8)], 3)
    >>> pieces.mask.astype(int).tolist(), pieces.first.tolist()
    ([[1, 1, 1], [1, 1, 0], [1, 1, 0]], [True, False, True])
    """
    if piece_length < 1:
        raise ValueError(f"piece_length must be at least 1, got {piece_length}")
    if not songs or any(len(song) == 0 for song in songs):
        raise ValueError("songs must be a non-empty list of non-empty songs")
    parts: list[list[np.ndarray]] = [[], [], [], [], []]
    for index, song in enumerate(songs):
        count = -(-len(song) // piece_length)
        pad = count * piece_length - len(song)
        target = np.pad(song, ((0, pad), (0, 0)))
        source = np.concatenate([np.zeros_like(target[:1]), target[:-1]])
        mask = np.arange(count * piece_length) < len(song)
        parts[0].append(source.reshape(count, piece_length, -1))
        parts[1].append(target.reshape(count, piece_length, -1))
        parts[2].append(mask.reshape(count, piece_length))
        parts[3].append(np.arange(count) == 0)
        parts[4].append(np.full(count, index))
    return MusicPieces(*map(np.concatenate, parts))


def music_nats(
    step: RNNStep,
    params: ModelParams,
    state: Float[Array, "*batch hidden"],
    inputs: Real[Array | np.ndarray, "time *batch keys"],
    targets: Real[Array | np.ndarray, "time *batch keys"],
    mask: Array | np.ndarray,
) -> tuple[Float[Array, "time *batch"], Float[Array, "*batch hidden"]]:
    """`-sum_k log Bernoulli(target_k)` per time step in nats, 0 on padding, and the state after the piece.

    **Arguments**: a step of `rnn_step`, parameters with read-out, the state before, the piece and its mask.

    **Returns** `(nats [time, *batch], state [*batch, hidden])`. Padding only ends a song, so the state after a
    padded piece is never carried on.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("basic_tanh", jax.random.key(0), 88, 3, 88)
    >>> roll, mask = jnp.zeros((4, 88)), jnp.array([True, True, True, False])
    >>> nats, state = music_nats(recurrent.rnn_step("tanh"), params, jnp.zeros(3), roll, roll, mask)
    >>> round(float(nats[0] / jnp.log(2.0))), float(nats[3])  # 88 keys, one bit each
    (88, 0.0)
    """
    dtype = params.readout.w_out.dtype
    states = unroll(step, params.rnn, state, inputs.astype(dtype))
    logits = readout(params.readout, step.features(states))
    nats = optax.sigmoid_binary_cross_entropy(logits, targets.astype(dtype)).sum(-1)
    return jnp.where(mask, nats, 0), states[-1]


class MusicBatches(NamedTuple):
    """Whole songs side by side for evaluation, time first, padded to the longest."""

    inputs: np.ndarray
    """`[pieces, time, songs, keys]`."""
    targets: np.ndarray
    mask: np.ndarray
    """`[pieces, time, songs]`."""


def song_batches(songs: Sequence[np.ndarray], piece_length: int) -> MusicBatches:
    """All songs in parallel lanes, cut into pieces so that memory stays bounded.

    >>> song_batches([np.ones((5, 2), np.uint8), np.ones((2, 2), np.uint8)], 3).mask.shape
    (2, 3, 2)
    """
    longest = max(map(len, songs))
    count = -(-longest // piece_length)
    targets = np.zeros((count * piece_length, len(songs), songs[0].shape[1]), np.uint8)
    mask = np.zeros((count * piece_length, len(songs)), bool)
    for i, song in enumerate(songs):
        targets[: len(song), i] = song
        mask[: len(song), i] = True
    inputs = np.concatenate([np.zeros_like(targets[:1]), targets[:-1]])
    return MusicBatches(*(x.reshape(count, piece_length, *x.shape[1:]) for x in (inputs, targets, mask)))


def nats_per_step(step: RNNStep, params: ModelParams, batches: MusicBatches) -> Float[Array, ""]:
    """Negative log likelihood per time step in nats, the mean over all steps of all songs.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 88, 3, 88)
    >>> params = params._replace(readout=jax.tree.map(jnp.zeros_like, params.readout))
    >>> batches = song_batches([np.ones((5, 88), np.uint8)], 3)
    >>> round(float(nats_per_step(recurrent.rnn_step("logistic"), params, batches)), 2)  # 88 log 2
    61.0
    """
    hidden = params.readout.w_out.shape[0]
    start = jnp.zeros((batches.mask.shape[2], hidden), params.readout.w_out.dtype)

    def body(state, piece):
        nats, state = music_nats(step, params, state, *piece)
        return state, nats.sum()

    _, nats = jax.lax.scan(body, start, tuple(batches))
    return nats.sum() / batches.mask.sum()
