"""A linear map that carries its own transpose, in forward and reverse mode, under `vmap`, to any order.

`jax.custom_vjp` refuses forward mode and `jax.custom_derivatives.linear_call` refuses `vmap`. The rules of this
room need both: their tangent recurrence is written by hand, and so is its transpose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree

Flat = Callable[..., Sequence[Array]]


def linear_map(
    function: Callable[[Any, Any], PyTree],
    transpose: Callable[[Any, Any], PyTree],
    residuals: PyTree,
    linear: PyTree,
) -> PyTree:
    """`function(residuals, linear)`, linear in its second argument, with `transpose(residuals, cotangent)`.

    `transpose` maps a cotangent of the result to a cotangent of `linear`: for all `x`, `y` it must hold that
    `<y, function(r, x)> = <transpose(r, y), x>`. Derivatives with respect to `residuals` are those of the two
    functions' own code.

    >>> scale, back = (lambda r, x: r * x), (lambda r, y: r * y)
    >>> jax.grad(lambda x: linear_map(scale, back, jnp.array(3.0), x))(jnp.array(2.0)).tolist()
    3.0
    """
    residual_leaves, residual_tree = jax.tree.flatten(residuals)
    linear_leaves, linear_tree = jax.tree.flatten(linear)
    out_tree = jax.tree.structure(jax.eval_shape(function, residuals, linear))
    count = len(residual_leaves)

    def flat_function(*args: Array) -> Sequence[Array]:
        held, moved = residual_tree.unflatten(args[:count]), linear_tree.unflatten(args[count:])
        return jax.tree.leaves(function(held, moved))

    def flat_transpose(*args: Array) -> Sequence[Array]:
        held, cotangent = residual_tree.unflatten(args[:count]), out_tree.unflatten(args[count:])
        return jax.tree.leaves(transpose(held, cotangent))

    out = linear_map_p.bind(
        *residual_leaves, *linear_leaves, function=flat_function, transpose=flat_transpose, num_residuals=count
    )
    return out_tree.unflatten(out)


linear_map_p = Primitive("linear_map")
linear_map_p.multiple_results = True


@linear_map_p.def_impl
def _apply(*args: Array, function: Flat, **_: Any) -> list[Array]:
    return list(function(*args))


@linear_map_p.def_abstract_eval
def _abstract(*avals: Any, function: Flat, **_: Any) -> Any:
    return jax.make_jaxpr(function)(*avals).out_avals


def _jvp(primals, tangents, *, function: Flat, transpose: Flat, num_residuals: int):
    settings = {"function": function, "transpose": transpose, "num_residuals": num_residuals}
    out = linear_map_p.bind(*primals, **settings)
    residuals, linear = primals[:num_residuals], primals[num_residuals:]
    moving = [k for k in range(num_residuals) if type(tangents[k]) is not ad.Zero]
    parts = []
    if any(type(t) is not ad.Zero for t in tangents[num_residuals:]):
        linear_tangents = [ad.instantiate_zeros(t) for t in tangents[num_residuals:]]
        parts.append(linear_map_p.bind(*residuals, *linear_tangents, **settings))
    if moving:

        def of_residuals(*values):
            held = list(residuals)
            for k, value in zip(moving, values):
                held[k] = value
            return list(function(*held, *linear))

        starts = tuple(residuals[k] for k in moving)
        parts.append(jax.jvp(of_residuals, starts, tuple(tangents[k] for k in moving))[1])
    return out, [sum(terms[1:], terms[0]) for terms in zip(*parts)]


def _transpose(cotangents, *args, function: Flat, transpose: Flat, num_residuals: int):
    residuals, linear = args[:num_residuals], args[num_residuals:]
    cotangents = [ad.instantiate_zeros(ct) for ct in cotangents]
    out = linear_map_p.bind(
        *residuals, *cotangents, function=transpose, transpose=function, num_residuals=num_residuals
    )
    return [None] * num_residuals + [ct if ad.is_undefined_primal(x) else None for ct, x in zip(out, linear)]


def _batch(args, dims, *, function: Flat, transpose: Flat, num_residuals: int):
    size = next(x.shape[d] for x, d in zip(args, dims) if d is not None)
    residual_dims = tuple(dims[:num_residuals])
    # Linear arguments and results always carry the mapped axis, so that one transpose serves all cases.
    linear = [
        jnp.broadcast_to(x, (size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(args[num_residuals:], dims[num_residuals:])
    ]

    def mapped(flat: Flat) -> Flat:
        def call(*values: Array) -> Sequence[Array]:
            axes = residual_dims + (0,) * (len(values) - num_residuals)
            return jax.vmap(lambda *v: list(flat(*v)), in_axes=axes, axis_size=size)(*values)

        return call

    out = linear_map_p.bind(
        *args[:num_residuals],
        *linear,
        function=mapped(function),
        transpose=mapped(transpose),
        num_residuals=num_residuals,
    )
    return out, [0] * len(out)


ad.primitive_jvps[linear_map_p] = _jvp
ad.primitive_transposes[linear_map_p] = _transpose
batching.primitive_batchers[linear_map_p] = _batch
mlir.register_lowering(linear_map_p, mlir.lower_fun(_apply, multiple_results=True))
