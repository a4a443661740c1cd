"""StableAdamW: shorten the update of an array whose gradient has outgrown its second moment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from cliffs.clipping._averages import weighted
from cliffs.clipping._leaves import compute_dtype, is_number, wide
from cliffs.clipping._like_params import of_leaves, replaced, zeros_like_params
from cliffs.clipping._numbers import Number, at, check, hypot, root_mean
from cliffs.clipping._outcome import Outcome
from cliffs.clipping._safe_norm import Axis, each_quotient, entries, leaf_norms
from cliffs.clipping._strategy import Gradient, NonFinite, strategy, with_extra_args


class UpdateRmsState(NamedTuple):
    """State of `clip_update_rms`."""

    count: Int[Array, ""]
    weight: Float[Array, ""]
    """What the moments are divided by for their start: `1 - b2^t`."""
    rms: PyTree
    """The root of the second moment per entry, in float32 at least, corrected for its start."""
    inner: Any


def clip_update_rms(
    max_rms: Number = 1.0,
    inner: optax.GradientTransformation | None = None,
    b2: Number = 0.99,
    eps: Number = 1e-8,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Divide the update of every array by `max(1, RMS / max_rms)`, `RMS = sqrt(mean(g^2 / max(v, eps^2)))`.

    `v` is Adam's second moment of the gradient `g`, this one included. RMS is near 1 while gradients are of the size
    that `v` remembers and rises, to at most `1 / sqrt(1 - b2)`, where they outgrow it. The update is what `inner` makes
    of the gradient. With Adam inside this is the update clipping of StableAdamW, which `scale_by_adam` followed by
    `clip_by_block_rms` is not (that measures `m / sqrt(v)`):

        chain(clip_update_rms(1.0, optax.scale_by_adam(b1=0.9, b2=0.99), b2=0.99), add_decayed_weights(0.2), sgd(2e-3))

    Without `inner` the gradient itself is divided, for any optimizer that follows.

    **Arguments**

    - `max_rms`: the RMS above which an update is shortened, `>= 0`; a number, a traced scalar or a schedule.
    - `inner`: the transformation that makes the update from the gradient; None for the gradient itself.
    - `b2`: the decay of the second moment, in `[0, 1)`; likewise; that of the Adam inside.
    - `eps`: the least root of a moment that counts, `>= 0`; likewise.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient enters no moment and does not reach `inner`.
    - `axis_name`: see `clip_by_global_norm`; the mean is then that over all pieces, and `inner` sees its own piece.

    **Returns** an `optax.GradientTransformationExtraArgs` with `UpdateRmsState`. The moment is kept here a second time,
    because the state of `inner` is private to it.

    **Raises** `ValueError` for a number out of range, and for a gradient with other leaves than `init` saw.

    Source: Wortsman, Dettmers, Zettlemoyer, Morcos, Farhadi & Schmidt (2023), arXiv 2304.13013, algorithm 2, with the
    defaults of the code that they published; after Shazeer & Stern (2018), Adafactor, section 6.

    >>> clip = clip_update_rms(1.0, b2=0.5)
    >>> state = clip.init(jnp.zeros(2))
    >>> _, state = clip.update(jnp.array([1.0, -1.0]), state)
    >>> updates, state = clip.update(jnp.array([5.0, -5.0]), state)  # v = (1 + 2 * 25) / 3 = 17
    >>> [round(float(x), 4) for x in updates]
    [4.1231, -4.1231]
    """
    check("max_rms", max_rms)
    check("b2", b2, high=1.0, open_high=True)
    check("eps", eps)
    wrapped = with_extra_args("inner", inner or optax.identity())

    def init(params):
        rms = zeros_like_params(params, real=True)
        moments = [x for x in jax.tree.leaves(rms) if is_number(x)]
        weight = jnp.zeros((), jnp.result_type(*moments) if moments else jnp.float32)
        return UpdateRmsState(jnp.zeros((), jnp.int32), weight, rms, wrapped.init(params))

    def rule(gradient, state):
        share, weight = weighted(state.weight, at(b2, state.count))
        decay = jnp.where(gradient.finite, 1 - share, 1)
        least, clean = jnp.asarray(at(eps, state.count), decay.dtype), gradient.clean
        # XLA does not know that this is 1. Divided by it, a root is stored in float32; otherwise in float64.
        one = jnp.where(state.count >= 0, 1.0, jnp.inf)
        pairs = [
            _moment(x, rms, *(number.astype(rms.dtype) for number in (decay, least, one)))
            for x, rms in zip(clean, of_leaves(gradient, state.rms))
        ]
        updates, inner_state = _inner_updates(wrapped, gradient, clean, state.inner)
        kept = {"weight": weight, "inner": inner_state, "rms": state.rms}
        if not pairs:
            return Outcome(updates), state._replace(**kept)
        kept["rms"] = replaced(gradient, state.rms, [new for new, _ in pairs])
        dtype = gradient.norm.value.dtype
        sizes = leaf_norms([ratio for _, ratio in pairs], dtype, axis_name).value
        sizes = sizes / jnp.sqrt(entries(clean, dtype, axis_name))
        limit = jnp.asarray(at(max_rms, state.count), dtype)
        over = sizes > limit
        factors = each_quotient(jnp.where(over, limit, 1.0), jnp.where(over, sizes, 1.0))
        new = [_times(u, f) for f, u in zip(factors, updates)]
        return Outcome(new, kept=("rms",)), state._replace(**kept)

    return strategy(init, rule, nonfinite, axis_name=axis_name)


# Both are traced once for all arrays of one shape.
@jax.jit
def _moment(x: Array, rms: Array, decay: Array, eps: Array, one: Array) -> tuple[Array, Array]:
    """The new root of the moment, and the entries over it: at most `1 / sqrt(1 - decay)`, so their squares are floats.

    Where eps decides they are less.
    """
    y = wide(x, rms.dtype)
    size = hypot(y.real, y.imag) if jnp.iscomplexobj(y) else jnp.abs(y)
    new = root_mean(rms, size, decay) / one
    floor = jnp.maximum(new, eps)
    some = floor > 0
    return new, jnp.where(some, size / jnp.where(some, floor, 1.0), 0.0)


@jax.jit
def _times(x: Array, factor: Array) -> Array:
    dtype = compute_dtype(x)
    return (wide(x, dtype) * factor.astype(dtype)).astype(x.dtype)


def _inner_updates(
    inner: optax.GradientTransformationExtraArgs, gradient: Gradient, clean: list[Array], state: Any
) -> tuple[list[Array], Any]:
    """What the inner transformation makes of the gradient's leaves, within the tree that they came in."""
    flat, treedef = jax.tree.flatten(gradient.tree)
    left = iter(clean)
    tree = jax.tree.unflatten(treedef, [next(left) if is_number(x) else x for x in flat])
    updates, state = inner.update(tree, state, gradient.params)
    found = [jnp.asarray(x) for x in jax.tree.leaves(updates) if is_number(x)]
    got, wanted = ([x.shape for x in side] for side in (found, clean))
    if got != wanted:
        raise ValueError(f"inner must give updates of the gradient's shapes {wanted}, got {got}")
    return found, state
