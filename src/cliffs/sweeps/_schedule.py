"""Hundreds of training runs as one compiled program: grids, lanes, devices.

A sweep is a pytree of arrays with a leading run axis (seeds, thresholds, learning rates, ...). Runs are processed
in groups of a fixed number of lanes: small on a CPU, where the parameters of a group then stay in the cache, whole
on an accelerator. One group is one `vmap`; the groups of a device are a loop with a traced bound, so runs that are
finished leave the program without a second compile; devices share the run axis. The lane width is all that a
trajectory's rounding depends on: results are the same to the bit for any number of devices from two on and in any
company. (For one device XLA compiles an unpartitioned program, whose last bits can differ.)
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import PyTree

from cliffs._devices import Device
from cliffs.sweeps._book import Book, new_book
from cliffs.sweeps._checkpoint import Checkpoint, Store, check_checkpoint
from cliffs.sweeps._contracts import check_call
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._errors import readable_errors
from cliffs.sweeps._grid import check_data, check_grid, rows
from cliffs.sweeps._history import masked
from cliffs.sweeps._identity import Identity, differences, identify
from cliffs.sweeps._interrupts import Interrupts
from cliffs.sweeps._keys import bare, typed
from cliffs.sweeps._loop import Job, advance_all
from cliffs.sweeps._plan import check_record_every, check_steps, choose_lanes, used_devices
from cliffs.sweeps._programs import Functions, prepare
from cliffs.sweeps._progress import Progress, Reporter, check_progress
from cliffs.sweeps._recording import Record
from cliffs.sweeps._result import SweepResult
from cliffs.typing import Evaluate, Init, Update


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
    prune: Callable[[Mapping[str, PyTree], np.ndarray], np.ndarray] | None = None,
    checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
    resume: Literal["exact", "extend"] = "exact",
    lanes: int | None = None,
    devices: Sequence[Device] | None = None,
    memory_fraction: float = 0.8,
    progress: bool | Progress | None = None,
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
    - `stop_when_solved`: whether a run leaves the sweep once `evaluate` says `"solved"`; a diverged run always does.
    - `record`: which metrics to keep: names (`["loss", "aux"]`, the second with all below it), or a dict from names to
      what several updates become: `{"loss": "mean", "grad_norm": "max"}` (or `"min"`, `"last"`, which is the default).
      All by default; `()` keeps none.
    - `record_every`: updates that share one record, a divisor of `evaluate_every`. The history takes
      `runs * num_steps / record_every * bytes of one record`: two float32 of 10,000 runs x 10,000 updates are 800 MB
      with 1, and 8 MB with 100.
    - `data`: arrays that all runs share, given to `update` and `evaluate` as a third argument unless None. As in the
      grid, integers that JAX's precision cannot hold are refused, and floats that would become inf.
    - `prune`: `prune(evaluations, active) -> keep`, called after every evaluation with the evaluations so far
      (`[runs, evaluations, ...]`) and bool `[runs]`; what it does not keep ends. `cliffs.sweeps.prune` has ready ones.
    - `checkpoint`: a folder (or a `Checkpoint` with the seconds between two) that keeps all that is needed to go on.
      The same call on the same folder goes on to the same bits; on a finished sweep it returns at once. A damaged
      checkpoint is passed over for the one before, and `notes` say so.
    - `resume`: `"exact"`, or `"extend"` to go on with more runs at the end of the grid or more updates; what is done is
      not repeated.
    - `lanes`: runs per `vmap`: 1 on a CPU by default, on an accelerator as many as fit into its memory.
    - `devices`: the devices to spread over; all local ones by default, all there are under `jax.distributed`.
    - `memory_fraction`: the share of an accelerator's memory that the program may take when `lanes` is not given.
    - `progress`: whether to tell how far it is on stderr (None: only where that is a terminal), or a `Progress`.

    **Returns** a `SweepResult`. Runs that diverged are frozen and named in `diverged_at`; the others do not notice.
    After Ctrl-C it holds what there is, with `complete=False`.

    The compiled programs are kept: another sweep with the same functions (which read the same values) and shapes does
    not compile. What lives only in the present Python process JAX keeps for the next one in its compilation cache, when
    that is switched on (`jax_compilation_cache_dir`).

    **Raises** `ValueError` for an argument out of range, a grid or a function that does not keep the contract, or a
    checkpoint of another sweep (it says what differs); `OSError` when a checkpoint cannot be written.

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
    check_record_every(record_every, evaluate_every)
    if resume not in ("exact", "extend"):
        raise ValueError(f"resume must be 'exact' or 'extend', got {resume!r}")
    if not isinstance(stop_when_solved, (bool, np.bool_)):
        raise ValueError(f"stop_when_solved must be True or False, got {stop_when_solved!r}")
    if prune is not None and not callable(prune):
        raise ValueError(f"prune must be a function of (evaluations, active), got {prune!r}")
    if prune is not None:
        check_call("prune", prune, "(evaluations, active)", {}, np.ones(runs, bool))
    kept, told = check_checkpoint(checkpoint), check_progress(progress)
    data = check_data(data)
    used = used_devices(devices)
    functions = prepare(init, update, evaluate, grid, data, evaluate_every, record, record_every)
    if stop_when_solved and "solved" not in functions.shapes.evaluation:
        found = sorted(functions.shapes.evaluation)
        raise ValueError(f"stop_when_solved goes by the entry 'solved' of what evaluate returns, got {found}")
    book = new_book(runs, num_steps, evaluate_every, functions)
    bare_grid = rows(bare(grid, functions.run_kinds), slice(None))
    settings = {"num_steps": num_steps, "stop_when_solved": bool(stop_when_solved)}
    with contextlib.ExitStack() as stack:
        stack.enter_context(readable_errors())
        interrupts = stack.enter_context(Interrupts())
        identity: Identity = {}
        store = None
        if kept is not None:
            store = stack.enter_context(Store(kept, Layout(used, 1, runs).processes))
            identity = identify(functions, bare_grid, data, prune, settings)
            lanes = _restore(book, store, identity, lanes, used, extend=resume == "extend")
        layout = Layout(used, choose_lanes(functions, used, runs, lanes, memory_fraction), runs)
        if kept is not None:
            identity["layout"] = {"lanes": layout.lanes, "devices": len(used), "platform": used[0].platform}
        job = Job(functions, layout, bare_grid, data, stop_when_solved, prune)
        reporter = Reporter(told) if layout.processes.index == 0 else None
        complete = advance_all(job, book, store, identity, reporter, interrupts)
    if not complete:
        where = f"sweep again with checkpoint={str(kept.folder)!r} goes on" if kept else "it had no checkpoint"
        book.notes.append(f"interrupted after {book.steps_run[~book.ended].min()} of {num_steps} updates; {where}")
    return _result(book, functions, grid, complete)


def _restore(
    book: Book, store: Store, identity: Identity, lanes: int | None, devices: tuple[Device, ...], *, extend: bool
) -> int | None:
    """Fill the book from the newest good checkpoint, if there is one; returns the lanes to go on with."""
    found, notes = store.newest()
    book.notes += notes
    if found is None:
        return lanes
    differing = differences(found.identity, identity, extend=extend)
    layout = found.identity["layout"]
    if lanes not in (None, layout["lanes"]):
        differing.append(f"lanes: {layout['lanes']} there, {lanes} here")
    before = len(found.identity["grid"]["rows"])
    if identity["settings"]["prune"] != "None" and book.runs > before:
        differing.append("the grid: runs cannot be added to a sweep that prunes, whose rungs were decided without them")
    if differing:
        raise ValueError(
            f"checkpoint: {store.folder} holds another sweep, it differs in {'; in '.join(differing)}. "
            "Take another folder, or call sweep as it was called before"
        )
    # One device computes an unpartitioned program, whose last bits may be others.
    if (layout["devices"] == 1) != (len(devices) == 1) or layout["platform"] != devices[0].platform:
        book.notes.append(
            f"begun on {layout['devices']} {layout['platform']} device(s), went on with {len(devices)} "
            f"{devices[0].platform} device(s): the last bits can differ from those of a sweep in one go"
        )
    found.fill(book)
    return layout["lanes"]


def _result(book: Book, functions: Functions, grid: PyTree, complete: bool) -> SweepResult:
    result = SweepResult(
        grid=grid,
        state=typed(book.state, functions.state_kinds),
        metrics=book.records,
        evaluations=book.evaluations,
        solved_at=book.solved_at,
        diverged_at=book.diverged_at,
        steps_run=book.steps_run,
        pruned_at=book.pruned_at,
        evaluate_every=functions.steps,
        record_every=functions.recording.every,
        num_steps=book.num_steps,
        complete=complete,
        notes=tuple(book.notes),
    )
    return dataclasses.replace(
        result,
        metrics=masked(result.metrics, result.mask),
        evaluations=masked(result.evaluations, result.evaluation_mask),
    )
