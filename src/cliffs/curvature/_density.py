"""Trace and spectral density of a symmetric operator from a few random probes, each with its statistical error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Key, PyTree

from cliffs.curvature._lanczos import Operator, flatten, product, ritz, tridiagonalise


class TraceEstimate(NamedTuple):
    """An unbiased estimate with its standard error."""

    trace: Float[Array, ""]
    standard_error: Float[Array, ""]
    samples: Float[Array, " samples"]


class SpectralDensity(NamedTuple):
    """Gauss quadratures of the spectrum: `tr f(A) / n` is about the mean over probes of `sum(weights * f(nodes))`."""

    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]
    """Non-negative, each row sums to 1."""
    dimension: int
    """The number n of eigenvalues."""


def trace(
    matvec: Operator, like: PyTree, key: Key[Array, ""], *, num_samples: int = 100, chunk_size: int = 1
) -> TraceEstimate:
    """`tr A`, the mean of `z^T A z` over random signs z (Hutchinson), with its standard error.

    The variance of one sample is `2 sum_{i != j} A_ij^2`: exact for a diagonal operator.

    **Arguments**

    - `matvec`, `like`: as in `cliffs.curvature.eigenpairs`.
    - `key`: of the probes.
    - `num_samples`: number of probes, at least 2; one product each.
    - `chunk_size`: products evaluated side by side.

    **Returns** `TraceEstimate`; the standard error is the samples' standard deviation over the root of their number.

    **Raises** `ValueError` for fewer than 2 samples.

    Source: Hutchinson (1990), A stochastic estimator of the trace of the influence matrix.

    >>> estimate = trace(lambda v: jnp.array([1.0, 2.0, 4.0]) * v, jnp.zeros(3), jax.random.key(0), num_samples=3)
    >>> float(estimate.trace), float(estimate.standard_error)
    (7.0, 0.0)
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2 (for a standard error), got {num_samples}")
    operate, _, size, dtype = flatten(matvec, like)

    def sample(k):
        z = jax.random.rademacher(k, (size,), dtype)
        return product(z, operate(z))

    @jax.jit
    def run(key):
        return jax.lax.map(sample, jax.random.split(key, num_samples), batch_size=min(chunk_size, num_samples))

    samples = run(key)
    return TraceEstimate(samples.mean(), samples.std(ddof=1) / num_samples**0.5, samples)


def spectral_density(
    matvec: Operator,
    like: PyTree,
    key: Key[Array, ""],
    *,
    num_probes: int = 8,
    num_iterations: int = 40,
    chunk_size: int = 1,
) -> SpectralDensity:
    """The distribution of the eigenvalues by stochastic Lanczos quadrature.

    **Arguments**

    - `matvec`, `like`: as in `cliffs.curvature.eigenpairs`.
    - `key`: of the probes.
    - `num_probes`: random unit vectors, uniform on the sphere; the spread between them is the statistical error.
    - `num_iterations`: Lanczos steps of each; moments up to order `2 num_iterations - 1` are exact for the probe.
    - `chunk_size`: probes evaluated side by side.

    **Returns** `SpectralDensity`; draw it with `smoothed`.

    **Raises** `ValueError` for a count below 1.

    Source: Golub & Welsch (1969); Ghorbani, Krishnan & Xiao (2019), An investigation into neural net optimization via
    Hessian eigenvalue density.

    >>> d = spectral_density(lambda v: 3.0 * v, jnp.zeros(5), jax.random.key(0), num_probes=2, num_iterations=3)
    >>> [round(float(x), 4) for x in (d.weights * d.nodes).sum(1)]
    [3.0, 3.0]
    """
    for name, count in (("num_probes", num_probes), ("num_iterations", num_iterations)):
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    operate, _, size, dtype = flatten(matvec, like)

    def probe(k):
        key_start, key_restart = jax.random.split(k)
        t = tridiagonalise(operate, jax.random.normal(key_start, (size,), dtype), key_restart, num_iterations)
        nodes, vectors = ritz(t)
        return nodes, vectors[0] ** 2

    @jax.jit
    def run(key):
        return jax.lax.map(probe, jax.random.split(key, num_probes), batch_size=min(chunk_size, num_probes))

    nodes, weights = run(key)
    return SpectralDensity(nodes, weights, size)


def smoothed(
    density: SpectralDensity, points: Float[Array, " points"], width: float | Array
) -> Float[Array, " points"]:
    """The density with every node widened to a Gaussian, `mean_probes sum_i w_i N(x; node_i, width^2)`.

    **Arguments**: the quadratures; where to evaluate; the Gaussians' standard deviation, in units of eigenvalues.

    **Returns** the density at the points; it integrates to 1.

    **Raises** `ValueError` for a width that is not positive.

    >>> d = SpectralDensity(jnp.array([[0.0]]), jnp.array([[1.0]]), 1)
    >>> round(float(smoothed(d, jnp.array([0.0]), 1.0)[0]), 4)
    0.3989
    """
    if not isinstance(width, Tracer) and not jnp.all(jnp.asarray(width) > 0):
        raise ValueError(f"width must be positive, got {width}")
    x = (points[:, None, None] - density.nodes) / width
    bumps = jnp.exp(-0.5 * x**2) / (width * (2 * jnp.pi) ** 0.5)
    return (bumps * density.weights).sum(-1).mean(-1)
