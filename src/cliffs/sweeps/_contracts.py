"""What a sweep asks of the functions that it is given, checked before anything is compiled."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from cliffs.sweeps._grid import is_key
from cliffs.typing import Evaluate, Init, Update

NUMBER = (int, float, np.integer, np.floating)


class Shapes(NamedTuple):
    """Shapes and dtypes of what the functions return for one run."""

    state: PyTree
    metrics: PyTree
    evaluation: Mapping[str, PyTree]


class Traced(NamedTuple):
    """The programs that the functions are for one run."""

    init: ClosedJaxpr
    update: ClosedJaxpr
    evaluate: ClosedJaxpr | None


def check_functions(
    init: Init, update: Update, evaluate: Evaluate | None, run: PyTree, data: tuple[PyTree, ...]
) -> tuple[Shapes, Traced]:
    """The shapes of state, metrics and evaluation, and the programs; the functions are traced, nothing is computed.

    **Arguments**: the three functions; `run` and `data` as shapes and dtypes.

    **Raises** `ValueError` that names the function, what it returned and what is allowed.
    """
    given = "(state, run, data)" if data else "(state, run)"
    first, (state, diverged_at) = _returned(lambda run: _with_divergence(init(run)), "init", init, "(run)", run)
    if diverged_at is None:
        raise ValueError(
            f"init must return a state with a field or property diverged_at (an integer: the step at which the run "
            f"diverged, -1 before), as cliffs.training.TrainState has; got {_named(state)}"
        )
    if jnp.shape(diverged_at) or not jnp.issubdtype(diverged_at.dtype, jnp.integer):
        raise ValueError(f"the state's diverged_at must be one integer, got {_text(diverged_at)}")
    _check_arrays("init", state)
    second, returned = _returned(update, "update", update, given, state, run, *data)
    # A NamedTuple of two fields is a state, not the pair that is asked for.
    if not isinstance(returned, tuple) or hasattr(returned, "_fields") or len(returned) != 2:
        raise ValueError(f"update must return (state, metrics), got {_named(returned)}")
    _check_same_state(state, returned[0])
    _check_arrays("update", returned[1], keys=False)
    evaluation: Any = {}
    third = None
    if evaluate is not None:
        third, evaluation = _returned(evaluate, "evaluate", evaluate, given, state, run, *data)
        if not isinstance(evaluation, Mapping) or any(not isinstance(name, str) for name in evaluation):
            raise ValueError(f"evaluate must return a dict from names to arrays, got {_named(evaluation)}")
        evaluation = dict(evaluation)
        _check_arrays("evaluate", evaluation, keys=False)
        solved = evaluation.get("solved")
        if "solved" in evaluation and (getattr(solved, "shape", None) != () or solved.dtype != bool):
            raise ValueError(f"evaluate's entry 'solved' must be one bool, got {_text(solved)}")
    return Shapes(state, returned[1], evaluation), Traced(first, second, third)


def check_count(name: str, value: Any) -> int:
    """A positive whole number, or a `ValueError`."""
    whole = hasattr(value, "__index__") and not isinstance(value, bool)
    if not whole or value.__index__() < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return value.__index__()


def check_call(name: str, user: Callable[..., Any], given: str, *args: Any) -> None:
    """Whether a function takes these arguments, `given` in words; else a `ValueError`."""
    try:
        inspect.signature(user).bind(*args)
    except TypeError as error:
        label = getattr(user, "__qualname__", repr(user))
        raise ValueError(f"{name} is called as {name}{given}, but {label} takes other arguments: {error}") from None
    except ValueError:
        pass  # a builtin without a signature


def _with_divergence(state: Any) -> tuple[Any, Any]:
    # A property may compute, so it is read while the state is traced.
    return state, getattr(state, "diverged_at", None)


def _returned(function: Callable[..., Any], name: str, user: Any, given: str, *args: Any) -> tuple[ClosedJaxpr, Any]:
    if not callable(user):
        raise ValueError(f"{name} must be a function, got {user!r}")
    check_call(name, user, given, *args)
    try:
        # A new function, so that JAX traces again: a value that the old one reads may have changed.
        return jax.make_jaxpr(lambda *args: function(*args), return_shape=True)(*args)
    except TypeError as error:
        if "valid JAX type" not in str(error):
            raise
        raise ValueError(f"{name} must return arrays: {str(error).splitlines()[0]}") from error


def _check_arrays(name: str, tree: PyTree, *, keys: bool = True) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if is_key(leaf) and not keys:
            where = jax.tree_util.keystr(path)
            raise ValueError(f"{name} returns a random key{where and ' at '}{where}: keys belong into the state")


def _check_same_state(before: PyTree, after: PyTree) -> None:
    old, new = (dict(_leaves(tree)) for tree in (before, after))
    for path in (*old, *new):
        if path not in new or path not in old:
            lost, found = ("init", "update") if path in old else ("update", "init")
            raise ValueError(
                f"update must return a state like init's: the leaf {path} is in what {lost} returns, not in {found}'s"
            )
        if (old[path].shape, old[path].dtype) != (new[path].shape, new[path].dtype):
            raise ValueError(
                f"update must return a state like init's: the leaf {path} is {_text(new[path])}, "
                f"in init's state it is {_text(old[path])}"
            )
    if jax.tree.structure(before) != jax.tree.structure(after):
        raise ValueError(
            f"update must return a state like init's: the tree is {jax.tree.structure(after)}, "
            f"init's is {jax.tree.structure(before)}"
        )


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [("state" + jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def _text(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]" if hasattr(x, "dtype") else _named(x)


def _named(x: Any) -> str:
    if hasattr(x, "dtype"):
        return f"one array {_text(x)}"
    size = f" of {len(x)}" if isinstance(x, (tuple, list)) else ""
    return f"a {type(x).__name__}{size}"
