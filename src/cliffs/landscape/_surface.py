"""Error surfaces: loss, gradient norm and an optimiser's step on one- and two-dimensional slices of any loss."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from cliffs._devices import Device, over_devices
from cliffs._losses import scalar
from cliffs.clipping import tree_norm
from cliffs.landscape._directions import check_independent, shift
from cliffs.typing import Objective


class Surface(NamedTuple):
    """A loss on a grid of offsets along one or two directions; `...` is `[points]` or `[points, points]`."""

    offsets: tuple[Float[Array, " _"], ...]
    """The grid's coordinates along each direction."""
    loss: Float[Array, "..."]
    """First direction first."""
    grad_norm: Float[Array, "..."] | None
    """The norm of the loss's gradient with respect to *all* parameters; None when not asked for."""
    slopes: Float[Array, "... directions"] | None = None
    """The derivative of the loss along each direction, `<grad E, d_i>`; None when not asked for."""
    step: Float[Array, "... directions"] | None = None
    """The optimiser's first step from each point, in coordinates of the slice (its projection on the slice)."""
    step_norm: Float[Array, "..."] | None = None
    """The full length of that step, off the slice included."""


def surface(
    loss: Objective,
    params: PyTree,
    directions: Sequence[PyTree],
    offsets: Sequence[Float[Array | np.ndarray, " _"]],
    *,
    gradient: bool = True,
    optimizer: optax.GradientTransformation | None = None,
    chunk_size: int = 256,
    devices: Sequence[Device] | None = None,
) -> Surface:
    """`E(params + a d_1 + b d_2)` on the grid of all `(a, b)`, and `||grad E||` there.

    **Arguments**

    - `loss`: `loss(params) -> scalar`; `cliffs.training.at_batch` makes one of a training loss.
    - `params`: the point through which the slice goes, any pytree; its dtype is the precision.
    - `directions`: one or two pytrees like `params`, from `cliffs.landscape` or any other.
    - `offsets`: one array of coordinates for each direction.
    - `gradient`: whether gradient norm and slopes are wanted; without them only the loss is evaluated.
    - `optimizer`: any optax chain; its first step from a fresh state is wanted at every point. With
      `optax.chain(optax.clip_by_global_norm(c), optax.sgd(lr))` that is the field of clipped steps.
    - `chunk_size`: points evaluated side by side; the memory needed is that of so many unrolls. For a recurrent
      network on a CPU 1 is fastest (its states then stay in the cache), for a map of a few units the default.
    - `devices`: spread the points over these devices, each doing `chunk_size` at a time; the default device only
      when None.

    **Returns** a `Surface`. Where the loss is not finite, so are the numbers there; nothing is replaced. Pure, except
    that it places data when `devices` are given: `jit` it where it is called more than once.

    **Raises** `ValueError` for other than one or two directions, a direction that is not like `params`, empty offsets,
    no devices, directions that are zero or parallel where steps are wanted (under tracing these steps are NaN), or
    parameters that are not floating point.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 3.

    >>> bowl = lambda p: jnp.sum(p**2)
    >>> s = surface(bowl, jnp.zeros(2), [jnp.array([1.0, 0.0])], [jnp.array([0.0, 3.0])])
    >>> s.loss.tolist(), s.grad_norm.tolist()
    ([0.0, 9.0], [0.0, 6.0])
    """
    if len(directions) not in (1, 2) or len(offsets) != len(directions):
        raise ValueError(f"directions and offsets must be 1 or 2 each, got {len(directions)} and {len(offsets)}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    move = shift(params, directions)
    axes = tuple(jnp.asarray(o) for o in offsets)
    for i, axis in enumerate(axes):
        if axis.ndim != 1 or not axis.size:
            raise ValueError(f"offsets[{i}] must be a non-empty array [points], got shape {axis.shape}")
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    first_step = None if optimizer is None else _first_step(optimizer, directions)

    def at(point):
        here = move(point)
        if not gradient and first_step is None:
            return {"loss": scalar(loss)(here)}
        value, grads = jax.value_and_grad(scalar(loss))(here)
        slopes = jnp.stack([optax.tree.vdot(grads, d) for d in directions])
        out = {"loss": value, "grad_norm": tree_norm(grads).value, "slopes": slopes}
        out = out if first_step is None else out | first_step(here, value, grads)
        # A derivative can have a value where the loss itself has none.
        return {k: jnp.where(jnp.isfinite(value), v, jnp.nan) for k, v in out.items()} | {"loss": value}

    shape = tuple(len(a) for a in axes)
    out = {k: v.reshape(*shape, *v.shape[1:]) for k, v in map_points(at, grid, chunk_size, devices).items()}
    return Surface(axes, out.pop("loss"), out.pop("grad_norm", None), **out)


def _first_step(
    optimizer: optax.GradientTransformation, directions: Sequence[PyTree]
) -> Callable[[PyTree, Array, PyTree], dict[str, Array]]:
    """`(params, loss, gradient)` to the first step from there: its coordinates on the slice, and its full length."""
    check_independent(directions)
    lengths = jnp.stack([tree_norm(jax.tree.map(jnp.asarray, d)).value for d in directions])
    units = [jax.tree.map(lambda x, n=n: x / n, d) for d, n in zip(directions, lengths)]
    # Least squares on at most two directions: the normal equations of the unit vectors are the short way.
    gram = jnp.stack([jnp.stack([optax.tree.vdot(d, e) for e in units]) for d in units])
    extra = optax.with_extra_args_support(optimizer)

    def step(params, loss, gradient):
        update, _ = extra.update(gradient, extra.init(params), params, value=loss)
        seen = jnp.stack([optax.tree.vdot(update, d) for d in units])
        return {"step": jnp.linalg.solve(gram, seen) / lengths, "step_norm": tree_norm(update).value}

    return step


def map_points(
    function: Callable[[PyTree], PyTree], points: PyTree, chunk_size: int, devices: Sequence[Device] | None = None
) -> PyTree:
    """`function` at every entry of the leading axis of `points`, `chunk_size` of them at a time on each device.

    >>> map_points(lambda x: x * x, jnp.arange(3.0), 2).tolist()
    [0.0, 1.0, 4.0]
    """
    count = jax.tree.leaves(points)[0].shape[0]
    devices = jax.local_devices()[:1] if devices is None else devices
    # A last group that is not full would be computed at the full width: as many groups, each as narrow as possible.
    groups = max(1, -(-count // (chunk_size * max(1, len(devices)))))
    lanes = -(-count // (groups * max(1, len(devices))))
    return over_devices(function, lanes=lanes, devices=devices)(points)
