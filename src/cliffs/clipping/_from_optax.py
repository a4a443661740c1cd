"""Any stateless rule of optax under the same promises: safe norms, float32 sums, schedules, one `nonfinite`.

A positively homogeneous rule, `rule(s tau)(s g) = s rule(tau)(g)`, may be given a gradient whose squares would overflow
or vanish: divided by a power of two, with a threshold divided likewise, and multiplied back.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cliffs.clipping._leaves import wide
from cliffs.clipping._numbers import Number, at, check
from cliffs.clipping._outcome import Outcome
from cliffs.clipping._safe_norm import each_leaf, power_of_two
from cliffs.clipping._strategy import NonFinite, by_leaf, strategy

_HEADROOM = 2.0**40  # norm after rescaling: squares stay finite, and the threshold far from underflow


def safely(
    factory: Callable[..., optax.GradientTransformation],
    threshold: Number,
    *args: Any,
    per_leaf: bool = False,
    nonfinite: NonFinite = "propagate",
    **kwargs: Any,
) -> optax.GradientTransformationExtraArgs:
    """Any stateless, homogeneous rule `factory(threshold, *args, **kwargs)` of optax, safe from overflow of its norms.

    **Arguments**

    - `factory`: for instance `optax.clip_by_global_norm`; its first argument must be the threshold, and the rule must
      satisfy `rule(s tau)(s g) = s rule(tau)(g)`.
    - `threshold`: `>= 0`; a number, a traced scalar or a schedule.
    - `per_leaf`: whether the rule treats every leaf by itself, so that each may have its own scale.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.
    - further arguments go to the factory; positional ones may be schedules.

    **Returns** an `optax.GradientTransformationExtraArgs`. Its rule sees a list of the leaves that are numbers.

    **Raises** `ValueError` for a threshold that is negative, NaN or not a single number.

    >>> clip = safely(optax.clip_by_global_norm, 1.0)
    >>> updates, _ = clip.update(jnp.array([3e30, 4e30]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 6) for x in updates]
    [0.6, 0.8]
    """
    check("threshold", threshold)

    def one(leaves, weights, size, limit, others):
        dtype = size.dtype
        info = jnp.finfo(dtype)
        ordinary = (size < float(info.max) ** 0.4) & (size > float(info.tiny) ** 0.3)
        scale = jnp.where(ordinary, 1.0, power_of_two(jax.lax.stop_gradient(size)) / _HEADROOM).astype(dtype)
        # Division by a subnormal power of two would be a division by zero on most devices.
        scale = jnp.maximum(scale, info.tiny)
        # A norm has no derivative at 0: exact zeros are lent a value too small to count, and get it taken away after.
        lent = float(info.tiny) ** 0.47
        scaled = [wide(x, dtype) / scale + lent * (x == 0) for x in leaves]
        low = None if weights is None else [wide(w, dtype) for w in weights]
        # A threshold far above the rescaled gradient says nothing more, but its products could overflow.
        inner = factory(jnp.minimum(limit.astype(dtype) / scale, float(info.max) ** 0.8), *others, **kwargs)
        out: Any = inner.update(scaled, inner.init(low if low is not None else scaled), low)[0]

        def back(new, old, x):
            value = (new * scale).astype(x.dtype)
            value = jnp.where(x == 0, value - jax.lax.stop_gradient(value), value)
            # The rule's own select decides what is untouched: those entries return to the bit they came with.
            return jnp.where(new == old, x, value)

        return [back(*each) for each in zip(out, scaled, leaves)]

    def rule(gradient, state):
        limit, others = jnp.asarray(at(threshold, state.count)), [at(arg, state.count) for arg in args]
        leaves = gradient.clean
        weights = None if gradient.params is None else gradient.weights
        if not leaves:
            return Outcome([]), state
        if not per_leaf:
            return Outcome(one(leaves, weights, gradient.norm.value, limit, others)), state
        new = []
        sizes = jnp.where(gradient.finite, gradient.norms.value, 0.0)
        for i, (x, size) in enumerate(zip(leaves, each_leaf(sizes))):
            new += one([x], None if weights is None else [weights[i]], size, limit, others)
        return Outcome(new), state

    return strategy(None, rule, nonfinite, measure=by_leaf if per_leaf else None)
