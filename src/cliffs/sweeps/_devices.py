"""The devices of a sweep, and which run lies where on them."""

import dataclasses
import functools
import os
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from cliffs._devices import Device
from cliffs.sweeps._processes import Processes


def use_all_cores(count: int | None = None) -> int:
    """Make every CPU core a device of its own; call it before JAX starts (before the first array).

    One vmapped program of small matrices keeps one core busy; a sweep over n host devices keeps n.

    XLA's pool gets at least two threads for each device (`PJRT_NPROC`, unless `NPROC` is set). With as many threads as
    devices, programs with batched decompositions (`jnp.linalg.svd`, `solve`, `qr`, `eig`) may wait for ever: each call
    keeps a thread of the pool and waits there for others to do its pieces. The library that does these small
    decompositions gets one thread (`OPENBLAS_NUM_THREADS`, unless it is set): threads of its own, beside a device for
    every core, make them many times slower.

    **Arguments**: `count`, the number of host devices; the cores that this process may use by default.

    **Returns** the number of devices asked for.

    **Raises** `RuntimeError` when JAX has already started with another number of host devices, `ValueError` for a
    count that is not whole or below 1.

    >>> use_all_cores(0)
    Traceback (most recent call last):
    ValueError: count must be a whole number and at least 1, got 0
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = available if count is None else count
    if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"count must be a whole number and at least 1, got {count!r}")
    count = int(count)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if jax.default_backend() == "cpu" and jax.local_device_count() == count:
            return count
        raise RuntimeError(
            f"use_all_cores({count}) came too late: JAX has already started with {jax.local_device_count()} "
            f"{jax.default_backend()} device(s). Call it before the first JAX array or jit."
        ) from error
    if "NPROC" not in os.environ:
        given = os.environ.get("PJRT_NPROC", "")  # of an earlier call, or of the process that started this one
        threads = max(available, 2 * count, int(given) if given.isdigit() else 0)
        os.environ["PJRT_NPROC"] = str(threads)  # read when JAX starts
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read at the first decomposition
    return count


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the runs of a sweep lie on the devices: padded to full groups of `lanes`, the groups dealt like cards."""

    devices: tuple[Device, ...]
    lanes: int
    runs: int

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        """The devices in a row; its one axis is "runs"."""
        return jax.sharding.Mesh(np.asarray(self.devices), ("runs",))

    @functools.cached_property
    def sharding(self) -> NamedSharding:
        """Of arrays `[padded, ...]`."""
        return NamedSharding(self.mesh, P("runs"))

    @functools.cached_property
    def replicated(self) -> NamedSharding:
        """Of arrays that every device has whole."""
        return NamedSharding(self.mesh, P())

    @property
    def padded(self) -> int:
        """Rows on the run axis: the runs, filled up to whole groups on every device."""
        width = self.lanes * len(self.devices)
        return -(-self.runs // width) * width

    @property
    def key(self) -> tuple[Any, ...]:
        """What a compiled program depends on."""
        return tuple((d.platform, d.id) for d in self.devices), self.lanes, self.padded

    @functools.cached_property
    def processes(self) -> Processes:
        """Those that hold the devices."""
        count = len({d.process_index for d in self.devices})
        return Processes(count, jax.process_index()) if count > 1 else Processes()

    def groups(self, count: int) -> Any:
        """How many groups each device must compute when `count` runs are left, as an array on all devices."""
        return self.share(np.int32(-(-count // (self.lanes * len(self.devices)))))

    def spots(self, count: int) -> np.ndarray:
        """Where the first `count` runs lie on the run axis."""
        return positions(count, self.padded, self.lanes, len(self.devices))

    def sources(self, active: np.ndarray) -> np.ndarray:
        """Which run lies where on the run axis. Padding repeats the last: every group is full of real runs."""
        source = np.empty(self.padded, int)
        source[self.spots(self.padded)] = np.pad(active, (0, self.padded - len(active)), "edge")
        return source

    def place(self, tree: PyTree) -> Any:
        """Host arrays `[padded, ...]` on the devices."""
        return jax.tree.map(lambda x: _put(x, self.sharding, self.processes.count), tree)

    def share(self, tree: PyTree) -> Any:
        """Host arrays, whole on every device."""
        return jax.tree.map(lambda x: _put(x, self.replicated, self.processes.count), tree)

    def fetch(self, tree: PyTree, count: int) -> Any:
        """The first `count` runs of device arrays `[padded, ...]`, as host arrays, in every process."""
        spots = self.spots(count)
        return jax.tree.map(lambda x: x[spots], self.processes.gather_rows(tree))

    def fetch_own(self, tree: PyTree, count: int) -> tuple[np.ndarray, Any]:
        """Which of the first `count` runs lie on this process's devices, and their rows; nothing is sent."""
        if self.processes.count == 1:
            return np.arange(count), self.fetch(tree, count)
        size = self.padded // len(self.devices)
        mine = [i for i, d in enumerate(self.devices) if d.process_index == jax.process_index()]
        spots = self.spots(count)
        own = np.flatnonzero(np.isin(spots // size, mine))

        def take(x):
            shards = {shard.index[0].start or 0: np.asarray(shard.data) for shard in x.addressable_shards}
            taken = [shards[spot // size * size][spot % size] for spot in spots[own]]
            return np.stack(taken) if taken else np.zeros((0, *x.shape[1:]), x.dtype)

        return own, jax.tree.map(take, tree)


def _put(x: Any, sharding: NamedSharding, processes: int) -> Any:
    if processes == 1:
        return jax.device_put(x, sharding)
    x = np.asarray(x, jax.dtypes.canonicalize_dtype(np.asarray(x).dtype))
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def positions(count: int, padded: int, lanes: int, devices: int) -> np.ndarray:
    """Where the first `count` runs lie on the run axis: groups are dealt to the devices in turn, like cards."""
    groups = np.arange(padded // lanes)
    per_device = len(groups) // devices
    start = (groups % devices) * per_device + groups // devices
    return (start[:, None] * lanes + np.arange(lanes)).reshape(-1)[:count]
