"""The rule of the 2013 paper's released code: where a gradient is broken, shrink the recurrent matrix instead."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import optax

from cliffs.clipping._leaves import is_recurrent, path_names
from cliffs.clipping._numbers import Number, at, check
from cliffs.clipping._outcome import Outcome, clipped_whole, compare
from cliffs.clipping._safe_norm import Axis
from cliffs.clipping._strategy import MODES, CountState, NonFinite, check_mode, strategy


def clip_or_shrink(
    max_norm: Number = 1.0,
    shrink: Number = 0.02,
    limit: Number = 1e10,
    recurrent: Callable[[str], bool] | None = None,
    *,
    nonfinite: NonFinite | Literal["shrink"] = "shrink",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip by the global norm; where the norm is not finite or above `limit`, shrink the recurrent matrix instead.

    `g max_norm / ||g||` if `max_norm < ||g|| <= limit`; else, for a broken gradient, `shrink * W_rec` for the
    recurrent leaves and 0 for all others, as if these were the gradient (the learning rate still applies, so one
    step of SGD makes the matrix smaller by `lr * shrink`).

    **Arguments**

    - `max_norm`: the threshold, `>= 0`.
    - `shrink`: the factor of the recurrent matrix, `>= 0`.
    - `limit`: the norm above which a gradient is not believed, `>= 0`.
    - `recurrent`: `recurrent(path) -> bool`; by default the leaves called `w_rec`.
    - `nonfinite`: `"shrink"` is the rule above; with one of the usual four it applies to finite norms above `limit`
      only.
    - `axis_name`: see `clip_by_global_norm`.

    All numbers may be traced scalars or schedules. The transformation needs `params`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a number out of range, for parameters in which `recurrent` finds no leaf, and when
    `update` is called without `params` or with other leaves.

    Source: released code of Pascanu, Mikolov & Bengio (ICML 2013), github.com/pascanur/trainingRNNs. Its test for a
    norm `< 0` cannot be true and is left out; its threshold test is strict, that of algorithm 1 is not.

    >>> clip = clip_or_shrink(1.0)
    >>> params = {"w_rec": jnp.array([[2.0]]), "w_in": jnp.array([[1.0]])}
    >>> broken = {"w_rec": jnp.array([[jnp.nan]]), "w_in": jnp.array([[1.0]])}
    >>> updates, _ = clip.update(broken, clip.init(params), params)
    >>> round(float(updates["w_rec"][0, 0]), 4), float(updates["w_in"][0, 0])
    (0.04, 0.0)
    """
    for name, value in (("max_norm", max_norm), ("shrink", shrink), ("limit", limit)):
        check(name, value)
    is_chosen = recurrent or is_recurrent
    check_mode(nonfinite, (*MODES, "shrink"))

    def check_chosen(params):
        names = path_names(params)
        if names and not any(is_chosen(name) for name in names):
            raise ValueError(f"recurrent finds no leaf among {names}")

    def init(params):
        check_chosen(params)
        return CountState(jnp.zeros((), jnp.int32))

    def shrunk(gradient, state):
        factor = at(shrink, state.count)
        weights = gradient.weights
        check_chosen(gradient.params)
        return [
            (factor * w).astype(x.dtype) if is_chosen(name) else jnp.zeros_like(x)
            for name, x, w in zip(gradient.names, gradient.leaves, weights)
        ]

    def rule(gradient, state):
        clipped = clipped_whole(gradient.leaves, gradient.norm, at(max_norm, state.count))
        broken = gradient.norm.value > at(limit, state.count)
        matrix = shrunk(gradient, state)

        def change():
            assert clipped.change is not None
            # The leaves that become 0 add nothing; a zero stands for them where they are all.
            zero = jnp.zeros_like(gradient.norm.value)
            pairs = [p for p in zip(gradient.names, gradient.leaves, matrix) if is_chosen(p[0])]
            before, after = ([side[k] for side in pairs] + [zero] for k in (1, 2))
            found = compare(before, after, gradient.norm, jnp.array(True), axis_name)
            known = clipped.change()
            return type(known)(*(jnp.where(broken, a, b) for a, b in zip(found, known)))

        return Outcome([jnp.where(broken, a, b) for a, b in zip(matrix, clipped.leaves)], change), state

    if nonfinite != "shrink":
        return strategy(init, rule, nonfinite, axis_name=axis_name)
    return strategy(init, rule, "propagate", shrunk, axis_name=axis_name)
