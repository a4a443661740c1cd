"""The temporal order task: which of A, B came first and which second, long ago?

Exactly the generator of the released code of Pascanu, Mikolov & Bengio (2013): six one-hot symbols, 0 and 1 are
A and B, 2 to 5 distractors uniform at every other position. With L the length and w = floor(L / 10), the first
mark stands at floor(L / 10) + U{0..w-1}, the second at floor(L / 2) + U{0..w-1}; the class is v0 + 2 v1. The
three-mark variant has marks from floor(L / 10), floor(3 L / 10), floor(6 L / 10) and 8 classes.
(Hochreiter & Schmidhuber's task 6a of 1997 differs: 8 symbols with start and trigger, length 100 to 110.)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cliffs.tasks._batch import SequenceBatch, check_at_least, draw_length

NUM_SYMBOLS = 6
MARK_TENTHS = {2: (1, 5), 3: (1, 3, 6)}  # where each mark's window starts, in tenths of the length


def temporal_order(
    key: Key[Array, ""], batch_size: int, length: int, *, max_length: int | None = None, marks: int = 2
) -> SequenceBatch:
    """A mini-batch of the temporal order task, drawn inside `jit` from a key.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `batch_size`: number of sequences.
    - `length`: steps per sequence, at least 10; with `max_length` given, the lower end of a range.
    - `max_length`: when given, the whole batch has one length drawn from `U{length .. max_length - 1}` (half open,
      as in the released code) and arrays have `max_length - 1` steps, zero after the sequences' end.
    - `marks`: 2, or 3 for the three-bit variant.

    **Returns** `SequenceBatch`: `inputs` `[time, batch, 6]` float, `targets` `[batch]` in `0 .. 2^marks - 1`,
    `length` the drawn length. Success: `wrong_class`. Chance: `log 4` nats and 75 % wrong (three marks: `log 8`,
    87.5 %).

    **Raises** `ValueError` for a length below 10, an empty range, or another number of marks.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013); Hochreiter & Schmidhuber (1997), task 6.

    >>> batch = temporal_order(jax.random.key(0), 3, 20)
    >>> batch.inputs.shape, batch.targets.shape, int(batch.length)
    ((20, 3, 6), (3,), 20)
    """
    if marks not in MARK_TENTHS:
        raise ValueError(f"marks must be 2 or 3, got {marks}")
    check_at_least("batch_size", batch_size, 1)
    key_length, key_symbols, key_bits, key_places = jax.random.split(key, 4)
    why = "a mark's window is a tenth of it"
    steps, actual = draw_length(key_length, length, max_length, shortest=10, why=why)
    symbols = jax.random.randint(key_symbols, (steps, batch_size), 2, NUM_SYMBOLS)
    bits = jax.random.bernoulli(key_bits, 0.5, (marks, batch_size)).astype(int)
    window = actual // 10
    offsets = jax.random.randint(key_places, (marks, batch_size), 0, window)
    starts = jnp.stack([actual * tenths // 10 for tenths in MARK_TENTHS[marks]])
    symbols = symbols.at[starts[:, None] + offsets, jnp.arange(batch_size)].set(bits)
    inputs = jax.nn.one_hot(symbols, NUM_SYMBOLS) * (jnp.arange(steps) < actual)[:, None, None]
    targets = (bits * 2 ** jnp.arange(marks)[:, None]).sum(0)
    return SequenceBatch(inputs, targets, actual)
