"""Seconds for a 200 x 200 surface of the temporal order loss at T = 100, 50 units, with and without gradient.

    python experiments/benchmarks/surface.py

"ours" is `cliffs.landscape.surface`, one point at a time on each of one host device per core; "naive" is what one
writes first, `jit(vmap)` over 256 points side by side with a plain scan, on one device. Both take turns on patches of
the surface in the same run, since machines are noisy; the whole surface is then computed once. The last line is one
JSON object.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from cliffs.sweeps import use_all_cores

use_all_cores()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from cliffs import recurrent, tasks, training  # noqa: E402
from cliffs.landscape import random_direction, shift, surface  # noqa: E402
from experiments import common  # noqa: E402


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


def main(config: Config):
    """Ratios on patches, then the whole surface; print and save."""
    started = time.perf_counter()
    batch = tasks.temporal_order(jax.random.key(1), config.batch, config.length)
    params = recurrent.paper_init("basic_tanh", jax.random.key(0), 6, config.hidden, 4)
    directions = [random_direction(k, params, normalize="filter") for k in jax.random.split(jax.random.key(2))]
    fast = training.classification_loss(recurrent.rnn_step("tanh"))
    plain = training.classification_loss(recurrent.rnn_step("tanh"), method="scan")
    devices = jax.local_devices()

    def ours(first, second, gradient):
        axes = [first, second]
        return surface(
            lambda p: fast(p, batch)[0], params, directions, axes, gradient=gradient, chunk_size=1, devices=devices
        )  # fmt: skip

    move = shift(params, directions)

    def naive(first, second, gradient):
        grid = jnp.stack(jnp.meshgrid(first, second, indexing="ij"), -1).reshape(-1, 2)

        def at(point):
            if not gradient:
                return plain(move(point), batch)[0]
            value, grads = jax.value_and_grad(lambda p: plain(p, batch)[0])(move(point))
            return value, optax.tree.norm(grads)

        return jax.lax.map(at, grid, batch_size=256)

    axis = jnp.linspace(-1, 1, config.points)
    patch = (jnp.linspace(-1, 1, config.patch // 16), jnp.linspace(-1, 1, 16))
    rows = []
    for gradient in (False, True):
        mine = jax.jit(lambda a, b, g=gradient: ours(a, b, g))
        other = jax.jit(lambda a, b, g=gradient: naive(a, b, g))
        got, want = mine(*patch), other(*patch)
        np.testing.assert_allclose(np.ravel(got.loss), want[0] if gradient else want, rtol=1e-3)
        seconds = {"ours": [], "naive": []}
        for _ in range(config.turns):
            for name, function in (("ours", mine), ("naive", other)):
                begun = time.perf_counter()
                jax.block_until_ready(function(*patch))
                seconds[name].append(time.perf_counter() - begun)
        lowered = mine.lower(axis, axis).compile()
        begun, worked = time.perf_counter(), time.process_time()
        whole = jax.block_until_ready(lowered(axis, axis))
        elapsed, worked = time.perf_counter() - begun, time.process_time() - worked
        best = {name: min(times) for name, times in seconds.items()}
        rows.append({
            "gradient": gradient, "points": config.points**2, "seconds": elapsed, "processor_seconds": worked,
            "points_per_second": config.points**2 / elapsed,
            "patch_points_per_second": {name: config.patch / s for name, s in best.items()},
            "ratio_naive": best["naive"] / best["ours"],
            "ratio_naive_of_medians": float(np.median(seconds["naive"]) / np.median(seconds["ours"])),
            "finite": bool(np.isfinite(whole.loss).all()), "largest_loss": float(whole.loss.max()),
        })  # fmt: skip
        print(
            f"{'loss and gradient' if gradient else 'loss'}: {config.points} x {config.points} in {elapsed:.1f} s "
            f"({worked:.1f} s of processor time); "
            f"naive / ours {rows[-1]['ratio_naive']:.2f}", flush=True,
        )  # fmt: skip
    record = {
        "surfaces": rows, "settings": dataclasses.asdict(config), "device": common.machine(),
        "load_average": common.plain(list(os.getloadavg())),
    }  # fmt: skip
    common.save("surface", metrics={k: record[k] for k in ("surfaces", "load_average")},
                settings=dataclasses.asdict(config), started=started)  # fmt: skip
    print(json.dumps(common.plain(record)))


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
