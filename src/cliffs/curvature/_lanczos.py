"""Lanczos tridiagonalisation of a symmetric operator on vectors, with full re-orthogonalisation and restarts.

`matfree` has the same factorisation, but divides by zero where the Krylov space is exhausted (a zero Hessian, an
eigenvalue of high multiplicity), and a Hessian of a loss of exploding gradients leaves the range in which float32
can square its entries. Both are ordinary here, so the forty lines are ours; the tests compare the two.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Key, PyTree

Operator = Callable[[PyTree], PyTree]
"""`matvec(vector) -> vector` on pytrees of one structure, symmetric and linear."""


class Tridiagonal(NamedTuple):
    """`basis A basis^T = T` with `T` tridiagonal; the rows of `basis` are orthonormal."""

    diagonal: Float[Array, " steps"]
    off_diagonal: Float[Array, " steps"]
    """`off_diagonal[j]` links steps j and j + 1; the last entry is the norm of what the basis does not hold."""
    basis: Float[Array, "steps n"]
    restarts: Int[Array, ""]
    """How often the Krylov space was exhausted and a fresh random vector started a new one."""


def tridiagonalise(matvec: Operator, start: Float[Array, " n"], key: Key[Array, ""], num_steps: int) -> Tridiagonal:
    """`num_steps` (at most n) steps of Lanczos from `start`.

    An exhausted Krylov space (its remainder is below rounding) is left with a random vector orthogonal to it and an
    off-diagonal of exactly 0: T falls into blocks whose eigenvalues are all eigenvalues of A, so multiplicities are
    found too, and quadrature weights of `start` in the later blocks are 0.

    >>> t = tridiagonalise(lambda v: 2.0 * v, jnp.ones(3), jax.random.key(0), 5)
    >>> [round(float(x), 4) for x in t.diagonal], int(t.restarts)
    ([2.0, 2.0, 2.0], 2)
    """
    size, dtype = start.size, start.dtype
    steps = min(num_steps, size)
    eps = jnp.finfo(dtype).eps

    def orthogonalise(basis, w):
        # Twice is enough (Parlett): the second pass removes what rounding left of the first.
        for _ in range(2):
            w = w - product(product(basis, w), basis)
        return w

    def body(j, carry):
        diagonal, off_diagonal, basis, scale, restarts = carry
        q = basis[j]
        w = matvec(q)
        scale = jnp.maximum(scale, safe_norm(w))
        alpha = product(q, w)
        w = orthogonalise(basis, w)
        beta = safe_norm(w)
        exhausted = beta <= eps * scale  # False for NaN, which then shows in every later number

        def restart():
            fresh = orthogonalise(basis, jax.random.normal(jax.random.fold_in(key, j), (size,), dtype))
            return unit(orthogonalise(basis, unit(fresh))), jnp.zeros((), dtype)

        # The row after the last (j + 1 = size) spans nothing; unit() leaves it near zero and nobody reads it.
        following, beta = jax.lax.cond(exhausted, restart, lambda: (w / jnp.where(beta > 0, beta, 1), beta))
        basis = basis.at[j + 1].set(following)
        restarts = restarts + (exhausted & (j + 1 < steps))
        return diagonal.at[j].set(alpha), off_diagonal.at[j].set(beta), basis, scale, restarts

    basis = jnp.zeros((steps + 1, size), dtype).at[0].set(unit(start))
    zeros = jnp.zeros(steps, dtype)
    carry = (zeros, zeros, basis, jnp.zeros((), dtype), jnp.zeros((), jnp.int32))
    diagonal, off_diagonal, basis, _, restarts = jax.lax.fori_loop(0, steps, body, carry)
    return Tridiagonal(diagonal, off_diagonal, basis[:-1], restarts)


def ritz(t: Tridiagonal) -> tuple[Float[Array, " steps"], Float[Array, "steps steps"]]:
    """Eigenvalues of T, ascending, and its eigenvectors as columns.

    >>> values, _ = ritz(Tridiagonal(jnp.array([1e30, 3e30]), jnp.zeros(2), jnp.eye(2), jnp.array(0)))
    >>> [round(float(v) / 1e30, 3) for v in values]
    [1.0, 3.0]
    """
    # A scale of 1 keeps the eigensolver's squares inside the range of the dtype.
    links = t.off_diagonal[:-1]
    scale = jnp.maximum(jnp.max(jnp.abs(t.diagonal)), jnp.max(jnp.abs(links), initial=0))
    scale = jnp.where(scale > 0, scale, 1)
    dense = jnp.diag(t.diagonal / scale) + jnp.diag(links / scale, 1) + jnp.diag(links / scale, -1)
    values, vectors = jnp.linalg.eigh(dense)
    return values * scale, vectors


def product(a: Array, b: Array) -> Array:
    """`a @ b` at full precision: the reduced one of accelerators would cost the basis its orthogonality."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def safe_norm(x: Float[Array, " n"]) -> Float[Array, ""]:
    """The Euclidean norm without overflow or underflow of the squares; NaN and inf stay visible.

    >>> float(safe_norm(jnp.array([3e30, 4e30]))) == float(jnp.float32(5e30))
    True
    """
    largest = jnp.max(jnp.abs(x))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.linalg.norm(x / scale)


def unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    """`x` over its norm; 0 stays 0."""
    size = safe_norm(x)
    return x / jnp.where(size > 0, size, 1)


def flatten(matvec: Operator, like: PyTree) -> tuple[Operator, Callable[[Array], PyTree], int, Any]:
    """The operator on flat vectors of at least float32, the way back to the pytree, the size and the dtype.

    **Raises** `TypeError` for leaves that are not real floating point, `ValueError` for an empty pytree or an operator
    that does not return what it takes.
    """
    like = jax.tree.map(jnp.asarray, like)
    leaves = jax.tree.leaves(like)
    if not leaves or not sum(x.size for x in leaves):
        raise ValueError(f"like must have at least one number, got {jax.tree.structure(like)}")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"like must have real floating-point leaves, got one of {leaf.dtype}")
    template, unravel = ravel_pytree(like)
    dtype = jnp.promote_types(template.dtype, jnp.float32)
    shape = jax.eval_shape(matvec, like)
    if _shapes(shape) != _shapes(like):
        raise ValueError(f"matvec must return a pytree like its argument, {_shapes(like)}, got {_shapes(shape)}")

    def restore(v):
        return unravel(v.astype(template.dtype))

    return lambda v: ravel_pytree(matvec(restore(v)))[0].astype(dtype), restore, template.size, dtype


def alike(params: PyTree, other: PyTree, name: str) -> tuple[PyTree, PyTree]:
    """Both as arrays, the other in the parameters' dtypes; `ValueError` about `name` when it is not like them."""
    params = jax.tree.map(jnp.asarray, params)
    if jax.tree.structure(params) != jax.tree.structure(other) or _shapes(params) != _shapes(other):
        raise ValueError(f"{name} must be a pytree like params, {_shapes(params)}, got {_shapes(other)}")
    return params, jax.tree.map(lambda p, v: jnp.asarray(v, p.dtype), params, other)


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(jnp.shape, tree)
