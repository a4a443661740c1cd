"""The leaves of a gradient: which of them are numbers to clip, what they are called, and what belongs to them."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

NO_PARAMS = "params is None, but this rule needs them: update(updates, state, params)"
T = TypeVar("T")


def is_array(x: Any) -> bool:
    """Whether a leaf is an array or a number; functions and other objects in a module's leaves are not."""
    return isinstance(x, jax.Array | np.ndarray | np.generic | int | float | complex) and not isinstance(x, bool)


def is_number(x: Any) -> bool:
    """Whether a leaf holds numbers that a gradient can have: real or complex floating point, and not empty."""
    return is_array(x) and jnp.issubdtype(jnp.result_type(x), jnp.inexact) and np.size(x) > 0


def inexact(tree: PyTree) -> list[Array]:
    """The leaves that are numbers to clip; missing gradients (None), integers and functions are none."""
    return [jnp.asarray(x) for x in jax.tree.leaves(tree) if is_number(x)]


def compute_dtype(tree: PyTree) -> Any:
    """The real dtype that norms of this tree are given in: float32, or float64 where a leaf has it."""
    double = any(jnp.finfo(jnp.result_type(x)).bits == 64 for x in jax.tree.leaves(tree) if is_number(x))
    return jnp.dtype(jnp.float64 if double else jnp.float32)


def wide(x: Array, dtype: Any) -> Array:
    """`x` in the precision `dtype`, complex where it was complex."""
    if not jnp.iscomplexobj(x):
        return jax.lax.convert_element_type(x, dtype)
    return jax.lax.convert_element_type(x, jnp.complex128 if jnp.finfo(dtype).bits == 64 else jnp.complex64)


def whole(x: Array) -> Array:
    """An array whole on every device, where its type says how it is spread (meshes with explicit axes)."""
    mesh = jax.typeof(x).sharding.mesh
    if jax.sharding.AxisType.Explicit not in mesh.axis_types:
        return x
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*[None] * x.ndim))


def real_parts(x: Array) -> tuple[Array, ...]:
    """The real numbers of an array: itself, or real and imaginary part."""
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def _is_variable(x: Any) -> bool:
    """A variable of flax nnx: a node around one array, there in a model's state and gone inside of its optimizer."""
    return any(c.__name__ == "Variable" and c.__module__.startswith("flax.nnx") for c in type(x).__mro__)


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Every leaf with its path, such as `"rnn/w_rec"`; a key that itself holds a slash gets a prefix that tells.

    The same leaf has one name whether or not flax nnx has wrapped it in a variable.
    """
    found = []
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        inner = jax.tree_util.tree_flatten_with_path(node)[0] if _is_variable(node) else [((), node)]
        found += [((*path, *more) if len(inner) > 1 else path, leaf) for more, leaf in inner]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
    count = collections.Counter(names)
    unique = [n if count[n] == 1 else f"{jax.tree_util.keystr(p)}:{n}" for n, (p, _) in zip(names, found)]
    return [(name, leaf) for name, (_, leaf) in zip(unique, found)]


def path_names(tree: PyTree) -> list[str]:
    """The names of all leaves."""
    return [name for name, _ in named_leaves(tree)]


def number_names(tree: PyTree) -> list[str]:
    """The names of the leaves that are numbers to clip."""
    return [name for name, leaf in named_leaves(tree) if is_number(leaf)]


def _holes(tree: PyTree) -> list[str]:
    """The names of the places without a gradient: None, or what `optax.masked` leaves there."""

    def hole(x):
        return x is None or isinstance(x, optax.MaskedNode)

    pairs = jax.tree_util.tree_flatten_with_path(tree, is_leaf=hole)[0]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, x in pairs if hole(x)]


def check_same_leaves(updates: PyTree, have: Sequence[str], other: Sequence[str], what: str) -> None:
    """Raise `ValueError` with the first path that differs, unless the gradient's leaves are those of `what`.

    Leaves of the gradient may be missing where it holds None or a `MaskedNode`.
    """
    known, mine = set(other), set(have)
    extra = [name for name in have if name not in known]
    lost = [name for name in other if name not in mine]
    if lost:
        holes = _holes(updates)
        lost = [n for n in lost if not any(h in ("", n) or n.startswith(f"{h}/") for h in holes)]
    if extra or lost:
        first = repr(extra[0] if extra else lost[0])
        side = (
            f"the gradient has a leaf {first} that is not among" if extra else f"the gradient lacks the leaf {first} of"
        )
        raise ValueError(f"{side} {what}: it has {list(have)}, {what} {list(other)}")


def paired(updates: PyTree, names: Sequence[str], values: Mapping[str, T], what: str) -> list[T]:
    """What belongs to each leaf of the gradient, found by its name."""
    check_same_leaves(updates, names, list(values), what)
    return [values[name] for name in names]


def paired_weights(updates: PyTree, params: PyTree) -> list[Array]:
    """The parameter of every leaf to clip, found by its path where the two trees are not built alike."""
    if params is None:
        raise ValueError(NO_PARAMS)
    if jax.tree.structure(updates) == jax.tree.structure(params):
        pairs = [(x, w) for x, w in zip(jax.tree.leaves(updates), jax.tree.leaves(params)) if is_number(x)]
        names = None
    else:
        given = [(name, x) for name, x in named_leaves(updates) if is_number(x)]
        names = [name for name, _ in given]
        weights = {name: w for name, w in named_leaves(params) if is_number(w)}
        pairs = [(x, w) for (_, x), w in zip(given, paired(updates, names, weights, "params"))]
    for i, (x, w) in enumerate(pairs):
        if np.shape(x) != np.shape(w):
            name = (names or number_names(updates))[i]
            raise ValueError(f"the gradient at {name!r} has shape {np.shape(x)}, params have {np.shape(w)}")
    return [jnp.asarray(w) for _, w in pairs]


def is_recurrent(path: str) -> bool:
    """Whether a path ends in `w_rec`, as the recurrent matrix is called in `cliffs.recurrent`."""
    return path.rsplit("/", 1)[-1] == "w_rec"


def stands_for_params(tree: PyTree) -> bool:
    """Whether a tree is the stand-in by which `optax.tree_map_params` asks which parts of a state copy the parameters.

    It is an object without leaves. State with one entry per leaf cannot answer in its own structure, so an array
    stands there instead, and the whole entry counts as no copy of the parameters.
    """
    plain = isinstance(tree, Mapping | list | tuple) or tree is None
    return not plain and not jax.tree.leaves(tree)
