"""Clipping by a norm: of the whole gradient, per leaf, per group, softly."""

from collections.abc import Callable, Hashable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs.clipping._numbers import Number, at, check, multiple, parallel
from cliffs.clipping._outcome import clipped_whole, rescaled_parts, rescaled_whole
from cliffs.clipping._safe_norm import Axis, Norm, combined, entries, in_working_precision
from cliffs.clipping._strategy import NonFinite, by_leaf, strategy


def clip_by_global_norm(
    max_norm: Number, *, nonfinite: NonFinite = "propagate", axis_name: Axis = None
) -> optax.GradientTransformationExtraArgs:
    """Clip the whole gradient by its norm: `g min(1, max_norm / ||g||)`.

    The direction is kept. As `optax.clip_by_global_norm`, with a norm that neither overflows nor underflows.
    `torch.nn.utils.clip_grad_norm_` divides by `||g|| + 1e-6` instead, so its result is shorter by a relative
    1e-6 / ||g||.

    **Arguments**

    - `max_norm`: `>= 0`; a number, a traced scalar or a schedule.
    - `nonfinite`: `"propagate"`, `"zero"`, `"skip"` or `"raise"`, see `cliffs.clipping.NonFinite`.
    - `axis_name`: inside `shard_map` or `pmap`, the mesh axis (or axes) over which the leaves are spread; the norm is
      then that of all pieces together. Without it each device clips by the norm of its own piece, as optax's rules do.
      A leaf that every device holds whole counts once where `shard_map` checks what varies (`check_vma`, on by
      default), else once per device.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a `max_norm` that is negative, NaN or not a single number.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1.

    >>> clip = clip_by_global_norm(5.0)
    >>> updates, _ = clip.update(jnp.array([10.0, 1.0]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 4) for x in updates]
    [4.9752, 0.4975]
    """
    check("max_norm", max_norm)

    def rule(gradient, state):
        return clipped_whole(gradient.leaves, gradient.norm, at(max_norm, state.count)), state

    return strategy(None, rule, nonfinite, axis_name=axis_name)


def clip_by_leaf_norm(
    max_norm: Number, *, nonfinite: NonFinite = "propagate", axis_name: Axis = None
) -> optax.GradientTransformationExtraArgs:
    """Clip every array by its own norm: `g_i min(1, max_norm / ||g_i||)` for each leaf i.

    Unlike `clip_by_global_norm` this turns the whole gradient: leaves that are clipped lose against those that are
    not. Unlike `clip_by_block_rms` the limit does not grow with the size of the array.

    **Arguments**

    - `max_norm`: the largest norm of a leaf, `>= 0`; a number, a traced scalar or a schedule.
    - `nonfinite`, `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a `max_norm` that is negative, NaN or not a single number.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1, applied per parameter.

    >>> clip = clip_by_leaf_norm(1.0)
    >>> grads = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([0.5])}
    >>> updates, _ = clip.update(grads, clip.init(grads))
    >>> [round(float(x), 2) for x in updates["a"]], float(updates["b"][0])
    ([0.6, 0.8], 0.5)
    """
    check("max_norm", max_norm)

    def rule(gradient, state):
        norms = gradient.norms
        lengths = jnp.minimum(norms.value, at(max_norm, state.count))
        return rescaled_parts(gradient.leaves, norms, lengths, gradient.finite), state

    return strategy(None, rule, nonfinite, measure=by_leaf, axis_name=axis_name)


def clip_by_group_norm(
    max_norm: Number,
    group: Callable[[str], Hashable] | None = None,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Clip groups of leaves by the norm of the group: `g_i min(1, max_norm / ||g_group(i)||)`.

    **Arguments**

    - `max_norm`: the largest norm of a group, `>= 0`; a number, a traced scalar or a schedule.
    - `group`: `group(path) -> hashable` for a leaf's path such as `"encoder/dense/kernel"`. By default all but the
      last entry, which is the layer. Under `optax.inject_hyperparams` name it in `static_args`.
    - `nonfinite`, `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a `max_norm` that is negative, NaN or not a single number.

    Source: Pascanu, Mikolov & Bengio (2012), algorithm 1, applied per layer.

    >>> clip = clip_by_group_norm(1.0)
    >>> grads = {"one": {"w": jnp.array([3.0]), "b": jnp.array([4.0])}, "two": {"w": jnp.array([0.5])}}
    >>> updates, _ = clip.update(grads, clip.init(grads))
    >>> round(float(updates["one"]["w"][0]), 2), float(updates["two"]["w"][0])
    (0.6, 0.5)
    """
    check("max_norm", max_norm)
    name_group = group or (lambda path: path.rpartition("/")[0])

    def rule(gradient, state):
        members: dict[Hashable, list[int]] = {}
        for i, name in enumerate(gradient.names):
            members.setdefault(name_group(name), []).append(i)
        norms = of_groups(gradient.norms, list(members.values()))
        lengths = jnp.minimum(norms.value, at(max_norm, state.count))
        chosen = np.array([indices[0] for indices in members.values()], int)
        return rescaled_parts(gradient.leaves, norms, lengths, gradient.finite, chosen), state

    return strategy(None, rule, nonfinite, measure=by_leaf, axis_name=axis_name)


def of_groups(norms: Norm, groups: list[list[int]]) -> Norm:
    """For each leaf the norm of its group."""
    if not groups:
        return norms
    # Groups as the rows of a table; what is left over in a row counts for 0.
    table = np.zeros((len(groups), max(map(len, groups))), int)
    filled, group_of = np.zeros(table.shape, bool), np.zeros(norms.value.shape[0], int)
    for row, indices in enumerate(groups):
        table[row], filled[row, : len(indices)], group_of[indices] = indices[0], True, row
        table[row, : len(indices)] = indices
    with in_working_precision(norms):
        rows = jax.tree.map(lambda x: x[table], norms)
        rows = rows._replace(value=jnp.where(filled, rows.value, 0), relative=jnp.where(filled, rows.relative, 0))
    found = combined(rows)
    with in_working_precision(found):
        return jax.tree.map(lambda x: x[group_of], found)


def clip_by_block_rms(
    threshold: Number, *, nonfinite: NonFinite = "propagate", axis_name: Axis = None
) -> optax.GradientTransformationExtraArgs:
    """Clip every array by its root mean square: `g_i / max(1, rms(g_i) / threshold)`.

    As `optax.clip_by_block_rms`, with sums that neither overflow nor underflow.

    **Arguments**

    - `threshold`: `> 0`; a number, a traced scalar or a schedule.
    - `nonfinite`, `axis_name`: see `clip_by_global_norm`; the mean is then that over all pieces.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a threshold that is not positive (the rule divides by it) or not a single number.

    Source: Shazeer & Stern (2018), Adafactor, section 6.

    >>> rule = clip_by_block_rms(1.0)
    >>> rule.update(jnp.array([2.0, -2.0]), rule.init(jnp.zeros(2)))[0].tolist()
    [1.0, -1.0]
    """
    check("threshold", threshold, open_low=True)

    def rule(gradient, state):
        limit = jnp.asarray(at(threshold, state.count), gradient.norm.value.dtype)
        roots = jnp.sqrt(entries(gradient.leaves, limit.dtype, axis_name))
        lengths = jnp.minimum(gradient.norms.value, multiple(limit, roots))
        return rescaled_parts(gradient.leaves, gradient.norms, lengths, gradient.finite), state

    return strategy(None, rule, nonfinite, measure=by_leaf, axis_name=axis_name)


def soft_clip_by_global_norm(
    max_norm: Number, *, nonfinite: NonFinite = "propagate", axis_name: Axis = None
) -> optax.GradientTransformationExtraArgs:
    """Shrink the whole gradient smoothly: `g / (1 + ||g|| / max_norm)`.

    The direction stays, the norm stays below `max_norm`, small gradients are almost untouched, and the map is
    differentiable everywhere. It changes every gradient, so telemetry counts every step as clipped.

    **Arguments**

    - `max_norm`: the norm that is never reached, `>= 0`; a number, a traced scalar or a schedule.
    - `nonfinite`, `axis_name`: see `clip_by_global_norm`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a `max_norm` that is negative, NaN or not a single number.

    Source: Zhang, He, Sra & Jadbabaie (2020), whose clipped step `min(eta, gamma eta / ||g||)` equals this
    normalised step up to a factor of two.

    >>> clip = soft_clip_by_global_norm(5.0)
    >>> updates, _ = clip.update(jnp.array([3.0, 4.0]), clip.init(jnp.zeros(2)))
    >>> [round(float(x), 6) for x in updates]
    [1.5, 2.0]
    """
    check("max_norm", max_norm)

    def rule(gradient, state):
        n = gradient.norm.value
        length = parallel(n, jnp.asarray(at(max_norm, state.count), n.dtype))
        return rescaled_whole(gradient.leaves, gradient.norm, length), state

    return strategy(None, rule, nonfinite, axis_name=axis_name)
