"""Training as a pure function: a loss, an optax transformation and a sampler become one scan.

A *loss* is `loss(params, batch) -> scalar` or `(scalar, aux)`, a *sampler* `sample(key) -> batch`. The key of a step is
`fold_in(key, step)`, so a trajectory depends on the run's key alone, not on how steps or runs were grouped.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from cliffs._losses import with_aux
from cliffs.clipping import tree_norm
from cliffs.recurrent import Method, ModelParams, readout, unroll
from cliffs.training._losses import check_classes, last_states
from cliffs.typing import Loss, Sampler, Step


class TrainState(NamedTuple):
    """What one run carries from step to step."""

    params: PyTree
    opt_state: PyTree
    step: Int[Array, ""]
    diverged_at: Int[Array, ""]
    """The first step whose loss or new parameters were not finite; -1 while there was none."""


class StepMetrics(NamedTuple):
    """What one step records: the loss and the gradient's norm *before* the update, and the loss's aux."""

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    aux: PyTree


def init_train_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step.

    >>> int(init_train_state({"w": jnp.zeros(2)}, optax.sgd(0.1)).diverged_at)
    -1
    """
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32))


def train_step(
    state: TrainState, batch: PyTree, loss: Loss, optimizer: optax.GradientTransformation
) -> tuple[TrainState, StepMetrics]:
    """One update `params + optimizer(grad loss)`; a run that diverges is frozen where it last was finite.

    A step counts as divergence when the loss or any updated parameter is not finite. Its step number is recorded in
    `diverged_at`, parameters and optimiser state keep their last finite values, and later steps change nothing.

    **Arguments**

    - `state`: `TrainState`.
    - `batch`: whatever `loss` takes.
    - `loss`: `loss(params, batch) -> scalar` or `(scalar, aux)`.
    - `optimizer`: any optax chain; the loss value is passed on as `value=` for transformations that take it.

    **Returns** `(TrainState, StepMetrics)`.

    >>> quadratic = lambda params, batch: (jnp.sum((params - batch) ** 2), ())
    >>> state = init_train_state(jnp.zeros(2), optax.sgd(0.5))
    >>> state, metrics = train_step(state, jnp.ones(2), quadratic, optax.sgd(0.5))
    >>> state.params.tolist(), float(metrics.loss)
    ([1.0, 1.0], 2.0)
    """
    (value, aux), grads = jax.value_and_grad(with_aux(loss), has_aux=True)(state.params, batch)
    extra = optax.with_extra_args_support(optimizer)
    updates, opt_state = extra.update(grads, state.opt_state, state.params, value=value)
    params = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(value) & _all_finite(params)
    alive = finite & (state.diverged_at < 0)

    def keep(new, old):
        return jnp.where(alive, new, old)

    diverged_at = jnp.where(finite | (state.diverged_at >= 0), state.diverged_at, state.step)
    new = TrainState(
        jax.tree.map(keep, params, state.params),
        jax.tree.map(keep, opt_state, state.opt_state),
        state.step + 1,
        diverged_at,
    )
    return new, StepMetrics(value, tree_norm(grads).value, aux)


def _all_finite(tree: PyTree) -> Array:
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.array(True)


def fit(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    params: PyTree,
    sample: Sampler,
    key: Key[Array, ""],
    num_steps: int,
    *,
    steps_per_scan: int | None = None,
) -> tuple[TrainState, StepMetrics]:
    """`num_steps` updates on fresh batches; pure, so it can be jitted and vmapped over params and keys.

    **Arguments**

    - `loss`, `optimizer`: as in `train_step`.
    - `params`: initial parameters.
    - `sample`: `sample(key) -> batch`, called with `fold_in(key, step)` inside the compiled program.
    - `key`: the run's key.
    - `num_steps`: number of updates.
    - `steps_per_scan`: when given, the updates run as a host loop over jitted scans of this many steps (it must
      divide `num_steps`), bit-identical to one long scan; without it as one scan.

    **Returns** the final `TrainState` and `StepMetrics` with leaves `[num_steps, ...]`.

    **Raises** `ValueError` when `num_steps` is negative or not a multiple of `steps_per_scan`.

    >>> target = lambda params, batch: (jnp.sum((params - batch) ** 2), ())
    >>> sample = lambda key: jax.random.normal(key, (2,))
    >>> state, history = fit(target, optax.sgd(0.1), jnp.zeros(2), sample, jax.random.key(0), 20)
    >>> int(state.step), history.loss.shape
    (20, (20,))
    """
    if num_steps < 0:
        raise ValueError(f"num_steps must be non-negative, got {num_steps}")
    chunk = num_steps if steps_per_scan is None else steps_per_scan
    if steps_per_scan is not None and (steps_per_scan < 1 or num_steps % steps_per_scan):
        raise ValueError(f"steps_per_scan must divide num_steps={num_steps}, got {steps_per_scan}")

    def body(state, _):
        return train_step(state, sample(jax.random.fold_in(key, state.step)), loss, optimizer)

    state = init_train_state(params, optimizer)
    if steps_per_scan is None:
        return jax.lax.scan(body, state, length=chunk)
    scan = jax.jit(lambda state: jax.lax.scan(body, state, length=chunk), donate_argnums=0)
    # The first call gives its buffers away: hand it copies, the caller keeps `params`.
    state, pieces = jax.tree.map(lambda x: jnp.array(x, copy=True), state), []
    for _ in range(num_steps // chunk):
        state, metrics = scan(state)
        pieces.append(metrics)
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), *pieces)


def classification_loss(step: Step, *, method: Method = "auto") -> Loss:
    """Cross-entropy at the last step of a recurrent network with a linear read-out, and the share it gets wrong.

    **Arguments**

    - `step`: a step with a `features` method (those of `rnn_step` and `cliffs.recurrent`), or any step whose state
      is the array that the read-out sees.
    - `method`: of `unroll`.

    **Returns** `loss(params: ModelParams, batch: SequenceBatch) -> (nats, error rate)`. The initial state is zero.
    Sequences of lengths of their own have them in `batch.length`, `[batch]`.

    >>> from cliffs import recurrent, tasks
    >>> loss = classification_loss(recurrent.rnn_step("tanh"))
    >>> params = recurrent.paper_init("sigmoid", jax.random.key(0), 6, 10, 4)
    >>> value, error = loss(params, tasks.temporal_order(jax.random.key(1), 20, 12))
    >>> round(float(value), 2)  # chance is log 4
    1.39
    """
    features = getattr(step, "features", lambda states: states)
    zero_state = getattr(step, "initial_state", None)

    def loss(params: ModelParams, batch):
        dtype = params.readout.w_out.dtype
        shape = batch.inputs.shape[1:-1]
        start = zero_state(shape, dtype) if zero_state else jnp.zeros((*shape, params.readout.w_out.shape[0]), dtype)
        states = unroll(step, params.rnn, start, batch.inputs.astype(dtype), method=method)
        logits = readout(params.readout, features(last_states(states, batch.length)))
        check_classes(logits, batch.targets)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
        return nats.mean(), (logits.argmax(-1) != batch.targets).mean()

    return loss
