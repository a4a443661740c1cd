"""Jacobians along trajectories, products, eigenvalues, temporal components."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from cliffs import recurrent
from cliffs.recurrent import HenonParams, henon_step, linear_step
from cliffs.spectra import (
    jacobian_products,
    log_singular_values,
    product_eigenvalues,
    step_eigenvalues,
    step_jacobians,
    temporal_components,
)


def normal(seed, shape, dtype=None):
    """Standard normal numbers made on the host: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def network(n=5, seed=0):
    params = recurrent.RNNParams(normal((0, 7), (n, n)) / n**0.5, normal((1, 7), (2, n)), jnp.zeros(n))
    return params, normal((2, 7), (n,)), normal((3, 7), (12, 2))


def long_product(matrices, digits):
    product = mpmath.eye(len(matrices[0]))
    with mpmath.workdps(digits):
        for matrix in np.asarray(matrices, float):
            product = mpmath.matrix(matrix.tolist()) * product
    return product


def log_svd(product, digits):
    with mpmath.workdps(digits):
        values = mpmath.svd_r(product, compute_uv=False)
        return sorted((float(mpmath.log(v)) for v in values), reverse=True)


@pytest.mark.parametrize("form", ["post_activation", "pre_activation"])
def test_analytic_jacobians_of_the_vanilla_network(x64, form):
    params, state, inputs = network()
    step = recurrent.rnn_step("tanh", form)
    states = recurrent.unroll(step, params, state, inputs)
    before = jnp.concatenate([state[None], states[:-1]])
    got = step_jacobians(step, params, before, inputs)
    w = np.asarray(params.w_rec)
    if form == "post_activation":
        want = (1 - np.asarray(states) ** 2)[:, :, None] * w.T
    else:  # eq. 5, W^T diag(act'(x_{t-1}))
        want = w.T * (1 - np.tanh(np.asarray(before)) ** 2)[:, None, :]
    np.testing.assert_allclose(got, want, atol=1e-14)


def test_parity_jacobians_of_an_lstm_cell_multiply_to_the_derivative_of_its_unroll(x64):
    step = recurrent.lstm_cell(3, forget_bias=1.0)
    params = step.init(jax.random.key(0), 2, jnp.float64)
    inputs = normal(1, (6, 2))
    start = jax.tree.map(lambda x: x + 0.3, step.initial_state((), jnp.float64))
    states = recurrent.unroll(step, params, start, inputs)
    before = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs[:-1]]), start, states)
    jacobians = step_jacobians(step, params, before, inputs)
    assert jacobians.shape == (6, 6, 6)

    def last(vector):
        c, h = recurrent.unroll(step, params, (vector[:3], vector[3:]), inputs)
        return jnp.concatenate([c[-1], h[-1]])

    want = jax.jacfwd(last)(jnp.concatenate(start))
    product = jacobian_products(jacobians)
    got = product.q[-1] @ (jnp.exp(product.log_scale[-1])[:, None] * product.r[-1])
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


def test_parity_product_equals_the_derivative_of_the_unroll_under_jit_and_vmap(x64):
    params, state, inputs = network()
    step = recurrent.rnn_step("tanh")

    def product(state, inputs):
        states = recurrent.unroll(step, params, state, inputs)
        return jacobian_products(step_jacobians(step, params, jnp.concatenate([state[None], states[:-1]]), inputs))

    two = jnp.stack([state, -2 * state]), jnp.stack([inputs, inputs[::-1]])
    p = jax.jit(jax.vmap(product))(*two)
    got = p.q @ (jnp.exp(p.log_scale)[..., None] * p.r)
    unrolled = jax.jacfwd(lambda x, u: recurrent.unroll(step, params, x, u, method="scan"))
    np.testing.assert_allclose(got, jax.vmap(unrolled)(*two), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "matrix", [[[1.5, 1.0], [0.0, 0.5]], [[0.5, 1.0], [0.0, 1.5]], [[0.5, 0.0], [0.0, 1.5]]], ids=["up", "down", "diag"]
)
def test_parity_ten_thousand_steps_keep_the_largest_and_the_smallest(x64, matrix, dtype):
    """The smallest, 0.5^10000 beside 1.5^10000, was -inf with one scale for the whole product."""
    # The exact product: a triangular matrix whose power is known in closed form.
    with mpmath.workdps(9000):
        a, b, c = (mpmath.mpf(x) for x in (matrix[0][0], matrix[0][1], matrix[1][1]))
        power = mpmath.matrix([[a**10_000, b * (a**10_000 - c**10_000) / (a - c)], [0, c**10_000]])
        total = mpmath.fsum(x**2 for x in power)
        top = mpmath.sqrt((total + mpmath.sqrt(total**2 - 4 * (power[0, 0] * power[1, 1]) ** 2)) / 2)
        want = [float(mpmath.log(top)), float(mpmath.log(power[0, 0] * power[1, 1] / top))]
    jacobians = jnp.broadcast_to(jnp.array(matrix, dtype), (10_000, 2, 2))
    got = log_singular_values(jax.tree.map(lambda x: x[-1:], jacobian_products(jacobians)))[0]
    np.testing.assert_allclose(got, want, rtol=1e-12 if dtype == "float64" else 1e-6)
    eigen = product_eigenvalues(jacobians)
    np.testing.assert_allclose(
        eigen.log_modulus, 10_000 * np.log([1.5, 0.5]), rtol=1e-12 if dtype == "float64" else 1e-6
    )
    assert eigen.converged


def test_parity_random_products_against_many_digits(x64):
    """Five singular values and eigenvalues over 180 orders of magnitude."""
    matrices = np.random.default_rng(0).normal(size=(150, 5, 5))
    product = long_product(matrices, 200)
    want = log_svd(product, 200)
    last = jax.tree.map(lambda x: x[-1:], jacobian_products(jnp.array(matrices)))
    np.testing.assert_allclose(log_singular_values(last)[0], want, atol=1e-10)
    narrow = jax.tree.map(lambda x: x[-1:], jacobian_products(jnp.array(matrices, jnp.float32)))
    np.testing.assert_allclose(log_singular_values(narrow)[0], want, atol=2e-3)

    with mpmath.workdps(200):
        values = mpmath.eig(product, left=False, right=False)
        order = sorted(values, key=lambda v: -abs(v))
        modulus, phase = [float(mpmath.log(abs(v))) for v in order], [float(mpmath.arg(v)) for v in order]
    got = product_eigenvalues(jnp.array(matrices))
    np.testing.assert_allclose(got.log_modulus, modulus, atol=1e-10)
    np.testing.assert_allclose(np.cos(got.phase), np.cos(phase), atol=1e-10)


def test_parity_one_matrix_against_lapack(x64):
    """No gaps at all: a dense random matrix, and odd sizes, through the same functions."""
    for n in (1, 31):
        matrix = np.random.default_rng(n).normal(size=(n, n))
        got = log_singular_values(jacobian_products(jnp.array(matrix)[None]))[0]
        np.testing.assert_allclose(got, np.log(np.linalg.svd(matrix, compute_uv=False)), atol=1e-10)
        if n == 1:
            continue
        eigen = product_eigenvalues(jnp.array(matrix)[None])
        want = np.linalg.eigvals(matrix)
        want = want[np.argsort(-np.abs(want))]
        np.testing.assert_allclose(eigen.log_modulus, np.log(np.abs(want)), atol=1e-9)
        np.testing.assert_allclose(np.sort(np.abs(eigen.phase)), np.sort(np.abs(np.angle(want))), atol=1e-8)
        np.testing.assert_allclose(np.abs(step_eigenvalues(jnp.array(matrix)[None])[0]), np.abs(want), atol=1e-9)


def test_analytic_complex_pairs_of_a_long_product_keep_their_phase(x64):
    c, s = np.cos(0.3), np.sin(0.3)
    matrix = np.zeros((4, 4))
    matrix[:2, :2] = 1.5 * np.array([[c, -s], [s, c]])
    matrix[2:, 2:] = 0.5 * np.array([[c, -s], [s, c]])
    matrix[0, 3] = matrix[1, 2] = 0.7
    got = product_eigenvalues(jnp.broadcast_to(jnp.array(matrix), (5001, 4, 4)))
    np.testing.assert_allclose(got.log_modulus, 5001 * np.log([1.5, 1.5, 0.5, 0.5]), rtol=1e-12)
    angle = abs((5001 * 0.3 + np.pi) % (2 * np.pi) - np.pi)
    np.testing.assert_allclose(np.abs(got.phase), angle, atol=1e-8)


def test_analytic_singular_and_broken_jacobians():
    """A projection loses a direction, exactly; a Jacobian that is not finite is not mistaken for one."""
    projection = jnp.broadcast_to(jnp.diag(jnp.array([2.0, 0.0])), (3, 2, 2))
    got = log_singular_values(jacobian_products(projection))
    np.testing.assert_allclose(got[:, 0], np.log(2.0) * np.arange(1, 4), rtol=1e-5)
    assert (np.asarray(got[:, 1]) < -30).all()
    zero = log_singular_values(jacobian_products(jnp.zeros((2, 3, 3))))
    assert (zero == -jnp.inf).all()
    eigen = product_eigenvalues(projection)
    np.testing.assert_allclose(eigen.log_modulus, [3 * np.log(2.0), -np.inf], rtol=1e-5)
    broken = jnp.broadcast_to(jnp.eye(2), (3, 2, 2)).at[1, 0, 0].set(jnp.nan)
    got = np.asarray(log_singular_values(jacobian_products(broken)))
    assert np.isfinite(got[0]).all()
    assert np.isnan(got[1:]).all()


@pytest.mark.parametrize("cell", ["post_activation", "pre_activation", "lstm"])
def test_parity_temporal_components_sum_to_the_gradient(x64, cell):
    params, state, inputs = network()
    if cell == "lstm":
        step = recurrent.lstm_cell(5)
        params, state = step.init(jax.random.key(0), 2, jnp.float64), step.initial_state((), jnp.float64)
    else:
        step = recurrent.rnn_step("tanh", cell)

    def cost(x, t):
        return sum(jnp.sum((leaf - 0.1 * t) ** 2) for leaf in jax.tree.leaves(x))

    norms, total = jax.jit(lambda p: temporal_components(cost, step, p, state, inputs))(params)

    def whole(p):
        return jnp.sum(jax.vmap(cost)(recurrent.unroll(step, p, state, inputs), jnp.arange(12)))

    for got, want in zip(jax.tree.leaves(total), jax.tree.leaves(jax.grad(whole)(params)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
    assert (np.triu(norms, 1) == 0).all()
    assert (np.diagonal(norms) > 0).all()


def test_parity_one_temporal_component_is_eq_4_by_matrices(x64):
    """dE_t/dx_t (J_t ... J_{k+1}) d+x_k/dtheta, put together from the factors."""
    params, state, inputs = network()
    step = recurrent.rnn_step("tanh", "pre_activation")
    norms, _ = temporal_components(lambda x, t: jnp.sum(x**2) / 2, step, params, state, inputs)
    states = recurrent.unroll(step, params, state, inputs)
    before = jnp.concatenate([state[None], states[:-1]])
    jacobians = step_jacobians(step, params, before, inputs)
    t, k = 9, 3
    row = states[t]
    for i in range(t, k, -1):
        row = row @ jacobians[i]
    direct = jax.jacfwd(step)(params, before[k], inputs[k])
    square = sum(float(jnp.sum(jnp.tensordot(row, leaf, 1) ** 2)) for leaf in jax.tree.leaves(direct))
    assert float(norms[t, k]) == pytest.approx(square**0.5, rel=1e-12)


def test_analytic_temporal_components_of_an_autonomous_map_neither_overflow_nor_underflow():
    """x_t = a^t x_0: the component of step k is a^(t-1) x_0; float32 squares leave the range at 1e19 and 1e-23."""
    for a in (3.0, 0.3):
        norms, total = temporal_components(
            lambda x, t: x, lambda p, x, u: p * x, jnp.float32(a), jnp.float32(1.0), num_steps=60
        )
        want = [float(a) ** t for t in range(60)]
        np.testing.assert_allclose(norms[-1], want[-1], rtol=1e-4)
        np.testing.assert_allclose(np.diagonal(norms), want, rtol=1e-4)
        np.testing.assert_allclose(total, sum((t + 1) * w for t, w in enumerate(want)), rtol=1e-4)


def test_property_defective_zeros_come_out_small_but_not_zero(x64):
    """A Jordan block of size k for 0: moduli of at most about eps^(1/k), as the docstring says."""
    got = product_eigenvalues(jnp.diag(jnp.ones(2), 1)[None])
    assert (np.asarray(got.log_modulus) < np.log(1e-15) / 3 + 2).all()


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        temporal_components(lambda x, t: x[0], henon_step, HenonParams(), jnp.zeros(2))
    with pytest.raises(ValueError, match="num_steps must be the length"):
        temporal_components(lambda x, t: x[0], henon_step, HenonParams(), jnp.zeros(2), jnp.zeros(3), num_steps=4)
    with pytest.raises(ValueError, match="inputs must have one entry per state"):
        step_jacobians(linear_step, jnp.eye(2), jnp.zeros((4, 2)), jnp.zeros((5, 1)))
    with pytest.raises(ValueError, match="same shape"):
        step_jacobians(lambda p, x, u: x[:1], None, jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="finite"):
        product_eigenvalues(jnp.full((1, 2, 2), jnp.nan))
    with pytest.raises(ValueError, match="states must hold"):
        step_jacobians(linear_step, jnp.eye(2), jnp.zeros((0, 2)))
