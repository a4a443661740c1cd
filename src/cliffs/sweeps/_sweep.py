"""Hundreds of training runs as one compiled program: grids, lanes, devices.

A sweep is a pytree of arrays with a leading run axis (seeds, thresholds, learning rates, ...). Runs are processed
in groups of a fixed number of lanes: small on a CPU, where the parameters of a group then stay in the cache, whole
on an accelerator. One group is one `vmap`; the groups of a device are a loop with a traced bound, so runs that are
finished leave the program without a second compile; devices share the run axis. The lane width is all that a
trajectory's rounding depends on: results are the same to the bit for any number of devices from two on and in any
company. (For one device XLA compiles an unpartitioned program, whose last bits can differ.)
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from cliffs.training import StepMetrics, TrainState

# Measured: for 50 units 1 lane is as fast as 2, 4 or 8, and 2.4 times faster than 4 at batch size 1000.
CPU_LANES = 1


class SweepResult(NamedTuple):
    """What a sweep leaves behind; numpy arrays, run axis first, in the order of the grid."""

    grid: PyTree
    state: TrainState
    metrics: StepMetrics
    """Leaves `[runs, steps, ...]`; NaN (or 0 for integers) after the step at which a run was finished."""
    evaluations: Mapping[str, np.ndarray]
    """Leaves `[runs, evaluations, ...]`, one evaluation after every `evaluate_every` steps."""
    solved_at: np.ndarray
    """`[runs]`: number of updates at the first evaluation that called the run solved; -1 if none did."""
    diverged_at: np.ndarray
    """`[runs]`: the step whose loss or parameters were not finite; -1 if none was."""
    steps_run: np.ndarray
    """`[runs]`: how many updates were computed."""


def use_all_cores(count: int | None = None) -> int:
    """Make every CPU core a device of its own; call it before JAX starts (before the first array).

    One vmapped program of small matrices keeps one core busy; a sweep over n host devices keeps n.

    **Arguments**: `count`, the number of host devices; the cores that this process may use by default.

    **Returns** the number of devices asked for.

    **Raises** `RuntimeError` when JAX has already started with another number of host devices, `ValueError` for a
    count below 1.

    >>> use_all_cores(0)
    Traceback (most recent call last):
    ValueError: count must be at least 1, got 0
    """
    import os

    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = available if count is None else count
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if jax.default_backend() == "cpu" and jax.local_device_count() == count:
            return count
        raise RuntimeError(
            f"use_all_cores({count}) came too late: JAX has already started with {jax.local_device_count()} "
            f"{jax.default_backend()} device(s). Call it before the first JAX array or jit."
        ) from error
    return count


def product_grid(**axes: Sequence[Any] | np.ndarray | Array) -> dict[str, np.ndarray]:
    """All combinations of the given values as a grid, the last axis varying fastest.

    **Arguments**: one sequence per name. Use `inf` for "no threshold".

    **Returns** a dict of arrays `[runs]`.

    **Raises** `ValueError` for an empty sequence.

    >>> grid = product_grid(seed=[0, 1], max_norm=[1.0, float("inf")])
    >>> grid["seed"].tolist(), grid["max_norm"].tolist()
    ([0, 0, 1, 1], [1.0, inf, 1.0, inf])
    """
    for name, values in axes.items():
        if len(values) == 0:
            raise ValueError(f"{name} must have at least one value, got an empty sequence")
    columns = zip(*itertools.product(*axes.values()))
    return {name: np.asarray(column) for name, column in zip(axes, columns)}


def sweep(
    init: Callable[[Any], Any],
    update: Callable[..., tuple[Any, Any]],
    grid: PyTree,
    num_steps: int,
    *,
    evaluate: Callable[..., Mapping[str, Any]] | None = None,
    evaluate_every: int = 100,
    stop_when_solved: bool = False,
    lanes: int | None = None,
    devices: Sequence[Any] | None = None,
    data: PyTree = None,
    progress: bool = True,
) -> SweepResult:
    """Train every run of a grid, as one compiled program over all local devices.

    **Arguments**

    - `init`: `init(run) -> TrainState`, where `run` is one entry of the grid (leaves without the run axis). Any
      NamedTuple with a field or property `diverged_at` will do for the state.
    - `update`: `update(state, run) -> (TrainState, StepMetrics)`: one step of one run. Randomness must come from
      the run and `state.step` alone: `fold_in(key(run["seed"]), state.step)`.
    - `grid`: pytree of arrays with a common leading run axis.
    - `num_steps`: updates per run, a multiple of `evaluate_every`.
    - `evaluate`: `evaluate(state, run) -> dict`; its entry `"solved"`, if there, is a bool.
    - `evaluate_every`: updates between evaluations, progress lines and chances to stop.
    - `stop_when_solved`: whether a solved run leaves the sweep; a diverged run always does.
    - `lanes`: runs per `vmap`: 1 on a CPU and all on an accelerator by default.
    - `devices`: the devices to spread over; all local ones by default.
    - `data`: arrays that all runs share, given to `update` and `evaluate` as a third argument unless None.
    - `progress`: whether to show a tqdm line (when tqdm is installed).

    **Returns** a `SweepResult`. Runs that diverged are frozen and named in `diverged_at`; the others do not notice.

    **Raises** `ValueError` for an empty grid, leaves of different length, or a bad `num_steps`, `evaluate_every`
    or `lanes`.

    >>> import optax
    >>> from cliffs.training import init_train_state, train_step
    >>> loss = lambda params, batch: (jnp.sum(params**4), ())
    >>> def init(run):
    ...     return init_train_state(jnp.full(2, 3.0), optax.sgd(run["lr"]))
    >>> def update(state, run):
    ...     return train_step(state, None, loss, optax.sgd(run["lr"]))
    >>> result = sweep(init, update, {"lr": jnp.array([0.001, 10.0])}, 20, evaluate_every=10, progress=False)
    >>> result.diverged_at.tolist()
    [-1, 2]
    """
    runs = _check(grid, num_steps, evaluate_every, lanes)
    grid, init, update, evaluate, typed = _without_typed_keys(grid, init, update, evaluate)
    devices = list(devices or jax.local_devices())
    if lanes is None:
        lanes = CPU_LANES if devices[0].platform == "cpu" else -(-runs // len(devices))
    mesh = jax.sharding.Mesh(np.asarray(devices), ("runs",))
    sharding = NamedSharding(mesh, P("runs"))
    padded = -(-runs // (lanes * len(devices))) * lanes * len(devices)

    def placed(active: np.ndarray) -> np.ndarray:
        """Which run lies where on the run axis. Padding repeats the last: every group is full of real runs."""
        source = np.empty(padded, int)
        source[_positions(padded, padded, lanes, len(devices))] = np.pad(active, (0, padded - len(active)), "edge")
        return source

    grid = jax.tree.map(np.asarray, grid)

    shared = () if data is None else (jax.device_put(data, NamedSharding(mesh, P())),)
    chunk = _compile_chunk(update, evaluate, evaluate_every, lanes, mesh)
    place = functools.partial(jax.tree.map, lambda x: jax.device_put(x, sharding))
    on_device = place(_rows(grid, placed(np.arange(runs))))
    state = _compile_init(init, lanes, mesh)(on_device)

    active = np.arange(runs)
    solved_at = np.full(runs, -1)
    steps_run = np.zeros(runs, int)
    final: Any = None
    logs: list[tuple[np.ndarray, Any]] = []
    diverged = 0
    bar = _progress_bar(num_steps, progress)
    for done in range(evaluate_every, num_steps + 1, evaluate_every):
        groups = -(-len(active) // (lanes * len(devices)))
        state, metrics, evaluation = chunk(state, on_device, np.int32(groups), *shared)
        spots = _positions(len(active), padded, lanes, len(devices))
        log = _rows((metrics, evaluation), spots)
        logs.append((active, log))
        steps_run[active] = done
        solved = np.asarray(log[1].get("solved", np.zeros(len(active), bool)))
        solved_at[active[solved & (solved_at[active] < 0)]] = done
        gone = _rows(state.diverged_at, spots) >= 0
        diverged += gone.sum()
        bar.update(evaluate_every)
        bar.set_postfix_str(f"{(solved_at >= 0).sum()} solved, {diverged} diverged of {runs}")
        finished = gone | (solved & stop_when_solved)
        if not finished.any() and done < num_steps:
            continue
        host = _rows(state, spots)
        if final is None:
            final = jax.tree.map(lambda x: np.zeros((runs, *x.shape[1:]), x.dtype), host)
        for whole, part in zip(jax.tree.leaves(final), jax.tree.leaves(host)):
            whole[active] = part
        active = active[~finished]
        if len(active) == 0:
            break
        # Finished runs leave and the others close ranks at the front of the run axis.
        source = placed(active)
        state, on_device = place((_rows(final, source), _rows(grid, source)))
    bar.close()
    metrics, evaluations = _assemble(logs, runs, num_steps // evaluate_every)
    metrics = jax.tree.map(lambda x: x.reshape(runs, -1, *x.shape[3:]), metrics)
    grid, final = typed(grid, final)
    return SweepResult(grid, final, metrics, evaluations, solved_at, np.asarray(final.diverged_at), steps_run)


def _key_kinds(tree: PyTree) -> Any:
    """For every leaf the kind of typed random key that it holds, or an empty string."""
    typed = lambda x: jax.dtypes.issubdtype(getattr(x, "dtype", np.dtype(float)), jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: str(jax.random.key_impl(x)) if typed(x) else "", tree)


def _bare(tree: PyTree, kinds: PyTree) -> Any:
    """Typed keys as their words, which numpy can hold."""
    return jax.tree.map(lambda x, kind: jax.random.key_data(x) if kind else x, tree, kinds)


def _typed(tree: PyTree, kinds: PyTree) -> Any:
    """The reverse of `_bare`."""
    return jax.tree.map(lambda x, kind: jax.random.wrap_key_data(x, impl=kind) if kind else x, tree, kinds)


def _without_typed_keys(grid, init, update, evaluate):
    """The same sweep with the words of typed keys in grid and state, and what turns both back in the end."""
    in_grid = _key_kinds(grid)
    in_state: Any = None

    def bare_init(run):
        nonlocal in_state
        state = init(_typed(run, in_grid))
        in_state = _key_kinds(state)
        return _bare(state, in_state)

    grid = _bare(grid, in_grid)
    jax.eval_shape(lambda g: bare_init(jax.tree.map(lambda x: jnp.asarray(x)[0], g)), grid)

    def bare_update(state, run, *data):
        state, metrics = update(_typed(state, in_state), _typed(run, in_grid), *data)
        return _bare(state, in_state), metrics

    def bare_evaluate(state, run, *data):
        return evaluate(_typed(state, in_state), _typed(run, in_grid), *data)

    def back(grid, state):
        return _typed(grid, in_grid), _typed(state, in_state)

    return grid, bare_init, bare_update, bare_evaluate if evaluate else None, back


def _rows(tree: PyTree, rows: np.ndarray) -> Any:
    """The given rows of every leaf, as numpy arrays."""
    return jax.tree.map(lambda x: np.asarray(x)[rows], tree)


def _check(grid: PyTree, num_steps: int, evaluate_every: int, lanes: int | None) -> int:
    leaves = jax.tree.leaves(grid)
    sizes = {np.shape(x)[0] if np.ndim(x) else None for x in leaves}
    if not leaves or None in sizes or len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"grid must hold arrays with one common, non-empty leading run axis, got sizes {sizes}")
    if evaluate_every < 1 or num_steps < 1 or num_steps % evaluate_every:
        raise ValueError(
            f"num_steps must be a positive multiple of evaluate_every, got {num_steps} and {evaluate_every}"
        )
    if lanes is not None and lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")
    return int(next(iter(sizes)) or 0)


def _positions(count: int, padded: int, lanes: int, devices: int) -> np.ndarray:
    """Where the first `count` runs lie on the run axis: groups are dealt to the devices in turn, like cards."""
    groups = np.arange(padded // lanes)
    per_device = len(groups) // devices
    start = (groups % devices) * per_device + groups // devices
    return (start[:, None] * lanes + np.arange(lanes)).reshape(-1)[:count]


def _compile_init(init, lanes, mesh):
    """The first states, in groups of the same width as the steps: rounding must not depend on the company here too."""

    def on_one_device(grid):
        groups = jax.tree.map(lambda x: x.reshape(-1, lanes, *x.shape[1:]), grid)
        states = jax.lax.map(jax.vmap(init), groups)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)

    spec = P("runs")
    return jax.jit(jax.shard_map(on_one_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def _compile_chunk(update, evaluate, num_steps, lanes, mesh):
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


def _assemble(logs, runs: int, chunks: int):
    """Chunks of the runs that were active become arrays `[runs, chunks, ...]`, NaN or 0 where a run was done."""

    def build(*pieces):
        fill = np.nan if np.issubdtype(pieces[0].dtype, np.floating) else 0
        whole = np.full((runs, chunks, *pieces[0].shape[1:]), fill, pieces[0].dtype)
        for i, (rows, piece) in enumerate(zip((rows for rows, _ in logs), pieces)):
            whole[rows, i] = piece
        return whole

    return jax.tree.map(build, *(log for _, log in logs))


class _Silent:
    def update(self, n): ...
    def set_postfix_str(self, text, refresh=True): ...
    def close(self): ...


def _progress_bar(total: int, wanted: bool) -> Any:
    if not wanted:
        return _Silent()
    try:
        from tqdm import tqdm
    except ImportError:
        return _Silent()
    return tqdm(total=total, unit="step", mininterval=0.5)
