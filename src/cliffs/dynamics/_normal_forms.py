"""Normal-form coefficients of the bifurcations of fixed points of maps (Kuznetsov, Elements, ch. 4, 5 and 10).

Derivatives of second and third order are directional (nested `jvp`), so no tensor of size n^3 is formed.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def second(f: Callable, x: Array, a: Array, b: Array) -> Array:
    """`D^2 f(x)[a, b]`."""
    return jax.jvp(lambda x: jax.jvp(f, (x,), (a,))[1], (x,), (b,))[1]


def third(f: Callable, x: Array, a: Array, b: Array, c: Array) -> Array:
    """`D^3 f(x)[a, b, c]`."""
    return jax.jvp(lambda x: second(f, x, a, b), (x,), (c,))[1]


def left_vector(matrix: Float[Array, "n n"], q: Float[Array, " n"]) -> Float[Array, " n"]:
    """The left null vector p of a singular matrix with right null vector q, scaled to `p . q = 1`.

    From a bordered system, so that it is smooth along curves of singular matrices.
    """
    n = matrix.shape[0]
    bordered = jnp.block([[matrix.T, q[:, None]], [q[None], jnp.zeros((1, 1), matrix.dtype)]])
    return jnp.linalg.solve(bordered, jnp.zeros(n + 1, matrix.dtype).at[-1].set(1))[:n]


def state_jacobian(residual: Callable, y: Array, n: int) -> Array:
    """`dF^p/dx - I` at the joint point `y`."""
    return jax.jacfwd(residual)(y)[:, :n]


def fold_form(residual: Callable, y: Array, q: Array) -> Array:
    """`B(q, q) / 2`; its part along the left null vector is the fold's quadratic coefficient."""
    direction = jnp.zeros_like(y).at[: q.shape[0]].set(q)
    return second(residual, y, direction, direction) / 2


def flip_form(residual: Callable, y: Array, q: Array) -> Array:
    """`C(q,q,q) / 6 + B(q, (I - J)^-1 B(q,q)) / 2`; its part along the left vector is the flip's coefficient."""
    n = q.shape[0]
    pad = jnp.zeros_like(y)
    direction = pad.at[:n].set(q)
    bqq = second(residual, y, direction, direction)
    correction = pad.at[:n].set(jnp.linalg.solve(-state_jacobian(residual, y, n), bqq))
    return third(residual, y, direction, direction, direction) / 6 + second(residual, y, direction, correction) / 2


def fold_coefficient(residual: Callable, y: Array, q: Array) -> tuple[Array, Array]:
    """`a = p . B(q, q) / 2`: the map on the centre manifold is `u -> u + beta + a u^2`; zero at a cusp.

    **Returns** `(a, 1 / |p|)`: that is 0 where the multiplier is double, and `a` means nothing.
    """
    p = left_vector(state_jacobian(residual, y, q.shape[0]), q)
    return p @ fold_form(residual, y, q), 1 / jnp.linalg.norm(p)


def flip_coefficient(residual: Callable, y: Array, q: Array) -> tuple[Array, Array]:
    """`c = p . (C(q,q,q) / 6 + B(q, (I - J)^-1 B(q,q)) / 2)`: `u -> -(1 + beta) u + c u^3`.

    Positive: supercritical, a stable cycle of twice the period appears; negative: subcritical. Returns `(c, 1 / |p|)`.
    """
    n = q.shape[0]
    shifted = state_jacobian(residual, y, n) + 2 * jnp.eye(n, dtype=y.dtype)
    p = left_vector(shifted, q)
    return p @ flip_form(residual, y, q), 1 / jnp.linalg.norm(p)


def neimark_sacker_coefficient(residual: Callable, y: Array, q: Array, multiplier: Array) -> Array:
    """The first Lyapunov coefficient `d = Re(e^{-i theta} c_1)` with `|q| = 1`; negative: a stable circle appears."""
    n = q.shape[0]
    eye = jnp.eye(n, dtype=y.dtype)
    jacobian = jax.jacfwd(residual)(y)[:, :n] + eye

    def full(v):
        return jnp.zeros_like(y).at[:n].set(v)

    def b(v, w):  # bilinear, for complex arguments
        vr, vi, wr, wi = full(v.real), full(v.imag), full(w.real), full(w.imag)
        real = second(residual, y, vr, wr) - second(residual, y, vi, wi)
        return real + 1j * (second(residual, y, vr, wi) + second(residual, y, vi, wr))

    u, v = full(q.real), full(q.imag)
    # C(q, q, conj q) = C(u,u,u) + C(u,v,v) + i (C(u,u,v) + C(v,v,v))
    cubic = third(residual, y, u, u, u) + third(residual, y, u, v, v)
    cubic = cubic + 1j * (third(residual, y, u, u, v) + third(residual, y, v, v, v))
    # w = conj(p) with w^T (J - mu I) = 0 and w . q = 1, from a bordered system.
    shifted = (jacobian - multiplier * eye).T
    bordered = jnp.block([[shifted, jnp.conj(q)[:, None]], [q[None], jnp.zeros((1, 1), q.dtype)]])
    w = jnp.linalg.solve(bordered, jnp.zeros(n + 1, q.dtype).at[-1].set(1))[:n]
    h11 = jnp.linalg.solve(eye - jacobian, b(q, jnp.conj(q)).real)
    h20 = jnp.linalg.solve(multiplier**2 * eye - jacobian, b(q, q))
    total = cubic + 2 * b(q, h11 + 0j) + b(jnp.conj(q), h20)
    return (jnp.conj(multiplier) * (w @ total)).real / 2


def branching_equation(residual: Callable, y: Array) -> tuple[Array, Array, Array]:
    """Where two branches cross: the quadratic form `a s^2 + 2 b s t + c t^2 = 0` of directions `s d1 + t d2`.

    **Returns** `(coefficients [5], d1, d2)`: `d1 = (q, 0)` lies in the state space, `d2` is orthogonal to it and
    changes the parameter; the fourth coefficient is the cubic one along `d1`, which decides the side of a pitchfork.
    `a` and the fourth are those of `u -> u + a u^2 + .. + cubic u^3` on the centre manifold. The fifth is `|p . q|` of
    unit vectors, 0 where the multiplier is double.
    """
    jacobian = jax.jacfwd(residual)(y)
    n = jacobian.shape[0]
    left, _, right = jnp.linalg.svd(jacobian)
    p, d = left[:, -1], right[-2:]
    # Rotate the basis of the two-dimensional null space so that d1 keeps the parameter.
    angle = jnp.arctan2(d[0, -1], d[1, -1])
    d1 = jnp.cos(angle) * d[0] - jnp.sin(angle) * d[1]
    d2 = jnp.sin(angle) * d[0] + jnp.cos(angle) * d[1]
    d1 = d1.at[n:].set(0)
    bqq = second(residual, y, d1, d1)
    # On the pitchfork's branch x = x0 + s q + s^2 w / 2 with G_x w = -B(q, q), in the complement of p.
    w = jnp.linalg.pinv(jacobian[:, :n], rtol=1e-7) @ (-bqq + (p @ bqq) * p)
    cubic = p @ (third(residual, y, d1, d1, d1) + 3 * second(residual, y, d1, jnp.zeros_like(y).at[:n].set(w)))
    # Scaled as on the centre manifold: by the left vector with p . q = 1 and the factorials of Taylor's series.
    overlap = p @ d1[:n]
    scale = 2 * jnp.where(jnp.abs(overlap) > jnp.finfo(y.dtype).eps ** 0.5, overlap, 1)
    coefficients = jnp.stack([p @ bqq, p @ second(residual, y, d1, d2), p @ second(residual, y, d2, d2), cubic / 3])
    return jnp.append(coefficients / scale, jnp.abs(overlap)), d1, d2
