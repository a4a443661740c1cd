"""Pieces, masks and likelihoods of the music task."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliffs import recurrent, tasks

STEP = recurrent.rnn_step("tanh")


def songs(lengths, keys=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 2, (n, keys)).astype(np.uint8) for n in lengths]


def model(keys=3, dtype=jnp.float64):
    w = recurrent.gaussian(0.5)
    return recurrent.init_model(jax.random.key(0), keys, 4, keys, w_rec=w, w_in=w, w_out=w, dtype=dtype)


@given(lengths=st.lists(st.integers(1, 23), min_size=1, max_size=5), piece=st.integers(1, 9))
def test_property_pieces_hold_every_step_of_every_song_once(lengths, piece):
    collection = songs(lengths)
    pieces = tasks.song_pieces(collection, piece)
    for index, song in enumerate(collection):
        rows = pieces.song == index
        kept = pieces.mask[rows].ravel()
        target, source = (x[rows].reshape(-1, 3)[kept] for x in (pieces.targets, pieces.inputs))
        np.testing.assert_array_equal(target, song)
        np.testing.assert_array_equal(source[1:], song[:-1])
        assert not source[0].any()
        assert pieces.first[rows].tolist() == [True] + [False] * (rows.sum() - 1)


def test_invariance_piece_by_piece_equals_whole_songs(x64):
    collection = songs([17, 5, 11])
    params = model()
    total = 0.0
    pieces = tasks.song_pieces(collection, 4)
    hidden = jnp.zeros(4)
    for inputs, targets, mask, first, _ in zip(*pieces):
        hidden = jnp.where(first, 0, hidden)
        nats, hidden = tasks.music_nats(STEP, params, hidden, jnp.asarray(inputs), jnp.asarray(targets), mask)
        total += float(nats.sum())
    whole = tasks.nats_per_step(STEP, params, tasks.song_batches(collection, 6))
    assert total / 33 == pytest.approx(float(whole), rel=1e-12)


def test_property_padding_changes_neither_loss_nor_gradient(x64):
    params = model()
    song = songs([7])[0]

    def loss(params, piece_length, fill):
        pieces = tasks.song_pieces([song], piece_length)
        mask = pieces.mask[0]
        inputs, targets = (jnp.where(mask[:, None], x[0], fill) for x in (pieces.inputs, pieces.targets))
        return tasks.music_nats(STEP, params, jnp.zeros(4), inputs, targets, mask)[0].sum()

    exact = jax.value_and_grad(loss)(params, 7, 0)
    for fill in (0, 1):
        padded = jax.value_and_grad(loss)(params, 12, fill)
        for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(padded), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_analytic_a_fair_coin_for_every_key():
    params = jax.tree.map(jnp.zeros_like, model(88, jnp.float32))
    batches = tasks.song_batches(songs([9, 4], keys=88), 5)
    assert float(tasks.nats_per_step(STEP, params, batches)) == pytest.approx(88 * np.log(2), rel=1e-6)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(("args", "words"), [(([], 5), "songs"), ((songs([3]), 0), "piece_length")])
def test_wrong_use_names_the_argument(args, words):
    with pytest.raises(ValueError, match=words):
        tasks.song_pieces(*args)
