"""Lyapunov exponents of a network that is driven by noise: input can silence chaos."""

import jax
import numpy as np

import cliffs
from cliffs import recurrent, spectra


def main(hidden: int = 50, num_steps: int = 1000) -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    params = recurrent.RNNParams(
        w_rec=2.0 * jax.random.normal(keys[0], (hidden, hidden)) / hidden**0.5,
        w_in=jax.random.normal(keys[1], (1, hidden)),
    )
    step = cliffs.rnn_step("tanh")
    start = jax.random.normal(keys[2], (hidden,))
    noise = jax.random.normal(keys[3], (num_steps, 1))
    for strength in (0.0, 0.5, 2.0):
        exponents = cliffs.lyapunov_exponents(step, params, start, strength * noise, num_exponents=10, warmup=100)
        dimension = spectra.kaplan_yorke_dimension(exponents)
        kind = "chaotic" if exponents[0] > 0 else "stable"
        print(f"input {strength:3.1f}: largest exponent {float(exponents[0]):+.3f} per step ({kind}), ", end="")
        print(f"dimension {float(np.asarray(dimension)):.1f}")


if __name__ == "__main__":
    main()
