"""Exact Jacobians along a trajectory, their products without overflow, and who contributes to a gradient.

Convention: `J_t[i, j] = d x_t[i] / d x_{t-1}[j]`. A product `J_t ... J_{k+1}` grows or shrinks exponentially, at a
different rate in every direction, so it is carried as an orthogonal factor and rows with a scale in logarithms each,
never as a raw product. Where an n x n matrix per step is too much, see `cliffs.spectra`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Int, PyTree

from cliffs._flatten import flatten_step, num_inputs
from cliffs.spectra import _scaled_products
from cliffs.spectra._growth import MAX_SLOPE as MAX_SLOPE
from cliffs.spectra._growth import GrowthReport as GrowthReport
from cliffs.spectra._growth import growth_report as growth_report
from cliffs.typing import Step


def step_jacobians(step: Step, params: PyTree, states: PyTree, inputs: PyTree = None) -> Float[Array, "time n n"]:
    """`J_t = d step(params, x, u_t) / dx` at `x = x_{t-1}`, for every step of a trajectory, by `jacfwd`.

    **Arguments**

    - `step`, `params`: the map.
    - `states`: the states *before* each step, `x_0 .. x_{T-1}`: `[time, n]`, or a pytree with leading time axes (the
      `(c, h)` of an LSTM), which is flattened in the order of `jax.flatten_util.ravel_pytree`.
    - `inputs`: `[time, ...]`, the input of each step; None for an autonomous map.

    **Returns** `[time, n, n]`, n the number of entries of one state. Batches by `vmap`.

    **Raises** `ValueError` when inputs and states differ in length, or the step is no map of the state into itself.

    Source: Pascanu, Mikolov & Bengio (2012), eq. 5.

    >>> from cliffs.recurrent import linear_step
    >>> a = jnp.array([[0.0, 2.0], [1.0, 0.0]])
    >>> step_jacobians(linear_step, a, jnp.ones((3, 2))).shape
    (3, 2, 2)
    """
    flat, vectors = flat_trajectory(step, params, states, inputs)
    jacobian = jax.jacfwd(flat, argnums=1)
    if num_inputs(inputs) is None:
        return jax.vmap(lambda x: jacobian(params, x, inputs))(vectors)
    return jax.vmap(lambda x, u: jacobian(params, x, u))(vectors, inputs)


def flat_trajectory(step: Step, params: PyTree, states: PyTree, inputs: PyTree):
    """`(step on vectors, states [time, n])` for states with a leading time axis; checks the lengths.

    >>> flat_trajectory(lambda p, x, u: x, None, (jnp.zeros((4, 2)), jnp.zeros((4, 3))), None)[1].shape
    (4, 5)
    """
    time, given = num_inputs(states), num_inputs(inputs)
    if not time:
        raise ValueError("states must hold at least one state, with a leading time axis")
    if given is not None and given != time:
        raise ValueError(f"inputs must have one entry per state, got {given} inputs and {time} states")
    flat, first, _ = flatten_step(step, params, jax.tree.map(lambda x: x[0], states), inputs)
    leaves = [jnp.reshape(leaf, (time, -1)).astype(first.dtype) for leaf in jax.tree.leaves(states)]
    return flat, jnp.concatenate(leaves, axis=1)


class JacobianProduct(NamedTuple):
    """`q @ (exp(log_scale)[:, None] * r)`, the product of all steps up to each time."""

    q: Float[Array, "time n n"]
    """Orthogonal."""
    r: Float[Array, "time n n"]
    """Rows of length 1 (zero where the product has lost the direction)."""
    log_scale: Float[Array, "time n"]
    """The logarithm of each row's length, -inf for a zero row."""


@jax.jit
def jacobian_products(jacobians: Float[Array, "time n n"]) -> JacobianProduct:
    """The products `J_t ... J_1` for every t, by repeated QR with a scale in logarithms for each direction.

    **Arguments**: `jacobians` `[time, n, n]`.

    **Returns** a `JacobianProduct`, finite for any number of steps. Jacobians that are not finite give NaN from there
    on.

    >>> p = jacobian_products(jnp.broadcast_to(1.5 * jnp.eye(2), (10_000, 2, 2)))
    >>> bool(jnp.allclose(p.log_scale[-1], 10_000 * jnp.log(1.5), rtol=1e-5))
    True
    """
    frame = _scaled_products.generic_frame(jacobians.shape[-1], jacobians.shape[-1], jacobians.dtype)

    def step(carry, jacobian):
        q, graded = carry
        q, factor = jnp.linalg.qr(jacobian @ q)
        graded = _scaled_products.multiply(jnp.triu(factor), graded)
        return (q, graded), (q, graded.rows, graded.log_scale)

    return JacobianProduct(*jax.lax.scan(step, (frame, _scaled_products.start(frame.T)), jacobians)[1])


@jax.jit
def log_singular_values(product: JacobianProduct) -> Float[Array, "time n"]:
    """Logarithms of all singular values of each product, largest first, the smallest as accurate as the largest.

    The rounding of each QR acts like a relative change of the Jacobians by the dtype's eps. A singular value is known
    no better than such a change moves it: that of a singular Jacobian comes out as about `log(eps)` per step. About 10
    n^3 flops per product: select times with `jax.tree.map(lambda x: x[::10], product)`. Forward-mode differentiable
    only; gradients go through `lyapunov_exponents`.

    **Arguments**: `product` from `jacobian_products`.

    **Returns** `[time, n]` in nats; -inf for a direction that is lost entirely.

    Source: Demmel & Veselic (1992), Jacobi's method is more accurate than QR.

    >>> matrix = jnp.array([[1.5, 1.0], [0.0, 0.5]])
    >>> p = jacobian_products(jnp.broadcast_to(matrix, (10_000, 2, 2)))
    >>> [round(x, 3) for x in (log_singular_values(p)[-1] / 10_000).tolist()]  # log 1.5 and log 0.5
    [0.405, -0.693]
    """
    return jax.vmap(lambda s, r: _scaled_products.graded_svd(s, r)[0])(product.log_scale, product.r)


def step_eigenvalues(jacobians: Float[Array, "time n n"]) -> Complex[Array, "time n"]:
    """Eigenvalues of each step's Jacobian, largest modulus first (LAPACK; on the CPU, as `jnp.linalg.eigvals`).

    **Arguments**: `jacobians` `[time, n, n]`. **Returns** complex `[time, n]`.

    >>> step_eigenvalues(jnp.array([[[0.0, -2.0], [2.0, 0.0]]])).shape
    (1, 2)
    """
    values = jnp.linalg.eigvals(jacobians)
    order = jnp.argsort(jnp.abs(values), axis=-1, descending=True)
    return jnp.take_along_axis(values, order, axis=-1)


class ProductEigenvalues(NamedTuple):
    """Eigenvalues `exp(log_modulus + 1j * phase)`, largest modulus first."""

    log_modulus: np.ndarray
    phase: np.ndarray
    """In (-pi, pi]."""
    converged: bool
    """Whether every block of eigenvalues was narrow enough to be resolved in the dtype."""


def product_eigenvalues(jacobians: Float[Array, "time n n"], *, max_passes: int = 100) -> ProductEigenvalues:
    """All eigenvalues of the product `J_T ... J_1` with their modulus in logarithms, however far they are apart.

    Orthogonal iteration around the cycle of factors separates eigenvalues whose moduli differ by much; what stays
    together (complex pairs, near ties) is a block of narrow range, whose eigenvalues are found directly.

    **Arguments**

    - `jacobians`: `[time, n, n]`, concrete values: the blocks are found on the host, so this is not for `jit`.
    - `max_passes`: passes over the product before the result is returned as it is, with `converged=False`.

    **Returns** `ProductEigenvalues`, arrays of length n; -inf for an eigenvalue that is zero exactly and found as such.
    A defective eigenvalue is only as well determined as by any backward stable method: a zero in a Jordan block of
    size k may come out with modulus near `eps^(1/k)` (of the norm) instead of 0, finite in `log_modulus`.

    **Raises** `ValueError` for Jacobians that are not finite.

    Source: the periodic QR idea of Bojanczyk, Golub & Van Dooren (1992), with unshifted passes.

    >>> matrix = jnp.array([[1.5, 1.0], [0.0, 0.5]])
    >>> values = product_eigenvalues(jnp.broadcast_to(matrix, (10_000, 2, 2)))
    >>> [round(x / 10_000, 3) for x in values.log_modulus.tolist()], values.converged
    ([0.405, -0.693], True)
    """
    jacobians = jnp.asarray(jacobians)
    if not bool(jnp.isfinite(jacobians).all()):
        raise ValueError("jacobians must be finite, got NaN or inf")
    n = jacobians.shape[-1]
    eps = float(jnp.finfo(jacobians.dtype).eps)
    # Within a block eigvals resolves relative to the largest: half of the digits are left for the smallest.
    widest = -0.5 * np.log(eps)
    q = np.asarray(_scaled_products.generic_frame(n, n, jacobians.dtype))
    count = 0
    while True:
        count += 1
        new, rows, scale = (np.asarray(x) for x in _cycle(jacobians, q))
        mixing = q.T @ new
        cuts = [i for i in range(1, n) if np.abs(mixing[i:, :i]).max() <= 10 * n * eps]
        blocks = [slice(a, b) for a, b in zip([0, *cuts], [*cuts, n])]
        alive = np.isfinite(scale)
        width = max(np.ptp(scale[b][alive[b]]) if alive[b].any() else 0.0 for b in blocks)
        q = new
        # The first passes only turn the frame.
        if count >= 2 and (width <= widest or count >= max_passes):
            break
    logs, phases = [], []
    for block in blocks:
        top = np.max(scale[block])
        if not np.isfinite(top):
            logs.append(np.full(block.stop - block.start, top))
            phases.append(np.zeros(block.stop - block.start))
            continue
        graded = np.exp(scale[block] - top)[:, None] * rows[block, block]
        values = np.linalg.eigvals(mixing[block, block] @ graded)
        with np.errstate(divide="ignore"):
            logs.append(np.log(np.abs(values)) + top)
        phases.append(np.angle(values))
    modulus, phase = np.concatenate(logs), np.concatenate(phases)
    order = np.argsort(-modulus, kind="stable")
    return ProductEigenvalues(modulus[order], phase[order], bool(width <= widest))


@jax.jit
def _cycle(jacobians, q):
    """`(Q', rows, log_scale)` with `J_T ... J_1 q = Q' diag(exp(log_scale)) rows`."""

    def step(carry, jacobian):
        q, graded = carry
        q, factor = jnp.linalg.qr(jacobian @ q)
        # Positive diagonals: the frames of two passes can then be compared column by column.
        sign = jnp.where(jnp.diagonal(factor) < 0, -1, 1).astype(q.dtype)
        return (q * sign, _scaled_products.multiply(jnp.triu(sign[:, None] * factor), graded)), None

    eye = jnp.eye(q.shape[0], dtype=q.dtype)
    (q, graded), _ = jax.lax.scan(step, (q, _scaled_products.start(eye)), jacobians)
    return q, graded.rows, graded.log_scale


def temporal_components(
    step_loss: Callable[[PyTree, Int[Array, ""]], ArrayLike],
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    num_steps: int | None = None,
) -> tuple[Float[Array, "time time"], PyTree]:
    """Norms of the temporal components `dE_t/dx_t dx_t/dx_k d+x_k/dtheta` for all t and k.

    Each step gets a copy of the parameters of its own: the derivative of `E_t` with respect to the copy of step k is
    the component, exactly. One backward pass per t, one at a time: memory for T copies of the parameters, not T^2.

    **Arguments**

    - `step_loss`: `step_loss(state, t) -> E_t`, the cost at time t = 0 .. T-1 after step t.
    - `step`, `params`, `initial_state`: the network; the state may be a pytree.
    - `inputs`: `[time, ...]`, or None for an autonomous map, with `num_steps`.
    - `num_steps`: T, needed only without inputs.

    **Returns** `(norms [t, k], total)`; `norms` is 0 for k > t, `total` the sum of all components, which is the
    gradient of `sum_t E_t`.

    **Raises** `ValueError` without inputs and `num_steps`, or when the two disagree.

    Source: Pascanu, Mikolov & Bengio (2012), eqs. 3 to 5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> params = OneUnitParams(jnp.asarray(5.0), jnp.asarray(-2.0))
    >>> norms, total = temporal_components(lambda x, t: x**2, one_unit_step, params, jnp.asarray(0.5), num_steps=4)
    >>> norms.shape, float(norms[0, 1])
    ((4, 4), 0.0)
    """
    given = num_inputs(inputs)
    time = given if num_steps is None else num_steps
    if time is None or time < 1:
        raise ValueError(f"num_steps must be at least 1, and is needed for an autonomous map, got {num_steps}")
    if given is not None and given != time:
        raise ValueError(f"num_steps must be the length of inputs, got {num_steps} and {given} inputs")
    copies = jax.tree.map(lambda p: jnp.broadcast_to(p, (time, *jnp.shape(p))), params)

    def costs(copies):
        def body(state, x):
            copy, u, t = x
            state = step(copy, state, u)
            return state, step_loss(state, t)

        return jax.lax.scan(body, initial_state, (copies, inputs, jnp.arange(time)))[1]

    values, pull = jax.vjp(costs, copies)

    def one(total, t):
        (components,) = pull(jnp.zeros_like(values).at[t].set(1))  # leaves [k, ...]
        # Components reach 1e-30 and 1e30: squares of float32 would underflow or overflow.
        flat = jnp.concatenate([c.reshape(time, -1) for c in jax.tree.leaves(components)], axis=1)
        size = jnp.max(jnp.abs(flat), axis=1)
        scaled = flat / jnp.where(size > 0, size, 1)[:, None]
        total = jax.tree.map(lambda a, c: a + c.sum(0), total, components)
        return total, size * jnp.sqrt(jnp.sum(scaled**2, axis=1))

    zero = jax.tree.map(lambda p: jnp.zeros(jnp.shape(p), jnp.result_type(p)), params)
    total, norms = jax.lax.scan(one, zero, jnp.arange(time))
    return norms, total
