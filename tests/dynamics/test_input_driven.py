"""Inputs folded into the map, and the paper's split into F~ and U_t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent
from cliffs.dynamics import compose, find_fixed_points, separation, split_path, split_step


def network(key, hidden=4, features=3, dtype=jnp.float64):
    keys = jax.random.split(key, 3)
    return recurrent.RNNParams(
        1.2 * jax.random.normal(keys[0], (hidden, hidden), dtype) / hidden**0.5,
        jax.random.normal(keys[1], (features, hidden), dtype),
        0.3 * jax.random.normal(keys[2], (hidden,), dtype),
    )


def test_analytic_periodic_response_of_a_linear_network_and_its_floquet_multipliers(x64):
    a = jnp.array([[0.5, 0.4], [-0.3, 0.6]])
    inputs = jax.random.normal(jax.random.key(0), (3, 2))
    found = find_fixed_points(compose(lambda p, x, u: p @ x + u), a, jnp.zeros((4, 2)), inputs)
    # x = A^3 x + A^2 u1 + A u2 + u3
    a_, u = np.asarray(a), np.asarray(inputs)
    want = np.linalg.solve(np.eye(2) - a_ @ a_ @ a_, a_ @ a_ @ u[0] + a_ @ u[1] + u[2])
    np.testing.assert_allclose(found.points, [want], atol=1e-12)
    np.testing.assert_allclose(
        np.sort_complex(found.multipliers[0]), np.sort_complex(np.linalg.eigvals(a_) ** 3), atol=1e-10
    )


def test_property_a_period_of_the_composed_map_repeats_under_the_network(x64):
    step, params = recurrent.rnn_step("tanh"), network(jax.random.key(1))
    inputs = jax.random.normal(jax.random.key(2), (5, 3))
    starts = jax.random.normal(jax.random.key(3), (16, 4))
    found = find_fixed_points(compose(step), params, starts, inputs, slow_speed=0.0)
    assert len(found.points) >= 1
    for point in found.points:
        path = recurrent.unroll(step, params, jnp.asarray(point), jnp.tile(inputs, (3, 1)))
        np.testing.assert_allclose(path[4], point, atol=1e-10)
    stable = found.points[found.stable]
    if len(stable):  # a stable response attracts nearby states
        path = recurrent.unroll(step, params, jnp.asarray(stable[0]) + 1e-3, jnp.tile(inputs, (200, 1)))
        np.testing.assert_allclose(path[-1], stable[0], atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "logistic", "relu"])
def test_property_the_split_is_exact_for_the_papers_form(x64, activation):
    step, params = recurrent.rnn_step(activation, "pre_activation"), network(jax.random.key(4))
    start, inputs = jax.random.normal(jax.random.key(5), (4,)), jax.random.normal(jax.random.key(6), (20, 3))
    path = split_path(step, params, start, inputs)
    np.testing.assert_allclose(path.pushed, recurrent.unroll(step, params, start, inputs), atol=1e-13)
    act = recurrent.ACTIVATIONS[activation]
    np.testing.assert_allclose(path.pulled, act(path.before) @ params.w_rec + params.bias, atol=1e-13)
    np.testing.assert_allclose(path.pushed - path.pulled, inputs @ params.w_in, atol=1e-13)
    # Class indices push like their one-hot vectors.
    split = split_step(step)
    np.testing.assert_allclose(split.push(params, start, jnp.array(1)), split.push(params, start, jnp.eye(3)[1]))


def test_analytic_pre_activations_of_the_other_form_follow_the_split(x64):
    params, start = network(jax.random.key(7)), jax.random.normal(jax.random.key(8), (4,))
    inputs = jax.random.normal(jax.random.key(9), (12, 3))
    activity = recurrent.unroll(recurrent.rnn_step("tanh"), params, jnp.tanh(start), inputs)
    path = split_path(recurrent.rnn_step("tanh", "pre_activation"), params, start, inputs)
    np.testing.assert_allclose(jnp.tanh(path.pushed), activity, atol=1e-12)


def test_analytic_separation_of_a_linear_map_grows_by_its_eigenvalue():
    result = separation(lambda a, x, u: a * x + u, jnp.asarray(1.5), jnp.zeros(3), jnp.full(3, 1e-3), jnp.ones((10, 3)))
    np.testing.assert_allclose(result.distance[-1] / (1e-3 * 3**0.5), 1.5**10, rtol=2e-3)
    np.testing.assert_allclose(result.growth, 10 * np.log(1.5), rtol=1e-3)
    assert not bool(result.apart)
    same = separation(lambda a, x, u: a * x + u, jnp.asarray(1.5), jnp.zeros(3), jnp.zeros(3), jnp.ones((10, 3)))
    assert np.isnan(same.growth)
    assert float(same.distance.max()) == 0.0


def test_invariance_gradient_goes_through_the_composed_step(x64):
    step, params = compose(recurrent.rnn_step("tanh")), network(jax.random.key(10))
    inputs = jax.random.normal(jax.random.key(11), (6, 3))
    start = jnp.zeros(4)
    through = jax.jit(jax.grad(lambda p: jnp.sum(step(p, start, inputs) ** 2)))(params)
    direct = jax.grad(lambda p: jnp.sum(recurrent.unroll(recurrent.rnn_step("tanh"), p, start, inputs)[-1] ** 2))(
        params
    )
    for a, b in zip(jax.tree.leaves(through), jax.tree.leaves(direct)):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("step", [recurrent.rnn_step("tanh"), lambda p, x, u: x])
def test_wrong_use_only_the_papers_form_splits(step):
    with pytest.raises(ValueError, match="pre_activation"):
        split_step(step)
