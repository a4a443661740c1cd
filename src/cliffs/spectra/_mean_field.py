"""What n to infinity says about a random network: its largest Lyapunov exponent by Gaussian self-consistency."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@functools.partial(jax.jit, static_argnames=("num_nodes", "num_iterations"))
def mean_field_exponent(
    gain: Float[Array, ""] | float,
    noise: Float[Array, ""] | float = 0.0,
    *,
    num_nodes: int = 1001,
    num_iterations: int = 2000,
) -> Float[Array, ""]:
    """The largest Lyapunov exponent of `x' = g J tanh(x) + noise` for n to infinity, `J_ij ~ N(0, 1/n)`.

    In the limit the entries of x are Gaussian with the variance that solves `q = g^2 E tanh(sqrt(q) z)^2 + s^2`, and a
    perturbation grows as `l = 1/2 log(g^2 E act'(sqrt(q) z)^2)` per step. Without noise the transition to chaos is at
    g = 1: `l = log g` below it, and just above it `l` is positive of second order in g - 1. This is discrete time; the
    exponent of Sompolinsky's continuous-time network is another function with the same transition.

    **Arguments**

    - `gain`: g >= 0.
    - `noise`: s, the standard deviation of independent Gaussian input to each unit, redrawn at every step.
    - `num_nodes`: of the quadrature on [-10, 10]; 1001 are enough up to g = 20.
    - `num_iterations`: of the fixed-point iteration for q, monotone from above; 2000 leave less than 1e-8 for
      |g - 1| > 0.01.

    **Returns** a scalar in nats per step.

    Source: Sompolinsky, Crisanti & Sommers (1988); Molgedey, Schuchhardt & Schuster (1992) for discrete time.

    >>> round(float(mean_field_exponent(0.5)), 4), bool(mean_field_exponent(1.5) > 0)
    (-0.6931, True)
    """
    gain = jnp.asarray(gain, jnp.result_type(gain, float))
    # The trapezoidal rule converges exponentially here, and unlike Gauss-Hermite also where tanh(sqrt(q) z) is steep.
    nodes = np.linspace(-10, 10, num_nodes)
    density = np.exp(-(nodes**2) / 2)
    z, w = jnp.asarray(nodes, gain.dtype), jnp.asarray(density / density.sum(), gain.dtype)

    # Without noise q = 0 is the answer up to g = 1, and the iteration is only algebraic at g = 1. Its derivative would
    # be that of sqrt at 0: both are kept out, so that the gradient is finite too.
    silent = (gain <= 1) & (noise == 0)
    g = jnp.where(silent, 2, gain)

    def next_variance(q, _):
        return g**2 * jnp.sum(w * jnp.tanh(jnp.sqrt(q) * z) ** 2) + noise**2, None

    q, _ = jax.lax.scan(next_variance, g**2 + noise**2, length=num_iterations)
    slopes = 1 - jnp.tanh(jnp.where(silent, 0, jnp.sqrt(q)) * z) ** 2
    return 0.5 * jnp.log(gain**2 * jnp.sum(w * slopes**2))
