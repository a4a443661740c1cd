"""What a step computes, sorted by what it depends on.

A step is traced once. Each of its operations depends on the parameters alone, on the parameters and the inputs, or
(by way of the state) on time. The first kind is computed once for all steps, cheap operations of the second kind for
all steps at once, and only the third stays in the loop. There, a product of something that changes with a matrix of
parameters is what the rule of `_deferred` looks for.

Values are named by integers, *slots*; a jaxpr's variables, with its nested `jit` calls opened, become slots.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

PARAMS, INPUTS, LOOP = 0, 1, 2

# Operations on inputs that may run for all steps at once: their value for one step does not depend on the others,
# and they are no larger than what the loop would have made of them.
HOISTED = {"dot_general", "gather", "add", "add_any", "sub", "mul", "neg", "select_n", "lt", "iota"} | {
    *("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "concatenate", "slice", "split", "transpose")
}


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation: a primitive with its static settings, the slots it reads and those it writes."""

    enclosing: Jaxpr
    equation: Any
    reads: tuple[int, ...]
    writes: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.equation.primitive.name

    @cached_property
    def places(self) -> dict[Any, int]:
        """Each variable of the equation with the first place where it is read; literals are part of the equation."""
        found: dict[Any, int] = {}
        for k, atom in enumerate(self.equation.invars):
            if not isinstance(atom, Literal):
                found.setdefault(atom, k)
        return found

    @cached_property
    def function(self) -> Callable[..., Sequence[Any]]:
        """The operation as a function of the variables in `places`."""
        jaxpr = self.enclosing.replace(
            constvars=(), invars=list(self.places), outvars=list(self.equation.outvars), eqns=[self.equation]
        )
        return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))


@dataclasses.dataclass(frozen=True)
class Product:
    """`x · w`, a `dot_general` in the loop: `x` changes with time, `w` depends on the parameters alone."""

    operation: Operation
    x: int
    w: int
    w_first: bool
    delta: int
    """The slot whose cotangent is this product's own: the end of the chain of additions that starts at it."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A value that does not change with the state (a bias, the inputs' part), added on the way to a delta slot."""

    operation: Operation
    slot: int
    delta: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """A step, sorted."""

    avals: dict[int, Any]
    literals: dict[int, Any]
    consts: tuple[tuple[int, Any], ...]
    """Arrays that the step closes over, with their slots."""
    params: tuple[int, ...]
    state: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: dict[int, int]
    operations: tuple[Operation, ...]
    products: tuple[Product, ...]
    terms: tuple[Term, ...]

    def part(self, kind: int) -> list[Operation]:
        """The operations of one kind, in order."""
        return [op for op in self.operations if self.kind[op.writes[0]] == kind]

    def opaque(self) -> list[Operation]:
        """Operations of the loop that hold a program of their own (a scan, a cond) and read parameters."""
        holds = ("jaxpr", "call_jaxpr", "fun_jaxpr", "branches", "body_jaxpr")
        return [
            op
            for op in self.part(LOOP)
            if any(name in op.equation.params for name in holds)
            and any(self.kind[s] == PARAMS and s not in self.literals for s in op.reads)
        ]

    def entering(self, kind: int) -> list[int]:
        """Slots of `kind` that the loop reads; weights of products and terms of deltas are not among them."""
        special = {(id(p.operation), p.w) for p in self.products} | {(id(t.operation), t.slot) for t in self.terms}
        reads = [s for op in self.part(LOOP) for s in op.reads if (id(op), s) not in special]
        found = dict.fromkeys([*reads, *self.outputs])
        return [s for s in found if s not in self.literals and self.kind[s] == kind]


def make_plan(closed: ClosedJaxpr, num_params: int, num_state: int) -> Plan | None:
    """Sort a traced step with arguments (params, state, inputs), flat; None where it has side effects."""
    if closed.effects:
        return None
    slots = _Slots()
    arguments = [slots.new(v.aval) for v in closed.jaxpr.invars]
    constants = [slots.new(v.aval) for v in closed.jaxpr.constvars]
    outputs = slots.open(closed.jaxpr, constants, arguments)
    params, state = arguments[:num_params], arguments[num_params : num_params + num_state]
    inputs = arguments[num_params + num_state :]
    operations = _needed(slots.operations, outputs)
    kind = _kinds(operations, (*params, *constants, *slots.literals), inputs, state, slots.avals)
    products, terms = _find_products(operations, kind, outputs, slots.avals)
    return Plan(
        avals=slots.avals,
        literals=slots.literals,
        consts=tuple(zip(constants, closed.consts)),
        params=tuple(params),
        state=tuple(state),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        kind=kind,
        operations=tuple(operations),
        products=tuple(products),
        terms=terms,
    )


class _Slots:
    """Numbers the values of a jaxpr and of the `jit` calls inside it."""

    def __init__(self) -> None:
        self.avals: dict[int, Any] = {}
        self.literals: dict[int, Any] = {}
        self.operations: list[Operation] = []

    def new(self, aval: Any) -> int:
        self.avals[len(self.avals)] = aval
        return len(self.avals) - 1

    def open(self, jaxpr: Any, constants: Sequence[int], arguments: Sequence[int]) -> list[int]:
        names = dict(zip(jaxpr.constvars, constants)) | dict(zip(jaxpr.invars, arguments))

        def read(atom: Any) -> int:
            if not isinstance(atom, Literal):
                return names[atom]
            slot = self.new(atom.aval)
            self.literals[slot] = atom.val
            return slot

        for equation in jaxpr.eqns:
            reads = [read(atom) for atom in equation.invars]
            inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
            if inner is not None:
                held = []
                for value in inner.consts:
                    held.append(self.new(jax.typeof(value)))
                    self.literals[held[-1]] = value
                writes = self.open(inner.jaxpr, held, reads)
            else:
                writes = [self.new(v.aval) for v in equation.outvars]
                self.operations.append(Operation(jaxpr, equation, tuple(reads), tuple(writes)))
            names.update(zip(equation.outvars, writes))
        return [read(atom) for atom in jaxpr.outvars]


def _needed(operations: Sequence[Operation], outputs: Sequence[int]) -> list[Operation]:
    wanted, kept = set(outputs), []
    for operation in reversed(operations):
        if wanted.intersection(operation.writes):
            wanted.update(operation.reads)
            kept.append(operation)
    return kept[::-1]


def _kinds(operations, fixed, inputs, state, avals) -> dict[int, int]:
    allowed = 4 * sum(avals[s].size for s in (*inputs, *state))  # a hoisted value is stored for every step
    kind = dict.fromkeys(fixed, PARAMS) | dict.fromkeys(inputs, INPUTS) | dict.fromkeys(state, LOOP)
    for operation in operations:
        found = max((kind[s] for s in operation.reads), default=PARAMS)
        small = all(avals[s].size <= allowed for s in operation.writes)
        if found == INPUTS and not (small and operation.name in HOISTED):
            found = LOOP
        kind.update(dict.fromkeys(operation.writes, found))
    return kind


def _find_products(operations, kind, outputs, avals) -> tuple[list[Product], tuple[Term, ...]]:
    readers: dict[int, list[Operation]] = {}
    for operation in operations:
        for slot in operation.reads:
            readers.setdefault(slot, []).append(operation)
    products, terms = [], {}
    for operation in operations:
        if operation.name != "dot_general" or kind[operation.writes[0]] != LOOP:
            continue
        left, right = operation.reads
        if sorted((kind[left], kind[right])) != [PARAMS, LOOP] or not _same_float(operation, avals):
            continue
        w_first = kind[left] == PARAMS
        delta, added = _chain(operation.writes[0], readers, kind, outputs, avals)
        products.append(Product(operation, right if w_first else left, left if w_first else right, w_first, delta))
        # Two products may meet in one chain: each addition on it counts once.
        terms.update({(id(op), slot): Term(op, slot, delta) for op, slot in added})
    return products, tuple(terms.values())


def _same_float(operation: Operation, avals) -> bool:
    dtypes = {jnp.dtype(avals[s].dtype) for s in (*operation.reads, *operation.writes)}
    return len(dtypes) == 1 and jnp.issubdtype(dtypes.pop(), jnp.floating)


def _chain(slot, readers, kind, outputs, avals) -> tuple[int, list[tuple[Operation, int]]]:
    """Follow `slot` through additions while nothing else reads it; what is added there and is not of the loop."""
    added = []
    while slot not in outputs and len(readers.get(slot, ())) == 1:
        operation = readers[slot][0]
        if operation.name not in ("add", "add_any") or operation.reads[0] == operation.reads[1]:
            break
        other = next(s for s in operation.reads if s != slot)
        after = operation.writes[0]
        if any(avals[s].shape != avals[after].shape or avals[s].dtype != avals[after].dtype for s in (slot, other)):
            break
        if kind[other] != LOOP:
            added.append((operation, other))
        slot = after
    return slot, added


def delta_rows(avals: dict[int, Any], product: Product) -> int:
    """Over how many rows one step's weight gradient sums (the batch)."""
    ((x_contract, w_contract), _) = product.operation.equation.params["dimension_numbers"]
    contract = w_contract if product.w_first else x_contract
    shape = avals[product.x].shape
    return math.prod(shape) // max(1, math.prod(shape[k] for k in contract))
