"""One clipped SGD step of many vanilla networks: PyTorch, plain autodiff under jit(vmap), and ours.

Seed-steps per second for S networks with batch B, length T, H units. "naive" is what one writes first: a scan,
`jax.grad`, `jit(vmap)` over seeds, one device. "ours" is `cliffs.unroll` in groups of lanes over one host device per
core, as `cliffs.sweeps` runs it. The contestants take turns, so that a slow spell of the machine hits all of them, and
each is given by its best turn. The last line is one JSON object.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cliffs import recurrent, training
from cliffs._devices import over_devices
from cliffs.tasks import SequenceBatch

ALL_CORES = True

FEATURES, OUTPUTS = 6, 4


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure, and how long."""

    shapes: tuple[tuple[int, int, int, int], ...] = (
        (128, 20, 100, 50),
        (32, 20, 20, 50),
        (8, 1000, 20, 50),
        (4, 20, 180, 500),
    )
    """Seeds, batch, length, units."""
    seconds: float = 2.5
    """For each contestant and turn."""
    turns: int = 4
    torch: bool = True
    """Whether to run the PyTorch loop when torch is installed."""


class Result(NamedTuple):
    """Rates of every contestant at every shape."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Measure all shapes."""
    shapes = []
    for shape in config.shapes:
        shapes.append(measure(shape, config))
        say(str(shape))
    rows = [("seeds, batch, length, units", "steps of one network per second", "ours / naive", "ours / torch")]
    for row in shapes:
        shape = ", ".join(str(row[k]) for k in "SBTH")
        rates = ", ".join(f"{k} {row[k]:.1f}" for k in ("naive", "ours", "torch") if row[k])
        torch = f"{row['ratio_torch']:.2f}" if row["ratio_torch"] else "-"
        rows.append((shape, rates, f"{row['ratio_naive']:.2f}", torch))
    return Result(config, {"shapes": shapes, "torch": torch_version()}, rows)


def torch_version() -> str | None:
    """Of the peer, where it is installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__


def problem(seeds, batch, time_steps, hidden):
    """Parameters and one batch for each seed; the same numbers for every contestant."""
    rng = np.random.default_rng(0)

    def normal(*shape, std=0.1):
        return jnp.asarray(std * rng.normal(size=(seeds, *shape)), jnp.float32)

    params = recurrent.ModelParams(
        recurrent.RNNParams(normal(hidden, hidden), normal(FEATURES, hidden), normal(hidden)),
        recurrent.ReadoutParams(normal(hidden, OUTPUTS), normal(OUTPUTS)),
    )
    symbols = rng.integers(0, FEATURES, (seeds, time_steps, batch))
    inputs = jnp.asarray(np.eye(FEATURES, dtype=np.float32)[symbols])
    targets = jnp.asarray(rng.integers(0, OUTPUTS, (seeds, batch)))
    return params, SequenceBatch(inputs, targets, jnp.full(seeds, time_steps))


def sgd_step(method):
    """One clipped SGD step of one network."""
    loss = training.classification_loss(recurrent.rnn_step("tanh"), method=method)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.01))

    def step(params, batch):
        grads = jax.grad(lambda p: loss(p, batch)[0])(params)
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return optax.apply_updates(params, updates)

    return step


def ours(lanes):
    """Groups of `lanes` networks, spread over all local devices; the program and how its arguments are placed."""
    mesh = jax.make_mesh((jax.local_device_count(),), ("runs",), axis_types=(jax.sharding.AxisType.Auto,))
    program = jax.jit(over_devices(sgd_step("auto"), lanes=lanes))
    return program, NamedSharding(mesh, P("runs"))


def torch_step(params, batch):
    """A loop over the networks, one nn.RNN each, as a PyTorch user would run them; returns a function or None."""
    try:
        import torch
    except ImportError:
        return None
    models = []
    for i in range(len(batch.targets)):
        p = jax.tree.map(lambda x, i=i: np.array(x[i]), params)
        core, head = torch.nn.RNN(FEATURES, p.rnn.w_rec.shape[0]), torch.nn.Linear(p.rnn.w_rec.shape[0], OUTPUTS)
        of = dict(core.named_parameters())
        with torch.no_grad():
            of["weight_hh_l0"].copy_(torch.tensor(p.rnn.w_rec.T))
            of["weight_ih_l0"].copy_(torch.tensor(p.rnn.w_in.T))
            of["bias_hh_l0"].copy_(torch.tensor(p.rnn.bias))
            of["bias_ih_l0"].zero_()
            head.weight.copy_(torch.tensor(p.readout.w_out.T))
            head.bias.copy_(torch.tensor(p.readout.bias))
        every = [*core.parameters(), *head.parameters()]
        data = torch.tensor(np.array(batch.inputs[i])), torch.tensor(np.array(batch.targets[i])).long()
        models.append((core, head, every, torch.optim.SGD(every, lr=0.01), *data))

    def step():
        for core, head, every, optimizer, inputs, targets in models:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(head(core(inputs)[0][-1]), targets).backward()
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            optimizer.step()

    return step


def best_time(function, seconds):
    """The shortest of the calls that fit into `seconds` (at least two)."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return min(times)


def measure(shape, config):
    """Seed-steps per second of every contestant at one shape."""
    seeds, batch_size, time_steps, hidden = shape
    params, batch = problem(*shape)
    naive = jax.jit(jax.vmap(sgd_step("scan")))
    contestants = {"naive": lambda: naive(params, batch)}
    for lanes in (1, 4):
        if seeds % (lanes * jax.local_device_count()) == 0:
            program, sharding = ours(lanes)
            placed = jax.device_put((params, batch), sharding)
            contestants[f"ours_{lanes}"] = lambda program=program, placed=placed: program(*placed)
    torch_program = torch_step(params, batch) if config.torch else None
    if torch_program is not None:
        contestants["torch"] = torch_program
    want = naive(params, batch)
    for name in [n for n in contestants if n.startswith("ours")]:
        for a, b in zip(jax.tree.leaves(contestants[name]()), jax.tree.leaves(want)):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    seconds = dict.fromkeys(contestants, float("inf"))
    for _ in range(config.turns):
        for name, function in contestants.items():
            seconds[name] = min(seconds[name], best_time(function, config.seconds))
    rates = {name: seeds / s for name, s in seconds.items()}
    fastest = max((n for n in rates if n.startswith("ours")), key=rates.__getitem__)
    flops = 6 * time_steps * batch_size * hidden * (hidden + FEATURES)
    row = dict(zip("SBTH", shape)) | {
        "naive": rates["naive"],
        "ours": rates[fastest],
        "torch": rates.get("torch"),
        "ratio_naive": rates[fastest] / rates["naive"],
        "ratio_torch": rates[fastest] / rates["torch"] if "torch" in rates else None,
        "lanes": int(fastest.removeprefix("ours_")),
        "gflops": {name: rate * flops / 1e9 for name, rate in rates.items()},
    }
    return row


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
