"""Hundreds of training runs as one compiled program: grids, lanes, devices.

A sweep is a pytree of arrays with a leading run axis (seeds, thresholds, learning rates, ...). Runs are processed
in groups of a fixed number of lanes: small on a CPU, where the parameters of a group then stay in the cache, whole
on an accelerator. One group is one `vmap`; the groups of a device are a loop with a traced bound, so runs that are
finished leave the program without a second compile; devices share the run axis. The lane width is all that a
trajectory's rounding depends on: results are the same to the bit for any number of devices from two on and in any
company. (For one device XLA compiles an unpartitioned program, whose last bits can differ.)
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._book import Book, new_book
from cliffs.sweeps._contracts import check_count
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._errors import readable_errors
from cliffs.sweeps._grid import check_grid, rows
from cliffs.sweeps._history import masked
from cliffs.sweeps._keys import bare, typed
from cliffs.sweeps._programs import Functions, prepare
from cliffs.sweeps._progress import progress_bar
from cliffs.sweeps._recording import Record
from cliffs.sweeps._result import SweepResult
from cliffs.typing import Evaluate, Init, Update

# Measured: for 50 units 1 lane is as fast as 2, 4 or 8, and 2.4 times faster than 4 at batch size 1000.
CPU_LANES = 1
DEFAULT_BLOCK = 100


def sweep(
    init: Init,
    update: Update,
    grid: PyTree,
    num_steps: int,
    *,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    stop_when_solved: bool = False,
    data: PyTree = None,
    record: Record | None = None,
    record_every: int = 1,
    lanes: int | None = None,
    devices: Sequence[Any] | None = None,
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
    - `evaluate_every`: updates between evaluations, progress lines and chances to stop; by default 100, or the largest
      divisor of `num_steps` below.
    - `stop_when_solved`: whether a solved run leaves the sweep; a diverged run always does.
    - `lanes`: runs per `vmap`: 1 on a CPU and all on an accelerator by default.
    - `devices`: the devices to spread over; all local ones by default.
    - `record`: which metrics to keep: names (`["loss", "aux"]`, the second with all below it), or a dict from names to
      what several updates become: `{"loss": "mean", "grad_norm": "max"}` (or `"min"`, `"last"`, which is the default).
      All by default; `()` keeps none.
    - `record_every`: updates that share one record, a divisor of `evaluate_every`. The history takes
      `runs * num_steps / record_every * bytes of one record`: two float32 of 10,000 runs x 10,000 updates are 800 MB
      with 1, and 8 MB with 100.
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
    runs, grid = check_grid(grid)
    num_steps, evaluate_every = check_steps(num_steps, evaluate_every)
    if evaluate_every % check_count("record_every", record_every):
        raise ValueError(f"record_every must divide evaluate_every={evaluate_every}, got {record_every}")
    functions = prepare(init, update, evaluate, grid, data, evaluate_every, record, record_every)
    layout = make_layout(runs, lanes, devices)
    book = new_book(runs, num_steps, evaluate_every, functions)
    with readable_errors():
        _advance(book, functions, layout, bare(grid, functions.run_kinds), data, num_steps, stop_when_solved, progress)
    return _result(book, functions, grid, num_steps)


def check_steps(num_steps: int, evaluate_every: int | None) -> tuple[int, int]:
    """Both numbers as integers; without `evaluate_every` the largest divisor of `num_steps` up to 100.

    >>> check_steps(50, None), check_steps(1200, None), check_steps(1200, 400)
    ((50, 50), (1200, 100), (1200, 400))
    """
    num_steps = check_count("num_steps", num_steps)
    if evaluate_every is None:
        evaluate_every = max(k for k in range(1, min(num_steps, DEFAULT_BLOCK) + 1) if num_steps % k == 0)
        if 10 * evaluate_every < min(num_steps, DEFAULT_BLOCK):
            raise ValueError(
                f"num_steps={num_steps} has no divisor from 10 to {DEFAULT_BLOCK}: give evaluate_every, or take "
                f"{-(-num_steps // DEFAULT_BLOCK) * DEFAULT_BLOCK} updates"
            )
    evaluate_every = check_count("evaluate_every", evaluate_every)
    if num_steps % evaluate_every:
        raise ValueError(f"num_steps must be a multiple of evaluate_every, got {num_steps} and {evaluate_every}")
    return num_steps, evaluate_every


def make_layout(runs: int, lanes: int | None, devices: Sequence[Any] | None) -> Layout:
    """Where the runs go: `lanes` a group, on the given devices or all local ones."""
    devices = tuple(devices or jax.local_devices())
    if lanes is None:
        lanes = CPU_LANES if devices[0].platform == "cpu" else -(-runs // len(devices))
    return Layout(devices, check_count("lanes", lanes), runs)


def _advance(
    book: Book, functions: Functions, layout: Layout, grid: PyTree, data: PyTree, num_steps: int,
    stop_when_solved: bool, progress: bool,
) -> None:  # fmt: skip
    """Blocks of updates until no run is left to go on with."""
    shared = () if data is None else (layout.share(data),)
    advance = functions.advance(layout)
    cohort = np.arange(book.runs)
    on_device = layout.place(rows(grid, layout.sources(cohort)))
    state = functions.start(layout)(on_device)
    bar = progress_bar(num_steps, progress)
    while len(cohort):
        state, *log = advance(state, on_device, layout.groups(len(cohort)), *shared)
        records, evaluation, diverged_at = layout.fetch(log, len(cohort))
        book.add(cohort, records, evaluation, diverged_at, functions.steps, functions.recording, stop_when_solved)
        bar.update(functions.steps)
        bar.set_postfix_str(
            f"{(book.solved_at >= 0).sum()} solved, {(book.diverged_at >= 0).sum()} diverged of {book.runs}"
        )
        following = book.cohort(num_steps)
        if np.array_equal(following, cohort):
            continue
        book.keep_states(cohort, layout.fetch(state, len(cohort)))
        cohort = following
        if len(cohort):
            # Finished runs leave and the others close ranks at the front of the run axis.
            source = layout.sources(cohort)
            state, on_device = layout.place((rows(book.state, source), rows(grid, source)))
    bar.close()


def _result(book: Book, functions: Functions, grid: PyTree, num_steps: int) -> SweepResult:
    result = SweepResult(
        grid=grid, state=typed(book.state, functions.state_kinds), metrics=book.records, evaluations=book.evaluations,
        solved_at=book.solved_at, diverged_at=book.diverged_at, steps_run=book.steps_run, pruned_at=book.pruned_at,
        evaluate_every=functions.steps, record_every=functions.recording.every, num_steps=num_steps,
        notes=tuple(book.notes),
    )  # fmt: skip
    return dataclasses.replace(
        result,
        metrics=masked(result.metrics, result.mask),
        evaluations=masked(result.evaluations, result.evaluation_mask),
    )
