"""Teacher forcing: what is carried on, what the gradient sees, and how much forcing bounds it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import recurrent, training


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_parity_with_the_loop_a_user_would_write(x64, strength, interval):
    rng = np.random.default_rng(0)
    w, targets = rng.normal(size=(4, 4)), rng.normal(size=(7, 2, 3))
    start, inputs = rng.normal(size=(2, 4)), rng.normal(size=(7, 2, 4))
    step = lambda w, z, u: jnp.tanh(z @ w) + u  # noqa: E731
    run = jax.jit(
        lambda w, a: training.teacher_forced_unroll(
            step, w, start, inputs, targets=targets, strength=a, interval=interval
        )
    )
    z, want = start, []
    for t in range(7):
        z = np.tanh(z @ w) + inputs[t]
        want.append(z)
        if (t + 1) % interval == 0:
            z = np.concatenate([(1 - strength) * z[:, :3] + strength * targets[t], z[:, 3:]], 1)
    np.testing.assert_allclose(run(w, strength), want, rtol=1e-12)


def test_analytic_forcing_shrinks_the_jacobians(x64):
    """`dz_T/dz_0 = J ((1 - a) J)^(T - 1)` of a linear map; at a = 1 nothing of the start is left."""
    w = jnp.array([[1.2, 0.3], [-0.4, 1.1]])
    for a in (0.0, 0.25, 1.0):

        def last(x, a=a):
            return training.teacher_forced_unroll(recurrent.linear_step, w, x, targets=jnp.ones((5, 2)), strength=a)[-1]

        got = jax.jit(jax.jacrev(last))(jnp.ones(2))
        np.testing.assert_allclose(got, np.linalg.matrix_power(w, 5) * (1 - a) ** 4, atol=1e-12)


def test_property_the_estimated_strength_bounds_the_product(x64):
    """In a chaotic network products of `J_t` grow; those of `(1 - a) J_t` have norm at most 1 over the sequences."""
    rng = np.random.default_rng(0)
    w = jnp.asarray(4 * rng.normal(size=(40, 40)) / 40**0.5)
    step = lambda w, z, u=None: jnp.tanh(z) @ w  # noqa: E731

    @jax.jit
    def run(starts):
        states = recurrent.unroll(step, w, starts, None, length=60)[10:]
        jacobians = jax.vmap(jax.vmap(lambda z: jax.jacfwd(lambda z: step(w, z))(z)))(states)
        strength = training.forcing_strength(step, w, states)
        product = lambda j: jax.lax.scan(lambda p, j: (j @ p, None), jnp.eye(40), j)[0]  # noqa: E731
        products = jax.vmap(product, 1)(jacobians)
        return strength, jnp.linalg.norm(jacobians, 2, axis=(2, 3)), jnp.linalg.norm(products, 2, axis=(1, 2))

    strength, norms, products = run(jnp.asarray(rng.normal(size=(4, 40))))
    largest = np.exp(np.log(norms).mean(0)).max()
    np.testing.assert_allclose(strength, 1 - 1 / largest, rtol=1e-10)
    assert products.max() > 1e6
    assert ((1 - strength) ** 50 * products).max() <= 1
    assert float(training.forcing_strength(step, 0.1 * w, jnp.zeros((3, 2, 40)))) == 0


def test_analytic_annealing_goes_up_at_once_and_down_slowly():
    strength = jnp.asarray(1.0)
    for _ in range(10):
        strength = training.anneal_strength(strength, 0.2, decay=0.9)
    assert float(strength) == pytest.approx(0.2 + 0.8 * 0.9**10, rel=1e-5)
    assert float(training.anneal_strength(strength, 0.95)) == pytest.approx(0.95)


def test_integration_a_forced_network_learns_to_generate_a_sine():
    """Doya's use: taught with its output replaced by the target, the network then runs freely on the target's cycle."""
    period, length = 12, 48
    wave = 0.8 * jnp.sin(2 * jnp.pi * jnp.arange(length + 1) / period)[:, None]
    step = training.feedback_step(recurrent.rnn_step("tanh"))
    params = recurrent.init_model(
        jax.random.key(0), 1, 16, 1, w_rec=recurrent.orthogonal(0.9), w_in=recurrent.glorot(), w_out=recurrent.glorot()
    )
    start = (jnp.zeros(16), wave[0])

    def loss(params, batch):
        del batch
        outputs = training.teacher_forced_unroll(
            step, params, start, targets=wave[1:], strength=1.0, force=training.force_output
        )[1]
        return ((outputs - wave[1:]) ** 2).mean(), ()

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, 2000))
    fit = jax.jit(lambda p: training.fit(loss, optimizer, p, lambda key: None, jax.random.key(1), 2000))
    state, history = fit(params)
    assert float(history.loss[-1]) < 1e-4 < float(history.loss[0])
    free = recurrent.unroll(step, state.params, start, None, length=length)[1]
    error = float(((free - wave[1:]) ** 2).mean())
    power = float((wave**2).mean())
    assert error < 0.1 * power


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(("kwargs", "words"), [({"interval": 0}, "interval"), ({"strength": 1.5}, "strength")])
def test_wrong_use_names_the_argument(kwargs, words):
    with pytest.raises(ValueError, match=words):
        training.teacher_forced_unroll(
            recurrent.linear_step, jnp.eye(1), jnp.ones(1), targets=jnp.ones((2, 1)), **kwargs
        )
