"""The contracts of the functions that a user writes. Nothing else in the library defines them again."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, ArrayLike, Key, PyTree


@runtime_checkable
class Step(Protocol):
    """One step of a recurrent model, `state = step(params, state, inputs)` (Pascanu et al. 2012, eq. 1).

    State and inputs are pytrees; the step returns a state of the same structure, shapes and dtypes. A map without
    inputs takes `inputs=None`.

    >>> def leaky(params, state, inputs):
    ...     return 0.9 * state + params * inputs
    >>> isinstance(leaky, Step)
    True
    """

    def __call__(self, params: PyTree, state: PyTree, inputs: PyTree, /) -> PyTree: ...


@runtime_checkable
class Loss(Protocol):
    """A loss, `loss(params, batch) -> scalar` or `(scalar, aux)`.

    Functions that need a loss of the parameters alone (curvature, surfaces, cliffs) take
    `cliffs.training.at_batch(loss, batch)`.

    >>> isinstance(lambda params, batch: ((params - batch) ** 2).mean(), Loss)
    True
    """

    def __call__(self, params: PyTree, batch: PyTree, /) -> Array | tuple[Array, PyTree]: ...


@runtime_checkable
class Objective(Protocol):
    """A loss of the parameters alone, `objective(params) -> scalar`; `(scalar, aux)` is accepted, too.

    >>> isinstance(lambda params: (params**2).sum(), Objective)
    True
    """

    def __call__(self, params: PyTree, /) -> ArrayLike | tuple[ArrayLike, PyTree]: ...


@runtime_checkable
class Sampler(Protocol):
    """A source of batches, `batch = sample(key)`.

    >>> import jax
    >>> isinstance(lambda key: jax.random.normal(key, (3,)), Sampler)
    True
    """

    def __call__(self, key: Key[Array, ""], /) -> PyTree: ...


@runtime_checkable
class Init(Protocol):
    """The first state of one run of a sweep, `state = init(run)`; `run` is one entry of the grid.

    >>> isinstance(lambda run: run["lr"], Init)
    True
    """

    def __call__(self, run: PyTree, /) -> PyTree: ...


@runtime_checkable
class Update(Protocol):
    """One update of one run of a sweep, `state, metrics = update(state, run)`, or `update(state, run, data)`.

    >>> isinstance(lambda state, run: (state, {}), Update)
    True
    """

    # Any arguments: a function of two and one of three are both right, and no narrower type says that.
    def __call__(self, *args: Any, **kwargs: Any) -> tuple[PyTree, PyTree]: ...


@runtime_checkable
class Evaluate(Protocol):
    """What is measured of one run now and then, `evaluate(state, run) -> {name: array}`.

    >>> isinstance(lambda state, run: {"solved": True}, Evaluate)
    True
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, PyTree]: ...
