"""The cells of flax as steps: simple, LSTM, GRU, or any other `flax.linen` recurrent cell.

A `CellStep` is called like every step, `step(params, state, inputs) -> state`. The state is the cell's own carry:
`h` for the simple cell and the GRU, `(c, h)` for the LSTM. flax is imported when the first cell is made.
"""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Key, PyTree

if TYPE_CHECKING:
    import flax.linen


@dataclasses.dataclass(frozen=True)
class CellStep:
    """A flax cell seen as a step; hashable, so it can be a static argument of `jax.jit`."""

    cell: "flax.linen.RNNCellBase"
    hidden: int
    forget_bias: float = 0.0

    def __call__(self, params: PyTree, state: PyTree, inputs: Array) -> PyTree:
        return self.cell.apply({"params": params}, state, inputs)[0]

    def init(self, key: Key[Array, ""], features: int, dtype: DTypeLike = jnp.float32) -> PyTree:
        """Parameters for inputs with `features` entries, by the cell's own initialisers."""
        state = self.initial_state((), dtype)
        params = self.cell.init(key, state, jnp.zeros(features, dtype))["params"]
        params = jax.tree.map(lambda p: p.astype(dtype), params)
        if self.forget_bias:
            # flax adds the recurrent branch's bias to the gate: "hf" is the forget gate's.
            gate = params["hf"]
            params = {**params, "hf": {**gate, "bias": gate["bias"] + self.forget_bias}}
        return params

    def initial_state(self, batch_shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32) -> PyTree:
        """The zero state, leaves `[*batch_shape, hidden]`."""
        zeros = jnp.zeros((*batch_shape, self.hidden), dtype)
        from flax import linen as nn

        return (zeros, zeros) if isinstance(self.cell, nn.LSTMCell | nn.OptimizedLSTMCell) else zeros

    def features(self, states: PyTree) -> Array:
        """What a read-out sees: `h`."""
        return states[1] if isinstance(states, tuple) else states


def _check_hidden(hidden: int) -> None:
    if hidden < 1:
        raise ValueError(f"hidden must be at least 1, got {hidden}")


def simple_cell(hidden: int) -> CellStep:
    """flax's `SimpleCell` (Elman): `h = tanh(u W_i + b + h W_h)`.

    >>> step = simple_cell(5)
    >>> params = step.init(jax.random.key(0), 3)
    >>> step(params, step.initial_state(), jnp.ones(3)).shape
    (5,)
    """
    from flax import linen as nn

    _check_hidden(hidden)
    return CellStep(nn.SimpleCell(hidden), hidden)


def lstm_cell(hidden: int, forget_bias: float = 0.0) -> CellStep:
    """flax's LSTM cell; the state is `(c, h)`.

    **Arguments**

    - `hidden`: number of units.
    - `forget_bias`: added to the forget gate's initial bias; 1.0 is the usual choice against vanishing gradients
      (Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015).

    **Returns** a `CellStep`.

    >>> step = lstm_cell(5, forget_bias=1.0)
    >>> params = step.init(jax.random.key(0), 3)
    >>> params["hf"]["bias"].tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    from flax import linen as nn

    _check_hidden(hidden)
    return CellStep(nn.OptimizedLSTMCell(hidden), hidden, forget_bias)


def gru_cell(hidden: int) -> CellStep:
    """flax's GRU cell (Cho et al. 2014).

    >>> step = gru_cell(5)
    >>> step(step.init(jax.random.key(0), 3), step.initial_state((2,)), jnp.ones((2, 3))).shape
    (2, 5)
    """
    from flax import linen as nn

    _check_hidden(hidden)
    return CellStep(nn.GRUCell(hidden), hidden)
