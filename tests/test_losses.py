"""One contract for losses: a scalar or (scalar, aux), in training and in every analysis."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import curvature, landscape, recurrent, tasks, training


def plain(params, batch):
    return jnp.mean((params["w"] - batch) ** 4)


def with_aux(params, batch):
    return plain(params, batch), {"largest": jnp.max(batch)}


PARAMS = {"w": jnp.array([0.5, -1.0])}
DIRECTION = {"w": jnp.array([1.0, 0.5])}
BATCH = jnp.array([1.0, 2.0])


@pytest.mark.parametrize("loss", [plain, with_aux], ids=["scalar", "with aux"])
def test_invariance_training_takes_a_scalar_or_a_pair(loss):
    state, history = training.fit(loss, optax.sgd(0.1), PARAMS, lambda key: BATCH, jax.random.key(0), 3)
    want, _ = training.fit(with_aux, optax.sgd(0.1), PARAMS, lambda key: BATCH, jax.random.key(0), 3)
    np.testing.assert_array_equal(state.params["w"], want.params["w"])
    assert history.aux == () if loss is plain else history.aux["largest"].shape == (3,)


@pytest.mark.parametrize("loss", [plain, with_aux], ids=["scalar", "with aux"])
def test_invariance_analyses_take_a_training_loss_at_a_batch(loss):
    here = training.at_batch(loss, BATCH)
    assert float(here(PARAMS)) == float(plain(PARAMS, BATCH))
    product = curvature.hessian_vector_product(here, PARAMS, DIRECTION)
    dense = jax.hessian(lambda p: plain(p, BATCH))(PARAMS)["w"]["w"]
    np.testing.assert_allclose(product["w"], dense @ DIRECTION["w"], rtol=1e-6)
    offsets = jnp.linspace(-1, 1, 5)
    values = landscape.surface(here, PARAMS, [DIRECTION], [offsets]).loss
    want = [plain({"w": PARAMS["w"] + s * DIRECTION["w"]}, BATCH) for s in offsets]
    np.testing.assert_allclose(values, want, rtol=1e-6)


@pytest.mark.parametrize("loss", [plain, with_aux], ids=["scalar", "with aux"])
def test_invariance_the_pair_itself_is_taken_where_params_stand_alone(loss):
    def alone(params):
        return loss(params, BATCH)

    here = training.at_batch(loss, BATCH)
    for function in (
        lambda f: curvature.hessian_operator(f, PARAMS)(DIRECTION),
        lambda f: landscape.descend(f, PARAMS, optax.sgd(0.1), 3).loss,
        lambda f: landscape.gradient_direction(f, PARAMS),
        lambda f: landscape.cliff_profile(f, PARAMS, DIRECTION).peak,
        lambda f: landscape.surface(f, PARAMS, [DIRECTION], [jnp.zeros(1)], gradient=False).loss,
        lambda f: curvature.smoothness_between(f, PARAMS, DIRECTION).smoothness,
    ):
        jax.tree.map(np.testing.assert_array_equal, function(alone), function(here))


def test_integration_the_library_s_own_loss_fits_its_analyses():
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    params = recurrent.paper_init("smart_tanh", jax.random.key(0), 6, 8, 4)
    here = training.at_batch(loss, tasks.temporal_order(jax.random.key(1), 4, 12))
    pairs = curvature.eigenpairs(curvature.hessian_operator(here, params), params, jax.random.key(2), num_iterations=3)
    assert np.isfinite(pairs.values).all()
    profile = landscape.cliff_profile(here, params, landscape.gradient_direction(here, params), num_points=9)
    assert profile.peak > 0


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("bad", [lambda p, b: p["w"], lambda p, b: (1.0, 2.0, 3.0)], ids=["array", "triple"])
def test_wrong_a_loss_that_is_no_scalar_is_named(bad):
    with pytest.raises(ValueError, match="loss must return a scalar or"):
        training.at_batch(bad, BATCH)(PARAMS)
    with pytest.raises(ValueError, match="loss must return a scalar or"):
        training.fit(bad, optax.sgd(0.1), PARAMS, lambda key: BATCH, jax.random.key(0), 1)
