"""The price of telemetry on a tree of a million parameters, against one SGD step (gradient, clip, update).

With and without are measured in turn within one run, since machines are noisy; medians are compared. Also given: the
price against the bare optimiser update, without the gradient's computation, for small and for usual batches.
"""

import dataclasses
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import clipping
from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    repeats: int = 60
    batches: tuple[int, ...] = (32, 128, 512)


SIZES = (784, 768, 512, 10)  # 1.0 M parameters


def network():
    """Parameters and loss of a three-layer network."""
    keys = jax.random.split(jax.random.key(0), len(SIZES))
    params = [
        {"w": jax.random.normal(k, (m, n)) / m**0.5, "b": jnp.zeros(n)} for k, m, n in zip(keys, SIZES, SIZES[1:])
    ]

    def loss(params, batch):
        x, y = batch
        for layer in params[:-1]:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return optax.softmax_cross_entropy_with_integer_labels(x @ params[-1]["w"] + params[-1]["b"], y).mean()

    return params, loss


def stepper(transform, params, step):
    """A donated, jitted step bound to its own copy of the parameters."""
    optimizer = optax.chain(transform, optax.sgd(1e-3))
    state = (jax.tree.map(jnp.copy, params), optimizer.init(params))
    compiled = jax.jit(lambda state, data: step(optimizer, state, data), donate_argnums=0)
    box = [state]

    def run(data):
        box[0] = compiled(box[0], data)
        jax.block_until_ready(box[0])

    return run


def compare(plain, recorded, data, repeats):
    """Median seconds of both, measured in turn, and the median of the ratios of neighbours."""
    for run in (plain, recorded) * 3:
        run(data)
    times = []
    for _ in range(repeats):
        pair = []
        for run in (plain, recorded):
            begun = time.perf_counter()
            run(data)
            pair.append(time.perf_counter() - begun)
        times.append(pair)
    a, b = np.array(times).T
    return float(np.median(a)), float(np.median(b)), float(np.median(b / a))


def main(config: Config) -> dict:
    """Measure and write the result; the last printed line is one JSON object."""
    started = time.perf_counter()
    params, loss = network()

    def full(optimizer, state, batch):
        params, opt_state = state
        updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def bare(optimizer, state, grads):
        params, opt_state = state
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    rows = []
    # A threshold that no gradient reaches, as in most steps of most runs; and one that every gradient exceeds.
    # A rule of this library that rescales says itself what it did; whatever else is wrapped has to be looked at.
    told, seen = clipping.clip_by_global_norm, clipping.clip
    for make, threshold in ((told, 1e3), (told, 1e-3), (seen, 1e3), (seen, 1e-5)):
        rule = make(threshold)
        common_keys = {"rule": make.__name__, "clipped": threshold < 1}
        for batch in config.batches:
            data = (jax.random.normal(jax.random.key(1), (batch, SIZES[0])), jnp.arange(batch) % SIZES[-1])
            pair = stepper(rule, params, full), stepper(clipping.with_telemetry(rule), params, full)
            a, b, ratio = compare(*pair, data, config.repeats)
            rows.append(common_keys | {"step": "gradient, clip, SGD", "batch": batch, "plain_ms": 1e3 * a,
                                       "telemetry_ms": 1e3 * b, "overhead": ratio - 1})  # fmt: skip
        grads = jax.tree.map(lambda x: 0.1 * x, params)
        pair = stepper(rule, params, bare), stepper(clipping.with_telemetry(rule), params, bare)
        a, b, ratio = compare(*pair, grads, config.repeats)
        rows.append(common_keys | {"step": "clip, SGD", "batch": None, "plain_ms": 1e3 * a, "telemetry_ms": 1e3 * b,
                                   "overhead": ratio - 1})  # fmt: skip
    count = sum(x.size for x in jax.tree.leaves(params))
    record = {"parameters": count, "device": common.machine()["device"], "rows": rows}
    common.save("telemetry", metrics=record, settings=dataclasses.asdict(config), started=started)
    print(json.dumps(common.plain(record)))
    return record


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
