"""The bifurcation diagram of a map of your own: a neuron that adapts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cliffs


class Neuron(NamedTuple):
    """A unit with self-excitation `w`, input `b`, and a slow negative feedback of strength `k`."""

    w: float = 6.0
    b: float = 0.0
    k: float = 1.5


def step(params: Neuron, state: jax.Array, inputs: None) -> jax.Array:
    x, a = state
    return jnp.stack([params.w * jnp.tanh(x) - params.k * a + params.b, 0.8 * a + 0.2 * jnp.tanh(x)])


def main() -> None:
    with jax.enable_x64(True):
        starts = jnp.stack([jnp.linspace(-6, 6, 7), jnp.linspace(-1, 1, 7)], axis=1)
        diagram = cliffs.bifurcation_diagram(step, Neuron(), "b", (-6.0, 6.0), starts)
        for point in diagram.special:
            print(f"{point.kind:15s} at b = {point.parameter:+.4f}, x = {float(np.ravel(point.state)[0]):+.4f}")
        print("complete" if diagram.complete else f"may miss something: {diagram.notes}")


if __name__ == "__main__":
    main()
