"""The vanilla recurrent network as a pure step function, its read-out and its unroll in time.

Everything in `cliffs` takes a *step*: any function `step(params, state, inputs) -> state` on pytrees
(Pascanu, Mikolov & Bengio 2012, eq. 1). `rnn_step` builds the two usual parametrisations of the vanilla
network; `cliffs.recurrent` wraps the gated cells of flax; a function from a notebook does as well.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.recurrent._fast_unroll import ACTIVATIONS, fast_unroll
from cliffs.typing import Step


class RNNParams(NamedTuple):
    """Recurrent parameters in the row-vector convention: `state @ w_rec + inputs @ w_in + bias`."""

    w_rec: Float[Array, "hidden hidden"]
    w_in: Float[Array, "features hidden"]
    bias: Float[Array, " hidden"] | None = None


class ReadoutParams(NamedTuple):
    """Linear read-out: `features @ w_out + bias`."""

    w_out: Float[Array, "hidden outputs"]
    bias: Float[Array, " outputs"] | None = None


class ModelParams(NamedTuple):
    """A recurrent network with its read-out."""

    rnn: Any
    readout: ReadoutParams


@dataclasses.dataclass(frozen=True)
class RNNStep:
    """The step that `rnn_step` returns: hashable, so it can be a static argument of `jax.jit`."""

    activation: str
    form: str

    def __call__(self, params: RNNParams, state: Array, inputs: Array) -> Array:
        act = ACTIVATIONS[self.activation]
        drive = project_inputs(params, inputs)
        if self.form == "pre_activation":
            return act(state) @ params.w_rec + drive
        return act(state @ params.w_rec + drive)

    def features(self, states: Array) -> Array:
        """What the read-out sees: the activity of the units, act(x) or h."""
        return ACTIVATIONS[self.activation](states) if self.form == "pre_activation" else states


def rnn_step(
    activation: str = "tanh", form: Literal["post_activation", "pre_activation"] = "post_activation"
) -> RNNStep:
    """The step of a vanilla recurrent network, in either parametrisation.

    - `"post_activation"`: `h_t = act(h_{t-1} W_rec + u_t W_in + b)`, the state is the units' activity;
    - `"pre_activation"`: `x_t = act(x_{t-1}) W_rec + u_t W_in + b`, the paper's eq. 2.

    **Arguments**

    - `activation`: `"tanh"`, `"logistic"`, `"relu"` or `"identity"`.
    - `form`: which of the two parametrisations.

    **Returns** an `RNNStep`, called as `step(params: RNNParams, state[..., hidden], inputs[..., features])`.

    **Raises** `ValueError` for an unknown activation or form.

    Source: Pascanu, Mikolov & Bengio (2012), eq. 2 and footnote 1.

    >>> step = rnn_step("tanh")
    >>> params = RNNParams(w_rec=jnp.eye(3), w_in=jnp.ones((2, 3)))
    >>> step(params, jnp.zeros(3), jnp.zeros(2)).shape
    (3,)
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {activation!r}")
    if form not in ("post_activation", "pre_activation"):
        raise ValueError(f"form must be 'post_activation' or 'pre_activation', got {form!r}")
    return RNNStep(activation, form)


def project_inputs(params: RNNParams, inputs: Array) -> Array:
    """The drive `u W_in + b`. Integer `inputs` are class indices: each selects its row of `w_in`.

    >>> params = RNNParams(w_rec=jnp.eye(2), w_in=jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    >>> project_inputs(params, jnp.array([0.0, 1.0])).tolist(), project_inputs(params, jnp.array(1)).tolist()
    ([3.0, 4.0], [3.0, 4.0])
    """
    drive = params.w_in[inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs @ params.w_in
    return drive if params.bias is None else drive + params.bias


def readout(params: ReadoutParams, features: Float[Array, "*batch hidden"]) -> Float[Array, "*batch outputs"]:
    """Linear read-out `y = features W_out + b`.

    >>> readout(ReadoutParams(jnp.ones((3, 2))), jnp.ones((5, 3))).shape
    (5, 2)
    """
    out = features @ params.w_out
    return out if params.bias is None else out + params.bias


def unroll(
    step: Step,
    params: PyTree,
    initial_state: PyTree,
    inputs: PyTree,
    *,
    length: int | None = None,
    method: Literal["auto", "scan"] = "auto",
) -> PyTree:
    """All states `x_1 .. x_T` of `x_t = step(params, x_{t-1}, u_t)`, by `lax.scan`.

    For a step of `rnn_step` the backward pass is a rule of its own: the reverse scan stores the deltas and the
    weight gradients are formed in large products after it. The rule allows `grad`, `vjp`, `grad` of `grad` and
    forward over reverse (`jvp` of `grad`, Hessian-vector products, `jax.hessian`). Only pure forward mode
    (`jvp` or `jacfwd` of the unroll itself) is refused by JAX for such rules: ask for `method="scan"` there.

    **Arguments**

    - `step`: `step(params, state, inputs) -> state` on pytrees.
    - `params`: passed to every step.
    - `initial_state`: `x_0`, a pytree of `[*batch, hidden]`.
    - `inputs`: pytree with a leading time axis, `[time, *batch, features]`; for a step of `rnn_step` integer
      arrays `[time, *batch]` are class indices. None for an autonomous map, with `length`.
    - `length`: number of steps, needed only when `inputs` is None.
    - `method`: `"auto"` takes the fast rule where there is one, `"scan"` plain autodiff through the scan.

    **Returns** the states with a leading time axis, `[time, *batch, hidden]`, without `x_0`.

    **Raises** `ValueError` for an unknown method, a missing length, or inputs that do not fit the state.

    Source: Pascanu, Mikolov & Bengio (2012), eqs. 1-5 and Fig. 2.

    >>> params = RNNParams(w_rec=0.9 * jnp.eye(3), w_in=jnp.ones((2, 3)))
    >>> unroll(rnn_step(), params, jnp.zeros((4, 3)), jnp.ones((7, 4, 2))).shape
    (7, 4, 3)
    """
    if method not in ("auto", "scan"):
        raise ValueError(f"method must be 'auto' or 'scan', got {method!r}")
    if not jax.tree.leaves(inputs) and length is None:
        raise ValueError("inputs is None: say how many steps with length=...")
    if isinstance(step, RNNStep):
        _check_inputs(params, initial_state, inputs)
        if method == "auto":
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

    def body(state, u):
        new = step(params, state, u)
        return new, new

    return jax.lax.scan(body, initial_state, inputs, length=length)[1]


def _check_inputs(params: RNNParams, state: Array, inputs: Array) -> None:
    if inputs is None:
        raise ValueError("inputs is None, but a step of rnn_step needs [time, *batch, features]")
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
