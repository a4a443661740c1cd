"""Clipping entry by entry: at a value, and against each entry's own history (SPAM)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from cliffs.clipping._leaves import compute_dtype, wide
from cliffs.clipping._like_params import of_leaves, replaced, zeros_like_params
from cliffs.clipping._numbers import Number, at, check, hypot, multiple, root_mean
from cliffs.clipping._outcome import Outcome
from cliffs.clipping._strategy import NonFinite, strategy


class SpikeState(NamedTuple):
    """State of `clip_spikes`: the root of the second moment per entry, in float32 at least."""

    count: Int[Array, ""]
    rms: PyTree


def clip(max_delta: Number, *, nonfinite: NonFinite = "propagate") -> optax.GradientTransformationExtraArgs:
    """Clip every entry by itself: `max(-tau, min(tau, g_j))`; complex entries part by part.

    The direction changes: (10, 1) clipped at 5 becomes (5, 1), 5.6 degrees off. As `optax.clip`, but compared in
    float32 at least, so that a threshold that bfloat16 cannot hold still leaves smaller entries alone.

    **Arguments**

    - `max_delta`: tau, `>= 0`; a number, a traced scalar or a schedule.
    - `nonfinite`: `"propagate"`, `"zero"`, `"skip"` or `"raise"`, see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a `max_delta` that is negative, NaN or not a single number.

    Source: Mikolov (2012), thesis, element-wise clipping.

    >>> rule = clip(5.0)
    >>> rule.update(jnp.array([10.0, 1.0]), rule.init(jnp.zeros(2)))[0].tolist()
    [5.0, 1.0]
    """
    check("max_delta", max_delta)

    def rule(gradient, state):
        limit = at(max_delta, state.count)

        new = [_clipped(x, jnp.asarray(limit, compute_dtype(x)), gradient.finite) for x in gradient.leaves]
        return Outcome(new, passes_nonfinite=True), state

    return strategy(None, rule, nonfinite)


# Here and below: traced once for all arrays of one shape.
@jax.jit
def _clipped(x: Array, bound: Array, finite: Array) -> Array:
    """An array within its bound, as it was where the gradient is not finite."""
    y = jnp.where(finite, wide(x, bound.dtype), 0)
    if jnp.iscomplexobj(y):
        cut = jax.lax.complex(jnp.clip(y.real, -bound, bound), jnp.clip(y.imag, -bound, bound))
    else:
        cut = jnp.clip(y, -bound, bound)
    return jnp.where(finite, cut.astype(x.dtype), x)


def clip_spikes(
    theta: Number = 5000.0,
    decay: Number = 0.999,
    warmup: Number = 20,
    bias_correction: bool = False,
    *,
    nonfinite: NonFinite = "propagate",
) -> optax.GradientTransformationExtraArgs:
    """Clip single entries that stand out from their own history: `|g_j| <= sqrt(theta v_j)` (SPAM).

    `v_j = decay v_j + (1-decay) g_j^2` is Adam's second moment without bias correction, kept in the state and fed with
    the clipped entries; the comparison uses the moment before the new entry. Complex entries keep their phase.

    **Arguments**

    - `theta`: the largest ratio `g_j^2 / v_j`, `>= 0`. `decay`: in `[0, 1)`. Numbers, traced scalars or schedules.
    - `warmup`: steps in which the moment is gathered and nothing is clipped, `>= 1`.
    - `bias_correction`: compare with `v_j / (1 - decay^count)` as Adam does: the moment of the first steps is then not
      too small, and a warm-up of 1 is enough. With `theta=9` this is the rule of AdamWClip, without its floor of 1e-10.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient never enters the moments.

    **Returns** an `optax.GradientTransformationExtraArgs` with `SpikeState`.

    **Raises** `ValueError` for a number out of range.

    Source: Huang et al. (2025), SPAM, arXiv 2501.06842: theta = 5000. The momentum reset every 500 steps with its
    warm-up of 150 belongs to that optimiser, not to this rule. The 20 steps without clipping are in implementations
    (pytorch_optimizer: `grad_accu_steps`), not in the paper's formula. An entry whose moment is 0 (an embedding row not
    used so far) would stay 0 for ever by the rule as written; here it is not clipped.

    >>> clip = clip_spikes(theta=4.0, decay=0.0, warmup=1)
    >>> state = clip.init(jnp.zeros(2))
    >>> _, state = clip.update(jnp.array([1.0, 1.0]), state)
    >>> [round(float(x), 4) for x in clip.update(jnp.array([9.0, -1.5]), state)[0]]
    [2.0, -1.5]
    """
    check("theta", theta)
    check("decay", decay, high=1.0, open_high=True)
    check("warmup", warmup, low=1)

    def init(params):
        return SpikeState(jnp.zeros((), jnp.int32), zeros_like_params(params, real=True))

    def rule(gradient, state):
        count = state.count
        ratio, a = jnp.asarray(at(theta, count)), at(decay, count)
        root = jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)  # with derivative 0 at 0
        late = count >= at(warmup, count)
        if bias_correction:
            # The root is kept, so the root of the correction belongs to it; at count 0 nothing is compared.
            left = 1 - jnp.asarray(a, jnp.promote_types(root.dtype, jnp.float32)) ** jnp.maximum(count, 1)
            root = root / jnp.sqrt(left)
        finite = gradient.finite
        pairs = [
            _without_spikes(x, r, root.astype(r.dtype), jnp.where(finite, jnp.asarray(a, r.dtype), 1), late, finite)
            for x, r in zip(gradient.leaves, of_leaves(gradient, state.rms))
        ]
        rms = replaced(gradient, state.rms, [moment for _, moment in pairs])
        outcome = Outcome([new for new, _ in pairs], passes_nonfinite=True, kept=("rms",))
        return outcome, state._replace(rms=rms)

    return strategy(init, rule, nonfinite)


@jax.jit
def _without_spikes(x: Array, rms: Array, root: Array, decay: Array, late: Array, finite: Array) -> tuple[Array, Array]:
    """An array with its spikes cut, and its new moment; where the gradient is not finite, what there was."""
    # Zeros instead of what is not finite, which must not reach a derivative.
    y = jnp.where(finite, wide(x, rms.dtype), 0)
    size = hypot(y.real, y.imag) if jnp.iscomplexobj(y) else jnp.abs(y)
    bound = multiple(root, rms)
    spike = finite & late & (size > bound) & (rms > 0)
    if jnp.iscomplexobj(y):
        cut = y * (jnp.where(spike, bound, 1.0) / jnp.where(spike, size, 1.0))
    else:
        # The limit itself with the sign: no division, so no rounding above the limit.
        cut = jnp.sign(y) * bound
    return jnp.where(spike, cut.astype(x.dtype), x), root_mean(rms, jnp.where(spike, bound, size), decay)
