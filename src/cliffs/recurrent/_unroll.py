"""States over time: one `unroll` for every step, and which way it takes."""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from cliffs.recurrent._deferred import deferred_unroll, find_plan, is_array
from cliffs.recurrent._fast_unroll import ACTIVATIONS, fast_unroll
from cliffs.recurrent._gated import CellStep
from cliffs.recurrent._gated_rules import gated_kind, gated_unroll
from cliffs.recurrent._parallel import parallel_unroll, states_or_scan
from cliffs.recurrent._persistent import persistent_states
from cliffs.recurrent._recompute import block_of_remat, over_blocks_with_rest, settled_types
from cliffs.recurrent._tangents import states_before
from cliffs.recurrent._vanilla import RNNParams, RNNStep, check_driven, project_inputs
from cliffs.typing import Step

Method = Literal["auto", "scan", "parallel", "persistent"]
METHODS = get_args(Method)


def unroll(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree = None,
    *,
    length: int | None = None,
    method: Method = "auto",
    remat: bool | int = False,
    last_only: bool = False,
) -> PyTree:
    """All states `x_1 .. x_T` of `x_t = step(params, x_{t-1}, u_t)`, one after the other.

    The derivative forms the weight gradients in large products after the loop, instead of adding a small product to
    them at every step. The vanilla network, the LSTM and the GRU have rules written by hand; any other step is traced
    and its products with parameters are found (`unroll_method` tells which way is taken). All derivatives of any order
    are exact. Only pure forward mode (`jvp`, `jacfwd` of the unroll itself) through a step of `rnn_step` is refused
    by JAX: ask for `method="scan"` there.

    **Arguments**

    - `step`: `step(params, state, inputs) -> state` on pytrees.
    - `params`: passed to every step.
    - `initial_state`: `x_0`, a pytree of `[*batch, hidden]`.
    - `inputs`: pytree with a leading time axis, `[time, *batch, features]`; for a step of `rnn_step` integer
      arrays `[time, *batch]` are class indices. None for an autonomous map, with `length`.
    - `length`: number of steps, needed only when `inputs` is None.
    - `method`: `"auto"` takes the fastest rule there is, `"scan"` plain autodiff through the scan, `"parallel"`
      Newton's method over the whole sequence (`parallel_unroll`, which has its settings); where that does not
      converge, the scan runs after all, so that the states are right in any case. `"persistent"`: one Pallas kernel
      with the recurrent matrix on the chip, for a step of `rnn_step` of at most 256 units; never timed yet.
    - `remat`: what the backward pass keeps. False keeps what it needs of every step; True keeps one state per block
      of about `sqrt(T)` steps and computes each block a second time (about a third more time, memory
      `~ sqrt(T)` instead of `T`); an integer is a budget in bytes for one run (under `vmap`: for one lane) and takes
      the longest blocks that fit. Values and derivatives are those without it.
    - `last_only`: return `x_T` alone; with `remat` the other states are then never all in memory.

    **Returns** the states with a leading time axis, `[time, *batch, hidden]`, without `x_0`; or `x_T`
    `[*batch, hidden]` with `last_only`.

    **Raises** `ValueError` for an unknown method, a missing length, inputs that do not fit the state, a step that
    returns another state, or a budget that no length of block meets.

    Source: Pascanu, Mikolov & Bengio (2012), eqs. 1-5 and Fig. 2; recomputation in blocks: Chen et al. (2016),
    Training deep nets with sublinear memory cost.

    >>> from cliffs.recurrent import RNNParams, rnn_step
    >>> params = RNNParams(w_rec=0.9 * jnp.eye(3), w_in=jnp.ones((2, 3)))
    >>> unroll(rnn_step(), params, jnp.zeros((4, 3)), jnp.ones((7, 4, 2))).shape
    (7, 4, 3)
    """
    num_steps = _check(step, params, initial_state, inputs, length, method)
    if method == "parallel" and remat is not False:
        raise ValueError(f"remat must be False with method='parallel', which keeps all states, got {remat}")
    try:
        return _states(step, params, initial_state, inputs, num_steps, method, remat, last_only)
    except TypeError as error:
        _refuse_another_state(step, params, initial_state, inputs, error)
        raise


def _states(step, params, initial_state, inputs, num_steps, method, remat, last_only) -> PyTree:
    if remat is False:
        states = _choose(step, params, initial_state, inputs, num_steps, method)[1](initial_state, inputs)
        return jax.tree.map(lambda x: x[-1], states) if last_only else states

    def block(state, xs, count):
        states = _choose(step, params, state, xs, count, method)[1](state, xs)
        return jax.tree.map(lambda x: x[-1], states), None if last_only else states

    initial_state = settled_types(step, params, initial_state, inputs)
    steps = block_of_remat(block, initial_state, inputs, num_steps, remat)
    last, states = over_blocks_with_rest(block, initial_state, inputs, steps, num_steps=num_steps)
    return last if last_only else states


def _refuse_another_state(step, params, state, inputs, cause: TypeError) -> None:
    """Raise `ValueError` where the trouble is a step whose states are not like the initial one."""
    try:
        first = jax.tree.map(lambda x: x[0], inputs)
        new = jax.eval_shape(lambda state, u: step(params, state, u), state, first)
    except Exception:  # the trouble is within the step: its own error says more
        return
    old, new = (jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree) for tree in (state, new))
    if old != new:
        hint = "the batch axes of inputs [time, *batch, ...] belong into initial_state, too"
        raise ValueError(f"step must return a state like initial_state, {old}, got {new} ({hint})") from cause


class UnrollMethod(NamedTuple):
    """Which way `unroll` takes."""

    name: str
    """`"vanilla"`, `"lstm"`, `"gru"`, `"deferred"` (products found in the step) or `"scan"` (plain autodiff)."""
    why: str
    """One sentence: what was found, and what was not."""


def unroll_method(
    step: Step, params: PyTree, initial_state: PyTree, inputs: PyTree = None, *, length: int | None = None
) -> UnrollMethod:
    """Which way `unroll(step, params, initial_state, inputs)` takes, and why; nothing is computed.

    **Arguments**: those of `unroll`; arrays may be `jax.ShapeDtypeStruct`.

    **Returns** an `UnrollMethod(name, why)`.

    **Raises** `ValueError` as `unroll` does.

    >>> def leaky(w, x, u):
    ...     return 0.9 * x + 0.1 * jnp.tanh(x @ w + u)
    >>> found = unroll_method(leaky, jnp.eye(3), jnp.zeros((4, 3)), jnp.zeros((7, 4, 3)))
    >>> found.name, found.why
    ('deferred', '1 product with parameters is deferred')
    >>> unroll_method(lambda p, x, u: p * x, 0.5, jnp.ones(2), length=7).name
    'scan'
    """
    num_steps = _check(step, params, initial_state, inputs, length, "auto")
    return _choose(step, params, initial_state, inputs, num_steps, "auto")[0]


Run = Callable[[PyTree, PyTree], PyTree]


def _choose(step, params, initial_state, inputs, num_steps, method) -> tuple[UnrollMethod, Run]:
    """The way to take, and a function `run(initial_state, inputs) -> states`."""

    def scan(state, inputs):
        def body(state, u):
            new = step(params, state, u)
            return new, new

        return jax.lax.scan(body, state, inputs, length=num_steps)[1]

    if method == "scan":
        return UnrollMethod("scan", "plain autodiff was asked for"), scan
    if method == "parallel":

        def parallel(state, inputs):
            found = parallel_unroll(step, params, state, inputs, length=num_steps)
            return states_or_scan(found, lambda: scan(state, inputs))

        return UnrollMethod("parallel", "Newton's method over the whole sequence was asked for"), parallel
    if method == "persistent":

        def persistent(state, inputs):
            pre = step.form == "pre_activation"
            start = ACTIVATIONS[step.activation](state) if pre else state
            drive = project_inputs(params, inputs)
            activity = persistent_states(step.activation, params.w_rec, drive, start)
            return states_before(start, activity) @ params.w_rec + drive if pre else activity

        return UnrollMethod("persistent", "the kernel was asked for"), persistent
    if isinstance(step, RNNStep):
        return UnrollMethod("vanilla", "the rule of the vanilla network"), lambda state, inputs: _vanilla(
            step, params, state, inputs
        )
    kind = gated_kind(step, params, initial_state, inputs) if isinstance(step, CellStep) else None
    if kind is not None:
        return UnrollMethod(kind, f"the rule of the {kind.upper()}"), lambda state, inputs: gated_unroll(
            kind, params, state, inputs
        )
    plan, why = find_plan(step, params, initial_state, inputs, num_steps)
    if plan is None:
        return UnrollMethod("scan", why), scan

    def deferred(state, inputs):
        leaves, tree = jax.tree.flatten(state)
        arrays = [x for x in jax.tree.leaves(params) if is_array(x)]
        flat = [jnp.asarray(x) for x in leaves]
        return tree.unflatten(deferred_unroll(plan, arrays, flat, jax.tree.leaves(inputs), num_steps))

    return UnrollMethod("deferred", why), deferred


def _vanilla(step: RNNStep, params: RNNParams, initial_state: Array, inputs: Array) -> Array:
    w_rec, w_in, bias = params
    state = jnp.asarray(initial_state)
    if jnp.issubdtype(inputs.dtype, jnp.integer):
        w_in, bias, inputs = None, None, project_inputs(params, inputs)
    # One dtype throughout, as a scan's carry needs; a shared initial state is spread over the batch.
    dtype = jnp.result_type(w_rec, state, inputs)
    shape = jnp.broadcast_shapes(state.shape[:-1], inputs.shape[1:-1]) + state.shape[-1:]
    cast = jax.tree.map(lambda x: x.astype(dtype), (w_rec, w_in, bias, state, inputs))
    w_rec, w_in, bias, state, inputs = cast
    return fast_unroll(step.activation, step.form, w_rec, w_in, bias, jnp.broadcast_to(state, shape), inputs)


def _check(step, params, initial_state, inputs, length: int | None, method: str) -> int:
    """The number of steps; raises where the arguments do not fit."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "persistent" and not (isinstance(step, RNNStep) and jnp.ndim(initial_state) == 2):
        raise ValueError(
            "method='persistent' serves a step of rnn_step with one batch axis, initial_state [batch, hidden], got "
            f"{step} and shapes {[jnp.shape(x) for x in jax.tree.leaves(initial_state)]}"
        )
    leaves = jax.tree.leaves(inputs)
    if not leaves and length is None:
        raise ValueError("inputs is None: say how many steps with length=...")
    if isinstance(step, RNNStep):
        _check_inputs(params, initial_state, inputs)
    lengths = {jnp.shape(x)[0] if jnp.ndim(x) else -1 for x in leaves} | ({length} if length is not None else set())
    if len(lengths) != 1 or -1 in lengths:
        shapes = [jnp.shape(x) for x in leaves]
        raise ValueError(f"inputs must all have the same time axis first, as long as length, got {shapes} and {length}")
    return lengths.pop()


def _check_inputs(params: RNNParams, state: Array, inputs: Array) -> None:
    check_driven(params, inputs)
    features, hidden = params.w_in.shape
    index = jnp.issubdtype(inputs.dtype, jnp.integer)
    want = "[time, *batch] of class indices" if index else f"[time, *batch, {features}]"
    if inputs.ndim != jnp.ndim(state) + (not index) or not (index or inputs.shape[-1] == features):
        raise ValueError(
            f"inputs must be {want} for a state of shape {jnp.shape(state)}, got shape {inputs.shape} ({inputs.dtype})"
        )
    if jnp.shape(state)[-1] != hidden or params.w_rec.shape != (hidden, hidden):
        raise ValueError(
            f"initial_state must end in hidden size {hidden} and w_rec be [{hidden}, {hidden}], got state "
            f"{jnp.shape(state)} and w_rec {params.w_rec.shape}"
        )
