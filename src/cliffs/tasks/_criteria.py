"""When is a sequence solved? One criterion for each kind of read-out.

A task counts as solved when less than 1 % of 10,000 fresh sequences are wrong (Martens & Sutskever 2011; Pascanu,
Mikolov & Bengio, ICML 2013).
"""

from jaxtyping import Array, Bool, Float

from cliffs.tasks._batch import SequenceBatch


def wrong_class(outputs: Float[Array, "batch classes"], batch: SequenceBatch) -> Bool[Array, " batch"]:
    """Which sequences get another class than their target as the largest output at the last step.

    **Arguments**: `outputs`, the read-out at step `batch.length - 1`; a batch whose targets are `[batch]` classes.

    **Returns** `[batch]` bool. Its mean is the error rate.

    >>> import jax, jax.numpy as jnp
    >>> from cliffs.tasks import temporal_order
    >>> batch = temporal_order(jax.random.key(0), 3, 20)
    >>> wrong_class(jax.nn.one_hot(batch.targets, 4), batch).tolist()
    [False, False, False]
    """
    return outputs.argmax(-1) != batch.targets


def wrong_value(
    outputs: Float[Array, "batch outputs"], batch: SequenceBatch, *, tolerance: float = 0.2
) -> Bool[Array, " batch"]:
    """Which sequences miss their target by more than `tolerance`: `sum_i (t_i - y_i)^2 > tolerance^2`.

    **Arguments**

    - `outputs`: the read-out at step `batch.length - 1`.
    - `batch`: its targets are `[batch, outputs]` numbers.
    - `tolerance`: 0.2 is the rule of Pascanu, Mikolov & Bengio (a squared error above 0.04); 0.04 that of Hochreiter &
      Schmidhuber (1997) and Sutskever's own code, five times stricter.

    **Returns** `[batch]` bool.

    >>> import jax.numpy as jnp
    >>> batch = SequenceBatch(jnp.zeros((1, 2, 2)), jnp.array([[0.5], [0.9]]), jnp.array(1))
    >>> wrong_value(jnp.full((2, 1), 0.6), batch).tolist()
    [False, True]
    >>> wrong_value(jnp.full((2, 1), 0.6), batch, tolerance=0.04).tolist()
    [True, True]
    """
    return ((outputs - batch.targets) ** 2).sum(-1) > tolerance**2


def wrong_sequence(outputs: Float[Array, "time batch classes"], batch: SequenceBatch) -> Bool[Array, " batch"]:
    """Which sequences have at least one wrong class among the steps of the batch's mask.

    **Arguments**: `outputs`, the read-out at every step; a batch with `[time, batch]` classes and a mask.

    **Returns** `[batch]` bool: right only when every step is right.

    **Raises** `ValueError` when the batch has no mask.

    >>> import jax, jax.numpy as jnp
    >>> from cliffs.tasks import delayed_copy
    >>> batch = delayed_copy(jax.random.key(0), 2, 6, delay=2)
    >>> wrong_sequence(jax.nn.one_hot(batch.targets, 2), batch).tolist()
    [False, False]
    """
    if batch.mask is None:
        raise ValueError("batch.mask is None: this task wants an output at the last step alone, use wrong_class")
    return ((outputs.argmax(-1) != batch.targets) & batch.mask).any(0)
