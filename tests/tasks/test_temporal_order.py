"""The temporal order generator against the released code's rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.tasks import temporal_order

# Zero-based windows of the two marks, from the published settings.
WINDOWS = {20: ((2, 3), (10, 11)), 50: ((5, 9), (25, 29)), 100: ((10, 19), (50, 59)), 200: ((20, 39), (100, 119))}


@pytest.mark.parametrize("length", sorted(WINDOWS))
def test_analytic_marks_stand_in_their_windows_and_name_the_class(length):
    batch = temporal_order(jax.random.key(length), 2000, length)
    symbols = np.asarray(batch.inputs.argmax(-1))
    assert (batch.inputs.sum(-1) == 1).all()
    marks = symbols < 2
    assert (marks.sum(0) == 2).all()
    places = np.array([np.flatnonzero(column) for column in marks.T])
    for which, (low, high) in enumerate(WINDOWS[length]):
        assert places[:, which].min() == low
        assert places[:, which].max() == high
    bits = symbols[places, np.arange(2000)[:, None]]
    np.testing.assert_array_equal(batch.targets, bits[:, 0] + 2 * bits[:, 1])


def test_analytic_symbols_and_classes_are_uniform():
    batch = temporal_order(jax.random.key(1), 8000, 20)
    counts = np.bincount(np.asarray(batch.targets), minlength=4)
    assert np.abs(counts / 8000 - 0.25).max() < 0.02
    distractors = np.asarray(batch.inputs[..., 2:]).sum((0, 1)) / (18 * 8000)
    assert np.abs(distractors - 0.25).max() < 0.005


def test_analytic_three_marks():
    batch = temporal_order(jax.random.key(2), 500, 40, marks=3)
    symbols = np.asarray(batch.inputs.argmax(-1))
    places = np.array([np.flatnonzero(column) for column in (symbols < 2).T])
    assert places.shape == (500, 3)
    for which, start in enumerate((4, 12, 24)):
        assert set(places[:, which]) == set(range(start, start + 4))
    bits = symbols[places, np.arange(500)[:, None]]
    np.testing.assert_array_equal(batch.targets, bits @ np.array([1, 2, 4]))


def test_analytic_variable_length_is_half_open_and_padded_with_zeros():
    make = jax.jit(jax.vmap(lambda key: temporal_order(key, 4, 10, max_length=14)))
    batch = make(jax.random.split(jax.random.key(3), 200))
    assert batch.inputs.shape == (200, 13, 4, 6)
    assert sorted(set(batch.length.tolist())) == [10, 11, 12, 13]
    steps = batch.inputs.sum(-1)
    np.testing.assert_array_equal(steps.sum(1), jnp.broadcast_to(batch.length[:, None], (200, 4)))


def test_invariance_a_key_is_a_batch():
    one, same, other = (temporal_order(jax.random.key(k), 5, 20) for k in (0, 0, 1))
    assert (one.inputs == same.inputs).all()
    assert not (one.inputs == other.inputs).all()


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"length": 9}, "length"),
        ({"length": 20, "max_length": 20}, "max_length"),
        ({"length": 20, "marks": 4}, "marks"),
        ({"length": 20, "batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_use_names_the_argument(kwargs, words):
    with pytest.raises(ValueError, match=words):
        temporal_order(jax.random.key(0), **{"batch_size": 2, **kwargs})
