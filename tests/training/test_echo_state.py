"""Echo state training: the reservoir, ridge regression, and memory capacity against the closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import recurrent, training


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_analytic_the_reservoir_has_its_spectral_radius_also_when_traced(density):
    make = lambda key, radius: training.echo_state_params(  # noqa: E731
        key, 2, 30, spectral_radius=radius, input_scale=0.5, density=density
    )
    radii = jnp.array([0.3, 0.95, 1.2])
    params = jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), 3), radii)
    got = np.abs(np.linalg.eigvals(params.w_rec)).max(-1)
    np.testing.assert_allclose(got, radii, rtol=1e-3)
    assert np.abs(params.w_in).max() <= 0.5
    share = (np.asarray(params.w_rec) != 0).mean()
    assert abs(share - density) < 0.05


@pytest.mark.parametrize("bias", [True, False])
def test_parity_ridge_with_the_normal_equations(x64, bias):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 4, 3)) + 1, rng.normal(size=(10, 4, 2))
    fitted = jax.jit(functools.partial(training.ridge_readout, bias=bias))(x, y, ridge=0.7)
    a, b = x.reshape(-1, 3), y.reshape(-1, 2)
    mean = (a.mean(0), b.mean(0)) if bias else (np.zeros(3), np.zeros(2))
    a, b = a - mean[0], b - mean[1]
    want = np.linalg.solve(a.T @ a + 0.7 * np.eye(3), a.T @ b)
    np.testing.assert_allclose(fitted.w_out, want, rtol=1e-12)
    if bias:
        np.testing.assert_allclose(fitted.bias, mean[1] - mean[0] @ want, rtol=1e-12)
    else:
        assert fitted.bias is None


def reservoirs():
    n, ring = 20, np.roll(np.eye(20), 1, 1)
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]
    w_in = np.random.default_rng(1).uniform(-1, 1, n)
    small = np.random.default_rng(2).normal(size=(6, 6))
    return {
        "ring": (0.9 * ring, np.eye(n)[0]),
        "orthogonal": (0.9 * orthogonal, w_in),
        "gaussian": (0.8 * small / np.abs(np.linalg.eigvals(small)).max(), w_in[:6]),
    }


@pytest.mark.parametrize("name", ["ring", "orthogonal", "gaussian"])
def test_analytic_memory_capacity_of_linear_networks(x64, name):
    """Within 2 % of the closed form over the same delays; the closed form itself tends to the number of units."""
    w_rec, w_in = map(jnp.asarray, reservoirs()[name])
    delays = 3 * len(w_in)
    theory = training.linear_memory_capacity(w_rec, w_in, max_delay=delays)
    params = recurrent.RNNParams(w_rec, w_in[None])

    @jax.jit
    def measured(key):
        inputs = jax.random.normal(key, (40_000,), jnp.float64)
        states = recurrent.unroll(recurrent.rnn_step("identity"), params, jnp.zeros(len(w_in)), inputs[:, None])
        return training.memory_capacity(states[500:], inputs[500:], max_delay=delays)

    got = measured(jax.random.key(0))
    np.testing.assert_allclose(got.total, theory.total, rtol=0.02)
    np.testing.assert_allclose(got.curve, theory.curve, atol=0.03)
    everything = training.linear_memory_capacity(w_rec, w_in, max_delay=600)
    np.testing.assert_allclose(everything.total, len(w_in), rtol=1e-6)
    if name == "ring":  # (1 - r^2n) r^(2 n floor(k / n))
        k = np.arange(delays + 1)
        np.testing.assert_allclose(theory.curve, (1 - 0.9**40) * 0.9 ** (40 * (k // 20)), rtol=1e-9)


def test_integration_an_echo_state_network_learns_a_delayed_nonlinear_target():
    """y_t = u_{t-2} u_{t-1} from a fixed tanh reservoir and a ridge read-out; a read-out of the input alone fails."""
    key = jax.random.key(3)
    params = training.echo_state_params(key, 1, 100, spectral_radius=0.8, input_scale=0.5)
    inputs = jax.random.uniform(jax.random.key(4), (3000, 1), minval=-1, maxval=1)
    step = recurrent.rnn_step("tanh")
    states = recurrent.unroll(step, params._replace(bias=jnp.full(100, 0.3)), jnp.zeros(100), inputs)
    targets = jnp.roll(inputs, 1, 0) * jnp.roll(inputs, 2, 0)
    fitted = training.ridge_readout(states[100:2000], targets[100:2000])
    test = slice(2000, 3000)
    error = ((recurrent.readout(fitted, states[test]) - targets[test]) ** 2).mean() / targets[test].var()
    plain = training.ridge_readout(inputs[100:2000], targets[100:2000])
    naive = ((recurrent.readout(plain, inputs[test]) - targets[test]) ** 2).mean() / targets[test].var()
    assert error < 0.05
    assert naive > 0.9


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: training.echo_state_params(jax.random.key(0), 0, 3), "features"),
        (lambda: training.echo_state_params(jax.random.key(0), 1, 3, density=0.0), "density"),
        (lambda: training.echo_state_params(jax.random.key(0), 1, 3, spectral_radius=-1.0), "radius"),
        (lambda: training.ridge_readout(jnp.ones((3, 1)), jnp.ones((3, 1)), ridge=-1.0), "ridge"),
        (lambda: training.ridge_readout(jnp.ones((3, 1)), jnp.ones((4, 1))), "targets"),
        (lambda: training.ridge_readout(jnp.ones((3, 1)), jnp.ones(3)), r"must be \(3, outputs\) .* got \(3,\)"),
        (lambda: training.memory_capacity(jnp.ones((90, 3)), jnp.ones((90, 1)), max_delay=6), r"got .*\(90, 1\)"),
        (lambda: training.linear_memory_capacity(jnp.eye(3), jnp.ones((1, 3)), max_delay=6), r"w_in must be \[n\]"),
        (lambda: training.memory_capacity(jnp.ones((10, 3)), jnp.ones(10), max_delay=6), "max_delay=6"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
