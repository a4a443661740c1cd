"""Train an LSTM on temporal order, then find the fixed points that hold what it remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cliffs
from cliffs import recurrent, tasks, training


def main(updates: int = 150) -> None:
    step = recurrent.lstm_cell(8, forget_bias=1.0)
    loss = training.classification_loss(step)
    params = recurrent.ModelParams(
        step.init(jax.random.key(0), 6), recurrent.ReadoutParams(0.1 * jnp.ones((8, 4)), jnp.zeros(4))
    )
    chain = optax.chain(cliffs.clip_by_global_norm(1.0), optax.adam(1e-2))

    def sample(key):
        return tasks.temporal_order(key, 20, 12)

    state, history = training.fit(loss, chain, params, sample, jax.random.key(1), updates)
    print(f"loss {float(history.loss[0]):.2f} -> {float(history.loss[-20:].mean()):.2f} nats")
    # The mean of the four distractors, held fixed, is the input between the marks.
    held = jnp.array([0, 0, 0.25, 0.25, 0.25, 0.25])
    starts = tuple(jax.random.normal(key, (64, 8)) for key in jax.random.split(jax.random.key(2)))
    found = cliffs.find_fixed_points(step, state.params.rnn, starts, held, tolerance=1e-5)
    for kind, multipliers in zip(found.kind, found.multipliers, strict=True):
        print(f"{kind}: largest multiplier {np.abs(multipliers).max():.3f}")


if __name__ == "__main__":
    main()
