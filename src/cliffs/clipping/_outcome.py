"""What a rule makes of a gradient, and how much it changed: known from norms, or found by comparing the two."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from cliffs.clipping._leaves import real_parts
from cliffs.clipping._rescale import rescaled, rescaled_leaves
from cliffs.clipping._safe_norm import (
    Axis,
    Norm,
    combined,
    in_working_precision,
    leaf_norms,
    sum_over_devices,
    tree_norm,
)


class StepChange(NamedTuple):
    """How a step changed the gradient."""

    changed: Bool[Array, ""]
    norm_after: Float[Array, ""]
    cosine: Float[Array, ""]
    """Between gradient and result: 1 where both are 0, 0 where one is, NaN where either is not finite."""


class Outcome(NamedTuple):
    """A rule's result."""

    leaves: list[Array]
    change: Callable[[], StepChange] | None = None
    """How the gradient was changed, where the rule knows that from a few norms; None: gradient and result have to be
    compared. Called only where somebody asks; what it says of a gradient that is not finite is not used."""
    passes_nonfinite: bool = False
    """Whether a gradient that is not finite comes out as it was, without a select."""
    kept: tuple[str, ...] = ()
    """Fields of the state that a gradient that is not finite leaves as they were, up to the sign of a zero, without a
    select."""


class Report(NamedTuple):
    """What a strategy knows of its step: the norm that it needed anyway, and the change if its rule knows that."""

    before: Norm
    change: Callable[[], StepChange] | None
    axis_name: Axis = None
    """The axes that both were found over."""


def rescaled_whole(leaves: Sequence[Array], norm: Norm, length: ArrayLike) -> Outcome:
    """All leaves brought to one length together: the direction stays."""
    length = jnp.asarray(length, norm.value.dtype)

    def change():
        changed = (norm.value != length) & (norm.value > 0)
        after = jnp.where(norm.value > 0, length, 0)
        return StepChange(changed, after, _cosine_of_parallel(norm.value, after))

    return Outcome(rescaled(leaves, norm, length), change, passes_nonfinite=True)


def clipped_whole(leaves: Sequence[Array], norm: Norm, limit: ArrayLike) -> Outcome:
    """All leaves together brought to the limit where their norm exceeds it."""
    limit = jnp.asarray(limit, norm.value.dtype)
    return rescaled_whole(leaves, norm, jnp.minimum(norm.value, limit))


def rescaled_parts(
    leaves: Sequence[Array],
    norms: Norm,
    lengths: Float[Array, " leaves"],
    finite: Array,
    chosen: np.ndarray | None = None,
) -> Outcome:
    """Each leaf brought to a length of its own, if the whole gradient is finite.

    `norms` and `lengths` are arrays `[leaves]`. Where leaves share a norm, `chosen` holds the place of one leaf of each
    group.
    """
    lengths = jnp.asarray(lengths, norms.value.dtype)

    def change():
        sides = (norms.value, lengths) if chosen is None else (norms.value[chosen], lengths[chosen])
        return change_of_parts(*sides)

    return Outcome(rescaled_leaves(leaves, norms, lengths, finite), change, passes_nonfinite=True)


def change_of_parts(before: Float[Array, " parts"], after: Float[Array, " parts"]) -> StepChange:
    """What rescaling disjoint parts of a gradient does to it, from the norms of the parts."""
    before, after = lax.stop_gradient(before), lax.stop_gradient(jnp.where(before > 0, after, 0))
    dtype = before.dtype
    size_before, size_after = (tree_norm(x) for x in (before, after))

    def share(x, size):
        return x / jnp.where(size.value > 0, size.value, 1.0)

    # Each part is parallel to itself: <g, u> is the sum of the products of the parts' norms.
    cosine = jnp.minimum(jnp.sum(share(before, size_before) * share(after, size_after)), 1.0)
    both_zero = (size_before.value == 0) & (size_after.value == 0)
    return StepChange(jnp.any(after != before), size_after.value, jnp.where(both_zero, 1.0, cosine).astype(dtype))


def _cosine_of_parallel(before: Array, after: Array) -> Array:
    return ((before > 0) == (after > 0)).astype(before.dtype)


def compare(
    before: Sequence[Array], after: Sequence[Array], norm: Norm, changed: Array | None = None, axis_name: Axis = None
) -> StepChange:
    """What was done, by looking: `before` with its `norm`, and `after`; and whether anything was, where that is known.

    Reads the gradient twice and the result three times. Without derivatives.
    """
    a, b = ([lax.stop_gradient(x) for x in side] for side in (before, after))
    dtype = norm.value.dtype
    if not a:
        none = jnp.array(False)
        return StepChange(none, jnp.zeros((), dtype), jnp.ones((), dtype))
    if changed is None:
        # A sum runs at the speed of memory where a reduction of booleans does not; NaN counts as a difference.
        differences = [sum_over_devices(x, jnp.sum(jnp.abs(_single(x) - _single(y))), axis_name) for x, y in zip(a, b)]
        changed = jnp.any(lax.optimization_barrier(jnp.stack(differences)) != 0)
    after_norm = combined(leaf_norms(b, dtype, axis_name=axis_name))
    with in_working_precision(norm) as working:
        products = jnp.stack([_product(x, y, norm, after_norm, working, axis_name) for x, y in zip(a, b)])
        dot = jnp.sum(lax.optimization_barrier(products))
        size = norm.relative * after_norm.relative
        cosine = lax.convert_element_type(jnp.where(size > 0, dot, 0) / jnp.where(size > 0, size, 1), dtype)
    cosine = jnp.where((norm.value == 0) & (after_norm.value == 0), 1.0, jnp.clip(cosine, -1.0, 1.0))
    cosine = jnp.where(norm.finite & after_norm.finite, cosine, jnp.nan)
    # Where nothing has changed the numbers are known to the last digit.
    same_norm, same_cosine = norm.value, jnp.where(norm.finite, 1.0, jnp.nan)
    return StepChange(
        changed,
        jnp.where(changed, after_norm.value, same_norm),
        jnp.where(changed, cosine, same_cosine).astype(dtype),
    )


def _single(x: Array) -> Array:
    """An array in float32 at least (float8 has no promotion)."""
    if jnp.iscomplexobj(x) or jnp.finfo(x.dtype).bits >= 32:
        return x
    return x.astype(jnp.float32)


def _product(x: Array, y: Array, norm_x: Norm, norm_y: Norm, working: jnp.dtype, axis_name: Axis) -> Array:
    """`<x, y>` over both scales, in the precision of the sums."""
    total = jnp.zeros((), working)
    for p, q in zip(real_parts(x), real_parts(y)):
        if norm_x.scale is None or norm_y.scale is None:  # both are
            # With the sign turned, and so not what the norms square: XLA would keep a leaf in float64 for both sums.
            p, q = (lax.convert_element_type(-part, working) for part in (p, q))
        else:
            p = lax.convert_element_type(p, working) / norm_x.scale
            q = lax.convert_element_type(q, working) / norm_y.scale
        total = total + sum_over_devices(x, jnp.sum(p * q), axis_name)
    return total
