"""The random permutation task: the first symbol, one of two, must be named after many others."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cliffs.tasks._batch import SequenceBatch, check_at_least, draw_length


def random_permutation(
    key: Key[Array, ""],
    batch_size: int,
    length: int,
    *,
    max_length: int | None = None,
    num_symbols: int = 100,
) -> SequenceBatch:
    """A batch of the random permutation task: `x_0` is 0 or 1, `x_1 .. x_{L-1}` are `U{2 .. num_symbols - 1}`.

    The target is `x_0`, wanted at the last step alone, as in the released code of 2013. (In Sutskever's version the
    network predicts the next symbol at every step and is judged at the last.)

    **Arguments**

    - `key`: a `jax.random.key`.
    - `batch_size`: number of sequences.
    - `length`: steps per sequence, at least 2; with `max_length` given, the lower end of a range.
    - `max_length`: when given, one length for the batch from `U{length .. max_length - 1}`.
    - `num_symbols`: size of the alphabet, at least 3.

    **Returns** `SequenceBatch`: `inputs` `[time, batch, num_symbols]` one-hot, `targets` `[batch]` in {0, 1}. Success:
    `wrong_class` with `num_symbols` outputs. Always answering 0 is wrong in 50 % of the sequences.

    **Raises** `ValueError` for a length below 2, an empty range, fewer than 3 symbols, or `batch_size < 1`.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013); Hochreiter & Schmidhuber (1997), task 2b.

    >>> batch = random_permutation(jax.random.key(0), 3, 20)
    >>> batch.inputs.shape, bool((batch.inputs[0].argmax(-1) == batch.targets).all())
    ((20, 3, 100), True)
    """
    check_at_least("batch_size", batch_size, 1)
    check_at_least("num_symbols", num_symbols, 3)
    key_length, key_symbols, key_first = jax.random.split(key, 3)
    why = "the symbol to remember and one more"
    steps, actual = draw_length(key_length, length, max_length, shortest=2, why=why)
    first = jax.random.bernoulli(key_first, 0.5, (batch_size,)).astype(int)
    symbols = jax.random.randint(key_symbols, (steps, batch_size), 2, num_symbols).at[0].set(first)
    inputs = jax.nn.one_hot(symbols, num_symbols) * (jnp.arange(steps) < actual)[:, None, None]
    return SequenceBatch(inputs, first, actual)
