"""Error surfaces and descent on them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs.landscape import descend, parameter_direction, random_direction, surface
from cliffs.maps import OneUnitParams, one_unit_cost


def test_analytic_quadratic_surface(x64):
    matrix = jnp.array([[2.0, 0.5], [0.5, 1.0]])
    axes = [jnp.linspace(-1, 1, 5), jnp.linspace(0, 2, 4)]
    got = surface(lambda p: 0.5 * p @ matrix @ p, jnp.zeros(2), list(jnp.eye(2)), axes, batch_size=3)
    for i, a in enumerate(axes[0]):
        for j, b in enumerate(axes[1]):
            p = jnp.array([a, b])
            assert float(got.loss[i, j]) == pytest.approx(float(0.5 * p @ matrix @ p), abs=1e-14)
            assert float(got.grad_norm[i, j]) == pytest.approx(float(jnp.linalg.norm(matrix @ p)), abs=1e-14)


def test_parity_reference_point_on_the_papers_surface(x64, reference):
    want = {k: float(v) for k, v in reference["cost_T50"]["5,-2.2"].items()}
    base = OneUnitParams(jnp.asarray(5.0), jnp.asarray(0.0))
    got = surface(one_unit_cost, base, [parameter_direction(base, "b")], [jnp.array([-2.2])])
    assert float(got.loss[0]) == pytest.approx(want["cost"], rel=1e-9)
    assert float(got.grad_norm[0]) == pytest.approx(np.hypot(want["dw"], want["db"]), rel=1e-9)


def test_analytic_random_direction_has_the_leaves_norms():
    params = {"a": jnp.full((3, 4), 2.0), "b": jnp.zeros(5)}
    direction = random_direction(jax.random.key(0), params)
    assert float(jnp.linalg.norm(direction["a"])) == pytest.approx(float(jnp.linalg.norm(params["a"])), rel=1e-5)
    assert not direction["b"].any()


def test_integration_the_cliff_throws_plain_descent_out_and_clipping_stays(x64):
    def run(max_norm):
        chain = optax.chain(optax.clip_by_global_norm(max_norm), optax.sgd(0.1))
        return descend(one_unit_cost, OneUnitParams(jnp.asarray(5.0), jnp.asarray(-2.3)), chain, 200)

    plain, clipped = jax.tree.map(lambda x: (x[0], x[1]), jax.vmap(run)(jnp.array([jnp.inf, 0.1]))), None
    longest = []
    for i in (0, 1):
        w, b = (np.asarray(x[i]) for x in (plain.params.w, plain.params.b))
        longest.append(np.hypot(np.diff(w), np.diff(b)).max())
    assert longest[0] > 1.0  # off the picture in one step
    assert longest[1] <= 0.01 * (1 + 1e-12)  # learning rate x threshold
    assert clipped is None


def test_documented_a_diverging_path_stays_where_it_was_finite():
    path = descend(lambda p: p**4, jnp.float32(3.0), optax.sgd(1.0), 8)
    assert int(path.diverged_at) >= 0
    assert np.isfinite(path.params).all()


@pytest.mark.parametrize(
    ("directions", "offsets", "words"),
    [([], [], "1 or 2"), ([jnp.ones(2)], [jnp.ones(1)] * 2, "1 or 2"), ([{"a": 1.0}], [jnp.ones(1)], "structure")],
)
def test_wrong_use_names_the_argument(directions, offsets, words):
    with pytest.raises(ValueError, match=words):
        surface(jnp.sum, jnp.zeros(2), directions, offsets)
