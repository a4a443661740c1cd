"""A function of one run, or of one point, over many of them: spread over the devices, a fixed number side by side."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

# jaxlib does not tell a type checker what this class is.
if TYPE_CHECKING:
    Device: TypeAlias = Any
else:
    Device = jax.Device


def over_devices(
    function: Callable[..., PyTree], *, lanes: int | None = None, devices: Sequence[Device] | None = None
) -> Callable[..., PyTree]:
    """`function` of one run becomes a function of many: `[f(run) for run in runs]`, spread over the devices.

    Every device takes an equal share of the runs, one after another or `lanes` at a time. On a CPU, where a program of
    small matrices keeps one core busy, n host devices (`cliffs.sweeps.use_all_cores`) do the work in an n-th of the
    time. The number of lanes is fixed, and the last ones are filled up with copies of the last run, so the rounding of
    a run does not depend on how many others there are.

    **Arguments**

    - `function`: takes one run: its arguments are pytrees without the run axis.
    - `lanes`: how many runs are computed side by side by `vmap` on each device; None is one at a time without `vmap`,
      which leaves branches and loops as they are.
    - `devices`: all local ones by default. With one device no mesh is made.

    **Returns** a function of the same arguments with a leading axis `[runs, ...]` on every leaf; so has its result.
    `jit` it where it is called more than once.

    **Raises** `ValueError` for no devices, what is no device, or `lanes` below 1; when called, for arguments without a
    common leading axis.

    >>> square = jax.jit(over_devices(lambda x, y: x * x + y))
    >>> square(jnp.arange(3.0), jnp.ones(3)).tolist()
    [1.0, 2.0, 5.0]
    """
    devices = jax.local_devices() if devices is None else check_devices(devices)
    if lanes is not None and (not isinstance(lanes, int | np.integer) or lanes < 1):
        raise ValueError(f"lanes must be a whole number and at least 1, or None for one run at a time, got {lanes!r}")
    width = 1 if lanes is None else lanes

    def one_group(group):  # leaves [width, ...]
        if lanes is None:
            one = function(*jax.tree.map(lambda x: x[0], group))
            return jax.tree.map(lambda x: jnp.asarray(x)[None], one)
        return jax.vmap(function)(*group)

    def share(groups):  # leaves [groups of this device, width, ...]
        return jax.lax.map(one_group, groups)

    spread = share
    if len(devices) > 1:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("runs",))
        spec = PartitionSpec("runs")
        # Carries that start as constants vary over the devices later on; the check would ask for a cast of each.
        spread = jax.jit(jax.shard_map(share, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))

    def every(*runs):
        count = _count(runs)
        groups = -(-count // (width * len(devices))) * len(devices)

        def fill(x):
            x = jnp.asarray(x)
            rest = x[-1:].repeat(groups * width - count, 0)
            return jnp.concatenate([x, rest]).reshape(groups, width, *x.shape[1:])

        out = spread(jax.tree.map(fill, runs))
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], out)

    return every


def check_devices(devices: Any) -> tuple[Device, ...]:
    """Some devices as a tuple.

    **Raises** `ValueError` for none, for what is no sequence of devices, or one that is named twice.
    """
    if isinstance(devices, str) or not isinstance(devices, Iterable):
        raise ValueError(f"devices must be a sequence of devices such as jax.devices(), got {devices!r}")
    found = tuple(devices)
    if not found:
        raise ValueError("devices must name at least one device, got none")
    for device in found:
        if not isinstance(device, jax.Device):
            raise ValueError(f"devices must be a sequence of devices such as jax.devices(), it holds {device!r}")
    if len(set(found)) < len(found):
        raise ValueError(f"devices must name each device once, got {devices!r}")
    return found


def _count(runs: PyTree) -> int:
    """The common length of the leading axis."""
    sizes = {np.shape(x)[0] if np.ndim(x) else None for x in jax.tree.leaves(runs)}
    (size,) = sizes if len(sizes) == 1 else (None,)
    if not size:
        raise ValueError(f"every argument must have one common, non-empty leading axis, got sizes {sizes}")
    return size
