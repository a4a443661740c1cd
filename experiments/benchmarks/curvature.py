"""What curvature costs in units of a gradient: Hessian-vector products, Lanczos, Gauss-Newton products.

The loss of the temporal order task (n = 50, T = 100, batch 20), on one CPU device. `hvp` is one
`hessian_vector_product`; `lanczos` is `eigenpairs` with ten iterations, against ten gradients one after another in one
program as well, and `products` the ten Hessian products alone, linearised once. All contestants take turns and each
turn gives its own ratio; the medians of the ratios are reported, so a slow spell of the machine hits both sides, and
beside them the ratio of the best turns. The last line is one JSON object.
"""

import dataclasses
import os
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cliffs import curvature, recurrent, tasks, training

BARS = {"hvp": 4.0, "lanczos": 3.0}


@dataclasses.dataclass(frozen=True)
class Config:
    """The loss and how often to measure."""

    hidden: int = 50
    length: int = 100
    batch: int = 20
    iterations: int = 10
    turns: int = 60
    double: bool = False
    """Also measure in float64."""


class Result(NamedTuple):
    """Times and ratios by dtype."""

    config: Config
    metrics: dict[str, Any]
    rows: list[tuple[str, str, str]]


def run(config: Config) -> Result:
    """Measure in float32, and in float64 where asked for."""
    ratios = {"float32": measure(config, jnp.float32)}
    if config.double:
        with jax.enable_x64(True):
            ratios["float64"] = measure(config, jnp.float64)
    rows = []
    for dtype, row in ratios.items():
        for name, words in (
            ("hvp", "one Hessian-vector product / one gradient"),
            ("lanczos", f"{config.iterations} Lanczos iterations / {config.iterations} gradients"),
        ):
            low, high = row[name]["quartiles"]
            spread = f"(quartiles {low:.2f} to {high:.2f}, best turns {row[name]['of_best']:.2f})"
            rows.append((f"{dtype}: {words}", f"{row[name]['median']:.2f} {spread}", f"at most {BARS[name]:g}"))
    return Result(config, {"ratios": ratios, "bars": BARS, "load_average": os.getloadavg()}, rows)


def contestants(config: Config, dtype: Any) -> dict:
    """Compiled functions without arguments, all of the same loss at the same parameters."""
    step = recurrent.rnn_step("tanh")
    params = recurrent.paper_init("smart_tanh", jax.random.key(0), 6, config.hidden, 4, dtype=dtype)
    batch = tasks.temporal_order(jax.random.key(1), config.batch, config.length)
    inputs = batch.inputs.astype(dtype)
    vector = jax.tree.map(lambda p: jax.random.normal(jax.random.key(2), p.shape, p.dtype), params)

    def loss_by(method):
        task_loss = training.classification_loss(step, method=method)
        return lambda p: task_loss(p, batch)[0]

    def logits(p):
        start = jnp.zeros((config.batch, config.hidden), dtype)
        return recurrent.readout(p.readout, recurrent.unroll(step, p.rnn, start, inputs)[-1])

    def cross_entropy(y):
        return optax.softmax_cross_entropy_with_integer_labels(y, batch.targets).mean()

    def gradients(p):
        # Each gradient moves the parameters a little: XLA may not take it out of the loop.
        def descend(p, _):
            return jax.tree.map(lambda x, g: x - 1e-3 * g, p, jax.grad(loss_by("auto"))(p)), None

        return jax.lax.scan(descend, p, length=config.iterations)[0]

    def lanczos(p):
        matvec = curvature.hessian_operator(loss_by("auto"), p)
        return curvature.eigenpairs(matvec, p, jax.random.key(3), num_iterations=config.iterations).values

    def products(p):
        matvec = curvature.hessian_operator(loss_by("auto"), p)

        def power(v, _):
            w = matvec(v)
            return jax.tree.map(lambda x: x / optax.tree.norm(w), w), None

        return jax.lax.scan(power, vector, length=config.iterations)[0]

    def reverse_over_reverse(p):
        return jax.grad(lambda q: optax.tree.vdot(jax.grad(loss_by("auto"))(q), vector))(p)

    functions = {
        "gradient": jax.grad(loss_by("auto")),
        "hvp": lambda p: curvature.hessian_vector_product(loss_by("auto"), p, vector),
        "hvp_reverse_over_reverse": reverse_over_reverse,
        "gauss_newton": lambda p: curvature.gauss_newton_operator(logits, cross_entropy, p)(vector),
        "gradients": gradients,
        "lanczos": lanczos,
        "products": products,
        "gradient_scan": jax.grad(loss_by("scan")),
        "hvp_scan": lambda p: curvature.hessian_vector_product(loss_by("scan"), p, vector),
    }
    compiled = {name: jax.jit(f).lower(params).compile() for name, f in functions.items()}
    return {name: lambda c=c: jax.block_until_ready(c(params)) for name, c in compiled.items()}


def measure(config: Config, dtype: Any) -> dict:
    """Medians over the turns of times and of ratios within a turn."""
    functions = contestants(config, dtype)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(config.turns + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    times = {name: np.array(s) for name, s in seconds.items()}

    def ratio(name, base):
        low, middle, high = np.quantile(times[name] / times[base], [0.25, 0.5, 0.75])
        return {"median": middle, "quartiles": [low, high], "of_best": times[name].min() / times[base].min()}

    return {
        "milliseconds": {name: 1e3 * np.median(t) for name, t in times.items()},
        "hvp": ratio("hvp", "gradient"),
        "lanczos": ratio("lanczos", "gradients"),
        "products": ratio("products", "gradients"),
        "hvp_reverse_over_reverse": ratio("hvp_reverse_over_reverse", "gradient"),
        "gauss_newton": ratio("gauss_newton", "gradient"),
        "hvp_of_plain_scan": ratio("hvp_scan", "gradient_scan"),
        "hvp_of_plain_scan_to_fast_gradient": ratio("hvp_scan", "gradient"),
    }


if __name__ == "__main__":
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
    from experiments import runner

    runner.main(__file__)
