"""How far back does a gradient reach? Norms of dE/dx_t, and the singular values of the Jacobian product."""

import jax
import jax.numpy as jnp

import cliffs
from cliffs import recurrent, spectra


def main(hidden: int = 30, length: int = 60) -> None:
    step = cliffs.rnn_step("tanh")
    inputs = 0.1 * jax.random.normal(jax.random.key(1), (length, 2))
    start = jnp.zeros(hidden)
    print("scale   largest singular value    ||dE/dx_0||")
    for scale in (0.5, 1.0, 2.0):
        w_rec = recurrent.orthogonal(scale)(jax.random.key(0), (hidden, hidden))
        params = recurrent.RNNParams(w_rec, 0.1 * jnp.ones((2, hidden)))

        def last(x0, params=params):
            return cliffs.unroll(step, params, x0, inputs)[-1].sum()

        states = jnp.concatenate([start[None], cliffs.unroll(step, params, start, inputs)])
        product = spectra.jacobian_products(spectra.step_jacobians(step, params, states[:-1], inputs))
        log_largest = spectra.log_singular_values(product)[-1].max()
        print(f"{scale:5.1f}   exp({float(log_largest):+8.2f})   {float(jnp.linalg.norm(jax.grad(last)(start))):20.3g}")


if __name__ == "__main__":
    main()
