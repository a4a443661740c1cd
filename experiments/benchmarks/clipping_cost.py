"""What clipping costs: compile time by the number of leaves, steps on large trees and under vmap, and telemetry.

Every strategy of the registry against `optax.clip_by_global_norm`, and optax's own rules where it has the same:

- `leaves`: one jitted update of a tree of small leaves; trace, lower, compile and step apart, in seconds of processor
  time (machines are noisy, and compilation runs on several threads);
- `large`: an update of 100 million parameters in 16 leaves, with the memory it needs besides arguments and results;
- `runs`: 64 runs of a recurrent network's tree under `vmap`;
- `telemetry`: one step of SGD with and without `with_telemetry`, for a threshold that binds and one that does not.

What is compared is measured in turn within one process.
"""

import contextlib
import ctypes
import dataclasses
import gc
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    leaves: tuple[int, ...] = (50, 500, 2000)
    parameters: int = 100_000_000
    large_leaves: int = 16
    runs: int = 64
    units: int = 50
    repeats: int = 10
    telemetry_repeats: int = 50
    batch: int = 128
    only: tuple[str, ...] = ()
    """Names of strategies; all if empty."""
    parts: tuple[str, ...] = ("leaves", "large", "runs", "telemetry")


class Result(NamedTuple):
    """Rows of each part, and their ratios by rule."""

    metrics: dict[str, Any]


OPTAX = {
    "clip": optax.clip,
    "clip_by_global_norm": optax.clip_by_global_norm,
    "clip_by_block_rms": optax.clip_by_block_rms,
    "adaptive_grad_clip": optax.adaptive_grad_clip,
}
BASE = "optax.clip_by_global_norm"


def rules(config: Config, threshold: float) -> dict[str, optax.GradientTransformation]:
    """optax's rules, ours, and two of ours with telemetry; the first is what all are compared with."""
    chosen = [n for n in clipping.STRATEGIES if not config.only or n in config.only]
    made = {BASE: optax.clip_by_global_norm(threshold)}
    made |= {f"optax.{n}": OPTAX[n](threshold) for n in chosen if n in OPTAX}
    ours = {n: clipping.STRATEGIES[n].make(threshold) for n in chosen}
    return made | ours | {f"with_telemetry({n})": clipping.with_telemetry(rule) for n, rule in ours.items()}


def small_leaves(count: int) -> dict:
    """A tree of small leaves; the shapes repeat, as those of the layers of a network do."""
    shapes = ((8, 8), (8,), (8, 4), (4,))
    tree = {f"layer{i}": {"kernel": jnp.ones(shapes[i % 4])} for i in range(1, count)}
    return {"layer0": {"w_rec": jnp.ones((8, 8))}} | tree


def compile_costs(transform: optax.GradientTransformation, params: dict) -> dict[str, float]:
    """Processor seconds of tracing, lowering and compiling one update, and its fastest step in wall seconds."""
    state = transform.init(params)
    clock = time.process_time
    times = [clock()]
    traced = jax.jit(transform.update).trace(params, state, params)
    times.append(clock())
    lowered = traced.lower()
    times.append(clock())
    compiled = lowered.compile()
    times.append(clock())
    step = min(timed(compiled, params, state, params) for _ in range(5))
    trace, lower, compile_ = np.diff(times)
    return {"trace": trace, "lower": lower, "compile": compile_, "step": step, "total": trace + lower + compile_}


def timed(function, *args) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - begun


def measure_leaves(config: Config) -> list[dict]:
    """Compile costs of all rules at every number of leaves."""
    rows = []
    compile_costs(optax.clip_by_global_norm(0.5), small_leaves(3))  # what is loaded at a first use does not count
    for count in config.leaves:
        base = None
        for name, rule in rules(config, 0.5).items():
            costs = compile_costs(rule, small_leaves(count))
            base = base or costs["total"]
            rows.append({"leaves": count, "rule": name, **costs, "ratio": costs["total"] / base})
            print(f"{count:5} leaves {name:46} {costs['total']:7.2f} s, {rows[-1]['ratio']:5.2f}", flush=True)
    return rows


def compare_steps(config: Config, params, make_grads, batched: bool) -> list[dict]:
    """Steps of all rules in turn, against the first; medians of the ratios of neighbours."""
    rows = []
    everything = rules(config, 1.0)
    base_rule = everything.pop(BASE)

    def build(rule):
        init = jax.vmap(rule.init) if batched else rule.init
        update = jax.jit(jax.vmap(rule.update) if batched else rule.update)
        state = jax.block_until_ready(init(params))
        lowered = update.lower(params, state, params).compile()
        _, state = lowered(make_grads, state, params)
        return lowered, state

    base, base_state = build(base_rule)
    for name, rule in everything.items():
        compiled, state = build(rule)
        memory = compiled.memory_analysis()
        times = []
        for _ in range(config.repeats):
            times.append((timed(base, make_grads, base_state, params), timed(compiled, make_grads, state, params)))
        plain, ours = np.array(times).T
        rows.append(
            {
                "rule": name,
                "milliseconds": 1e3 * float(np.median(ours)),
                "ratio": float(np.median(ours / plain)),
                "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
            }
        )
        del compiled, state
        give_back_memory()
        row = rows[-1]
        print(f"{name:46} {row['milliseconds']:9.2f} ms, {row['ratio']:5.2f}, temporaries {row['temporary_bytes']}")
    return rows


def give_back_memory() -> None:
    """Let glibc, where it is in use, return what has been freed: rule by rule the large trees would fill the memory."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def measure_large(config: Config) -> list[dict]:
    """One update of a large tree."""
    side = int((config.parameters / config.large_leaves) ** 0.5)
    keys = jax.random.split(jax.random.key(0), config.large_leaves)
    names = ["w_rec", *(f"kernel{i}" for i in range(1, config.large_leaves))]
    params = {name: jax.random.normal(key, (side, side)) for name, key in zip(names, keys)}
    return compare_steps(config, params, params, batched=False)


def measure_runs(config: Config) -> list[dict]:
    """One update of many small networks side by side."""
    keys = jax.random.split(jax.random.key(0), 4)
    n, runs = config.units, config.runs
    shapes = {"w_rec": (n, n), "w_in": (6, n), "bias": (n,), "w_out": (n, 4)}
    params = {k: jax.random.normal(key, (runs, *shape)) for key, (k, shape) in zip(keys, shapes.items())}
    return compare_steps(config, params, params, batched=True)


def network():
    """Parameters and loss of a network of three layers with a million parameters; the middle one is square."""
    sizes = (784, 672, 672, 10)
    keys = jax.random.split(jax.random.key(0), len(sizes))
    names = ("first", "w_rec", "last")
    params = {name: jax.random.normal(key, (m, n)) / m**0.5 for name, key, m, n in zip(names, keys, sizes, sizes[1:])}

    def loss(params, batch):
        inputs, targets = batch
        hidden = jax.nn.relu(jax.nn.relu(inputs @ params["first"]) @ params["w_rec"])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["last"], targets).mean()

    return params, loss


def measure_telemetry(config: Config) -> list[dict]:
    """One step of SGD (gradient, rule, update) with and without telemetry."""
    params, loss = network()
    batch = jax.random.normal(jax.random.key(1), (config.batch, 784)), jnp.arange(config.batch) % 10
    rows = []
    for name, info in clipping.STRATEGIES.items():
        if config.only and name not in config.only:
            continue
        for state, threshold in (("left alone", 1e6), ("changed", 1e-3)):
            rule = info.make(threshold)
            runs = []
            for transform in (rule, clipping.with_telemetry(rule)):
                optimizer = optax.chain(transform, optax.sgd(1e-3))

                def step(carry, batch, optimizer=optimizer):
                    params, opt_state = carry
                    updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state, params)
                    return optax.apply_updates(params, updates), opt_state

                carry = (params, optimizer.init(params))
                compiled = jax.jit(step).lower(carry, batch).compile()
                runs.append((compiled, compiled(carry, batch)))
            times = [[timed(f, c, batch) for f, c in runs] for _ in range(config.telemetry_repeats)]
            plain, recorded = np.array(times).T
            price = 100 * (float(np.median(recorded / plain)) - 1)
            row = {"rule": name, "state": state, "milliseconds": 1e3 * float(np.median(plain)), "price_percent": price}
            rows.append(row)
            print(f"telemetry around {name:26} {state:10} {row['milliseconds']:7.2f} ms, {price:+6.1f} %", flush=True)
    return rows


MEASURES = {"leaves": measure_leaves, "large": measure_large, "runs": measure_runs, "telemetry": measure_telemetry}


def run(config: Config, say: Any = print) -> Result:
    """Measure the parts that are asked for."""
    rows: dict[str, Any] = {}
    cached = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    # A program from the cache of an earlier run would not be compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        for part in config.parts:
            say(part)
            rows[part] = MEASURES[part](config)
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    ratios = {
        part: {(f"{r['leaves']} " if "leaves" in r else "") + r["rule"]: round(r["ratio"], 3) for r in rows[part]}
        for part in rows
        if part != "telemetry"
    }
    prices = {f"{r['rule']}, {r['state']}": round(r["price_percent"], 1) for r in rows.get("telemetry", [])}
    return Result({"ratios": ratios, "telemetry_percent": prices, "rows": rows})


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
