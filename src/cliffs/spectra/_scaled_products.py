"""Matrices with a scale in logarithms for every row: `diag(exp(log_scale)) @ rows`, rows of length 1.

A product of ten thousand Jacobians has singular values from `1.5^10000` to `0.5^10000` at once: no single scale holds
both. Written as `Q diag(exp(log_scale)) rows` with the rows graded by QR, every one keeps its leading digits, and
one-sided Jacobi rotations find the singular values of such a matrix to high relative accuracy (Demmel & Veselic 1992)
while only ratios of two scales are ever formed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Graded(NamedTuple):
    """`diag(exp(log_scale)) @ rows`."""

    log_scale: Float[Array, " k"]
    rows: Float[Array, "k n"]
    lost: Float[Array, " k"]
    """Kahan's compensation: ten thousand float32 additions would lose the fourth digit."""


def safe_log(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`log x`, and -inf with derivative 0 at 0; NaN stays NaN.

    >>> float(jax.grad(safe_log)(0.0))
    0.0
    """
    zero = x == 0
    return jnp.where(zero, -jnp.inf, jnp.log(jnp.where(zero, 1, x)))


def unit_rows(rows: Float[Array, "k n"]) -> tuple[Float[Array, " k"], Float[Array, "k n"]]:
    """`(log of the lengths, rows of length 1)`; a zero row stays zero and has -inf. No square overflows.

    >>> unit_rows(jnp.array([[3e30, 4e30], [0.0, 0.0]]))[1].tolist()[1]
    [0.0, 0.0]
    """
    size = jnp.max(jnp.abs(rows), axis=1, keepdims=True)
    rows = rows / jnp.where(size == 0, 1, size)
    squares = jnp.sum(rows**2, axis=1, keepdims=True)
    norm = jnp.sqrt(jnp.where(squares == 0, 1, squares))
    return safe_log(size[:, 0]) + jnp.log(norm[:, 0]), rows / norm


def start(rows: Float[Array, "k n"]) -> Graded:
    """A graded matrix of the given rows, which must have length 1."""
    zero = jnp.zeros(rows.shape[0], rows.dtype)
    return Graded(zero, rows, zero)


def multiply(factor: Float[Array, "k k"], graded: Graded) -> Graded:
    """`factor @ graded` for an upper triangular factor.

    Row i takes its own scale: the largest one among the rows that enter it.
    """
    scale = graded.log_scale[None, :]
    top = jnp.max(jnp.where(factor != 0, scale, -jnp.inf), axis=1)
    finite = jnp.where(jnp.isfinite(top), top, 0)
    weights = factor * jnp.exp(jnp.minimum(scale - finite[:, None], 0))
    log_norm, rows = unit_rows(weights @ graded.rows)
    alive = jnp.isfinite(top) & jnp.isfinite(log_norm)
    # What is added to the row's own old scale, so that the compensation can follow it.
    own = jnp.where(jnp.isfinite(graded.log_scale), graded.log_scale, 0)
    term = jnp.where(alive, log_norm, 0) + (finite - own) - graded.lost
    total = own + term
    lost = jnp.where(alive, (total - own) - term, 0)
    # A row of NaN (a Jacobian that was not finite) stays NaN; it must not look like a zero.
    broken = jnp.isnan(log_norm) | (log_norm == jnp.inf)
    return Graded(jnp.where(broken, jnp.nan, jnp.where(alive, total, -jnp.inf)), rows, lost)


def generic_frame(n: int, k: int, dtype) -> Float[Array, "n k"]:
    """A fixed random orthonormal frame.

    The unit vectors are a bad start: when one of them spans an invariant contracting direction it never turns, and
    the rows come out parallel. A frame in general position grades the rows from the largest down. The first columns do
    not depend on k.

    >>> bool(jnp.allclose(generic_frame(4, 2, jnp.float32), generic_frame(4, 4, jnp.float32)[:, :2], atol=1e-6))
    True
    """
    # A constant made on the host: a generator inside every program would double its compile time.
    columns = np.random.default_rng(20130617).standard_normal((k, n)).T
    return jnp.asarray(np.linalg.qr(columns)[0], dtype)


def graded_svd(
    log_scale: Float[Array, " k"], rows: Float[Array, "k n"], max_sweeps: int = 40
) -> tuple[Float[Array, " k"], Float[Array, "k n"]]:
    """`(log singular values, right singular vectors as rows)` of `diag(exp(log_scale)) @ rows`, largest first.

    One-sided Jacobi: pairs of rows are rotated until all are orthogonal. All k/2 disjoint pairs of a round go at once
    (round robin), k - 1 rounds make a sweep. With rho <= 1 the ratio of the two lengths and c the cosine between the
    rows, the rotation depends on rho and c only, and rho = 0 leaves plain Gram-Schmidt.

    >>> log_s, _ = graded_svd(jnp.array([4000.0, -4000.0]), jnp.array([[0.6, 0.8], [1.0, 0.0]]))
    >>> [round(x, 3) for x in log_s.tolist()]
    [4000.0, -4000.223]
    """
    k, n = rows.shape
    if k == 1:
        return log_scale, rows
    half = (k + 1) // 2
    pad = 2 * half - k
    scale = jnp.concatenate([log_scale, jnp.full(pad, -jnp.inf, rows.dtype)])
    rows = jnp.concatenate([rows, jnp.zeros((pad, n), rows.dtype)])
    tolerance = 4 * np.sqrt(n) * float(jnp.finfo(rows.dtype).eps)

    def turn(a, b):
        """The circle method: the first stays, all others move one seat."""
        if half == 1:
            return a, b
        return jnp.concatenate([a[:1], b[:1], a[1:-1]]), jnp.concatenate([b[1:], a[-1:]])

    def rotate(carry, _):
        (a, b), (sa, sb), worst = carry
        swap = sb > sa
        big, small = jnp.where(swap[:, None], b, a), jnp.where(swap[:, None], a, b)
        s_big, s_small = jnp.where(swap, sb, sa), jnp.where(swap, sa, sb)
        rho = jnp.where(s_small > -jnp.inf, jnp.exp(s_small - jnp.where(s_big > -jnp.inf, s_big, 0)), 0)
        c = jnp.sum(big * small, axis=1)
        gap = (1 - rho) * (1 + rho)
        below = gap + jnp.sqrt(gap**2 + (2 * rho * c) ** 2)
        tau = 2 * c / jnp.where(below > 0, below, 1)
        cosine = 1 / jnp.sqrt(1 + (rho * tau) ** 2)
        log_big, new_big = unit_rows(cosine[:, None] * (big + (rho**2 * tau)[:, None] * small))
        log_small, new_small = unit_rows(cosine[:, None] * (small - tau[:, None] * big))
        worst = jnp.maximum(worst, jnp.max(jnp.abs(c)))
        # Back to their own seats: sorting within a sweep would let some pairs never meet.
        s_big, s_small = s_big + log_big, s_small + log_small
        a, b = turn(jnp.where(swap[:, None], new_small, new_big), jnp.where(swap[:, None], new_big, new_small))
        sa, sb = turn(jnp.where(swap, s_small, s_big), jnp.where(swap, s_big, s_small))
        return ((a, b), (sa, sb), worst), None

    def sweep(carry):
        (ab, s, _), count = carry
        zero = jnp.zeros((), rows.dtype)
        return jax.lax.scan(rotate, (ab, s, zero), length=2 * half - 1)[0], count + 1

    def unfinished(carry):
        (_, _, worst), count = carry
        return (worst > tolerance) & (count < max_sweeps)

    first = ((rows[:half], rows[half:]), (scale[:half], scale[half:]), jnp.asarray(jnp.inf, rows.dtype)), 0
    (ab, s, _), _ = jax.lax.while_loop(unfinished, sweep, first)
    scale, rows = jnp.concatenate(s), jnp.concatenate(ab)
    # NaN must not be sorted away from the first places.
    order = jnp.argsort(jnp.where(jnp.isnan(scale), jnp.inf, scale), descending=True)[:k]
    return scale[order], rows[order]
