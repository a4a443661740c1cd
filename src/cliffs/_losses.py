"""One contract for losses, `loss(params, batch) -> scalar or (scalar, aux)`, and what brings others' needs to it."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, PyTree

from cliffs.typing import Loss


def value_and_aux(output: ArrayLike | tuple[ArrayLike, PyTree]) -> tuple[Array, PyTree]:
    """What a loss returned as `(scalar, aux)`; aux is `()` where there is none.

    **Raises** `ValueError` for anything but a scalar or `(scalar, aux)`.

    >>> value_and_aux(jnp.float32(2.0))[1], value_and_aux((jnp.float32(2.0), {"error": 0.1}))[1]
    ((), {'error': 0.1})
    """
    value, aux = output if isinstance(output, tuple) and len(output) == 2 else (output, ())
    if isinstance(value, tuple | list | dict) or jnp.ndim(value):
        shape = type(value).__name__ if isinstance(value, tuple | list | dict) else f"an array {jnp.shape(value)}"
        raise ValueError(f"loss must return a scalar or (scalar, aux), got {shape}")
    return jnp.asarray(value), aux


def with_aux(loss: Callable[..., ArrayLike | tuple[ArrayLike, PyTree]]) -> Callable[..., tuple[Array, PyTree]]:
    """The same loss, always returning `(scalar, aux)`."""

    @functools.wraps(loss, updated=())
    def wrapped(*args: PyTree) -> tuple[Array, PyTree]:
        return value_and_aux(loss(*args))

    return wrapped


def scalar(loss: Callable[..., ArrayLike | tuple[ArrayLike, PyTree]]) -> Callable[..., Array]:
    """The same loss without its aux.

    >>> float(scalar(lambda params: (params**2, "aux"))(3.0))
    9.0
    """

    @functools.wraps(loss, updated=())
    def wrapped(*args: PyTree) -> Array:
        return value_and_aux(loss(*args))[0]

    return wrapped


class _AtBatch:
    """`params -> scalar`. Compared by identity, so that what is compiled for it is found again."""

    def __init__(self, loss: Loss, batch: PyTree):
        self._loss, self._batch = loss, batch

    def __call__(self, params: PyTree) -> Array:
        return value_and_aux(self._loss(params, self._batch))[0]


def at_batch(loss: Loss, batch: PyTree) -> Callable[[PyTree], Array]:
    """The loss of the parameters alone, `params -> E(params, batch)`, without aux.

    Curvature, surfaces, walls and descents look at one fixed function of the parameters: this makes it from a loss that
    trains. Keep the returned function and use it again: programs are compiled once for each.

    **Arguments**

    - `loss`: `loss(params, batch) -> scalar` or `(scalar, aux)`.
    - `batch`: the batch that stays.

    **Returns** a function `params -> scalar`.

    >>> import jax
    >>> loss = lambda params, batch: (jnp.mean((params - batch) ** 2), "aux")
    >>> float(jax.grad(at_batch(loss, jnp.array([1.0, 3.0])))(0.0))
    -4.0
    """
    return _AtBatch(loss, batch)
