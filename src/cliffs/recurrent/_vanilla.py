"""The vanilla recurrent network as a pure step function, its read-out and its unroll in time.

Everything in `cliffs` takes a *step*: any function `step(params, state, inputs) -> state` on pytrees
(Pascanu, Mikolov & Bengio 2012, eq. 1). `rnn_step` builds the two usual parametrisations of the vanilla
network; `cliffs.recurrent` wraps the gated cells of flax; a function from a notebook does as well.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from cliffs.recurrent._fast_unroll import ACTIVATIONS


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

    rnn: PyTree
    readout: ReadoutParams


@dataclasses.dataclass(frozen=True)
class RNNStep:
    """The step that `rnn_step` returns: hashable, so it can be a static argument of `jax.jit`."""

    activation: str
    form: str

    def __call__(self, params: RNNParams, state: Array, inputs: Array) -> Array:
        check_driven(params, inputs)
        act = ACTIVATIONS[self.activation]
        drive = project_inputs(params, inputs)
        if self.form == "pre_activation":
            return act(state) @ params.w_rec + drive
        return act(state @ params.w_rec + drive)

    def features(self, states: Array) -> Array:
        """What the read-out sees: the activity of the units, act(x) or h."""
        return ACTIVATIONS[self.activation](states) if self.form == "pre_activation" else states


def check_driven(params: PyTree, inputs: PyTree) -> None:
    """Raise `ValueError` for parameters with a read-out, or for no inputs, where a step of `rnn_step` is meant."""
    if isinstance(params, ModelParams):
        raise ValueError("params must be RNNParams, got ModelParams: a step takes its field rnn, without the read-out")
    if inputs is None:
        raise ValueError("inputs is None, but a step of rnn_step needs them: [..., features], zeros where it has none")


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
