"""Draw a slice of a loss with a clipped and an unclipped descent on it (the paper's Fig. 3, on your own function)."""

import pathlib
import tempfile

import jax.numpy as jnp
import matplotlib
import numpy as np
import optax

import cliffs
from cliffs import landscape

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def loss(params):
    """A valley that runs into a wall at x = 0.3."""
    x, y = params
    return 0.2 * (x - 1) ** 2 + 0.1 * y**2 + 2 * (1 + jnp.tanh(100 * (x - 0.3)))


def main(folder: pathlib.Path | None = None) -> None:
    folder = folder or pathlib.Path(tempfile.mkdtemp())
    axes = jnp.linspace(-1, 1, 60), jnp.linspace(-1, 1, 50)
    origin = jnp.zeros(2)
    slice_ = cliffs.surface(loss, origin, [jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])], axes)
    fig, ax = plt.subplots(layout="constrained")
    image = ax.contourf(*axes, np.log10(slice_.loss.T), levels=30, cmap="Greys")
    for name, clip in (("clipped", cliffs.clip_by_global_norm(0.5)), ("not clipped", optax.identity())):
        path = landscape.descend(loss, jnp.array([-0.8, 0.8]), optax.chain(clip, optax.sgd(0.1)), 60)
        ax.plot(*path.params.T, ".-", label=name)
        longest = np.linalg.norm(np.diff(path.params, axis=0), axis=1).max()
        print(f"{name}: longest step {longest:.2f}, final loss {float(path.loss[-1]):.3f}")
    ax.set(xlim=(-1, 1), ylim=(-1, 1), xlabel="x", ylabel="y")
    ax.legend()
    fig.colorbar(image, label="log10 loss")
    fig.savefig(folder / "surface.png")


if __name__ == "__main__":
    main()
