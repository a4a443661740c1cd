"""Descent on a fixed surface, and the share of starts that leave the valley."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cliffs.landscape import descend, stability_map
from cliffs.recurrent import OneUnitParams, one_unit_cost


def clipped_sgd(rate, threshold):
    return optax.chain(optax.clip_by_global_norm(threshold), optax.sgd(rate))


def near_the_valley(p):
    return (jnp.abs(p.w - 5.0) < 1.5) & (jnp.abs(p.b + 2.3) < 1.0)


def test_integration_the_cliff_throws_plain_descent_out_and_clipping_stays(x64):
    def run(max_norm):
        start = OneUnitParams(jnp.asarray(5.0), jnp.asarray(-2.3))
        return descend(one_unit_cost, start, clipped_sgd(0.1, max_norm), 200)

    paths = jax.vmap(run)(jnp.array([jnp.inf, 0.1]))
    steps = np.hypot(np.diff(np.asarray(paths.params.w)), np.diff(np.asarray(paths.params.b)))
    assert steps[0].max() > 1.0  # off the picture in one step
    assert steps[1].max() <= 0.01 * (1 + 1e-12)  # learning rate x threshold
    assert paths.grad_norm[1].max() > 10  # the clipped path meets the wall too


def test_documented_a_diverging_path_stays_where_it_was_finite():
    path = descend(lambda p: p**4, jnp.float32(3.0), optax.sgd(1.0), 8)
    assert int(path.diverged_at) >= 0
    assert np.isfinite(path.params).all()


def test_parity_stability_map_follows_the_paths(x64):
    starts = OneUnitParams(jnp.array([5.0, 5.0, 6.0]), jnp.array([-2.3, -2.0, -2.2]))
    rates, thresholds = jnp.array([0.03, 0.1]), jnp.array([0.1, jnp.inf])
    run = jax.jit(
        lambda: stability_map(one_unit_cost, starts, clipped_sgd, rates, thresholds, 120, near_the_valley, chunk_size=5)
    )
    got = run()
    follow = jax.jit(lambda start, rate, threshold: descend(one_unit_cost, start, clipped_sgd(rate, threshold), 120))
    for i, rate in enumerate(rates):
        for j, threshold in enumerate(thresholds):
            for k in range(3):
                path = follow(jax.tree.map(lambda x, k=k: x[k], starts), rate, threshold)
                gone = ~np.asarray(near_the_valley(path.params))[1:]
                assert int(got.left_at[i, j, k]) == (int(gone.argmax()) if gone.any() else -1)
                assert bool(got.outside[i, j, k]) == gone[-1]
    assert got.left_share.shape == (2, 2)
    # Unclipped at the large rate some are thrown out; a threshold of 0.1 holds all of them.
    assert float(got.left_share[1, 1]) > 0
    assert float(got.left_share[:, 0].max()) == 0


def test_analytic_the_bound_of_gradient_descent_on_a_parabola(x64):
    # x -> (1 - 2 rate) x leaves exactly when |1 - 2 rate| > 1; clipping keeps it within rate x threshold of 0.
    rates, starts = jnp.array([0.5, 0.99, 1.01, 1.5]), jnp.linspace(-1, 1, 6)
    got = stability_map(
        jnp.square, starts, clipped_sgd, rates, jnp.array([0.5, jnp.inf]), 1000, lambda x: jnp.abs(x) < 4
    )
    np.testing.assert_array_equal(got.left_share, [[0, 0], [0, 0], [0, 1], [0, 1]])
    assert (got.left_at[3, 1] > 0).all()
    assert not got.outside[:, 0].any()


def test_documented_divergence_counts_as_leaving():
    got = stability_map(
        lambda x: x**4, jnp.array([3.0]), clipped_sgd, jnp.array([1.0]), jnp.array([jnp.inf]), 8, lambda x: x < jnp.inf
    )
    assert bool(got.outside.all())
    assert int(got.left_at[0, 0, 0]) >= 0
    assert np.isfinite(got.final_loss).all()


@pytest.mark.parametrize("num_steps", [6, 20])
def test_analytic_leaving_is_dated_by_the_step_that_led_there(num_steps):
    # x = 0, 1, 2, .. and no loss beyond 5.5: the step with index 5 leads from 5 to 6.
    got = stability_map(
        lambda x: jnp.where(x > 5.5, jnp.nan, -x),
        jnp.array([0.0]),
        clipped_sgd,
        jnp.array([1.0]),
        jnp.array([jnp.inf]),
        num_steps,
        lambda x: x < 100,
    )
    assert got.left_at.ravel().tolist() == [5]
    assert bool(got.outside.all())
    assert got.final_loss.ravel().tolist() == [-5.0]


@pytest.mark.wrong_arguments
def test_wrong_use_negative_steps():
    with pytest.raises(ValueError, match="num_steps"):
        descend(jnp.square, 3.0, optax.sgd(0.1), -2)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": jnp.ones(())}, "starts"),
        ({"learning_rates": jnp.ones(0)}, "learning_rates"),
        ({"thresholds": jnp.ones((1, 1))}, "thresholds"),
        ({"num_steps": 0}, "num_steps"),
        ({"inside": lambda x: jnp.isfinite(x)[None]}, "inside"),
    ],
)
def test_wrong_use_names_the_argument(change, words):
    good = {"starts": jnp.ones(2), "learning_rates": jnp.ones(1), "thresholds": jnp.ones(1), "num_steps": 3}
    call = {"inside": jnp.isfinite} | good | change
    with pytest.raises(ValueError, match=words):
        stability_map(jnp.square, make_optimizer=clipped_sgd, **call)
