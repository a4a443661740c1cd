"""Small dense linear systems that vectorise over a batch of branches."""

import jax.numpy as jnp
from jaxtyping import Array, Float

UNROLLED = 3
"""Up to this size elimination is written out: a batch of LAPACK calls on tiny matrices is far slower."""


def solve(matrix: Float[Array, "n n"], rhs: Float[Array, "n k"]) -> Float[Array, "n k"]:
    """`matrix^-1 rhs`; by written-out Gaussian elimination with partial pivoting when the matrix is tiny.

    A singular matrix gives entries that are not finite (never an exception), as `jnp.linalg.solve` does.

    >>> solve(jnp.array([[0.0, 2.0], [1.0, 1.0]]), jnp.array([[2.0], [3.0]])).ravel().tolist()
    [2.0, 1.0]
    """
    n = matrix.shape[-1]
    if n > UNROLLED:
        return jnp.linalg.solve(matrix, rhs)
    rows = [[matrix[i, j] for j in range(n)] + list(rhs[i]) for i in range(n)]
    for k in range(n):
        # Bubble the row with the largest entry of column k to the top by compare-and-swap: selects, no gathers.
        for i in range(k + 1, n):
            swap = jnp.abs(rows[i][k]) > jnp.abs(rows[k][k])
            rows[k], rows[i] = (
                [jnp.where(swap, a, b) for a, b in zip(rows[i], rows[k])],
                [jnp.where(swap, b, a) for a, b in zip(rows[i], rows[k])],
            )
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = rows[i][: k + 1] + [a - factor * b for a, b in zip(rows[i][k + 1 :], rows[k][k + 1 :])]
    x: list = [None] * n
    for k in reversed(range(n)):
        known = [sum(rows[k][j] * x[j][c] for j in range(k + 1, n)) for c in range(rhs.shape[1])]
        x[k] = [(rows[k][n + c] - known[c]) / rows[k][k] for c in range(rhs.shape[1])]
    return jnp.stack([jnp.stack(row) for row in x])
