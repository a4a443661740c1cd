"""The attractors that trajectories settle on, parameter by parameter: a bifurcation diagram by brute force."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs._flatten import check_map
from cliffs._paths import InputPath, Path, as_path, fold_inputs, get_parameter, set_parameter
from cliffs.dynamics._problem import vectors
from cliffs.typing import Step


def attractor_diagram(
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    values: Float[Array | np.ndarray, " values"],
    starts: PyTree,
    inputs: PyTree = None,
    *,
    transient: int = 1000,
    record: int = 64,
) -> Float[Array, "values starts record n"]:
    """States after a transient, `x_t` for `t = transient + 1 .. transient + record`, for many parameter values.

    Every (value, start) pair is one lane of a single compiled program. What it shows is what a simulation would: near
    a bifurcation a transient may be too short, and unstable branches never appear.

    **Arguments**

    - `step`, `params`, `inputs`: the map; `path` names the scalar parameter, as in `continue_branch`; an `InputPath`
      a scalar input.
    - `values`: `[values]` of the parameter.
    - `starts`: `[starts, n]`, or a pytree with leaves `[starts, ...]` (flattened in the result).
    - `transient`: steps thrown away; `record`: steps kept.

    **Returns** `[values, starts, record, n]`; entries of trajectories that diverged are inf or NaN.

    **Raises** `ValueError` for a path that does not exist or is not scalar, values that are not a vector, a step that
    is no map on the state's shape, or counts that are too small.

    >>> logistic = lambda r, x, _: r * x * (1 - x)
    >>> states = attractor_diagram(logistic, 0.0, (), jnp.array([2.0, 3.2]), jnp.array([[0.3]]), record=2)
    >>> [[round(float(x), 3) for x in sorted(lane)] for lane in states[:, 0, :, 0]]
    [[0.5, 0.5], [0.513, 0.799]]
    """
    step, params, path, inputs = fold_inputs(step, params, path, inputs)
    get_parameter(params, path)
    path = as_path(path)
    step, starts = vectors(step, starts, name="starts", axes=1)
    values = jnp.asarray(values, starts.dtype)
    if values.ndim != 1 or values.shape[0] == 0:
        raise ValueError(f"values must be [values] with at least one value, got shape {values.shape}")
    if transient < 0 or record < 1:
        raise ValueError(f"transient must be at least 0 and record at least 1, got {transient=}, {record=}")
    check_map(step, set_parameter(params, path, values[0]), starts[0], inputs)
    return _diagram(step, params, path, values, starts, inputs, transient, record)


@functools.partial(jax.jit, static_argnames=("step", "path", "record"))
def _diagram(step, params, path, values, starts, inputs, transient, record):
    def record_of(value, start):
        here = set_parameter(params, path, value)
        state = jax.lax.fori_loop(0, transient, lambda _, x: step(here, x, inputs), start)

        def body(x, _):
            x = step(here, x, inputs)
            return x, x

        return jax.lax.scan(body, state, length=record)[1]

    return jax.vmap(lambda v: jax.vmap(lambda s: record_of(v, s))(starts))(values)
