"""The two compiled programs of a sweep: the first states, and a number of updates of some groups of runs."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P


def compile_init(init, lanes, mesh):
    """The first states, in groups of the same width as the steps: rounding must not depend on the company here too."""

    def on_one_device(grid):
        groups = jax.tree.map(lambda x: x.reshape(-1, lanes, *x.shape[1:]), grid)
        states = jax.lax.map(jax.vmap(init), groups)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)

    spec = P("runs")
    return jax.jit(jax.shard_map(on_one_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def compile_chunk(update, evaluate, num_steps, lanes, mesh):
    """`chunk(state, grid, groups) -> (state, metrics[runs, steps], evaluation)` for the first `groups` per device."""

    def on_one_device(state, grid, groups, *data):
        def one_run(state, run):
            state, metrics = jax.lax.scan(lambda s, _: update(s, run, *data), state, length=num_steps)
            return state, metrics, (dict(evaluate(state, run, *data)) if evaluate else {})

        group = jax.vmap(one_run)

        def take(tree, i):
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * lanes, lanes), tree)

        shapes = jax.eval_shape(group, take(state, 0), take(grid, 0))
        size = jax.tree.leaves(grid)[0].shape[0]
        empty = jax.tree.map(lambda s: jnp.zeros((size, *s.shape[1:]), s.dtype), shapes[1:])

        def body(i, buffers):
            new = group(take(buffers[0], i), take(grid, i))
            return jax.tree.map(
                lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, i * lanes, 0), buffers, new
            )

        return jax.lax.fori_loop(0, groups, body, (state, *empty))

    spec = P("runs")

    def chunk(state, grid, groups, *data):
        specs = (spec, spec, P(), *(P() for _ in data))
        return jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=spec, check_vma=False)(
            state, grid, groups, *data
        )

    return jax.jit(chunk, donate_argnums=0)
