"""How the speed of a sweep changes with the number of networks, the length of sequences, devices and processes.

Each point is a sweep of clipped SGD on temporal order, timed at its second call, when all is compiled. Updates of one
network a second; with the length they are multiplied by it (steps of the network a second). Devices are cores of this
machine; processes are real ones under `jax.distributed` (gloo on loopback), each with its share of the cores.
"""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """What is varied; the other settings stay at those of the first entries."""

    networks: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    lengths: tuple[int, ...] = (50, 100, 200, 400, 800, 1600, 3200)
    layouts: tuple[tuple[int, int], ...] = ((1, 1), (1, 2), (2, 1))
    """Processes and devices of each; more of them than there are cores can only be slower."""
    updates_in_all: int = 4096
    """Updates of all networks of a sweep together, at length 50."""
    least_updates: int = 20
    """Of each network: with fewer, starting and ending a sweep is measured."""
    batch: int = 20
    hidden: int = 50
    turns: int = 3


class Result(NamedTuple):
    """Rates at every point."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Measure all points."""
    by_networks, by_length = {}, {}
    for count in config.networks:
        by_networks[count] = rate(config, count, config.lengths[0])
        say(f"{count} networks: {by_networks[count]:.0f} updates/s")
    for length in config.lengths:
        by_length[length] = length * rate(config, 32, length)
        say(f"length {length}: {by_length[length]:.3g} steps/s")
    by_layout = {}
    for processes, devices in config.layouts:
        by_layout[f"{processes}x{devices}"] = in_processes(config, processes, devices)
        say(f"{processes} process(es) x {devices} device(s): {by_layout[f'{processes}x{devices}']:.0f} updates/s")
    from_32 = [r for n, r in by_networks.items() if n >= 32] or list(by_networks.values())
    spread = 1 - min(from_32) / max(from_32)
    metrics = {"networks": by_networks, "length": by_length, "layouts": by_layout, "spread_from_32": spread}
    rows = [("spread from 32 networks on", f"{spread:.1%}", "wanted at most 15 %")]
    for name in ("networks", "length", "layouts"):
        rows += [(f"{name} {key}", f"{value:.4g} a second", "") for key, value in metrics[name].items()]
    return Result(config, metrics, rows)


def rate(config: Config, networks: int, length: int) -> float:
    """Updates of one network a second, in this process, over all its devices."""
    import jax
    import numpy as np
    import optax

    from cliffs import recurrent, tasks, training
    from cliffs.sweeps import sweep

    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01))

    def init(run):
        # Without an eigenvalue in it: those of smart_tanh cost as much as five updates.
        params = recurrent.paper_init("basic_tanh", jax.random.key(run["seed"]), 6, config.hidden, 4)
        return training.init_train_state(params, optimizer)

    def update(state, run):
        key = jax.random.fold_in(jax.random.key(run["seed"] + 10_000), state.step)
        return training.train_step(state, tasks.temporal_order(key, config.batch, length), loss, optimizer)

    updates = max(config.least_updates, round(config.updates_in_all / networks * config.lengths[0] / length))
    times = []
    for _ in range(1 + config.turns):
        started = time.perf_counter()
        sweep(init, update, {"seed": np.arange(networks)}, updates, evaluate_every=updates, progress=False)
        times.append(time.perf_counter() - started)
    return networks * updates / min(times[1:])


def in_processes(config: Config, processes: int, devices: int) -> float:
    """The same in other processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    children = [
        subprocess.Popen(
            [
                sys.executable,
                __file__,
                "child",
                json.dumps(dataclasses.asdict(config)),
                *map(str, (port, processes, index, devices)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        for index in range(processes)
    ]
    outs = [process.communicate(timeout=900)[0] for process in children]
    if any(process.returncode for process in children):
        raise RuntimeError(f"a process ended with {[process.returncode for process in children]}")
    return float(outs[0].splitlines()[-1])


def child(settings: str, port: int, processes: int, index: int, devices: int) -> None:
    """One of the processes: prints the rate."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, index)
    print(rate(Config(**json.loads(settings)), 128, 50))


def draw(result: Result) -> dict[str, Any]:
    """Rates against the number of networks, and against the length."""
    from cliffs.plotting import figure

    fig, axes = figure(1, 2, size=(10, 3.8))
    for ax, name, label, title in (
        (axes[0], "networks", "updates of a network a second", "more networks cost no speed"),
        (axes[1], "length", "steps of a network a second", "long sequences leave the caches"),
    ):
        points = result.metrics[name]
        ax.plot(list(points), list(points.values()), "o-")
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(points), [str(x) for x in points])
        ax.set_ylim(0, 1.15 * max(points.values()))
        ax.set_xlabel("networks in the sweep" if name == "networks" else "length of the sequences")
        ax.set(ylabel=label, title=title)
    return {"scaling": fig}


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        sys.path.insert(0, str(ROOT))
        from experiments import runner

        runner.main(__file__)
