"""Spectral clipping: the singular values of each matrix of the gradient cut at a limit."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from cliffs.clipping._leaves import compute_dtype, is_number, named_leaves, stands_for_params, whole, wide
from cliffs.clipping._outcome import Outcome, rescaled_parts
from cliffs.clipping._safe_norm import leaf_norms
from cliffs.clipping._singular_values import decomposed, hard, soft, softened
from cliffs.clipping._spectral_limits import Limit, check_limit, followed, numbers_kept
from cliffs.clipping._strategy import NonFinite, strategy
from cliffs.clipping._subspace import first_basis, largest_singular_value, spread_as

_ROUNDS, _START_ROUNDS = 3, 20  # of the iteration for a leading singular value, from the second update on and at first


class SpectralClipState(NamedTuple):
    """State of `clip_by_spectral_norm`."""

    count: Int[Array, ""]
    limits: dict[str, Float[Array, "*matrices numbers"]]
    """From the path of an array to what its limit keeps: an average and its weight, or a limit; empty for numbers."""
    basis: dict[str, Float[Array, "*matrices n block"]]
    """To the subspace in which the leading singular value is looked for; empty where a decomposition finds it."""


def clip_by_spectral_norm(
    max_norm: Limit = 1.0,
    mode: Literal["hard", "soft"] = "hard",
    num_iterations: int = 10,
    stacked: Callable[[str], bool] | None = None,
    *,
    nonfinite: NonFinite = "propagate",
) -> optax.GradientTransformationExtraArgs:
    """Cut the singular values of each matrix at `c = max_norm`, which removes a spike in a few directions.

    - `"hard"`: `U min(S, c) V^T`. Below the limit every bit stays.
    - `"soft"`: `(I + G G^T / c^2)^(-1/2) G`, that is `s -> s / sqrt(1 + (s / c)^2)`, by Newton-Schulz iterations
      `T = (3 I - Z Y) / 2`, `Y <- Y T`, `Z <- T Z`: products of matrices alone. All singular values become smaller.

    An array of one axis or none, or a matrix of one row or column, has one singular value, its norm. An array of more
    axes becomes a matrix by flattening all but the last one: `[height, width, in, out]` becomes `[height width in,
    out]`. Where `stacked` says so the last two axes are matrices and those before count them (layers of a scanned
    transformer).

    Hard clipping computes a singular value decomposition. Methods that use products alone need more of them the further
    a value lies above `c`, and leave rounding errors in proportion to the largest value, which may exceed `c`
    themselves; with the decomposition `c` holds for any spike. The price is a decomposition of each matrix at each
    step: for 768 x 768 about twice, for 768 x 3072 seven times the processor time of 10 iterations on a CPU. For large
    models take `"soft"`.

    Soft clipping gives `q s / sqrt(1 + (s / c)^2)` with `q = 1` in the limit of many iterations and `q <= 1` before, so
    never more than the formula. `1 - q` follows from `r = sqrt((c^2 + s^2) / (c^2 + b))`, where b is the smaller one of
    two bounds of the largest squared value, `max_i sum_j |G G^T|_ij` and `||G G^T||_F`. After 10 iterations it is below
    1e-9 for `r >= 0.1`, 5e-4 at 0.05, 0.47 at 0.01: values far below a spike of 100 times the limit are halved. Twice
    the iterations reach `r = 0.002` as well as 10 do 0.1.

    **Arguments**

    - `max_norm`: c, `>= 0`; a number, a traced scalar or a schedule; or `EmaLimit` or `QuantileLimit`, one limit for
      each matrix that follows its leading singular value. In soft mode that value comes from an iteration with eight
      vectors that starts where the last update left off: exact up to eight rows or columns, beyond a close estimate
      from below.
    - `mode`: see above. `num_iterations`: of Newton-Schulz, at least 1, a plain number.
    - `stacked`: `stacked(path) -> bool`, see above; no leaf by default. Under `optax.inject_hyperparams` these two go
      into `static_args`.
    - `nonfinite`: see `cliffs.clipping.NonFinite`; a bad gradient moves no limit.

    A matrix that is spread over devices inside `shard_map` is taken piece by piece here: singular values are those of
    the whole, so gather it first. (Outside of `shard_map` JAX does so by itself.)

    **Returns** an `optax.GradientTransformationExtraArgs` with `SpectralClipState`.

    **Raises** `ValueError` for a number out of range or an unknown mode, and, with a limit that follows, for a gradient
    with other leaves than `init` saw (missing ones, None, are allowed: their limits stay).

    Source: hard, with limits that follow, Yukhimchuk, Kolar, Takáč & Choudhury (2026), arXiv 2605.11838, whose code
    flattens all but the first axis, where PyTorch has the outputs; soft, Jiang, Semenov & Stich (2026), SPECTRA, arXiv
    2603.14315, with c = 10 on updates (after Adam, where `c lr` stays constant in warm-up) and c = 0.1 on gradients.
    Their code iterates in bfloat16, here it is float32 at least; it leaves vectors with a norm up to c alone and
    divides longer ones by `sqrt(1 + (n / c)^2)`, a jump from c to 0.71 c, where here every vector is divided.

    >>> rule = clip_by_spectral_norm(2.0)
    >>> grads = {"kernel": jnp.diag(jnp.array([50.0, 1.0])), "bias": jnp.array([0.6, 0.8])}
    >>> updates, _ = rule.update(grads, rule.init(grads))
    >>> [round(float(x), 4) for x in jnp.diag(updates["kernel"])], [round(float(x), 4) for x in updates["bias"]]
    ([2.0, 1.0], [0.6, 0.8])
    """
    check_limit("max_norm", max_norm)
    if mode not in ("hard", "soft"):
        raise ValueError(f"mode must be 'hard' or 'soft', got {mode!r}")
    if not isinstance(num_iterations, int | np.integer) or isinstance(num_iterations, bool) or num_iterations < 1:
        raise ValueError(f"num_iterations must be a whole number >= 1, got {num_iterations!r}")
    numbers = numbers_kept(max_norm)
    iterates = mode == "soft" and numbers > 0

    def shape_of(name: str, x: Array) -> tuple[int, ...] | None:
        """The shape `[*matrices, m, n]` that an array is given; None for vectors."""
        if x.ndim > 2 and stacked is not None and stacked(name):
            return (math.prod(x.shape[:-2]), *x.shape[-2:])
        shape = (math.prod(x.shape[:-1]), x.shape[-1]) if x.ndim > 1 else (1, x.size)
        return None if min(shape) == 1 else shape

    def init(params):
        count = jnp.zeros((), jnp.int32)
        if stands_for_params(params):
            nothing: Any = jnp.zeros(0)
            return SpectralClipState(count, nothing if numbers else {}, nothing if iterates else {})
        dtype = compute_dtype(params)
        limits, basis = {}, {}
        for name, x in named_leaves(params):
            if is_number(x) and numbers:
                shape = shape_of(name, jnp.asarray(x))
                matrices = (shape or ())[:-2]
                limits[name] = jnp.zeros((*matrices, numbers), dtype)
                if shape is not None and iterates:
                    start = first_basis(_real(jnp.zeros(shape[-2:], wide(jnp.asarray(x), dtype).dtype)))
                    basis[name] = jnp.broadcast_to(start, (*matrices, *start.shape)) + 0
        return SpectralClipState(count, limits, basis)

    def rule(gradient, state):
        if not gradient.leaves:
            return Outcome([]), state
        dtype, count, clean = gradient.norm.value.dtype, state.count, gradient.clean
        shapes = [shape_of(name, x) for name, x in zip(gradient.names, clean)]
        vectors = [i for i, shape in enumerate(shapes) if shape is None]
        others = [i for i, shape in enumerate(shapes) if shape is not None]
        kept = gradient.of_each_leaf(state.limits, "the state") if numbers else []
        rounds = jnp.where(count == 0, _START_ROUNDS, _ROUNDS)

        # Values and what limits keep: of all vectors in one array, then of each array of matrices.
        norms = leaf_norms([clean[i] for i in vectors], dtype)
        values, parts, basis = [norms.value], [], dict(state.basis)
        matrices = [whole(wide(clean[i], compute_dtype(clean[i]))).reshape(shapes[i]) for i in others]
        for i, y in zip(others, matrices):
            found, value, name = None, jnp.zeros(y.shape[:-2], dtype), gradient.names[i]
            if mode == "hard":
                found, value = _each(decomposed, y)(y)
            elif iterates:
                value, basis[name] = _each(lambda y, b: _leading(y, b, rounds), y)(y, basis[name])
            parts.append(found)
            values.append(value.astype(dtype))
        if kept:
            of_vectors = jnp.stack([kept[i] for i in vectors]) if vectors else jnp.zeros((0, numbers), dtype)
            kept = [of_vectors, *[kept[i] for i in others]]
        limits, moved = followed(max_norm, values, kept, count)

        new = list(clean)
        lengths = jnp.minimum(norms.value, limits[0]) if mode == "hard" else softened(norms.value, limits[0])
        shortened = rescaled_parts([clean[i] for i in vectors], norms, lengths, gradient.finite)
        for i, x in zip(vectors, shortened.leaves):
            new[i] = x
        for i, y, found, value, limit in zip(others, matrices, parts, values[1:], limits[1:]):
            limit = limit.astype(y.real.dtype)
            if mode == "hard":
                over = (value > limit)[..., None, None]
                y = jnp.where(over, _each(hard, y)(y, limit, found), y)
            else:
                y = _each(lambda y, limit: soft(y, limit, num_iterations), y)(y, limit)
            new[i] = spread_as(y.reshape(clean[i].shape), clean[i]).astype(clean[i].dtype)
        after = dict(state.limits)
        if kept:
            after |= {gradient.names[i]: x for i, x in zip(vectors, moved[0])}
            after |= {gradient.names[i]: x for i, x in zip(others, moved[1:])}
        return Outcome(new), state._replace(limits=after, basis=basis)

    return strategy(init, rule, nonfinite)


def _each(function: Callable[..., Any], y: Array) -> Callable[..., Any]:
    """The function of one matrix, or the same for all that an array holds."""
    return function if y.ndim == 2 else jax.vmap(function)


def _leading(y: Array, basis: Array, rounds: Array) -> tuple[Array, Array]:
    return largest_singular_value(_real(y).astype(basis.dtype), basis, rounds)


def _real(y: PyTree) -> Array:
    """A real matrix with the same singular values."""
    return jnp.block([[y.real, -y.imag], [y.imag, y.real]]) if jnp.iscomplexobj(y) else y
