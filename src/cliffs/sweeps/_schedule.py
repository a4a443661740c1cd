"""Hundreds of training runs as one compiled program: grids, lanes, devices.

A sweep is a pytree of arrays with a leading run axis (seeds, thresholds, learning rates, ...). Runs are processed
in groups of a fixed number of lanes: small on a CPU, where the parameters of a group then stay in the cache, whole
on an accelerator. One group is one `vmap`; the groups of a device are a loop with a traced bound, so runs that are
finished leave the program without a second compile; devices share the run axis. The lane width is all that a
trajectory's rounding depends on: results are the same to the bit for any number of devices from two on and in any
company. (For one device XLA compiles an unpartitioned program, whose last bits can differ.)
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import PyTree

from cliffs.sweeps._devices import positions
from cliffs.sweeps._grid import check_grid, rows
from cliffs.sweeps._history import assemble
from cliffs.sweeps._keys import without_typed_keys
from cliffs.sweeps._programs import compile_chunk, compile_init
from cliffs.sweeps._progress import progress_bar
from cliffs.sweeps._result import SweepResult
from cliffs.typing import Evaluate, Init, Update

# Measured: for 50 units 1 lane is as fast as 2, 4 or 8, and 2.4 times faster than 4 at batch size 1000.
CPU_LANES = 1


def sweep(
    init: Init,
    update: Update,
    grid: PyTree,
    num_steps: int,
    *,
    evaluate: Evaluate | None = None,
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

    >>> import jax.numpy as jnp, optax
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
    runs = check_grid(grid, num_steps, evaluate_every, lanes)
    grid, init, update, evaluate, typed = without_typed_keys(grid, init, update, evaluate)
    devices = list(devices or jax.local_devices())
    if lanes is None:
        lanes = CPU_LANES if devices[0].platform == "cpu" else -(-runs // len(devices))
    mesh = jax.sharding.Mesh(np.asarray(devices), ("runs",))
    sharding = NamedSharding(mesh, P("runs"))
    padded = -(-runs // (lanes * len(devices))) * lanes * len(devices)

    def placed(active: np.ndarray) -> np.ndarray:
        """Which run lies where on the run axis. Padding repeats the last: every group is full of real runs."""
        source = np.empty(padded, int)
        source[positions(padded, padded, lanes, len(devices))] = np.pad(active, (0, padded - len(active)), "edge")
        return source

    grid = jax.tree.map(np.asarray, grid)

    shared = () if data is None else (jax.device_put(data, NamedSharding(mesh, P())),)
    chunk = compile_chunk(update, evaluate, evaluate_every, lanes, mesh)
    place = functools.partial(jax.tree.map, lambda x: jax.device_put(x, sharding))
    on_device = place(rows(grid, placed(np.arange(runs))))
    state = compile_init(init, lanes, mesh)(on_device)

    active = np.arange(runs)
    solved_at = np.full(runs, -1)
    steps_run = np.zeros(runs, int)
    final: Any = None
    logs: list[tuple[np.ndarray, Any]] = []
    diverged = 0
    bar = progress_bar(num_steps, progress)
    for done in range(evaluate_every, num_steps + 1, evaluate_every):
        groups = -(-len(active) // (lanes * len(devices)))
        state, metrics, evaluation = chunk(state, on_device, np.int32(groups), *shared)
        spots = positions(len(active), padded, lanes, len(devices))
        log = rows((metrics, evaluation), spots)
        logs.append((active, log))
        steps_run[active] = done
        solved = np.asarray(log[1].get("solved", np.zeros(len(active), bool)))
        solved_at[active[solved & (solved_at[active] < 0)]] = done
        gone = rows(state.diverged_at, spots) >= 0
        diverged += gone.sum()
        bar.update(evaluate_every)
        bar.set_postfix_str(f"{(solved_at >= 0).sum()} solved, {diverged} diverged of {runs}")
        finished = gone | (solved & stop_when_solved)
        if not finished.any() and done < num_steps:
            continue
        host = rows(state, spots)
        if final is None:
            final = jax.tree.map(lambda x: np.zeros((runs, *x.shape[1:]), x.dtype), host)
        for whole, part in zip(jax.tree.leaves(final), jax.tree.leaves(host)):
            whole[active] = part
        active = active[~finished]
        if len(active) == 0:
            break
        # Finished runs leave and the others close ranks at the front of the run axis.
        source = placed(active)
        state, on_device = place((rows(final, source), rows(grid, source)))
    bar.close()
    metrics, evaluations = assemble(logs, runs, num_steps // evaluate_every)
    metrics = jax.tree.map(lambda x: x.reshape(runs, -1, *x.shape[3:]), metrics)
    grid, final = typed(grid, final)
    return SweepResult(grid, final, metrics, evaluations, solved_at, np.asarray(final.diverged_at), steps_run)
