"""Find the cliff on a line through your own loss, and how much steeper than the valley it is."""

import jax
import jax.numpy as jnp

import cliffs
from cliffs import landscape, recurrent, tasks, training


def main(length: int = 60) -> None:
    step = cliffs.rnn_step("tanh")
    params = recurrent.paper_init("smart_tanh", jax.random.key(0), 6, 20, 4)
    # Twice the recurrent weights: past the point where the network becomes expansive.
    params = params._replace(rnn=params.rnn._replace(w_rec=2.0 * params.rnn.w_rec))
    loss = training.at_batch(training.classification_loss(step), tasks.temporal_order(jax.random.key(1), 4, length))
    direction = landscape.random_direction(jax.random.key(2), params)
    with jax.enable_x64(True):
        params, direction = jax.tree.map(lambda x: jnp.asarray(x, float), (params, direction))
        wall = cliffs.cliff_profile(loss, params, direction, (-0.5, 0.5), num_points=129, chunk_size=1)
    print(f"steepest at offset {wall.position:+.6f}: slope {wall.peak:.3g}, {wall.ratio:.0f} times the median")
    print(f"width {wall.width:.2g}, gradient norm {wall.grad_norm:.3g}, resolved: {bool(wall.resolved)}")


if __name__ == "__main__":
    main()
