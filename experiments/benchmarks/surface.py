"""Seconds for a 200 x 200 surface of the temporal order loss at T = 100, 50 units, with and without gradient.

"ours" is `cliffs.landscape.surface`, one point at a time on each of one host device per core; "naive" is what one
writes first, `jit(vmap)` over 256 points side by side with a plain scan, on one device. Both take turns on patches of
the surface in the same run, since machines are noisy; the whole surface is then computed once. The last line is one
JSON object.
"""

import dataclasses
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import recurrent, tasks, training
from cliffs.landscape import random_direction, shift, surface

ALL_CORES = True


@dataclasses.dataclass(frozen=True)
class Config:
    """The surface and how long to measure."""

    points: int = 200
    """Along each of the two directions."""
    hidden: int = 50
    length: int = 100
    batch: int = 20
    turns: int = 3
    patch: int = 512
    """Points of one turn."""


class Result(NamedTuple):
    """Rates with and without gradient."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, str]]


def run(config: Config) -> Result:
    """Ratios on patches, then the whole surface."""
    surfaces = [measure(config, gradient) for gradient in (False, True)]
    rows = []
    for row in surfaces:
        words = f"{'loss and gradient' if row['gradient'] else 'loss'}: {config.points} x {config.points}"
        seconds = f"{row['seconds']:.1f} s ({row['processor_seconds']:.1f} s of processor time)"
        rows.append((words, f"{seconds}; naive / ours {row['ratio_naive']:.2f}"))
    return Result(config, {"surfaces": surfaces, "load_average": list(os.getloadavg())}, rows)


def contestants(config: Config, gradient: bool) -> dict[str, jax.stages.Wrapped]:
    """Jitted functions of the two axes: ours, and what one writes first."""
    batch = tasks.temporal_order(jax.random.key(1), config.batch, config.length)
    params = recurrent.paper_init("basic_tanh", jax.random.key(0), 6, config.hidden, 4)
    directions = [random_direction(k, params, normalize="filter") for k in jax.random.split(jax.random.key(2))]
    fast = training.classification_loss(recurrent.rnn_step("tanh"))
    plain = training.classification_loss(recurrent.rnn_step("tanh"), method="scan")
    move = shift(params, directions)

    def ours(first, second):
        options = {"gradient": gradient, "chunk_size": 1, "devices": jax.local_devices()}
        return surface(lambda p: fast(p, batch)[0], params, directions, [first, second], **options)

    def naive(first, second):
        grid = jnp.stack(jnp.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)

        def at(point):
            if not gradient:
                return plain(move(point), batch)[0]
            value, grads = jax.value_and_grad(lambda p: plain(p, batch)[0])(move(point))
            return value, optax.tree.norm(grads)

        return jax.lax.map(at, grid, batch_size=256)

    return {"ours": jax.jit(ours), "naive": jax.jit(naive)}


def measure(config: Config, gradient: bool) -> dict[str, Any]:
    """Both take turns on a patch; then ours on the whole surface."""
    functions = contestants(config, gradient)
    patch = (jnp.linspace(-1, 1, config.patch // 16), jnp.linspace(-1, 1, 16))
    got, want = functions["ours"](*patch), functions["naive"](*patch)
    np.testing.assert_allclose(np.ravel(got.loss), want[0] if gradient else want, rtol=1e-3)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(config.turns):
        for name, function in functions.items():
            begun = time.perf_counter()
            jax.block_until_ready(function(*patch))
            seconds[name].append(time.perf_counter() - begun)
    axis = jnp.linspace(-1, 1, config.points)
    lowered = functions["ours"].lower(axis, axis).compile()
    begun, worked = time.perf_counter(), time.process_time()
    whole = jax.block_until_ready(lowered(axis, axis))
    elapsed, worked = time.perf_counter() - begun, time.process_time() - worked
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "gradient": gradient,
        "points": config.points**2,
        "seconds": elapsed,
        "processor_seconds": worked,
        "points_per_second": config.points**2 / elapsed,
        "patch_points_per_second": {name: config.patch / s for name, s in best.items()},
        "ratio_naive": best["naive"] / best["ours"],
        "ratio_naive_of_medians": float(np.median(seconds["naive"]) / np.median(seconds["ours"])),
        "finite": bool(np.isfinite(whole.loss).all()),
        "largest_loss": float(whole.loss.max()),
    }


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
