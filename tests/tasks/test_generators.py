"""The synthetic tasks against their definitions, over 1e5 draws."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import present

from cliffs import tasks
from cliffs.tasks import wrong_class, wrong_sequence, wrong_value

DRAWS = 100_000
SIGMAS = 5  # how far a frequency over 1e5 draws may lie from its expectation


def near(share, expected, draws=DRAWS):
    """Whether a frequency is within `SIGMAS` standard deviations of its expectation."""
    return np.abs(np.asarray(share) - expected).max() < SIGMAS * np.sqrt(expected * (1 - expected) / draws)


@pytest.fixture(scope="module")
def addition():
    """50 lengths of their own, 2000 sequences each."""
    make = jax.jit(jax.vmap(lambda key: tasks.addition(key, DRAWS // 50, 50)))
    return jax.tree.map(np.asarray, make(jax.random.split(jax.random.key(0), 50)))


def test_analytic_addition_marks_lengths_and_numbers(addition):
    assert addition.inputs.shape == (50, 54, 2000, 2)
    assert set(addition.length) == set(range(50, 55))
    marks, numbers = addition.inputs[..., 0], addition.inputs[..., 1]
    assert set(np.unique(marks)) == {0.0, 1.0}
    places = marks.argmax(1), marks.shape[1] - 1 - marks[:, ::-1].argmax(1)
    assert (marks.sum(1) == 2).all()
    # floor(l / 10) = 5 for all these lengths, floor(4 l / 10) = 20 or 21.
    assert near(np.bincount(places[0].ravel()) / DRAWS, 0.2)
    short = addition.length < 53
    assert near(np.bincount(places[1][short].ravel(), minlength=25)[5:] / places[1][short].size, 1 / 20, 20_000)
    assert places[1][short].max() == 24
    assert places[1][~short].max() == 25
    inside = np.arange(54) < addition.length[:, None]
    assert (addition.inputs[~inside] == 0).all()
    drawn = numbers[inside]
    assert drawn.min() >= 0
    assert drawn.max() < 1
    np.testing.assert_allclose(np.histogram(drawn, 10, (0, 1))[0] / drawn.size, 0.1, atol=0.001)
    chosen = (numbers * marks).sum(1)
    np.testing.assert_allclose(addition.targets[..., 0], chosen / 2, rtol=1e-6)


def test_analytic_errors_of_constant_predictors(addition):
    """The shares and squared errors of the best constants: 36.0 and 84.6 %, 39.0 and 88.9 %, 23.3 %."""
    batch = tasks.SequenceBatch(addition.inputs[0], addition.targets.reshape(-1, 1), addition.length[0])
    half = jnp.full((DRAWS, 1), 0.5)
    np.testing.assert_allclose(((half - batch.targets) ** 2).mean(), 1 / 24, rtol=0.01)
    assert near(wrong_value(half, batch).mean(), 0.36)
    assert near(wrong_value(half, batch, tolerance=0.04).mean(), 0.8464)
    batch = tasks.multiplication(jax.random.key(1), DRAWS, 10)
    quarter = jnp.full((DRAWS, 1), 0.25)
    np.testing.assert_allclose(((quarter - batch.targets) ** 2).mean(), 7 / 144, rtol=0.02)

    def product_within(low, high):  # P(low < a b < high), from P(a b < c) = c (1 - log c)
        return high * (1 - np.log(high)) - (low * (1 - np.log(low)) if low > 0 else 0)

    lax, strict, best = 1 - product_within(0.05, 0.45), 1 - product_within(0.21, 0.29), 1 - product_within(0, 0.4)
    assert [round(100 * x, 1) for x in (lax, strict, best)] == [39.0, 88.9, 23.3]
    assert near(wrong_value(quarter, batch).mean(), lax)
    assert near(wrong_value(quarter, batch, tolerance=0.04).mean(), strict)
    assert near(wrong_value(jnp.full((DRAWS, 1), 0.2), batch).mean(), best)


def test_analytic_multiplication_is_the_product_of_the_marked_numbers():
    batch = tasks.multiplication(jax.random.key(2), 1000, 30)
    marks, numbers = batch.inputs[..., 0], batch.inputs[..., 1]
    product = jnp.where(marks == 1, numbers, 1).prod(0)
    np.testing.assert_allclose(batch.targets[:, 0], product, rtol=1e-6)


def test_analytic_temporal_order_windows_and_chance():
    """Uniform in each mark's window; the constant class is wrong in 75 %, and log 4 nats is what ignorance costs."""
    batch = tasks.temporal_order(jax.random.key(3), DRAWS, 30)
    marks = np.asarray(batch.inputs[..., :2].sum(-1))
    for start in (3, 15):
        assert near(marks[start : start + 3].mean(1), 1 / 3)
    assert marks.sum() == 2 * DRAWS
    assert near(wrong_class(jnp.eye(4)[jnp.zeros(DRAWS, int)], batch).mean(), 0.75)
    batch = tasks.temporal_order(jax.random.key(4), DRAWS, 10, marks=3)
    assert near(np.bincount(np.asarray(batch.targets), minlength=8) / DRAWS, 1 / 8)


def test_analytic_random_permutation_symbols_and_chance():
    batch = tasks.random_permutation(jax.random.key(5), DRAWS // 5, 11)
    symbols = np.asarray(batch.inputs.argmax(-1))
    assert (batch.inputs.sum(-1) == 1).all()
    np.testing.assert_array_equal(batch.targets, symbols[0])
    assert near(symbols[0].mean(), 0.5, DRAWS // 5)
    assert near(np.bincount(symbols[1:].ravel(), minlength=100)[2:] / symbols[1:].size, 1 / 98, symbols[1:].size)
    assert symbols[1:].min() == 2
    assert near(wrong_class(jnp.eye(100)[jnp.zeros(DRAWS // 5, int)], batch).mean(), 0.5, DRAWS // 5)


@pytest.mark.parametrize(("positions", "values"), [(5, 2), (10, 5)])
def test_analytic_memorisation_follows_the_released_layout(positions, values):
    length, size = 7, DRAWS // positions
    batch = tasks.memorisation(jax.random.key(6), size, length, positions=positions, values=values)
    blank, cue = values, values + 1
    seen = np.asarray(batch.inputs.argmax(-1))
    assert (batch.inputs.sum(-1) == 1).all()
    assert seen.shape == (length + 2 * positions, size)
    symbols = seen[:positions]
    assert near(np.bincount(symbols.ravel(), minlength=values) / symbols.size, 1 / values, symbols.size)
    assert (seen[length + positions] == cue).all()
    rest = np.delete(seen[positions:], length, axis=0)
    assert (rest == blank).all()
    assert (batch.targets[: length + positions] == blank).all()
    np.testing.assert_array_equal(batch.targets[length + positions :], symbols)
    assert bool(present(batch.mask).all())


def test_analytic_memorisation_without_memory():
    """Always the blank: every sequence wrong. The blank, then a guess: `positions log(values) / steps` nats."""
    batch = tasks.memorisation(jax.random.key(7), 10, 20)
    blank = jnp.broadcast_to(jnp.eye(6)[5], (40, 10, 6))
    assert bool(wrong_sequence(blank, batch).all())
    guess = jnp.where(jnp.arange(40)[:, None, None] < 30, jnp.eye(6)[5], jnp.append(jnp.full(5, 1 / 5), 0))
    likely = jnp.take_along_axis(jnp.broadcast_to(guess, (40, 10, 6)), batch.targets[..., None], -1)
    np.testing.assert_allclose(-jnp.log(likely).mean(), 10 * np.log(5) / 40, rtol=1e-6)
    right = jax.nn.one_hot(batch.targets, 6)
    assert not bool(wrong_sequence(right, batch).any())
    one_slip = right.at[35, 3].set(jnp.eye(6)[5])
    assert wrong_sequence(one_slip, batch).tolist() == [i == 3 for i in range(10)]


def test_analytic_five_bit_memorisation_has_every_pattern_once():
    batch = tasks.memorisation(jax.random.key(8), None, 10, positions=5, values=2)
    patterns = {tuple(column) for column in np.asarray(batch.targets[-5:]).T}
    assert batch.inputs.shape[1] == 32
    assert patterns == set(itertools.product((0, 1), repeat=5))


@pytest.mark.parametrize(("task", "lags"), [(tasks.delayed_copy, (3,)), (tasks.delayed_xor, (3, 6))])
def test_analytic_delayed_streams(task, lags):
    batch = task(jax.random.key(9), DRAWS // 20, 20, delay=3)
    bits = np.asarray(batch.inputs[..., 0]).astype(int)
    assert near(bits.mean(), 0.5)
    for t in range(20):
        want = sum(bits[t - lag] for lag in lags) % 2 if t >= lags[-1] else np.zeros(bits.shape[1], int)
        np.testing.assert_array_equal(batch.targets[t], want)
    np.testing.assert_array_equal(batch.mask.all(1), np.arange(20) >= lags[-1])
    assert near(np.asarray(batch.targets)[lags[-1] :].mean(), 0.5, 5 * DRAWS // 10)


TASKS = {
    "addition": lambda key, **kw: tasks.addition(key, 4, 10, **kw),
    "multiplication": lambda key, **kw: tasks.multiplication(key, 4, 10, **kw),
    "temporal_order": lambda key, **kw: tasks.temporal_order(key, 4, 10, **kw),
    "three_bits": lambda key, **kw: tasks.temporal_order(key, 4, 10, marks=3, **kw),
    "random_permutation": lambda key, **kw: tasks.random_permutation(key, 4, 10, **kw),
    "memorisation": lambda key, **kw: tasks.memorisation(key, 4, 10, positions=2, values=3, **kw),
    "memorisation_all": lambda key, **kw: tasks.memorisation(key, None, 10, positions=2, values=2, **kw),
    "delayed_copy": lambda key, **kw: tasks.delayed_copy(key, 4, 10, delay=2, **kw),
    "delayed_xor": lambda key, **kw: tasks.delayed_xor(key, 4, 10, delay=2, **kw),
}


@pytest.mark.parametrize("name", TASKS)
def test_property_lengths_vary_by_batch_inside_jit_and_vmap(name):
    make = lambda key: TASKS[name](key, max_length=25)  # noqa: E731
    keys = jax.random.split(jax.random.key(10), 60)
    batches = jax.jit(jax.vmap(make))(keys)
    alone = jax.jit(make)(keys[3])
    for together, one in zip(jax.tree.leaves(batches), jax.tree.leaves(alone)):
        np.testing.assert_array_equal(together[3], one)
    extra = 4 if "memorisation" in name else 0
    lengths = np.asarray(batches.length) - extra
    assert len(set(lengths.tolist())) > 8
    assert lengths.min() >= 10
    assert lengths.max() <= (25 if name in ("addition", "multiplication") else 24)
    outside = np.arange(batches.inputs.shape[1]) >= np.asarray(batches.length)[:, None]
    assert (np.asarray(batches.inputs)[outside] == 0).all()
    if batches.mask is not None:
        assert not np.asarray(batches.mask)[outside].any()
        last = np.asarray(batches.mask)[np.arange(60), np.asarray(batches.length) - 1]
        assert last.all()


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda k: tasks.addition(k, 2, 9), "length must be at least 10"),
        (lambda k: tasks.addition(k, 2, 20, max_length=20), "max_length"),
        (lambda k: tasks.multiplication(k, 0, 20), "batch_size"),
        (lambda k: tasks.random_permutation(k, 2, 1), "length must be at least 2"),
        (lambda k: tasks.random_permutation(k, 2, 5, num_symbols=2), "num_symbols"),
        (
            lambda k: jax.jit(lambda n: tasks.addition(k, 2, n, max_length=30))(20),
            "length must be known before tracing",
        ),
        (lambda k: tasks.memorisation(k, 2, 0), "length must be at least 1"),
        (lambda k: tasks.memorisation(k, 2, 5, values=1), "values"),
        (lambda k: tasks.memorisation(k, None, 5), "batch_size=None makes 5\\^10"),
        (lambda k: tasks.delayed_copy(k, 2, 3, delay=3), "length must be at least 4"),
        (lambda k: tasks.delayed_xor(k, 2, 6, delay=3), "length must be at least 7"),
        (lambda k: tasks.delayed_xor(k, 2, 6, delay=0), "delay must be at least 1"),
        (lambda k: wrong_sequence(jnp.zeros((20, 2, 4)), tasks.temporal_order(k, 2, 20)), "batch.mask is None"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call(jax.random.key(0))
