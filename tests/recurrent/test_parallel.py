"""Newton's method over the whole sequence against the loop in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent

HIDDEN, TIME = 4, 60


def problem(gain, dtype=jnp.float64, batch=(2,), seed=0):
    """A tanh network with weights `N(0, gain^2 / n)`: chaotic without inputs for a gain above about 1."""
    keys = jax.random.split(jax.random.key(seed), 4)
    params = recurrent.RNNParams(
        gain * jax.random.normal(keys[0], (HIDDEN, HIDDEN), dtype) / HIDDEN**0.5,
        jax.random.normal(keys[1], (3, HIDDEN), dtype),
        0.1 * jax.random.normal(keys[2], (HIDDEN,), dtype),
    )
    return params, jnp.zeros((*batch, HIDDEN), dtype), jax.random.normal(keys[3], (TIME, *batch, 3), dtype)


@pytest.mark.parametrize("form", ["newton", "quasi"])
def test_parity_states_equal_the_loop(x64, form):
    step = recurrent.rnn_step()
    args = problem(0.8)
    found = jax.jit(lambda *a: recurrent.parallel_unroll(step, *a, form=form))(*args)
    assert found.converged.tolist() == [True, True]
    assert int(found.num_sweeps.max()) < TIME
    np.testing.assert_allclose(found.states, recurrent.unroll(step, *args), atol=1e-12)


def test_parity_states_in_float32():
    step = recurrent.gru_cell(HIDDEN)
    params = step.init(jax.random.key(0), 3)
    inputs = jax.random.normal(jax.random.key(1), (TIME, 2, 3))
    found = recurrent.parallel_unroll(step, params, step.initial_state((2,)), inputs)
    assert found.converged.all()
    want = recurrent.unroll(step, params, step.initial_state((2,)), inputs, method="scan")
    np.testing.assert_allclose(found.states, want, atol=1e-5)


def test_parity_gradient_equals_plain_autodiff(x64):
    step = recurrent.rnn_step()
    args = problem(0.8)

    def loss(method):
        return lambda *a: jnp.sum(jnp.sin(recurrent.unroll(step, *a, method=method)))

    both = jax.jit(lambda *a: [jax.grad(loss(method), (0, 1, 2))(*a) for method in ("parallel", "scan")])
    got, want = both(*args)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_parity_gradient_of_a_step_that_closes_over_its_weights(x64):
    def last(w, unrolled):
        def step(_, x, u):
            return {"x": jnp.tanh(x["x"] @ w) + u["u"][u["index"]]}

        inputs = {"u": jnp.linspace(0, 1, 20 * 3).reshape(20, 3), "index": jnp.arange(20) % 3}
        return jnp.sum(unrolled(step, None, {"x": jnp.full(3, 0.1)}, inputs)["x"][-1])

    w = 0.5 * jax.random.normal(jax.random.key(0), (3, 3))
    got = jax.jit(jax.grad(lambda w: last(w, lambda *a: recurrent.parallel_unroll(*a).states)))(w)
    np.testing.assert_allclose(got, jax.grad(lambda w: last(w, recurrent.unroll))(w), rtol=1e-10)


def test_documented_chaos_is_flagged_and_unroll_takes_the_loop(x64):
    step = recurrent.rnn_step()
    params, state, inputs = problem(40.0)
    found = jax.jit(lambda *a: recurrent.parallel_unroll(step, *a, max_sweeps=5))(params, state, inputs)
    assert not found.converged.any()
    assert found.num_sweeps.max() <= 5
    assert float(found.residual.max()) > 1e-6
    # Without batch, so that the condition is not turned into a selection of two computed branches.
    args = params, state[0], jnp.tile(inputs[:, 0], (20, 1))
    assert not recurrent.parallel_unroll(step, *args).converged
    got = jax.jit(lambda *a: recurrent.unroll(step, *a, method="parallel"))(*args)
    np.testing.assert_array_equal(got, jax.jit(lambda *a: recurrent.unroll(step, *a, method="scan"))(*args))


def test_analytic_a_linear_map_takes_one_sweep(x64):
    a = jnp.array([[0.5, 0.2], [-0.1, 0.9]])
    found = recurrent.parallel_unroll(recurrent.linear_step, a, jnp.ones(2), length=30)
    assert int(found.num_sweeps) == 1
    np.testing.assert_allclose(found.states[-1], jnp.linalg.matrix_power(a, 30) @ jnp.ones(2), rtol=1e-12)


def test_property_as_many_sweeps_as_steps_always_suffice(x64):
    # After k sweeps the first k states are exact: here for a map that is chaotic.
    found = recurrent.parallel_unroll(
        recurrent.henon_step, recurrent.HenonParams(), jnp.zeros(2), length=12, max_sweeps=12, tolerance=1e-9
    )
    want = recurrent.unroll(recurrent.henon_step, recurrent.HenonParams(), jnp.zeros(2), length=12)
    assert found.converged
    np.testing.assert_allclose(found.states, want, atol=1e-9)


def test_property_damping_reaches_the_same_states(x64):
    step = recurrent.rnn_step()
    args = problem(0.8, batch=())
    plain, damped = (recurrent.parallel_unroll(step, *args, damping=k) for k in (0.0, 0.5))
    assert damped.converged
    assert int(damped.num_sweeps) > int(plain.num_sweeps)
    np.testing.assert_allclose(damped.states, plain.states, atol=1e-12)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "diagonal"}, "form must be 'newton' or 'quasi'"),
        ({"damping": 1.0}, r"damping must lie in \[0, 1\)"),
        ({"max_sweeps": 0}, "max_sweeps must be at least 1"),
        ({"inputs": None}, "length"),
        ({"inputs": None, "length": 0}, "at least 1 step"),
    ],
)
def test_wrong_use_names_the_argument(settings, words):
    settings = {"inputs": jnp.zeros((3, 2))} | settings
    with pytest.raises(ValueError, match=words):
        recurrent.parallel_unroll(lambda w, x, u: x, 1.0, jnp.zeros(2), **settings)


@pytest.mark.wrong_arguments
def test_wrong_recomputation_with_the_parallel_method():
    with pytest.raises(ValueError, match="remat must be False"):
        recurrent.unroll(lambda w, x, u: x, 1.0, jnp.zeros(2), length=3, method="parallel", remat=True)
