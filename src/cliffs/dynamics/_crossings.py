"""Does a change of parameters or of the start state cross a basin boundary or a bifurcation?

The two events that make `x_t` for large t, and so the gradient, change abruptly (Pascanu, Mikolov & Bengio 2012,
section 2.5). `match_attractors` tells them apart; here they are located along the way.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import merge_distance as default_merge_distance
from cliffs._precision import reachable_tolerance
from cliffs.dynamics._settings import DEFAULT_SETTLING, Settling
from cliffs.dynamics._settling import Settled
from cliffs.dynamics._units import entries, far_origin, nearest_power_of_two, typical_sizes
from cliffs.dynamics._way import Event, Way, between, row
from cliffs.typing import Loss, Step

_MARGIN = 1e-3
"""How far beside an event the gradient is taken, as a share of the way."""


class Crossing(NamedTuple):
    """One event on the way from before to after."""

    kind: str
    """"basin boundary", or a bifurcation: "fold", "flip", "Neimark-Sacker", "pitchfork", "transcritical", or
    "unresolved" where its kind could not be told."""
    position: float
    """Where on the way, 0 before and 1 after."""
    width: float
    """Of the bracket in which the attractor changes."""
    before: np.ndarray
    """`[n]`, flattened: a point of the attractor just before; its mean where it is no cycle."""
    after: np.ndarray
    multiplier: complex
    """Basin boundary: the leading multiplier of the unstable fixed point on it, by which the cliff's height grows per
    step (NaN where none was found). Bifurcation: the attractor's multiplier nearest the unit circle just beside it."""
    grad_norm_before: float
    """`|dE/dtheta|` a thousandth of the way (or half the way to the next event) before the event."""
    grad_norm: float
    """`|dE/dtheta|` at the position."""
    grad_norm_after: float


class CrossingReport(NamedTuple):
    """What `crossing_report` returns."""

    crosses_basin_boundary: bool
    crosses_bifurcation: bool
    crossings: list[Crossing]
    grad_norm_before: float
    """`|dE/dtheta|` with the parameters and the start before the change."""
    grad_norm_after: float
    positions: np.ndarray
    """`[samples]` in [0, 1]."""
    grad_norms: np.ndarray
    """`[samples]`, `|dE/dtheta|` along the way; NaN where no loss was given."""
    ends: np.ndarray
    """`[samples, n]`, the (mean of the) attractor that the start leads to, flattened; NaN where it escapes."""


def crossing_report(
    step: Step,
    params: PyTree,
    new_params: PyTree,
    start: PyTree,
    new_start: PyTree | None = None,
    inputs: PyTree = None,
    settling: Settling = DEFAULT_SETTLING,
    *,
    loss: Loss | None = None,
    num_samples: int = 33,
    merge_distance: float | Array | None = None,
    scale: PyTree = None,
) -> CrossingReport:
    """Which basin boundaries and bifurcations a change of parameters and start state crosses, and the gradients there.

    The attractor that the start leads to is sampled along the straight way from before to after; each interval in which
    it changes (see `match_attractors`) is bisected to the resolution of the dtype, or for a fold until settling takes
    too long, and a fold or flip is then polished by Newton's method.

    Events between two samples that cancel are missed, and so are bifurcations of attractors that the start does not
    lead to: they do not change its trajectory's end.
    Attractors on the two sides of an event that lie within a hundredth of `scale + |x|` are taken for one that
    bifurcates, unless the parameters do not change: then nothing can bifurcate. An end that moves along a line of
    neutral fixed points crosses nothing.

    **Arguments**

    - `step`: the map; its input is held at `inputs`.
    - `params`, `new_params`: parameter trees before and after, of one structure.
    - `start`, `new_start`: states before and after; one start for both if None.
    - `settling`: a `Settling`, how trajectories are followed.
    - `loss`: `loss(params, start) -> E` or `(E, aux)`, for instance the error after T steps; without it gradients are
      NaN.
    - `num_samples`: along the way, ends included.
    - `merge_distance`: ends closer than this, relative to `scale + |x|`, are one attractor; by default the square root
      of the tolerance.
    - `scale`: the typical size of the state, a positive number or one for each entry; taken from both starts if None.
      Far from zero, as seen from the scale or from where the trajectories go, `|x|` is the distance from their middle.

    **Returns** a `CrossingReport`.

    **Raises** `ValueError` for fewer than 2 samples and what `settle` refuses.

    Source: Pascanu, Mikolov & Bengio (2012), section 2.5.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> report = crossing_report(one_unit_step, OneUnitParams(5.0, -2.63), OneUnitParams(5.0, -2.6), jnp.array([0.5]))
    >>> [(c.kind, round(-2.63 + 0.03 * c.position, 3)) for c in report.crossings]
    [('basin boundary', -2.612)]
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    new_start = start if new_start is None else new_start
    pair = jax.tree.map(lambda a, b: jnp.stack([jnp.asarray(a), jnp.asarray(b)]), start, new_start)
    flat_step, states, restore = flat_states(step, pair, name="start")
    check_map(flat_step, params, states[0], inputs)
    tolerance = reachable_tolerance(settling.tolerance, states.dtype, double=1e-10)
    n = states.shape[1]
    given = None if scale is None else entries(flat_step, scale, n, name="scale")
    centre = jnp.zeros(n, states.dtype) if given is None else jnp.asarray(far_origin(states, given))
    way = Way(
        step=flat_step,
        before=jax.tree.map(lambda p: jnp.asarray(p, states.dtype), params),
        after=jax.tree.map(lambda p: jnp.asarray(p, states.dtype), new_params),
        states=states,
        inputs=inputs,
        settling=settling,
        merge=default_merge_distance(merge_distance, tolerance),
        scale=typical_sizes(flat_step, params, states, inputs, given, centre),
        centre=centre,
    )
    positions = np.linspace(0, 1, num_samples)
    ends = way.ends(positions)
    if given is None and (seen := _seen_from(way, ends)) is not None:
        way = seen
        ends = way.ends(positions)
    if way.noise:
        least = max(tolerance, way.noise)
        way = dataclasses.replace(way, merge=default_merge_distance(merge_distance, least))
    grad_norm = _grad_norm(way, loss, restore)
    events = _events(way, positions, ends)
    slopes = np.array([grad_norm(s) for s in positions])
    crossings = []
    marks = [0.0, *[0.5 * (e.low + e.high) for e in events], 1.0]
    for k, event in enumerate(events):
        kind, at, multiplier = way.classify(event)
        aside = max(at - _MARGIN, 0.5 * (marks[k] + at)), at, min(at + _MARGIN, 0.5 * (marks[k + 2] + at))
        norms = [grad_norm(s) for s in aside]
        crossings.append(
            Crossing(
                kind=kind,
                position=at,
                width=event.high - event.low,
                before=np.asarray(event.before.mean[0]),
                after=np.asarray(event.after.mean[0]),
                multiplier=multiplier,
                grad_norm_before=norms[0],
                grad_norm=norms[1],
                grad_norm_after=norms[2],
            )
        )
    basin = [c.kind == "basin boundary" for c in crossings]
    return CrossingReport(
        crosses_basin_boundary=any(basin),
        crosses_bifurcation=not all(basin),
        crossings=crossings,
        grad_norm_before=slopes[0],
        grad_norm_after=slopes[-1],
        positions=positions,
        grad_norms=slopes,
        ends=np.where(np.asarray(ends.escaped)[:, None], np.nan, np.asarray(ends.mean)),
    )


def _seen_from(way: Way, ends: Settled) -> Way | None:
    """The way, with states measured from the middle of where its trajectories begin and end; None unless that is far.

    A single start, as most ways have, does not tell how large the state's changes are.
    """
    kept = ~np.asarray(ends.escaped)
    visited = np.concatenate([np.asarray(way.states), np.asarray(ends.orbit)[kept].reshape(-1, way.states.shape[1])])
    centre = far_origin(visited, least=8)
    if not centre.any():
        return None
    spread = (visited.max(0) - visited.min(0)) / 2
    scale = np.where(centre != 0, nearest_power_of_two(np.where(centre != 0, spread, 1)), np.asarray(way.scale))
    return dataclasses.replace(way, scale=jnp.asarray(scale, way.dtype), centre=jnp.asarray(centre))


def _grad_norm(way: Way, loss: Loss | None, restore: Callable[[Any], PyTree]) -> Callable[[float], float]:
    """`|dE/dtheta|` at a position on the way; NaN without a loss."""
    if loss is None:
        return lambda s: float("nan")

    def value(params, start):
        out = loss(params, start)
        return out[0] if isinstance(out, tuple) else out

    @jax.jit
    def norm(s):
        x = restore(way.start(s))
        slopes = jax.tree.leaves(jax.grad(value)(between(way.before, way.after, s), x))
        # Scaled: squares of 1e20 overflow in float32.
        flat = jnp.concatenate([jnp.ravel(g) for g in slopes])
        largest = jnp.max(jnp.abs(flat))
        scaled = largest * jnp.linalg.norm(flat / jnp.where(largest > 0, largest, 1))
        return jnp.where(jnp.isfinite(largest), scaled, largest)

    return lambda s: float(norm(jnp.asarray(s, way.dtype)))


def _events(way: Way, positions: np.ndarray, ends: Any) -> list[Event]:
    """Where the attractor changes along the way: one event for each change between two samples."""
    places, looks, found = positions, ends, way.changed(positions, ends)
    if (twice := np.flatnonzero(found[:-1] & found[1:])).size:
        # A sample on the boundary itself changes on both its sides: look beside it.
        places = positions.copy()
        places[twice + 1] -= _MARGIN / len(positions)
        looks = way.ends(places)
        found = way.changed(places, looks)
    events: list[Event] = []
    for i in np.flatnonzero(found):
        low, high = float(places[i]), float(places[i + 1])
        wide = row(looks, int(i)), row(looks, int(i) + 1)
        event = way.bisect(low, high, *wide)
        if events and event.low - events[-1].high <= 8 * way.spacing:
            continue
        if not event.jumps and (
            way.same_params or all(way.leading(p, e) == "neutral" for p, e in zip(places[i : i + 2], wide))
        ):
            continue  # the end only moves, along a continuum of ends
        events.append(event)
    return events
