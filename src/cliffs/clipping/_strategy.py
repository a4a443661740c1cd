"""The frame of every strategy: what a rule sees, one treatment of non-finite gradients, a report for telemetry."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, get_args

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from cliffs.clipping._leaves import compute_dtype, is_number, number_names, paired, paired_weights
from cliffs.clipping._outcome import Outcome, Report, StepChange
from cliffs.clipping._safe_norm import Axis, Norm, combined, leaf_norms, whole_norm

NonFinite = Literal["propagate", "zero", "skip", "raise"]
"""What a strategy does with a gradient that holds an inf or a NaN.

- `"propagate"` (default): the gradient goes on as it came, so that whatever guards the run sees it;
- `"zero"`: the entries that are not finite become 0, the rule is applied to the rest;
- `"skip"`: the whole update becomes 0;
- `"raise"`: a `FloatingPointError` from the host (under `jit` JAX wraps it in a `JaxRuntimeError`).

In every case but `"zero"` the state stays as it was: no average, buffer or counter ever sees the bad step
(`clip_or_shrink` has an answer of its own to such a gradient, `"shrink"`, and counts it).
"""
MODES: tuple[str, ...] = get_args(NonFinite)


def with_extra_args(name: str, inner: Any) -> optax.GradientTransformationExtraArgs:
    """A wrapped transformation, also `optax.MultiSteps`, that takes extra arguments; `ValueError` for what is none.

    >>> with_extra_args("inner", optax.clip)
    Traceback (most recent call last):
    ...
    ValueError: inner must be an optax transformation, such as optax.sgd(0.1), got <function clip at ...
    """
    inner = inner.gradient_transformation() if isinstance(inner, optax.MultiSteps) else inner
    if not (callable(getattr(inner, "init", None)) and callable(getattr(inner, "update", None))):
        raise ValueError(f"{name} must be an optax transformation, such as optax.sgd(0.1), got {inner!r}")
    return optax.with_extra_args_support(inner)


class CountState(NamedTuple):
    """The state of a strategy without memory: how many updates it has seen (schedules read it)."""

    count: Array


@dataclasses.dataclass(frozen=True)
class Gradient:
    """What a rule sees: the leaves that are numbers to clip, their norms, and what belongs to them."""

    leaves: list[Array]
    norm: Norm
    """Of all leaves; the value is 0 where it is not finite."""
    norms: Any
    """What `measure` found besides: for `by_leaf` a `Norm` of arrays `[leaves]`."""
    finite: Array
    axis_name: Axis
    tree: PyTree
    params: PyTree

    @functools.cached_property
    def names(self) -> list[str]:
        """The paths of the leaves, such as `"encoder/kernel"`."""
        return number_names(self.tree)

    @functools.cached_property
    def weights(self) -> list[Array]:
        """The parameters of the leaves."""
        return paired_weights(self.tree, self.params)

    @functools.cached_property
    def clean(self) -> list[Array]:
        """The leaves, all zero where the gradient is not finite."""
        return [jnp.where(self.finite, x, jnp.zeros_like(x)) for x in self.leaves]

    def of_each_leaf(self, values: dict[str, Any], what: str) -> list[Any]:
        """What a state holds for the leaves, by name."""
        return paired(self.tree, self.names, values, what)


Rule = Callable[[Gradient, Any], tuple[Outcome, Any]]
"""`rule(gradient, state) -> (outcome, state)`. Where the gradient is not finite, what it returns is not used."""


Measure = Callable[[list[Array], Any, Axis], tuple[Norm, Any, Array]]
"""`measure(leaves, dtype, axis_name) -> (norm, norms, finite)`: the norm of all leaves, what else the rule needs, and
whether every entry is finite. Nothing is computed that is not used."""


def _as_a_whole(leaves: list[Array], dtype: Any, axis_name: Axis) -> tuple[Norm, Any, Array]:
    norm = whole_norm(leaves, dtype, axis_name)
    return norm, None, norm.finite


def by_leaf(leaves: list[Array], dtype: Any, axis_name: Axis) -> tuple[Norm, Norm, Array]:
    """The norm of all leaves, and the norms of each in one array `[leaves]`."""
    norms = leaf_norms(leaves, dtype, axis_name)
    norm = combined(norms)
    return norm, norms, norm.finite


class ReportingUpdate(Protocol):
    """An optax `update` that can also say what it did.

    `with_report` is the same function with a third result: a `Report`, or None where the norm before is not known.
    """

    with_report: Callable[..., tuple[PyTree, Any, Report | None]]

    def __call__(self, updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]: ...


@dataclasses.dataclass(frozen=True)
class _Update:
    with_report: Callable[..., tuple[PyTree, Any, Report | None]]

    def __call__(self, updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        return self.with_report(updates, state, params, report=False, **extra)[:2]


def reporting_update(
    transform: optax.GradientTransformation,
) -> Callable[..., tuple[PyTree, Any, Report | None]] | None:
    """The update of a transformation that reports what it did, None where it cannot."""
    return getattr(transform.update, "with_report", None)


def check_mode(nonfinite: str, allowed: tuple[str, ...] = MODES) -> None:
    """Refuse an unknown treatment of non-finite gradients."""
    if nonfinite not in allowed:
        raise ValueError(f"nonfinite must be one of {allowed}, got {nonfinite!r}")


def strategy(
    init: Callable[[PyTree], Any] | None,
    rule: Rule,
    nonfinite: str,
    instead: Callable[[Gradient, Any], list[Array]] | None = None,
    *,
    measure: Measure | None = None,
    axis_name: Axis = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax transformation from a rule on finite gradients; non-finite ones are treated here, for all alike.

    - `init`: the state, a NamedTuple with a field `count`, which is incremented here; by default `CountState`.
    - `instead`: the answer to a gradient that is not finite, where the rule has one; such a step counts.
    - `measure`: the norms that the rule needs; that of the whole gradient by default.
    - `axis_name`: see `tree_norm`.
    """
    check_mode(nonfinite)
    measure = measure or _as_a_whole

    def init_state(params):
        return init(params) if init else CountState(jnp.zeros((), jnp.int32))

    def run(updates, state, params=None, *, report=True, **extra):
        del extra
        flat, treedef = jax.tree.flatten(updates)
        places = [i for i, x in enumerate(flat) if is_number(x)]
        leaves = [jnp.asarray(flat[i]) for i in places]
        if nonfinite == "zero":
            leaves = [jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x)) for x in leaves]
        found, norms, finite = measure(leaves, compute_dtype(leaves), axis_name)
        if nonfinite == "raise":
            jax.debug.callback(_refuse, finite, state.count)
        norm = found._replace(value=jnp.where(finite, found.value, 0.0))
        gradient = Gradient(leaves, norm, norms, finite, axis_name, updates, params)
        outcome, new_state = rule(gradient, state)
        if instead:
            bad = instead(gradient, state)
        else:
            bad = [jnp.zeros_like(x) for x in leaves] if nonfinite == "skip" else leaves
        if outcome.passes_nonfinite and bad is leaves:
            new = outcome.leaves
        else:
            new = [jnp.where(finite, a, b) for a, b in zip(outcome.leaves, bad)]
        new_state = new_state._replace(count=optax.safe_increment(state.count))
        if not instead:
            others = {k: v for k, v in state._asdict().items() if k not in outcome.kept}
            selected = {k: _selected(finite, getattr(new_state, k), v) for k, v in others.items()}
            new_state = new_state._replace(**selected)
        new_state = jax.tree.map(lambda a, b: a.astype(b.dtype), new_state, state)
        for i, x in zip(places, new):
            flat[i] = x
        # "zero" has changed what came in: nothing known here is about that.
        said = _report(leaves, found, outcome, bad, axis_name) if report and nonfinite != "zero" else None
        return jax.tree.unflatten(treedef, flat), new_state, said

    return optax.GradientTransformationExtraArgs(init_state, _Update(run))


def _selected(finite: Array, new: PyTree, old: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def _refuse(finite, count):
    if not finite:
        raise FloatingPointError(f"gradient with inf or NaN at update {int(count)}")


def _report(leaves: list[Array], found: Norm, outcome: Outcome, bad: list[Array], axis_name: Axis) -> Report:
    # A leaf of less precision than the norm may be rounded away: then gradient and result have to be compared.
    same = all(jnp.finfo(x.dtype).dtype == found.value.dtype for x in leaves)
    if outcome.change is None or not same:
        return Report(found, None, axis_name)

    def change() -> StepChange:
        assert outcome.change is not None
        known, finite, dtype = outcome.change(), found.finite, found.value.dtype
        after = known.norm_after.astype(dtype)
        if bad is not leaves:
            after = jnp.where(finite, after, whole_norm(bad, dtype, axis_name).value)
        else:
            after = jnp.where(finite, after, found.value)
        cosine = jnp.where(finite, known.cosine.astype(dtype), jnp.nan)
        return StepChange(finite & known.changed, after, cosine)

    return Report(found, change, axis_name)
