"""Jacobians along trajectories, products, temporal components, growth."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from cliffs import rnn
from cliffs.jacobians import (
    growth_report,
    jacobian_products,
    log_singular_values,
    step_jacobians,
    temporal_components,
)


def network(n=5, seed=0):
    k = jax.random.split(jax.random.key(seed), 4)
    params = rnn.RNNParams(jax.random.normal(k[0], (n, n)) / n**0.5, jax.random.normal(k[1], (2, n)), jnp.zeros(n))
    return params, jax.random.normal(k[2], (n,)), jax.random.normal(k[3], (12, 2))


@pytest.mark.parametrize("form", ["post_activation", "pre_activation"])
def test_analytic_jacobians_of_the_vanilla_network(x64, form):
    params, state, inputs = network()
    step = rnn.rnn_step("tanh", form)
    states = rnn.unroll(step, params, state, inputs)
    before = jnp.concatenate([state[None], states[:-1]])
    got = step_jacobians(step, params, before, inputs)
    for t in range(12):
        if form == "post_activation":
            want = jnp.diag(1 - states[t] ** 2) @ params.w_rec.T
        else:  # eq. 5, W^T diag(act'(x_{t-1}))
            want = params.w_rec.T @ jnp.diag(1 - jnp.tanh(before[t]) ** 2)
        np.testing.assert_allclose(got[t], want, atol=1e-14)


def test_parity_product_equals_the_derivative_of_the_unroll(x64):
    params, state, inputs = network()
    step = rnn.rnn_step("tanh")
    states = rnn.unroll(step, params, state, inputs)
    product = jacobian_products(step_jacobians(step, params, jnp.concatenate([state[None], states[:-1]]), inputs))
    want = jax.jacfwd(lambda x: rnn.unroll(step, params, x, inputs, method="scan"))(state)
    got = jnp.exp(product.log_scale)[:, None, None] * (product.q @ product.r)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("radius", [1.5, 0.5])
def test_analytic_ten_thousand_steps_neither_overflow_nor_vanish(radius):
    c, s = np.cos(0.3), np.sin(0.3)
    matrix = radius * jnp.array([[c, -s], [s, c]], jnp.float32)
    product = jacobian_products(jnp.broadcast_to(matrix, (10_000, 2, 2)))
    got = log_singular_values(product)[-1]
    np.testing.assert_allclose(got, 10_000 * np.log(radius), rtol=2e-5)


def test_parity_singular_values_against_fifty_digits(x64):
    matrices = jax.random.normal(jax.random.key(3), (6, 3, 3))
    got = log_singular_values(jacobian_products(matrices))[-1]
    with mpmath.workdps(50):
        product = mpmath.eye(3)
        for matrix in np.asarray(matrices):
            product = mpmath.matrix(matrix.tolist()) * product
        want = sorted((float(mpmath.log(v)) for v in mpmath.svd_r(product, compute_uv=False)), reverse=True)
    np.testing.assert_allclose(got, want, atol=1e-10)


def test_parity_temporal_components_sum_to_the_gradient(x64):
    params, state, inputs = network()
    step = rnn.rnn_step("tanh")

    def cost(x, t):
        return jnp.sum((x - 0.1 * t) ** 2)

    norms, total = jax.jit(lambda p: temporal_components(cost, step, p, state, inputs))(params)

    def whole(p):
        return jnp.sum(jax.vmap(cost)(rnn.unroll(step, p, state, inputs), jnp.arange(12)))

    for got, want in zip(jax.tree.leaves(total), jax.tree.leaves(jax.grad(whole)(params)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    assert (np.triu(norms, 1) == 0).all()
    assert (np.diagonal(norms) > 0).all()


def test_parity_reference_non_normal_example(x64, reference):
    want = reference["non_normal"]
    report = growth_report(jnp.array(want["W"]))
    assert float(report.spectral_radius) == pytest.approx(want["spectral_radius"], rel=1e-9)
    assert int(report.peak_power) == want["peak_k"]
    assert float(report.peak_power_norm) == pytest.approx(want["peak_norm"], rel=1e-12)
    assert float(report.power_norms[78]) == pytest.approx(want["norm_at_79"], rel=1e-10)
    assert float(report.largest_singular_value) > 1 > float(report.spectral_radius)


def test_wrong_use_names_the_argument():
    with pytest.raises(ValueError, match="activation"):
        growth_report(jnp.eye(2), "swish")
