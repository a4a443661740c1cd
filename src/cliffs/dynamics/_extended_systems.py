"""Defining systems: square equations whose regular solution is a bifurcation point.

Each takes `residual(y) = F^p(x; parameters) - x` with `y = (x, parameters)` and gives equations for
`z = (x, auxiliary unknowns, parameters)`. With one parameter the system is square and Newton locates the point; with
two it has one equation less than unknowns and its solutions are a curve.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

KINDS = ("fold", "flip", "Neimark-Sacker", "branch point")


def auxiliary_size(kind: str, n: int) -> int:
    """How many unknowns stand between the state and the parameters."""
    return {"fold": n, "flip": n, "Neimark-Sacker": 2 * n + 2, "branch point": n + 1}[kind]


def defining_system(kind: str, residual: Callable, n: int, reference: Array | None = None) -> Callable:
    """The equations of a bifurcation, as a function of `z`.

    - fold, flip: `J v = ±v`, `v . v = 1` (Moore & Spence 1980);
    - Neimark-Sacker: `J (u + iv) = (c + is)(u + iv)`, `c^2 + s^2 = 1`, with the phase fixed by a reference vector;
    - branch point: `G + mu p = 0`, `p^T (G_x, G_lambda) = 0`, `p . p = 1`, which has `mu = 0` at a branch point.
    """
    size = auxiliary_size(kind, n)

    def split(z):
        return z[:n], z[n : n + size], jnp.concatenate([z[:n], z[n + size :]])

    def jacobian_times(y, v):
        direction = jnp.zeros_like(y).at[:n].set(v)
        return jax.jvp(residual, (y,), (direction,))[1] + v

    def critical(multiplier):
        def equations(z):
            _, v, y = split(z)
            return jnp.concatenate([residual(y), jacobian_times(y, v) - multiplier * v, (v @ v - 1)[None]])

        return equations

    def neimark_sacker(z):
        _, aux, y = split(z)
        u, v, (c, s) = aux[:n], aux[n : 2 * n], aux[2 * n :]
        u0, v0 = reference[:n], reference[n:]  # type: ignore[index]
        return jnp.concatenate(
            [
                residual(y),
                jacobian_times(y, u) - c * u + s * v,
                jacobian_times(y, v) - s * u - c * v,
                jnp.stack([c * c + s * s - 1, u @ u0 + v @ v0 - 1, v @ u0 - u @ v0]),
            ]
        )

    def branch_point(z):
        _, aux, y = split(z)
        mu, p = aux[0], aux[1:]
        value, pull = jax.vjp(residual, y)
        (left,) = pull(p)
        return jnp.concatenate([value + mu * p, left, (p @ p - 1)[None]])

    systems = {
        "fold": critical(1.0),
        "flip": critical(-1.0),
        "Neimark-Sacker": neimark_sacker,
        "branch point": branch_point,
    }
    return systems[kind]


def guess_auxiliary(kind: str, jacobian: Float[Array, "n m"]) -> Float[Array, " aux"]:
    """Auxiliary unknowns from `dG/dy` at a point near the bifurcation: singular vectors, or an eigenvector."""
    n = jacobian.shape[0]
    square, eye = jacobian[:, :n], jnp.eye(n, dtype=jacobian.dtype)
    if kind == "fold":
        return jnp.linalg.svd(square)[2][-1]
    if kind == "flip":
        return jnp.linalg.svd(square + 2 * eye)[2][-1]
    if kind == "branch point":
        p = jnp.linalg.svd(jacobian, full_matrices=False)[0][:, -1]
        return jnp.concatenate([jnp.zeros(1, jacobian.dtype), p])
    values, vectors = jnp.linalg.eig(square + eye)
    # Of the truly complex ones, the multiplier nearest to the unit circle.
    chosen = jnp.argmin(jnp.abs(jnp.abs(values) - 1) + 1e3 * (values.imag < 1e-6 * jnp.abs(values)))
    value, vector = values[chosen], vectors[:, chosen]
    vector, value = vector / jnp.linalg.norm(vector), value / jnp.abs(value)
    return jnp.concatenate([vector.real, vector.imag, jnp.stack([value.real, value.imag])]).astype(jacobian.dtype)
