"""Teacher forcing for networks that shall generate a signal by themselves: the state is pulled towards the data.

After each step the state that goes on is `z~_t = (1 - a) z_t + a z^_t`, with z^ the state that the data ask for. What
is judged is `z_t`, the prediction before it is corrected. a = 1 is Doya's teacher forcing; 0 < a < 1 the generalised
form of Hess et al., whose Jacobians `(1 - a) J_t` keep gradients bounded through a chaotic system when a is large
enough.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from cliffs.recurrent import ModelParams, readout
from cliffs.typing import Step

Force = Callable[[PyTree, Array, float | Array], PyTree]
"""`force(state, target, strength) -> state`."""


def force_units(state: Array, target: Array, strength: float | Array) -> Array:
    """The first units of a state, as many as the target has, pulled towards it: `(1 - a) z + a z^`.

    >>> force_units(jnp.zeros(3), jnp.ones(2), 0.25).tolist()
    [0.25, 0.25, 0.0]
    """
    pulled = state[..., : target.shape[-1]]
    pulled = pulled + strength * (target - pulled)
    return jnp.concatenate([pulled, state[..., target.shape[-1] :]], -1)


def force_output(state: tuple[PyTree, Array], target: Array, strength: float | Array) -> tuple[PyTree, Array]:
    """The output y of a state `(h, y)` of `feedback_step` pulled towards the target.

    >>> force_output((None, jnp.zeros(1)), jnp.ones(1), 1.0)[1].tolist()
    [1.0]
    """
    hidden, output = state
    return hidden, output + strength * (target - output)


def teacher_forced_unroll(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    targets: Float[Array | np.ndarray, "time *batch outputs"],
    strength: float | Float[Array, ""] = 1.0,
    interval: int = 1,
    force: Force = force_units,
) -> PyTree:
    """The states `z_t = step(params, z~_{t-1}, u_t)` with `z~_t = force(z_t, target_t, strength)` carried on.

    **Arguments**

    - `step`, `params`, `initial_state`: as in `unroll`; start from the state that the data ask for.
    - `inputs`: `[time, *batch, ...]`, or None for an autonomous generator.
    - `targets`: what the state shall be after every step, `[time, *batch, outputs]`.
    - `strength`: a, from 0 (free running) to 1 (the data replace the state); may be traced.
    - `interval`: the state is forced after every `interval`-th step only (sparse teacher forcing).
    - `force`: `force_units` for units that are observed, `force_output` for a step of `feedback_step`, or your own.

    **Returns** the states before they are forced, leaves `[time, *batch, ...]`. Take the loss of these, for instance
    `((states[..., :outputs] - targets) ** 2).mean()`.

    **Raises** `ValueError` for `interval < 1`, or a known strength outside of 0 to 1.

    Source: Williams & Zipser (1989); Doya (1992), Bifurcations in the learning of recurrent neural networks; Mikhaeil,
    Monfared & Durstewitz (2022) for the interval; Hess, Monfared, Brenner & Durstewitz (ICML 2023), Generalized teacher
    forcing for learning chaotic dynamics.

    >>> from cliffs.recurrent import linear_step
    >>> run = lambda a: teacher_forced_unroll(
    ...     linear_step, 2 * jnp.eye(1), jnp.ones(1), targets=jnp.ones((4, 1)), strength=a)
    >>> run(0.0)[:, 0].tolist(), run(1.0)[:, 0].tolist()
    ([2.0, 4.0, 8.0, 16.0], [2.0, 2.0, 2.0, 2.0])
    """
    if interval < 1:
        raise ValueError(f"interval must be at least 1, got {interval}")
    if not isinstance(strength, Tracer) and not 0 <= strength <= 1:
        raise ValueError(f"strength must be between 0 and 1, got {strength}")

    def body(state, x):
        t, u, target = x
        new = step(params, state, u)
        forced = force(new, target, strength)
        if interval > 1:
            forced = jax.tree.map(lambda f, n: jnp.where((t + 1) % interval == 0, f, n), forced, new)
        return forced, new

    return jax.lax.scan(body, initial_state, (jnp.arange(len(targets)), inputs, targets))[1]


def feedback_step(step: Step) -> Step:
    """A step with its own output as input: `h_t = step(params.rnn, h_{t-1}, y_{t-1})`, `y_t = readout(h_t)`.

    The state is `(h, y)`; parameters are `ModelParams`. With inputs, a step sees `[y_{t-1}, u_t]`. It runs freely under
    `unroll` and is taught with `teacher_forced_unroll(..., force=force_output)`.

    >>> from cliffs import recurrent
    >>> params = recurrent.paper_init("basic_tanh", jax.random.key(0), 1, 5, 1)
    >>> step = feedback_step(recurrent.rnn_step("tanh"))
    >>> hidden, output = recurrent.unroll(step, params, (jnp.zeros(5), jnp.ones(1)), None, length=7)
    >>> hidden.shape, output.shape
    ((7, 5), (7, 1))
    """
    features = getattr(step, "features", lambda state: state)

    def fed_back(params: ModelParams, state, inputs=None):
        hidden, output = state
        seen = output if inputs is None else jnp.concatenate([output, inputs], -1)
        hidden = step(params.rnn, hidden, seen)
        return hidden, readout(params.readout, features(hidden))

    return fed_back


def forcing_strength(
    step: Step, params: PyTree, states: Float[Array, "time batch n"], inputs: PyTree = None
) -> Float[Array, ""]:
    """The least strength that bounds all gradients: `a = max(0, 1 - 1 / N)`.

    N is the largest, over the batch, of the geometric mean of `||J_t||_2` along a sequence. A product of `(1 - a) J_t`
    over the whole sequence then has norm at most 1, which is an upper bound of what is needed.

    **Arguments**

    - `step`, `params`: a step on arrays `[n]`.
    - `states`: where the Jacobians are taken, `[time, batch, n]`: the data as states.
    - `inputs`: `[time, batch, ...]`, those of the steps that leave from these states; None for a generator.

    **Returns** a scalar in [0, 1). Use it as it is, or through `anneal_strength`.

    Source: Hess et al. (ICML 2023), the "product upper bound" of their code.

    >>> from cliffs.recurrent import linear_step
    >>> round(float(forcing_strength(linear_step, 4 * jnp.eye(2), jnp.ones((5, 3, 2)))), 5)
    0.75
    """
    jacobian = jax.jacfwd(step, argnums=1)
    jacobians = jax.vmap(jax.vmap(lambda x, u: jacobian(params, x, u)))(states, inputs)  # [time, batch, n, n]
    norms = jnp.linalg.norm(jacobians, 2, axis=(-2, -1))
    largest = jnp.exp(jnp.log(norms).mean(0)).max()
    return jnp.maximum(0, 1 - 1 / jnp.maximum(largest, 1))


def anneal_strength(
    strength: float | Array, estimate: float | Array, *, decay: float | Array = 0.999
) -> Float[Array, ""]:
    """The next strength: the estimate if it is larger, else `decay * strength + (1 - decay) * estimate`.

    Up at once, down slowly. The authors start at 1 and do this at every 5th update.

    >>> round(float(anneal_strength(0.5, 0.9)), 2), round(float(anneal_strength(0.5, 0.0, decay=0.9)), 2)
    (0.9, 0.45)
    """
    strength, estimate = jnp.asarray(strength, float), jnp.asarray(estimate, float)
    return jnp.where(estimate > strength, estimate, decay * strength + (1 - decay) * estimate)
