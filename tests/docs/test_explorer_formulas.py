"""The formulas of docs/explorer.html, run by node, against the library at 1,000 random points."""

import json
import pathlib
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs import landscape
from cliffs.dynamics import bifurcation_diagram, find_fixed_points
from cliffs.recurrent import OneUnitParams, one_unit_cost, one_unit_step

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explorer.html"
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.skipif(NODE is None, reason="node is not installed: the page's JavaScript cannot be run"),
    pytest.mark.usefixtures("x64"),
]
POINTS = 1000


def formulas():
    found = re.findall(r'<script id="formulas">(.*?)</script>', PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 1
    return found[0]


def in_node(expression, points):
    """`expression` of `p` for every point, computed by the page's formulas."""
    code = (
        formulas()
        + "\nconst points = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        + f"\nprocess.stdout.write(JSON.stringify(points.map(p => ({expression}))));"
    )
    done = subprocess.run(
        [str(NODE), "-e", code], input=json.dumps(points), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def random_points(seed=0, count=POINTS):
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-9, 9, count), rng.uniform(-8, 8, count), rng.uniform(-6, 6, count)], 1)


def same(ours, theirs):
    np.testing.assert_allclose(np.array(ours, float), np.asarray(theirs), rtol=1e-12, atol=1e-12)


def test_parity_the_step_and_its_derivative():
    points = random_points()
    w, b, x = jnp.asarray(points).T
    same(in_node("mapStep(p[0], p[1], p[2])", points.tolist()), one_unit_step(OneUnitParams(w, b), x))
    slope = jax.vmap(jax.grad(lambda x, w, b: one_unit_step(OneUnitParams(w, b), x)))(x, w, b)
    same(in_node("multiplier(p[0], p[2])", points.tolist()), slope)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_parity_the_cost_and_its_gradient(steps):
    """Half of the points on the page's surface, with its wall, half anywhere on the plane."""
    points = random_points(steps)[:, :2]
    rng = np.random.default_rng(steps)
    points[::2] = np.stack([rng.uniform(4, 6.5, POINTS // 2), rng.uniform(-3.2, -1.6, POINTS // 2)], 1)
    params = OneUnitParams(*jnp.asarray(points).T)
    cost = jax.value_and_grad(lambda p: one_unit_cost(p, num_steps=steps))
    error, grads = jax.jit(jax.vmap(cost))(params)
    found = in_node(f"Object.values(costWithGradient(p[0], p[1], {steps}))", points.tolist())
    same(found, jnp.stack([error, grads.w, grads.b], 1))


def test_parity_fixed_points_and_their_multipliers():
    points = random_points(1)[:, :2]
    found = in_node("fixedPoints(p[0], p[1]).map(x => [x, multiplier(p[0], x)])", points.tolist())
    owner = np.repeat(np.arange(POINTS), [len(f) for f in found])
    state, multiplier = np.concatenate([np.array(f) for f in found]).T
    params = OneUnitParams(*jnp.asarray(points[owner]).T)
    same(state, one_unit_step(params, jnp.asarray(state)))
    slope = jax.vmap(jax.grad(lambda x, w, b: one_unit_step(OneUnitParams(w, b), x)))
    same(multiplier, slope(jnp.asarray(state), params.w, params.b))
    # None is missing: a fine grid changes sign as often.
    grid = np.linspace(-18, 18, 20001)
    residual = points[:, :1] / (1 + np.exp(-grid)) + points[:, 1:] - grid
    assert [len(f) for f in found] == (np.diff(np.sign(residual), axis=1) != 0).sum(1).tolist()
    assert {1, 3} == {len(f) for f in found}
    for i in [*range(4), *np.flatnonzero([len(f) == 3 for f in found])[:4]]:
        w, b = points[i].tolist()
        library = find_fixed_points(one_unit_step, OneUnitParams(w, b), jnp.linspace(-16.0, 16.0, 33)[:, None])
        np.testing.assert_allclose(sorted(np.asarray(library.points)[:, 0]), [x for x, _ in found[i]], atol=1e-9)


@pytest.mark.parametrize(("name", "sign"), [("folds", 1), ("flips", -1)])
def test_parity_folds_and_flips(name, sign):
    weights = sign * np.random.default_rng(2).uniform(4.0, 9.0, POINTS)
    found = np.array(in_node(f"{name}(p)", weights.tolist()))  # [points, 2, (b, x)]
    assert found.shape == (POINTS, 2, 2)
    w, b, x = (jnp.asarray(v) for v in (np.repeat(weights[:, None], 2, 1), found[..., 0], found[..., 1]))
    same(x, one_unit_step(OneUnitParams(w, b), x))
    slope = jax.vmap(jax.vmap(jax.grad(lambda x, w, b: one_unit_step(OneUnitParams(w, b), x))))(x, w, b)
    same(slope, np.full((POINTS, 2), float(sign)))
    assert in_node(f"{name}(p)", [0.0, 3.9 * sign, -5.0 * sign]) == [[], [], []]
    kind = name[:-1]
    for weight in (5.0,):
        mine = np.array(in_node(f"{name}(p)", [sign * weight])[0])
        low, high = sorted(mine[:, 0])
        starts = jnp.linspace(-8.0, 8.0, 9)[:, None]
        diagram = bifurcation_diagram(
            one_unit_step, OneUnitParams(sign * weight, 0.0), "b", (low - 0.5, high + 0.5), starts
        )
        library = sorted((e.parameter, float(e.state[0])) for e in diagram.special if e.kind == kind)
        np.testing.assert_allclose(library, mine[np.argsort(mine[:, 0])], atol=1e-10)


def test_parity_the_wall_is_where_the_library_locates_it():
    recorded = json.loads((ROOT / "results" / "figures" / "error_surface" / "metrics.json").read_text())
    wall = in_node("wallBias(p)", [5.0])[0]
    np.testing.assert_allclose(wall, recorded["metrics"]["boundary_at_w5"], rtol=1e-12)
    found = recorded["metrics"]["wall_from_50x50_grid"]["b_at_w5"]  # by find_walls, which knows no fixed points
    np.testing.assert_allclose(wall, found, atol=1e-10)


@pytest.mark.parametrize("threshold", [0.1, 0.02, np.inf])
def test_parity_descent_is_that_of_the_library(threshold):
    """Up to the wall: beyond it rounding grows by the norm of the gradient at every step."""
    rates = [0.1, 0.03]
    starts = [(5.0, -2.3), (5.5, -2.0), (6.2, -2.7)]
    points = [[w, b, rate] for rate in rates for w, b in starts]
    text = "Infinity" if np.isinf(threshold) else str(threshold)
    found = in_node(f"descend(p[0], p[1], p[2], {text}, 20, 50)", points)
    clip = optax.identity() if np.isinf(threshold) else optax.clip_by_global_norm(threshold)

    @jax.jit
    def path(w, b, rate):
        optimizer = optax.chain(clip, optax.sgd(rate))
        return landscape.descend(one_unit_cost, OneUnitParams(w, b), optimizer, 20)

    for (w, b, rate), ours in zip(points, found):
        theirs = path(w, b, rate)
        for name in ("w", "b"):
            np.testing.assert_allclose(ours[name], getattr(theirs.params, name), rtol=1e-10)
        np.testing.assert_allclose(ours["error"][:-1], theirs.loss, rtol=1e-8)
        np.testing.assert_allclose(ours["norm"][:-1], theirs.grad_norm, rtol=1e-8)


def test_parity_reference_numbers_to_25_digits(reference):
    for name, key in (("folds", "folds_sigmoid"), ("flips", "flips_sigmoid")):
        for weight, points in reference[key].items():
            mine = sorted(in_node(f"{name}(p)", [float(weight)])[0])
            np.testing.assert_allclose(mine, sorted([float(b), float(x)] for b, x in points), atol=1e-13)
