"""Error surfaces."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import present

from cliffs import recurrent, tasks, training
from cliffs.landscape import parameter_direction, random_direction, surface
from cliffs.recurrent import OneUnitParams, one_unit_cost


@pytest.mark.parametrize("devices", [1, 3])
def test_analytic_quadratic_surface_and_its_step_field(x64, devices):
    matrix = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 3.0]])
    center, axes = jnp.array([0.0, 0.0, 1.0]), [jnp.linspace(-1, 1, 5), jnp.linspace(0, 2, 4)]
    directions = [jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 1.0, 0.0])]  # oblique
    chain = optax.chain(optax.clip_by_global_norm(1.5), optax.sgd(0.1))
    options = {"optimizer": chain, "chunk_size": 3, "devices": jax.devices()[:devices]}
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


# (w, b): cost, dw, db, dww, dwb, dbb of the error of Fig. 3 at T = 50, from 25-digit arithmetic.
FIGURE_3 = {
    (5, -2.5): (
        0.02408886881335822,
        0.08631166947712825,
        0.10092501763686784,
        -0.15076178181191900,
        -0.20910115818008487,
        -0.28287363810771866,
    ),
    (5, -2.2): (
        0.046155274365197647,
        0.050167714247617510,
        0.054837824810235737,
        -0.062111941297481194,
        -0.074892678128350821,
        -0.089514685559161970,
    ),
    (6, -3): (
        0.052569235088877511,
        0.046236395366012016,
        0.049755083981003496,
        -0.070188387352408527,
        -0.080928448291422661,
        -0.092896693752503929,
    ),
    (4, -2): (
        0.016736632938222792,
        -1.0445294053671993,
        -1.7879041542366178,
        63.694723005155130,
        116.68111326404860,
        212.44353011852052,
    ),
    (-6, 3): (
        0.052569235088877511,
        -0.010552095628137618,
        0.021613515567454553,
        -0.010806092065608451,
        -0.0027044214168596357,
        -0.017529767556207654,
    ),
}


def test_parity_reference_cost_gradient_and_hessian_of_figure_3(x64):
    points = jnp.array([list(map(float, point)) for point in FIGURE_3])
    want = dict(zip(("cost", "dw", "db", "dww", "dwb", "dbb"), np.array(list(FIGURE_3.values())).T))

    def cost(point):
        return one_unit_cost(OneUnitParams(point[0], point[1]))

    grads, hessians = jax.jit(jax.vmap(lambda p: (jax.grad(cost)(p), jax.hessian(cost)(p))))(points)
    for got, name in zip((*grads.T, *hessians.reshape(-1, 4)[:, [0, 1, 3]].T), ("dw", "db", "dww", "dwb", "dbb")):
        np.testing.assert_allclose(got, want[name], rtol=2e-8, err_msg=name)
    base = OneUnitParams(0.0, 0.0)
    axes = [parameter_direction(base, "w"), parameter_direction(base, "b")]
    run = jax.jit(lambda w, b: surface(one_unit_cost, base, axes, [w[None], b[None]]))
    for i, (w, b) in enumerate(points):
        got = run(w, b)
        assert float(got.loss[0, 0]) == pytest.approx(want["cost"][i], rel=1e-9)
        assert float(got.grad_norm[0, 0]) == pytest.approx(np.hypot(want["dw"][i], want["db"][i]), rel=2e-9)


def test_integration_surface_of_a_recurrent_network_on_two_devices():
    loss = training.classification_loss(recurrent.rnn_step("tanh"))
    axes = [jnp.array([-1.0, 0.0, 0.01, 0.5, 1.0]), jnp.linspace(-1, 0, 3)]

    @jax.jit
    def both():
        batch = tasks.temporal_order(jax.random.key(1), 4, 12)
        params = recurrent.paper_init("basic_tanh", jax.random.key(0), 6, 8, 4)
        directions = [random_direction(k, params, normalize="filter") for k in jax.random.split(jax.random.key(2))]

        def run(**options):
            return surface(lambda p: loss(p, batch)[0], params, directions, axes, **options)

        # 15 points are no multiple of 2 devices x 4 lanes.
        return run(chunk_size=4, devices=jax.devices()[:2]), run(gradient=False)

    got, bare = both()
    assert bare.grad_norm is None
    assert bare.slopes is None
    np.testing.assert_allclose(got.loss, bare.loss, rtol=1e-5)
    # Over the short step of the grid the loss changes by the mean of the slopes along it, up to third order.
    change, slope = np.asarray(got.loss[2] - got.loss[1]), np.asarray(got.slopes[1:3, :, 0].mean(0))
    np.testing.assert_allclose(change, 0.01 * slope, rtol=0.05, atol=2e-6)


@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_property_gradient_norms_whose_squares_leave_the_range_of_float32(scale):
    chain = optax.sgd(0.1)
    got = surface(lambda p: scale * p.sum(), jnp.ones(2), [jnp.array([1.0, 0])], [jnp.zeros(1)], optimizer=chain)
    np.testing.assert_allclose(present(got.grad_norm), scale * 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(present(got.step_norm), 0.1 * scale * 2**0.5, rtol=1e-6)
    # A direction of any length: coordinates are in units of it.
    tiny = surface(jnp.sum, jnp.ones(2), [scale * jnp.array([1.0, 0])], [jnp.zeros(1)], optimizer=chain)
    np.testing.assert_allclose(present(tiny.step), [[-0.1 / scale]], rtol=1e-5)


@pytest.mark.wrong_arguments
def test_wrong_use_steps_along_parallel_directions_and_no_devices():
    for directions in ([jnp.ones(3), -2 * jnp.ones(3)], [jnp.zeros(3)]):
        axes = [jnp.ones(1)] * len(directions)
        with pytest.raises(ValueError, match="independent"):
            surface(jnp.sum, jnp.ones(3), directions, axes, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="devices"):
        surface(jnp.sum, jnp.ones(2), [jnp.ones(2)], [jnp.ones(1)], devices=[])


def test_documented_non_finite_losses_are_passed_on():
    got = surface(lambda p: jnp.log(p), jnp.float32(0.0), [1.0], [jnp.array([-1.0, 0.0, 1.0])])
    assert np.isnan(got.loss[0])
    assert np.isneginf(got.loss[1])
    assert float(present(got.grad_norm)[2]) == 1.0
    # The derivative 1 / p has a value where log p has none.
    got = surface(lambda p: jnp.log(p[0]) + p[1] ** 2, jnp.array([0.5, 1.0]), [jnp.eye(2)[0]], [jnp.array([-1.0, 0.0])])
    assert np.isnan([got.loss[0], present(got.grad_norm)[0], present(got.slopes)[0, 0]]).all()
    np.testing.assert_allclose(present(got.grad_norm)[1], 8**0.5, rtol=1e-6)


@pytest.mark.wrong_arguments
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
