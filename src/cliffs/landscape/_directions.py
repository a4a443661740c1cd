"""Directions in parameter space to cut a slice along, and training paths seen on such a slice.

A direction is any pytree like the parameters. The constructors here give the usual ones, each a single direction; of
the stacked `vectors` that `cliffs.curvature.eigenpairs` returns `jax.tree.map(lambda v: v[i], pairs.vectors)` is one.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree

from cliffs._losses import scalar
from cliffs._paths import Path, get_parameter, set_parameter
from cliffs.clipping import tree_norm
from cliffs.curvature import eigenpairs, hessian_operator
from cliffs.typing import Objective


class PathDirections(NamedTuple):
    """The principal directions of a path of parameters."""

    directions: tuple[PyTree, ...]
    """Orthonormal, the one that explains most first."""
    center: PyTree
    """The parameters that the path's displacements were taken from: the point through which a slice should go."""
    explained: Float[Array, " num"]
    """Each direction's share of the sum of squared displacements."""


class PathProjection(NamedTuple):
    """A path of parameters seen on a slice."""

    coordinates: Float[Array, "steps num"]
    """Offsets along each direction, by least squares (the directions need not be orthogonal)."""
    residual: Float[Array, " steps"]
    """Euclidean distance from the slice: what the picture does not show."""


def along(loss: Objective, params: PyTree, direction: PyTree) -> Callable[[Array], Array]:
    """The loss on a line, `s -> E(params + s d)`, in the dtype of `params`.

    >>> float(along(lambda p: p["a"] ** 2, {"a": 1.0}, {"a": 2.0})(1.5))
    16.0
    """
    move = shift(params, [direction])
    return lambda s: scalar(loss)(move(jnp.asarray(s)[None]))


def shift(params: PyTree, directions: Sequence[PyTree]) -> Callable[[Array], PyTree]:
    """`(s_1, .., s_k) -> params + sum_i s_i d_i`; the result keeps the dtype of `params`.

    **Raises** `ValueError` for a direction of another structure or shape, or parameters that are not floating point.

    >>> shift(jnp.zeros(2), [jnp.array([1.0, 2.0])])(jnp.array([3.0])).tolist()
    [3.0, 6.0]
    """
    _check_numbers(params, "params")
    params = jax.tree.map(jnp.asarray, params)
    for leaf in jax.tree.leaves(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"params must hold real floating-point numbers only, got a leaf of dtype {leaf.dtype}")
    for i, direction in enumerate(directions):
        _check_numbers(direction, f"directions[{i}]")
        if jax.tree.structure(direction) != jax.tree.structure(params):
            raise ValueError(f"directions[{i}] must have the structure of params, got {jax.tree.structure(direction)}")
        for d, p in zip(jax.tree.leaves(direction), jax.tree.leaves(params)):
            if jnp.shape(d) != p.shape:
                raise ValueError(f"directions[{i}] must have the shapes of params, got {jnp.shape(d)} for {p.shape}")

    def move(p, point, *ds):
        return p + sum(point[i].astype(p.dtype) * jnp.asarray(d, p.dtype) for i, d in enumerate(ds))

    return lambda point: jax.tree.map(lambda p, *ds: move(p, point, *ds), params, *directions)


def _check_numbers(tree: PyTree, name: str) -> None:
    """Raise `ValueError` for a leaf that is no array of numbers."""
    for leaf in jax.tree.leaves(tree):
        kind = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
        if not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
            raise ValueError(f"{name} must hold arrays of numbers only, got a leaf {leaf!r}")


def parameter_direction(params: PyTree, path: Path) -> PyTree:
    """The unit direction of one scalar parameter, named by its path.

    **Arguments**: `params`; `path`, a field, key or index, or a tuple of them from the outside in.

    **Raises** `ValueError` for a path that does not exist or does not end at a scalar.

    >>> from cliffs.recurrent import OneUnitParams
    >>> float(parameter_direction(OneUnitParams(5.0, -2.0), "b").b)
    1.0
    """
    params = jax.tree.map(jnp.asarray, params)
    one = jnp.ones_like(get_parameter(params, path))
    return set_parameter(jax.tree.map(jnp.zeros_like, params), path, one)


def random_direction(
    key: Key[Array, ""],
    params: PyTree,
    *,
    normalize: Literal["leaf", "filter", "global"] = "leaf",
    select: Callable[[str], bool] | None = None,
) -> PyTree:
    """A Gaussian direction scaled to the size of the parameters, `d <- d ||p|| / ||d||` group by group.

    **Arguments**

    - `key`: a `jax.random.key`.
    - `params`: any pytree of floating-point arrays; each leaf of the direction has its leaf's dtype.
    - `normalize`: what a group is. `"leaf"`: each array. `"filter"`: each unit's incoming weights, which with
      `inputs @ w` are the last axis' slices `w[..., j]`; vectors and scalars have no filters and count as leaves.
      `"global"`: the whole tree, or what of it is selected.
    - `select`: `select(path) -> bool`, with the path of a leaf as in `"layer/bias"`: the leaves to move; the others get
      a zero direction. Slices of loss landscapes usually leave out biases and the parameters of normalisation. All by
      default.

    **Returns** a pytree like `params`. With `"leaf"` and `"filter"` a group that is zero, such as a fresh bias, gets
    a zero direction, as in the source; `"global"` moves it.

    **Raises** `ValueError` for another `normalize`, a `select` that finds no leaf, or selected leaves that are not
    floating point.

    Source: Li, Xu, Taylor, Studer & Goldstein (2018), Visualizing the loss landscape of neural nets, section 4.

    >>> d = random_direction(jax.random.key(0), {"w": 3.0 * jnp.ones(4)})
    >>> round(float(jnp.linalg.norm(d["w"])), 4)
    6.0
    >>> params = {"w": jnp.ones(4), "bias": jnp.ones(2)}
    >>> random_direction(jax.random.key(0), params, select=lambda path: "bias" not in path)["bias"].tolist()
    [0.0, 0.0]
    """
    typed = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if np.shape(key) != (() if typed else (2,)):
        raise ValueError(f"key must be one jax.random.key, got {key!r}")
    _check_numbers(params, "params")
    if select is not None and not callable(select):
        raise ValueError(f"select must be a function of a leaf's path, or None, got {select!r}")
    if normalize not in ("leaf", "filter", "global"):
        raise ValueError(f"normalize must be 'leaf', 'filter' or 'global', got {normalize!r}")
    found, tree = jax.tree_util.tree_flatten_with_path(jax.tree.map(jnp.asarray, params))
    names, leaves = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found], [p for _, p in found]
    chosen = [select is None or bool(select(name)) for name in names]
    if leaves and not any(chosen):
        raise ValueError(f"select finds no leaf among {names}")
    for name, p, moves in zip(names, leaves, chosen):
        if moves and not jnp.issubdtype(p.dtype, jnp.floating):
            raise ValueError(
                f"params must hold real floating-point numbers where they move, got {name!r} of dtype {p.dtype}: leave "
                "it out by select"
            )
    keys = jax.random.split(key, max(len(leaves), 1))
    noise = [
        jax.random.normal(k, p.shape, p.dtype) if moves else jnp.zeros_like(p)
        for k, p, moves in zip(keys, leaves, chosen)
    ]
    if normalize == "global":
        moved = [p for p, moves in zip(leaves, chosen) if moves]
        ratio = tree_norm(moved).value / tree_norm(noise).value
        return tree.unflatten([d * ratio.astype(d.dtype) for d in noise])

    def rescale(d, p):
        axes = tuple(range(p.ndim - 1)) if normalize == "filter" and p.ndim > 1 else None
        size = jnp.sqrt(jnp.sum(d * d, axes, keepdims=True))
        # Divided by the largest entry first: the squares of large or small parameters leave the range of float32.
        largest = jnp.max(jnp.abs(p), axes, keepdims=True, initial=0)
        largest = jnp.where(largest > 0, largest, 1)
        length = largest * jnp.sqrt(jnp.sum((p / largest) ** 2, axes, keepdims=True))
        return d / jnp.where(size > 0, size, 1) * length

    return tree.unflatten([rescale(d, p).reshape(p.shape) for d, p in zip(noise, leaves)])


def gradient_direction(loss: Objective, params: PyTree) -> PyTree:
    """The unit vector uphill, `grad E / ||grad E||`; zero where the gradient is zero.

    **Raises** `ValueError` for parameters without entries.

    >>> gradient_direction(lambda p: jnp.sum(p**2), jnp.array([3.0, 4.0])).tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if not jax.tree.leaves(params):
        raise ValueError(f"params must hold at least one array, got {params}")
    grads = jax.grad(scalar(loss))(jax.tree.map(jnp.asarray, params))
    # Scaled by the largest entry first: squares of an exploding gradient overflow long before it does itself.
    largest = jnp.stack([jnp.max(jnp.abs(g), initial=0) for g in jax.tree.leaves(grads)]).max()
    grads = jax.tree.map(lambda g: g / jnp.where(largest > 0, largest, 1).astype(g.dtype), grads)
    norm = optax.tree.norm(grads)
    return jax.tree.map(lambda g: g / jnp.where(norm > 0, norm, 1).astype(g.dtype), grads)


def eigenvector_direction(
    loss: Objective,
    params: PyTree,
    key: Key[Array, ""],
    *,
    which: Literal["largest", "smallest"] = "largest",
    num_iterations: int = 40,
) -> PyTree:
    """The unit eigenvector `v` of the Hessian, `H v = lambda v`, for its largest or smallest eigenvalue.

    **Arguments**: `loss(params) -> scalar`; where the Hessian is taken; the `jax.random.key` of the start vector of the
    Lanczos iteration; `which` end of the spectrum; `num_iterations`, as of `cliffs.curvature.eigenpairs`, which also
    tells whether the pair converged.

    **Returns** a pytree like `params` (its sign is arbitrary).

    **Raises** `ValueError` for another `which`, and what `eigenpairs` raises.

    >>> bowl = lambda p: 5 * p["a"] ** 2 + jnp.sum(p["b"] ** 2)
    >>> v = eigenvector_direction(bowl, {"a": 0.0, "b": jnp.ones(2)}, jax.random.key(0))
    >>> round(abs(float(v["a"])), 4)
    1.0
    """
    if which not in ("largest", "smallest"):
        raise ValueError(f"which must be 'largest' or 'smallest', got {which!r}")
    params = jax.tree.map(jnp.asarray, params)
    ends = {"num_leading": int(which == "largest"), "num_trailing": int(which == "smallest")}
    pairs = eigenpairs(hessian_operator(loss, params), params, key, **ends, num_iterations=num_iterations)
    return jax.tree.map(lambda v: v[0], pairs.vectors)


def pca_directions(path: PyTree, num: int = 2, *, center: Literal["last", "mean"] = "last") -> PathDirections:
    """The directions in which a path of parameters moves most: right singular vectors of its displacements.

    **Arguments**

    - `path`: parameters with a leading axis of steps, such as `DescentPath.params`; at least `num + 1` steps.
    - `num`: how many directions.
    - `center`: displacements from the `"last"` point, as in the source, or from the `"mean"`.

    **Returns** `PathDirections`. Pure; needs memory for one copy of the path. A path that does not move in so many
    directions has an arbitrary one for each that is missing, with `explained` 0.

    **Raises** `ValueError` for `num` below 1, not below the number of steps or above the number of parameters, or
    another `center`, or parameters that are not floating point.

    Source: Li et al. (2018), section 7.2.

    >>> steps = jnp.array([[0.0, 0.0], [1.0, 0.1], [2.0, 0.0]])
    >>> abs(pca_directions(steps, 1).directions[0]).round(1).tolist()
    [1.0, 0.0]
    """
    leaves = jax.tree.leaves(path)
    steps = jnp.shape(leaves[0])[0] if leaves and jnp.ndim(leaves[0]) else 0
    if not isinstance(num, int | np.integer) or not 1 <= num < max(steps, 1):
        raise ValueError(f"num must be at least 1 and below the path's number of points, got {num!r} and {steps}")
    size = sum(int(np.prod(jnp.shape(x)[1:])) for x in leaves)
    if num > size:
        raise ValueError(f"num must be at most the number of parameters, got {num} for {size}")
    for leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(f"path must hold floating-point numbers only, got a leaf of dtype {jnp.result_type(leaf)}")
    if center not in ("last", "mean"):
        raise ValueError(f"center must be 'last' or 'mean', got {center!r}")
    middle = jax.tree.map(lambda x: x[-1] if center == "last" else x.mean(0), path)
    unravel = ravel_pytree(middle)[1]
    moves = jax.vmap(lambda p: ravel_pytree(p)[0])(jax.tree.map(lambda x, m: x - m, path, middle))
    scale = jnp.max(jnp.abs(moves))
    _, sizes, vectors = jnp.linalg.svd(moves / jnp.where(scale > 0, scale, 1), full_matrices=False)
    total = jnp.sum(sizes**2)
    explained = sizes[:num] ** 2 / jnp.where(total > 0, total, 1)
    return PathDirections(tuple(unravel(v) for v in vectors[:num]), middle, explained)


def check_independent(directions: Sequence[PyTree]) -> None:
    """Raise `ValueError` for directions that are zero or, to rounding, parallel; traced ones pass unseen.

    >>> check_independent([jnp.array([1.0, 0.0]), jnp.array([0.0, 1e-9])])
    """
    leaves = jax.tree.leaves(directions)
    if not directions or any(isinstance(x, Tracer) for x in leaves):
        return
    flat = np.stack(
        [np.concatenate([np.ravel(np.asarray(x, float)) for x in jax.tree.leaves(d)]) for d in directions], 1
    )
    # Each against its own length: a short direction is no worse than a long one.
    largest = np.abs(flat).max(0, initial=0)
    scaled = flat / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(scaled, axis=0)
    own = np.diagonal(np.linalg.qr(scaled / np.where(length > 0, length, 1), mode="r"))
    types = [x.dtype for x in leaves if jnp.issubdtype(jnp.result_type(x), jnp.floating) and hasattr(x, "dtype")]
    eps = max((float(jnp.finfo(t).eps) for t in types), default=float(np.finfo(float).eps))
    if len(own) < len(directions) or not (np.abs(own) > 100 * eps).all():
        raise ValueError(
            "directions must be non-zero and linearly independent, got (of unit vectors) a QR diagonal of "
            f"{np.abs(own).tolist()}"
        )


def project_path(path: PyTree, params: PyTree, directions: Sequence[PyTree]) -> PathProjection:
    """Where a path of parameters runs on the slice `params + sum_i s_i d_i`, and how far away from it.

    **Arguments**: `path` with a leading axis of steps; the slice's `params` and `directions`.

    **Returns** `PathProjection`, by a QR decomposition of the directions.

    **Raises** `ValueError` for directions that are (numerically) parallel or zero, where this is known before
    tracing.

    >>> seen = project_path(jnp.array([[1.0, 2.0, 3.0]]), jnp.zeros(3), list(jnp.eye(3)[:2]))
    >>> seen.coordinates.tolist(), seen.residual.tolist()
    ([[1.0, 2.0]], [3.0])
    """
    shift(params, directions)  # its checks
    check_independent(directions)
    flat = jnp.stack([ravel_pytree(d)[0] for d in directions], 1)
    q, r = jnp.linalg.qr(flat)
    moves = jax.vmap(lambda p: ravel_pytree(p)[0])(jax.tree.map(lambda x, p: x - p, path, params))
    inside = moves @ q
    coordinates = jax.scipy.linalg.solve_triangular(r, inside.T).T
    return PathProjection(coordinates, jnp.linalg.norm(moves - inside @ q.T, axis=1))
