"""Exact Jacobians along a trajectory, their products without overflow, and who contributes to a gradient.

Convention: `J_t[i, j] = d x_t[i] / d x_{t-1}[j]`. A product `J_t ... J_{k+1}` grows or shrinks exponentially, so it
is carried as an orthogonal factor and a triangular one with its scale in logarithms, never as a raw product.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.initializers import spectral_radius
from cliffs.rnn import Step


def step_jacobians(
    step: Step, params: PyTree, states: Float[Array, "time n"], inputs: PyTree = None
) -> Float[Array, "time n n"]:
    """`J_t = d step(params, x, u_t) / dx` at `x = x_{t-1}`, for every step of a trajectory, by `jacfwd`.

    **Arguments**

    - `step`, `params`: the map.
    - `states`: `[time, n]`, the states *before* each step, `x_0 .. x_{T-1}`.
    - `inputs`: `[time, ...]`, the input of each step; None for an autonomous map.

    **Returns** `[time, n, n]`. Batches by `vmap`.

    Source: Pascanu, Mikolov & Bengio (2012), eq. 5.

    >>> from cliffs.maps import linear_step
    >>> a = jnp.array([[0.0, 2.0], [1.0, 0.0]])
    >>> step_jacobians(linear_step, a, jnp.ones((3, 2))).shape
    (3, 2, 2)
    """
    jacobian = jax.jacfwd(step, argnums=1)
    if not jax.tree.leaves(inputs):
        return jax.vmap(lambda x: jacobian(params, x, inputs))(states)
    return jax.vmap(lambda x, u: jacobian(params, x, u))(states, inputs)


class JacobianProduct(NamedTuple):
    """`exp(log_scale) * q @ r`, the product of all steps up to each time."""

    q: Float[Array, "time n n"]
    """Orthogonal."""
    r: Float[Array, "time n n"]
    """Upper triangular, largest entry 1 in magnitude (all zero for a product that is zero)."""
    log_scale: Float[Array, " time"]


def jacobian_products(jacobians: Float[Array, "time n n"]) -> JacobianProduct:
    """The products `J_t ... J_1` for every t, by repeated QR with the scale in logarithms.

    **Arguments**: `jacobians` `[time, n, n]`.

    **Returns** a `JacobianProduct`, finite for any number of steps.

    >>> p = jacobian_products(jnp.broadcast_to(1.5 * jnp.eye(2), (10_000, 2, 2)))
    >>> bool(jnp.isclose(p.log_scale[-1], 10_000 * jnp.log(1.5), rtol=1e-4))
    True
    """
    n = jacobians.shape[-1]
    eye = jnp.eye(n, dtype=jacobians.dtype)

    def multiply(carry, jacobian):
        q, r, log_scale, lost = carry
        q, factor = jnp.linalg.qr(jacobian @ q)
        r = jnp.triu(factor) @ r
        size = jnp.max(jnp.abs(r))
        safe = jnp.where(size > 0, size, 1)
        # Kahan's sum: ten thousand float32 additions would lose the fourth digit.
        term = jnp.log(safe) - lost
        total = log_scale + term
        carry = q, r / safe, total, (total - log_scale) - term
        return carry, carry[:3]

    zero = jnp.zeros((), jacobians.dtype)
    return JacobianProduct(*jax.lax.scan(multiply, (eye, eye, zero, zero), jacobians)[1])


def log_singular_values(product: JacobianProduct) -> Float[Array, "time n"]:
    """Logarithms of the singular values of each product, largest first.

    Those smaller than the largest by more than the dtype's resolution are lost to rounding, as in any single matrix;
    for the whole spectrum of long products use `cliffs.lyapunov`, which keeps a scale for each direction.

    >>> p = jacobian_products(jnp.broadcast_to(jnp.diag(jnp.array([0.5, 0.25])), (40, 2, 2)))
    >>> round(float(log_singular_values(p)[-1, 0] / jnp.log(0.5)), 3)
    40.0
    """
    values = jnp.linalg.svd(product.r, compute_uv=False)
    return product.log_scale[:, None] + jnp.log(values)


def temporal_components(
    loss: Callable[[Any, Any], Array], step: Step, params: PyTree, initial_state: Array, inputs: PyTree
) -> tuple[Float[Array, "time time"], PyTree]:
    """Norms of the temporal components `dE_t/dx_t dx_t/dx_k d+x_k/dtheta` for all t and k.

    Each step gets a copy of the parameters of its own: the derivative of `E_t` with respect to the copy of step k is
    the component, exactly.

    **Arguments**

    - `loss`: `loss(state, t) -> E_t`, the cost at time t = 0 .. T-1 after step t.
    - `step`, `params`, `initial_state`, `inputs`: the network; `inputs` with leading time axis T.

    **Returns** `(norms [t, k], total)`; `norms` is 0 for k > t, `total` the sum of all components, which is the
    gradient of `sum_t E_t`.

    Source: Pascanu, Mikolov & Bengio (2012), eqs. 3 to 5.

    >>> from cliffs.maps import OneUnitParams, one_unit_step
    >>> params = OneUnitParams(jnp.asarray(5.0), jnp.asarray(-2.0))
    >>> norms, total = temporal_components(lambda x, t: x**2, one_unit_step, params, jnp.asarray(0.5), jnp.zeros(4))
    >>> norms.shape, float(norms[0, 1])
    ((4, 4), 0.0)
    """
    time = jax.tree.leaves(inputs)[0].shape[0]
    copies = jax.tree.map(lambda p: jnp.broadcast_to(p, (time, *jnp.shape(p))), params)

    def costs(copies):
        def body(state, x):
            copy, u, t = x
            state = step(copy, state, u)
            return state, loss(state, t)

        return jax.lax.scan(body, initial_state, (copies, inputs, jnp.arange(time)))[1]

    components = jax.jacrev(costs)(copies)  # leaves [t, k, ...]
    squares = [jnp.sum(jnp.abs(c) ** 2, axis=tuple(range(2, c.ndim))) for c in jax.tree.leaves(components)]
    return jnp.sqrt(sum(squares)), jax.tree.map(lambda c: c.sum((0, 1)), components)


class GrowthReport(NamedTuple):
    """What a recurrent matrix alone says about growth."""

    largest_singular_value: Array
    """Of W, times `max |act'|`: below 1 gradients cannot explode (the correct necessary condition)."""
    spectral_radius: Array
    """Of W, times `max |act'|`: the first version of the paper's wording, which bounds only the asymptotic rate."""
    peak_power_norm: Array
    """`max_k ||W^k||_2` over the steps looked at: transient growth of a non-normal matrix."""
    peak_power: Array
    """The k where it is reached."""
    power_norms: Array
    """`||W^k||_2` for k = 1 .. num_powers."""
    numerical_abscissa: Array
    """Largest eigenvalue of the symmetric part of W: the initial growth rate of `exp(t W)`."""


MAX_SLOPE = {"tanh": 1.0, "logistic": 0.25, "relu": 1.0, "identity": 1.0}


def growth_report(w_rec: Float[Array, "n n"], activation: str = "identity", num_powers: int = 100) -> GrowthReport:
    """Can gradients explode? Singular value, spectral radius and transient growth of a recurrent matrix.

    **Arguments**: `w_rec` `[n, n]`; the activation's name; how many powers to look at.

    **Returns** a `GrowthReport`. Powers are of W itself, without the activation's slope.

    **Raises** `ValueError` for another activation.

    Source: Pascanu, Mikolov & Bengio (ICML 2013), section 2.1 (singular value; arXiv v1 says spectral radius).

    >>> report = growth_report(jnp.array([[0.9, 5.0], [0.0, 0.9]]))
    >>> int(report.peak_power), round(float(report.peak_power_norm), 3), bool(report.spectral_radius < 1)
    (9, 19.379, True)
    """
    if activation not in MAX_SLOPE:
        raise ValueError(f"activation must be one of {sorted(MAX_SLOPE)}, got {activation!r}")
    slope = MAX_SLOPE[activation]

    def power(current, _):
        current = current @ w_rec
        return current, jnp.linalg.norm(current, 2)

    norms = jax.lax.scan(power, jnp.eye(w_rec.shape[0], dtype=w_rec.dtype), length=num_powers)[1]
    return GrowthReport(
        slope * jnp.linalg.norm(w_rec, 2),
        slope * spectral_radius(w_rec),
        norms.max(),
        norms.argmax() + 1,
        norms,
        jnp.linalg.eigvalsh((w_rec + w_rec.T) / 2)[-1],
    )
