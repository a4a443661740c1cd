"""Local smoothness along a path of training, and the (L0, L1) law of Zhang et al. that explains clipping's speed."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Key, PyTree

from cliffs._losses import scalar
from cliffs.curvature._lanczos import alike, safe_norm
from cliffs.typing import Loss, Objective


class Smoothness(NamedTuple):
    """Local smoothness and gradient norm at the points of a path; leaves `[steps]`."""

    smoothness: Float[Array, "*steps"]
    """`max_f ||grad(x + f d) - grad(x)|| / ||f d||` with d the step; NaN for a step of length 0."""
    grad_norm: Float[Array, "*steps"]  # at the beginning of the step
    step_norm: Float[Array, "*steps"]
    resolved: Bool[Array, "*steps"]
    """Whether the gradients' difference exceeds what rounding of parameters and gradients can make, in the coarsest
    dtype among the leaves that moved."""


class SmoothnessFit(NamedTuple):
    """`smoothness ~ l0 + l1 grad_norm`; every field may have leading batch axes."""

    l0: Float[Array, "..."]
    l1: Float[Array, "..."]
    error: Float[Array, "..."]
    """Mean pinball loss of the log residuals; with quantile 0.5 half their mean absolute value."""
    constant_error: Float[Array, "..."]
    """The same for the best constant, `l1 = 0`: never smaller than `error`."""


def smoothness_between(
    loss: Objective, params: PyTree, new_params: PyTree, *, fractions: Sequence[float] = (1.0,)
) -> Smoothness:
    """Local smoothness over one step, `max_f ||grad(x + f d) - grad(x)|| / ||f d||` with `d = x' - x`.

    A lower bound of the Lipschitz constant of the gradient on the segment; as the step shrinks it tends to `||H d|| /
    ||d||`. Usable inside a training scan, where it needs no stored path.

    **Arguments**

    - `loss`: `loss(params) -> scalar`, the same at both ends.
    - `params`, `new_params`: the two ends, pytrees of one structure.
    - `fractions`: where on the segment the gradient is compared, each in (0, 1]. `(1.0,)` compares the ends; the
      released code of Zhang et al. takes `(0.5,)` (its `num_pts=1`) and allows several equally spaced inner points.

    **Returns** `Smoothness` with scalar leaves.

    **Raises** `ValueError` for no fraction or one outside (0, 1], ends that are not alike or hold no number;
    `TypeError` for leaves that are not real floating point.

    Source: Zhang, He, Sra & Jadbabaie (2020), Figs. 1-3, and their released code (`eval_smooth`).

    >>> s = smoothness_between(lambda p: jnp.sum(1.5 * p**2), jnp.array([1.0, 0.0]), jnp.array([0.5, 0.0]))
    >>> float(s.smoothness), float(s.grad_norm), bool(s.resolved)
    (3.0, 3.0, True)
    """
    if not fractions or not all(0 < f <= 1 for f in fractions):
        raise ValueError(f"fractions must be one or more numbers in (0, 1], got {tuple(fractions)}")
    params, new_params = alike(params, new_params, "new_params")
    leaves = jax.tree.leaves(params)
    if not sum(leaf.size for leaf in leaves):
        raise ValueError(f"params must have at least one number, got {params}")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"params must have real floating-point leaves, got one of {leaf.dtype}")
    x, unravel = ravel_pytree(params)
    d = ravel_pytree(new_params)[0] - x
    gradient = jax.grad(lambda flat: scalar(loss)(unravel(flat)))
    here, length = gradient(x), safe_norm(d)
    size, eps = safe_norm(here), _coarsest_moved(params, new_params)

    def compare(fraction):
        point = x + fraction * d
        moved = safe_norm(point - x)  # what rounding left of the step
        there = gradient(point)
        difference = safe_norm(there - here)
        ratio = jnp.where(moved > 0, difference / jnp.where(moved > 0, moved, 1), jnp.nan)
        # A sum of many terms: a hundred roundings of a gradient are allowed for before its change counts.
        noise = 100 * eps * jnp.maximum(size, safe_norm(there))
        fine = moved > 100 * eps * safe_norm(x)
        return ratio, jnp.isfinite(ratio) & (difference > noise) & fine

    ratios, resolved = jax.lax.map(compare, jnp.asarray(fractions, x.dtype))
    best = jnp.argmax(jnp.where(jnp.isnan(ratios), -jnp.inf, ratios))
    return Smoothness(ratios[best], size, length, resolved[best])


def _coarsest_moved(params: PyTree, new_params: PyTree) -> Array:
    """The resolution of the coarsest dtype among the leaves that moved, which may be coarser than that of all."""
    pairs = list(zip(jax.tree.leaves(params), jax.tree.leaves(new_params)))
    finest = min(float(jnp.finfo(a.dtype).eps) for a, _ in pairs)
    eps = [jnp.where(jnp.any(a != b), jnp.finfo(a.dtype).eps, finest) for a, b in pairs]
    return jnp.max(jnp.stack([jnp.asarray(e, jnp.float32) for e in eps]))


def smoothness_along(
    loss: Objective | Loss,
    path: PyTree,
    *,
    batches: PyTree = None,
    fractions: Sequence[float] = (1.0,),
    chunk_size: int = 1,
) -> Smoothness:
    """Local smoothness of every step of a path against the gradient norm where the step begins.

    Memory: the path and `chunk_size` backward passes, however long the path.

    **Arguments**

    - `loss`: `loss(params, batch) -> scalar` or `(scalar, aux)`; without `batches` a loss of the parameters alone.
    - `path`: pytree with leaves `[steps + 1, ...]`, like `cliffs.landscape.DescentPath.params`.
    - `batches`: optional pytree with a leading axis of `steps`: both gradients of a step use its batch.
    - `fractions`: as in `smoothness_between`.
    - `chunk_size`: steps evaluated side by side.

    **Returns** `Smoothness` with leaves `[steps]`.

    **Raises** `ValueError` for a path of fewer than two points or batches that do not fit it.

    Source: Zhang et al. (2020), Definition 1 and Figs. 1-3.

    >>> s = smoothness_along(lambda p: jnp.sum(p**4), jnp.linspace(1.0, 2.0, 5)[:, None])
    >>> s.smoothness.shape, bool((jnp.diff(s.smoothness) > 0).all())
    ((4,), True)
    """
    lengths = {jnp.shape(x)[0] if jnp.ndim(x) else 0 for x in jax.tree.leaves(path)}
    if len(lengths) != 1 or (points := lengths.pop()) < 2:
        raise ValueError(
            f"path must have leaves of one leading length of at least 2, got {jax.tree.map(jnp.shape, path)}"
        )
    if any(jnp.ndim(b) == 0 or jnp.shape(b)[0] != points - 1 for b in jax.tree.leaves(batches)):
        raise ValueError(f"batches must have {points - 1} steps, got {jax.tree.map(jnp.shape, batches)}")

    def step(i):
        def at(tree, k):
            return jax.tree.map(lambda x: jnp.asarray(x)[k], tree)

        args = () if batches is None else (at(batches, i),)
        function: Callable[..., Any] = loss
        return smoothness_between(lambda p: function(p, *args), at(path, i), at(path, i + 1), fractions=fractions)

    return jax.lax.map(step, jnp.arange(points - 1), batch_size=min(chunk_size, points - 1))


def fit_smoothness(
    smoothness: Float[Array | np.ndarray, " steps"],
    grad_norm: Float[Array | np.ndarray, " steps"],
    *,
    quantile: float = 0.5,
    weights: Float[Array | np.ndarray, " steps"] | None = None,
) -> SmoothnessFit:
    """`smoothness ~ L0 + L1 ||grad||` with `L0, L1 >= 0`: a quantile regression of the logarithms.

    Zhang et al. state `||H|| <= L0 + L1 ||grad||` and show scatter plots; they fit no numbers. Smoothness spans orders
    of magnitude with multiplicative noise, so residuals are taken in the logarithm, and a quantile (the median by
    default) cannot be moved by a few wild points. A quantile of 0.99 gives the bound that 99 % of the steps obey.
    For a given ratio L1 / L0 the scale is a quantile of the residuals; the ratio is searched from 0 to infinity, both
    included, so no start value is needed and L0 = 0 or L1 = 0 come out exactly where they fit best.

    **Arguments**

    - `smoothness`, `grad_norm`: `[steps]`, from `smoothness_along`. Pairs that are not positive and finite are ignored.
    - `quantile`: in (0, 1).
    - `weights`: `[steps]`, non-negative; 0 leaves a pair out (steps that are not `resolved`).

    **Returns** `SmoothnessFit`; NaN when no pair counts, and when a traced weight is negative.

    **Raises** `ValueError` for a quantile outside (0, 1), a negative weight, or arrays that do not fit each other;
    `TypeError` for integers, whose logarithms would be rounded.

    Source: the condition is Definition 1 of Zhang et al. (2020); the fit is a quantile regression (Koenker & Bassett
    1978) of our own choice.

    >>> g = jnp.logspace(-2, 2, 50)
    >>> fit = fit_smoothness(2.0 + 3.0 * g, g)
    >>> round(float(fit.l0), 2), round(float(fit.l1), 2)
    (2.0, 3.0)
    """
    return _fit(*_checked(smoothness, grad_norm, weights, quantile), quantile)


def _checked(smoothness: Any, grad_norm: Any, weights: Any, quantile: Any) -> tuple[Array, Array, Array]:
    """The three as arrays of one shape and dtype, or an error that names what is wrong."""
    if isinstance(quantile, int | float) and not 0 < quantile < 1:
        raise ValueError(f"quantile must be in (0, 1), got {quantile}")
    y, g = jnp.asarray(smoothness), jnp.asarray(grad_norm)
    for name, x in (("smoothness", y), ("grad_norm", g)):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{name} must be real floating point, got {x.dtype}")
    w = jnp.ones_like(y) if weights is None else jnp.asarray(weights, y.dtype)
    if y.ndim != 1 or y.shape != g.shape or y.shape != w.shape or not y.size:
        raise ValueError(f"smoothness, grad_norm and weights must be [steps], got {y.shape}, {g.shape} and {w.shape}")
    # A traced weight cannot be looked at; `_Logs` makes the fit NaN where one is negative.
    if not isinstance(w, jax.core.Tracer) and bool(jnp.any(~(w >= 0))):
        raise ValueError(f"weights must be non-negative numbers, got {w[jnp.argmax(~(w >= 0))]}")
    return y, g, w


@jax.jit
def _fit(y, g, w, quantile):
    data = _Logs.of(y, g, w)

    def zoom(carry, _):
        best, radius = carry
        trial = best + radius * jnp.linspace(-1, 1, 25, dtype=y.dtype)
        errors, _ = jax.lax.map(lambda r: data.errors(r, data.w, quantile), trial)
        return (trial[jnp.argmin(errors)], radius / 6), None  # two cells to either side

    (best, _), _ = jax.lax.scan(zoom, (jnp.zeros((), y.dtype), data.reach), length=7)
    return data.best(jnp.zeros(1, y.dtype) + best, data.w, quantile)


class _Logs(NamedTuple):
    """Logarithms, gradients relative to the middle of their range: there the two terms are alike at a logit of 0."""

    y: Array
    g: Array
    w: Array
    middle: Array
    reach: Array
    """A logit of the ratio beyond which one of the two terms is below e^-7 everywhere."""

    @classmethod
    def of(cls, y, g, w):
        wrong = jnp.any(~(w >= 0))
        w = jnp.where(jnp.isfinite(y) & (y > 0) & jnp.isfinite(g) & (g > 0) & ~wrong, w, 0)
        log_y, log_g = (jnp.log(jnp.where(w > 0, x, 1)) for x in (y, g))
        low = jnp.min(log_g, where=w > 0, initial=jnp.inf)
        high = jnp.max(log_g, where=w > 0, initial=-jnp.inf)
        low, high = (jnp.where((w > 0).any(), x, 0) for x in (low, high))
        return cls(log_y, log_g - (low + high) / 2, w, (low + high) / 2, (high - low) / 2 + 7)

    def errors(self, ratio, w, quantile):
        """Mean pinball loss and log scale of the best line with this logit of the ratio; `w` is `[..., steps]`."""
        line = jnp.logaddexp(jax.nn.log_sigmoid(-ratio), jax.nn.log_sigmoid(ratio) + self.g)
        residual = self.y - line
        order = jnp.argsort(residual)
        residual, w = residual[order], w[..., order]
        scale = residual[_reached(w, quantile)]
        over = residual - scale[..., None]
        pinball = jnp.where(over > 0, quantile * over, (quantile - 1) * over)
        return jnp.sum(w * pinball, -1) / jnp.maximum(w.sum(-1), jnp.finfo(w.dtype).tiny), scale

    def best(self, ratios, w, quantile):
        """The fit of the best of these ratios, of 0 and of infinity."""
        # The ends first: a tie says that the data do not need the second term.
        ratios = jnp.concatenate([jnp.array([-jnp.inf, jnp.inf], ratios.dtype), ratios])
        errors, scales = jax.lax.map(lambda r: self.errors(r, w, quantile), ratios)
        pick = jnp.argmin(errors, 0)[None]
        error, scale = (jnp.take_along_axis(x, pick, 0)[0] for x in (errors, scales))
        ratio = ratios[pick[0]]
        l0 = jnp.exp(scale + jax.nn.log_sigmoid(-ratio))
        l1 = jnp.exp(scale + jax.nn.log_sigmoid(ratio) - self.middle)
        fit = SmoothnessFit(l0, l1, error, errors[0])
        return jax.tree.map(lambda x: jnp.where((w > 0).any(-1), x, jnp.nan), fit)


def bootstrap_fit(
    smoothness: Float[Array | np.ndarray, " steps"],
    grad_norm: Float[Array | np.ndarray, " steps"],
    key: Key[Array, ""],
    *,
    quantile: float = 0.5,
    weights: Float[Array | np.ndarray, " steps"] | None = None,
    block_length: int | None = None,
    num_resamples: int = 200,
) -> SmoothnessFit:
    """Fits to resampled blocks of a path; percentiles of `l0` and `l1` over them are confidence limits.

    Neighbouring steps of a path are alike, so whole blocks of consecutive steps are drawn (circular block bootstrap);
    independent draws would give intervals that are far too narrow. Blocks are better, not exact: on 300 steps of noise
    with a correlation time of ten steps, nominal 90 % intervals held the truth 80 % of the time (independent draws: 30
    %). One path says nothing about other seeds: for those, fit each path and resample the seeds. The ratio L1 / L0 is
    resolved to about a tenth here. Memory: `num_resamples` times the number of steps.

    **Arguments**: as in `fit_smoothness`, the `key` of the draws, and

    - `block_length`: steps in a block, about the correlation time of the path; the root of the number of steps by
      default.
    - `num_resamples`: number of fits.

    **Returns** `SmoothnessFit` with leaves `[num_resamples]`.

    **Raises** as `fit_smoothness`, and `ValueError` for a block length outside 1 .. steps or no resample.

    Source: Künsch (1989); Politis & Romano (1992), circular blocks.

    >>> g = jnp.logspace(-2, 2, 64)
    >>> fits = bootstrap_fit(2.0 + 3.0 * g, g, jax.random.key(0), num_resamples=5)
    >>> fits.l1.shape
    (5,)
    """
    y, g, w = _checked(smoothness, grad_norm, weights, quantile)
    steps = y.size
    length = round(steps**0.5) if block_length is None else block_length
    if not 1 <= length <= steps:
        raise ValueError(f"block_length must be between 1 and the {steps} steps, got {length}")
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    return _bootstrap(y, g, w, key, quantile, length, num_resamples)


@functools.partial(jax.jit, static_argnums=(5, 6))
def _bootstrap(y, g, w, key, quantile, length, num_resamples):
    steps = y.size

    def times(k):
        starts = jax.random.randint(k, (-(-steps // length), 1), 0, steps)
        drawn = ((starts + jnp.arange(length)) % steps).ravel()[:steps]
        return jnp.zeros(steps, w.dtype).at[drawn].add(1)

    data = _Logs.of(y, g, w)
    # One grid of ratios for all resamples, so that each ratio sorts its residuals once.
    grid = data.reach * jnp.linspace(-1, 1, 301, dtype=y.dtype)
    return data.best(grid, data.w * jax.vmap(times)(jax.random.split(key, num_resamples)), quantile)


def _reached(sorted_weights: Float[Array, "... n"], quantile: Any) -> Array:
    """The first place where the cumulative weight reaches `quantile` of the total."""
    below = jnp.cumsum(sorted_weights, -1)
    # A hair less than asked for, so that rounding of the sum does not skip the value that reaches it exactly.
    wanted = quantile * below[..., -1:] * (1 - 4 * jnp.finfo(below.dtype).eps)
    # Never a value of weight 0, which only stands among the others to keep the shapes fixed.
    return jnp.argmax((below >= wanted) & (sorted_weights > 0), -1)
