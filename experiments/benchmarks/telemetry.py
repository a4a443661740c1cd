"""The price of telemetry on a tree of a million parameters, against one SGD step (gradient, clip, update).

With and without are measured in turn within one run, since machines are noisy; medians are compared. Every strategy
is measured at one batch size, with a threshold that binds and with one that does not; `clip_by_global_norm` and `clip`
also at a small and a large batch, and against the bare optimiser update, without the gradient's computation. A network
of three layers does one product per parameter and example, so its step is as short as one of that size can be; a
recurrent network of as many parameters does one per time step, and some rules are measured on it, too. Where looking at
every step is dear, looking at every tenth is measured as well.
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
from cliffs.recurrent import RNNParams, rnn_step, unroll
from experiments import common


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the measurement."""

    repeats: int = 100
    batch: int = 128
    more_batches: tuple[int, ...] = (32, 512)
    recurrent_repeats: int = 15
    units: int = 950
    length: int = 50
    sequences: int = 20
    every: int = 10


SIZES = (784, 672, 672, 10)  # 1.0 M parameters; the middle matrix is square, for the spectral rules
SQUARE = "1/w"


def rules():
    """Name to (rule that leaves the gradient alone, rule that changes it); one of them alone where that is its nature.

    The last ones are not of this library: nothing is known of them but gradient and result.
    """
    return {
        "clip_by_global_norm": (clipping.clip_by_global_norm(1e3), clipping.clip_by_global_norm(1e-3)),
        "clip": (clipping.clip(1e3), clipping.clip(1e-5)),
        "clip_by_block_rms": (clipping.clip_by_block_rms(1e3), clipping.clip_by_block_rms(1e-6)),
        "adaptive_grad_clip": (clipping.adaptive_grad_clip(1e3), clipping.adaptive_grad_clip(1e-6)),
        "clip_by_leaf_norm": (clipping.clip_by_leaf_norm(1e3), clipping.clip_by_leaf_norm(1e-3)),
        "clip_by_group_norm": (clipping.clip_by_group_norm(1e3), clipping.clip_by_group_norm(1e-3)),
        "soft_clip_by_global_norm": (None, clipping.soft_clip_by_global_norm(1.0)),
        "clip_by_ema_norm": (clipping.clip_by_ema_norm(1e3), clipping.clip_by_ema_norm(1e-3)),
        "clip_by_norm_quantile": (clipping.clip_by_norm_quantile(1.0), None),
        "clip_by_zscore": (clipping.clip_by_zscore(1e3), clipping.clip_by_zscore(max_norm=1e-3)),
        "clip_by_ema_leaf_norm": (
            clipping.clip_by_ema_leaf_norm(1e3, warmup=1, max_norm=1e3),
            clipping.clip_by_ema_leaf_norm(1e-3, warmup=1),
        ),
        "clip_spikes": (clipping.clip_spikes(1e9, warmup=1), clipping.clip_spikes(1e-6, warmup=1)),
        "clip_or_shrink": (
            clipping.clip_or_shrink(1e3, recurrent=SQUARE.__eq__),
            clipping.clip_or_shrink(1e-3, recurrent=SQUARE.__eq__),
        ),
        "spectral_normalize": (
            clipping.spectral_normalize(1e3, select=SQUARE.__eq__),
            clipping.spectral_normalize(0.5, select=SQUARE.__eq__),
        ),
        "project_spectral_radius": (
            clipping.project_spectral_radius(1e3, select=SQUARE.__eq__),
            clipping.project_spectral_radius(0.5, select=SQUARE.__eq__),
        ),
        "optax.clip": (optax.clip(1e3), optax.clip(1e-5)),
        "optax.adam": (None, optax.adam(1e-3)),
    }


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


def recurrent_network(units: int):
    """Parameters and loss of a recurrent network with the same number of parameters."""
    keys = jax.random.split(jax.random.key(2))
    weights = jax.random.normal(keys[0], (units, units)) / units**0.5
    params = RNNParams(0.9 * weights, 0.1 * jax.random.normal(keys[1], (100, units)), jnp.zeros(units))

    def loss(params, batch):
        inputs, targets = batch
        states = unroll(rnn_step("tanh"), params, jnp.zeros((inputs.shape[1], units)), inputs)
        return jnp.mean((states[-1] - targets) ** 2)

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


def compare(plain, recorded, data, repeats, every):
    """Median seconds of a step of both, measured in turn, and the median of the ratios of neighbours.

    What is measured at once are `every` steps, of which one looks.
    """
    for run in (plain, recorded) * 2 * every:
        run(data)
    times = []
    for _ in range(repeats):
        pair = []
        for run in (plain, recorded):
            begun = time.perf_counter()
            for _ in range(every):
                run(data)
            pair.append((time.perf_counter() - begun) / every)
        times.append(pair)
    a, b = np.array(times).T
    return float(np.median(a)), float(np.median(b)), float(np.median(b / a))


def main(config: Config) -> dict:
    """Measure and write the result; the last printed line is one JSON object."""
    started = time.perf_counter()
    params, loss = network()

    def training(loss):
        def full(optimizer, state, batch):
            params, opt_state = state
            updates, opt_state = optimizer.update(jax.grad(loss)(params, batch), opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return full

    def bare(optimizer, state, grads):
        params, opt_state = state
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    rows = []

    def measure(name, clipped, rule, step, size, function, params, data, repeats, every=1):
        recorded = clipping.with_telemetry(rule, every=every)
        pair = stepper(rule, params, function), stepper(recorded, params, function)
        a, b, ratio = compare(*pair, data, repeats, every)
        row = {"rule": name, "clipped": clipped, "step": step, "batch": size, "every": every}
        rows.append(row | {"plain_ms": 1e3 * a, "telemetry_ms": 1e3 * b, "overhead": ratio - 1})
        state = "changed" if clipped else "left alone"
        looks = f"every {every}:" if every > 1 else ":"
        print(
            f"{name:26} {state:10} {step:20} batch {size} {looks:10} {1e3 * a:7.3f} ms, {100 * (ratio - 1):+6.1f} %",
            flush=True,
        )

    inputs = jax.random.normal(jax.random.key(3), (config.length, config.sequences, 100))
    sequences = inputs, jnp.zeros((config.sequences, config.units))
    recurrent, recurrent_loss = recurrent_network(config.units)
    dear = ("clip", "adaptive_grad_clip", "clip_spikes", "optax.clip", "optax.adam")
    spectral = ("spectral_normalize", "project_spectral_radius")
    for name, pair in rules().items():
        for clipped, rule in enumerate(pair):
            if rule is None:
                continue
            closer = name in ("clip_by_global_norm", "clip")
            for size in (config.batch, *(config.more_batches if closer else ())):
                data = (jax.random.normal(jax.random.key(1), (size, SIZES[0])), jnp.arange(size) % SIZES[-1])
                step = "gradient, rule, SGD"
                measure(name, bool(clipped), rule, step, size, training(loss), params, data, config.repeats)
                if size == config.batch and name in dear + spectral:
                    settings = training(loss), params, data, config.repeats // 2
                    measure(name, bool(clipped), rule, step, size, *settings, every=config.every)
            if closer:
                grads = jax.tree.map(lambda x: 0.1 * x, params)
                measure(name, bool(clipped), rule, "rule, SGD", None, bare, params, grads, config.repeats)
            if closer or name in dear:
                step, repeats = "recurrent, rule, SGD", config.recurrent_repeats
                function = training(recurrent_loss)
                measure(name, bool(clipped), rule, step, config.sequences, function, recurrent, sequences, repeats)
    count = sum(x.size for x in jax.tree.leaves(params))
    record = {"parameters": count, "device": common.machine()["device"], "rows": rows}
    common.save("telemetry", metrics=record, settings=dataclasses.asdict(config), started=started)
    print(json.dumps(common.plain(record)))
    return record


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Config))
