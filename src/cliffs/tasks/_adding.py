"""The addition and multiplication tasks: two marked numbers among many, combined at the end.

Two input channels: channel 0 is 1 at the two marks and 0 elsewhere, channel 1 is `U[0, 1)` at every step. With `l` the
sequence's length the first mark stands at `U{0 .. floor(l / 10) - 1}` and the second at
`floor(l / 10) + U{0 .. floor(4 l / 10) - 1}`. As in the released code of Pascanu, Mikolov & Bengio (2013) the length
itself is drawn for each batch, `l = length + U{0 .. floor(length / 10) - 1}`. (Hochreiter & Schmidhuber 1997 and
Sutskever's code also put -1 into the mark channel at the first and at one late step.)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cliffs.tasks._batch import SequenceBatch, check_at_least, draw_length


def addition(key: Key[Array, ""], batch_size: int, length: int, *, max_length: int | None = None) -> SequenceBatch:
    """A batch of the addition task, target `(a + b) / 2` of the two marked numbers, wanted at the last step.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `batch_size`: number of sequences.
    - `length`: L, at least 10; the batch's length is `L + U{0 .. floor(L / 10) - 1}`.
    - `max_length`: when given, L itself is drawn from `U{length .. max_length - 1}` for each batch.

    **Returns** `SequenceBatch`: `inputs` `[time, batch, 2]` with room for the longest, `targets` `[batch, 1]` in
    `[0, 1)`, `length` the drawn `l`. Success: `wrong_value`. The constant 0.5 has a mean squared error of 1/24 and
    is wrong in 36.0 % (tolerance 0.2) or 84.6 % (tolerance 0.04) of the sequences.

    **Raises** `ValueError` for a length below 10, an empty range, or `batch_size < 1`.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013); Hochreiter & Schmidhuber (1997), task 4.

    >>> batch = addition(jax.random.key(0), 3, 20)
    >>> batch.inputs.shape, batch.targets.shape, batch.inputs[..., 0].sum(0).tolist()
    ((21, 3, 2), (3, 1), [2.0, 2.0, 2.0])
    """
    inputs, marked, actual = _marked_numbers(key, batch_size, length, max_length)
    return SequenceBatch(inputs, marked.mean(0)[:, None], actual)


def multiplication(
    key: Key[Array, ""], batch_size: int, length: int, *, max_length: int | None = None
) -> SequenceBatch:
    """A batch of the multiplication task: as `addition`, with the product `a b` as target.

    **Arguments**, **Returns**, **Raises**: as `addition`. The constant 0.25 has a mean squared error of 7/144 and is
    wrong in 39.0 % (tolerance 0.2) or 88.9 % (tolerance 0.04); the best constant for the first rule is 0.2, 23.3 %.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013); Hochreiter & Schmidhuber (1997), task 5.

    >>> multiplication(jax.random.key(0), 3, 20, max_length=31).inputs.shape
    (32, 3, 2)
    """
    inputs, marked, actual = _marked_numbers(key, batch_size, length, max_length)
    return SequenceBatch(inputs, marked.prod(0)[:, None], actual)


def _marked_numbers(key, batch_size, length, max_length):
    """`inputs [time, batch, 2]`, the two marked numbers `[2, batch]` and the length."""
    check_at_least("batch_size", batch_size, 1)
    key_length, key_more, key_numbers, key_first, key_second = jax.random.split(key, 5)
    why = "the first mark's window is a tenth of it"
    longest, base = draw_length(key_length, length, max_length, shortest=10, why=why)
    steps = longest + longest // 10 - 1
    actual = base + jax.random.randint(key_more, (), 0, base // 10)
    numbers = jax.random.uniform(key_numbers, (steps, batch_size))
    first = jax.random.randint(key_first, (batch_size,), 0, actual // 10)
    second = actual // 10 + jax.random.randint(key_second, (batch_size,), 0, 4 * actual // 10)
    places, lanes = jnp.stack([first, second]), jnp.arange(batch_size)
    marks = jnp.zeros_like(numbers).at[places, lanes].set(1)
    inputs = jnp.stack([marks, numbers], -1) * (jnp.arange(steps) < actual)[:, None, None]
    return inputs, numbers[places, lanes], actual
