"""Training as a pure function."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tests.untyped import untyped

from cliffs import recurrent, tasks, training

STEP = recurrent.rnn_step("tanh")
LOSS = training.classification_loss(STEP)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))


def sample(key):
    return tasks.temporal_order(key, 4, 10)


def params(seed=0):
    return recurrent.paper_init("basic_tanh", jax.random.key(seed), 6, 8, 4)


def fit(params, key, steps=12, chunk=None):
    return training.fit(LOSS, OPTIMIZER, params, sample, key, steps, steps_per_scan=chunk)


def same_bits(a, b):
    return all((np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_parity_fit_equals_the_loop_a_user_would_write():
    key = jax.random.key(1)
    state, history = fit(params(), key)
    p, opt_state = untyped(params()), OPTIMIZER.init(untyped(params()))
    for i in range(12):
        (loss, _), grads = jax.value_and_grad(LOSS, has_aux=True)(p, sample(jax.random.fold_in(key, i)))
        np.testing.assert_allclose(history.loss[i], loss, rtol=1e-4)
        np.testing.assert_allclose(history.grad_norm[i], optax.tree.norm(grads), rtol=1e-3)
        updates, opt_state = OPTIMIZER.update(grads, opt_state, p)
        p = optax.apply_updates(p, updates)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(p)):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_invariance_chunks_of_scan_are_bit_identical_to_one():
    whole = jax.jit(fit)(params(), jax.random.key(1))
    chunks = fit(params(), jax.random.key(1), chunk=4)
    assert same_bits(whole, chunks)


def test_invariance_vmap_over_runs():
    keys = jax.random.split(jax.random.key(2), 3)
    starts = jax.tree.map(lambda *x: jnp.stack(x), *(params(i) for i in range(3)))
    together, _ = jax.jit(jax.vmap(fit))(starts, keys)
    alone, _ = fit(params(2), keys[2])
    for a, b in zip(jax.tree.leaves(together.params), jax.tree.leaves(alone.params)):
        np.testing.assert_allclose(a[2], b, atol=1e-5)


def test_analytic_divergence_is_recorded_and_the_run_frozen():
    # x <- x - lr 4 x^3 with lr = 1 from 3 overflows float32 at a step that numpy can tell.
    x, want = np.float32(3), 0
    with np.errstate(over="ignore", invalid="ignore"):
        while np.isfinite(np.float32(x) ** 4) and np.isfinite(x - np.float32(4) * x**3):
            x, want = x - np.float32(4) * x**3, want + 1
    state, history = training.fit(
        lambda p, _: (p**4, ()), optax.sgd(1.0), jnp.float32(3), lambda key: key, jax.random.key(0), 10
    )
    assert int(state.diverged_at) == want
    np.testing.assert_allclose(state.params, x, rtol=1e-5)
    assert int(state.step) == 10
    assert not np.isfinite(np.asarray(history.loss)[want]) or not np.isfinite(float(state.params) ** 4 * 4)


def test_integration_extra_arguments_reach_the_transform():
    optimizer = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    state, _ = training.fit(LOSS, optimizer, params(), sample, jax.random.key(0), 3)
    assert int(state.step) == 3


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(("steps", "chunk", "words"), [(-1, None, "num_steps"), (10, 3, "steps_per_scan")])
def test_wrong_use_names_the_argument(steps, chunk, words):
    with pytest.raises(ValueError, match=words):
        fit(params(), jax.random.key(0), steps, chunk)
