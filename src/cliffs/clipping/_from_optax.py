"""optax's own rules under the same promises: safe norms, float32 sums, schedules, one treatment of non-finite input.

Nothing is written again here: every rule runs optax's code. All of them are positively homogeneous in gradient and
threshold together, `rule(s tau)(s g) = s rule(tau)(g)`, so a gradient whose squares would overflow or vanish is
divided by a power of two, given to optax with a threshold divided likewise, and multiplied back. Rules that only
rescale are homogeneous in the threshold alone where they clip: one too far below the gradient is replaced by a larger
one, and the result brought to its length.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from cliffs.clipping._core import (
    NO_PARAMS,
    Number,
    at,
    check,
    compute_dtype,
    inexact,
    largest,
    multiple,
    power_of_two,
    real_parts,
    tree_norm,
    wide,
)
from cliffs.clipping._report import Result, tell_clipped_entries, tell_parts
from cliffs.clipping._strategy import strategy

_HEADROOM = 2.0**40  # largest entry after rescaling: squares stay finite, and the threshold far from underflow


def safely(
    factory: Callable[..., optax.GradientTransformation],
    threshold: Number,
    *args: Any,
    per_leaf: bool = False,
    norm_limit: Callable[[Array, list[Array]], Array] | None = None,
    nonfinite: str = "propagate",
    **kwargs: Any,
) -> optax.GradientTransformation:
    """Any stateless, homogeneous rule `factory(threshold, *args, **kwargs)` of optax, safe from overflow of its norms.

    **Arguments**

    - `factory`: for instance `optax.clip_by_global_norm`; its first argument must be the threshold, and the rule must
      satisfy `rule(s tau)(s g) = s rule(tau)(g)`.
    - `threshold`: `>= 0`; a number, a traced array or a schedule.
    - `per_leaf`: whether the rule treats every leaf by itself, so that each may have its own scale.
    - `norm_limit`: for a rule that is exactly `g min(1, limit / ||g||)` of all leaves, or of each if `per_leaf`: this
      limit, from the threshold and the leaves. It then says by itself what it did, which spares telemetry its work.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.
    - further arguments go to the factory; positional ones may be schedules.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN threshold.

    >>> clip = safely(optax.clip_by_global_norm, 1.0)
    >>> updates, _ = clip.update(jnp.array([3e30, 4e30]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 6) for x in updates]
    [0.6, 0.8]
    """
    check("threshold", threshold)

    def one(updates, params, limit, others):
        dtype = compute_dtype(updates)
        leaves = inexact(updates)
        top = largest(leaves, dtype) if leaves else jnp.zeros((), dtype)
        ordinary = (top < float(jnp.finfo(dtype).max) ** 0.4) & (top > float(jnp.finfo(dtype).tiny) ** 0.3)
        scale = jnp.where(ordinary, 1.0, power_of_two(jax.lax.stop_gradient(top)) / _HEADROOM).astype(dtype)
        # Division by a subnormal power of two would be a division by zero on most devices.
        scale = jnp.maximum(scale, jnp.finfo(dtype).tiny)
        # A norm has no derivative at 0: exact zeros are lent a value too small to count, and get it taken away after.
        lent = float(jnp.finfo(dtype).tiny) ** 0.47
        scaled = jax.tree.map(lambda x: wide(x, dtype) / scale + lent * (x == 0), updates)
        low = jax.tree.map(lambda p: wide(p, dtype) if jnp.issubdtype(p.dtype, jnp.inexact) else p, params)
        # A threshold far above the rescaled gradient says nothing more, but its products could overflow.
        bound = jnp.minimum(limit.astype(dtype) / scale, float(jnp.finfo(dtype).max) ** 0.8)
        size = jnp.maximum(jax.lax.stop_gradient(top) / scale, lent)
        # No quotient of gradient and limit has to be a float if a limit far below is raised, and the length set after.
        least = size * 2.0**-24  # below the root mean square of any array of up to 2^48 entries
        tight = (bound < least) & (bound < jnp.sqrt(size) * lent) if norm_limit else jnp.array(False)
        bound = jnp.where(tight, least, bound)
        length = jnp.where(tight, limit.astype(dtype), 1.0)  # an infinite one must not reach a derivative
        inner = factory(bound, *others, **kwargs)
        out, _ = inner.update(scaled, inner.init(low), low)

        def back(new, old, x):
            value = jnp.where(tight, new / least * length, new * scale).astype(x.dtype)
            value = jnp.where(x == 0, value - jax.lax.stop_gradient(value), value)
            # The rule's own select decides what is untouched: those entries return to the bit they came with.
            return value if norm_limit else jnp.where(new == old, x, value)

        return jax.tree.map(back, out, scaled, updates)

    def rule(updates, state, params, norm):
        limit, others = jnp.asarray(at(threshold, state.count)), [at(arg, state.count) for arg in args]
        leaves, treedef = jax.tree.flatten(updates)
        weights = jax.tree.leaves(params) if params is not None else None
        numbers = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact) and x.size > 0]
        before, after = [], []
        for part in [[i] for i in numbers] if per_leaf else [numbers]:
            old = [leaves[i] for i in part]
            new = one(old, weights and [jnp.asarray(weights[i]) for i in part], limit, others)
            if norm_limit:
                own = (tree_norm(old) if per_leaf else norm).value
                bound = norm_limit(limit.astype(own.dtype), old)
                new = [jnp.where(own > bound, u, x) for u, x in zip(new, old)]
                before, after = [*before, own], [*after, jnp.minimum(own, bound)]
            for i, x in zip(part, new):
                leaves[i] = x
        tree = treedef.unflatten(leaves)
        return Result(tree, lambda _: tell_parts(before, after)) if norm_limit else tree, state

    return strategy(None, rule, nonfinite)


def clip_by_global_norm(max_norm: Number, *, nonfinite: str = "propagate") -> optax.GradientTransformation:
    """Clip the whole gradient by its norm: `g min(1, max_norm / ||g||)`; `optax.clip_by_global_norm`, made safe.

    The direction is kept. `torch.nn.utils.clip_grad_norm_` divides by `||g|| + 1e-6` instead, so its result is shorter
    by a relative 1e-6 / ||g||.

    **Arguments**

    - `max_norm`: `>= 0`; a number, a traced array or a schedule.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN `max_norm`.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1.

    >>> clip = clip_by_global_norm(5.0)
    >>> updates, _ = clip.update(jnp.array([10.0, 1.0]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 4) for x in updates]
    [4.9752, 0.4975]
    """
    check("max_norm", max_norm)
    return safely(optax.clip_by_global_norm, max_norm, norm_limit=lambda tau, _: tau, nonfinite=nonfinite)


def clip(max_delta: Number, *, nonfinite: str = "propagate") -> optax.GradientTransformation:
    """Clip every entry by itself: `max(-tau, min(tau, g_j))`; `optax.clip`, complex entries part by part.

    The direction changes: (10, 1) clipped at 5 becomes (5, 1), 5.6 degrees off.

    **Arguments**: `max_delta` `>= 0`, a number, a traced array or a schedule; `nonfinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN `max_delta`.

    Source: Mikolov (2012), thesis, element-wise clipping.

    >>> rule = clip(5.0)
    >>> rule.update(jnp.array([10.0, 1.0]), rule.init(jnp.zeros(2)))[0].tolist()
    [5.0, 1.0]
    """
    check("max_delta", max_delta)

    def rule(updates, state, params, norm):
        limit = at(max_delta, state.count)

        def one(x):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            # Compared in float32, so that a threshold that bfloat16 cannot hold still leaves smaller entries alone.
            y = wide(x, compute_dtype(x))
            parts = real_parts(y)
            inner = optax.clip(jnp.asarray(limit, parts[0].dtype))
            cut: Any = inner.update(parts, inner.init(parts))[0]
            return (jax.lax.complex(*cut) if len(cut) == 2 else cut[0]).astype(x.dtype)

        new = jax.tree.map(one, updates)
        return Result(new, lambda grads: tell_clipped_entries(grads, norm, limit)), state

    return strategy(None, rule, nonfinite)


def clip_by_block_rms(threshold: Number, *, nonfinite: str = "propagate") -> optax.GradientTransformation:
    """Clip every array by its root mean square: `g_i / max(1, rms(g_i) / tau)`; `optax.clip_by_block_rms`, made safe.

    **Arguments**: `threshold` `> 0`, a number, a traced array or a schedule; `nonfinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a threshold that is not positive (the rule divides by it).

    Source: Shazeer & Stern (2018), Adafactor, section 6.

    >>> rule = clip_by_block_rms(1.0)
    >>> rule.update(jnp.array([2.0, -2.0]), rule.init(jnp.zeros(2)))[0].tolist()
    [1.0, -1.0]
    """
    check("threshold", threshold, open_low=True)
    return safely(
        optax.clip_by_block_rms,
        threshold,
        per_leaf=True,
        norm_limit=lambda tau, leaves: multiple(leaves[0].size ** 0.5, tau),
        nonfinite=nonfinite,
    )


def adaptive_grad_clip(
    clipping: Number = 0.01, eps: Number = 1e-3, *, nonfinite: str = "propagate"
) -> optax.GradientTransformation:
    """Clip every unit relative to its weights (AGC): `g tau max(||w||, eps) / ||g||` where that is shorter.

    `optax.adaptive_grad_clip`, made safe. Units are the columns of matrices. Needs `params`. optax divides by
    `max(||g||, 1e-6)`, so units of a smaller norm that exceed their limit come out shorter than the formula says.

    **Arguments**: `clipping` `>= 0` and `eps`, the least weight norm: numbers, traced arrays or schedules; `nonfinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a number out of range, or when `update` is called without `params`.

    Source: Brock, De, Smith & Simonyan (2021), eq. 3.

    >>> rule, weights = adaptive_grad_clip(0.1), jnp.array([3.0, 4.0])
    >>> updates, _ = rule.update(jnp.array([30.0, 40.0]), rule.init(weights), weights)
    >>> [round(float(x), 4) for x in updates]
    [0.3, 0.4]
    """
    check("clipping", clipping)
    check("eps", eps)
    inner = safely(optax.adaptive_grad_clip, clipping, eps, per_leaf=True, nonfinite=nonfinite)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError(NO_PARAMS)
        return inner.update(updates, state, params, **extra)

    return optax.GradientTransformationExtraArgs(inner.init, update)
