"""Noiseless memorisation: some symbols, a long silence, a cue, and the symbols again."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cliffs.tasks._batch import SequenceBatch, check_at_least, draw_length

MOST_PATTERNS = 2**16


def memorisation(
    key: Key[Array, ""],
    batch_size: int | None,
    length: int,
    *,
    max_length: int | None = None,
    positions: int = 10,
    values: int = 5,
) -> SequenceBatch:
    """A batch of the noiseless memorisation task with `positions` symbols of `values` kinds and L steps in between.

    Inputs are one-hot with `values + 2` entries: the values, then the blank, then the cue. A sequence has
    `L + 2 positions` steps: the symbols; blanks; the cue at step `L + positions`, the first of the last `positions`
    steps; blanks. The target (`values + 1` classes, the blank last) is the blank up to the cue and the symbols in their
    order from the cue's step on. Every step counts.

    - The paper's "20-bit" problem is `positions=10, values=5` (23.2 bits).
    - Its 5-bit problem is `positions=5, values=2, batch_size=None`, where the batch is all 32 patterns.
    - The copying problem of Arjovsky, Shah & Bengio (2016) is `positions=10, values=8`, with its cue one step
      earlier.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `batch_size`: number of sequences; None for every pattern once, in the order of the digits of
      `0 .. values^positions - 1`, lowest first.
    - `length`: L, at least 1; with `max_length` given, the lower end of a range.
    - `max_length`: when given, one L for the batch from `U{length .. max_length - 1}`.
    - `positions`, `values`: how many symbols, of how many kinds; at least 1 and 2.

    **Returns** `SequenceBatch`: `inputs` `[time, batch, values + 2]`, `targets` `[time, batch]`, `length` =
    L + 2 positions, `mask` True up to there. Success: `wrong_sequence`. The best without memory has a mean
    cross-entropy of `positions log(values) / (L + 2 positions)` nats per step.

    **Raises** `ValueError` for sizes out of range, or more than 65,536 patterns with `batch_size=None`.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013); Hochreiter & Schmidhuber (1997), Martens & Sutskever
    (2011). (Sutskever's code has the cue one step earlier.)

    >>> batch = memorisation(jax.random.key(0), None, 10, positions=5, values=2)
    >>> batch.inputs.shape, batch.targets.shape, batch.targets[-5:, 6].tolist()  # 6 = 0 + 2 + 4
    ((20, 32, 4), (20, 32), [0, 1, 1, 0, 0])
    """
    for name, value, least in (("positions", positions, 1), ("values", values, 2)):
        check_at_least(name, value, least)
    key_length, key_symbols = jax.random.split(key)
    longest, silence = draw_length(key_length, length, max_length, shortest=1, why="the steps in between")
    if batch_size is None:
        if values**positions > MOST_PATTERNS:
            raise ValueError(
                f"batch_size=None makes {values}^{positions} sequences, at most {MOST_PATTERNS} are allowed"
            )
        symbols = jnp.arange(values**positions) // values ** jnp.arange(positions)[:, None] % values
    else:
        check_at_least("batch_size", batch_size, 1)
        symbols = jax.random.randint(key_symbols, (positions, batch_size), 0, values)
    blank, steps = values, longest + 2 * positions
    cue, actual = silence + positions, silence + 2 * positions
    empty = jnp.full((steps, symbols.shape[1]), blank)
    seen = empty.at[:positions].set(symbols).at[cue].set(blank + 1)
    targets = jax.lax.dynamic_update_slice_in_dim(empty, symbols.astype(empty.dtype), cue, 0)
    counts = jnp.arange(steps) < actual
    inputs = jax.nn.one_hot(seen, values + 2) * counts[:, None, None]
    return SequenceBatch(inputs, targets, actual, jnp.broadcast_to(counts[:, None], targets.shape))
