"""Any step over time, with the weight gradient formed in large products.

Plain reverse-mode autodiff of a scan adds `x_t^T delta_t` to the gradient of a weight matrix at every step. Here each
product `x · w` found by `_step_plan` gets a perturbation: `x · w + e_t` with `e_t = 0`, whose cotangent is the delta of
that step. The loop is differentiated with respect to `e_t` instead of `w`, and the tangent of the perturbation,
`e_t' = x_t · w'`, is one product over all steps; its transpose is the weight gradient, one product of all recorded
inputs with all deltas. What is not found keeps plain autodiff. The rule is a tangent rule, so forward mode, reverse
mode and derivatives of any order go through it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, PyTree

from cliffs.recurrent._blocks import block_length, over_blocks
from cliffs.recurrent._step_plan import INPUTS, LOOP, PARAMS, Operation, Plan, Product, delta_rows, make_plan
from cliffs.recurrent._tangents import aval_of, is_zero, materialise, states_before, total
from cliffs.typing import Step


def find_plan(
    step: Step, params: PyTree, initial_state: PyTree, inputs: PyTree, num_steps: int
) -> tuple[Plan | None, str]:
    """The step's plan where it has products to defer, and a sentence about it."""
    leaves, tree = jax.tree.flatten(params)
    places = [k for k, x in enumerate(leaves) if is_array(x)]

    def with_arrays(arrays, state, u):
        whole = list(leaves)  # leaves that are no arrays, such as an activation function, stay what they are
        for k, x in zip(places, arrays):
            whole[k] = x
        return step(tree.unflatten(whole), state, u)

    state = jax.tree.map(aval_of, initial_state)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype, weak_type=aval_of(x).weak_type), inputs)
    arrays = [aval_of(leaves[k]) for k in places]
    closed, out = jax.make_jaxpr(with_arrays, return_shape=True)(arrays, state, one)
    before, after = closed.in_avals[len(places) :][: len(jax.tree.leaves(state))], closed.out_avals
    if jax.tree.structure(out) != jax.tree.structure(state) or [_type(x) for x in before] != [_type(x) for x in after]:
        return None, "the step's result has other types than its state"
    plan = make_plan(closed, len(places), len(before))
    if plan is None:
        return None, "the step has side effects"
    hidden = sorted({op.name for op in plan.opaque()})
    also = f"; what parameters do inside {', '.join(hidden)} is left to plain autodiff" if hidden else ""
    if not plan.products:
        return None, "no product with parameters was found in the step" + also
    if num_steps > 1 and steps_together(plan, num_steps) == 1:
        return None, "the products of one step are large already"
    count = len(plan.products)
    return (
        plan,
        f"{count} product{'s' if count > 1 else ''} with parameters {'are' if count > 1 else 'is'} deferred{also}",
    )


def deferred_unroll(plan: Plan, params: list, state: list, inputs: list, num_steps: int) -> list[Array]:
    """All states of the planned step, flat, each `[time, ...]`."""
    fixed = dict(plan.consts) | dict(zip(plan.params, params)) | dict(plan.literals)
    for operation in plan.part(PARAMS):
        _evaluate(operation, fixed)
    length = min(steps_together(plan, num_steps), max(num_steps, 1))
    loop = _Loop(plan, fixed, min(length, num_steps))

    def block(state, xs):
        states = loop(state, xs)
        return [x[-1] for x in states] if length < num_steps else state, states

    return over_blocks(block, state, inputs, length, num_steps=num_steps)[1]


def steps_together(plan: Plan, num_steps: int) -> int:
    """How many steps share one weight-gradient product."""
    rows = max((delta_rows(plan.avals, p) for p in plan.products), default=1)
    deltas = [plan.avals[s] for s in {p.delta for p in plan.products}]
    sizes = sum(d.size for d in deltas)
    itemsize = max((d.dtype.itemsize for d in deltas), default=4)
    return block_length(num_steps, rows, -(-sizes // max(rows, 1)), itemsize)


def _type(aval):
    return aval.shape, aval.dtype, aval.weak_type


def is_array(x) -> bool:
    """Whether a leaf of the parameters holds numbers, or stands for them by shape and dtype."""
    return isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)


def _evaluate(operation: Operation, values: dict[int, Any], special: dict[tuple[int, int], Any] | None = None) -> None:
    """Run one operation; `special` holds what single operations read in place of a slot's usual value."""
    reads = [operation.reads[k] for k in operation.places.values()]
    out = operation.function(*((special or {}).get((id(operation), s), values.get(s)) for s in reads))
    values.update(zip(operation.writes, out))


class _Loop:
    """One block of time: `loop(state, xs) -> states`, with its derivative rule."""

    def __init__(self, plan: Plan, fixed: dict[int, Any], length: int):
        self.plan, self.fixed, self.length = plan, fixed, length
        self.groups = _groups(plan)
        self.weights = [p.w for p in plan.products]
        self.terms = list(dict.fromkeys(t.slot for t in plan.terms))
        self.consts, self.per_step = plan.entering(PARAMS), plan.entering(INPUTS)
        self.changing = [s for s in self.terms if plan.kind[s] == INPUTS]

    def __call__(self, state: list, xs: list) -> list[Array]:
        plan, fixed = self.plan, self.fixed

        def of_inputs(x):
            values = dict(fixed) | dict(zip(plan.inputs, x))
            for operation in plan.part(INPUTS):
                _evaluate(operation, values)
            return [values[s] for s in self.per_step], {s: values[s] for s in self.changing}

        per_step, terms = jax.vmap(of_inputs)(xs) if xs else ([], {})
        terms |= {s: fixed[s] for s in self.terms if s not in terms}
        states: Any = jax.custom_jvp(
            lambda w, terms, consts, xs, state: self.scan(w, terms, consts, xs, state, {}, [])[0]
        )
        states.defjvp(self.tangents, symbolic_zeros=True)
        return states([fixed[s] for s in self.weights], terms, [fixed[s] for s in self.consts], per_step, state)

    def scan(self, weights, terms, consts, per_step, state, perturbations, recorded):
        """All states, and the values of the `recorded` slots at all steps."""
        plan = self.plan
        held = dict(plan.literals) | dict(zip(self.consts, consts))
        held_special = {(id(p.operation), p.w): w for p, w in zip(plan.products, weights)}
        held_special |= {(id(t.operation), t.slot): terms[t.slot] for t in plan.terms if t.slot not in self.changing}
        merged = {first: _merge(group, held_special) for first, group in self.groups.items()}

        def step(state, x):
            per_step, changing, pushes = x
            values = held | dict(zip(self.per_step, per_step)) | dict(zip(plan.state, state))
            special = held_special | {
                (id(t.operation), t.slot): changing[t.slot] for t in plan.terms if t.slot in changing
            }
            for operation in plan.part(LOOP):
                group = self.groups.get(id(operation))
                if group is not None:
                    parts = _product(values[group[0].x], *merged[id(operation)])
                    values |= {p.operation.writes[0]: part for p, part in zip(group, parts)}
                elif operation.writes[0] not in values:
                    _evaluate(operation, values, special)
                for slot in operation.writes:
                    if slot in pushes:
                        values[slot] = _perturbed(values[slot], pushes[slot])
            new = [values[s] for s in plan.outputs]
            return new, (new, [values[s] for s in recorded])

        xs = per_step, {s: terms[s] for s in self.changing}, perturbations
        return lax.scan(step, state, xs, length=self.length)[1]

    def tangents(self, primals, tangents):
        """States and their tangents; the weights' and terms' tangents enter by way of the perturbations."""
        plan = self.plan
        weights, terms, *moving = primals
        d_weights, d_terms, *d_moving = tangents
        pushed = [p.delta for p, t in zip(plan.products, d_weights) if not is_zero(t)]
        pushed += [t.delta for t in plan.terms if not is_zero(d_terms[t.slot])]
        shapes = {s: (self.length, *plan.avals[s].shape) for s in dict.fromkeys(pushed)}
        recorded = [p.x for p, t in zip(plan.products, d_weights) if not is_zero(t) and p.x not in plan.state]
        leaves, tree = jax.tree.flatten(moving)
        d_leaves = jax.tree.leaves(d_moving)
        free = [k for k, t in enumerate(d_leaves) if not is_zero(t)]

        def of_moving(perturbations, values):
            whole = list(leaves)
            for k, value in zip(free, values):
                whole[k] = value
            consts, per_step, state = tree.unflatten(whole)
            return self.scan(weights, terms, consts, per_step, state, perturbations, recorded)

        zeros = {s: jnp.zeros(shape, plan.avals[s].dtype) for s, shape in shapes.items()}
        states, push, values = jax.linearize(of_moving, zeros, [leaves[k] for k in free], has_aux=True)
        seen = dict(zip(recorded, values))
        start = moving[-1]
        for k, slot in enumerate(plan.state):
            seen[slot] = states_before(start[k], states[k])

        changes = {s: [] for s in shapes}
        for p, d_w in zip(plan.products, d_weights):
            if not is_zero(d_w):
                changes[p.delta].append(_over_time(p, seen[p.x], d_w))
        for term in plan.terms:
            if not is_zero(d_terms[term.slot]):
                changes[term.delta].append(d_terms[term.slot])
        pushes = {s: total(changes[s], shapes[s], plan.avals[s].dtype) for s in shapes}
        return states, push(pushes, [materialise(d_leaves[k]) for k in free])


def _groups(plan: Plan) -> dict[int, list[Product]]:
    """Ordinary products `x @ w` by their common `x`, under the first one's operation: they run as one product."""
    groups: dict[Any, list[Product]] = {}
    for product in plan.products:
        settings = product.operation.equation.params
        last = plan.avals[product.x].ndim - 1
        if (
            not product.w_first
            and plan.avals[product.w].ndim == 2
            and settings["dimension_numbers"] == (((last,), (0,)), ((), ()))
            and settings.get("out_sharding") is None
        ):
            key = product.x, str(settings["precision"]), str(settings["preferred_element_type"])
            groups.setdefault(key, []).append(product)
    return {id(group[0].operation): group for group in groups.values()}


def _merge(group: Sequence[Product], special: dict[tuple[int, int], Any]) -> tuple[Array, Array, tuple[int, ...], Any]:
    """`w` side by side, its transpose, the widths and the precision: made once, outside of the loop."""
    parts = [special[id(p.operation), p.w] for p in group]
    w = jnp.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    return w, w.T, tuple(part.shape[1] for part in parts), group[0].operation.equation.params["precision"]


def _product(x: Array, w: Array, w_t: Array, widths: tuple[int, ...], precision: Any) -> list[Array]:
    out = _times(x, w, w_t, precision)
    return list(lax.split(out, widths, axis=out.ndim - 1)) if len(widths) > 1 else [out]


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _times(x: Array, w: Array, w_t: Array, precision: Any) -> Array:
    return jnp.matmul(x, w, precision=precision)


@partial(_times.defjvp, symbolic_zeros=True)
def _times_jvp(precision, primals, tangents):
    # The tangent is written with `w_t`, so that its transpose, the product of the backward loop, is `delta @ w_t`.
    (x, w, w_t), (d_x, d_w, _) = primals, tangents
    contract = (((x.ndim - 1,), (1,)), ((), ()))
    parts = [] if is_zero(d_x) else [lax.dot_general(d_x, w_t, contract, precision=precision)]
    parts += [] if is_zero(d_w) else [jnp.matmul(x, d_w, precision=precision)]
    out = jnp.matmul(x, w, precision=precision)
    return out, total(parts, out.shape, out.dtype)


@jax.custom_jvp
def _perturbed(value: Array, push: Array) -> Array:
    """`value + push` at `push = 0`, which therefore is never read."""
    return value


@partial(_perturbed.defjvp, symbolic_zeros=True)
def _perturbed_jvp(primals, tangents):
    return primals[0], total(list(tangents), primals[0].shape, primals[0].dtype)


def _over_time(product: Product, x: Array, d_w: Array) -> Array:
    """`x_t · dw` for all steps at once, in the order in which the step multiplies."""
    settings = product.operation.equation.params

    def once(x):
        left, right = (d_w, x) if product.w_first else (x, d_w)
        return lax.dot_general_p.bind(left, right, **settings)

    return jax.vmap(once)(x)
