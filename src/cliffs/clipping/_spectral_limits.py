"""Limits of leading singular values that follow their history, one for each matrix."""

import dataclasses
import itertools
import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from cliffs.clipping._averages import weighted
from cliffs.clipping._numbers import Number, at, check, multiple


@dataclasses.dataclass(frozen=True)
class EmaLimit:
    """A limit of `multiplier` times the moving average of past values, corrected for its start; the first one passes.

    The values enter as they were before clipping, after the comparison. `multiplier >= 0` and `decay` in `[0, 1)` may
    be numbers, traced scalars or schedules. Source: Yukhimchuk, Kolar, Takáč & Choudhury (2026), arXiv 2605.11838,
    whose `multiplier` is 1.

    >>> EmaLimit(decay=0.95)
    EmaLimit(multiplier=1.0, decay=0.95)
    """

    multiplier: Number = 1.0
    decay: Number = 0.9


@dataclasses.dataclass(frozen=True)
class QuantileLimit:
    """A limit `C` that follows a quantile of the values: `C <- C exp(-rate (1[value <= C] - quantile))`.

    The first value that is not 0 starts it and passes. `quantile` in `[0, 1]` and `rate >= 0` may be numbers, traced
    scalars or schedules. Source: as `clip_by_quantile_tracker`, in place of the quantile 0.85 of the last 100 values of
    arXiv 2605.11838, which would need 100 stored values for each matrix.

    >>> QuantileLimit(rate=0.1)
    QuantileLimit(quantile=0.85, rate=0.1)
    """

    quantile: Number = 0.85
    rate: Number = 0.2


Limit = Number | EmaLimit | QuantileLimit


def check_limit(name: str, limit: Limit) -> None:
    """Refuse numbers out of range."""
    if isinstance(limit, EmaLimit):
        check("multiplier", limit.multiplier)
        check("decay", limit.decay, high=1.0, open_high=True)
    elif isinstance(limit, QuantileLimit):
        check("quantile", limit.quantile, high=1.0)
        check("rate", limit.rate)
    else:
        check(name, limit)


def numbers_kept(limit: Limit) -> int:
    """How many numbers a limit keeps for each matrix."""
    return 2 if isinstance(limit, EmaLimit) else int(isinstance(limit, QuantileLimit))


def followed(limit: Limit, values: list[Array], kept: list[Array], count: Array) -> tuple[list[Array], list[Array]]:
    """The limit for each value, and what is kept after it, which has one more axis than the value at its end."""
    if not numbers_kept(limit):
        same = jnp.asarray(at(limit, count), values[0].dtype)  # pyright: ignore[reportArgumentType]
        return [jnp.broadcast_to(same, value.shape) for value in values], []
    sizes = [math.prod(value.shape) for value in values]
    flat = jnp.concatenate([value.reshape(-1) for value in values])
    old = [jnp.concatenate([k[..., i].reshape(-1) for k in kept]) for i in range(numbers_kept(limit))]
    limits, new = _followed(limit, flat, old, count)
    shared = lax.optimization_barrier((limits, *new))
    ends = list(itertools.accumulate(sizes))[:-1]
    pieces = [jnp.split(x, ends) for x in shared]
    shaped = [[piece.reshape(value.shape) for piece, value in zip(side, values)] for side in pieces]
    return shaped[0], [jnp.stack(each, axis=-1) for each in zip(*shaped[1:])]


def _followed(limit: Limit, value: Float[Array, " k"], old: list[Any], count: Array) -> tuple[Array, list[Array]]:
    if isinstance(limit, EmaLimit):
        average, weight = old
        found = jnp.where(weight > 0, multiple(at(limit.multiplier, count), average), jnp.inf)
        share, weight = weighted(weight, at(limit.decay, count))
        return found, [average + share * (value - average), weight]
    assert isinstance(limit, QuantileLimit)
    (present,) = old
    fresh, info = present <= 0, jnp.finfo(value.dtype)
    quantile = jnp.clip(jnp.asarray(at(limit.quantile, count), value.dtype), 0, 1)
    rate = jnp.asarray(at(limit.rate, count), value.dtype)
    moved = jnp.clip(present * jnp.exp(-rate * ((value <= present) - quantile)), info.tiny, info.max)
    return jnp.where(fresh, jnp.inf, present), [jnp.where(fresh, value, moved)]
