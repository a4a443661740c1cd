"""The vanilla recurrent network as a pure step function, its read-out and its unroll in time.

Everything in `cliffs` takes a *step*: any function `step(params, state, inputs) -> state` on pytrees
(Pascanu, Mikolov & Bengio 2012, eq. 1). `rnn_step` builds the two usual parametrisations of the vanilla
network; `cliffs.cells` wraps the gated cells of flax; a function from a notebook does as well.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Step = Callable[[Any, Any, Any], Any]
"""`step(params, state, inputs) -> state`."""

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}


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
        drive = inputs @ params.w_in
        if params.bias is not None:
            drive = drive + params.bias
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


def readout(params: ReadoutParams, features: Float[Array, "*batch hidden"]) -> Float[Array, "*batch outputs"]:
    """Linear read-out `y = features W_out + b`."""
    out = features @ params.w_out
    return out if params.bias is None else out + params.bias


def unroll(step: Step, params: PyTree, initial_state: PyTree, inputs: PyTree) -> PyTree:
    """All states `x_1..x_T` of `x_t = step(params, x_{t-1}, u_t)`, time axis first, by one `lax.scan`."""

    def body(state, u):
        new = step(params, state, u)
        return new, new

    return jax.lax.scan(body, initial_state, inputs)[1]
