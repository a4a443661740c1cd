"""The kernel that keeps the recurrent matrix on the chip, in Pallas' interpret mode, against the scan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent


def problem(networks, batch=3, hidden=5, time=6):
    keys = jax.random.split(jax.random.key(0), 4)
    params = recurrent.RNNParams(
        0.5 * jax.random.normal(keys[0], (networks, hidden, hidden)),
        jax.random.normal(keys[1], (networks, 2, hidden)),
        0.1 * jnp.ones((networks, hidden)),
    )
    state = jax.random.normal(keys[2], (networks, batch, hidden))
    return params, state, jax.random.normal(keys[3], (networks, time, batch, 2))


@pytest.mark.parametrize(("activation", "form"), [("tanh", "post_activation"), ("logistic", "pre_activation")])
def test_parity_states_and_gradients_of_networks_side_by_side(activation, form):
    step = recurrent.rnn_step(activation, form)
    args = problem(networks=3)

    def loss(method):
        return lambda *a: jnp.sum(jnp.sin(recurrent.unroll(step, *a, method=method)))

    def both(*a):
        return [jax.vmap(jax.value_and_grad(loss(method), (0, 1, 2)))(*a) for method in ("persistent", "scan")]

    got, want = jax.jit(both)(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_parity_forward_mode_and_padding():
    # 17 units and one sequence: both sides are filled up to a tile.
    args = jax.tree.map(lambda x: x[0], problem(networks=1, batch=1, hidden=17))

    def states(method):
        return lambda p: recurrent.unroll(recurrent.rnn_step("relu"), p, *args[1:], method=method)

    both = jax.jit(lambda p: [jax.jvp(states(method), (p,), (p,)) for method in ("persistent", "scan")])
    got, want = both(args[0])
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_analytic_the_scan_reads_the_matrix_at_every_step_and_the_kernel_once():
    args = jax.tree.map(lambda x: x[0], problem(networks=1))
    call = jax.make_jaxpr(lambda *a: recurrent.unroll(recurrent.rnn_step(), *a, method="persistent"))(*args)
    assert "pallas_call" in str(call)
    cost = recurrent.persistent_cost(1000, 20, 256)
    assert cost["forward_scan"].bytes - cost["forward"].bytes > 999 * 4 * 256**2


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("step", "state", "words"),
    [
        (recurrent.linear_step, jnp.ones(2), "persistent"),
        (recurrent.rnn_step(), jnp.ones((2, 2, 3)), "one batch axis"),
    ],
)
def test_wrong_use_names_what_is_served(step, state, words):
    params = recurrent.RNNParams(jnp.eye(3), jnp.ones((2, 3))) if state.ndim == 3 else jnp.eye(2)
    with pytest.raises(ValueError, match=words):
        recurrent.unroll(step, params, state, jnp.ones((4, *state.shape[:-1], 2)), method="persistent")


@pytest.mark.wrong_arguments
def test_wrong_size_names_the_largest():
    with pytest.raises(ValueError, match="at most 256 units"):
        recurrent.persistent_states("tanh", jnp.eye(300), jnp.zeros((2, 1, 300)), jnp.zeros((1, 300)))
