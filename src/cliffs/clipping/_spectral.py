"""Constraints on the recurrent matrix itself, applied through its update: last in a chain, after the learning rate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from cliffs.clipping._leaves import compute_dtype, is_array, is_recurrent, named_leaves, stands_for_params, whole
from cliffs.clipping._numbers import Number, at, check
from cliffs.clipping._outcome import Outcome, compare
from cliffs.clipping._safe_norm import whole_norm
from cliffs.clipping._strategy import NonFinite, strategy
from cliffs.clipping._subspace import (
    START_ITERATIONS,
    first_basis,
    largest_singular_value,
    scaled,
    subspace_iteration,
)


class SpectralState(NamedTuple):
    """State of the spectral constraints: the subspace that power iteration has reached for each matrix."""

    count: Int[Array, ""]
    basis: dict[str, Float[Array, "n block"]]
    """From the path of a constrained matrix to its basis."""


def spectral_normalize(
    max_norm: Number = 1.0,
    select: Callable[[str], bool] | None = None,
    num_iterations: Number = 1,
    *,
    nonfinite: NonFinite = "propagate",
) -> optax.GradientTransformationExtraArgs:
    """Keep the largest singular value of the recurrent matrix at `max_norm` or below: `W min(1, max_norm / sigma(W))`.

    Block power iteration on `W^T W`, warm-started in the state: one iteration per update follows a slowly moving
    matrix. It approaches `sigma` from below, so the constraint holds up to that lag.

    **Arguments**

    - `max_norm`: the largest allowed singular value, `>= 0`; a number, a traced scalar or a schedule.
    - `select`: `select(path) -> bool`; the leaves to constrain, matrices only; those called `w_rec` by default.
    - `num_iterations`: of power iteration per update, at least 1.
    - `nonfinite`: see `cliffs.clipping.NonFinite`.

    **Returns** an `optax.GradientTransformationExtraArgs` for the end of a chain (it looks at `params + updates`).

    **Raises** `ValueError` for numbers out of range, no selected leaf, a selected leaf that is no real matrix, or a
    call without `params`.

    Source: Miyato, Kataoka, Koyama & Yoshida (2018), algorithm 1, who always divide by sigma; here only above the
    limit, as a projection.

    >>> params = {"w_rec": jnp.diag(jnp.array([3.0, 1.0]))}
    >>> rule = spectral_normalize(1.5)
    >>> updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    >>> [round(float(x), 4) for x in jnp.diag(params["w_rec"] + updates["w_rec"])]
    [1.5, 0.5]
    """
    return _constraint("max_norm", max_norm, select, num_iterations, nonfinite, largest_singular_value)


def project_spectral_radius(
    max_radius: Number = 1.0,
    select: Callable[[str], bool] | None = None,
    num_iterations: Number = 2,
    *,
    nonfinite: NonFinite = "propagate",
) -> optax.GradientTransformationExtraArgs:
    """Keep the spectral radius of the recurrent matrix at `max_radius` or below: `W min(1, max_radius / rho(W))`.

    A real matrix usually has a complex leading pair, on which a power iteration of one vector never settles. Here a
    subspace of eight vectors is iterated (orthogonal iteration, warm-started in the state), and `rho` is that of the
    small projected matrix, by repeated squaring. Exact up to rounding up to 8 x 8, a close estimate beyond.

    **Arguments**

    - `max_radius`: the largest allowed modulus of an eigenvalue, `>= 0`; a number, a traced scalar or a schedule.
    - `select`, `num_iterations`, `nonfinite`: as for `spectral_normalize`; the matrices must be square.

    **Returns**, **Raises** as for `spectral_normalize`.

    Source: the projection is a common teaching example; orthogonal iteration with Rayleigh-Ritz, Saad (2011), ch. 5.

    >>> params = {"w_rec": jnp.array([[0.0, 2.0], [-2.0, 0.0]])}  # eigenvalues +-2i
    >>> rule = project_spectral_radius(0.9)
    >>> updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    >>> round(float((params["w_rec"] + updates["w_rec"])[0, 1]), 4)
    0.9
    """
    return _constraint("max_radius", max_radius, select, num_iterations, nonfinite, _ritz_radius)


def _constraint(
    name_of_limit: str,
    limit: Number,
    select: Callable[[str], bool] | None,
    num_iterations: Number,
    nonfinite: NonFinite,
    measure: Callable[[Array, Array, Any], tuple[Array, Array]],
) -> optax.GradientTransformationExtraArgs:
    is_chosen = select or is_recurrent
    check(name_of_limit, limit)
    check("num_iterations", num_iterations, low=1)
    square = measure is _ritz_radius

    def init(params):
        count = jnp.zeros((), jnp.int32)
        if stands_for_params(params):
            return SpectralState(count, jnp.zeros(0))  # pyright: ignore[reportArgumentType]
        named = dict(named_leaves(params))
        if named and not any(is_chosen(name) for name in named):
            raise ValueError(f"select finds no leaf among {list(named)}")

        def start(name, w):
            if not is_array(w):
                raise ValueError(f"select must find real matrices, got {w!r} at {name!r}")
            w = jnp.asarray(w)
            if w.ndim != 2 or w.size == 0 or (square and w.shape[0] != w.shape[1]) or jnp.iscomplexobj(w):
                kind = f"real {'square ' if square else ''}matrices"
                raise ValueError(f"select must find {kind}, got {w.shape} {w.dtype} at {name!r}")
            w = whole(w.astype(compute_dtype(w)))
            return measure(w, first_basis(w), START_ITERATIONS)[1]

        return SpectralState(count, {name: start(name, w) for name, w in named.items() if is_chosen(name)})

    def rule(gradient, state):
        rho = at(limit, state.count)
        weights = gradient.weights
        if not gradient.leaves:
            return Outcome([]), state
        bases, changes = dict(state.basis), [jnp.array(False)]
        rounds = jnp.asarray(at(num_iterations, state.count)).astype(jnp.int32)
        lost = set(bases) - {name for name, _ in named_leaves(gradient.params)}
        if lost:
            raise ValueError(
                f"params have no leaf {min(lost)!r}, which init was told to constrain; they have "
                f"{[name for name, _ in named_leaves(gradient.params)]}"
            )

        def one(name, update, w):
            if name not in bases:
                return update
            w = w.astype(bases[name].dtype)
            new = w + update.astype(bases[name].dtype)
            size, bases[name] = measure(whole(new), bases[name], rounds)
            over = size > rho
            changes.append(over)
            factor = jnp.where(over, rho, 1.0) / jnp.where(over, size, 1.0)
            return jnp.where(over, (new * factor - w).astype(update.dtype), update)

        new = [one(*each) for each in zip(gradient.names, gradient.clean, weights)]

        def change():
            # All other leaves stay as they are: one entry, their norm, stands for them on both sides.
            pairs = list(zip(gradient.names, gradient.leaves, new))
            others = whole_norm([x for name, x, _ in pairs if name not in bases], gradient.norm.value.dtype).value
            chosen = [(x, y) for name, x, y in pairs if name in bases]
            before, after = ([*side, others] for side in zip(*chosen)) if chosen else ([others], [others])
            return compare(before, after, gradient.norm, changed=jnp.any(jnp.stack(changes)))

        return Outcome(new, change), state._replace(basis=bases)

    return strategy(init, rule, nonfinite)


def _ritz_radius(w: Array, basis: Array, iterations: int | Array) -> tuple[Array, Array]:
    w, scale = scaled(w)
    basis = subspace_iteration(w, basis, iterations, twice=False)
    return scale * _gelfand(basis.T @ w @ basis), basis


def _gelfand(small: Float[Array, "k k"], squarings: int = 30) -> Float[Array, ""]:
    """`lim ||A^(2^j)||^(2^-j)` with the scale carried apart; 0 for a nilpotent matrix."""

    def square(carry: Any, weight):
        power, log_radius, alive = carry
        size = jnp.max(jnp.abs(power))
        alive = alive & (size > jnp.finfo(power.dtype).tiny)
        safe = jnp.where(alive, size, 1.0)
        power = jnp.where(alive, power / safe, 0.0)
        return (power @ power, log_radius + jnp.log(safe) * weight, alive), None

    weights = 0.5 ** jnp.arange(squarings, dtype=small.dtype)
    start = small, jnp.zeros_like(small[0, 0]), jnp.ones_like(small[0, 0], bool)
    (_, log_radius, alive), _ = jax.lax.scan(square, start, weights)
    return jnp.where(alive, jnp.exp(log_radius), 0.0)
