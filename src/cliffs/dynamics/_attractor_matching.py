"""Whether two trajectories end on the same attractor, also when the parameters differ.

Attractors at different parameters are matched by *following*: the one before a change is continued to the parameters
after it (started from its own points), the one after it back. If neither arrives at the other, both exist on both
sides and the start changed basins, whatever their types. If only one arrives, an attractor has ended or begun, and if
both arrive but differ in period, one has become the other: a bifurcation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from cliffs._precision import merge_distance as default_merge_distance
from cliffs._precision import reachable_tolerance
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._settling import Settled, settle
from cliffs.dynamics._units import offset_noise, relative_size
from cliffs.typing import Step


class AttractorChange(NamedTuple):
    """How the attractors before and after a change relate; one entry per start."""

    forward: Bool[Array, " starts"]
    """Whether the attractor before, followed to the parameters after, is the attractor after."""
    backward: Bool[Array, " starts"]
    """Whether the attractor after, followed to the parameters before, is the attractor before."""
    same_type: Bool[Array, " starts"]
    """Whether the two have the same period (0: no cycle) or both escape."""

    @property
    def basin(self) -> Bool[Array, "*runs starts"]:
        """The start changed basins: both attractors persist, be they fixed points, cycles or escape."""
        return ~self.forward & ~self.backward

    @property
    def bifurcation(self) -> Bool[Array, "*runs starts"]:
        """The attractor ended, began or changed its type."""
        return (self.forward != self.backward) | (self.forward & self.backward & ~self.same_type)


def match_attractors(
    step: Step,
    params: PyTree,
    new_params: PyTree,
    ends: Settled,
    new_ends: Settled,
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    merge_distance: float | Array | None = None,
    looseness: float = 0.2,
) -> AttractorChange:
    """Follow the attractors before and after a change of parameters to the other side; pure, for `jit` and `vmap`.

    **Arguments**

    - `step`, `inputs`: the map.
    - `params`, `ends`: parameters before, and `settle(step, params, starts, inputs, settling)`.
    - `new_params`, `new_ends`: the same after; the starts may differ too.
    - `settling`: how the attractors are followed.
    - `merge_distance`, `looseness`: cycles are compared by their points, to within `merge_distance (scale + |x|)` (by
      default the square root of the tolerance, the distance that a slow approach may leave); ends without a period by
      their means and spreads, to within `looseness` times the spreads. Scale and centre are those of `ends`.

    **Returns** `AttractorChange`.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> params, starts = OneUnitParams(5.0, -2.5), jnp.array([[-0.1], [1.0]])
    >>> before, after = settle(one_unit_step, params, starts), settle(one_unit_step, params, -starts)
    >>> match_attractors(one_unit_step, params, params, before, after).basin.tolist()
    [True, True]
    """

    def first(orbit):
        return jax.tree.map(lambda x: x[:, 0], orbit)

    dtype = jnp.result_type(*jax.tree.leaves(ends.orbit))
    merge = default_merge_distance(merge_distance, reachable_tolerance(settling.tolerance, dtype, double=1e-10))
    if merge_distance is None:
        flat = _vectors(ends)
        merge = jnp.maximum(merge, offset_noise(flat.centre, flat.scale, dtype) ** 0.5)
    # One scale and centre for both, so that they are followed and compared alike.
    scale, centre = (jax.tree.map(lambda x: x[0], tree) for tree in (ends.scale, _centre(ends)))
    forth = settle(step, new_params, first(ends.orbit), inputs, settling, scale=scale, centre=centre)
    back = settle(step, params, first(new_ends.orbit), inputs, settling, scale=scale, centre=centre)

    def same(followed, origin, there):
        # What has escaped is still there: infinity is the attractor on both sides.
        followed = followed._replace(escaped=followed.escaped | origin.escaped)
        return same_attractor(followed, there, merge, looseness=looseness)

    return AttractorChange(
        forward=same(forth, ends, new_ends),
        backward=same(back, new_ends, ends),
        same_type=(ends.period == new_ends.period) & (ends.escaped == new_ends.escaped),
    )


def same_attractor(a: Settled, b: Settled, merge: float | Array, *, looseness: float = 0.2) -> Bool[Array, " starts"]:
    """Whether two ends are on the same attractor: both escaped, or on one cycle.

    Where an end has no period (invariant circle, chaos, not yet settled) means and spreads are compared instead: with
    `tol = looseness (spread_a + spread_b + |scale + |mean|| / 10)` the means may differ by `tol`, the spreads by
    `2 tol`, all in units of the scale and seen from the centre. That is a rule of thumb: attractors that lie inside
    each other with like spreads count as one.

    >>> still = settle(lambda a, x, u: a * x, jnp.asarray(0.5), jnp.array([[1.0], [-3.0]]))
    >>> same_attractor(still, still, 1e-3).tolist()
    [True, True]
    """
    a, b = _vectors(a), _vectors(b)
    # Padding beyond the period repeats the cycle, so all of b's points may be compared.
    apart = relative_size(b.orbit - a.orbit[:, :1], (a.orbit[:, 0] - a.centre)[:, None], a.scale[:, None]).min(1)
    spread, other = (jnp.linalg.norm(x.deviation / a.scale, axis=-1) for x in (a, b))
    near = jnp.linalg.norm((a.mean - b.mean) / a.scale, axis=-1)
    tol = looseness * (spread + other + 0.1 * (1 + jnp.linalg.norm((a.mean - a.centre) / a.scale, axis=-1)))
    loose = (near <= tol) & (jnp.abs(spread - other) <= 2 * tol)
    close = (a.period == b.period) & (apart <= merge)
    close = jnp.where((a.period > 0) & (b.period > 0), close, loose)
    return jnp.where(a.escaped | b.escaped, a.escaped & b.escaped, close)


def _centre(ends: Settled) -> PyTree:
    return jax.tree.map(jnp.zeros_like, ends.mean) if ends.centre is None else ends.centre


def _vectors(ends: Settled) -> Settled:
    """The same with flat states: `orbit` `[starts, max_period, n]`, the rest `[starts, n]`."""

    def flat(tree, axes):
        leaves = jax.tree.leaves(tree)
        return jnp.concatenate([x.reshape(*x.shape[:axes], -1) for x in leaves], -1)

    return ends._replace(
        orbit=flat(ends.orbit, 2),
        mean=flat(ends.mean, 1),
        deviation=flat(ends.deviation, 1),
        scale=flat(ends.scale, 1),
        centre=flat(_centre(ends), 1),
    )
