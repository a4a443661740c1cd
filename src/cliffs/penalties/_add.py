"""How a penalty joins a loss."""

from collections.abc import Callable

from jaxtyping import Array, ArrayLike, PyTree

from cliffs.typing import Loss


def add_penalty(loss: Loss, penalty: Callable[[PyTree, PyTree], ArrayLike], weight: float | Array) -> Loss:
    """The loss `loss(params, batch) + weight * penalty(params, batch)`; an aux is passed on.

    **Arguments**

    - `loss`: `loss(params, batch) -> scalar` or `(scalar, aux)`.
    - `penalty`: `penalty(params, batch) -> scalar`.
    - `weight`: a scalar. It may be traced: made inside a sweep's `update(state, run)`, a loss takes its weight from
      the grid, `run["weight"]`, or from a schedule of optax, `schedule(state.step)`.

    **Returns** a loss of the same kind.

    **Raises** `ValueError` for a weight that is a function.

    >>> from cliffs.penalties import l2
    >>> loss = lambda params, batch: ((params - batch) ** 2, "aux")
    >>> add_penalty(loss, lambda params, batch: l2(params), 0.5)(2.0, 1.0)[1]
    'aux'
    """
    if callable(weight):
        raise ValueError("weight must be a number, got a function: call a schedule with the step, schedule(state.step)")

    def penalised(params, batch):
        out = loss(params, batch)
        extra = weight * penalty(params, batch)
        return (out[0] + extra, *out[1:]) if isinstance(out, tuple) else out + extra

    return penalised
