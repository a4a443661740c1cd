"""Bifurcation diagrams in one call: all branches with their stability, and the bifurcations on them."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import ArrayLike, Float, PyTree

from cliffs._paths import InputPath, Path
from cliffs._precision import reachable_tolerance, unit_margin
from cliffs.dynamics._arclength import ENDS, LEFT_BOUNDS, OUT_OF_POINTS, STEP_TOO_SMALL
from cliffs.dynamics._continuation import make_limits
from cliffs.dynamics._curves import Curve, Problem
from cliffs.dynamics._problem import STEPPING, Data, Map, Stepping, check_bounds, check_problem, make_data, vectors
from cliffs.dynamics._special_points import SpecialPoint, unscaled
from cliffs.dynamics._survey import Survey, search
from cliffs.dynamics._units import check_count
from cliffs.typing import Step


class BranchPoints(NamedTuple):
    """The points of a branch in the order of arclength, as numpy arrays."""

    parameter: Float[np.ndarray, " points"]
    states: Float[np.ndarray, "points n"]
    multipliers: np.ndarray
    """`[points, n]` complex, largest modulus first."""
    stable: np.ndarray
    """Whether all multipliers lie inside the unit circle, by more than the margin within which `find_fixed_points`
    calls a point neutral."""
    ends: tuple[str, str]
    """Why the branch stops before its first and after its last point: the words of `cliffs.dynamics.ENDS`, or "joins
    another branch" at a branch point from which only one side was new, or at a corner where cycles of this period
    shrink to a shorter one."""
    period: int = 1

    @property
    def left_bounds(self) -> bool:
        """Whether both ends lie where the parameter leaves its bounds."""
        return all(end == ENDS[LEFT_BOUNDS] for end in self.ends)

    @property
    def complete(self) -> bool:
        """Whether nothing of the branch inside the bounds is missing."""
        return not any(end in self.ends for end in (ENDS[OUT_OF_POINTS], ENDS[STEP_TOO_SMALL]))

    def by_stability(self) -> list[tuple[bool, slice]]:
        """Runs of equal stability along the branch, each with the first point of the next, so that they can be drawn.

        >>> three = np.arange(3.0)
        >>> BranchPoints(three, three[:, None], three[:, None], three < 1, ("", "")).by_stability()
        [(True, slice(0, 2, None)), (False, slice(1, 3, None))]
        """
        edges = np.flatnonzero(np.diff(self.stable.astype(int))) + 1
        firsts, lasts = [0, *edges.tolist()], [*(edges + 1).tolist(), len(self.stable)]
        return [(bool(self.stable[a]), slice(a, b)) for a, b in zip(firsts, lasts)]


class BifurcationDiagram(NamedTuple):
    """What `bifurcation_diagram` returns."""

    branches: list[BranchPoints]
    special: list[SpecialPoint]
    notes: tuple[str, ...] = ()
    """What is missing: unfinished branches, points that were not located, candidates that were given up."""
    dropped_starts: int = 0
    """Starts that were left out because they are not finite."""

    @property
    def complete(self) -> bool:
        """Whether every branch was followed to its ends and every special point is located."""
        return not self.notes

    def __repr__(self) -> str:
        stated = "complete" if self.complete else "not complete"
        lines = [f"<BifurcationDiagram of {len(self.branches)} branches and {len(self.special)} points, {stated}"]
        lines += [_in_words(point) for point in self.special[:20]]
        lines += [f"... and {len(self.special) - 20} more points"] if len(self.special) > 20 else []
        return "\n  ".join([*lines, *self.notes]) + ">"


def _in_words(point: SpecialPoint) -> str:
    cycle = f" of period {point.period}" if point.period > 1 else ""
    return f"{point.kind}{cycle} at {point.parameter:.6g}" + (f": {point.note}" if point.note else "")


def bifurcation_diagram(
    step: Step,
    params: PyTree,
    path: Path | InputPath,
    bounds: tuple[float, float],
    starts: PyTree,
    inputs: PyTree = None,
    *,
    period: int = 1,
    max_period: int | None = None,
    stepping: Stepping = STEPPING,
    max_stretches: int = 20,
    num_sections: int = 5,
    max_branches: int = 64,
    tolerance: float | None = None,
    scale: PyTree = None,
    parameter_scale: ArrayLike | None = None,
    state_bounds: tuple[PyTree, PyTree] | None = None,
    period_of_state: PyTree = None,
) -> BifurcationDiagram:
    """All branches of fixed points (or p-cycles) between two parameter values, with stability and bifurcations.

    Solutions of `F^p(x; lambda) = x` are searched from the starts at `num_sections` values of the parameter; each that
    lies on no branch found so far is followed both ways. Folds, flips, Neimark-Sacker and branch points are bracketed
    along the branches, located by Newton and classified; so are the corners of maps that are smooth in pieces (relu),
    as border collisions, where the Jacobian J jumps by more than a thousandth of `1 + max|J|`. A branch ends where the
    map itself jumps. The branches that begin at these points are followed too, with `max_period` also the cycles of
    twice the period. Every phase of a cycle has its place on a branch; an event of a cycle is listed once.

    **Arguments**

    - `step`, `params`, `path`, `inputs`, `period`: as in `continue_branch`.
    - `bounds`: the parameter interval.
    - `starts`: `[starts, n]` or a pytree with leaves `[starts, ...]` (then states are reported flattened), where
      Newton starts at every section; their dtype is the precision. Starts that are not finite are dropped and counted.
    - `max_period`: follow doublings up to cycles of this period; by default only `period` itself.
    - `stepping`: lengths of steps, number of attempts in one compiled stretch of a branch, and tolerance, in units of
      the scales; `max_stretches`: stretches in each direction. Events nearer than a thousandth of the largest step
      are not told apart.
    - `num_sections`: how many parameter values are searched for fixed points.
    - `max_branches`: how many branches are followed at most; each phase of a cycle counts.
    - `tolerance`: of located special points, as in `locate_bifurcation`.
    - `scale`, `parameter_scale`: the typical size of the state and of the parameter, as in `continue_branch`; by
      default half the spread of the starts, entry by entry, and half the width of the bounds.
    - `state_bounds`, `period_of_state`: as in `continue_branch`.

    **Returns** a `BifurcationDiagram`: branches ordered along their arclength, special points sorted by parameter, and
    `notes` on everything that is not complete.

    **Raises** `ValueError` for wrong bounds and whatever `continue_branch` and `locate_bifurcation` refuse.

    Source: Pascanu, Mikolov & Bengio (2012), Fig. 4; Kuznetsov, Elements of applied bifurcation theory, ch. 10.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> import jax.numpy as jnp
    >>> starts = jnp.linspace(-5, 5, 11)[:, None]
    >>> diagram = bifurcation_diagram(one_unit_step, OneUnitParams(5.0, 0.0), "b", (-3.5, -1.5), starts)
    >>> diagram
    <BifurcationDiagram of 1 branches and 2 points, complete
      fold at -2.65561
      fold at -2.34439>
    >>> len(diagram.branches), [(p.kind, round(p.parameter, 2)) for p in diagram.special], diagram.complete
    (1, [('fold', -2.66), ('fold', -2.34)], True)
    """
    check_bounds(bounds)
    starts, dropped = _finite(starts)
    step, starts = vectors(step, starts, name="starts", axes=1)
    check_problem(step, params, (path,), starts[0], inputs, period)
    dtype = starts.dtype
    accept = reachable_tolerance(tolerance, dtype, double=1e-12)
    for name, count in (
        ("max_stretches", max_stretches),
        ("num_sections", num_sections),
        ("max_branches", max_branches),
    ):
        check_count(name, count)
    if max_period is not None:
        check_count("max_period", max_period, least=period)
    data = make_data(
        step,
        params,
        inputs,
        starts,
        (bounds,),
        scale=scale,
        parameter_scale=parameter_scale,
        period_of_state=period_of_state,
    )
    limits = make_limits(data, step, (bounds,), state_bounds, stepping, dtype)
    fmap = Map(step, (path,), period, period_of_state is not None)
    base = Problem(fmap, data, limits, stepping.num_points, max_stretches)
    accept = max(accept, float(data.noise))
    survey = Survey(base, accept, period if max_period is None else max_period, max_branches)
    scaled = np.asarray((starts - data.centre[:-1]) / data.state_scale)
    survey.run(search(base, scaled, num_sections), num_sections)
    branches = [_branch(curve, p, data) for p in sorted(survey.curves) for curve in survey.curves[p]]
    special = [unscaled(p, data) for p in survey.events.sorted()]
    notes = survey.notes + [
        f"branch {i} (period {b.period}): {b.ends}" for i, b in enumerate(branches) if not b.complete
    ]
    notes += [f"{p.kind} near {p.parameter:.6g}: {p.note}" for p in special if not p.located]
    return BifurcationDiagram(branches, special, tuple(notes), dropped)


def _finite(starts: PyTree) -> tuple[PyTree, int]:
    """The starts without those that are not finite, and how many these were."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(starts)]
    if not leaves or any(x.ndim < 1 or x.dtype.kind != "f" for x in leaves) or len({len(x) for x in leaves}) != 1:
        return starts, 0  # what is wrong with them is said elsewhere
    good = np.logical_and.reduce([np.isfinite(x).reshape(len(x), -1).all(1) for x in leaves])
    if good.all():
        return starts, 0
    if not good.any():
        raise ValueError(f"starts must hold at least one that is finite, got {len(good)} with NaN or inf")
    return jax.tree.map(lambda x: x[good], starts), int((~good).sum())


def _branch(curve: Curve, period: int, data: Data) -> BranchPoints:
    points, multipliers = data.unscaled(curve.points), curve.multipliers
    stable = np.abs(multipliers[:, 0]) < 1 - unit_margin(curve.points.dtype)
    return BranchPoints(
        parameter=points[:, -1],
        states=points[:, :-1],
        multipliers=multipliers,
        stable=stable,
        ends=curve.ends,
        period=period,
    )
