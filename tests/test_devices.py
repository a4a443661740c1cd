"""One function over many runs: the same results on any number of devices, and each run as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests.untyped import untyped

from cliffs._devices import over_devices


def settle(run, matrix):
    """Some iterations with a branch and a loop of data-dependent length."""

    def body(state):
        x, k = state
        x = jnp.tanh(matrix @ x)
        return jax.lax.cond(x[0] > 0, lambda v: v * 0.9, lambda v: v, x), k + 1

    x, steps = jax.lax.while_loop(lambda s: s[1] < 5 + run["extra"], body, (run["x"], 0))
    return {"x": x, "steps": steps}


def runs(count):
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(count, 6)), rng.normal(size=(count, 6, 6))
    return {"x": jnp.asarray(x, jnp.float32), "extra": jnp.arange(count)}, jnp.asarray(matrix, jnp.float32)


@pytest.mark.parametrize("lanes", [None, 1, 3])
@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 7])
def test_parity_every_run_is_what_it_is_alone(lanes, devices, count):
    run, matrix = runs(count)
    got = over_devices(settle, lanes=lanes, devices=jax.devices()[:devices])(run, matrix)
    for i in range(count):
        want = settle({"x": run["x"][i], "extra": run["extra"][i]}, matrix[i])
        np.testing.assert_allclose(got["x"][i], want["x"], rtol=2e-6)
        assert got["steps"][i] == want["steps"] == 5 + i


@pytest.mark.parametrize("lanes", [None, 2])
def test_invariance_results_do_not_depend_on_company_or_devices(lanes):
    run, matrix = runs(9)
    two, four = (over_devices(settle, lanes=lanes, devices=jax.devices()[:k])(run, matrix)["x"] for k in (2, 4))
    np.testing.assert_array_equal(two, four)
    few = over_devices(settle, lanes=lanes)(jax.tree.map(lambda x: x[:5], run), matrix[:5])["x"]
    np.testing.assert_array_equal(few, four[:5])


def test_property_one_compile_serves_all_calls_and_grad_and_jit_go_through():
    import chex

    chex.clear_trace_counter()
    traced = chex.assert_max_traces(lambda x: jnp.sin(x) ** 2, n=1)
    function = jax.jit(over_devices(traced))
    for shift in range(3):
        function(jnp.arange(8.0) + shift)
    gradient = jax.jit(jax.grad(lambda x: over_devices(lambda v: jnp.sin(v) ** 2)(x).sum()))(jnp.arange(6.0))
    np.testing.assert_allclose(gradient, np.sin(2 * np.arange(6.0)), rtol=1e-5, atol=1e-6)


def test_property_double_precision_and_trees_keep_their_types(x64):
    out = over_devices(lambda run: (run["a"] * 2, run["n"] + 1))({"a": jnp.ones(5), "n": np.arange(5)})
    assert out[0].dtype == jnp.float64
    assert out[1].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.wrong_arguments
def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="devices must name at least one device"):
        over_devices(jnp.sin, devices=[])
    for devices in ("cpu", [0], jax.devices()[0]):
        with pytest.raises(ValueError, match="devices must be a sequence of devices such as"):
            over_devices(jnp.sin, devices=devices)
    for lanes in (0, 1.5, "a"):
        with pytest.raises(ValueError, match=f"lanes must be a whole number and at least 1.*got {lanes!r}"):
            over_devices(jnp.sin, lanes=untyped(lanes))
    for bad in ((jnp.ones(3), jnp.ones(4)), (jnp.ones(()),), (jnp.ones((0, 2)),), ()):
        with pytest.raises(ValueError, match="one common, non-empty leading axis"):
            over_devices(lambda *run: run)(*bad)
