"""What a strategy says of its step, and what a look at gradient and result finds where it says nothing."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from cliffs.clipping._core import Norm, clip_to, compute_dtype, inexact, real_parts, sum_squares, tree_norm, wide


class Told(NamedTuple):
    """What was done to a gradient."""

    changed: Bool[Array, ""]
    norm_after: Float[Array, ""]
    cosine: Array | float = 1.0
    """Between gradient and result; a rule need not think of gradients and results that are 0 or not finite."""


class Result(NamedTuple):
    """A rule's result that can say how it was made, at less cost than by comparing it with the gradient."""

    tree: PyTree
    tell: Callable[[PyTree], Told]
    """Called only where somebody wants to know, with the gradient as it came in (a cleaned copy would cost a pass).

    If that is not finite, the answer may be anything: it is thrown away."""


class Report(NamedTuple):
    """What a strategy knows of its step: the norm that it needed anyway, and what its rule tells if asked.

    Asking may cost passes over the gradient, and may happen under `jax.lax.cond`. None: the rule has no answer.
    """

    before: Norm
    tell: Callable[[], Told] | None


def clip_norm(tree: PyTree, norm: Norm, limit: ArrayLike) -> Result:
    """`clip_to` for a whole gradient, as a strategy's rule returns it."""
    limit = jnp.asarray(limit, norm.value.dtype)
    changed = norm.value > limit
    return Result(clip_to(tree, norm, limit), lambda _: Told(changed, jnp.where(changed, limit, norm.value)))


def tell_parts(before: list[Array], after: list[Array]) -> Told:
    """What rescaling disjoint parts of a gradient does, from the norms of the parts."""
    if not before:
        return Told(jnp.array(False), jnp.zeros(()))
    n = jnp.stack(before)
    m = jnp.stack([jnp.asarray(x, n.dtype) for x in after])
    whole, left = tree_norm(n), tree_norm(m)
    # Each part is parallel to itself: <g, u> is the sum of the products of the parts' norms.
    unit = [x / k.scale / jnp.where(k.relative > 0, k.relative, 1.0) for x, k in ((n, whole), (m, left))]
    return Told(jnp.any(m != n), left.value, jnp.minimum(jnp.sum(unit[0] * unit[1]), 1.0))


def tell_clipped_entries(tree: PyTree, norm: Norm, limit: ArrayLike) -> Told:
    """What clipping every real number of a tree to `[-limit, limit]` does.

    With `u = clip(g / limit)` and the excess `e_j = max(|g_j| - limit, 0)` the result has the norm `limit ||u||` and
    `<g, limit u> = limit^2 ||u||^2 + limit sum e`. A gradient whose norm is below the limit needs no look at all.
    """
    dtype = norm.scale.dtype
    limit = jnp.asarray(limit, dtype)

    def cut(leaves, unit):
        # Reciprocals are normal numbers here, since the limit is below the norm; products run faster than quotients.
        tiny = 4 * jnp.finfo(dtype).tiny
        low = jnp.maximum(limit, tiny)
        bound = low if unit is None else limit * unit
        squares, excess = jnp.zeros((), dtype), jnp.zeros((), dtype)
        for part in (p.astype(dtype) for x in leaves for p in real_parts(x)):
            if unit is None:
                share, scaled = part * (1 / low), part
            else:
                scaled = part * unit
                # A limit that is lost beside the largest entry may still be one for the others.
                share = jnp.where(bound > tiny, scaled * (1 / jnp.maximum(bound, tiny)), part * (1 / low))
            squares += jnp.sum(jnp.square(jnp.clip(share, -1, 1)))
            excess += jnp.sum(jnp.maximum(jnp.abs(scaled) - bound, 0))
        changed, root = excess > 0, jnp.sqrt(squares)
        product = norm.relative * root
        cosine = jnp.minimum((squares * bound + excess) / jnp.where(product > 0, product, 1.0), 1.0)
        after = jnp.where(changed, jnp.minimum(limit * root, norm.value), norm.value)
        return Told(changed, after, jnp.where(changed, cosine, 1.0))

    def same(leaves):
        return Told(jnp.zeros_like(norm.finite), norm.value, jnp.ones_like(norm.value))

    kind = jnp.where(norm.value <= limit, 0, jnp.where(norm.scale == 1, 1, 2))
    branches = (same, lambda leaves: cut(leaves, None), lambda leaves: cut(leaves, 1 / norm.scale))
    return jax.lax.switch(kind, branches, inexact(tree))


def compare(before: PyTree, after: PyTree, norm: Norm, changed: Array | None = None) -> Told:
    """What was done, by looking: `before` with its `norm`, and `after`; and whether anything was, where that is known.

    The cosine is 1 where both are 0, 0 where one is, NaN where either is not finite.
    """
    a, b = inexact(before), inexact(after)
    if changed is None:
        changed = jnp.any(jnp.stack([jnp.array(False), *map(_differs, a, b)]))

    def same():
        return norm.value, jnp.where(norm.finite, 1.0, jnp.nan).astype(norm.value.dtype)

    def look():
        norm_after, dot = _norm_and_dot(a, b, norm)
        product = norm.relative * norm_after.relative
        cosine = jnp.clip(dot / jnp.where(product > 0, product, 1.0), -1.0, 1.0)
        cosine = jnp.where(product > 0, cosine, 0.0)
        cosine = jnp.where(norm.finite & norm_after.finite, cosine, jnp.nan)
        return norm_after.value.astype(norm.value.dtype), cosine.astype(norm.value.dtype)

    # Most steps change nothing: their norm and cosine are known, and two passes over the memory are saved.
    return Told(changed, *jax.lax.cond(changed, look, same))


def _differs(a, b):
    # A sum runs at the speed of memory where a reduction of booleans does not; NaN counts as a difference.
    return jnp.sum(jnp.abs(a - b)) != 0


def _norm_and_dot(a: list[Array], b: list[Array], norm: Norm) -> tuple[Norm, Array]:
    """The norm of `b`, and `<a, b>` over the scales of both norms."""
    dtype = compute_dtype([*a, *b])
    info = jnp.finfo(dtype)
    squares = sum_squares(b, dtype)
    dot = _dot(a, b, dtype, 1, 1)
    # Where neither sum of squares left this window, the plain sum of products is good to the last digit, too.
    safe = (norm.scale == 1) & (squares > float(info.tiny) ** 0.5) & (squares < float(info.max) ** 0.9)

    def rescaled():
        own = tree_norm(b)
        own = Norm(own.scale.astype(dtype), own.relative.astype(dtype))
        return own, _dot(a, b, dtype, norm.scale.astype(dtype), own.scale)

    return jax.lax.cond(safe, lambda: (Norm(jnp.ones_like(squares), jnp.sqrt(squares)), dot), rescaled)


def _dot(a, b, dtype, scale_a, scale_b) -> Array:
    total = jnp.zeros((), dtype)
    for x, y in zip(a, b):
        x, y = wide(x, dtype) / scale_a, wide(y, dtype) / scale_b
        for p, q in zip(real_parts(x), real_parts(y)):
            total = total + jnp.sum(p * q)
    return total
