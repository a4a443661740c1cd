"""AGGC: the norm of each group of arrays kept in a band around its own moving average."""

import math
from collections.abc import Callable, Hashable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from cliffs.clipping._averages import PerArray, chosen, replaced, start, weighted
from cliffs.clipping._leaves import number_names
from cliffs.clipping._norms import of_groups
from cliffs.clipping._numbers import Number, at, check, multiple
from cliffs.clipping._outcome import Outcome, rescaled_parts
from cliffs.clipping._safe_norm import Axis
from cliffs.clipping._strategy import NonFinite, by_leaf, strategy


class GroupBandState(NamedTuple):
    """State of `clip_by_group_band`."""

    count: Int[Array, ""]
    averages: PerArray
    """For each group the average of its norm, and the weight behind it, `1 - decay^t`."""


def clip_by_group_band(
    high: Number = 1.5,
    low: Number = 0.5,
    decay: Number = 0.98,
    min_norm: Number = 0.0,
    least_factor: Number = 0.0,
    most_factor: Number = math.inf,
    update: Literal["before", "after", "clipped"] = "before",
    group: Callable[[str], Hashable] | None = None,
    *,
    nonfinite: NonFinite = "propagate",
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """Keep the norm of each group within `[max(min_norm, low S), high S]`, `S` its moving average (AGGC).

    `S = decay S + (1-decay) n` with the group's norm n, corrected for its start as Adam's moments are. A norm above the
    band is shortened to its upper end, one below is lengthened to its lower end; this and `adaptive_grad_norm` are the
    rules that make small gradients longer. A norm of 0 stays.

    **Arguments**

    - `high`, `low`: the ends of the band as multiples of `S`, `>= 0`. Where `low` is above `high`, a norm above
      `high S` is shortened to it, and every other is lengthened to `low S`.
    - `decay`: in `[0, 1)`. `min_norm`: the least lower end, `>= 0`.
    - `least_factor`, `most_factor`: the least and the most that a group is multiplied by in one step, in `[0, 1]` and
      `>= 1`. All these may be numbers, traced scalars or schedules.
    - `update`: when the norm enters `S`: `"before"` the comparison, `"after"` it, or the `"clipped"` norm after it, see
      `clip_by_ema_norm`. With the last two nothing is shortened while `S` is 0.
    - `group`: `group(path) -> hashable` for a leaf's path such as `"encoder/dense/kernel"`; groups whose `str` is the
      same count as one. By default all but the last entry, which is the layer. Under `optax.inject_hyperparams` name it
      in `static_args`.
    - `nonfinite`, `axis_name`: see `clip_by_global_norm`; a bad gradient never enters the averages.

    **Returns** an `optax.GradientTransformationExtraArgs` with `GroupBandState`.

    **Raises** `ValueError` for a number out of range, an unknown `update`, and a gradient with a group that `init` did
    not see.

    Source: Li, Wu & Chang (2026), AGGC, arXiv 2601.11864, whose groups are all projections of one kind. Their code has
    `update="clipped"`, does not correct the start of S, and multiplies by 0.9 to 1.1 in one step; with high 0.6 to 0.7
    and low 0.95 (fine-tuning, decay 0.95, without lengthening) or high 0.7 to 0.999 and low 0.98 (reinforcement
    learning, decay 0.99) on linear schedules. The defaults here are a plain band around the average and not theirs.

    >>> rule = clip_by_group_band(high=1.2, low=0.8, decay=0.5)
    >>> state = rule.init(jnp.zeros(1))
    >>> for norm in (1.0, 4.0, 0.1):  # S = 1, 3, then (1 + 2 * 4 + 4 * 0.1) / 7 = 1.3429
    ...     updates, state = rule.update(jnp.array([norm]), state)
    ...     print(round(float(updates[0]), 4))
    1.0
    3.6
    1.0743
    """
    for name, value in (("high", high), ("low", low), ("min_norm", min_norm)):
        check(name, value)
    check("decay", decay, high=1.0, open_high=True)
    check("least_factor", least_factor, high=1.0)
    check("most_factor", most_factor, low=1.0)
    if update not in ("before", "after", "clipped"):
        raise ValueError(f"update must be 'before', 'after' or 'clipped', got {update!r}")
    name_group = group or (lambda path: path.rpartition("/")[0])

    def members(names: list[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            found.setdefault(str(name_group(name)), []).append(i)
        return found

    def init(params):
        averages = start(params, 2, names_of=lambda tree: members(number_names(tree)))
        return GroupBandState(jnp.zeros((), jnp.int32), averages)

    def rule(gradient, state):
        groups = members(gradient.names)
        if not groups:
            return Outcome([]), state
        unknown = [name for name in groups if name not in state.averages.names]
        if unknown:
            raise ValueError(f"the gradient has the group {unknown[0]!r}, the state {sorted(state.averages.names)}")
        count, dtype = state.count, gradient.norm.value.dtype
        places = list(groups.values())
        first = np.array([indices[0] for indices in places], int)
        norms = of_groups(gradient.norms, places)
        n = jnp.where(gradient.finite, norms.value[first], 0.0)
        average, weight = chosen(state.averages, list(groups)).astype(dtype)
        share, weight = weighted(weight, at(decay, count))

        def within(average):
            known = average > 0
            upper = jnp.where(known, multiple(at(high, count), average), jnp.inf)
            lower = jnp.maximum(multiple(at(low, count), average), jnp.asarray(at(min_norm, count), dtype))
            length = jnp.where(n > upper, upper, jnp.where((n < lower) & (n > 0), lower, n))
            return jnp.clip(length, multiple(at(least_factor, count), n), multiple(at(most_factor, count), n))

        if update == "before":
            average = average + share * (n - average)
            lengths = within(average)
        else:
            lengths = within(average)
            average = average + share * ((lengths if update == "clipped" else n) - average)
        group_of = np.zeros(len(gradient.leaves), int)
        for k, indices in enumerate(places):
            group_of[indices] = k
        outcome = rescaled_parts(gradient.leaves, norms, lengths[group_of], gradient.finite, first)
        averages = replaced(state.averages, list(groups), jnp.stack([average, weight]))
        return outcome, state._replace(averages=averages)

    return strategy(init, rule, nonfinite, measure=by_leaf, axis_name=axis_name)
