"""Whether two trajectories end on the same attractor, also when the parameters differ.

Attractors at different parameters are matched by *following*: the one before a change is continued to the parameters
after it (started from its own points), the one after it back. If neither arrives at the other, both exist on both
sides and the start changed basins, whatever their types. If only one arrives, an attractor has ended or begun, and if
both arrive but differ in period, one has become the other: a bifurcation.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from cliffs._precision import reachable_tolerance
from cliffs.dynamics._basins import Settled, settle
from cliffs.typing import Step


def same_fate(a: Settled, b: Settled, merge: float | Array, *, looseness: float = 0.2) -> Bool[Array, " starts"]:
    """Whether two ends are on the same attractor (flat states): both escaped, or on one cycle.

    Where an end has no period (invariant circle, chaos, not yet settled) means and spreads are compared instead: with
    `tol = looseness (spread_a + spread_b + (1 + |mean|) / 10)` the means may differ by `tol`, the spreads by `2 tol`.
    That is a rule of thumb: attractors that lie inside each other with like spreads count as one.
    """
    size = 1 + jnp.linalg.norm(a.orbit[:, 0], axis=-1)
    # Padding beyond the period repeats the cycle, so all of b's points may be compared.
    apart = jnp.linalg.norm(b.orbit - a.orbit[:, :1], axis=-1).min(1)
    tol = looseness * (a.spread + b.spread + 0.1 * (1 + jnp.linalg.norm(a.mean, axis=-1)))
    loose = (jnp.linalg.norm(a.mean - b.mean, axis=-1) <= tol) & (jnp.abs(a.spread - b.spread) <= 2 * tol)
    close = (a.period == b.period) & (apart <= merge * size)
    close = jnp.where((a.period > 0) & (b.period > 0), close, loose)
    return jnp.where(a.escaped | b.escaped, a.escaped & b.escaped, close)


class FateChange(NamedTuple):
    """How the attractors before and after a change relate; one entry per start."""

    forward: Bool[Array, " starts"]
    """Whether the attractor before, followed to the parameters after, is the attractor after."""
    backward: Bool[Array, " starts"]
    """Whether the attractor after, followed to the parameters before, is the attractor before."""
    same_type: Bool[Array, " starts"]
    """Whether the two have the same period (0: no cycle) or both escape."""

    @property
    def basin(self) -> Bool[Array, "*runs starts"]:
        """A basin boundary was crossed: both attractors persist, be they fixed points, cycles or escape."""
        return ~self.forward & ~self.backward

    @property
    def bifurcation(self) -> Bool[Array, "*runs starts"]:
        """The attractor ended, began or changed its type."""
        return (self.forward != self.backward) | (self.forward & self.backward & ~self.same_type)


def compare_fates(
    step: Step,
    params: PyTree,
    new_params: PyTree,
    ends: Settled,
    new_ends: Settled,
    inputs: Any = None,
    *,
    merge_distance: float | Array | None = None,
    looseness: float = 0.2,
    **settings: Any,
) -> FateChange:
    """Follow the attractors before and after a change of parameters to the other side; pure, for `jit` and `vmap`.

    **Arguments**

    - `step`, `inputs`: the map on vector states.
    - `params`, `ends`: parameters before, and `settle(step, params, starts, ...)`.
    - `new_params`, `new_ends`: the same after; the starts may differ too.
    - `merge_distance`, `looseness`: cycles are compared by their points, to within `merge_distance (1 + |x|)` (by
      default the square root of the tolerance of `settle`, that a slow approach may leave); ends
      without a period by their means and spreads, to within `looseness` times the spreads.
    - further keywords go to `settle`.

    **Returns** `FateChange`.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> params, starts = OneUnitParams(5.0, -2.5), jnp.array([[-0.1], [1.0]])
    >>> before, after = settle(one_unit_step, params, starts), settle(one_unit_step, params, -starts)
    >>> compare_fates(one_unit_step, params, params, before, after).basin.tolist()
    [True, True]
    """
    tolerance = reachable_tolerance(settings.get("tolerance"), ends.orbit.dtype, double=1e-10)
    merge = tolerance**0.5 if merge_distance is None else merge_distance
    forth = settle(step, new_params, ends.orbit[:, 0], inputs, **settings)
    back = settle(step, params, new_ends.orbit[:, 0], inputs, **settings)

    def same(followed, origin, there):
        # What has escaped is still there: infinity is the attractor on both sides.
        followed = followed._replace(escaped=followed.escaped | origin.escaped)
        return same_fate(followed, there, merge, looseness=looseness)

    alike = (ends.period == new_ends.period) & (ends.escaped == new_ends.escaped)
    return FateChange(same(forth, ends, new_ends), same(back, new_ends, ends), alike)
