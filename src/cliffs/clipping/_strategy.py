"""The frame of every strategy: one treatment of non-finite gradients, and what is left for telemetry to find out."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from cliffs.clipping._core import Norm, inexact, tree_norm
from cliffs.clipping._report import Report, Result, Told

NonFinite = Literal["propagate", "zero", "skip", "raise"]
"""What a strategy does with a gradient that holds an inf or a NaN.

- `"propagate"` (default): the gradient goes on as it came, so that whatever guards the run sees it;
- `"zero"`: the entries that are not finite become 0, the rule is applied to the rest;
- `"skip"`: the whole update becomes 0;
- `"raise"`: a `FloatingPointError` from the host (under `jit` JAX wraps it in a `JaxRuntimeError`).

In every case but `"zero"` the state stays as it was: no average, buffer or counter ever sees the bad step
(`clip_or_shrink` has an answer of its own to such a gradient, `"shrink"`, and counts it).
"""
MODES = ("propagate", "zero", "skip", "raise")


def check_mode(nonfinite: str, allowed: tuple[str, ...] = MODES) -> None:
    """Refuse an unknown treatment of non-finite gradients."""
    if nonfinite not in allowed:
        raise ValueError(f"nonfinite must be one of {allowed}, got {nonfinite!r}")


def _refuse(finite, count):
    if not finite:
        raise FloatingPointError(f"gradient with inf or NaN at update {int(count)}")


class CountState(NamedTuple):
    """The state of a strategy without memory: how many updates it has seen (schedules read it)."""

    count: Array


Rule = Callable[[PyTree, Any, Any, Norm], tuple[Any, Any]]
"""`rule(updates, state, params, norm) -> (updates or Result, state)`, called with finite updates only."""


class Strategy(optax.GradientTransformationExtraArgs):
    """An optax transformation that can also say what it did.

    `update_with_report` is `update` with a third result: a `Report`, or None where the norm before is not known.
    """

    update_with_report: Callable[..., tuple[PyTree, Any, Report | None]] | None = None


def strategy(
    init: Callable[[Any], Any] | None,
    rule: Rule,
    nonfinite: str,
    instead: Callable[[PyTree, Any, Any], PyTree] | None = None,
) -> Any:
    """An optax transformation from a rule on finite gradients; non-finite ones are treated here, for all alike.

    The state must be a NamedTuple with a field `count`, incremented here. `instead(updates, state, params)` gives the
    update for a gradient that is not finite, where the rule has an answer to it; such a step counts.
    """
    check_mode(nonfinite)

    def init_state(params):
        return init(params) if init else CountState(jnp.zeros((), jnp.int32))

    def run(updates, state, params, asked):
        updates = jax.tree.map(jnp.asarray, updates)
        if nonfinite == "zero":
            updates = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)), updates)
        found = tree_norm(updates)
        finite = found.finite
        if nonfinite == "raise":
            jax.debug.callback(_refuse, finite, state.count)
        clean = jax.tree.map(lambda x: jnp.where(finite, x, jnp.zeros_like(x)), updates)
        norm = Norm(jnp.where(finite, found.scale, 1.0), jnp.where(finite, found.relative, 0.0))
        new, new_state = rule(clean, state, params, norm)
        if instead:
            bad = instead(updates, state, params)
        else:
            bad = jax.tree.map(jnp.zeros_like, updates) if nonfinite == "skip" else updates
        report = None
        # "zero" has changed what came in: nothing known here is about that.
        if asked and nonfinite != "zero":
            tell = None
            # A leaf of less precision than the norm may be rounded away: a look is needed.
            same = all(jnp.finfo(x.dtype).dtype == norm.value.dtype for x in inexact(updates))
            if isinstance(new, Result) and same:
                tell = functools.partial(_told, new, updates, found, bad)
            report = Report(found, tell)
        if isinstance(new, Result):
            new = new.tree
        new_state = new_state._replace(count=optax.safe_increment(state.count))
        new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, bad)
        used = finite | (instead is not None)
        return new, jax.tree.map(lambda a, b: jnp.where(used, a, b).astype(b.dtype), new_state, state), report

    def update(updates, state, params=None, **extra):
        del extra
        return run(updates, state, params, False)[:2]

    def update_with_report(updates, state, params=None, **extra):
        del extra
        return run(updates, state, params, True)

    made = Strategy(init_state, update)
    made.update_with_report = update_with_report
    return made


def _told(result: Result, updates: PyTree, found: Norm, bad: PyTree) -> Told:
    """What a rule tells of the finite gradient that it saw, for `updates` that came in; `bad` if it is not finite."""
    told, finite, dtype = result.tell(updates), found.finite, found.value.dtype
    after = jax.lax.cond(finite, lambda: told.norm_after.astype(dtype), lambda: tree_norm(bad).value.astype(dtype))
    some, none = (found.relative > 0) & (after > 0), (found.relative == 0) & (after == 0)
    cosine = jnp.where(some, jnp.asarray(told.cosine, dtype), none.astype(dtype))
    return Told(finite & told.changed, after, jnp.where(finite, cosine, jnp.nan))
