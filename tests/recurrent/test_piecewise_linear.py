"""Piecewise-linear networks, with published numbers of cycles as truth."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs.dynamics import find_fixed_points
from cliffs.recurrent import PLRNNParams, ShallowPLRNNParams, plrnn_step, shplrnn_step

PUBLISHED = json.loads((pathlib.Path(__file__).parent / "published_cycles.json").read_text())


def plrnn(entry):
    return PLRNNParams(*(jnp.array(entry[k]) for k in ("a", "w", "h")))


def shallow(entry):
    return ShallowPLRNNParams(*(jnp.array(entry[k]) for k in ("a", "w1", "w2", "h1", "h2")))


@functools.partial(jax.jit, static_argnums=0)
def apply(step, params, states):
    """The map on a batch; of one size for all cases, so that it is compiled once."""
    return step(params, states)


def cycles(step, params, period, num_starts=64):
    starts = 3.0 * jax.random.normal(jax.random.key(0), (num_starts, len(params.a)))
    found = find_fixed_points(step, params, starts, period=period, slow_speed=0.0)
    # Verified by the map itself: each is a cycle, and of no shorter period.
    orbit = found.cycles
    images = np.asarray(apply(step, params, np.resize(orbit, (256, len(params.a)))))[: orbit[..., 0].size]
    np.testing.assert_allclose(np.roll(orbit, -1, axis=1), images.reshape(orbit.shape), atol=1e-9)
    for points in found.cycles:
        assert len(np.unique(points.round(7), axis=0)) == period
    return found


CASES = [(i, int(p), n) for i, e in enumerate(PUBLISHED["plrnn"]) for p, n in e["cycles"].items()]
# Of the periods at which there is no cycle every second one: each costs a compilation.
CASES = [c for c in CASES if c[2]] + [c for c in CASES if not c[2]][::2]


@pytest.mark.parametrize(("which", "period", "count"), CASES)
def test_parity_published_numbers_of_cycles_up_to_order_83(x64, which, period, count):
    params = plrnn(PUBLISHED["plrnn"][which])
    found = cycles(plrnn_step(), params, period)
    assert len(found.kind) == count
    if count == 2:
        # They come in pairs, born at a border collision: one attracts, the other is a saddle.
        assert sorted(found.kind) == ["attractor", "saddle"]


def test_parity_published_fixed_point(x64):
    found = cycles(plrnn_step(), plrnn(PUBLISHED["plrnn"][1]), 1, num_starts=8)
    np.testing.assert_allclose(found.points, [[0.36, -22.26]], atol=0.005)


@pytest.mark.parametrize(
    ("which", "period", "count"),
    [(i, int(p), n) for i, e in enumerate(PUBLISHED["shallow"]) for p, n in e["cycles"].items()],
)
def test_parity_published_cycles_of_shallow_networks(x64, which, period, count):
    found = cycles(shplrnn_step(), shallow(PUBLISHED["shallow"][which]), period)
    assert len(found.kind) == count
    if which == 0:
        np.testing.assert_allclose(found.points, [[-0.03, 0.40]], atol=0.005)


def test_analytic_each_region_has_its_linear_map(x64):
    key = jax.random.split(jax.random.key(1), 4)
    params = PLRNNParams(jax.random.normal(key[0], (3,)), jax.random.normal(key[1], (3, 3)), jnp.ones(3))
    for signs in ([1, -1, 1], [-1, -1, -1], [1, 1, 1]):
        z = jnp.array(signs) * jnp.array([0.5, 1.0, 2.0])
        jacobian = jax.jacfwd(lambda x: plrnn_step()(params, x))(z)
        np.testing.assert_allclose(jacobian, jnp.diag(params.a) + params.w @ jnp.diag((z > 0).astype(float)))
    # A shallow network whose hidden layer is the state itself is the other one; a matrix may stand for its diagonal.
    same = ShallowPLRNNParams(jnp.diag(params.a), params.w, jnp.eye(3), params.h, jnp.zeros(3))
    states = jax.random.normal(key[2], (7, 3))
    np.testing.assert_allclose(plrnn_step()(params, states), shplrnn_step()(same, states), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_invariance_inputs_batches_jit_vmap_and_grad(x64, dtype):
    keys = jax.random.split(jax.random.key(2), 7)
    a, w, h, c, states, inputs = (
        jax.random.normal(k, s, dtype) for k, s in zip(keys, [(3,), (3, 3), (3,), (3, 2), (5, 3), (5, 2)])
    )
    params, step = PLRNNParams(a, w, h, c), plrnn_step()
    together = step(params, states, inputs)
    assert together.dtype == dtype
    alone = jax.vmap(jax.jit(step, static_argnums=()), in_axes=(None, 0, 0))(params, states, inputs)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    np.testing.assert_allclose(together - step(params, states), inputs @ c.T, atol=1e-5)
    slope = jax.grad(lambda p: step(p, states, inputs).sum())(params)
    np.testing.assert_allclose(slope.h, jnp.full(3, 5.0), rtol=1e-6)
    np.testing.assert_allclose(slope.c, jnp.broadcast_to(inputs.sum(0), (3, 2)), rtol=1e-5)
    assert hash(step) == hash(plrnn_step())
    assert step == plrnn_step()
    assert shplrnn_step() == shplrnn_step()
