"""Clip an equinox model each array by its own size (AGC), with a frozen layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from cliffs.clipping import adaptive_grad_clip, read_telemetry, with_telemetry


def main() -> None:
    model = eqx.nn.MLP(3, 1, 16, 2, key=jax.random.key(0))
    # Train all but the first layer: its gradients are None.
    trained = jax.tree.map(eqx.is_inexact_array, model)
    trained = eqx.tree_at(lambda m: (m.layers[0].weight, m.layers[0].bias), trained, (False, False))
    optimizer = optax.chain(with_telemetry(adaptive_grad_clip(0.05)), optax.adam(1e-2))
    x = jax.random.normal(jax.random.key(1), (64, 3))
    y = jnp.sin(x).sum(1, keepdims=True)

    @eqx.filter_value_and_grad
    def loss(live, frozen):
        return jnp.mean((jax.vmap(eqx.combine(live, frozen))(x) - y) ** 2)

    @eqx.filter_jit
    def step(model, state):
        live, frozen = eqx.partition(model, trained)
        value, grads = loss(live, frozen)
        updates, state = optimizer.update(grads, state, live)
        return eqx.apply_updates(model, updates), state, value

    state = optimizer.init(eqx.filter(model, trained))
    model, state, first = step(model, state)
    value = first
    for _ in range(99):
        model, state, value = step(model, state)
    log = read_telemetry(state)
    print(f"loss {float(first):.3f} -> {float(value):.3f}; clipped {log['clip_count']:.0f} of {log['step']:.0f} steps")


if __name__ == "__main__":
    main()
