"""The two compiled programs of a sweep, and how they are found again: the first states, and a block of updates."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from cliffs.sweeps._contracts import Shapes, Traced, check_functions
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._digests import program_digest
from cliffs.sweeps._keys import bare, key_kinds, typed
from cliffs.sweeps._recording import Record, Recording, make_recording, reduced_shapes
from cliffs.typing import Evaluate, Init, Update

# Compiled programs by what they compute; the one that was not used for the longest goes first.
_kept: dict[Any, Any] = {}
MOST_KEPT = 32
# What JAX's numbers depend on beside the functions.
_FLAGS = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_numpy_dtype_promotion",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_jit",
)


@dataclasses.dataclass(frozen=True)
class Functions:
    """The functions of a sweep with all shapes; compiled programs are made on demand and found again."""

    init: Init
    update: Update
    evaluate: Evaluate | None
    run: PyTree
    """One entry of the grid, as shapes; so is `data`, a tuple of one or no tree."""
    data: tuple[PyTree, ...]
    steps: int
    """Updates of one block."""
    recording: Recording
    shapes: Shapes
    traced: Traced = dataclasses.field(repr=False)
    run_kinds: PyTree
    state_kinds: PyTree

    @functools.cached_property
    def recorded(self) -> Any:
        """Shapes of one record of one run."""
        return reduced_shapes(self.recording, self.shapes.metrics)

    @functools.cached_property
    def bare_state(self) -> Any:
        """Shapes of one state, its keys as words."""
        return jax.eval_shape(lambda s: bare(s, self.state_kinds), self.shapes.state)

    def start(self, layout: Layout) -> Callable[..., Any]:
        """`start(grid) -> state`, compiled for this layout."""
        return self._compiled("start", layout, lambda: _compile_start(self, layout))

    def advance(self, layout: Layout) -> Any:
        """`advance(state, grid, groups, *data) -> (state, records, evaluation, diverged_at)`, compiled."""
        return self._compiled("advance", layout, lambda: _compile_advance(self, layout))

    @functools.cached_property
    def key(self) -> Any:
        """What the functions compute, and the trees that they take and return."""
        programs = tuple(None if program is None else program_digest(program) for program in self.traced)
        return programs, tuple(map(_static, (self.run, self.data, *self.shapes)))

    def _compiled(self, name: str, layout: Layout, build: Callable[[], Any]) -> Any:
        key = (name, self.key, self.steps, self.recording, layout.key, _flags())
        program = _kept.pop(key, None) or build()
        _kept[key] = program
        while len(_kept) > MOST_KEPT:
            del _kept[next(iter(_kept))]
        return program


def prepare(
    init: Init,
    update: Update,
    evaluate: Evaluate | None,
    grid: PyTree,
    data: PyTree,
    steps: int,
    record: Record | None,
    record_every: int,
) -> Functions:
    """Trace the functions, and check them against the grid and the shared data.

    They are traced at every call: what they read (globals, closures, attributes, files) may have changed.

    **Raises** `ValueError` for what does not fit together.
    """
    run = jax.tree.map(lambda x: _shape(x, x.shape[1:]), grid)
    shared = () if data is None else (jax.tree.map(lambda x: _shape(x, np.shape(x)), data),)
    shapes, traced = check_functions(init, update, evaluate, run, shared)
    kinds: list[Any] = []
    jax.eval_shape(lambda *trees: kinds.extend(map(key_kinds, trees)), run, shapes.state)
    run_kinds, state_kinds = kinds
    return Functions(
        init=init,
        update=update,
        evaluate=evaluate,
        run=run,
        data=shared,
        steps=steps,
        recording=make_recording(record, record_every, shapes.metrics),
        shapes=shapes,
        traced=traced,
        run_kinds=run_kinds,
        state_kinds=state_kinds,
    )


def _shape(x: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    dtype = x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True))


def _static(tree: PyTree) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)


def _flags() -> tuple[Any, ...]:
    return tuple(getattr(jax.config, name, None) for name in _FLAGS)


def _with_runs(shapes: PyTree, layout: Layout) -> Any:
    def many(x):
        return jax.ShapeDtypeStruct((layout.padded, *x.shape), x.dtype, sharding=layout.sharding)

    return jax.tree.map(many, shapes)


def _group(function: Callable[..., Any], lanes: int, shared: int) -> Callable[..., Any]:
    """`function` of one run over a group of `lanes`; the last `shared` arguments have no run axis.

    A single lane is no `vmap`, which would compute both branches of every `cond`.
    """
    if lanes > 1:
        return lambda *args: jax.vmap(function, in_axes=(*[0] * (len(args) - shared), *[None] * shared))(*args)

    def alone(*args):
        cut = len(args) - shared
        runs = jax.tree.map(lambda x: x[0], args[:cut])
        return jax.tree.map(lambda x: jnp.asarray(x)[None], function(*runs, *args[cut:]))

    return alone


def _compile_start(functions: Functions, layout: Layout) -> Any:
    """The first states, in groups as wide as those of the updates: rounding must not depend on the company here too."""

    def one_run(run):
        return bare(functions.init(typed(run, functions.run_kinds)), functions.state_kinds)

    def on_one_device(grid):
        groups = jax.tree.map(lambda x: x.reshape(-1, layout.lanes, *x.shape[1:]), grid)
        states = jax.lax.map(_group(one_run, layout.lanes, 0), groups)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)

    spec = P("runs")
    program = jax.shard_map(on_one_device, mesh=layout.mesh, in_specs=spec, out_specs=spec, check_vma=False)
    grid = jax.eval_shape(lambda run: bare(run, functions.run_kinds), functions.run)
    return jax.jit(program).lower(_with_runs(grid, layout)).compile()


def _compile_advance(functions: Functions, layout: Layout) -> Any:
    """`functions.steps` updates and an evaluation of the first `groups` groups of every device."""
    recording, lanes = functions.recording, layout.lanes

    def one_run(bare_state, bare_run, *data):
        state, run = typed(bare_state, functions.state_kinds), typed(bare_run, functions.run_kinds)

        def one_update(state, _):
            return functions.update(state, run, *data)

        def one_record(state, _):
            state, metrics = jax.lax.scan(one_update, state, length=recording.every)
            return state, recording.reduce(metrics)

        if recording.every == 1:
            state, records = jax.lax.scan(one_update, state, length=functions.steps)
            if recording.names is not None:
                records = jax.vmap(lambda m: recording.reduce(jax.tree.map(lambda x: x[None], m)))(records)
        else:
            state, records = jax.lax.scan(one_record, state, length=functions.steps // recording.every)
        evaluation = dict(functions.evaluate(state, run, *data)) if functions.evaluate else {}
        diverged_at: Any = jnp.asarray(getattr(state, "diverged_at", -1))
        return bare(state, functions.state_kinds), records, evaluation, diverged_at

    group = _group(one_run, lanes, len(functions.data))

    def on_one_device(state, grid, groups, *data):
        def take(tree, i):
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * lanes, lanes), tree)

        shapes = jax.eval_shape(group, take(state, 0), take(grid, 0), *data)
        size = layout.padded // layout.mesh.size
        empty = jax.tree.map(lambda s: jnp.zeros((size, *s.shape[1:]), s.dtype), shapes[1:])

        def body(i, buffers):
            new = group(take(buffers[0], i), take(grid, i), *data)
            return jax.tree.map(
                lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, i * lanes, 0), buffers, new
            )

        return jax.lax.fori_loop(0, groups, body, (state, *empty))

    spec = P("runs")
    specs = (spec, spec, P(), *(P() for _ in functions.data))
    program = jax.shard_map(on_one_device, mesh=layout.mesh, in_specs=specs, out_specs=spec, check_vma=False)
    grid = jax.eval_shape(lambda run: bare(run, functions.run_kinds), functions.run)
    shared = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout.replicated), functions.data)
    groups = jax.ShapeDtypeStruct((), np.int32, sharding=layout.replicated)
    state, grid = _with_runs(functions.bare_state, layout), _with_runs(grid, layout)
    return jax.jit(program, donate_argnums=0).lower(state, grid, groups, *shared).compile()
