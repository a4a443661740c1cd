"""How fast a sweep trains: the bare step and the whole sweep, against naive vmap and PyTorch, and against the hardware.

Networks a second for one clipped SGD step each, 128 networks, batch 20, length 100, 50 units. `naive` is `jit(vmap)` of
plain autodiff on one device; `torch` a loop over `nn.RNN`; `torch_vmap` is `torch.func.vmap` of a hand-written network
(PyTorch's fused one has no batching rule) at the fastest of several chunk sizes; `ours` the step one network at a time
on every core, and `sweep` the whole of it end to end: the task drawn anew at each update, clipping, telemetry, records,
an evaluation now and then, without the compile (which is given apart). All contestants take turns and are given by
their best one. The ceilings: a product of large matrices, and XLA's own rate at the products of this size.
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping, recurrent, tasks, training
from cliffs._devices import over_devices
from cliffs.sweeps import sweep

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """The problem, and how long to measure."""

    seeds: int = 128
    batch: int = 20
    length: int = 100
    hidden: int = 50
    updates: int = 40
    """Of the whole sweep, which is timed at its second call."""
    seconds: float = 3.0
    """For each contestant and turn."""
    turns: int = 4
    chunk_sizes: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    """Of torch.func.vmap."""
    torch: bool = True


class Result(NamedTuple):
    """Rates in networks a second, and ratios."""

    metrics: dict[str, Any]
    rows: list[tuple[str, ...]]


def run(config: Config, say: Any = print) -> Result:
    """Measure everybody in turns."""
    from experiments.benchmarks import unroll

    shape = (config.seeds, config.batch, config.length, config.hidden)
    params, batch = unroll.problem(*shape)
    naive = jax.jit(jax.vmap(unroll.sgd_step("scan")))
    program, sharding = unroll.ours(1)
    placed = jax.device_put((params, batch), sharding)
    contestants: dict[str, Any] = {"naive": lambda: naive(params, batch), "ours": lambda: program(*placed)}
    if config.torch and unroll.torch_version() is not None:
        contestants["torch"] = unroll.torch_step(params, batch)
        contestants |= {
            f"torch_vmap_{n}": torch_vmap(params, batch, n) for n in config.chunk_sizes if n <= config.seeds
        }
        check_parity(naive(params, batch), contestants)
    contestants |= ceilings(config)
    whole, compile_seconds = whole_sweep(config)
    contestants["sweep"] = whole
    say(f"compiled in {compile_seconds:.1f} s")
    seconds = dict.fromkeys(contestants, np.inf)
    for _ in range(config.turns):
        for name, function in contestants.items():
            seconds[name] = min(seconds[name], unroll.best_time(function, config.seconds))
        say(", ".join(f"{name} {s:.3g} s" for name, s in seconds.items()))
    return report(config, seconds, compile_seconds)


def report(config: Config, seconds: dict[str, float], compile_seconds: float) -> Result:
    """Rates, ratios and fractions of the ceilings."""
    from experiments.benchmarks import unroll

    networks = {name: config.seeds / s for name, s in seconds.items() if name not in ("gemm", "small")}
    networks["sweep"] *= config.updates
    flops = 6 * config.length * config.batch * config.hidden * (config.hidden + unroll.FEATURES)
    peak = {name: FLOPS[name](config) / seconds[name] / 1e9 for name in ("gemm", "small")}
    chunked = {int(name.split("_")[-1]): rate for name, rate in networks.items() if name.startswith("torch_vmap")}
    ours, metrics = networks["ours"], {}
    metrics["networks_per_second"] = networks
    metrics["over_naive"] = ours / networks["naive"]
    metrics["over_torch_loop"] = ours / networks["torch"] if "torch" in networks else None
    metrics["over_torch_vmap"] = ours / max(chunked.values()) if chunked else None
    metrics["torch_vmap_best_chunk"] = max(chunked, key=chunked.__getitem__) if chunked else None
    metrics["sweep_over_bare_step"] = networks["sweep"] / ours
    metrics["gflops"] = {"ours": ours * flops / 1e9, **peak}
    metrics["fraction_of_gemm_peak"] = ours * flops / 1e9 / peak["gemm"]
    metrics["fraction_of_small_products"] = ours * flops / 1e9 / peak["small"]
    metrics |= {"compile_seconds": compile_seconds, "torch": unroll.torch_version()}
    wanted = {"over_naive": 4, "over_torch_loop": 10, "over_torch_vmap": 8, "sweep_over_bare_step": 0.8}
    rows = [(name, f"{metrics[name]:.2f}" if metrics[name] else "-", f"wanted {goal}") for name, goal in wanted.items()]
    rows += [(f"{name}, networks a second", f"{rate:.0f}", "") for name, rate in networks.items()]
    rows += [(name, f"{metrics[name]:.2f}", "") for name in ("fraction_of_gemm_peak", "fraction_of_small_products")]
    return Result(metrics, rows)


def whole_sweep(config: Config) -> tuple[Any, float]:
    """The sweep as a function without arguments, and what its first call took more than its second."""
    from experiments.benchmarks import unroll

    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    optimizer = optax.chain(clipping.with_telemetry(clipping.clip_by_global_norm(1.0)), optax.sgd(0.01))

    def init(run):
        params = recurrent.paper_init("smart_tanh", jax.random.key(run["seed"]), unroll.FEATURES, config.hidden, 4)
        return training.init_train_state(params, optimizer)

    def update(state, run):
        key = jax.random.fold_in(jax.random.key(run["seed"] + 1000), state.step)
        return training.train_step(state, tasks.temporal_order(key, config.batch, config.length), loss, optimizer)

    def evaluate(state, run):
        return {"error": loss(state.params, tasks.temporal_order(jax.random.key(7), config.batch, config.length))[1]}

    grid = {"seed": np.arange(config.seeds)}

    def once():
        return sweep(
            init, update, grid, config.updates, evaluate=evaluate, evaluate_every=config.updates, progress=False
        ).metrics.loss

    times = []
    for _ in range(2):
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return once, times[0] - times[1]


FLOPS = {
    "gemm": lambda config: 2 * GEMM**3 * jax.local_device_count(),
    "small": lambda config: 2 * SMALL_STEPS * config.batch * config.hidden**2 * jax.local_device_count(),
}
GEMM, SMALL_STEPS = 1024, 20_000


def ceilings(config: Config) -> dict[str, Any]:
    """A large product on every core; and the recurrent product of this problem again and again, on every core."""
    count = jax.local_device_count()
    large = jnp.ones((count, GEMM, GEMM)) / GEMM
    states = jnp.ones((count, config.batch, config.hidden))
    weights = jnp.ones((count, config.hidden, config.hidden)) / config.hidden

    def repeated(h, w):
        return jax.lax.fori_loop(0, SMALL_STEPS, lambda _, h: h @ w, h)

    gemm, small = jax.jit(over_devices(lambda a: a @ a)), jax.jit(over_devices(repeated))
    jax.block_until_ready((gemm(large), small(states, weights)))  # compiled before the clock runs
    return {"gemm": lambda: gemm(large), "small": lambda: small(states, weights)}


def torch_vmap(params: Any, batch: Any, chunk_size: int) -> Any:
    """One step of all networks by `torch.func`, `chunk_size` side by side."""
    import torch

    def tensor(x):
        return torch.tensor(np.array(x))

    names = ("w_rec", "w_in", "bias", "w_out", "b_out")
    values = dict(zip(names, map(tensor, (*params.rnn, *params.readout))))
    inputs, targets = tensor(batch.inputs), tensor(batch.targets).long()

    def loss(p, inputs, target):
        drive = inputs @ p["w_in"] + p["bias"]
        hidden = torch.zeros(drive.shape[1:])
        for u in drive:
            hidden = torch.tanh(hidden @ p["w_rec"] + u)
        return torch.nn.functional.cross_entropy(hidden @ p["w_out"] + p["b_out"], target)

    gradient = torch.func.vmap(torch.func.grad(loss), chunk_size=chunk_size)

    def step():
        grads = gradient(values, inputs, targets)
        norm = torch.stack([(g**2).flatten(1).sum(1) for g in grads.values()]).sum(0).sqrt()
        scale = torch.clamp(1.0 / norm, max=1.0)
        return {k: v - 0.01 * grads[k] * scale.reshape(-1, *[1] * (v.ndim - 1)) for k, v in values.items()}

    return step


def check_parity(want: Any, contestants: dict[str, Any]) -> None:
    """All compute the same step."""
    ours = jax.tree.leaves(contestants["ours"]())
    theirs = next(contestants[name]() for name in contestants if name.startswith("torch_vmap"))
    for a, b, c in zip(ours, jax.tree.leaves(want), theirs.values()):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(c.numpy(), b, rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
