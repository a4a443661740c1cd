"""Products of step Jacobians without a single matrix: for states with thousands of entries.

`J v` is a forward-mode and `J^T v` a reverse-mode derivative of the step; a product of T Jacobians needs the T states
and a block of p vectors, never n x n numbers. Block subspace iteration forth and back through the trajectory
(a randomised SVD with QR after every step, and a scale in logarithms for every direction) gives the leading singular
values of products of any length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from cliffs._flatten import num_inputs
from cliffs._precision import by_precision
from cliffs.spectra import _scaled_products
from cliffs.spectra._jacobians import flat_trajectory
from cliffs.typing import Step


def multiply_by_product(
    step: Step, params: PyTree, states: PyTree, inputs: PyTree, vectors: Float[Array, "n p"], *, transpose: bool = False
) -> tuple[Float[Array, "n p"], Float[Array, " p"]]:
    """`J_T ... J_1 v` (or `J_1^T ... J_T^T v`) for a block of vectors, matrix-free and without overflow.

    **Arguments**

    - `step`, `params`, `states`, `inputs`: as in `cliffs.spectra.step_jacobians`.
    - `vectors`: `[n, p]`, one vector per column.
    - `transpose`: multiply by the transpose: what backpropagation does to `dE/dx_T`.

    **Returns** `(directions [n, p], log_norms [p])`: the results are `exp(log_norms) * directions`, with columns of
    length 1 (zero and -inf for a vector that is annihilated).

    **Raises** `ValueError` for lengths or shapes that do not fit.

    >>> from cliffs.recurrent import linear_step
    >>> out, log_norms = multiply_by_product(linear_step, 2 * jnp.eye(3), jnp.zeros((1000, 3)), None, jnp.eye(3))
    >>> bool(jnp.allclose(log_norms, 1000 * jnp.log(2.0), rtol=1e-4)), out.shape
    (True, (3, 3))
    """
    flat, vectors_at = flat_trajectory(step, params, states, inputs)
    _check_columns("vectors", vectors, vectors_at.shape[1])
    apply = _transposed(flat, params) if transpose else _forward(flat, params)

    def body(carry, x):
        rows, log_norms = carry
        term, rows = _scaled_products.unit_rows(apply(x, rows))
        return (rows, log_norms + term), None

    log_norms, rows = _scaled_products.unit_rows(vectors.T.astype(vectors_at.dtype))
    xs = (vectors_at, inputs if num_inputs(inputs) else None)
    (rows, log_norms), _ = jax.lax.scan(body, (rows, log_norms), xs, reverse=transpose)
    return rows.T, log_norms


class LeadingSingularValues(NamedTuple):
    """The leading singular values of a product of step Jacobians, largest first, with their vectors."""

    log_values: Float[Array, " k"]
    left: Float[Array, "n k"]
    """Left singular vectors: the directions of `x_T` that grew."""
    right: Float[Array, "n k"]
    """Right singular vectors: the directions of `x_0` that they came from."""
    num_passes: Int[Array, ""]
    """Passes forth and back that were made."""
    change: Float[Array, ""]
    """Largest change of a log value in the last pass; above the tolerance when `max_passes` ended it."""


def leading_singular_values(
    step: Step,
    params: PyTree,
    states: PyTree,
    inputs: PyTree = None,
    *,
    num_values: int,
    key: Key[Array, ""],
    oversampling: int = 10,
    tolerance: float | None = None,
    max_passes: int = 50,
) -> LeadingSingularValues:
    """The k leading singular values of `J_T ... J_1` in logarithms, from Jacobian-vector products only.

    Subspace iteration with k + `oversampling` random vectors. The error of value i shrinks per pass by
    `(s_{p+1} / s_i)^2`, p the number of vectors: long products, whose values are far apart, need two or three passes,
    a single Jacobian many. Each estimate is a lower bound of the true value (up to rounding).

    **Arguments**

    - `step`, `params`, `states`, `inputs`: as in `cliffs.spectra.step_jacobians`.
    - `num_values`: k.
    - `key`: of the random start.
    - `oversampling`: further vectors, which speed convergence up.
    - `tolerance`: passes end when no log value changes by more; 1e-8 in float64, 1e-4 in float32 by default.
    - `max_passes`: the most passes that are made.

    **Returns** `LeadingSingularValues`; `log_values` in nats. Memory: the T states and a few `[n, k + oversampling]`.

    **Raises** `ValueError` for `num_values` outside 1 .. n or lengths that do not fit.

    Source: Halko, Martinsson & Tropp (2011), algorithm 4.4, here on a product kept in graded form.

    >>> from cliffs.recurrent import linear_step
    >>> a = jnp.diag(jnp.array([1.5, 1.0, 0.5, 0.1]))
    >>> top = leading_singular_values(linear_step, a, jnp.zeros((800, 4)), num_values=2, key=jax.random.key(0))
    >>> bool(jnp.allclose(top.log_values, 800 * jnp.log(jnp.array([1.5, 1.0])), rtol=1e-4, atol=1e-2))
    True
    """
    flat, vectors_at = flat_trajectory(step, params, states, inputs)
    n, dtype = vectors_at.shape[1], vectors_at.dtype
    if not 1 <= num_values <= n:
        raise ValueError(f"num_values must be between 1 and {n}, got {num_values}")
    if oversampling < 0 or max_passes < 1:
        raise ValueError(f"oversampling must be >= 0 and max_passes >= 1, got {oversampling} and {max_passes}")
    size = min(n, num_values + oversampling)
    limit = by_precision(dtype, double=1e-8, single=1e-4) if tolerance is None else tolerance
    xs = (vectors_at, inputs if num_inputs(inputs) else None)
    eye = jnp.eye(size, dtype=dtype)

    def sweep(apply, frame, reverse):
        """`(Q, graded)` with `product @ frame = Q graded`; frames as columns."""

        def body(carry, x):
            q, graded = carry
            q, factor = jnp.linalg.qr(apply(x, q.T).T)
            return (q, _scaled_products.multiply(jnp.triu(factor), graded)), None

        (q, graded), _ = jax.lax.scan(body, (frame, _scaled_products.start(eye)), xs, reverse=reverse)
        return q, graded

    def one_pass(carry):
        right, _, old, _, count = carry
        left, graded = sweep(_forward(flat, params), right, False)
        new, within = _scaled_products.graded_svd(graded.log_scale, graded.rows)
        # The rotation to the singular vectors' order makes the frame graded, which the next pass keeps.
        best = right @ within.T
        change = jnp.max(jnp.where(new[:num_values] == old[:num_values], 0, jnp.abs(new - old)[:num_values]))
        following, _ = sweep(_transposed(flat, params), left, True)
        return following, best, new, change, count + 1

    def unfinished(carry):
        *_, change, count = carry
        return (change > limit) & (count < max_passes)

    frame = jnp.linalg.qr(jax.random.normal(key, (n, size), dtype))[0]
    first = frame, frame, jnp.full(size, -jnp.inf, dtype), jnp.asarray(jnp.inf, dtype), jnp.asarray(0)
    _, right, values, change, count = jax.lax.while_loop(unfinished, one_pass, first)
    right = right[:, :num_values]
    left, _ = multiply_by_product(step, params, states, inputs, right)
    return LeadingSingularValues(values[:num_values], left, right, count, change)


def _forward(flat, params):
    def apply(x, rows):
        state, u = x
        _, linear = jax.linearize(lambda s: flat(params, s, u), state)
        return jax.vmap(linear)(rows)

    return apply


def _transposed(flat, params):
    def apply(x, rows):
        state, u = x
        _, pull = jax.vjp(lambda s: flat(params, s, u), state)
        return jax.vmap(lambda row: pull(row)[0])(rows)

    return apply


def _check_columns(name, vectors, n):
    if vectors.ndim != 2 or vectors.shape[0] != n:
        raise ValueError(f"{name} must have shape ({n}, p), one vector per column, got {vectors.shape}")
