"""The vanilla network: its step, and the fast unroll against plain autodiff and PyTorch."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.untyped import untyped

from cliffs import recurrent
from cliffs.recurrent import _blocks, _fast_unroll

FORMS = ("post_activation", "pre_activation")
CASES = list(itertools.product(sorted(recurrent.ACTIVATIONS), FORMS, (True, False)))


def problem(seed=0, time=12, batch=(4,), features=3, hidden=5, bias=True, dtype=jnp.float32):
    k = jax.random.split(jax.random.key(seed), 6)
    params = recurrent.RNNParams(
        0.4 * jax.random.normal(k[0], (hidden, hidden), dtype),
        jax.random.normal(k[1], (features, hidden), dtype),
        jax.random.normal(k[2], (hidden,), dtype) if bias else None,
    )
    state = jax.random.normal(k[3], (*batch, hidden), dtype)
    inputs = jax.random.normal(k[4], (time, *batch, features), dtype)
    weights = jax.random.normal(k[5], (time, *batch, hidden), dtype)
    return params, state, inputs, weights


def scalar(step, weights, method):
    def loss(params, state, inputs):
        return jnp.sum(weights * jnp.sin(recurrent.unroll(step, params, state, inputs, method=method)))

    return loss


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.max(jnp.abs(x - y)) / jnp.maximum(jnp.max(jnp.abs(y)), 1e-30)) for x, y in pairs)


def compare(dtype, cases):
    worst = 0.0
    for activation, form, bias in cases:
        step = recurrent.rnn_step(activation, form)
        params, state, inputs, weights = problem(bias=bias, dtype=dtype)
        grads = jax.jit(
            lambda *args, step=step, weights=weights: [
                jax.grad(scalar(step, weights, method), (0, 1, 2))(*args) for method in ("auto", "scan")
            ]
        )(params, state, inputs)
        worst = max(worst, largest_difference(*grads))
    return worst


def test_parity_gradients_equal_plain_autodiff_in_float32():
    assert compare(jnp.float32, CASES) < 1e-5


def test_parity_gradients_equal_plain_autodiff_in_float64(x64):
    assert compare(jnp.float64, CASES) < 1e-12


@pytest.mark.parametrize("length", [1, 3, 12])
@pytest.mark.parametrize("form", FORMS)
def test_parity_every_block_length_gives_the_same_gradient(x64, monkeypatch, length, form):
    monkeypatch.setattr(_fast_unroll, "block_length", lambda *_: length)
    step = recurrent.rnn_step("tanh", form)
    params, state, inputs, weights = problem(dtype=jnp.float64)
    got = jax.grad(scalar(step, weights, "auto"), (0, 1, 2))(params, state, inputs)
    want = jax.grad(scalar(step, weights, "scan"), (0, 1, 2))(params, state, inputs)
    assert largest_difference(got, want) < 1e-12


@given(time=st.integers(0, 600), rows=st.integers(0, 3000), hidden=st.integers(1, 600))
def test_property_block_length_divides_the_sequence(time, rows, hidden):
    length = _blocks.block_length(time, rows, hidden, 4)
    assert length >= 1
    assert time % length == 0


@pytest.mark.parametrize(("activation", "form"), [("tanh", "post_activation"), ("logistic", "pre_activation")])
def test_parity_second_derivatives(x64, activation, form):
    step = recurrent.rnn_step(activation, form)
    params, state, inputs, weights = problem(time=5, batch=(2,), hidden=3, dtype=jnp.float64)

    def derivatives(method):
        loss = scalar(step, weights, method)
        forward_over_reverse = jax.jvp(lambda p: jax.grad(loss)(p, state, inputs), (params,), (params,))[1]
        reverse_over_reverse = jax.grad(lambda p: jnp.sum(jax.grad(loss)(p, state, inputs).w_rec ** 2))(params)
        return forward_over_reverse, reverse_over_reverse, jax.hessian(loss)(params, state, inputs)

    assert largest_difference(*jax.jit(lambda: [derivatives("auto"), derivatives("scan")])()) < 1e-11


def test_documented_limit_forward_mode_needs_the_scan():
    step = recurrent.rnn_step()
    params, state, inputs, _ = problem(time=3)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda p: recurrent.unroll(step, p, state, inputs), (params,), (params,))
    tangent = jax.jvp(lambda p: recurrent.unroll(step, p, state, inputs, method="scan"), (params,), (params,))[1]
    assert tangent.shape == (3, 4, 5)


@pytest.mark.parametrize("form", FORMS)
def test_invariance_vmap_over_parameters(form):
    step = recurrent.rnn_step("tanh", form)
    problems = [problem(seed) for seed in range(3)]
    params, state, inputs, weights = jax.tree.map(lambda *x: jnp.stack(x), *problems)

    def gradient(params, state, inputs, weights):
        return jax.grad(scalar(step, weights, "auto"), (0, 1, 2))(params, state, inputs)

    together = jax.jit(jax.vmap(gradient))(params, state, inputs, weights)
    alone = jax.tree.map(lambda *x: jnp.stack(x), *(gradient(*p) for p in problems))
    assert largest_difference(together, alone) < 1e-5


def test_analytic_linear_network_is_a_matrix_power(x64):
    params, _, _, _ = problem(hidden=3, bias=False, dtype=jnp.float64)
    states = recurrent.unroll(recurrent.rnn_step("identity"), params, jnp.ones(3, float), jnp.zeros((6, 3)))
    want = jnp.ones(3) @ jnp.linalg.matrix_power(params.w_rec, 6)
    np.testing.assert_allclose(states[-1], want, rtol=1e-13)


def test_analytic_the_two_forms_are_one_network_shifted(x64):
    # With x_t the pre-activation of h_t = act(x_t), both forms hold the same activity.
    params, _, inputs, _ = problem(dtype=jnp.float64)
    post, pre = recurrent.rnn_step("tanh", "post_activation"), recurrent.rnn_step("tanh", "pre_activation")
    h = recurrent.unroll(post, params, jnp.zeros((4, 5)), inputs)
    x = recurrent.unroll(pre, params, jnp.zeros((4, 5)), inputs)
    np.testing.assert_allclose(pre.features(x), post.features(h), rtol=1e-12)


def test_parity_class_indices_are_one_hot_inputs():
    step = recurrent.rnn_step()
    params, state, _, weights = problem(features=7)
    symbols = jax.random.randint(jax.random.key(3), (12, 4), 0, 7)
    for method in ("auto", "scan"):
        got, want = (
            jax.grad(scalar(step, weights, method))(params, state, u) for u in (symbols, jax.nn.one_hot(symbols, 7))
        )
        assert largest_difference(got, want) < 1e-5


def test_parity_torch_rnn():
    torch = pytest.importorskip("torch")
    params, _, inputs, weights = problem(seed=5)
    module = torch.nn.RNN(3, 5)
    names = ("weight_hh_l0", "weight_ih_l0", "bias_hh_l0")
    with torch.no_grad():
        for name, value in zip(names, params):
            module.get_parameter(name).copy_(torch.tensor(np.array(value).T))
        module.bias_ih_l0.zero_()
    out, _ = module(torch.tensor(np.array(inputs)))
    (torch.tensor(np.array(weights)) * torch.sin(out)).sum().backward()
    state = jnp.zeros((4, 5))
    np.testing.assert_allclose(
        recurrent.unroll(recurrent.rnn_step(), params, state, inputs), out.detach().numpy(), atol=1e-6
    )
    got = jax.grad(scalar(recurrent.rnn_step(), weights, "auto"))(params, state, inputs)
    for name, value in zip(names, got):
        want = module.get_parameter(name).grad.numpy().T
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


def test_property_any_step_on_a_pytree_unrolls():
    def step(params, state, inputs):
        return {"sum": state["sum"] + inputs, "count": state["count"] + params}

    states = recurrent.unroll(step, 1, {"sum": jnp.zeros(2), "count": jnp.array(0)}, jnp.ones((4, 2)))
    assert states["sum"][-1].tolist() == [4.0, 4.0]
    assert states["count"].tolist() == [1, 2, 3, 4]
    autonomous = recurrent.unroll(lambda p, x, u: p * x, 2.0, jnp.array(1.0), None, length=3)
    assert autonomous.tolist() == [2.0, 4.0, 8.0]


def test_property_unperturbed_inputs_cost_no_product():
    step = recurrent.rnn_step()
    params, state, inputs, weights = problem()
    loss = scalar(step, weights, "auto")
    for_params = str(jax.make_jaxpr(jax.grad(loss))(params, state, inputs)).count("dot_general")
    for_all = str(jax.make_jaxpr(jax.grad(loss, (0, 2)))(params, state, inputs)).count("dot_general")
    assert for_params < for_all


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, s, u: recurrent.rnn_step("softplus"), "activation"),
        (lambda p, s, u: recurrent.rnn_step("tanh", untyped("eq2")), "form"),
        (lambda p, s, u: recurrent.unroll(recurrent.rnn_step(), p, s, u, method=untyped("fast")), "method"),
        (
            lambda p, s, u: recurrent.unroll(recurrent.rnn_step(), p, s, u[..., :2]),
            r"inputs must be \[time, \*batch, 3\]",
        ),
        (lambda p, s, u: recurrent.unroll(recurrent.rnn_step(), p, s[..., :4], u), "hidden size 5"),
        (lambda p, s, u: recurrent.unroll(recurrent.rnn_step(), p, s, None, length=3), "inputs is None"),
        (lambda p, s, u: recurrent.unroll(lambda p, s, u: s, p, s, None), "length"),
        (
            lambda p, s, u: recurrent.rnn_step()(p, s, untyped(None)),
            "inputs is None, but a step",
        ),
        (
            lambda p, s, u: recurrent.rnn_step()(untyped(recurrent.ModelParams(p, untyped(None))), s, u[0]),
            "params must be RNNParams, got ModelParams: .* its field rnn",
        ),
        (
            lambda p, s, u: recurrent.unroll(lambda p, s, u: jnp.tanh(s @ p.w_rec + u @ p.w_in), p, s[0], u),
            r"step must return a state like initial_state, \(\(5,\), 'float32'\), got \(\(4, 5\), 'float32'\)",
        ),
        (
            lambda p, s, u: recurrent.unroll(lambda p, s, u: (s, u), p, s, u, remat=True),
            "step must return a state like initial_state",
        ),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    params, state, inputs, _ = problem()
    with pytest.raises(ValueError, match=words):
        call(params, state, inputs)
