"""Clipping by a norm: per leaf, per group, softly; and the rule of the 2013 paper's released code."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cliffs.clipping._core import NO_PARAMS, Number, at, check, clip_to, is_recurrent, path_name, tree_norm, wide
from cliffs.clipping._report import Result, Told, clip_norm, compare, tell_parts
from cliffs.clipping._strategy import MODES, CountState, check_mode, strategy


def _clipped_parts(tree, norms, limit):
    """A gradient whose disjoint parts, of these norms, were clipped to `limit` each."""
    return Result(tree, lambda _: tell_parts([n.value for n in norms], [jnp.minimum(n.value, limit) for n in norms]))


def clip_by_leaf_norm(max_norm: Number, *, nonfinite: str = "propagate") -> optax.GradientTransformation:
    """Clip every array by its own norm: `g_i min(1, max_norm / ||g_i||)` for each leaf i.

    Unlike `clip_by_global_norm` this turns the whole gradient: leaves that are clipped lose against those that are
    not. Unlike `clip_by_block_rms` the limit does not grow with the size of the array.

    **Arguments**

    - `max_norm`: the largest norm of a leaf, `>= 0`; a number, a traced array or a schedule.
    - `nonfinite`: `"propagate"`, `"zero"`, `"skip"` or `"raise"`, see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN `max_norm`.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1, applied per parameter.

    >>> clip = clip_by_leaf_norm(1.0)
    >>> grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}
    >>> updates, _ = clip.update(grads, clip.init(grads))
    >>> [round(float(x), 2) for x in updates["a"]], float(updates["b"][0])
    ([0.6, 0.8], 0.5)
    """
    check("max_norm", max_norm)

    def rule(updates, state, params, norm):
        limit = at(max_norm, state.count)
        leaves, treedef = jax.tree.flatten(updates)
        norms = [tree_norm(x) for x in leaves]
        new = treedef.unflatten([clip_to(x, n, limit) for x, n in zip(leaves, norms)])
        return _clipped_parts(new, norms, limit), state

    return strategy(None, rule, nonfinite)


def clip_by_group_norm(
    max_norm: Number, group: Callable[[str], Any] | None = None, *, nonfinite: str = "propagate"
) -> optax.GradientTransformation:
    """Clip groups of leaves by the norm of the group: `g_i min(1, max_norm / ||g_group(i)||)`.

    **Arguments**

    - `max_norm`: the largest norm of a group, `>= 0`; a number, a traced array or a schedule.
    - `group`: `group(path) -> hashable` for a leaf's path such as `"encoder/dense/kernel"`. By default all but the
      last entry, which is the layer. Under `optax.inject_hyperparams` name it in `static_args`.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN `max_norm`.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1, applied per layer.

    >>> clip = clip_by_group_norm(1.0)
    >>> grads = {"one": {"w": jnp.array([3.0]), "b": jnp.array([4.0])}, "two": {"w": jnp.array([0.5])}}
    >>> updates, _ = clip.update(grads, clip.init(grads))
    >>> round(float(updates["one"]["w"][0]), 2), float(updates["two"]["w"][0])
    (0.6, 0.5)
    """
    check("max_norm", max_norm)
    group = group or (lambda path: path.rpartition("/")[0])

    def rule(updates, state, params, norm):
        limit = at(max_norm, state.count)
        paths, treedef = jax.tree_util.tree_flatten_with_path(updates)
        members: dict[Any, list[int]] = {}
        for i, (path, _) in enumerate(paths):
            members.setdefault(group(path_name(path)), []).append(i)
        leaves, norms = [x for _, x in paths], []
        for indices in members.values():
            part = [leaves[i] for i in indices]
            norms.append(tree_norm(part))
            for i, x in zip(indices, clip_to(part, norms[-1], limit)):
                leaves[i] = x
        return _clipped_parts(treedef.unflatten(leaves), norms, limit), state

    return strategy(None, rule, nonfinite)


def soft_clip_by_global_norm(max_norm: Number, *, nonfinite: str = "propagate") -> optax.GradientTransformation:
    """Shrink the whole gradient smoothly: `g / (1 + ||g|| / max_norm)`.

    The direction stays, the norm stays below `max_norm`, small gradients are almost untouched, and the map is
    differentiable everywhere. It changes every gradient, so telemetry counts every step as clipped.

    **Arguments**

    - `max_norm`: the norm that is never reached, `>= 0`; a number, a traced array or a schedule.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a negative or NaN `max_norm`.

    Source: Zhang, He, Sra & Jadbabaie (2020), whose clipped step `min(eta, gamma eta / ||g||)` equals this
    normalised step up to a factor of two.

    >>> clip = soft_clip_by_global_norm(5.0)
    >>> updates, _ = clip.update(jnp.array([3.0, 4.0]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 6) for x in updates]
    [1.5, 2.0]
    """
    check("max_norm", max_norm)

    def rule(updates, state, params, norm):
        limit = jnp.asarray(at(max_norm, state.count), norm.scale.dtype)
        # (g / s) / (1/s + r/limit) with ||g|| = s r: neither ||g|| nor the ratio has to be a float. A limit below r
        # comes as limit / (limit/s + r), whose derivative needs no square of its reciprocal.
        tight = limit < norm.relative
        small, large = jnp.where(tight, limit, 1.0), jnp.where(tight, 1.0, limit)
        large = jnp.where((large > 0) & (norm.relative > 0), large, 1.0)
        pull = jnp.where(tight, norm.relative, 1.0)
        factor = jnp.where(
            tight,
            small / (small / norm.scale + pull),
            jnp.where(limit > 0, 1 / (1 / norm.scale + norm.relative / large), 0.0),
        )

        def one(x):
            if not jnp.issubdtype(x.dtype, jnp.inexact):
                return x
            return (wide(x, norm.scale.dtype) / norm.scale * factor).astype(x.dtype)

        after = jnp.minimum(norm.relative * factor, jnp.finfo(factor.dtype).max)
        changed = (factor != norm.scale) & (norm.relative > 0)
        return Result(jax.tree.map(one, updates), lambda _: Told(changed, after)), state

    return strategy(None, rule, nonfinite)


def clip_or_shrink(
    max_norm: Number = 1.0,
    shrink: Number = 0.02,
    limit: Number = 1e10,
    recurrent: Callable[[str], bool] | None = None,
    *,
    nonfinite: str = "shrink",
) -> optax.GradientTransformation:
    """Clip by the global norm; where the norm is not finite or above `limit`, shrink the recurrent matrix instead.

    `g max_norm / ||g||` if `max_norm < ||g|| <= limit`; else, for a broken gradient, `shrink * W_rec` for the
    recurrent leaves and 0 for all others, as if these were the gradient (the learning rate still applies, so one
    step of SGD makes the matrix smaller by `lr * shrink`).

    **Arguments**

    - `max_norm`: the threshold, `>= 0`.
    - `shrink`: the factor of the recurrent matrix, `>= 0`.
    - `limit`: the norm above which a gradient is not believed, `>= 0`.
    - `recurrent`: `recurrent(path) -> bool`; by default the leaves called `w_rec`.
    - `nonfinite`: `"shrink"` is this rule; the usual four keep it for finite norms above `limit` only.

    All numbers may be traced arrays or schedules. The transformation needs `params`.

    **Returns** an `optax.GradientTransformation`.

    **Raises** `ValueError` for a number out of range, for a tree in which `recurrent` finds no leaf, and when
    `update` is called without `params`.

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
    recurrent = recurrent or is_recurrent
    check_mode(nonfinite, (*MODES, "shrink"))

    def init(params):
        paths = [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
        if paths and not any(recurrent(path) for path in paths):
            raise ValueError(f"recurrent finds no leaf among {paths}")
        return CountState(jnp.zeros((), jnp.int32))

    def shrunk(updates, params, factor):
        def one(path, x, w):
            return (factor * w).astype(x.dtype) if recurrent(path_name(path)) else jnp.zeros_like(x)

        return jax.tree_util.tree_map_with_path(one, updates, params)

    def rule(updates, state, params, norm):
        if params is None:
            raise ValueError(NO_PARAMS)
        clipped = clip_norm(updates, norm, at(max_norm, state.count))
        factor = at(shrink, state.count)
        broken = norm.value > at(limit, state.count)
        tree = jax.tree.map(lambda a, b: jnp.where(broken, a, b), shrunk(updates, params, factor), clipped.tree)

        def tell(grads):
            def look(grads, params):
                return compare(grads, shrunk(grads, params, factor), norm)

            def known(grads, params):
                told = clipped.tell(grads)
                return told._replace(cosine=jnp.ones_like(told.norm_after))

            return jax.lax.cond(broken, look, known, grads, params)

        return Result(tree, tell), state

    if nonfinite != "shrink":
        return strategy(init, rule, nonfinite)

    def instead(updates, state, params):
        if params is None:
            raise ValueError(NO_PARAMS)
        return shrunk(updates, params, at(shrink, state.count))

    return strategy(init, rule, "propagate", instead)
