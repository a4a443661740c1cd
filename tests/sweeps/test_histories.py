"""Histories of runs that ended early hold no number that could be a result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweeps import small

from cliffs.sweeps import sweep
from cliffs.sweeps._history import empty_value, has_nan

KINDS = {
    "float32": lambda s: s,
    "bfloat16": lambda s: s.astype(jnp.bfloat16),
    "float16": lambda s: s.astype(jnp.float16),
    "complex64": lambda s: s + 1j,
    "int32": lambda s: s.astype(jnp.int32) + 7,
    "uint8": lambda s: s.astype(jnp.uint8),
    "bool": lambda s: s < 1e9,
    "float8_e4m3fn": lambda s: s.astype(jnp.float8_e4m3fn),
}


def update(state, run):
    state = small.update(state, run)[0]
    one = jnp.ones(())
    return state, {name: kind(one) for name, kind in KINDS.items()} | {"pair": jnp.stack([one, one])}


@pytest.fixture(scope="module")
def result():
    def evaluate(state, run):
        return small.evaluate(state, run) | {"updates": state.step}

    return sweep(
        small.init,
        update,
        small.grid(),
        40,
        evaluate=evaluate,
        evaluate_every=10,
        stop_when_solved=True,
        progress=False,
    )


def test_analytic_the_mask_is_what_was_computed(result):
    assert result.steps_run.tolist() == [40, 40, 20, 20, 20, 20]
    np.testing.assert_array_equal(result.mask.sum(1), result.steps_run)
    np.testing.assert_array_equal(result.evaluation_mask.sum(1), result.steps_run // 10)


@pytest.mark.parametrize("name", [*KINDS, "pair"])
def test_analytic_means_over_runs_leave_ended_runs_out(result, name):
    history = result.metrics[name]
    want = np.asarray(KINDS.get(name, lambda s: s)(jnp.ones(())))
    assert (np.asarray(history[:, :10]) == want).all()
    if has_nan(history.dtype):
        wide = history.astype(complex)
        assert np.isnan(wide[~result.mask]).all()
        assert np.isfinite(wide[result.mask]).all()
        np.testing.assert_allclose(np.nanmean(wide, axis=0), want.astype(complex))
    else:
        np.testing.assert_array_equal(np.ma.getmaskarray(history), ~result.mask)
        np.testing.assert_array_equal(history.mean(0), want)
        np.testing.assert_array_equal(history[2, 20:].count(), 0)


def test_analytic_evaluations_are_masked_too(result):
    assert result.evaluations["updates"].max(1).tolist() == [40, 40, 20, 20, 20, 20]
    assert result.evaluations["solved"].mean(0).tolist() == [0, 1 / 3, 0, 0]
    assert np.isnan(result.evaluations["error"][2, 2:]).all()


def test_property_a_dtype_without_nan_is_masked_by_an_unlikely_number():
    assert not has_nan(np.dtype(jnp.float4_e2m1fn))
    assert empty_value(np.dtype(np.uint8)) == 255
    assert empty_value(np.dtype(np.int16)) == -(2**15)
    assert jax.tree.map(has_nan, [np.dtype(jnp.float8_e4m3fnuz), np.dtype(complex)]) == [True, True]
