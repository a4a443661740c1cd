"""Singular values cut at a limit: exactly by a decomposition, smoothly by products of matrices alone.

Matrices are `[m, n]`, in float32 or float64 or complex, and one at a time: `vmap` serves for more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact

from cliffs.clipping._subspace import scaled


class Decomposition(NamedTuple):
    """`X = U diag(S) V^H`, a constant for derivatives."""

    u: Inexact[Array, "m k"]
    s: Float[Array, " k"]
    vh: Inexact[Array, "k n"]


def decomposed(x: Inexact[Array, "m n"]) -> tuple[Decomposition, Float[Array, ""]]:
    """The decomposition, and the largest singular value with its derivative `Re(u^H dX v)`."""
    y, scale = scaled(x)
    u, s, vh = jnp.linalg.svd(lax.stop_gradient(y), full_matrices=False)
    # A value of finite entries counts as at most the largest float, as a norm does: averages must not become inf.
    found = Decomposition(u, jnp.minimum(s * scale, jnp.finfo(s.dtype).max), vh)
    # A zero that moves with X.
    moving = (jnp.conj(u[:, 0]) @ y @ jnp.conj(vh[0])).real
    return found, found.s[0] + scale * (moving - lax.stop_gradient(moving))


@jax.custom_jvp
def hard(x: Inexact[Array, "m n"], limit: Float[Array, ""], parts: Decomposition) -> Inexact[Array, "m n"]:
    """`U min(S, limit) V^H` of a matrix and its decomposition.

    From orthonormal vectors, not by `X - U max(S - limit, 0) V^H`: that difference keeps rounding errors of the size of
    the largest singular value, which may be far above the limit.
    """
    del x
    return (parts.u * jnp.minimum(parts.s, limit)) @ parts.vh


@hard.defjvp
def _(primals, tangents):
    x, limit, (u, s, vh) = primals
    dx, dlimit, _ = tangents
    kept = jnp.minimum(s, limit)
    # First-order perturbation theory: with M = U^H dX V, its hermitian part is multiplied by the divided differences of
    # min(s, limit), the other part by (f_i + f_j) / (s_i + s_j). Both are 1 where nothing is cut.
    gap, total = s[:, None] - s, s[:, None] + s
    apart, some = gap != 0, total > 0
    below = (s <= limit).astype(s.dtype)
    slope = jnp.where(apart, (kept[:, None] - kept) / jnp.where(apart, gap, 1.0), below[:, None])
    share = jnp.where(some, (kept[:, None] + kept) / jnp.where(some, total, 1.0), below[:, None])
    right = jnp.conj(vh.T)
    left_dx, dx_right = jnp.conj(u.T) @ dx, dx @ right
    middle = left_dx @ right
    transposed = jnp.conj(middle.T)
    inner = slope * (middle + transposed) / 2 + share * (middle - transposed) / 2
    inner = inner + jnp.diag(dlimit * (1 - below))
    change = u @ inner @ vh
    # What lies outside of the singular vectors, where the matrix is not square.
    factor = jnp.diagonal(share)
    if x.shape[1] > x.shape[0]:
        change = change + (u * factor) @ (left_dx - middle @ vh)
    if x.shape[0] > x.shape[1]:
        change = change + (dx_right - u @ middle) @ (factor[:, None] * vh)
    return hard(x, limit, Decomposition(u, s, vh)), change


def soft(x: Inexact[Array, "m n"], limit: Float[Array, ""], iterations: int) -> Inexact[Array, "m n"]:
    """`(I + X X^H / limit^2)^(-1/2) X` by Newton and Schulz: singular values become `s / sqrt(1 + (s / limit)^2)`.

    In the form `limit Z X / sqrt(limit^2 + b)` with `Z -> ((limit^2 I + X X^H) / (limit^2 + b))^(-1/2)`, where b is at
    least the largest squared singular value: no number here is far from 1, whatever the sizes of matrix and limit.
    """
    if x.shape[0] > x.shape[1]:
        return jnp.conj(soft(jnp.conj(x.T), limit, iterations).T)
    y, scale = scaled(x)
    eps = float(jnp.finfo(scale.dtype).eps)
    largest = jnp.asarray(jnp.finfo(scale.dtype).max, scale.dtype)
    gram = _product(y, jnp.conj(y.T))
    size = lax.stop_gradient(jnp.abs(gram))
    bound = jnp.minimum(jnp.max(jnp.sum(size, axis=1)), jnp.sqrt(jnp.sum(jnp.square(size))))
    # From here on all singular values are rounded to what they were; an infinite limit must not enter the arithmetic.
    top = 2 * eps**-0.5 * jnp.sqrt(bound)
    near = jnp.minimum(limit / scale, top)
    total = jnp.square(near) + bound
    total = jnp.where(total > 0, total, 1.0)
    identity = jnp.eye(x.shape[0], dtype=x.dtype)

    def step(_, carry):
        root, inverse = carry
        factor = 1.5 * identity - 0.5 * _product(inverse, root)
        return _product(root, factor), _product(factor, inverse)

    start = gram / total + (jnp.square(near) / total) * identity, identity + jnp.zeros_like(gram)
    _, inverse = lax.fori_loop(0, iterations, step, start)
    # The limit itself, since over the scale it may be too small for a float.
    cut = jnp.minimum(limit, largest) * _product(inverse, y / jnp.sqrt(total))
    return jnp.where(limit / scale >= top, x, cut)


@jax.custom_jvp
def softened(values: Float[Array, " k"], limits: Float[Array, " k"]) -> Float[Array, " k"]:
    """`value / sqrt(1 + (value / limit)^2)` of singular values, also where the square of a number is no float."""
    return jnp.minimum(values, limits) / jnp.sqrt(1 + jnp.square(_ratio(values, limits)))


@softened.defjvp
def _(primals, tangents):
    (values, limits), (dvalues, dlimits) = primals, tangents
    ratio = _ratio(values, limits)
    small = 1 / jnp.sqrt(1 + jnp.square(ratio))
    near, far = small**3, (small * ratio) ** 3  # by the smaller of the two, and by the larger
    first = values <= limits
    slopes = jnp.where(first, near, far) * dvalues + jnp.where(first, far, near) * dlimits
    return softened(values, limits), slopes


def _ratio(a: Array, b: Array) -> Array:
    """The smaller over the larger of two numbers that are not negative; 0 where both are."""
    top = jnp.maximum(a, b)
    return jnp.where(top > 0, jnp.minimum(a, b) / jnp.where(top > 0, top, 1.0), 0.0)


def _product(a: Array, b: Array) -> Array:
    # Some devices multiply float32 in fewer digits unless they are asked not to.
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
