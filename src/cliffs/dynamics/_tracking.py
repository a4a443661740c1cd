"""One fixed point followed while all parameters change, as they do in training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from cliffs.dynamics._fixed_points import iterate, solve_fixed_points
from cliffs.dynamics._problem import vectors
from cliffs.typing import Step


class Track(NamedTuple):
    """A fixed point (or one point of a p-cycle) at a sequence of parameters; the time axis is first."""

    states: Float[Array, "times n"]
    residual: Float[Array, " times"]
    """`|F^p(x) - x|` (Euclidean): above the tolerance nothing was found."""
    lost: Bool[Array, " times"]
    """Where Newton reached no solution from the state before, and the search started again from `restart`."""
    moved: Float[Array, " times"]
    """Distance from the state before, root mean square over the entries. A large one is a jump to another branch."""
    jacobians: Float[Array, "times n n"]
    """`dF^p/dx`."""

    @property
    def multipliers(self) -> np.ndarray:
        """Eigenvalues of the Jacobians, `[times, n]` complex, largest modulus first (also of stacked tracks)."""
        values = np.linalg.eigvals(np.asarray(self.jacobians)).astype(complex)
        return np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1), axis=-1)


def track_fixed_point(
    step: Step,
    params: PyTree,
    start: PyTree,
    inputs: PyTree = None,
    *,
    restart: PyTree = None,
    period: int = 1,
    tolerance: float = 1e-5,
    max_iterations: int = 16,
) -> Track:
    """Follow one solution of `F^p(x; theta_t) = x` through parameters `theta_0, theta_1, ..` by Newton's method.

    Each search starts from the solution before. Where that finds none, as beyond a fold, the search starts again from
    `restart`, and `lost` is True there. Pure, for use under `jit` and `vmap` over runs.

    **Arguments**

    - `step`, `inputs`, `period`: the map, its input held fixed.
    - `params`: leaves `[times, ...]`, for instance the parameters before every update.
    - `start`: `[n]` or a pytree, near a solution at the first parameters; its dtype is the precision.
    - `restart`: like the start; the origin by default.
    - `tolerance`: largest `|F^p(x) - x|` (Euclidean) of a solution.
    - `max_iterations`: of Newton's method at each time.

    **Returns** a `Track`; states of a pytree are flattened.

    **Raises** `ValueError` for a start that is not of one real floating dtype, or not finite.

    >>> track = track_fixed_point(lambda b, x, _: 0.5 * x + b, jnp.array([1.0, 1.1]), jnp.ones(1))
    >>> track.states.ravel().round(3).tolist(), track.lost.tolist()
    ([2.0, 2.200000047683716], [False, False])
    """
    step, x = vectors(step, start, name="start", axes=0)
    again = jnp.zeros_like(x) if restart is None else vectors(step, restart, name="restart", axes=0)[1]

    def body(x, here):
        found = solve_fixed_points(
            step, here, jnp.stack([x, again]), inputs, period=period, max_iterations=max_iterations
        )
        lost = ~(found.residual[0] < tolerance)
        new = jnp.where(lost, found.points[1], found.points[0])
        residual = jnp.where(lost, found.residual[1], found.residual[0])
        moved = jnp.sqrt(jnp.mean((new - x) ** 2))
        return new, Track(new, residual, lost, moved, jax.jacfwd(iterate(step, here, inputs, period))(new))

    return jax.lax.scan(body, x, params)[1]
