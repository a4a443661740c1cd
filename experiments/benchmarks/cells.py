"""One clipped SGD step of many gated networks: flax under jit(vmap), PyTorch's fused loop, and ours.

Networks a second for LSTM and GRU, batch 20, length 100, at 50 and 256 units. "flax" is `flax.linen.RNN` under
`jit(vmap)`, what one writes first; "torch" a loop over `nn.LSTM` / `nn.GRU` (its fused kernels), when torch is
installed; "deferred" is `cliffs.unroll` of the cell as a function that the library does not know; "rule" the cell's
own rule. Ours run in groups of lanes on one host device a core, as `cliffs.sweeps` runs them. The contestants take
turns, and a ratio is the median over the turns of the ratios within one turn, so that a slow spell of the machine
hits both sides. The last line is one JSON object.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cliffs import recurrent
from cliffs._devices import over_devices

ALL_CORES = True

FEATURES, OUTPUTS, BATCH, LENGTH = 6, 4, 20, 100


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure and for how long."""

    cells: tuple[str, ...] = ("lstm", "gru")
    units: tuple[int, ...] = (50, 256)
    seeds: int = 32
    """Networks side by side at 50 units; an eighth of them at more than 100."""
    turns: int = 7
    seconds: float = 1.0
    """For each contestant and turn."""
    lanes: tuple[int, ...] = (1, 2)
    """Groups of ours to try; the best is reported."""
    torch: bool = True


class Result(NamedTuple):
    """Rates and ratios of every cell and size."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Measure all cells and sizes."""
    measured = []
    rows: list[tuple[str, ...]] = [
        ("cell, units", "networks a second", "rule / torch", "rule / flax", "rule / deferred")
    ]
    for cell in config.cells:
        for units in config.units:
            row = measure(cell, units, config)
            measured.append(row)
            rates = ", ".join(f"{k} {v:.0f} ({row['gflops'][k]:.0f} GFLOP/s)" for k, v in row["per_second"].items())
            names = ("rule_over_torch", "rule_over_flax", "rule_over_deferred")
            ratios = ["-" if row[name] is None else f"{row[name]:.2f}" for name in names]
            rows.append((f"{cell}, {units}", rates, *ratios))
            say(" | ".join(rows[-1]))
    return Result(config, {"cells": measured, "torch": torch_version()}, rows)


def torch_version() -> str | None:
    """Of the peer, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def problem(cell: str, units: int, networks: int) -> tuple[Any, Any, Any]:
    """The step, parameters and one batch for each network; the same numbers for every contestant."""
    step = recurrent.lstm_cell(units) if cell == "lstm" else recurrent.gru_cell(units)
    keys = jax.random.split(jax.random.key(0), networks)
    rng = np.random.default_rng(0)
    head = jnp.asarray(0.1 * rng.normal(size=(networks, units, OUTPUTS)), jnp.float32)
    params = {"cell": jax.vmap(lambda k: step.init(k, FEATURES))(keys), "head": head}
    symbols = rng.integers(0, FEATURES, (networks, LENGTH, BATCH))
    inputs = jnp.asarray(np.eye(FEATURES, dtype=np.float32)[symbols])
    return step, params, (inputs, jnp.asarray(rng.integers(0, OUTPUTS, (networks, BATCH))))


def sgd_step(features: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """One clipped SGD step of one network; `features(cell_params, inputs)` are the last hidden states."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01))

    def loss(params, batch):
        logits = features(params["cell"], batch[0]) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    def step(params, batch):
        updates, _ = optimizer.update(jax.grad(loss)(params, batch), optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    return step


def flax_step(step):
    """`flax.linen.RNN` on the same parameters."""
    layer = nn.RNN(step.cell, time_major=True)
    return sgd_step(lambda params, inputs: layer.apply({"params": {"cell": params}}, inputs)[-1])


def our_step(step, *, known: bool):
    """`cliffs.unroll`; with `known=False` the cell is hidden in a function, so that its products have to be found."""
    called = step if known else lambda params, state, u: step(params, state, u)
    expected = type(step.cell).__name__.replace("Optimized", "").removesuffix("Cell").lower() if known else "deferred"

    def features(params, inputs):
        start = step.initial_state((BATCH,))
        found = recurrent.unroll_method(called, params, start, inputs)
        assert found.name == expected, found
        return step.features(recurrent.unroll(called, params, start, inputs))[-1]

    return sgd_step(features)


def in_groups(one, lanes):
    """Groups of `lanes` networks, spread over all local devices; the program and how its arguments are placed."""
    mesh = jax.make_mesh((jax.local_device_count(),), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    program = jax.jit(over_devices(one, lanes=lanes if lanes > 1 else None))
    return program, NamedSharding(mesh, P("runs"))


def torch_step(cell, params, batch):
    """A loop over the networks, one fused module each; a function, or None without torch."""
    try:
        import torch
    except ImportError:
        return None
    networks, units = params["head"].shape[:2]
    models = []
    for i in range(networks):
        # Timing does not depend on the values, so torch's own initial weights serve.
        core = (torch.nn.LSTM if cell == "lstm" else torch.nn.GRU)(FEATURES, units)
        head = torch.nn.Linear(units, OUTPUTS)
        every = [*core.parameters(), *head.parameters()]
        data = torch.tensor(np.array(batch[0][i])), torch.tensor(np.array(batch[1][i])).long()
        models.append((core, head, every, torch.optim.SGD(every, lr=0.01), *data))

    def step():
        for core, head, every, optimizer, inputs, targets in models:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(core(inputs)[0][-1]), targets).backward()
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            optimizer.step()

    return step


def median_time(function, seconds):
    """The median of the calls that fit into `seconds` (at least two)."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(cell: str, units: int, config: Config) -> dict[str, Any]:
    """Networks a second of every contestant for one cell and size."""
    networks = config.seeds if units <= 100 else max(config.seeds // 8, 2)
    step, params, batch = problem(cell, units, networks)
    naive = jax.jit(jax.vmap(flax_step(step)))
    contestants = {"flax": lambda: naive(params, batch)}
    want = naive(params, batch)
    for name, known in (("deferred", False), ("rule", True)):
        for lanes in config.lanes:
            if networks % (lanes * jax.local_device_count()) == 0:
                program, sharding = in_groups(our_step(step, known=known), lanes)
                placed = jax.device_put((params, batch), sharding)
                contestants[f"{name}_{lanes}"] = lambda program=program, placed=placed: program(*placed)
                got = program(*placed)
                jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, want)
    torch_program = torch_step(cell, params, batch) if config.torch else None
    if torch_program is not None:
        torch_program()
        contestants["torch"] = torch_program
    seconds = {name: [] for name in contestants}
    for _ in range(config.turns):
        for name, function in contestants.items():
            seconds[name].append(median_time(function, config.seconds))

    def ratio(a, b):
        return statistics.median(y / x for x, y in zip(seconds[a], seconds[b])) if b in seconds else None

    def best(kind):
        names = [n for n in contestants if n.startswith(kind)]
        return min(names, key=lambda n: statistics.median(seconds[n]))

    rule, deferred = best("rule"), best("deferred")
    gates = 4 if cell == "lstm" else 3
    flops = 6 * LENGTH * BATCH * gates * units * (units + FEATURES)
    rates = {name: networks / statistics.median(s) for name, s in seconds.items()}
    return {
        "cell": cell,
        "units": units,
        "networks": networks,
        "per_second": rates,
        "gflops": {name: rate * flops / 1e9 for name, rate in rates.items()},
        "best": {"rule": rule, "deferred": deferred},
        "rule_over_torch": ratio(rule, "torch"),
        "rule_over_flax": ratio(rule, "flax"),
        "rule_over_deferred": ratio(rule, deferred),
        "deferred_over_torch": ratio(deferred, "torch"),
        "deferred_over_flax": ratio(deferred, "flax"),
    }


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
