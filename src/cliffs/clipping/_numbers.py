"""Numbers and schedules: what an argument may be, its value at a step, and arithmetic that keeps derivatives finite."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

Number = optax.ScalarOrSchedule
"""A float, a scalar array (traced or not) or an optax schedule `count -> value`."""


def at(value: Number, count: Array) -> Any:
    """The value of a number or a schedule at this count of updates.

    What `check` could not see, a traced or scheduled value that is negative or NaN, counts as 0: a threshold then gives
    no update instead of one uphill or a NaN.
    """
    now: Any = value
    if callable(value):
        now = value(count)
        check_scalar("the value of a schedule", now)
    if isinstance(now, jax.Array):
        return jnp.where(now >= 0, now, 0)
    number = float(now)  # a whole number need not fit in 32 bits, as JAX would have it
    return number if number >= 0 else 0.0


def multiple(factor: ArrayLike, base: Array) -> Array:
    """`factor base`; an infinite factor means no limit, also where `base` is 0, and has finite derivatives."""
    factor = jnp.asarray(factor, base.dtype)
    unlimited = jnp.isinf(factor)
    return jnp.where(unlimited, jnp.inf, jnp.where(unlimited, 0, factor) * base)


def check(
    name: str,
    value: Number,
    *,
    low: float = 0.0,
    high: float = math.inf,
    open_low: bool = False,
    open_high: bool = False,
    static: bool = False,
) -> None:
    """Refuse what is not one number, and a number outside its range if it is known now.

    Schedules (unless `static`) and the values of traced numbers pass; they are looked at in `at`.
    """
    if callable(value):
        if static:
            raise ValueError(f"{name} must be a number, not a schedule, got {value}")
        return
    check_scalar(name, value, "a real number" if static else "a real number or a schedule")
    if isinstance(value, Tracer):
        return
    number = float(np.asarray(value, dtype=float))
    good = (number > low) if open_low else (number >= low)
    good = good and ((number < high) if open_high else (number <= high))
    if not good:  # NaN fails every comparison
        span = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        raise ValueError(f"{name} must lie in {span}, got {value}")


def check_scalar(name: str, value: Any, allowed: str = "a real number") -> None:
    """Refuse strings, objects and arrays with axes: an array would be broadcast against the last axis of each leaf."""
    if isinstance(value, jax.Array):  # traced or not: its numbers stay on the device
        shape, real = value.shape, jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    elif isinstance(value, int) and not isinstance(value, bool):
        shape, real = (), True  # also one that no integer of numpy holds
    else:
        array = np.asarray(value)
        shape = array.shape
        # bfloat16 and its like are of no kind that numpy knows.
        real = array.dtype.kind in "iuf" or (array.dtype.kind == "V" and jnp.issubdtype(array.dtype, jnp.floating))
    if not real:
        raise ValueError(f"{name} must be {allowed}, got {value!r}")
    if shape:
        raise ValueError(f"{name} must be a single number, got an array of shape {tuple(shape)}")


def hypot(a: Array, b: Array) -> Array:
    """`sqrt(a^2 + b^2)` without overflow, with derivative 0 at the origin."""
    large = jnp.maximum(jnp.abs(a), jnp.abs(b))
    positive = large > jnp.finfo(large.dtype).tiny
    top = jnp.where(positive, jax.lax.stop_gradient(large), 1.0)
    a, b = jnp.where(positive, a / top, 1.0), jnp.where(positive, b / top, 0.0)
    return jnp.where(positive, top * jnp.sqrt(a * a + b * b), 0.0)


@jax.custom_jvp
def root_mean(old: Array, new: Array, decay: Array) -> Array:
    """`sqrt(decay old^2 + (1 - decay) new^2)` of non-negative numbers whose squares may be no floats.

    In float64, where numbers and device allow that: bringing the numbers near 1 first takes two quotients, which XLA
    keeps in memory.
    """
    dtype = jnp.result_type(old, new)
    if jnp.finfo(dtype).bits == 32 and jax.default_backend() != "tpu":
        with jax.enable_x64(True):
            a, b, share = (jax.lax.convert_element_type(x, jnp.float64) for x in (old, new, decay))
            total = share * jnp.square(a) + (1 - share) * jnp.square(b)
            # A decay that is not in [0, 1], as a schedule may give it, is no reason for a NaN that stays.
            return jax.lax.convert_element_type(jnp.sqrt(jnp.maximum(total, 0)), dtype)
    top = jnp.maximum(old, new)
    positive = top > jnp.finfo(dtype).tiny
    top = jnp.where(positive, top, 1.0)
    old, new = jnp.where(positive, old / top, 1.0), jnp.where(positive, new / top, 0.0)
    total = decay * jnp.square(old) + (1 - decay) * jnp.square(new)
    return jnp.where(positive, top * jnp.sqrt(jnp.maximum(total, 0)), 0.0)


@root_mean.defjvp
def _root_mean_jvp(primals, tangents):
    (old, new, decay), (d_old, d_new, d_decay) = primals, tangents
    root = root_mean(old, new, decay)
    some = root > jnp.finfo(root.dtype).tiny
    # Both parts over the root: at most 1 over the root of their shares; 0 for a share of 0, and at the origin.
    a, b = (
        jnp.where(some & used, x / jnp.where(some & used, root, 1.0), 0.0)
        for x, used in ((old, decay > 0), (new, decay < 1))
    )
    along = 0.5 * (a * old - b * new) * d_decay
    return root, (decay * a * d_old + (1 - decay) * b * d_new + along).astype(root.dtype)


@jax.custom_jvp
def parallel(a: Array, b: Array) -> Array:
    """`a b / (a + b)` of non-negative numbers, also where their product or the square of one is no float."""
    small, large = jnp.minimum(a, b), jnp.maximum(a, b)
    return small / (1 + jnp.where(large > 0, small / jnp.where(large > 0, large, 1.0), 0.0))


@parallel.defjvp
def _parallel_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    ratio = jnp.minimum(a, b) / jnp.where(jnp.maximum(a, b) > 0, jnp.maximum(a, b), 1.0)
    near, far = 1 / (1 + ratio) ** 2, (ratio / (1 + ratio)) ** 2
    # The smaller of the two decides.
    slope_a, slope_b = jnp.where(a <= b, near, far), jnp.where(a <= b, far, near)
    return parallel(a, b), slope_a * da + slope_b * db
