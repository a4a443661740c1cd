"""Lyapunov exponents against known truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs import recurrent
from cliffs.recurrent import HenonParams, henon_step, linear_step
from cliffs.spectra import (
    gradient_flossing,
    kaplan_yorke_dimension,
    lyapunov_distribution,
    lyapunov_exponents,
    mean_field_exponent,
    step_jacobians,
)


def normal(seed, shape, dtype=None):
    """Standard normal numbers made on the host: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("interval", [1, 5])
@pytest.mark.parametrize("k", [4, 2])
def test_analytic_linear_map_has_the_logarithms_of_its_eigenvalues(x64, interval, k):
    v = normal(0, (4, 4))
    matrix = v @ jnp.diag(jnp.array([1.6, -1.1, 0.7, 0.2])) @ jnp.linalg.inv(v)
    got = lyapunov_exponents(
        linear_step, matrix, jnp.zeros(4), num_steps=1000, warmup=200, interval=interval, num_exponents=k
    )
    np.testing.assert_allclose(got, np.log([1.6, 1.1, 0.7, 0.2])[:k], atol=1e-10)


def test_analytic_the_leading_exponent_is_found_from_an_invariant_contracting_axis(x64):
    """From the first unit vector, which the map only shrinks, k = 1 gave log 0.5."""
    matrix = jnp.array([[0.5, 1.0], [0.0, 1.5]])
    got = lyapunov_exponents(linear_step, matrix, jnp.zeros(2), num_steps=50, warmup=50, num_exponents=1)
    np.testing.assert_allclose(got, [np.log(1.5)], atol=1e-10)


def test_analytic_henon_map(x64):
    got = jax.jit(lambda x: lyapunov_exponents(henon_step, HenonParams(), x, num_steps=200_000, warmup=1000))(
        jnp.array([0.1, 0.1])
    )
    np.testing.assert_allclose(got, [0.41922, -1.62319], atol=2e-3)
    assert float(got.sum()) == pytest.approx(np.log(0.3), abs=1e-10)  # area contraction is exact
    assert float(kaplan_yorke_dimension(got)) == pytest.approx(1.2583, abs=2e-3)


def test_analytic_long_intervals_do_not_overflow():
    """1.5^2000 = 1e352 between two QRs is beyond float32 and float64."""
    diag = jnp.diag(jnp.array([1.5, 1.5], jnp.float32))
    got = lyapunov_exponents(linear_step, diag, jnp.zeros(2), num_steps=4000, interval=2000)
    np.testing.assert_allclose(got, np.log(1.5), rtol=1e-4)


def random_network(n, gain):
    w = normal(1, (n, n)) / n**0.5

    def step(params, x, u):
        return params * (jnp.tanh(x) @ w) + u  # one W for all gains: one product for the batch

    start = normal(2, (n,))
    return jax.jit(
        jax.vmap(lambda g: lyapunov_exponents(step, g, start, jnp.zeros(600), warmup=200, num_exponents=1)[0])
    )(gain)


def test_property_random_tanh_networks_of_200_units_follow_mean_field_on_both_sides_of_gain_one():
    gains = jnp.array([0.7, 1.5, 2.0, 3.0])
    got = np.asarray(random_network(200, gains))
    want = np.asarray(jax.vmap(mean_field_exponent)(gains))
    assert got[0] == pytest.approx(np.log(0.7), abs=0.1)  # the zero state attracts: log of the spectral radius
    np.testing.assert_allclose(got[1:], want[1:], atol=0.04)
    assert (got[1:] > 0.02).all()


@pytest.mark.parametrize("cell", ["pytree", "driven"])
def test_parity_sum_of_all_exponents_is_the_mean_log_determinant(x64, cell):
    """For any step, pytree states included: `sum l_i = 1/T sum log |det J_t|`, with slogdet of jacfwd."""
    inputs = normal(2, (40, 2))
    if cell == "pytree":  # a state of two parts, as an LSTM's

        def step(params, state, u):
            memory, unit = state
            new = jnp.tanh(params @ unit + u.sum() + 0.1 * memory)
            return 0.9 * memory + new, new

        params, start = normal(0, (3, 3)), (jnp.ones(3), jnp.zeros(3))
    else:
        step, start = untyped(recurrent.rnn_step("tanh")), jnp.zeros(4)
        params = recurrent.RNNParams(normal(1, (4, 4)), jnp.ones((2, 4)))
    states = recurrent.unroll(step, params, start, inputs)
    before = jax.tree.map(lambda x, xs: jnp.concatenate([x[None], xs[:-1]]), start, states)
    want = jnp.linalg.slogdet(step_jacobians(step, params, before, inputs))[1].mean()
    got = lyapunov_exponents(step, params, start, inputs)
    assert float(got.sum()) == pytest.approx(float(want), rel=1e-10)


def test_property_leading_k_are_the_first_of_the_whole_spectrum(x64):
    w = 1.5 * normal(1, (8, 8)) / 8**0.5
    step, params = recurrent.rnn_step("tanh"), recurrent.RNNParams(w, jnp.ones((1, 8)))
    inputs = normal(2, (60, 1))
    whole = lyapunov_exponents(step, params, jnp.zeros(8), inputs, warmup=20)
    first = lyapunov_exponents(step, params, jnp.zeros(8), inputs, warmup=20, num_exponents=3, interval=2)
    np.testing.assert_allclose(first, whole[:3], atol=1e-9)


def test_analytic_singular_jacobians_lose_one_direction_and_no_gradient(x64):
    """diag(p, 0): exponents log p and -inf; the gradient of the finite one is 1/p, that of the lost one 0."""

    def exponents(p):
        return lyapunov_exponents(
            linear_step, jnp.diag(jnp.stack([p, jnp.zeros(())])), jnp.zeros(2), num_steps=20, warmup=5
        )

    got = exponents(jnp.array(1.7))
    assert float(got[0]) == pytest.approx(np.log(1.7), rel=1e-12)
    assert float(got[1]) == -np.inf
    slopes = jax.jit(jax.jacrev(exponents))(jnp.array(1.7))
    np.testing.assert_allclose(slopes, [1 / 1.7, 0.0], rtol=1e-12)
    assert float(kaplan_yorke_dimension(got)) == 1.0
    penalty = jax.value_and_grad(
        lambda p: gradient_flossing(
            linear_step, jnp.diag(jnp.stack([p, jnp.zeros(())])), jnp.zeros(2), num_exponents=2, num_steps=20, warmup=5
        )
    )(jnp.array(1.7))
    np.testing.assert_allclose(penalty, (np.log(1.7) ** 2, 2 * np.log(1.7) / 1.7), rtol=1e-12)


def test_analytic_rank_one_jacobian_singular_only_up_to_rounding(x64):
    """x -> a (b . x): QR finds rounding in the place of zeros, which must stay far from the true exponent."""
    a, b = normal(0, (2, 5))
    got = lyapunov_exponents(linear_step, jnp.outer(a, b), jnp.zeros(5), num_steps=50, warmup=5)
    assert float(got[0]) == pytest.approx(np.log(abs(float(a @ b))), abs=1e-10)
    assert (np.asarray(got[1:]) < -25).all()


def test_property_a_trajectory_that_leaves_to_infinity_is_nan_and_only_that_one():
    d = lyapunov_distribution(
        henon_step, HenonParams(), jnp.array([[0.1, 0.1], [10.0, 10.0]]), num_steps=60, num_exponents=2
    )
    finite = np.isfinite(np.asarray(d.exponents))
    assert finite[0].all()
    assert np.isnan(np.asarray(d.exponents)[1]).all()
    assert np.isnan(np.asarray(d.mean)).all()
    assert np.isnan(float(kaplan_yorke_dimension(d.exponents[1, 0])))


def test_property_distribution_narrows_with_the_window_and_agrees_with_single_runs(x64):
    starts = 0.1 * normal(0, (16, 2))
    run = jax.jit(
        lambda starts, window: lyapunov_distribution(
            henon_step, HenonParams(), starts, num_steps=1600, warmup=200, window=window
        ),
        static_argnums=1,
    )
    short, long = run(starts, 20), run(starts, 400)
    assert short.exponents.shape == (16, 80, 2)
    assert long.quantiles.shape == (5, 2)
    np.testing.assert_allclose(short.mean, [0.41922, -1.62319], atol=0.02)
    np.testing.assert_allclose(short.exponents.mean(1), long.exponents.mean(1), atol=1e-12)
    # Correlations decay fast on the attractor: the spread falls about as 1/sqrt(window) or faster.
    assert float(long.standard_deviation[0]) < 0.4 * float(short.standard_deviation[0])
    assert (np.diff(short.quantiles, axis=0) >= 0).all()
    one = lyapunov_exponents(henon_step, HenonParams(), starts[3], num_steps=1600, warmup=200)
    np.testing.assert_allclose(long.exponents[3].mean(0), one, atol=1e-10)


def test_invariance_distribution_over_networks_and_inputs_of_their_own(x64):
    step = recurrent.rnn_step("tanh")
    params = recurrent.RNNParams(normal(7, (3, 5, 5)) / 5**0.5, jnp.ones((3, 1, 5)))
    inputs = normal(8, (3, 30, 1))
    d = lyapunov_distribution(step, params, jnp.zeros((3, 5)), inputs, params_axis=0, inputs_axis=0, num_exponents=2)
    alone = jax.tree.map(lambda x: x[2], params)
    want = lyapunov_exponents(step, alone, jnp.zeros(5), inputs[2], num_exponents=2)
    np.testing.assert_allclose(d.exponents[2, 0], want, atol=1e-12)
    assert len(np.unique(np.asarray(d.exponents[:, 0, 0]).round(6))) == 3


def test_parity_flossing_gradient_against_finite_differences(x64):
    w = normal(1, (4, 4)) / 2
    inputs = normal(2, (20, 1))
    direction = normal(3, (4, 4))

    @jax.jit
    def penalty(w):
        params = recurrent.RNNParams(1.1 * w, jnp.ones((1, 4)))
        return gradient_flossing(
            recurrent.rnn_step("tanh"), params, jnp.zeros(4), inputs, num_exponents=2, interval=4, target=-0.1
        )

    h = 1e-5
    want = (penalty(w + h * direction) - penalty(w - h * direction)) / (2 * h)
    got = jnp.sum(jax.jit(jax.grad(penalty))(w) * direction)
    assert float(got) == pytest.approx(float(want), rel=1e-6)


def test_integration_flossing_moves_the_leading_exponents_to_zero():
    """Plain gradient descent on the penalty alone keeps gradients alive: three exponents from below -0.5 to near 0."""
    n, step = 16, recurrent.rnn_step("tanh")
    params = recurrent.RNNParams(0.5 * normal(0, (n, n)) / n**0.5, jnp.ones((1, n)))
    inputs = 0.3 * normal(1, (60, 1))

    def penalty(params):
        return gradient_flossing(step, params, jnp.zeros(n), inputs, num_exponents=3, warmup=10, interval=5)

    @jax.jit
    def descend(params):
        def update(params, _):
            value, slope = jax.value_and_grad(penalty)(params)
            return jax.tree.map(lambda p, g: p - 0.2 * g, params, slope), value

        return jax.lax.scan(update, params, length=200)

    params, values = descend(params)
    got = lyapunov_exponents(step, params, jnp.zeros(n), inputs, warmup=10, num_exponents=3)
    assert float(values[0]) > 0.75
    assert np.abs(np.asarray(got)).max() < 0.1


def test_analytic_kaplan_yorke_edges():
    assert float(kaplan_yorke_dimension(jnp.array([-0.1, -0.2]))) == 0.0
    assert float(kaplan_yorke_dimension(jnp.array([0.3, -0.1]))) == 2.0
    assert float(kaplan_yorke_dimension(jnp.array([0.5, 0.0, -1.0]))) == pytest.approx(2.5)
    assert float(kaplan_yorke_dimension(jnp.array([-1.0, 0.5, 0.0]))) == pytest.approx(2.5)  # any order
    assert float(kaplan_yorke_dimension(jnp.array([0.5, -jnp.inf]))) == 1.0
    assert np.isnan(float(kaplan_yorke_dimension(jnp.array([jnp.nan, 0.5]))))


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "num_steps"),
        ({"num_steps": 10, "interval": 3}, "interval"),
        ({"num_steps": 10, "num_exponents": 3}, "num_exponents"),
        ({"inputs": jnp.zeros((5, 1)), "num_steps": 6}, "exceed"),
        ({"inputs": (jnp.zeros((5, 1)), jnp.zeros(4))}, "one leading time axis"),
    ],
)
def test_wrong_use_names_the_argument(options, words):
    with pytest.raises(ValueError, match=words):
        lyapunov_exponents(linear_step, jnp.eye(2), jnp.zeros(2), **options)


@pytest.mark.wrong_arguments
def test_wrong_use_of_the_distribution_and_the_step():
    with pytest.raises(ValueError, match="window"):
        lyapunov_distribution(linear_step, jnp.eye(2), jnp.zeros((3, 2)), num_steps=10, window=4)
    with pytest.raises(ValueError, match="same shape"):
        lyapunov_exponents(lambda p, x, u: x[:1], None, jnp.zeros(2), num_steps=3)
