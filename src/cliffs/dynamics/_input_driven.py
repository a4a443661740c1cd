"""Input-driven maps as autonomous ones: the input folded into the map, and the split into F~ and U_t.

With inputs `u_1, u_2, ...` a step is a family of maps `F_t(x) = step(params, x, u_t)` (Pascanu, Mikolov & Bengio 2012,
Fig. 5). One fixed input makes it autonomous: every function of this package takes it as `inputs`. A periodic input
makes the composition over one period autonomous, and that composition is a step again: `compose(step)`, whose input
is the whole sequence. So fixed points of it are responses of the input's period, their multipliers Floquet multipliers,
and continuation, bifurcations and basins of driven networks need no code of their own.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from cliffs.recurrent import RNNParams, RNNStep, project_inputs, unroll
from cliffs.typing import Step


@dataclasses.dataclass(frozen=True)
class ComposedStep:
    """`F_T o ... o F_1` as one step whose input is the sequence `u_1 .. u_T`; hashable."""

    step: Step

    def __call__(self, params: PyTree, state: PyTree, inputs: PyTree) -> PyTree:
        return jax.lax.scan(lambda s, u: (self.step(params, s, u), None), state, inputs)[0]


def compose(step: Step) -> ComposedStep:
    """The step `x -> F_T(... F_1(x))`: its `inputs` are a whole sequence `[time, ...]`, `F_t` the step with `u_t`.

    **Arguments**: `step(params, state, inputs) -> state`.

    **Returns** a `ComposedStep`. A period-T response to a periodic input is a fixed point of it; the points within the
    period are `unroll(step, params, point, inputs)`.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5 and Fig. 5 (the maps F_t).

    >>> from cliffs.dynamics import find_fixed_points
    >>> decay = lambda a, x, u: a * x + u
    >>> inputs = jnp.array([[1.0], [0.0]])  # x = a (a x + 1), so x = a / (1 - a^2)
    >>> found = find_fixed_points(compose(decay), jnp.asarray(0.5), jnp.zeros((1, 1)), inputs)
    >>> round(float(found.points[0, 0]), 4), round(float(found.multipliers[0, 0].real), 4)
    (0.6667, 0.25)
    """
    return ComposedStep(step)


class Split(NamedTuple):
    """`F_t = U_t o F~`: the network without input, then the push of the input."""

    autonomous: Step
    """`F~`: `autonomous(params, state, None) -> state`."""
    push: Step
    """`U_t`: `push(params, state, inputs) -> state`."""


@dataclasses.dataclass(frozen=True)
class _Autonomous:
    step: RNNStep

    def __call__(self, params: RNNParams, state: Array, inputs: PyTree = None) -> Array:
        del inputs
        rest = jnp.zeros((*jnp.shape(state)[:-1], params.w_in.shape[0]), params.w_rec.dtype)
        return self.step(params, state, rest)


def _push(params: RNNParams, state: Array, inputs: Array) -> Array:
    return state + project_inputs(params._replace(bias=None), inputs)


def split_step(step: RNNStep) -> Split:
    """The paper's split `x_t = U_t(F~(x_{t-1}))`, `F~(x) = act(x) W_rec + b`, `U_t(x) = x + u_t W_in`.

    It is exact for the paper's form of the network, where the input is added after the non-linearity. In the other form
    the input sits inside it; with the same parameters, the pre-activations of that network follow the paper's form.

    **Arguments**: a step of `rnn_step(..., form="pre_activation")`.

    **Returns** a `Split`; `autonomous` has no input, so fixed points, continuation and basins apply to it.

    **Raises** `ValueError` for any other step.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5 and Fig. 6.

    >>> from cliffs.recurrent import rnn_step
    >>> step = rnn_step("tanh", "pre_activation")
    >>> params = RNNParams(2.0 * jnp.eye(2), jnp.ones((1, 2)), jnp.array([0.1, 0.2]))
    >>> x, u = jnp.array([0.3, -0.4]), jnp.array([0.5])
    >>> split = split_step(step)
    >>> bool(jnp.allclose(split.push(params, split.autonomous(params, x, None), u), step(params, x, u)))
    True
    """
    if not isinstance(step, RNNStep) or step.form != "pre_activation":
        raise ValueError(
            "step must be of rnn_step(activation, 'pre_activation'), where the input is added to the state; got "
            f"{step!r}. For 'post_activation' take that step with the same parameters: its state is the pre-activation"
        )
    return Split(_Autonomous(step), _push)


class DrivenPath(NamedTuple):
    """A trajectory with both halves of every step; leaves `[time, *batch, n]`."""

    before: Float[Array, "time *batch n"]
    """`x_{t-1}`."""
    pulled: Float[Array, "time *batch n"]
    """`F~(x_{t-1})`: where the network without input would go."""
    pushed: Float[Array, "time *batch n"]
    """`x_t = U_t(F~(x_{t-1}))`."""


def split_path(
    step: RNNStep, params: RNNParams, initial_state: Float[Array, "*batch n"], inputs: Float[Array, "time *batch m"]
) -> DrivenPath:
    """A driven trajectory with the pull of `F~` and the push of `U_t` at every step.

    **Arguments**: as in `unroll`, with a step that `split_step` takes.

    **Returns** a `DrivenPath`.

    **Raises** `ValueError` as `split_step`.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 6.

    >>> from cliffs.recurrent import rnn_step
    >>> params = RNNParams(2.0 * jnp.eye(2), jnp.ones((1, 2)))
    >>> split_path(rnn_step("tanh", "pre_activation"), params, jnp.zeros(2), jnp.ones((5, 1))).pushed.shape
    (5, 2)
    """
    split = split_step(step)

    def body(x, u):
        pulled = split.autonomous(params, x, None)
        pushed = split.push(params, pulled, u)
        return pushed, DrivenPath(x, pulled, pushed)

    return jax.lax.scan(body, initial_state, inputs)[1]


class Separation(NamedTuple):
    """How far two trajectories under the same inputs come apart."""

    distance: Float[Array, " time"]
    """`|x_t - x'_t|` (Euclidean over the whole state)."""
    growth: Float[Array, ""]
    """`log(|x_T - x'_T| / |x_0 - x'_0|)`, in nats; NaN for equal starts."""
    apart: Bool[Array, ""]
    """Whether the final distance exceeds the first a thousandfold: the maps agreed to carry the two apart."""


def separation(step: Step, params: PyTree, start: PyTree, other: PyTree, inputs: PyTree) -> Separation:
    """`|Delta x_t|` of two trajectories under the same maps `F_1, F_2, ...`; pure.

    **Arguments**: the step, parameters, two start states of one structure, inputs `[time, ...]`.

    **Returns** a `Separation`.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 5.

    >>> double = lambda p, x, u: 2 * x + u
    >>> result = separation(double, None, jnp.zeros(1), jnp.full(1, 1e-3), jnp.ones((10, 1)))
    >>> round(float(result.growth / jnp.log(2.0)), 3), bool(result.apart)
    (10.0, True)
    """

    def norm(a, b, axes):
        squares = [
            jnp.sum((x - y) ** 2, axis=tuple(range(axes, x.ndim))) for x, y in zip(*map(jax.tree.leaves, (a, b)))
        ]
        return jnp.sqrt(sum(squares))

    path, another = (unroll(step, params, x, inputs, method="scan") for x in (start, other))
    distance, first = norm(path, another, 1), norm(start, other, 0)
    safe = jnp.where(first > 0, first, 1)
    growth = jnp.where(first > 0, jnp.log(distance[-1] / safe), jnp.nan)
    return Separation(distance, growth, distance[-1] > 1000 * first)
