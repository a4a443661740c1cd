"""Error surfaces."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import initializers, rnn, tasks, training
from cliffs.directions import parameter_direction, random_direction
from cliffs.landscape import surface
from cliffs.maps import OneUnitParams, one_unit_cost


@pytest.mark.parametrize("devices", [1, 3])
def test_analytic_quadratic_surface_and_its_step_field(x64, devices):
    matrix = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
    center, axes = jnp.array([0.0, 0.0, 1.0]), [jnp.linspace(-1, 1, 5), jnp.linspace(0, 2, 4)]
    directions = [jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0])]  # oblique
    chain = optax.chain(optax.clip_by_global_norm(1.5), optax.sgd(0.1))
    options = {"optimizer": chain, "batch_size": 3, "devices": jax.devices()[:devices]}
    got = jax.jit(lambda: surface(lambda p: 0.5 * p @ matrix @ p, center, directions, axes, **options))()
    for i, a in enumerate(axes[0]):
        for j, b in enumerate(axes[1]):
            p = np.asarray(center + a * directions[0] + b * directions[1])
            grad = np.asarray(matrix) @ p
            norm = np.linalg.norm(grad)
            step = -0.1 * grad * min(1, 1.5 / norm)
            assert float(got.loss[i, j]) == pytest.approx(0.5 * p @ grad, abs=1e-14)
            assert float(got.grad_norm[i, j]) == pytest.approx(norm, abs=1e-14)
            np.testing.assert_allclose(got.slopes[i, j], [grad[0], grad[0] + grad[1]], atol=1e-14)
            np.testing.assert_allclose(got.step[i, j], [step[0] - step[1], step[1]], atol=1e-14)
            assert float(got.step_norm[i, j]) == pytest.approx(np.linalg.norm(step), abs=1e-14)


def test_parity_reference_cost_gradient_and_hessian_of_figure_3(x64, reference):
    table = {tuple(map(float, k.split(","))): v for k, v in reference["cost_T50"].items()}
    points = jnp.array(list(table))
    want = {k: np.array([float(v[k]) for v in table.values()]) for k in ("cost", "dw", "db", "dww", "dwb", "dbb")}

    def cost(point):
        return one_unit_cost(OneUnitParams(point[0], point[1]))

    grads, hessians = jax.jit(jax.vmap(lambda p: (jax.grad(cost)(p), jax.hessian(cost)(p))))(points)
    for got, name in zip((*grads.T, *hessians.reshape(-1, 4)[:, [0, 1, 3]].T), ("dw", "db", "dww", "dwb", "dbb")):
        np.testing.assert_allclose(got, want[name], rtol=2e-8, err_msg=name)
    assert len(table) >= 5
    base = OneUnitParams(0.0, 0.0)
    axes = [parameter_direction(base, "w"), parameter_direction(base, "b")]
    run = jax.jit(lambda w, b: surface(one_unit_cost, base, axes, [w[None], b[None]]))
    for i, (w, b) in enumerate(points):
        got = run(w, b)
        assert float(got.loss[0, 0]) == pytest.approx(want["cost"][i], rel=1e-9)
        assert float(got.grad_norm[0, 0]) == pytest.approx(np.hypot(want["dw"][i], want["db"][i]), rel=2e-9)


def test_integration_surface_of_a_recurrent_network_on_two_devices():
    loss = training.classification_loss(rnn.rnn_step("tanh"))
    axes = [jnp.array([-1.0, 0.0, 0.01, 0.5, 1.0]), jnp.linspace(-1, 0, 3)]

    @jax.jit
    def both():
        batch = tasks.temporal_order(jax.random.key(1), 4, 12)
        params = initializers.paper_init("basic_tanh", jax.random.key(0), 6, 8, 4)
        directions = [random_direction(k, params, normalize="filter") for k in jax.random.split(jax.random.key(2))]

        def run(**options):
            return surface(lambda p: loss(p, batch)[0], params, directions, axes, **options)

        # 15 points are no multiple of 2 devices x 4 lanes.
        return run(batch_size=4, devices=jax.devices()[:2]), run(gradient=False)

    got, bare = both()
    assert bare.grad_norm is None
    assert bare.slopes is None
    np.testing.assert_allclose(got.loss, bare.loss, rtol=1e-5)
    # Over the short step of the grid the loss changes by the mean of the slopes along it, up to third order.
    change, slope = np.asarray(got.loss[2] - got.loss[1]), np.asarray(got.slopes[1:3, :, 0].mean(0))
    np.testing.assert_allclose(change, 0.01 * slope, rtol=0.05, atol=2e-6)


def test_documented_non_finite_losses_are_passed_on():
    got = surface(lambda p: jnp.log(p), jnp.float32(0.0), [1.0], [jnp.array([-1.0, 0.0, 1.0])])
    assert np.isnan(got.loss[0])
    assert np.isneginf(got.loss[1])
    assert float(got.grad_norm[2]) == 1.0


@pytest.mark.parametrize(
    ("directions", "offsets", "words"),
    [
        ([], [], "1 or 2"),
        ([jnp.ones(2)], [jnp.ones(1)] * 2, "1 or 2"),
        ([{"a": 1.0}], [jnp.ones(1)], "structure"),
        ([jnp.ones(3)], [jnp.ones(1)], "shapes"),
        ([jnp.ones(2)], [jnp.ones(0)], "non-empty"),
    ],
)
def test_wrong_use_names_the_argument(directions, offsets, words):
    with pytest.raises(ValueError, match=words):
        surface(jnp.sum, jnp.zeros(2), directions, offsets)
