"""Matrix-free products and their leading singular values against the dense ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs import recurrent
from cliffs.recurrent import linear_step
from cliffs.spectra import (
    jacobian_products,
    leading_singular_values,
    log_singular_values,
    multiply_by_product,
    step_jacobians,
)


def normal(seed, shape, dtype=None):
    """Standard normal numbers made on the host: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def network(dtype, n=24, time=30, form="post_activation"):
    params = recurrent.RNNParams(
        1.3 * normal((0, 7), (n, n), dtype) / n**0.5,
        normal((1, 7), (2, n), dtype),
        jnp.zeros(n, dtype),
    )
    inputs = normal((2, 7), (time, 2), dtype)
    state = normal((3, 7), (n,), dtype)
    step = recurrent.rnn_step("tanh", untyped(form))
    states = recurrent.unroll(step, params, state, inputs)
    return step, params, jnp.concatenate([state[None], states[:-1]]), inputs


def test_parity_leading_values_and_vectors_against_the_dense_product(x64):
    step, params, states, inputs = network("float64")
    got = jax.jit(
        lambda p: leading_singular_values(step, p, states, inputs, num_values=5, oversampling=3, key=jax.random.key(0))
    )(params)
    jacobians = step_jacobians(step, params, states, inputs)
    product = jacobian_products(jacobians)
    want = log_singular_values(jax.tree.map(lambda x: x[-1:], product))[0, :5]
    np.testing.assert_allclose(got.log_values, want, atol=1e-8)
    assert int(got.num_passes) < 50
    # Singular vectors: product @ right = exp(log_values) * left, both orthonormal.
    dense = np.linalg.multi_dot(np.asarray(jacobians, float)[::-1])
    right, left = np.asarray(got.right, float), np.asarray(got.left, float)
    np.testing.assert_allclose(right.T @ right, np.eye(5), atol=1e-12)
    np.testing.assert_allclose(left.T @ left, np.eye(5), atol=1e-4)
    np.testing.assert_allclose(dense @ right / np.exp(np.asarray(want)), left, atol=1e-6)


def test_parity_multiplication_by_the_product_and_its_transpose(x64):
    step, params, states, inputs = network("float64", form="pre_activation")
    dense = np.linalg.multi_dot(np.asarray(step_jacobians(step, params, states, inputs))[::-1])
    vectors = normal(1, (24, 3))
    for transpose, matrix in ((False, dense), (True, dense.T)):
        directions, logs = multiply_by_product(step, params, states, inputs, vectors, transpose=transpose)
        want = matrix @ np.asarray(vectors)
        np.testing.assert_allclose(np.exp(logs) * directions, want, rtol=1e-8, atol=1e-11 * np.abs(want).max())
        np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-12)


def test_parity_pytree_state_and_few_values_left(x64):
    """A state of two parts, as an LSTM's, and k + oversampling beyond n."""

    def step(params, state, u):
        memory, unit = state
        new = jnp.tanh(params @ unit + u.sum() + 0.1 * memory)
        return 0.9 * memory + new, new

    params = normal(0, (3, 3))
    inputs = normal(1, (8, 2))
    states = normal(2, (8, 3)), normal(3, (8, 3))
    got = leading_singular_values(step, params, states, inputs, num_values=6, key=jax.random.key(0))
    want = log_singular_values(jacobian_products(step_jacobians(step, params, states, inputs)))[-1]
    np.testing.assert_allclose(got.log_values, want, atol=1e-8)


def test_analytic_five_thousand_steps_in_float32_beyond_its_range():
    a = jnp.diag(jnp.array([1.5, 1.2, 0.5, 0.1], jnp.float32))
    got = leading_singular_values(linear_step, a, jnp.zeros((5000, 4)), num_values=3, key=jax.random.key(3))
    np.testing.assert_allclose(got.log_values, 5000 * np.log([1.5, 1.2, 0.5]), rtol=1e-5)
    assert float(got.change) <= 1e-4
    assert got.log_values.dtype == jnp.float32
    np.testing.assert_allclose(np.abs(got.right), np.eye(4)[:, :3], atol=1e-5)


def test_property_an_unfinished_iteration_says_so(x64):
    matrix = normal(0, (40, 40))
    got = leading_singular_values(
        linear_step, matrix, jnp.zeros((1, 40)), num_values=3, oversampling=0, max_passes=2, key=jax.random.key(1)
    )
    assert int(got.num_passes) == 2
    assert float(got.change) > 1e-8
    exact = np.log(np.linalg.svd(matrix, compute_uv=False)[:3])
    assert (np.asarray(got.log_values) <= exact + 1e-12).all()


@pytest.mark.wrong_arguments
def test_wrong_use_names_the_argument():
    states = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match="num_values"):
        leading_singular_values(linear_step, jnp.eye(2), states, num_values=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match="max_passes"):
        leading_singular_values(linear_step, jnp.eye(2), states, num_values=1, max_passes=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="vectors"):
        multiply_by_product(linear_step, jnp.eye(2), states, None, jnp.ones(2))
