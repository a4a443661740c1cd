"""Does a change of parameters or of the start state cross a basin boundary or a bifurcation?

The two events that make `x_t` for large t, and so the gradient, change abruptly (Pascanu, Mikolov & Bengio 2012,
section 2.5). `cliffs.dynamics` tells them apart; here they are located along the way.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from cliffs._flatten import check_map, flat_states
from cliffs._precision import reachable_tolerance, unit_margin
from cliffs.dynamics._attractor_matching import compare_fates
from cliffs.dynamics._basins import settle
from cliffs.dynamics._fixed_points import iterate, solve_fixed_points
from cliffs.dynamics._settings import frozen_settings
from cliffs.dynamics._special_points import locate_bifurcation, solve_bifurcation
from cliffs.typing import Step

_MARGIN = 1e-3
_JUMP = 1e-2
_SPLIT = 0.4871
"""Where brackets are cut: not in the middle, where symmetry often puts the boundary itself."""


class Crossing(NamedTuple):
    """One event on the way from before to after."""

    kind: str
    """"basin boundary", or a bifurcation: "fold", "flip", "Neimark-Sacker", "pitchfork", "transcritical", or
    "unresolved" where its kind could not be told."""
    position: float
    """Where on the way, 0 before and 1 after."""
    width: float
    """Of the bracket in which the fate changes."""
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


@dataclasses.dataclass(frozen=True)
class _Way:
    """The step along the straight way between two parameter trees, as a map with one parameter `s`."""

    step: Step

    def __call__(self, params: Any, state: Array, inputs: Any = None) -> Array:
        return self.step(_between(params["before"], params["after"], params["s"]), state, inputs)


def _between(a: PyTree, b: PyTree, s: Any) -> PyTree:
    return jax.tree.map(lambda x, y: x + s * (y - x), a, b)


@functools.partial(jax.jit, static_argnums=0, static_argnames="settings")
def _fates(step, ways, positions, starts, inputs, *, settings):
    """Ends for each position, of the start there: one trajectory per position."""

    def at(s, x):
        return jax.tree.map(lambda v: v[0], settle(step, ways | {"s": s}, x[None], inputs, **dict(settings)))

    return jax.vmap(at)(positions, starts)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("merge", "settings"))
def _changes(step, ways, low, high, ends, new_ends, inputs, *, merge, settings):
    def at(a, b, x, y):
        x, y = jax.tree.map(lambda v: v[None], (x, y))
        change = compare_fates(step, ways | {"s": a}, ways | {"s": b}, x, y, inputs, merge_distance=merge,
                               **dict(settings))  # fmt: skip
        return jax.tree.map(lambda v: v[0], change)

    return jax.vmap(at)(low, high, ends, new_ends)


def crossing_report(
    step: Step,
    params: PyTree,
    new_params: PyTree,
    start: PyTree,
    new_start: PyTree | None = None,
    inputs: Any = None,
    *,
    loss: Callable[[Any, Any], Array] | None = None,
    num_samples: int = 33,
    merge_distance: float | Array | None = None,
    **settings: Any,
) -> CrossingReport:
    """Which basin boundaries and bifurcations a change of parameters and start state crosses, and the gradients there.

    The fate of the start is sampled along the straight way from before to after; each interval in which it changes
    (see `compare_fates`) is bisected to the resolution of the dtype, or for a fold until settling takes too long,
    and a fold or flip is then polished by Newton's method.

    Events between two samples that cancel are missed, and so are bifurcations of attractors that the start does not
    lead to: they do not change its trajectory's end.
    Attractors on the two sides of an event that lie within a hundredth of `1 + |x|` are taken for one that bifurcates,
    unless the parameters do not change: then nothing can bifurcate. An end that moves along a line of neutral fixed
    points crosses nothing.

    **Arguments**

    - `step`: the map; its input is held at `inputs`.
    - `params`, `new_params`: parameter trees before and after, of one structure.
    - `start`, `new_start`: states before and after; one start for both if None.
    - `loss`: `loss(params, start) -> E`, for instance the error after T steps; without it gradients are NaN.
    - `num_samples`: along the way, ends included.
    - `merge_distance`: ends closer than this, relative to `1 + |x|`, are one attractor; by default the square root of
      the tolerance.
    - further keywords go to `settle`.

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
    dtype = states.dtype
    tolerance = reachable_tolerance(settings.get("tolerance"), dtype, double=1e-10)
    merge = tolerance**0.5 if merge_distance is None else float(merge_distance)
    before, after = (jax.tree.map(lambda p: jnp.asarray(p, dtype), p) for p in (params, new_params))
    ways, way = {"before": before, "after": after}, _Way(flat_step)
    same_params = all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))
    frozen = frozen_settings(settings)

    def fates(positions):
        s = jnp.asarray(positions, dtype)
        ends = _fates(way, ways, s, states[0] + s[:, None] * (states[1] - states[0]), inputs, settings=frozen)
        return _decide(way, ways, s, ends, inputs)

    def changes(low, high, ends, new_ends):
        a, b = jnp.asarray(low, dtype), jnp.asarray(high, dtype)
        return _changes(way, ways, a, b, ends, new_ends, inputs, merge=merge, settings=frozen)

    def rows(tree, index):
        return jax.tree.map(lambda v: v[index], tree)

    @jax.jit
    def grad_norm(s):
        if loss is None:
            return jnp.asarray(jnp.nan, dtype)
        x = restore(states[0] + s * (states[1] - states[0]))
        slopes = jax.tree.leaves(jax.grad(loss)(_between(before, after, s), x))
        # Scaled: squares of 1e20 overflow in float32.
        flat = jnp.concatenate([jnp.ravel(g) for g in slopes])
        largest = jnp.max(jnp.abs(flat))
        scaled = largest * jnp.linalg.norm(flat / jnp.where(largest > 0, largest, 1))
        return jnp.where(jnp.isfinite(largest), scaled, largest)

    positions = np.linspace(0, 1, num_samples)
    ends = fates(positions)

    def changed(places, looks):
        pair = rows(looks, slice(None, -1)), rows(looks, slice(1, None))
        change = changes(places[:-1], places[1:], *pair)
        return np.asarray(change.basin | change.bifurcation)

    places, looks, found = positions, ends, changed(positions, ends)
    if (twice := np.flatnonzero(found[:-1] & found[1:])).size:
        # A sample on the boundary itself changes on both its sides: look beside it.
        places = positions.copy()
        places[twice + 1] -= _MARGIN / num_samples
        looks = fates(places)
        found = changed(places, looks)
    events = []
    for i in np.flatnonzero(found):
        low, high = float(places[i]), float(places[i + 1])
        a, b = rows(looks, slice(i, i + 1)), rows(looks, slice(i + 1, i + 2))
        wide = a, b
        # Ends within rounding of the boundary stay on its saddle: what was crossed is told from a wider bracket.
        clear = (low, high, a, b)
        while high - low > 4 * float(jnp.finfo(dtype).eps):
            if high - low > float(jnp.finfo(dtype).eps) ** 0.5:
                clear = (low, high, a, b)
            middle = low + _SPLIT * (high - low)
            m = fates([middle])
            if not (int(m.period[0]) or bool(m.escaped[0])) and int(a.period[0]) and int(b.period[0]):
                break  # settling takes too long this close to a bifurcation
            step_change = changes([low], [middle], a, m)
            if bool((step_change.basin | step_change.bifurcation)[0]):
                high, b = middle, m
            else:
                low, a = middle, m
        left, right, a, b = clear
        if events and low - events[-1][1] <= 8 * float(jnp.finfo(dtype).eps):
            continue
        change = changes([left], [right], a, b)
        jumps = bool((change.basin | change.bifurcation)[0])
        if not jumps and (
            same_params or all(_leading(way, ways, p, e, inputs) == "neutral" for p, e in zip(places[i : i + 2], wide))
        ):
            continue  # the end only moves, along a continuum of ends
        events.append((low, high, left, right, a, b, change))
    slopes = np.array([float(grad_norm(jnp.asarray(s, dtype))) for s in positions])
    crossings = []
    marks = [0.0, *[0.5 * (e[0] + e[1]) for e in events], 1.0]
    for k, (low, high, left, right, a, b, change) in enumerate(events):
        a, b = rows(a, 0), rows(b, 0)
        gap = np.linalg.norm(np.asarray(b.orbit)[:, None] - np.asarray(a.orbit)[None], axis=-1).min()
        # Next to a bifurcation settling is too slow to follow anything, but there the attractors meet: no jump.
        jump = bool(a.escaped) != bool(b.escaped) or gap > _JUMP * (1 + np.linalg.norm(a.mean))
        on_boundary = (left == 0 and _leading(way, ways, left, a, inputs) == "unstable") or (
            right == 1 and _leading(way, ways, right, b, inputs) == "unstable"
        )
        if same_params or on_boundary or (bool(change.basin[0]) and jump):
            kind, at, multiplier = "basin boundary", 0.5 * (low + high), _saddle(way, ways, low, states, inputs)
        else:
            kind, at, multiplier = _bifurcation(way, ways, left, right, a, b, bool(change.forward[0]), inputs)
        aside = max(at - _MARGIN, 0.5 * (marks[k] + at)), at, min(at + _MARGIN, 0.5 * (marks[k + 2] + at))
        norms = [float(grad_norm(jnp.asarray(s, dtype))) for s in aside]
        crossings.append(Crossing(kind, at, high - low, np.asarray(a.mean), np.asarray(b.mean), multiplier, *norms))
    means = np.where(np.asarray(ends.escaped)[:, None], np.nan, np.asarray(ends.mean))
    basin = [c.kind == "basin boundary" for c in crossings]
    return CrossingReport(
        any(basin), not all(basin), crossings, slopes[0], slopes[-1], positions, slopes, means
    )  # fmt: skip


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _newton(step, params, starts, inputs, *, period):
    """Cycles by Newton from each start: their points, how far they moved, residual, Jacobian of `F^p`."""

    def one(x):
        found = solve_fixed_points(step, params, x[None], inputs, period=period, max_iterations=30)
        y = found.points[0]
        orbit = jax.lax.scan(lambda s, _: (step(params, s, inputs), s), y, length=period)[1]
        jacobian = jax.jacfwd(iterate(step, params, inputs, period))(y)
        return orbit, jnp.linalg.norm(y - x), found.residual[0], jacobian

    return jax.vmap(one)(starts)


def _near_cycles(step, params, starts, inputs, period):
    """The same as numpy arrays with multipliers, for those that were found."""
    orbits, moved, residual, jacobians = map(np.asarray, _newton(step, params, starts, inputs, period=period))
    good = residual <= 1e-9 if orbits.dtype == np.float64 else residual <= 1e-4
    values = np.linalg.eigvals(jacobians[good])
    values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1), axis=-1)
    return orbits[good], moved[good], values


def _decide(way, ways, positions, ends, inputs):
    """Ends that converge too slowly to be settled, taken by Newton to the stable cycle beside them if there is one."""
    max_period = ends.orbit.shape[1]
    for i in np.flatnonzero(np.asarray((ends.period == 0) & ~ends.escaped)):
        here, last = ways | {"s": positions[i]}, ends.orbit[i, :1]
        for period in range(1, max_period + 1):
            cycles, moved, values = _near_cycles(way, here, last, inputs, period)
            if not len(cycles) or abs(values[0, 0]) >= 1 or moved[0] > 0.1 * (1 + np.linalg.norm(last)):
                continue
            mean = cycles[0].mean(0)
            ends = ends._replace(
                orbit=ends.orbit.at[i].set(np.resize(cycles[0], ends.orbit[i].shape)),
                period=ends.period.at[i].set(period),
                mean=ends.mean.at[i].set(mean),
                spread=ends.spread.at[i].set(((cycles[0] - mean) ** 2).sum(1).mean() ** 0.5),
            )
            break
    return ends


def _leading(way, ways, position, end, inputs) -> str:
    """Whether an end is "stable", "neutral" or "unstable", by its leading multiplier; "" where it is no cycle."""
    period = int(np.ravel(end.period)[0])
    if not period:
        return ""
    x = end.orbit.reshape(-1, end.orbit.shape[-1])[0]
    here = ways | {"s": jnp.asarray(position, x.dtype)}
    largest = np.abs(np.linalg.eigvals(_jacobian(way, here, x, inputs, period=period))).max()
    margin = unit_margin(x.dtype)
    return "stable" if largest < 1 - margin else "neutral" if largest <= 1 + margin else "unstable"


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _jacobian(step, params, x, inputs, *, period):
    return jax.jacfwd(iterate(step, params, inputs, period))(x)


def _saddle(way, ways, position, states, inputs) -> complex:
    """The leading multiplier of the unstable fixed point that the start's trajectory on the boundary stays near."""
    s = jnp.asarray(position, states.dtype)
    here, start = ways | {"s": s}, states[0] + s * (states[1] - states[0])
    orbit = _orbit(way, here, start, inputs)
    _, moved, values = _near_cycles(way, here, orbit, inputs, 1)
    unstable = np.abs(values[:, 0]) > 1
    return complex(values[np.where(unstable, moved, np.inf).argmin(), 0]) if unstable.any() else complex("nan")


@functools.partial(jax.jit, static_argnums=0)
def _orbit(step, params, x, inputs):
    """Every eighth of the next 256 states."""
    return jax.lax.scan(lambda s, _: (step(params, s, inputs), s), x, length=256)[1][::8]


def _bifurcation(way, ways, low, high, a, b, ended, inputs) -> tuple[str, float, complex]:
    """Kind, position and critical multiplier of the bifurcation between two positions."""
    # A cycle that ends or changes on the way up, or else the one that does so on the way down.
    end, s = (a, low) if (ended and int(a.period)) or not int(b.period) else (b, high)
    period, middle, dtype = int(end.period), 0.5 * (low + high), end.orbit.dtype
    if period == 0:
        return "unresolved", middle, complex("nan")
    here, x = ways | {"s": jnp.asarray(s, dtype)}, end.orbit[0]
    if period % 2 == 0:
        # A cycle of 2p is born at the flip of one of p, whichever way it is crossed: close by, look at that one.
        halved, moved, values = _near_cycles(way, here, x[None], inputs, period // 2)
        if len(halved) and moved[0] < 0.05 and np.abs(values[0] + 1).min() < 0.05:
            period, x = period // 2, jnp.asarray(halved[0, 0])
    values = np.linalg.eigvals(np.asarray(_jacobian(way, here, x, inputs, period=period)))
    critical = complex(values[np.argmin(np.abs(np.abs(values) - 1))])
    if abs(critical.imag) > 1e-6 or critical.real < 0:
        kind = "flip" if abs(critical.imag) <= 1e-6 else "Neimark-Sacker"
        found = _solve(kind, way, here, x, s, inputs, period=period)
        points = [(kind, float(found.parameter), float(found.residual) < 1e3 * float(jnp.finfo(dtype).eps))]
    else:
        kinds = ("fold", "branch point")
        found = (locate_bifurcation(kind, way, here, "s", s, x, inputs, period=period) for kind in kinds)
        points = ((point.kind, point.parameter, point.located) for point in found)
    for kind, position, located in points:
        if located and low - 1e-3 <= position <= high + 1e-3:
            return kind, position, critical
    return "unresolved", middle, critical


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="period")
def _solve(kind, way, here, x, s, inputs, *, period):
    return solve_bifurcation(kind, way, here, "s", s, x, inputs, period=period)
