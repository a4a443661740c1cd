"""Penalties on weights: their size, and the spectrum of the recurrent matrix."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def l1(weights: PyTree) -> Float[Array, ""]:
    """`sum |w|` over all arrays of a pytree, for instance `params.rnn.w_rec`.

    >>> float(l1({"w": jnp.array([1.0, -2.0])}))
    3.0
    """
    return sum((jnp.abs(w).sum() for w in jax.tree.leaves(weights)), jnp.zeros(()))


def l2(weights: PyTree) -> Float[Array, ""]:
    """`sum w^2` over all arrays of a pytree, without a factor 1/2: its gradient is `2 w`.

    >>> float(l2({"w": jnp.array([1.0, -2.0])}))
    5.0
    """
    return sum((jnp.square(w).sum() for w in jax.tree.leaves(weights)), jnp.zeros(()))


def spectral_penalty(
    matrix: Float[Array, "n n"], *, limit: float | Float[Array, ""] = 1.0, of: Literal["radius", "norm"] = "radius"
) -> Float[Array, ""]:
    """`max(0, m - limit)^2` with m the spectral radius of a matrix or its spectral norm.

    The radius decides about growth in the long run, the norm about one step: it bounds every product of Jacobians
    of a network whose slopes are at most 1. With `limit=0` and the norm this is the regulariser of Yoshida & Miyato.

    **Arguments**

    - `matrix`: `[n, n]`, the recurrent weights.
    - `limit`: m below this costs nothing; non-negative, may be traced.
    - `of`: `"radius"`, the largest modulus of an eigenvalue, or `"norm"`, the largest singular value.

    **Returns** a scalar. At a matrix whose leading eigenvalues or singular values coincide the derivative is one of
    several.

    **Raises** `ValueError` for another `of` or a matrix that is not square.

    Source: Yoshida & Miyato (2017), Spectral norm regularization; the condition of Pascanu et al. (2012), section 2.1.

    >>> float(spectral_penalty(jnp.diag(jnp.array([3.0, 0.5]))))
    4.0
    """
    if of not in ("radius", "norm"):
        raise ValueError(f"of must be 'radius' or 'norm', got {of!r}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}")
    # Of the eigenvalues themselves: the derivative of a power's norm, ||A^k||^(1/k), turns with the phase of a complex
    # leading pair and never settles.
    size = jnp.abs(jnp.linalg.eigvals(matrix)).max() if of == "radius" else jnp.linalg.norm(matrix, 2)
    return jnp.square(jnp.maximum(size - limit, 0))
