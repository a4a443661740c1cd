"""Clip a flax nnx model inside an optax chain, and read what the clipping did."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cliffs.clipping import clip_by_zscore, read_telemetry, with_telemetry


class Model(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(4, 16, rngs=rngs)
        self.out = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.tanh(self.hidden(x)))


def loss(model: Model, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((model(x) - y) ** 2)


@nnx.jit
def train_step(model: Model, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
    value, grads = nnx.value_and_grad(loss)(model, x, y)
    optimizer.update(model, grads)
    return value


def main() -> None:
    model = Model(nnx.Rngs(0))
    chain = optax.chain(with_telemetry(clip_by_zscore(2.5, max_norm=1.0, nonfinite="skip")), optax.adamw(1e-2))
    optimizer = nnx.Optimizer(model, chain, wrt=nnx.Param)
    x = jax.random.normal(jax.random.key(0), (32, 4))
    y = x.sum(1, keepdims=True)
    # One bad batch: targets a thousand times too large.
    scales = [1000.0 if step == 20 else 1.0 for step in range(30)]
    losses = [train_step(model, optimizer, x, y * scale) for scale in scales]
    log = read_telemetry(optimizer)
    print(f"loss {float(losses[-1]):.3f}; clipped {log['clip_count']:.0f} of {log['step']:.0f} steps")


if __name__ == "__main__":
    main()
