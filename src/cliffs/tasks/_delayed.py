"""Streams of bits whose answer is wanted all the time, some steps late: delayed copy and delayed XOR."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cliffs.tasks._batch import SequenceBatch, check_at_least, draw_length


def delayed_copy(
    key: Key[Array, ""], batch_size: int, length: int, *, delay: int, max_length: int | None = None
) -> SequenceBatch:
    """A batch of the delayed copy task: fair bits `u_t`, target `y_t = u_{t - delay}` at every step from `delay` on.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `batch_size`: number of sequences.
    - `length`: steps per sequence, more than `delay`; with `max_length` given, the lower end of a range.
    - `delay`: in steps, at least 1.
    - `max_length`: when given, one length for the batch from `U{length .. max_length - 1}`.

    **Returns** `SequenceBatch`: `inputs` `[time, batch, 1]` of 0 and 1, `targets` `[time, batch]` in {0, 1} (0 outside
    the mask), `mask` True at the steps `delay .. length - 1`. Success: `wrong_sequence`. Chance: `log 2` nats, half of
    the steps wrong.

    **Raises** `ValueError` for a length that leaves no step to judge, an empty range, or sizes below 1.

    Source: Engelken (NeurIPS 2023), whose code also scores the first `delay` steps, where nothing can be known.

    >>> batch = delayed_copy(jax.random.key(0), 3, 8, delay=2)
    >>> bool((batch.targets[2:] == batch.inputs[:-2, :, 0]).all()), batch.mask[:, 0].astype(int).tolist()
    (True, [0, 0, 1, 1, 1, 1, 1, 1])
    """
    return _stream(key, batch_size, length, max_length, delay, (delay,))


def delayed_xor(
    key: Key[Array, ""], batch_size: int, length: int, *, delay: int, max_length: int | None = None
) -> SequenceBatch:
    """A batch of the delayed XOR task: fair bits `u_t`, target `y_t = |u_{t - delay} - u_{t - 2 delay}|`.

    **Arguments**, **Returns**, **Raises**: as `delayed_copy`, with `mask` True from step `2 delay` on and a length of
    more than `2 delay`.

    Source: Engelken (NeurIPS 2023), Gradient flossing, the temporal XOR task.

    >>> batch = delayed_xor(jax.random.key(0), 3, 8, delay=2)
    >>> batch.inputs.shape, int(batch.mask.sum())
    ((8, 3, 1), 12)
    """
    return _stream(key, batch_size, length, max_length, delay, (delay, 2 * delay))


def _stream(key, batch_size, length, max_length, delay, lags):
    check_at_least("batch_size", batch_size, 1)
    check_at_least("delay", delay, 1)
    key_length, key_bits = jax.random.split(key)
    why = f"the first answer comes at step {lags[-1]} with delay={delay}"
    steps, actual = draw_length(key_length, length, max_length, shortest=lags[-1] + 1, why=why)
    bits = jax.random.bernoulli(key_bits, 0.5, (steps, batch_size)).astype(int)
    time = jnp.arange(steps)[:, None]
    mask = jnp.broadcast_to((time >= lags[-1]) & (time < actual), bits.shape)
    # Rolled rows before the last lag come from the other end: the mask takes them out.
    targets = sum(jnp.roll(bits, lag, 0) for lag in lags) % 2
    inputs = (bits * (time < actual))[..., None].astype(float)
    return SequenceBatch(inputs, jnp.where(mask, targets, 0), actual, mask)
