"""States of any pytree as flat vectors, for analyses that need one Jacobian matrix."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from cliffs.rnn import Step


@dataclasses.dataclass(frozen=True)
class FlatStep:
    """A step whose state is a pytree (or an array of several axes), seen as a step on vectors; hashable."""

    step: Step
    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, params: PyTree, state: Array, inputs: Any = None) -> Array:
        return self.flatten(self.step(params, self.restore(state), inputs))

    def flatten(self, state: PyTree) -> Array:
        """Leaves `[*batch, *shape]` as one array `[*batch, n]`."""
        leaves = jax.tree.leaves(state)
        batch = [x.shape[: x.ndim - len(s)] for x, s in zip(leaves, self.shapes)]
        return jnp.concatenate([x.reshape(*b, -1) for x, b in zip(leaves, batch)], -1)

    def restore(self, flat: Any) -> PyTree:
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

    def __call__(self, params: PyTree, state: PyTree, inputs: Any = None) -> PyTree:
        return self.step(params, state, inputs)


def flat_states(
    step: Step, states: PyTree, *, name: str = "starts", axes: int = 1
) -> tuple[Step, Float[Array, "*batch n"], Callable[[Any], PyTree]]:
    """The step on vectors, the states as `[*batch, n]`, and the way back; vectors are passed through untouched.

    **Arguments**: the step; a pytree whose leaves share their first `axes` axes; `name` for messages.

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
    if not all(isinstance(x, Tracer) or np.isfinite(np.asarray(x)).all() for x in given):
        raise ValueError(f"{name} must be finite, got NaN or inf")
    try:
        hash(step)
    except TypeError:
        step = _ByIdentity(step)
    structure = jax.tree.structure(states)
    if structure == jax.tree.structure(0) and leaves[0].ndim == axes + 1:
        return step, leaves[0], lambda flat: flat
    flat = FlatStep(step, structure, tuple(shape[axes:] for shape in shapes))
    return flat, flat.flatten(jax.tree.unflatten(structure, leaves)), flat.restore


def check_map(step: Step, params: PyTree, state: PyTree, inputs: Any) -> None:
    """Raise `ValueError` unless the step maps the state's structure, shapes and dtypes to themselves."""
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


def frozen_settings(settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keywords for `settle` as a hashable static argument; scalar arrays become the numbers that they hold.

    >>> frozen_settings({"window": 8, "escape": jnp.asarray(2.5)})
    (('escape', 2.5), ('window', 8))
    """
    return tuple(sorted((name, x.item() if hasattr(x, "item") else x) for name, x in settings.items()))


def reachable_tolerance(tolerance: float | Array | None, dtype: Any, *, double: float, single: float = 1e-5) -> float:
    """The default of a dtype, or the given tolerance if the dtype resolves it; else `ValueError`.

    The one place where the dynamics package decides what a dtype can reach: four spacings at 1.

    >>> reachable_tolerance(None, jnp.float32, double=1e-10)
    1e-05
    >>> reachable_tolerance(1e-12, jnp.float32, double=1e-10)
    Traceback (most recent call last):
    ValueError: tolerance=1e-12 is out of reach for float32, which can reach 4.8e-07: ...
    """
    eps = float(jnp.finfo(dtype).eps)
    if tolerance is None:
        return double if eps < 1e-12 else single
    if not tolerance >= 4 * eps:
        raise ValueError(
            f"tolerance={tolerance} is out of reach for {jnp.dtype(dtype).name}, which can reach {4 * eps:.1e}: pass "
            "float64 states (jax_enable_x64) or a larger tolerance"
        )
    return float(tolerance)


def unit_margin(dtype: Any) -> float:
    """How far from modulus 1 a multiplier must be to count as inside or outside: `sqrt(eps)` of the dtype.

    >>> round(unit_margin(jnp.float32), 6)
    0.000345
    """
    return float(jnp.finfo(dtype).eps) ** 0.5
