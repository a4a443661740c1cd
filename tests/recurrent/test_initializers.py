"""Initial weights and the spectral radius."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.untyped import present

from cliffs import recurrent as init


def true_radius(matrix):
    return np.abs(np.linalg.eigvals(np.asarray(matrix, np.float64))).max()


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-12, 0.01, 1.0, 1e12]))
def test_parity_spectral_radius_against_numpy_eigenvalues(seed, scale):
    matrix = scale * np.random.default_rng(seed).normal(size=(20, 20)).astype(np.float32)
    np.testing.assert_allclose(jax.jit(init.spectral_radius)(matrix), true_radius(matrix), rtol=2e-5)


def test_analytic_spectral_radius(x64):
    rotation = 0.7 * jnp.array([[jnp.cos(1.0), -jnp.sin(1.0)], [jnp.sin(1.0), jnp.cos(1.0)]])
    assert float(init.spectral_radius(rotation)) == pytest.approx(0.7, rel=1e-10)
    assert float(init.spectral_radius(jnp.array([[0.0, 1.0], [0.0, 0.0]]))) == 0.0
    assert float(init.spectral_radius(jnp.zeros((3, 3)))) == 0.0
    assert np.isnan(init.spectral_radius(jnp.array([[jnp.nan, 0.0], [0.0, 2.0]])))
    assert np.isnan(init.spectral_radius(jnp.diag(jnp.array([jnp.inf, 2.0]))))
    # A Jordan block converges as k^(1/k), k = 2^40.
    assert float(init.spectral_radius(jnp.array([[0.9, 5.0], [0.0, 0.9]]))) == pytest.approx(0.9, rel=1e-8)


def test_invariance_vmap_over_keys_equals_one_by_one():
    keys = jax.random.split(jax.random.key(0), 4)
    recipe = init.sparse_spectral()
    together = jax.jit(jax.vmap(lambda k: recipe(k, (50, 50), jnp.float32)))(keys)
    alone = jnp.stack([recipe(k, (50, 50), jnp.float32) for k in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    for matrix in together:
        assert true_radius(matrix) == pytest.approx(0.95, rel=1e-4)


@pytest.mark.parametrize(("connections", "axis"), [("outgoing", 1), ("incoming", 0)])
def test_analytic_sparse_spectral_keeps_fifteen_per_unit(connections, axis):
    matrix = init.sparse_spectral(connections=connections)(jax.random.key(1), (50, 50))
    assert ((matrix != 0).sum(axis) == 15).all()


@pytest.mark.parametrize(("name", "std"), [("sigmoid", 0.01), ("basic_tanh", 0.1)])
def test_analytic_the_papers_gaussians(name, std):
    params = init.paper_init(name, jax.random.key(0), 60, 200, 40)
    for matrix in (params.rnn.w_rec, params.rnn.w_in, params.readout.w_out):
        assert float(matrix.std()) == pytest.approx(std, rel=0.05)
    assert not params.rnn.bias.any()
    assert not present(params.readout.bias).any()


def test_analytic_orthogonal_and_identity():
    w = init.orthogonal(1.3)(jax.random.key(0), (30, 30), jnp.float32)
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False), 1.3, rtol=1e-5)
    assert init.identity_plus_noise(0.0, 0.5)(jax.random.key(0), (3, 3)).tolist() == (0.5 * np.eye(3)).tolist()


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: init.paper_init("xavier", jax.random.key(0), 1, 1, 1), "name"),
        (lambda: init.sparse_spectral(0), "nonzeros"),
        (lambda: init.sparse_spectral(radius=-1.0), "radius"),
        (lambda: init.sparse_spectral(connections="both"), "connections"),
        (lambda: init.spectral_radius(jnp.zeros((2, 3))), "square"),
        (lambda: init.paper_init("sigmoid", jax.random.key(0), 6, 0, 4), "hidden"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
