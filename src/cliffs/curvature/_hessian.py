"""Hessian and Gauss-Newton products of any loss, leading and trailing eigenpairs, and the gradient's place among them.

Everything works on a *product* `matvec(vector) -> vector` over pytrees like the parameters, so the Hessian itself is
never formed. `hessian_operator` and `gauss_newton_operator` make such products; the first linearises the gradient once,
so a Lanczos run pays for the forward pass once.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from cliffs._losses import scalar
from cliffs.curvature._lanczos import Operator, alike, flatten, product, ritz, safe_norm, tridiagonalise, unit
from cliffs.typing import Objective


class Eigenpairs(NamedTuple):
    """Some eigenpairs of a symmetric operator, eigenvalues descending."""

    values: Float[Array, " pairs"]
    vectors: PyTree
    """Leaves `[pairs, ...]`, like the parameters; of unit norm and orthogonal to each other, the sign is arbitrary."""
    residuals: Float[Array, " pairs"]
    """`||A v - value v||`: some eigenvalue of A lies within this distance of the value."""
    converged: Bool[Array, " pairs"]
    """Whether the residual is at most `tolerance` times the largest |eigenvalue| seen."""
    restarts: Int[Array, ""]
    """How often an invariant subspace was exhausted before the steps were used up."""


class Alignment(NamedTuple):
    """Where a gradient lies among eigenvectors."""

    cosines: Float[Array, " pairs"]
    """`|<g, v_i>| / ||g||`, in the order of the pairs; 0 for a zero gradient."""
    share: Float[Array, " pairs"]
    """`share[k - 1]`: the part of `||g||^2` in the space of the k pairs of largest |eigenvalue|."""


def hessian_vector_product(loss: Objective, params: PyTree, vector: PyTree) -> PyTree:
    """`H v`, the Hessian of the loss times a vector: the derivative of the gradient along `v` (forward over reverse).

    It costs about two gradients. It goes through `cliffs.unroll`, whose rule allows `jvp` of `grad`.

    **Arguments**

    - `loss`: `loss(params) -> scalar`, twice differentiable; `cliffs.training.at_batch` makes one of a training loss.
    - `params`: any pytree of floating-point arrays; its dtype is the precision.
    - `vector`: a pytree like `params`.

    **Returns** a pytree like `params`.

    **Raises** `ValueError` when `vector` is not like `params`.

    Source: Pearlmutter (1994), Fast exact multiplication by the Hessian.

    >>> hessian_vector_product(lambda p: p[0] ** 2 * p[1], jnp.array([1.0, 3.0]), jnp.array([1.0, 0.0])).tolist()
    [6.0, 2.0]
    """
    params, vector = alike(params, vector, "vector")
    return jax.jvp(jax.grad(scalar(loss)), (params,), (vector,))[1]


def hessian_operator(loss: Objective, params: PyTree) -> Operator:
    """`v -> H v` with the gradient linearised once at `params`.

    The forward pass and the residuals of the backward pass are computed here and kept, so that each product is cheaper
    than `hessian_vector_product` (both measured in `experiments/benchmarks/curvature.py`); the memory is that of one
    Hessian-vector product. Build it inside the jitted function that uses it.

    **Arguments**: `loss` and `params` as in `hessian_vector_product`.

    **Returns** a linear function on pytrees like `params`.

    >>> matvec = hessian_operator(lambda p: 0.5 * jnp.sum(jnp.array([1.0, 4.0]) * p**2), jnp.zeros(2))
    >>> matvec(jnp.ones(2)).tolist()
    [1.0, 4.0]
    """
    params = jax.tree.map(jnp.asarray, params)
    return jax.linearize(jax.grad(scalar(loss)), params)[1]


def gauss_newton_operator(
    outputs: Callable[[PyTree], PyTree], output_loss: Callable[[PyTree], Array], params: PyTree
) -> Operator:
    """`v -> G v = J^T H_out J v`, the Gauss-Newton part of the Hessian of `output_loss(outputs(params))`.

    J is the Jacobian of the outputs and H_out the Hessian of the loss with respect to them; G is positive semi-definite
    when `output_loss` is convex (squared error, cross-entropy of logits). What is missing from the full Hessian is
    `sum_i dE/dy_i Hessian(y_i)`, zero for outputs that are linear in the parameters. `J v` is taken as the transpose of
    the reverse pass, so the fast rule of `cliffs.unroll` serves (it has no forward mode of its own).

    **Arguments**

    - `outputs`: `outputs(params) -> y`, any pytree: logits or predictions.
    - `output_loss`: `output_loss(y) -> scalar`.
    - `params`: any pytree of floating-point arrays.

    **Returns** a linear function on pytrees like `params`.

    Source: Schraudolph (2002); Martens & Sutskever (2011), the curvature of Hessian-free optimisation.

    >>> matvec = gauss_newton_operator(lambda p: jnp.array([3.0, 1.0]) * p, lambda y: 0.5 * jnp.sum(y**2), jnp.ones(2))
    >>> matvec(jnp.ones(2)).tolist()
    [9.0, 1.0]
    """
    params = jax.tree.map(jnp.asarray, params)
    y, pull = jax.vjp(outputs, params)
    push = jax.linear_transpose(lambda u: pull(u)[0], y)
    curve = jax.linearize(jax.grad(output_loss), y)[1]
    return lambda vector: pull(curve(push(vector)[0]))[0]


def curvature_along(matvec: Operator, direction: PyTree) -> Float[Array, ""]:
    """`d^T A d / ||d||^2`, the curvature along a direction; 0 for a zero direction.

    With `matvec` the Hessian's and `d` the gradient this is the second derivative of the loss on the line that plain
    gradient descent follows.

    >>> float(curvature_along(lambda v: jnp.array([1.0, 5.0]) * v, jnp.array([0.0, 1e-30])))
    5.0
    """
    operate, restore, _, dtype = flatten(matvec, direction)
    del restore
    d = unit(ravel_pytree(direction)[0].astype(dtype))
    return product(d, operate(d))


def eigenpairs(
    matvec: Operator,
    like: PyTree,
    key: Key[Array, ""],
    *,
    num_leading: int = 1,
    num_trailing: int = 0,
    num_iterations: int = 40,
    tolerance: float | None = None,
) -> Eigenpairs:
    """The largest and the smallest eigenvalues of a symmetric operator with their eigenvectors, by Lanczos.

    Full re-orthogonalisation; an invariant subspace found early (low rank, zero operator, multiple eigenvalues) is
    left through a random vector. Pure, for `jit` and for `vmap` over parameters and keys. Memory: `num_iterations + 1`
    vectors. The eigenvalue of largest magnitude is the first or the last when both ends are asked for.

    **Arguments**

    - `matvec`: `matvec(vector) -> vector` on pytrees, linear and symmetric; see `hessian_operator`.
    - `like`: a pytree like its argument; only structure, shapes and dtypes are used. Arithmetic is at least float32.
    - `key`: of the random start vector.
    - `num_leading`, `num_trailing`: how many of the algebraically largest and smallest eigenvalues.
    - `num_iterations`: Krylov dimension (at most the number of parameters is used); one product each. The residuals
      cost `num_leading + num_trailing` more.
    - `tolerance`: of `converged`, relative to the largest |eigenvalue|; the square root of the resolution of
      the coarsest dtype in `like` by default: an eigenvalue apart from the others is then accurate to about the
      resolution itself.

    **Returns** `Eigenpairs`, values descending: first the leading ones, last the trailing ones. Values that are not
    finite (an operator that overflows) come with `converged` False.

    **Raises** `ValueError` for counts that are negative, zero together or larger than the Krylov dimension, and for an
    operator that does not fit `like`; `TypeError` for leaves that are not real floating point.

    Source: Lanczos (1950); Parlett, The symmetric eigenvalue problem (1980), chapter 13.

    >>> pairs = eigenpairs(lambda v: jnp.array([3.0, -7.0, 1.0]) * v, jnp.zeros(3), jax.random.key(0), num_trailing=1)
    >>> [round(float(x), 4) for x in pairs.values], pairs.converged.tolist()
    ([3.0, -7.0], [True, True])
    """
    operate, restore, size, dtype = flatten(matvec, like)
    steps = min(num_iterations, size)
    if num_leading < 0 or num_trailing < 0 or not 1 <= num_leading + num_trailing <= steps:
        raise ValueError(
            "num_leading and num_trailing must be non-negative and together between 1 and "
            f"min(num_iterations, number of parameters) = {steps}, got {num_leading} and {num_trailing}"
        )
    # Products come back rounded to the parameters' dtypes: the coarsest bounds what a residual can reach.
    coarsest = max(float(jnp.finfo(jnp.result_type(x)).eps) for x in jax.tree.leaves(like))
    relative = coarsest**0.5 if tolerance is None else tolerance
    chosen = jnp.array([*range(steps - 1, steps - 1 - num_leading, -1), *range(num_trailing - 1, -1, -1)])

    @jax.jit  # one program also for a caller who does not jit
    def run(key):
        key_start, key_restart = jax.random.split(key)
        t = tridiagonalise(operate, jax.random.normal(key_start, (size,), dtype), key_restart, steps)
        values, rotations = ritz(t)
        vectors = jax.vmap(unit)(product(rotations[:, chosen].T, t.basis))
        residuals = jax.lax.map(lambda x: safe_norm(operate(x[1]) - x[0] * x[1]), (values[chosen], vectors))
        converged = residuals <= relative * jnp.maximum(jnp.abs(values[0]), jnp.abs(values[-1]))
        return Eigenpairs(values[chosen], jax.vmap(restore)(vectors), residuals, converged, t.restarts)

    return run(key)


def alignment(gradient: PyTree, pairs: Eigenpairs) -> Alignment:
    """Cosines of a gradient with eigenvectors, and the share of its energy in the space of the top k.

    **Arguments**

    - `gradient`: a pytree like one eigenvector.
    - `pairs`: from `eigenpairs`; ordered by |eigenvalue| for the shares, whichever ends were asked for.

    **Returns** `Alignment`. For a random gradient in n dimensions a squared cosine is 1 / n on average.

    **Raises** `ValueError` when the gradient is not like the eigenvectors.

    Source: the hypothesis of Pascanu, Mikolov & Bengio (2012), section 2.4; top-k shares as in Gur-Ari, Roberts & Dyer
    (2018), Gradient descent happens in a tiny subspace.

    >>> pairs = eigenpairs(lambda v: jnp.array([5.0, 1.0]) * v, jnp.zeros(2), jax.random.key(0), num_leading=2)
    >>> a = alignment(jnp.array([3.0, 4.0]), pairs)
    >>> [round(float(x), 4) for x in (*a.cosines, *a.share)]
    [0.6, 0.8, 0.36, 1.0]
    """
    alike(jax.tree.map(lambda v: v[0], pairs.vectors), gradient, "gradient")
    flat = jax.vmap(lambda v: ravel_pytree(v)[0])(pairs.vectors)
    g = unit(ravel_pytree(gradient)[0].astype(flat.dtype))
    cosines = jnp.abs(product(flat, g))
    order = jnp.argsort(-jnp.abs(pairs.values))
    return Alignment(cosines, jnp.cumsum(cosines[order] ** 2))
