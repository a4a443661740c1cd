"""The leading Hessian eigenvalues of any loss, and whether the gradient points along them."""

import jax
import jax.numpy as jnp

from cliffs import curvature, recurrent, tasks, training


def main() -> None:
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    params = recurrent.paper_init("smart_tanh", jax.random.key(0), 6, 20, 4)
    here = training.at_batch(loss, tasks.temporal_order(jax.random.key(1), 50, 20))

    @jax.jit
    def look(params):
        product = curvature.hessian_operator(here, params)
        pairs = curvature.eigenpairs(product, params, jax.random.key(2), num_leading=3, num_iterations=20)
        gradient = jax.grad(here)(params)
        return pairs, curvature.alignment(gradient, pairs), curvature.curvature_along(product, gradient)

    pairs, aligned, along = look(params)
    print("largest eigenvalues", [f"{float(v):.3g}" for v in pairs.values])
    print(f"share of the gradient in their space {float(aligned.share[-1]):.2f}, curvature along it {float(along):.3g}")
    print("converged:", bool(jnp.all(pairs.converged)))


if __name__ == "__main__":
    main()
