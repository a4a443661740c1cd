"""Penalties on weights, spectra and Jacobians against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs import penalties, recurrent, spectra


def test_analytic_l1_and_l2_have_the_textbooks_gradients():
    tree = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([[3.0]])}
    assert (float(penalties.l1(tree)), float(penalties.l2(tree))) == (6.0, 14.0)
    grad = jax.grad(lambda t: 0.5 * penalties.l1(t) + 2 * penalties.l2(t))(tree)
    assert grad["a"].tolist() == [0.5 + 4, -0.5 - 8]


@pytest.mark.parametrize("of", ["radius", "norm"])
def test_analytic_the_spectral_penalty_moves_the_leading_value(x64, of):
    """`2 (m - limit) dm/dW`, by the leading eigenvectors (of a complex pair here) or singular vectors."""
    w = np.random.default_rng(3).normal(size=(5, 5))
    w[:2, :2] += np.array([[0, 9], [-9, 0]])
    limit = 0.25
    if of == "radius":
        values, right = np.linalg.eig(w)
        left = np.linalg.inv(right)
        i = np.abs(values).argmax()
        size = abs(values[i])
        move = np.real(np.conj(values[i]) / size * np.outer(left[i], right[:, i]))
        assert abs(values[i].imag) > 0.1
    else:
        u, s, vt = np.linalg.svd(w)
        size, move = s[0], np.outer(u[:, 0], vt[0])
    value, grad = jax.jit(jax.value_and_grad(lambda w: penalties.spectral_penalty(w, limit=limit, of=of)))(w)
    np.testing.assert_allclose(value, (size - limit) ** 2, rtol=1e-9)
    np.testing.assert_allclose(grad, 2 * (size - limit) * move, rtol=1e-6, atol=1e-8)
    below = jax.grad(lambda w: penalties.spectral_penalty(w, limit=size + 1, of=of))(jnp.asarray(w))
    assert not np.asarray(below).any()


def driven(form, dtype=jnp.float64):
    rng = np.random.default_rng(1)
    params = recurrent.RNNParams(*(jnp.asarray(rng.normal(size=s), dtype) for s in ((4, 4), (2, 4), (4,))))
    return recurrent.rnn_step("tanh", form), params, jnp.asarray(rng.normal(size=(6, 3, 2)), dtype)


@pytest.mark.parametrize("form", ["post_activation", "pre_activation"])
def test_parity_the_jacobian_norm_with_the_jacobians_themselves(x64, form):
    step, params, inputs = driven(form)
    start = jnp.zeros((3, 4))
    own = lambda params, x, u: step(params, x, u)  # noqa: E731

    def by_jacobians(params):
        states = recurrent.unroll(step, params, start, inputs)
        before = jnp.concatenate([start[None], states[:-1]])
        jacobians = jax.vmap(lambda x, u: spectra.step_jacobians(step, params, x, u), 1, 1)(before, inputs)
        return jnp.square(jacobians).sum((-1, -2)).mean()

    want = jax.jit(jax.value_and_grad(by_jacobians))(params)
    for candidate in (step, own):
        got = jax.jit(jax.value_and_grad(lambda p, s=candidate: penalties.jacobian_norm(s, p, start, inputs)))(params)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["vanilla", "lstm"])
def test_property_random_projections_estimate_the_jacobian_norm(kind):
    if kind == "vanilla":
        step, params, inputs = driven("post_activation", jnp.float32)
        start = jnp.zeros((3, 4))
    else:
        step = recurrent.lstm_cell(3)
        params, inputs = step.init(jax.random.key(0), 2), jax.random.normal(jax.random.key(1), (4, 2, 2))
        start = step.initial_state((2,))
    exact = float(jax.jit(lambda p: penalties.jacobian_norm(step, p, start, inputs))(params))
    estimate = jax.jit(
        jax.vmap(lambda k: penalties.jacobian_norm(step, params, start, inputs, key=k, num_projections=2))
    )(jax.random.split(jax.random.key(2), 500))
    error = float(estimate.std()) / 500**0.5
    assert abs(float(estimate.mean()) - exact) < 4 * error
    assert error < 0.05 * exact


def test_analytic_an_orthogonal_linear_map_has_norm_n():
    step = recurrent.rnn_step("identity")
    params = recurrent.RNNParams(recurrent.orthogonal()(jax.random.key(0), (5, 5)), jnp.ones((1, 5)))
    value = penalties.jacobian_norm(step, params, jnp.zeros(5), jnp.ones((3, 1)))
    np.testing.assert_allclose(value, 5, rtol=1e-5)


def test_integration_a_penalty_joins_losses_with_and_without_aux():
    with_aux = penalties.add_penalty(lambda p, b: ((p - b) ** 2, "aux"), lambda p, b: penalties.l2(p) + b, 0.5)
    assert with_aux(jnp.asarray(2.0), 1.0) == (1 + 0.5 * 5, "aux")

    def plain(p, weight):
        loss = penalties.add_penalty(lambda p, b: (p - b) ** 2, lambda p, b: penalties.l2(p), weight)
        return loss(p, 1.0)

    grads = jax.jit(jax.vmap(jax.grad(plain), (None, 0)))(2.0, jnp.array([0.0, 1.0]))
    assert plain(jnp.asarray(2.0), 0.5) == 3.0
    assert grads.tolist() == [2.0, 6.0]


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: penalties.spectral_penalty(jnp.eye(2), of=untyped("trace")), "of must be"),
        (lambda: penalties.spectral_penalty(jnp.ones((2, 3))), "matrix must be square"),
        (
            lambda: penalties.add_penalty(
                lambda p, b: p, lambda p, b: penalties.l2(p), untyped(lambda step: 0.1 / (step + 1))
            ),
            "weight must be a number, got a function",
        ),
        (
            lambda: penalties.jacobian_norm(
                recurrent.linear_step, jnp.eye(2), jnp.ones(2), length=2, num_projections=0
            ),
            "num_projections",
        ),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
