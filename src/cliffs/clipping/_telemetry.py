"""What a transformation did to the gradient, kept in its state and read as plain floats."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PyTree

from cliffs.clipping._leaves import (
    check_same_leaves,
    compute_dtype,
    is_array,
    is_number,
    named_leaves,
    stands_for_params,
)
from cliffs.clipping._numbers import check
from cliffs.clipping._outcome import compare
from cliffs.clipping._safe_norm import each_leaf, leaf_norms, whole_norm
from cliffs.clipping._strategy import reporting_update, with_extra_args


class TelemetryState(NamedTuple):
    """State of `with_telemetry`. `norm_before` belongs to the last step.

    `norm_after`, `cosine`, `clipped` and `leaves` belong to the last step whose result was compared with the gradient,
    see `every` of `with_telemetry`.
    """

    inner: Any
    step: Int[Array, ""]
    norm_before: Float[Array, ""]
    norm_after: Float[Array, ""]
    cosine: Float[Array, ""]
    """Between gradient and result: 1 where both are 0, 0 where one is, NaN where either is not finite."""
    clipped: Bool[Array, ""]
    """Whether the gradient was finite and the result differed from it."""
    clip_count: Int[Array, ""]
    compared_count: Int[Array, ""]
    """Number of finite gradients that were compared with their result; `clip_count` of them were clipped."""
    clip_fraction: Float[Array, ""]
    """Bias-corrected moving average of `clipped` over the finite gradients that were compared."""
    nonfinite_count: Int[Array, ""]
    leaves: PyTree
    """`{path: (norm before, norm after)}` when asked for, else None."""


def with_telemetry(
    transform: optax.GradientTransformation, *, decay: float = 0.99, per_leaf: bool = False, every: int = 1
) -> optax.GradientTransformationExtraArgs:
    """Any transformation, with a record of what it does; the updates are the same to the bit.

    Recorded per step: norm before, norm after, their cosine `<g, u> / (||g|| ||u||)`, whether anything changed; and
    over the run: steps, clipped steps, a moving average of the clip fraction, steps with an inf or NaN (counted apart,
    neither clipped nor unclipped). Works around optax's own rules and whole chains as well. For a rule that
    aggregates per-example gradients (a leading axis that the result lacks) "before" is their mean.

    Rules by a norm know from a few numbers what they did. Around all other rules, and around transformations from
    elsewhere, telemetry compares gradient and result: it reads the first twice and the second three times. So it does
    where a leaf has less precision than the norm, and with `nonfinite="zero"`.
    `experiments/benchmarks/clipping_cost.py` measures the price.

    **Arguments**

    - `transform`: any optax transformation.
    - `decay`: of the clip fraction's moving average, in `[0, 1)`.
    - `per_leaf`: whether to record norms of every leaf, too.
    - `every`: record the result of the first and then of every `every`-th step only; norm after, cosine and clipped are
      those of the last step recorded. This does not make steps shorter: a branch around the comparison would have all
      leaves as operands. The norm before, steps and non-finite gradients are recorded at every step all the same, so
      the two norms belong to the same step only right after a recorded one.

    **Returns** an `optax.GradientTransformationExtraArgs` with `TelemetryState`; read it with `read_telemetry`.

    **Raises** `ValueError` for a decay or an `every` out of range, and for what is no transformation.

    >>> optimizer = optax.chain(with_telemetry(optax.clip_by_global_norm(1.0)), optax.sgd(0.1))
    >>> params = jnp.zeros(2)
    >>> _, state = optimizer.update(jnp.array([3.0, 4.0]), optimizer.init(params), params)
    >>> log = read_telemetry(state)
    >>> log["norm_before"], round(log["norm_after"], 6), log["clip_count"]
    (5.0, 1.0, 1.0)
    """
    check("decay", decay, high=1.0, open_high=True, static=True)
    if not isinstance(every, (int, np.integer)) or not 1 <= every < 2**31:
        raise ValueError(f"every must be a whole number >= 1 and < 2^31, got {every!r}")
    inner = with_extra_args("transform", transform)
    report_update = reporting_update(transform)

    def init(params):
        dtype = compute_dtype(params)

        # Every field has a buffer of its own, so that the state can be donated.
        def zero():
            return jnp.zeros((), dtype)

        def count():
            return jnp.zeros((), jnp.int32)

        leaves: Any = None
        if per_leaf:
            stand_in = stands_for_params(params)
            leaves = zero() if stand_in else {n: (zero(), zero()) for n, x in named_leaves(params) if _is_recorded(x)}
        return TelemetryState(
            inner=inner.init(params),
            step=count(),
            norm_before=zero(),
            norm_after=zero(),
            cosine=zero(),
            clipped=jnp.array(False),
            clip_count=count(),
            compared_count=count(),
            clip_fraction=zero(),
            nonfinite_count=count(),
            leaves=leaves,
        )

    def update(updates, state, params=None, **extra):
        dtype, report = state.cosine.dtype, None
        if report_update is not None:
            new, inner_state, report = report_update(updates, state.inner, params, **extra)
        else:
            new, inner_state = inner.update(updates, state.inner, params, **extra)
        pairs = _pairs(updates, new)
        norm = whole_norm([g for _, g, _ in pairs], compute_dtype(updates)) if report is None else report.before
        if report is not None and report.change is not None:
            change = report.change()
        else:
            axis_name = None if report is None else report.axis_name
            change = compare([g for _, g, _ in pairs], [u for _, _, u in pairs], norm, axis_name=axis_name)
        leaves = _leaf_record(updates, pairs, state.leaves, dtype) if per_leaf else None

        looked = state.step % every == 0
        clipped = norm.finite & change.changed
        counts = looked & norm.finite
        # Bias correction as in Adam: the average over k gradients divides by 1 - decay^k.
        k = state.compared_count.astype(dtype)
        raw = decay * state.clip_fraction * (1 - decay**k) + (1 - decay) * clipped
        fraction = jnp.minimum(jnp.where(counts, raw / (1 - decay ** (k + 1)), state.clip_fraction), 1.0)

        def latest(seen, kept):
            return jax.tree.map(lambda a, b: jnp.where(looked, a, b).astype(b.dtype), seen, kept)

        return new, TelemetryState(
            inner=inner_state,
            step=state.step + 1,
            norm_before=norm.value.astype(dtype),
            norm_after=latest(change.norm_after, state.norm_after),
            cosine=latest(change.cosine, state.cosine),
            clipped=latest(clipped, state.clipped),
            clip_count=state.clip_count + (counts & clipped),
            compared_count=state.compared_count + counts,
            clip_fraction=fraction.astype(dtype),
            nonfinite_count=state.nonfinite_count + ~norm.finite,
            leaves=latest(leaves, state.leaves),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _is_recorded(x: Any) -> bool:
    return is_array(x) and jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _pairs(updates: PyTree, new: PyTree) -> list[tuple[int, Array, Array]]:
    """Place, gradient and result of every leaf that is a number; the gradient is the mean where it has examples."""
    before, after = (jax.tree.leaves(tree) for tree in (updates, new))
    if len(before) != len(after):
        raise ValueError(f"the transformation gives {len(after)} leaves for a gradient of {len(before)}")

    def mean(g, u):
        return g.mean(0) if g.ndim == u.ndim + 1 and g.shape[1:] == u.shape else g

    return [
        (i, mean(jnp.asarray(g), jnp.asarray(u)), jnp.asarray(u))
        for i, (g, u) in enumerate(zip(before, after))
        if is_number(g) and is_number(u)
    ]


def _leaf_record(updates: PyTree, pairs: list[tuple[int, Array, Array]], known: Any, dtype: Any) -> Any:
    """Both norms of every leaf by its path; 0 for leaves without a gradient."""
    named = named_leaves(updates)
    recorded = [name for name, x in named if _is_recorded(x)]
    # Of a tree without leaves `init` cannot tell that it is no stand-in, see `stands_for_params`.
    stand_in = not isinstance(known, Mapping)
    check_same_leaves(updates, recorded, [] if stand_in else list(known), "the state of telemetry")
    if stand_in:
        return known
    sides = [g for _, g, _ in pairs], [u for _, _, u in pairs]
    before, after = (each_leaf(leaf_norms(side, dtype).value) for side in sides)
    zero = jnp.zeros((), dtype)
    seen = {named[i][0]: (before[k], after[k]) for k, (i, _, _) in enumerate(pairs)}
    return {name: seen.get(name, (zero, zero)) for name in known}


def read_telemetry(state: PyTree) -> dict[str, float] | dict[str, np.ndarray]:
    """All telemetry in an optimiser state as one flat dict of floats, ready for JSON lines, TensorBoard or W&B.

    **Arguments**: `state`, any pytree that holds a `TelemetryState` somewhere (`chain`, `multi_transform`, `masked`,
    `inject_hyperparams`, `MultiSteps`, a train state, `nnx.state(optimizer)` of flax, ...).

    **Returns** names to floats: `step`, `norm_before`, `norm_after`, `cosine`, `clipped`, `clip_count`,
    `compared_count`, `clip_fraction`, `nonfinite_count`, and per leaf `"leaf/<path>/norm_before"`. Where there are
    several telemetries the names start with `"0/"`, `"1/"`, ... in the order of the tree. With `every > 1` all but
    `step`, `norm_before` and `nonfinite_count` are those of the last step recorded. The state of a sweep has a leading
    run axis: the values are then arrays `[runs]`.

    **Raises** `ValueError` when there is none, or when it is traced (read it outside of `jit`). After a gradient with
    an inf or NaN the norms and the cosine are not finite either; strict JSON has no word for that.

    >>> read_telemetry(optax.sgd(0.1).init(jnp.zeros(2)))
    Traceback (most recent call last):
    ValueError: state holds no telemetry: wrap a transformation in with_telemetry(...)
    """
    found = _find(state)
    if not found:
        raise ValueError("state holds no telemetry: wrap a transformation in with_telemetry(...)")
    log: dict[str, Any] = {}
    for index, item in enumerate(found):
        prefix = f"{index}/" if len(found) > 1 else ""
        fields = {k: v for k, v in item._asdict().items() if k not in ("inner", "leaves")}
        for path, (before, after) in (item.leaves or {}).items():
            fields |= {f"leaf/{path}/norm_before": before, f"leaf/{path}/norm_after": after}
        if any(isinstance(value, Tracer) for value in fields.values()):
            raise ValueError("state is traced: read telemetry outside of jit, vmap and scan")
        fields = jax.device_get(fields)
        log |= {
            prefix + name: np.asarray(value, float) if np.ndim(value) else float(value)
            for name, value in fields.items()
        }
    return log


def _find(tree: PyTree) -> list[TelemetryState]:
    """Telemetries in the order of the tree, those inside another one's transformation after it."""
    found = []
    for leaf in jax.tree.leaves(tree, is_leaf=_is_telemetry):
        if _is_telemetry(leaf):
            state = leaf if isinstance(leaf, TelemetryState) else _from_mapping(leaf)
            found += [state, *_find(state.inner)]
    return found


def _is_telemetry(node: Any) -> bool:
    """Whether a node is a telemetry, or what flax nnx or a checkpoint without classes makes of one: a mapping."""
    return isinstance(node, TelemetryState) or (
        isinstance(node, Mapping) and set(TelemetryState._fields) - {"inner", "leaves"} <= set(node)
    )


def _from_mapping(node: Mapping[str, Any]) -> TelemetryState:
    def value(x):
        return jax.tree.leaves(x)[0]

    numbers = {k: value(node[k]) for k in TelemetryState._fields if k not in ("inner", "leaves")}
    leaves = node.get("leaves") or {}
    # A pair becomes a mapping with the keys 0 and 1.
    pairs = {name: tuple(jax.tree.leaves(pair)) for name, pair in leaves.items()}
    return TelemetryState(inner=node.get("inner", ()), leaves=pairs or None, **numbers)
