"""A step on any pytree seen as a step on one vector, which is what linear algebra needs."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree

from cliffs.typing import Step

VectorStep = Callable[[PyTree, Float[Array, " n"], PyTree], Float[Array, " n"]]


def num_inputs(inputs: PyTree) -> int | None:
    """The length of the leading time axis that all leaves of `inputs` share; None for an autonomous map.

    >>> num_inputs(None), num_inputs({"u": jnp.zeros((7, 2)), "mask": jnp.zeros(7)})
    (None, 7)
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
    if not shapes:
        return None
    if any(not s for s in shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(f"inputs must share one leading time axis, got shapes {shapes}")
    return shapes[0][0]


def flatten_step(
    step: Step, params: PyTree, state: PyTree, inputs: PyTree
) -> tuple[VectorStep, Float[Array, " n"], Callable[[Array], PyTree]]:
    """`(f, x, unravel)`: the step on vectors, the state as a vector, and the way back.

    The vector takes the dtype that the step returns, so that float64 parameters give a float64 trajectory.

    **Raises** `ValueError` when the step is no map of the state's shape into itself.

    >>> f, x, _ = flatten_step(lambda p, s, u: (p * s[1], s[0]), 2.0, (jnp.ones(2), jnp.zeros(2)), None)
    >>> f(2.0, x, None).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    sample = jax.tree.map(lambda u: u[0], inputs) if num_inputs(inputs) else inputs
    out = jax.eval_shape(step, params, state, sample)
    if jax.tree.structure(out) != jax.tree.structure(state) or any(
        jnp.shape(a) != b.shape for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(out))
    ):
        shapes = jax.tree.map(jnp.shape, state), jax.tree.map(lambda b: b.shape, out)
        raise ValueError(f"step must map the state to one of the same shape, got {shapes[0]} to {shapes[1]}")
    dtype = jnp.result_type(*jax.tree.leaves(out))
    x, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), state))

    def flat(params, x, u):
        return ravel_pytree(step(params, unravel(x), u))[0].astype(dtype)

    return flat, x, unravel


@dataclasses.dataclass(frozen=True)
class FlatStep:
    """A step whose state is a pytree (or an array of several axes), seen as a step on vectors; hashable."""

    step: Step
    structure: Any  # a PyTreeDef, which jax does not name for type checkers
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, params: PyTree, state: Array, inputs: PyTree = None) -> Array:
        return self.flatten(self.step(params, self.restore(state), inputs))

    def flatten(self, state: PyTree) -> Array:
        """Leaves `[*batch, *shape]` as one array `[*batch, n]`."""
        leaves = jax.tree.leaves(state)
        batch = [x.shape[: x.ndim - len(s)] for x, s in zip(leaves, self.shapes)]
        return jnp.concatenate([x.reshape(*b, -1) for x, b in zip(leaves, batch)], -1)

    def restore(self, flat: Float[Array | np.ndarray, "*batch n"]) -> PyTree:
        """`[*batch, n]` (jax or numpy) as the pytree with leaves `[*batch, *shape]`."""
        leaves, start = [], 0
        for shape in self.shapes:
            size = math.prod(shape)
            leaves.append(flat[..., start : start + size].reshape(*flat.shape[:-1], *shape))
            start += size
        return jax.tree.unflatten(self.structure, leaves)


@dataclasses.dataclass(frozen=True, eq=False)
class _ByIdentity:
    """A step that cannot be hashed (an object that holds arrays), hashed by identity so that it can be static."""

    step: Step

    def __call__(self, params: PyTree, state: PyTree, inputs: PyTree = None) -> PyTree:
        return self.step(params, state, inputs)


def flat_states(
    step: Step, states: PyTree, *, name: str = "starts", axes: int = 1, nonfinite: Literal["raise", "drop"] = "raise"
) -> tuple[Step, Float[Array, "*batch n"], Callable[[Array | np.ndarray], PyTree]]:
    """The step on vectors, the states as `[*batch, n]`, and the way back; vectors are passed through untouched.

    **Arguments**: the step; a pytree whose leaves share their first `axes` axes; `name` for messages; with
    `nonfinite="drop"` states that are not finite are left to the caller, who drops them, unless there is no other.

    **Returns** `(step, matrix, restore)`; `restore` takes any leading axes.

    **Raises** `ValueError` for leaves without those axes, of no size, of mixed or non-floating dtype, or not finite.

    >>> step, matrix, restore = flat_states(lambda p, s, u: s, (jnp.zeros((4, 2)), jnp.ones((4, 3))))
    >>> matrix.shape, restore(matrix)[1].shape
    ((4, 5), (4, 3))
    """
    given = jax.tree.leaves(states)
    leaves = [jnp.asarray(x) for x in given]
    batch = {x.shape[:axes] for x in leaves}
    shapes = [x.shape for x in leaves]
    layout = f"[{', '.join(['points'] * axes)}, ...]"
    if not leaves or any(x.ndim <= axes or x.size == 0 for x in leaves) or len(batch) != 1:
        raise ValueError(f"{name} must be {layout} with at least one point, got shape {shapes}")
    kinds = {x.dtype for x in leaves}
    if len(kinds) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise ValueError(f"{name} must be of one real floating dtype, got {sorted(str(k) for k in kinds)}")
    finite = [_finite_states(x, axes) for x in given if not isinstance(x, Tracer)]
    if nonfinite == "raise" and not all(x.all() for x in finite):
        raise ValueError(f"{name} must be finite, got NaN or inf")
    if finite and not np.logical_and.reduce(finite).any():
        raise ValueError(f"{name} must be finite, each of them holds a NaN or an inf")
    try:
        hash(step)
    except TypeError:
        step = _ByIdentity(step)
    structure = jax.tree.structure(states)
    if structure == jax.tree.structure(0) and leaves[0].ndim == axes + 1:
        return step, leaves[0], lambda flat: flat
    flat = FlatStep(step, structure, tuple(shape[axes:] for shape in shapes))
    return flat, flat.flatten(jax.tree.unflatten(structure, leaves)), flat.restore


def _finite_states(leaf: ArrayLike, axes: int) -> np.ndarray:
    """`[*batch]`: whether all of a state's entries in this leaf are finite."""
    finite = np.isfinite(np.asarray(leaf))
    return np.asarray(finite.all(tuple(range(axes, finite.ndim))))


def check_map(step: Step, params: PyTree, state: PyTree, inputs: PyTree) -> None:
    """Raise `ValueError` unless the step maps the state's structure, shapes and dtypes to themselves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path((params, inputs)):
        if not (hasattr(leaf, "dtype") or hasattr(leaf, "__jax_array__") or isinstance(leaf, int | float | complex)):
            name = ("params", "inputs")[path[0].idx] + jax.tree_util.keystr(path[1:])
            raise ValueError(
                f"{name} is a {type(leaf).__name__}, no array and no pytree that JAX knows: pass dicts, lists, "
                "NamedTuples or registered dataclasses of arrays, and let the step hold the rest"
            )
    given = jax.tree.map(lambda s: jax.ShapeDtypeStruct(jnp.shape(s), jnp.result_type(s)), state)
    out = jax.eval_shape(lambda s: step(params, s, inputs), state)
    if jax.tree.structure(out) != jax.tree.structure(given):
        raise ValueError(
            f"step must map a state to one of the same structure {jax.tree.structure(given)}, it gives "
            f"{jax.tree.structure(out)}"
        )
    for want, got in zip(jax.tree.leaves(given), jax.tree.leaves(out)):
        if got.shape != want.shape:
            raise ValueError(f"step must map a state of shape {want.shape} to the same shape, it gives {got.shape}")
        if got.dtype != want.dtype:
            raise ValueError(f"step turns a {want.dtype} state into {got.dtype}: pass params and states of one dtype")
