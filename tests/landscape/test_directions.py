"""Directions to cut slices along, and paths seen on a slice."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import untyped

from cliffs.landscape import (
    along,
    descend,
    eigenvector_direction,
    gradient_direction,
    parameter_direction,
    pca_directions,
    project_path,
    random_direction,
    shift,
)
from cliffs.recurrent import OneUnitParams


@pytest.mark.parametrize("normalize", ["leaf", "filter", "global"])
def test_invariance_random_direction_has_the_dtype_and_size_of_the_parameters(x64, normalize):
    params = {
        "w": jnp.full((3, 4), 2.0, jnp.float32),
        "fresh": jnp.zeros(5, jnp.float64),
        "scalar": jnp.asarray(3.0),
        "none": None,
        "empty": jnp.zeros((0, 2)),
    }
    draw = jax.jit(lambda key: random_direction(key, params, normalize=normalize))
    d = draw(jax.random.key(0))
    assert jax.tree.map(lambda x: x.dtype, d) == jax.tree.map(lambda x: x.dtype, params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(d))
    if normalize == "global":
        assert float(optax.tree.norm(d)) == pytest.approx(float(optax.tree.norm(params)), rel=1e-6)
        assert np.abs(d["fresh"]).min() > 0  # a zero bias moves
    else:
        assert not d["fresh"].any()
        assert float(jnp.abs(d["scalar"])) == pytest.approx(3.0, rel=1e-12)
        assert float(jnp.linalg.norm(d["w"])) == pytest.approx(float(jnp.linalg.norm(params["w"])), rel=1e-6)
    if normalize == "filter":
        # Columns of `inputs @ w` are the units' incoming weights: 3 entries of 2.0 each.
        np.testing.assert_allclose(jnp.linalg.norm(d["w"], axis=0), np.full(4, 12**0.5), rtol=1e-6)
    assert not np.allclose(d["w"], draw(jax.random.key(1))["w"])


@pytest.mark.parametrize("normalize", ["leaf", "filter", "global"])
def test_property_random_directions_leave_out_what_is_not_selected(normalize):
    params = {"layer": {"w": 2.0 * jnp.ones((3, 4)), "bias": 5.0 * jnp.ones(4)}, "norm": {"scale": jnp.ones(4)}}
    key = jax.random.key(0)
    paths = []
    d = random_direction(
        key, params, normalize=normalize, select=lambda path: paths.append(path) or path.endswith("/w")
    )
    assert sorted(paths) == ["layer/bias", "layer/w", "norm/scale"]
    assert not d["layer"]["bias"].any()
    assert not d["norm"]["scale"].any()
    # Scaled to what moves alone; the direction there is that of a draw without a selection.
    np.testing.assert_allclose(jnp.linalg.norm(d["layer"]["w"]), 2 * 12**0.5, rtol=1e-6)
    whole = random_direction(key, params, normalize=normalize)["layer"]["w"]
    np.testing.assert_allclose(
        d["layer"]["w"] / jnp.linalg.norm(d["layer"]["w"]), whole / jnp.linalg.norm(whole), rtol=1e-5
    )
    with pytest.raises(ValueError, match="select finds no leaf among"):
        random_direction(key, params, select=lambda path: False)


def test_analytic_random_directions_are_isotropic_before_scaling():
    keys = jax.random.split(jax.random.key(0), 4000)
    draws = np.asarray(jax.jit(jax.vmap(lambda k: random_direction(k, jnp.ones(4))))(keys))
    np.testing.assert_allclose(draws.T @ draws / 4000, np.eye(4), atol=0.1)


def test_invariance_directions_keep_the_precision_of_the_parameters(x64):
    params = OneUnitParams(jnp.float32(5.0), jnp.float64(-2.0))
    moved = shift(params, [parameter_direction(params, "w"), parameter_direction(params, "b")])(jnp.array([1.0, 1e-12]))
    assert (moved.w.dtype, moved.b.dtype) == (jnp.float32, jnp.float64)
    assert float(moved.w) == 6.0
    assert float(moved.b) == -2.0 + 1e-12


def test_analytic_named_parameter_inside_a_matrix():
    params = {"unit": OneUnitParams(jnp.arange(6.0).reshape(2, 3), -1.0)}
    direction = parameter_direction(params, ("unit", "w", (1, 2)))
    np.testing.assert_array_equal(direction["unit"].w, [[0, 0, 0], [0, 0, 1]])
    assert float(direction["unit"].b) == 0.0
    assert float(along(lambda p: p["unit"].w[1, 2], params, direction)(jnp.asarray(0.5))) == 5.5


@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_analytic_gradient_direction_survives_exploding_and_vanishing_gradients(scale):
    direction = gradient_direction(lambda p: scale * (3.0 * p["a"] + 4.0 * p["b"]), {"a": 0.0, "b": 0.0})
    np.testing.assert_allclose([direction["a"], direction["b"]], [0.6, 0.8], rtol=1e-6)


def test_documented_no_gradient_no_direction():
    assert not jax.jit(lambda p: gradient_direction(lambda q: jnp.sum(q) * 0, p))(jnp.ones(3)).any()


def test_analytic_pca_of_a_path_in_a_plane(x64):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(7, 2)))
    sizes = rng.normal(size=(30, 2)) * [10.0, 1.0]
    sizes[-1] = 0  # the end is the centre
    flat = rng.normal(size=7) + sizes @ basis.T
    path = {"a": jnp.asarray(flat[:, :3]), "b": jnp.asarray(flat[:, 3:].reshape(30, 2, 2))}
    found = jax.jit(lambda path: pca_directions(path, 3))(path)
    np.testing.assert_allclose(found.center["a"], flat[-1, :3])
    assert float(found.explained[:2].sum()) == pytest.approx(1, abs=1e-12)
    assert float(found.explained[2]) == pytest.approx(0, abs=1e-12)
    seen = project_path(path, found.center, found.directions[:2])
    np.testing.assert_allclose(seen.residual, 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(seen.coordinates, axis=1), np.linalg.norm(sizes, axis=1), atol=1e-12)


def test_analytic_projection_on_oblique_directions(x64):
    d, e, off = jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0]), jnp.array([0.0, 0.0, 1.0])
    path = jnp.stack([1 + 2.0 * d - 3.0 * e + 0.5 * off, 1 + e])
    seen = jax.jit(lambda path: project_path(path, jnp.ones(3), [d, e]))(path)
    np.testing.assert_allclose(seen.coordinates, [[2.0, -3.0], [0.0, 1.0]], atol=1e-14)
    np.testing.assert_allclose(seen.residual, [0.5, 0.0], atol=1e-14)


def test_integration_a_training_path_lies_on_its_own_principal_plane():
    def train(start):
        path = descend(lambda p: p["a"] ** 2 + 10 * jnp.sum(p["b"] ** 2), start, optax.sgd(0.02), 40)
        found = pca_directions(path.params)
        return found, project_path(path.params, found.center, found.directions)

    found, seen = jax.jit(train)({"a": 1.0, "b": jnp.ones(3)})
    assert float(found.explained.sum()) > 0.999
    assert float(seen.residual.max()) < 1e-4 * float(jnp.abs(seen.coordinates).max())
    assert np.abs(seen.coordinates[-1]).max() < 1e-6


def test_analytic_eigenvector_of_a_quadratic(x64):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    matrix = jnp.asarray(basis @ np.diag([4.0, 2.0, 1.0, 0.5, -3.0]) @ basis.T)

    def loss(p):
        x = jnp.concatenate([p["a"], p["b"].ravel()])
        return 0.5 * x @ matrix @ x

    params = {"a": jnp.ones(3), "b": jnp.ones((2, 1))}
    for which, column in (("largest", 0), ("smallest", 4)):
        v = eigenvector_direction(loss, params, jax.random.key(0), which=untyped(which))
        assert jax.tree.map(jnp.shape, v) == jax.tree.map(jnp.shape, params)
        flat = np.concatenate([v["a"], v["b"].ravel()])
        np.testing.assert_allclose(abs(flat @ basis[:, column]), 1, atol=1e-12)
        shift(params, [v])  # serves as a direction


def test_analytic_projection_on_orthogonal_directions_of_very_different_length():
    path = jnp.array([[2.0, 3.0, 0.0]])
    seen = project_path(path, jnp.zeros(3), [jnp.array([1.0, 0, 0]), jnp.array([0, 1e-6, 0])])
    np.testing.assert_allclose(seen.coordinates, [[2.0, 3e6]], rtol=1e-5)


@pytest.mark.parametrize("normalize", ["leaf", "filter", "global"])
def test_property_random_directions_of_parameters_whose_squares_overflow(normalize):
    params = {"w": jnp.full((2, 2), 1e25), "v": jnp.full(3, 1e-25)}
    d = random_direction(jax.random.key(0), params, normalize=normalize)
    if normalize == "global":
        assert float(jnp.linalg.norm(jnp.append(d["w"], d["v"]) * 1e-25)) == pytest.approx(2, rel=1e-5)
    else:
        assert float(jnp.linalg.norm(d["w"] * 1e-25)) == pytest.approx(2, rel=1e-5)
        assert float(jnp.linalg.norm(d["v"] * 1e25)) == pytest.approx(3**0.5, rel=1e-5)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_direction(jax.random.key(0), jnp.ones(2), normalize=untyped("unit")), "normalize"),
        (lambda: random_direction(jax.random.key(0), {"w": jnp.ones(2), "n": jnp.arange(2)}), "'n' of dtype int32"),
        (lambda: random_direction(untyped(0), jnp.ones(2)), "key must be one jax.random.key, got 0"),
        (lambda: random_direction(jax.random.split(jax.random.key(0)), jnp.ones(2)), "key must be one"),
        (lambda: random_direction(jax.random.key(0), {"w": untyped("a")}), "params must hold arrays of numbers"),
        (lambda: random_direction(jax.random.key(0), jnp.ones(2), select=untyped("w")), "select must be a function"),
        (lambda: parameter_direction(OneUnitParams(5.0, 1.0), "c"), "'c'"),
        (lambda: pca_directions(jnp.ones((2, 3)), 2), "num"),
        (lambda: pca_directions(jnp.ones((9, 3)), center=untyped("first")), "center"),
        (lambda: project_path(jnp.ones((2, 3)), jnp.zeros(3), [jnp.ones(3), -2 * jnp.ones(3)]), "independent"),
        (lambda: shift(jnp.ones(2), [jnp.ones(3)]), "shapes"),
        (lambda: shift(untyped("a"), [jnp.ones(3)]), "params must hold arrays of numbers only, got a leaf 'a'"),
        (lambda: shift(jnp.ones(()), [untyped("b")]), r"directions\[0\] must hold arrays of numbers only"),
        (lambda: pca_directions(jnp.ones((9, 3)), untyped("a")), "num must be at least 1 .* got 'a'"),
        (lambda: pca_directions(jnp.arange(10.0)[:, None], 2), "number of parameters"),
        (lambda: gradient_direction(lambda p: jnp.float32(0), {}), "params"),
        (lambda: eigenvector_direction(jnp.sum, jnp.ones(2), jax.random.key(0), which=untyped("top")), "which"),
        (lambda: project_path(jnp.ones((2, 3)), jnp.zeros(3), [jnp.zeros(3)]), "non-zero"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.wrong_arguments
def test_wrong_use_integer_parameters():
    with pytest.raises(ValueError, match="int32"):
        shift(jnp.arange(3), [jnp.ones(3)])
    with pytest.raises(ValueError, match="int32"):
        pca_directions({"a": jnp.ones((4, 2)), "n": jnp.arange(4)}, 1)
