"""How a sweep would run: lanes, memory, time, found out without running it."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import PyTree

from cliffs._devices import Device, check_devices
from cliffs.sweeps._contracts import NUMBER, check_count
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._grid import check_data, check_grid, rows
from cliffs.sweeps._keys import bare
from cliffs.sweeps._programs import Functions, prepare
from cliffs.sweeps._recording import Record, bytes_per_run
from cliffs.typing import Evaluate, Init, Update

# Measured: for 50 units 1 lane is as fast as 2, 4 or 8, and 2.4 times faster than 4 at batch size 1000.
CPU_LANES = 1
DEFAULT_BLOCK = 100


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """How a sweep would run; `print` it."""

    runs: int
    lanes: int
    devices: int
    platform: str
    processes: int
    bytes_per_device: int
    """What the compiled program takes on each device: arguments, results, temporaries, shared data."""
    device_memory: int | None
    """What each device has; None where it does not say (a CPU)."""
    history_bytes: int
    """Metrics and evaluations of all runs, in the memory of every process."""
    state_bytes: int
    """Parameters and optimiser states of all runs: the size of a checkpoint is this and the history."""
    compile_seconds: float
    block_seconds: float | None
    """Measured: one group of lanes on every device, `evaluate_every` updates and an evaluation; None without it."""
    seconds: float | None
    """Estimate of the whole sweep when no run ends early, without compiling."""

    def __str__(self) -> str:
        """Some lines for a person."""
        memory = f" of {_size(self.device_memory)}" if self.device_memory else ""
        lines = [
            f"{self.runs} runs on {self.devices} {self.platform} device(s) of {self.processes} process(es), "
            f"{self.lanes} lane(s) a group",
            f"{_size(self.bytes_per_device)}{memory} on each device, {_size(self.history_bytes)} of history and "
            f"{_size(self.state_bytes)} of states on the host",
            f"{self.compile_seconds:.1f} s to compile",
        ]
        if self.seconds is not None:
            lines.append(f"about {_duration(self.seconds)} when no run ends early")
        return "\n".join(lines)


def plan_sweep(
    init: Init,
    update: Update,
    grid: PyTree,
    num_steps: int,
    *,
    evaluate: Evaluate | None = None,
    evaluate_every: int | None = None,
    data: PyTree = None,
    record: Record | None = None,
    record_every: int = 1,
    lanes: int | None = None,
    devices: Sequence[Device] | None = None,
    memory_fraction: float = 0.8,
    calibrate: bool = True,
) -> SweepPlan:
    """How `sweep` with these arguments would run: lanes, bytes on each device, seconds.

    The programs are compiled, and kept for the sweep that follows. To estimate the time one group of lanes on every
    device runs `evaluate_every` updates twice, whose results are thrown away.

    **Arguments**: those of `sweep`; `calibrate`, whether to measure the time.

    **Returns** a `SweepPlan`.

    **Raises** `ValueError` as `sweep` does, and when not even one lane fits into an accelerator's memory.

    >>> import jax.numpy as jnp, optax
    >>> from cliffs.training import init_train_state, train_step
    >>> loss = lambda params, batch: (jnp.sum(params**2), ())
    >>> plan = plan_sweep(
    ...     lambda run: init_train_state(jnp.ones(2), optax.sgd(run["lr"])),
    ...     lambda state, run: train_step(state, None, loss, optax.sgd(run["lr"])),
    ...     {"lr": jnp.geomspace(0.01, 1, 16)}, 100,
    ... )
    >>> plan.runs, plan.history_bytes, plan.seconds > 0
    (16, 12800, True)
    """
    runs, grid = check_grid(grid)
    num_steps, evaluate_every = check_steps(num_steps, evaluate_every)
    check_record_every(record_every, evaluate_every)
    data = check_data(data)
    functions = prepare(init, update, evaluate, grid, data, evaluate_every, record, record_every)
    used = used_devices(devices)
    started = time.perf_counter()
    layout = Layout(used, choose_lanes(functions, used, runs, lanes, memory_fraction), runs)
    advance, start = functions.advance(layout), functions.start(layout)
    compiled = time.perf_counter()
    block = None
    if calibrate:
        shared = () if data is None else (layout.share(data),)
        on_device = layout.place(rows(bare(grid, functions.run_kinds), layout.sources(np.arange(runs))))
        for _ in range(2):  # the first call is slower
            state = jax.block_until_ready(start(on_device))
            begun = time.perf_counter()
            jax.block_until_ready(advance(state, on_device, layout.groups(1), *shared))
            block = time.perf_counter() - begun
    turns = -(-runs // (layout.lanes * len(used)))
    return SweepPlan(
        runs=runs,
        lanes=layout.lanes,
        devices=len(used),
        platform=used[0].platform,
        processes=layout.processes.count,
        bytes_per_device=program_bytes(advance),
        device_memory=memory_of(used),
        history_bytes=runs
        * (
            bytes_per_run(functions.recorded, num_steps // record_every)
            + bytes_per_run(functions.shapes.evaluation, num_steps // evaluate_every)
        ),
        state_bytes=runs * bytes_per_run(functions.bare_state, 1),
        compile_seconds=compiled - started,
        block_seconds=block,
        seconds=None if block is None else block * turns * (num_steps // evaluate_every),
    )


def choose_lanes(
    functions: Functions, devices: tuple[Device, ...], runs: int, lanes: int | None, memory_fraction: float
) -> int:
    """The lanes asked for; else one on a CPU, and on an accelerator as many as fit into its memory."""
    if lanes is not None:
        return check_count("lanes", lanes)
    if not isinstance(memory_fraction, NUMBER) or not 0 < memory_fraction <= 1:
        raise ValueError(f"memory_fraction must lie in (0, 1], got {memory_fraction!r}")
    if devices[0].platform == "cpu":
        return CPU_LANES
    memory = memory_of(devices)
    every = -(-runs // len(devices))
    return every if memory is None else fitting_lanes(functions, devices, runs, int(memory_fraction * memory))


def fitting_lanes(functions: Functions, devices: tuple[Device, ...], runs: int, budget: int) -> int:
    """The most lanes of a few tries whose compiled program takes at most `budget` bytes on each device."""
    lanes = -(-runs // len(devices))
    while True:
        needed = _needed(functions, Layout(devices, lanes, runs))
        if needed is not None and needed <= budget:
            return lanes
        if lanes == 1:
            wanted = "more" if needed is None else _size(needed)
            raise ValueError(f"a single run at a time takes {wanted} on each device, {_size(budget)} are allowed")
        # What is needed grows at most in proportion to the lanes.
        lanes = max(1, min(lanes // 2, lanes * budget // needed if needed else lanes // 2))


def program_bytes(program: jax.stages.Compiled) -> int:
    """Bytes that a compiled program takes on each device."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return int(arguments + outputs - memory.alias_size_in_bytes + memory.temp_size_in_bytes)


def memory_of(devices: tuple[Device, ...]) -> int | None:
    """Bytes of the smallest device's memory, or None where it is unknown."""
    limits = [(d.memory_stats() or {}).get("bytes_limit") for d in devices if d.process_index == jax.process_index()]
    known = [limit for limit in limits if limit]
    return min(known) if known else None


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


def check_record_every(record_every: int, evaluate_every: int) -> None:
    """Records must end where a block of updates ends."""
    if evaluate_every % check_count("record_every", record_every):
        raise ValueError(f"record_every must divide evaluate_every={evaluate_every}, got {record_every}")


def used_devices(devices: Sequence[Device] | None) -> tuple[Device, ...]:
    """The given devices; by default all of this process, or of all processes under `jax.distributed`."""
    if devices is None:
        return tuple(jax.devices() if jax.process_count() > 1 else jax.local_devices())
    return check_devices(devices)


def _needed(functions: Functions, layout: Layout) -> int | None:
    """Bytes of the program of this layout; None when the compiler already finds that it cannot fit."""
    try:
        return program_bytes(functions.advance(layout))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
