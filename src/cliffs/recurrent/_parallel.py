"""A whole sequence at once: Newton's method on `x_t = f(x_{t-1}, u_t)` for all t, each sweep an associative scan."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs.recurrent._gated import CellStep
from cliffs.recurrent._linear_map import linear_map
from cliffs.recurrent._tangents import states_before
from cliffs.recurrent._vanilla import RNNStep
from cliffs.typing import Step


class ParallelUnroll(NamedTuple):
    """What `parallel_unroll` returns; `batch` is the batch of a cell's state, and absent for other steps."""

    states: PyTree
    """`[time, *batch, hidden]`, whatever the last sweep gave: look at `converged` before you use them."""
    converged: Bool[Array, "*batch"]
    """Whether the residual reached the tolerance."""
    num_sweeps: Int[Array, "*batch"]
    """How many sweeps were made."""
    residual: Float[Array, "*batch"]
    """`max_t |x_t - f(x_{t-1}, u_t)| / max(1, |x_t|)` at the states returned."""


def parallel_unroll(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    length: int | None = None,
    form: Literal["newton", "quasi"] = "newton",
    damping: float = 0.0,
    tolerance: float | None = None,
    max_sweeps: int = 100,
) -> ParallelUnroll:
    """All states of `x_t = f(x_{t-1}, u_t)` at once, in `log T` parallel steps a sweep (DEER).

    A sweep linearises the step at the present guess, `A_t = df/dx(x_{t-1})`, `b_t = f(x_{t-1}) - A_t x_{t-1}`, and
    solves `x_t = A_t x_{t-1} + b_t` by an associative scan over pairs `(A, b)`. The first guess is the initial state
    at all times. Where the largest Lyapunov exponent is positive it takes about as many sweeps as there are steps.
    Where it is negative it takes few, whatever the length, if the step also contracts along the first guess; networks
    with several attractors may not (`experiments/hypotheses/parallel_unroll.py` draws this). After k sweeps the first k
    states are exact, so T sweeps always suffice in exact arithmetic.

    The gradient is the one of the states, not of the iteration: at the solution `dx_t = A_t dx_{t-1} + df`, solved by
    the same scan, and its transpose by the same scan backwards. It is exact where `converged`, and meaningless
    elsewhere. One sweep costs about `T n^3` operations and `T n^2` numbers (`"quasi"`: `T n` each), against `T n^2`
    one after the other: it pays on an accelerator, for small n and long T, and not on a CPU. The gradient needs the
    whole Jacobians in both forms.

    **Arguments**

    - `step`, `params`, `initial_state`, `inputs`, `length`: as in `unroll`. The batch of a step of `rnn_step` or of a
      flax cell is mapped over; the state of any other step is one vector (use `jax.vmap` over sequences).
    - `form`: `"newton"` with the whole Jacobian (DEER); `"quasi"` with its diagonal, clipped to [-1, 1].
    - `damping`: k in [0, 1); each sweep's Jacobians are multiplied by `1 - k`, which tames sweeps that grow (ELK with
      its Kalman gain held constant). 0 is none.
    - `tolerance`: of the residual; by default 50 roundings of the state's dtype.
    - `max_sweeps`: give up after so many.

    **Returns** a `ParallelUnroll(states, converged, num_sweeps, residual)`. States that a sweep drives out of the
    finite numbers go back to the first guess.

    **Raises** `ValueError` for an unknown form, a damping outside [0, 1), a missing length or `max_sweeps < 1`.

    Source: Lim, Zhu, Selfridge & Kasim (ICLR 2024), Parallelizing non-linear sequential models over the sequence
    length; Gonzalez, Warrington, Smith & Linderman (NeurIPS 2024), Towards scalable and stable parallelization of
    nonlinear RNNs.

    >>> def leaky(w, x, u):
    ...     return jnp.tanh(0.5 * x @ w + u)
    >>> found = parallel_unroll(leaky, jnp.eye(3), jnp.zeros(3), jnp.ones((50, 3)))
    >>> found.states.shape, bool(found.converged), int(found.num_sweeps) < 10
    ((50, 3), True, True)
    """
    if form not in ("newton", "quasi"):
        raise ValueError(f"form must be 'newton' or 'quasi', got {form!r}")
    if not 0 <= damping < 1:
        raise ValueError(f"damping must lie in [0, 1), got {damping}")
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    leaves = jax.tree.leaves(inputs)
    if not leaves and length is None:
        raise ValueError("inputs is None: say how many steps with length=...")
    num_steps = leaves[0].shape[0] if leaves else length or 0
    if num_steps < 1:
        raise ValueError(f"inputs and length must give at least 1 step, got {num_steps}")

    def one(state, inputs):
        return tuple(_solve(step, params, state, inputs, num_steps, form, damping, tolerance, max_sweeps))

    if isinstance(step, RNNStep | CellStep):
        # Each row of the batch is a sequence of its own; the states come out with time first, the flags with none.
        for axis in range(jax.tree.leaves(initial_state)[0].ndim - 1):
            del axis
            one = jax.vmap(one, (0, 1), (1, 0, 0, 0))
    return ParallelUnroll(*one(initial_state, inputs))


def states_or_scan(found: ParallelUnroll, scan: Callable[[], PyTree]) -> PyTree:
    """The parallel states where all have converged, else those of `scan()`: never the unconverged ones."""
    return jax.lax.cond(jnp.all(found.converged), lambda: found.states, scan)


def _solve(step, params, initial_state, inputs, num_steps, form, damping, tolerance, max_sweeps) -> ParallelUnroll:
    start, unravel = ravel_pytree(initial_state)
    if tolerance is None:
        tolerance = 50 * float(jnp.finfo(start.dtype).eps)
    # Whatever the step depends on, its arguments or what it closes over, becomes an argument of `f` with a derivative.
    first = jax.tree.map(lambda x: x[0], inputs)
    f, consts = jax.closure_convert(lambda x, u: ravel_pytree(step(params, unravel(x), u))[0], start, first)
    leaves, tree = jax.tree.flatten(inputs)
    smooth = [k for k, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.inexact)]

    @jax.custom_jvp
    def solve(consts, start, leaves) -> Any:
        return _sweeps(
            lambda x, u: f(x, u, *consts),
            start,
            tree.unflatten(leaves),
            num_steps,
            form,
            damping,
            tolerance,
            max_sweeps,
        )

    @solve.defjvp
    def solve_jvp(primals, tangents):
        (consts, start, leaves), (d_consts, d_start, d_leaves) = primals, tangents
        states, *others = solve(consts, start, leaves)
        before = states_before(start, states)  # [time, n]

        def at(x, u):
            """The Jacobian `[n, n]` of one step."""
            return jax.jacfwd(lambda x: f(x, tree.unflatten(u), *consts))(x)

        def push(x, u, d_u):
            """What one step changes by, `[n]`, through all but its state."""

            def of(consts, some):
                whole = list(u)
                for k, value in zip(smooth, some):
                    whole[k] = value
                return f(x, tree.unflatten(whole), *consts)

            return jax.jvp(of, (list(consts), [u[k] for k in smooth]), (list(d_consts), d_u))[1]

        jacobians = jax.vmap(at)(before, leaves)  # [time, n, n]
        change = jax.vmap(push)(before, leaves, [d_leaves[k] for k in smooth])  # [time, n]
        change = change.at[0].add(jacobians[0] @ d_start)
        d_states = linear_map(_recurrence, _recurrence_transposed, jacobians, change)
        return (states, *others), (d_states, *(_no_tangent(x) for x in others))

    states, residual, sweeps = solve(list(consts), start, leaves)
    return ParallelUnroll(jax.vmap(unravel)(states), residual <= tolerance, sweeps, residual)


def _sweeps(f, start, inputs, num_steps, form, damping, tolerance, max_sweeps):
    def linearised(x, u):
        if form == "newton":
            return f(x, u), (1 - damping) * jax.jacfwd(lambda x: f(x, u))(x)
        whole = jax.jacfwd(lambda x: f(x, u))(x)
        return f(x, u), (1 - damping) * jnp.clip(jnp.diagonal(whole), -1, 1)

    def sweep(carry):
        states, _, count = carry
        before = jnp.concatenate([start[None], states[:-1]])  # [time, n]
        new, a = jax.vmap(linearised)(before, inputs)  # [time, n], [time, n, n] or [time, n]
        b = new - _times(a, before)
        b = b.at[0].add(_times(a[:1], start[None])[0])
        states = _recurrence(a, b)
        # Far from the solution a sweep may overflow late in the sequence; what comes before is not touched by that.
        states = jnp.where(jnp.isfinite(states), states, start)
        return states, residual_of(states), count + 1

    def residual_of(states):
        before = jnp.concatenate([start[None], states[:-1]])
        new = jax.vmap(lambda x, u: f(x, u))(before, inputs)
        worst = jnp.max(jnp.abs(states - new) / jnp.maximum(1, jnp.abs(states)), initial=0.0)
        return jnp.where(jnp.isfinite(worst), worst, jnp.inf).astype(start.dtype)

    def unfinished(carry):
        _, residual, count = carry
        return (residual > tolerance) & (count < max_sweeps)

    guess = jnp.broadcast_to(start, (num_steps, *start.shape))
    return jax.lax.while_loop(unfinished, sweep, (guess, jnp.asarray(jnp.inf, start.dtype), jnp.asarray(0)))


def _times(a: Array, x: Array) -> Array:
    """`A_t x_t` for all t: `a` holds matrices `[time, n, n]` or diagonals `[time, n]`."""
    return a * x if a.ndim == x.ndim else jnp.einsum("tij,tj->ti", a, x)


def _recurrence(a: Array, b: Array) -> Array:
    """`x_t = A_t x_{t-1} + b_t` with `x_0 = b_0`, by an associative scan: `[time, n]`."""

    def after(first, second):
        (a1, b1), (a2, b2) = first, second
        return (a2 * a1 if a.ndim == b.ndim else a2 @ a1), b2 + _times(a2, b1)

    return jax.lax.associative_scan(after, (a, b))[1]


def _recurrence_transposed(a: Array, g: Array) -> Array:
    """Its transpose, `y_t = A_{t+1}^T y_{t+1} + g_t`: the same scan, backwards in time."""
    following = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    return _recurrence(following.mT[::-1], g[::-1])[::-1]


def _no_tangent(x: Any) -> Any:
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.floating) else np.zeros(x.shape, jax.dtypes.float0)
