"""Error surfaces: the loss and its gradient norm on one- and two-dimensional slices, and descent paths on them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Key, PyTree

from cliffs.training import init_train_state, train_step


class Surface(NamedTuple):
    """A loss on a grid of offsets along one or two directions."""

    offsets: tuple[Float[Array, " points"], ...]
    """The grid's coordinates along each direction."""
    loss: Float[Array, "..."]
    """`[points]` or `[points, points]`, first direction first."""
    grad_norm: Float[Array, "..."] | None
    """The norm of the loss's gradient with respect to *all* parameters; None when not asked for."""


class DescentPath(NamedTuple):
    """The points that an optimiser visits, the start first."""

    params: PyTree
    """Leaves `[steps + 1, ...]`."""
    loss: Float[Array, " steps"]
    """The loss before each step."""
    grad_norm: Float[Array, " steps"]
    """The gradient's norm before each step, before any clipping."""
    diverged_at: Array
    """The first step that led to a value that is not finite; -1 if none did."""


def surface(
    loss: Callable[[Any], Array],
    params: PyTree,
    directions: Sequence[PyTree],
    offsets: Sequence[Float[Array, " points"]],
    *,
    gradient: bool = True,
    batch_size: int = 256,
) -> Surface:
    """`E(params + a d_1 + b d_2)` on the grid of all `(a, b)`, and `||grad E||` there.

    **Arguments**

    - `loss`: `loss(params) -> scalar`.
    - `params`: where the slice goes through, any pytree; its dtype is the precision.
    - `directions`: one or two pytrees like `params`.
    - `offsets`: one array of coordinates for each direction.
    - `gradient`: whether the gradient norm is wanted; without it only the loss is evaluated.
    - `batch_size`: points evaluated side by side; the memory needed is that of so many unrolls.

    **Returns** a `Surface`.

    **Raises** `ValueError` for other than one or two directions, or a direction that is not like `params`.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 3.

    >>> bowl = lambda p: jnp.sum(p**2)
    >>> s = surface(bowl, jnp.zeros(2), [jnp.array([1.0, 0.0])], [jnp.array([0.0, 3.0])])
    >>> s.loss.tolist(), s.grad_norm.tolist()
    ([0.0, 9.0], [0.0, 6.0])
    """
    if len(directions) not in (1, 2) or len(offsets) != len(directions):
        raise ValueError(f"directions and offsets must be 1 or 2 each, got {len(directions)} and {len(offsets)}")
    for i, direction in enumerate(directions):
        if jax.tree.structure(direction) != jax.tree.structure(params):
            raise ValueError(f"directions[{i}] must have the structure of params, got {jax.tree.structure(direction)}")
    axes = tuple(jnp.asarray(o) for o in offsets)
    grid = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))

    def at(point):
        def move(p, *ds):
            return p + sum(point[i] * d for i, d in enumerate(ds))

        here = jax.tree.map(move, params, *directions)
        if not gradient:
            return loss(here), None
        value, grads = jax.value_and_grad(loss)(here)
        return value, optax.tree.norm(grads)

    values, norms = jax.lax.map(at, grid, batch_size=min(batch_size, len(grid)))
    shape = tuple(len(a) for a in axes)
    return Surface(axes, values.reshape(shape), None if norms is None else norms.reshape(shape))


def parameter_direction(params: PyTree, path: Any) -> PyTree:
    """The unit direction of one scalar parameter, named by its path.

    >>> from cliffs.maps import OneUnitParams
    >>> parameter_direction(OneUnitParams(5.0, -2.0), "b")
    OneUnitParams(w=Array(0., dtype=float32...), b=1.0)
    """
    from cliffs.dynamics._parameter import set_parameter

    return set_parameter(jax.tree.map(lambda p: jnp.zeros_like(jnp.asarray(p)), params), path, 1.0)


def random_direction(key: Key[Array, ""], params: PyTree) -> PyTree:
    """A Gaussian direction with every leaf scaled to the norm of the parameters' leaf.

    Source: Li et al. (2018), Visualizing the loss landscape of neural nets (leaf- in place of filter-wise).

    >>> d = random_direction(jax.random.key(0), {"w": 3.0 * jnp.ones(4)})
    >>> round(float(jnp.linalg.norm(d["w"])), 4)
    6.0
    """
    leaves, tree = jax.tree.flatten(params)
    noise = [jax.random.normal(k, jnp.shape(p)) for k, p in zip(jax.random.split(key, len(leaves)), leaves)]
    scaled = [d * jnp.linalg.norm(jnp.ravel(p)) / jnp.linalg.norm(jnp.ravel(d)) for d, p in zip(noise, leaves)]
    return jax.tree.unflatten(tree, scaled)


def descend(
    loss: Callable[[Any], Array], params: PyTree, optimizer: optax.GradientTransformation, num_steps: int
) -> DescentPath:
    """The path of an optimiser on a fixed surface; pure, so starts, rates and thresholds can be vmapped.

    **Arguments**: `loss(params) -> scalar`; the start; any optax chain; the number of steps.

    **Returns** a `DescentPath`; a path that diverges stays where it last was finite.

    >>> path = descend(lambda p: jnp.sum(p**2), jnp.ones(1), optax.sgd(0.25), 2)
    >>> path.params.ravel().tolist()
    [1.0, 0.5, 0.25]
    """
    params = jax.tree.map(jnp.asarray, params)

    def body(state, _):
        new, metrics = train_step(state, None, lambda p, _: (loss(p), ()), optimizer)
        return new, (new.params, metrics.loss, metrics.grad_norm)

    final, (points, losses, norms) = jax.lax.scan(body, init_train_state(params, optimizer), length=num_steps)
    points = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), params, points)
    return DescentPath(points, losses, norms, final.diverged_at)
