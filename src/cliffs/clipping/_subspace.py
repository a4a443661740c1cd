"""Subspace iteration: the leading singular value or eigenvalues of a matrix, from where the last update left off."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cliffs.clipping._safe_norm import power_of_two

START_ITERATIONS = 50
_BLOCK = 8  # enough for a leading complex pair and its neighbours


def first_basis(w: Float[Array, "m n"]) -> Float[Array, "n block"]:
    """Where the iteration starts: any fixed basis without structure will do, since the state must not need a key."""
    return jax.random.normal(jax.random.key(0), (w.shape[1], min(_BLOCK, *w.shape)), w.dtype)


def spread_as(w: Array, like: Array) -> Array:
    """An array spread over the devices as another one, where its type says how that is."""
    sharding = jax.typeof(like).sharding
    if jax.sharding.AxisType.Explicit not in sharding.mesh.axis_types:
        return w
    return jax.sharding.reshard(w, sharding.spec)


def scaled(w: Array) -> tuple[Array, Array]:
    """A matrix with entries of at most 2, and the power of two that it was divided by."""
    scale = power_of_two(jax.lax.stop_gradient(jnp.max(jnp.abs(w))))
    return w / scale, scale


def subspace_iteration(w: Array, basis: Array, iterations: int | Array, twice: bool) -> Array:
    """An orthonormal basis after some products with `W`, or with `W^T W` if `twice`; a constant for derivatives."""
    frozen = jax.lax.stop_gradient(w)
    start = basis + jnp.zeros_like(frozen[:1].T)  # under shard_map it must vary over devices where the matrix does

    def multiply(_, q):
        return jnp.linalg.qr(frozen.T @ (frozen @ q) if twice else frozen @ q)[0]

    return jax.lax.stop_gradient(jax.lax.fori_loop(0, iterations, multiply, start))


def largest_singular_value(w: Array, basis: Array, iterations: int | Array) -> tuple[Array, Array]:
    """The largest singular value of a real matrix, approached from below, and the basis that it was found with."""
    w, scale = scaled(w)
    basis = subspace_iteration(w, basis, iterations, twice=True)
    image = w @ basis
    gram = image.T @ image  # block x block: its largest eigenvalue is the Ritz value of W^T W
    vector = jax.lax.stop_gradient(jnp.linalg.eigh(gram)[1][:, -1])
    squared = vector @ gram @ vector  # its derivative is u^T dW v, without that of eigenvectors
    positive = squared > 0
    value = scale * jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    return jnp.minimum(value, jnp.finfo(value.dtype).max), basis
