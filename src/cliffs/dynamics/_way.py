"""The straight way between two parameter trees and start states: what attractor each place on it leads to."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from cliffs._precision import by_precision, spacing, unit_margin
from cliffs.dynamics._attractor_matching import AttractorChange, match_attractors
from cliffs.dynamics._fixed_points import solve_fixed_points
from cliffs.dynamics._newton import iterate
from cliffs.dynamics._settings import Settling
from cliffs.dynamics._settling import Settled, settle
from cliffs.dynamics._special_points import locate_bifurcation, solve_bifurcation
from cliffs.dynamics._units import offset_noise, relative_size
from cliffs.typing import Step

_JUMP = 1e-2
"""Attractors on the two sides of an event that are closer than this, relative to `scale + |x|`, meet there."""
_BESIDE = 0.3
"""How far, relative to `scale + |x|`, a trajectory that has not settled may be from the stable cycle it goes to."""
_BRINK = 1e-3
"""A cycle with a multiplier as close to the unit circle as this, beside an event, is what bifurcates there."""
_SPLIT = 0.4871
"""Where brackets are cut: not in the middle, where symmetry often puts the boundary itself."""


class Event(NamedTuple):
    """A change of attractor between two places on the way; ends have a leading axis of 1."""

    low: float
    high: float
    left: float
    """A wider bracket from here to `right`: ends within rounding of a boundary stay on its saddle, so what changes is
    told from farther away."""
    right: float
    before: Settled
    """The end at `left`."""
    after: Settled
    change: AttractorChange

    @property
    def jumps(self) -> bool:
        """Whether the ends at `left` and `right` are on different attractors."""
        return bool((self.change.basin | self.change.bifurcation)[0])


@dataclasses.dataclass(frozen=True)
class WayStep:
    """The step along the way, as a map with one parameter `s`; hashable."""

    step: Step

    def __call__(self, params: Mapping[str, Any], state: Array, inputs: PyTree = None) -> Array:
        return self.step(between(params["before"], params["after"], params["s"]), state, inputs)


def between(a: PyTree, b: PyTree, s: Any) -> PyTree:
    """`a + s (b - a)`.

    >>> between({"w": 1.0}, {"w": 3.0}, 0.25)
    {'w': 1.5}
    """
    return jax.tree.map(lambda x, y: x + s * (y - x), a, b)


def row(ends: Settled, i: int) -> Settled:
    """One entry with its leading axis kept.

    >>> from cliffs.recurrent import OneUnitParams, one_unit_step
    >>> row(settle(one_unit_step, OneUnitParams(5.0, -2.5), jnp.ones((3, 1))), 1).period.shape
    (1,)
    """
    return jax.tree.map(lambda v: v[i : i + 1], ends)


@dataclasses.dataclass(frozen=True, eq=False)
class Way:
    """The way from one parameter tree and state to another, with everything that following the map on it needs."""

    step: Step
    before: PyTree
    after: PyTree
    states: Float[Array, "2 n"]
    """The start states before and after."""
    inputs: PyTree
    settling: Settling
    merge: float
    scale: Float[Array, " n"]
    centre: Float[Array, " n"]
    """Where `|x|` is measured from."""

    @property
    def dtype(self) -> Any:
        """Of the states."""
        return self.states.dtype

    @property
    def spacing(self) -> float:
        """How close two places on the way can be."""
        return spacing(self.dtype)

    @property
    def noise(self) -> float:
        """What the rounding of the states' offset makes of distances relative to the scale."""
        return float(offset_noise(self.centre, self.scale, self.dtype))

    @property
    def along(self) -> WayStep:
        """The step as a map with the parameter `s`."""
        return WayStep(self.step)

    @functools.cached_property
    def same_params(self) -> bool:
        """Whether only the start state changes."""
        return all(map(np.array_equal, jax.tree.leaves(self.before), jax.tree.leaves(self.after)))

    def params(self, s: Any) -> dict[str, Any]:
        """Parameters of `along` at `s`."""
        return {"before": self.before, "after": self.after, "s": jnp.asarray(s, self.dtype)}

    def start(self, s: Any) -> Float[Array, " n"]:
        """The start state at `s`."""
        return self.states[0] + s * (self.states[1] - self.states[0])

    def ends(self, positions: Any) -> Settled:
        """Where the start at each position leads, under the parameters there."""
        s = jnp.asarray(positions, self.dtype)
        starts = self.states[0] + s[:, None] * (self.states[1] - self.states[0])
        units = self.scale, self.centre
        ends = _ends(self.along, self.params(0), s, starts, self.inputs, units, settling=self.settling)
        return self._decided(s, ends)

    def changes(self, low: Any, high: Any, ends: Settled, new_ends: Settled) -> AttractorChange:
        """How the attractors at `low` and at `high` relate, pair by pair."""
        a, b = jnp.asarray(low, self.dtype), jnp.asarray(high, self.dtype)
        return _changes(
            self.along, self.params(0), a, b, ends, new_ends, self.inputs, merge=self.merge, settling=self.settling
        )

    def changed(self, positions: np.ndarray, ends: Settled) -> np.ndarray:
        """Whether the attractor changes between each position and the next."""
        a, b = (jax.tree.map(lambda v, s=s: v[s], ends) for s in (slice(None, -1), slice(1, None)))
        change = self.changes(positions[:-1], positions[1:], a, b)
        return np.asarray(change.basin | change.bifurcation)

    def bisect(self, low: float, high: float, a: Settled, b: Settled) -> Event:
        """The change between two positions, in as narrow a bracket as the dtype allows."""
        clear = (low, high, a, b)
        while high - low > 4 * self.spacing:
            if high - low > max(self.spacing, self.noise) ** 0.5:
                clear = (low, high, a, b)
            middle = low + _SPLIT * (high - low)
            m = self.ends([middle])
            if not (int(m.period[0]) or bool(m.escaped[0])) and int(a.period[0]) and int(b.period[0]):
                break  # settling takes too long this close to a bifurcation
            change = self.changes([low], [middle], a, m)
            if bool((change.basin | change.bifurcation)[0]):
                high, b = middle, m
            else:
                low, a = middle, m
        left, right, a, b = clear
        return Event(low, high, left, right, a, b, self.changes([left], [right], a, b))

    def leading(self, position: float, end: Settled) -> str:
        """Whether an end is "stable", "neutral" or "unstable", by its leading multiplier; "" where it is no cycle."""
        moduli, margin = self._moduli(position, end), unit_margin(self.dtype)
        if not len(moduli):
            return ""
        largest = moduli.max()
        return "stable" if largest < 1 - margin else "neutral" if largest <= 1 + margin else "unstable"

    def _moduli(self, position: float, end: Settled) -> np.ndarray:
        """Moduli of the multipliers of an end; none where it is no cycle."""
        period = int(end.period[0])
        if not period:
            return np.zeros(0)
        jacobian = _jacobian(self.along, self.params(position), end.orbit[0, 0], self.inputs, period=period)
        return np.abs(np.linalg.eigvals(jacobian)) if np.isfinite(jacobian).all() else np.zeros(0)

    def _critical(self, position: float, end: Settled) -> bool:
        """Whether an end is a cycle on the brink of a bifurcation."""
        moduli = self._moduli(position, end)
        return bool(len(moduli)) and bool(np.abs(moduli - 1).min() < _BRINK)

    def classify(self, event: Event) -> tuple[str, float, complex]:
        """Kind, position and multiplier of an event, as in `Crossing`."""
        low, high, left, right, a, b, change = event
        orbits = b.orbit[0][:, None] - a.orbit[0][None]
        gap = float(relative_size(orbits, a.mean[0] - self.centre, self.scale).min())
        # Next to a bifurcation settling is too slow to follow anything, but there the attractors meet: no jump.
        jump = bool(a.escaped[0]) != bool(b.escaped[0]) or gap > _JUMP
        on_boundary = (left == 0 and self.leading(left, a) == "unstable") or (
            right == 1 and self.leading(right, b) == "unstable"
        )
        # A cycle at its bifurcation is not followed either, and what it sheds may be far away.
        persist = bool(change.basin[0]) and jump and not (self._critical(left, a) or self._critical(right, b))
        if self.same_params or on_boundary or persist:
            return "basin boundary", 0.5 * (low + high), self._saddle(low)
        return self._bifurcation(left, right, row(a, 0), row(b, 0), bool(change.forward[0]))

    def _saddle(self, position: float) -> complex:
        """The leading multiplier of the unstable fixed point that the start's trajectory on the boundary stays near."""
        here = self.params(position)
        orbit = _orbit(self.along, here, self.start(here["s"]), self.inputs)
        _, moved, values = self._near_cycles(here, orbit, 1)
        unstable = np.abs(values[:, 0]) > 1
        return complex(values[np.where(unstable, moved, np.inf).argmin(), 0]) if unstable.any() else complex("nan")

    def _bifurcation(self, low: float, high: float, a: Settled, b: Settled, ended: bool) -> tuple[str, float, complex]:
        """Kind, position and critical multiplier of the bifurcation between two positions."""
        # A cycle that ends or changes on the way up, or else the one that does so on the way down.
        end, s = (a, low) if (ended and int(a.period[0])) or not int(b.period[0]) else (b, high)
        period, middle = int(end.period[0]), 0.5 * (low + high)
        if period == 0:
            return "unresolved", middle, complex("nan")
        here, x = self.params(s), end.orbit[0, 0]
        if period % 2 == 0:
            # A cycle of 2p is born at the flip of one of p, whichever way it is crossed: close by, look at that one.
            halved, moved, values = self._near_cycles(here, x[None], period // 2)
            if len(halved) and moved[0] < 0.05 and np.abs(values[0] + 1).min() < 0.05:
                period, x = period // 2, jnp.asarray(halved[0, 0])
        values = np.linalg.eigvals(np.asarray(_jacobian(self.along, here, x, self.inputs, period=period)))
        critical = complex(values[np.argmin(np.abs(np.abs(values) - 1))])
        if abs(critical.imag) > 1e-6 or critical.real < 0:
            kind = "flip" if abs(critical.imag) <= 1e-6 else "Neimark-Sacker"
            found = _solve(kind, self.along, here, x, s, self.inputs, self.scale, period=period)
            points = [(kind, float(found.parameter), float(found.residual) < 1e3 * self.spacing + self.noise)]
        else:
            kinds = ("fold", "branch point")
            along, inputs = self.along, self.inputs
            scale = self.scale
            found = (
                locate_bifurcation(kind, along, here, "s", s, x, inputs, period=period, scale=scale) for kind in kinds
            )
            points = ((point.kind, point.parameter, point.located) for point in found)
        for kind, position, located in points:
            if located and low - 1e-3 <= position <= high + 1e-3:
                return kind, position, critical
        return "unresolved", middle, critical

    def _near_cycles(self, here: PyTree, starts: Any, period: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cycles by Newton from each start, those that were found.

        Orbits `[found, period, n]`, how far they moved relative to `scale + |x|`, multipliers `[found, n]` with the
        largest modulus first.
        """
        out = _newton(self.along, here, starts, self.inputs, (self.scale, self.centre), period=period)
        orbits, moved, residual, jacobians = map(np.asarray, out)
        small = by_precision(orbits.dtype, double=1e-9, single=1e-4) + self.noise
        good = (residual <= small) & np.isfinite(jacobians).all((1, 2))
        values = np.linalg.eigvals(jacobians[good])
        values = np.take_along_axis(values, np.argsort(-np.abs(values), axis=-1), axis=-1)
        return orbits[good], moved[good], values

    def _decided(self, positions: Array, ends: Settled) -> Settled:
        """Ends that converge too slowly to settle are taken by Newton to the stable cycle beside them, if any."""
        max_period = ends.orbit.shape[1]
        for i in np.flatnonzero(np.asarray((ends.period == 0) & ~ends.escaped)):
            last = ends.orbit[i, :1]
            for period in range(1, max_period + 1):
                cycles, moved, values = self._near_cycles(self.params(positions[i]), last, period)
                if not len(cycles) or abs(values[0, 0]) >= 1 or moved[0] > _BESIDE:
                    continue
                mean = cycles[0].mean(0)
                ends = ends._replace(
                    orbit=ends.orbit.at[i].set(np.resize(cycles[0], ends.orbit[i].shape)),
                    period=ends.period.at[i].set(period),
                    mean=ends.mean.at[i].set(mean),
                    deviation=ends.deviation.at[i].set(((cycles[0] - mean) ** 2).mean(0) ** 0.5),
                )
                break
        return ends


@functools.partial(jax.jit, static_argnums=0, static_argnames="settling")
def _ends(step, params, positions, starts, inputs, units, *, settling):
    """Ends for each position, of the start there: one trajectory per position."""
    scale, centre = units

    def at(s, x):
        end = settle(step, params | {"s": s}, x[None], inputs, settling, scale=scale, centre=centre)
        return jax.tree.map(lambda v: v[0], end)

    return jax.vmap(at)(positions, starts)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("merge", "settling"))
def _changes(step, params, low, high, ends, new_ends, inputs, *, merge, settling):
    def at(a, b, x, y):
        x, y = jax.tree.map(lambda v: v[None], (x, y))
        here, there = params | {"s": a}, params | {"s": b}
        change = match_attractors(step, here, there, x, y, inputs, settling, merge_distance=merge)
        return jax.tree.map(lambda v: v[0], change)

    return jax.vmap(at)(low, high, ends, new_ends)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _newton(step, params, starts, inputs, units, *, period):
    """Cycles from each start: orbits, how far they moved, residuals (both relative), Jacobians of `F^p`."""
    apply = iterate(step, params, inputs, period)
    scale, centre = units

    def one(x):
        found = solve_fixed_points(step, params, x[None], inputs, period=period, max_iterations=30, scale=scale)
        y = found.points[0]
        orbit = jax.lax.scan(lambda s, _: (step(params, s, inputs), s), y, length=period)[1]
        moved, residual = relative_size(y - x, x - centre, scale), relative_size(apply(y) - y, y - centre, scale)
        return orbit, moved, residual, jax.jacfwd(apply)(y)

    return jax.vmap(one)(starts)


@functools.partial(jax.jit, static_argnums=0, static_argnames="period")
def _jacobian(step, params, x, inputs, *, period):
    return jax.jacfwd(iterate(step, params, inputs, period))(x)


@functools.partial(jax.jit, static_argnums=0)
def _orbit(step, params, x, inputs):
    """Every eighth of the next 256 states."""
    return jax.lax.scan(lambda s, _: (step(params, s, inputs), s), x, length=256)[1][::8]


@functools.partial(jax.jit, static_argnums=(0, 1), static_argnames="period")
def _solve(kind, way, here, x, s, inputs, scale, *, period):
    return solve_bifurcation(kind, way, here, "s", s, x, inputs, period=period, scale=scale)
