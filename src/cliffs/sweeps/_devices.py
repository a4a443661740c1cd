"""The devices of a sweep, and which run lies where on them."""

import os

import jax
import numpy as np


def use_all_cores(count: int | None = None) -> int:
    """Make every CPU core a device of its own; call it before JAX starts (before the first array).

    One vmapped program of small matrices keeps one core busy; a sweep over n host devices keeps n.

    **Arguments**: `count`, the number of host devices; the cores that this process may use by default.

    **Returns** the number of devices asked for.

    **Raises** `RuntimeError` when JAX has already started with another number of host devices, `ValueError` for a
    count below 1.

    >>> use_all_cores(0)
    Traceback (most recent call last):
    ValueError: count must be at least 1, got 0
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = available if count is None else count
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if jax.default_backend() == "cpu" and jax.local_device_count() == count:
            return count
        raise RuntimeError(
            f"use_all_cores({count}) came too late: JAX has already started with {jax.local_device_count()} "
            f"{jax.default_backend()} device(s). Call it before the first JAX array or jit."
        ) from error
    return count


def positions(count: int, padded: int, lanes: int, devices: int) -> np.ndarray:
    """Where the first `count` runs lie on the run axis: groups are dealt to the devices in turn, like cards."""
    groups = np.arange(padded // lanes)
    per_device = len(groups) // devices
    start = (groups % devices) * per_device + groups // devices
    return (start[:, None] * lanes + np.arange(lanes)).reshape(-1)[:count]
