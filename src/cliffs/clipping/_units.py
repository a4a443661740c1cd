"""Adaptive gradient clipping (AGC): every unit of a layer relative to its weights."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array

from cliffs.clipping._leaves import compute_dtype, whole
from cliffs.clipping._numbers import Number, at, check
from cliffs.clipping._outcome import Outcome, change_of_parts
from cliffs.clipping._rescale import rescaled_units
from cliffs.clipping._safe_norm import Axes, Axis, Norm, combined_leaves, unit_norms
from cliffs.clipping._strategy import NonFinite, strategy


def adaptive_grad_clip(
    clipping: Number = 0.01, eps: Number = 1e-3, *, nonfinite: NonFinite = "propagate"
) -> optax.GradientTransformationExtraArgs:
    """Clip every unit relative to its weights (AGC): `g tau max(||w||, eps) / ||g||` where that is shorter.

    Units are the columns of matrices, the output channels of kernels with four or five axes, and whole vectors, as in
    `optax.adaptive_grad_clip`. optax divides by `max(||g||, 1e-6)`, so its units of a smaller norm that exceed their
    limit come out shorter than the formula says; here the formula holds for any norm. Needs `params`.

    **Arguments**

    - `clipping`: tau, `>= 0`; a number, a traced scalar or a schedule.
    - `eps`: the least norm of weights that counts, `>= 0`; likewise.
    - `nonfinite`: `"propagate"`, `"zero"`, `"skip"` or `"raise"`, see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformationExtraArgs`.

    **Raises** `ValueError` for a number out of range, when `update` is called without `params` or with other leaves,
    and for an array of more than five axes.

    Source: Brock, De, Smith & Simonyan (2021), eq. 3.

    >>> rule, weights = adaptive_grad_clip(0.1), jnp.array([3.0, 4.0])
    >>> updates, _ = rule.update(jnp.array([30.0, 40.0]), rule.init(weights), weights)
    >>> [round(float(x), 4) for x in updates]
    [0.3, 0.4]
    """
    check("clipping", clipping)
    check("eps", eps)

    def rule(gradient, state):
        norms, weights = gradient.norms, gradient.weights
        sizes = unit_norms(weights, compute_dtype(weights), [_axes(w) for w in weights])
        tau, least = at(clipping, state.count), at(eps, state.count)
        lengths = [
            jnp.minimum(n.value, (tau * jnp.maximum(w.value, least)).astype(n.value.dtype))
            for n, w in zip(norms, sizes)
        ]
        new = rescaled_units(gradient.leaves, norms, lengths, gradient.finite)

        def change():
            sides = [[whole(x).reshape(-1) for x in side] for side in ([n.value for n in norms], lengths)]
            return change_of_parts(*map(jnp.concatenate, sides))

        return Outcome(new, change if new else None, passes_nonfinite=True), state

    return strategy(None, rule, nonfinite, measure=_by_unit)


def _by_unit(leaves: list[Array], dtype: Any, axis_name: Axis) -> tuple[Norm, list[Norm], Array]:
    norms = unit_norms(leaves, dtype, [_axes(x) for x in leaves], axis_name)
    norm = combined_leaves(norms, dtype)
    return norm, norms, norm.finite


def _axes(x: Array) -> Axes:
    """The axes that are summed over for the norm of a unit; None for all."""
    if sum(n > 1 for n in x.shape) <= 1:
        return None
    if x.ndim > 5:
        raise ValueError(f"adaptive_grad_clip knows arrays of up to five axes, got shape {x.shape}")
    return (0,) if x.ndim <= 3 else tuple(range(x.ndim - 1))
