"""Many runs as one program."""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.untyped import untyped

from cliffs import recurrent, tasks, training
from cliffs.sweeps import product_grid, sweep, use_all_cores
from cliffs.sweeps._devices import positions

LOSS = training.classification_loss(recurrent.rnn_step("tanh"))
INF = float("inf")


def keys(run):
    return jax.random.split(jax.random.key(run["seed"]), 2)


def optimizer(run):
    return optax.chain(optax.clip_by_global_norm(run["max_norm"]), optax.sgd(run["rate"]))


def init(run):
    return training.init_train_state(recurrent.paper_init("smart_tanh", keys(run)[0], 6, 20, 4), optimizer(run))


def update(state, run):
    batch = tasks.temporal_order(jax.random.fold_in(keys(run)[1], state.step), 20, 10)
    return training.train_step(state, batch, LOSS, optimizer(run))


def evaluate(state, run):
    batch = tasks.temporal_order(jax.random.fold_in(jax.random.key(99), state.step), 200, 10)
    error = LOSS(state.params, batch)[1]
    return {"error": error, "solved": error < 0.01}


def run(grid, steps=60, **options):
    return sweep(init, update, grid, steps, **{"evaluate_every": 20, "progress": False, **options})


def grid(seeds=3, norms=(1.0, INF), rates=(0.1,)):
    return product_grid(max_norm=norms, rate=rates, seed=list(range(seeds)))


def test_parity_every_run_equals_a_run_alone():
    result = run(grid(), evaluate=evaluate)
    for i in range(6):
        one = jax.tree.map(lambda x, i=i: x[i], grid())
        state, metrics = init(one), untyped(None)
        for _ in range(20):
            state, metrics = jax.jit(update)(state, one)
        np.testing.assert_allclose(result.metrics.loss[i, 19], metrics.loss, rtol=1e-3)
    assert result.metrics.loss.shape == (6, 60)
    assert result.evaluations["error"].shape == (6, 3)


def test_invariance_to_the_bit_under_devices_and_company():
    four = run(grid(5), lanes=2)
    two = run(grid(5), lanes=2, devices=jax.local_devices()[:2])
    alone = run(jax.tree.map(lambda x: x[7:8], grid(5)), lanes=2)
    for a, b, c in zip(*(jax.tree.leaves(result.state) for result in (four, two, alone))):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[7], c[0])


def test_invariance_one_device_gives_the_same_runs_in_the_same_order():
    # Unpartitioned programs round differently; chaos has not yet made that visible after a few steps.
    many, one = (
        run(grid(10, norms=(1.0,)), 10, evaluate_every=10),
        run(grid(10, norms=(1.0,)), 10, evaluate_every=10, devices=jax.local_devices()[:1]),
    )
    np.testing.assert_allclose(many.metrics.loss, one.metrics.loss, rtol=1e-4)
    assert len(np.unique(many.metrics.loss[:, -1])) == 10  # so that an order that is off would show


def test_integration_a_diverged_run_is_named_and_costs_its_neighbours_nothing():
    calm = grid(4, norms=(1.0,))
    wild = {k: np.append(v, x) for (k, v), x in zip(calm.items(), (INF, 1e38, 0))}
    want, got = run(calm), run(wild)
    assert got.diverged_at.tolist()[:4] == [-1] * 4
    assert 0 <= got.diverged_at[4] < 20
    assert got.steps_run.tolist() == [60] * 4 + [20]
    assert np.isnan(got.metrics.loss[4, 20:]).all()
    for a, b in zip(jax.tree.leaves(want.state), jax.tree.leaves(got.state)):
        np.testing.assert_array_equal(a, b[:4])


def test_integration_clipped_runs_learn_and_solved_runs_leave():
    result = run(grid(4, norms=(1.0,)), 3000, evaluate=evaluate, evaluate_every=250, stop_when_solved=True)
    assert (result.solved_at > 0).all()
    np.testing.assert_array_equal(result.steps_run, result.solved_at)
    for i, solved in enumerate(result.solved_at):
        assert result.evaluations["error"][i, solved // 250 - 1] < 0.01
        assert np.isfinite(result.metrics.loss[i, :solved]).all()
        assert int(result.state.step[i]) == solved
    # Leaving early changes nothing about the steps before.
    full = run(grid(4, norms=(1.0,)), 3000, evaluate=evaluate, evaluate_every=250)
    first = result.solved_at[0]
    np.testing.assert_array_equal(result.metrics.loss[0, :first], full.metrics.loss[0, :first])


def test_integration_typed_keys_in_grid_and_state_come_back_as_keys():
    """Noise after clipping keeps its key in the optimiser's state; a grid may hold keys instead of seeds."""
    noisy = optax.chain(optax.clip_by_global_norm(1.0), optax.add_noise(0.1, 0.5, jax.random.key(5)), optax.sgd(0.1))
    loss = lambda params, batch: (jnp.sum((params - batch) ** 2), ())  # noqa: E731

    def start(run):
        return training.init_train_state(jax.random.normal(run["key"], (3,)), noisy)

    def step(state, run):
        return training.train_step(state, jnp.zeros(3), loss, noisy)

    keys = {"key": jax.random.split(jax.random.key(1), 5)}
    result = sweep(start, step, keys, 20, evaluate_every=10, progress=False)
    assert (jax.random.key_data(result.grid["key"]) == jax.random.key_data(keys["key"])).all()
    state = start({"key": keys["key"][3]})
    for _ in range(20):
        state, _ = jax.jit(lambda s: step(s, {"key": keys["key"][3]}))(state)
    np.testing.assert_allclose(result.state.params[3], state.params, rtol=1e-4)
    got, want = (jax.tree.leaves(s.opt_state) for s in (result.state, state))
    kept = [(a, b) for a, b in zip(got, want) if jax.dtypes.issubdtype(b.dtype, jax.dtypes.prng_key)]
    assert len(kept) == 1
    for a, b in kept:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(jax.random.key_data(a[3]), jax.random.key_data(b))


def test_integration_shared_data_is_a_third_argument():
    data = jnp.arange(4.0)

    def quadratic(state, run, data):
        return training.train_step(state, data, lambda p, d: (jnp.sum((p - d) ** 2), ()), optax.sgd(run["rate"]))

    result = sweep(
        lambda run: training.init_train_state(jnp.zeros(4), optax.sgd(run["rate"])),
        quadratic,
        {"rate": np.array([0.5, 0.25])},
        4,
        evaluate_every=2,
        data=data,
        progress=False,
    )
    np.testing.assert_allclose(result.state.params[0], data)
    np.testing.assert_allclose(result.state.params[1], data * (1 - 0.5**4))


@given(groups=st.integers(1, 6), lanes=st.integers(1, 4), devices=st.integers(1, 4))
def test_property_positions_are_a_permutation_that_fills_devices_evenly(groups, lanes, devices):
    padded = groups * lanes * devices
    spots = positions(padded, padded, lanes, devices)
    assert sorted(spots) == list(range(padded))
    for count in range(1, padded + 1):
        per_device = -(-count // (lanes * devices)) * lanes
        local = positions(count, padded, lanes, devices) % (padded // devices)
        assert local.max() < per_device  # what one device must compute when `count` runs are left


def printed(code: str, **environment: str) -> str:
    """What the code prints in a process of its own, with nothing in its environment but what is given."""
    path = ":".join(p for p in sys.path if p)
    environment = {"JAX_PLATFORMS": "cpu", "PATH": "", "PYTHONPATH": path, **environment}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return done.stdout


def test_property_use_all_cores_before_and_after_jax_starts():
    code = (
        "from cliffs.sweeps import use_all_cores; use_all_cores(3); import jax; print(jax.local_device_count());"
        "use_all_cores(3)\ntry:\n    use_all_cores(2)\nexcept RuntimeError as e: print('too late' in str(e))"
    )
    assert printed(code).split() == ["3", "True"]


@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="the system does not list threads there")
@pytest.mark.parametrize(("given", "threads"), [({}, 6), ({"NPROC": "3"}, 3), ({"PJRT_NPROC": "2"}, 6)])
def test_property_use_all_cores_leaves_threads_for_decompositions(given, threads):
    """With one thread for each device, batched `jnp.linalg` calls on all of them may wait for each other for ever."""
    code = (
        "from cliffs.sweeps import use_all_cores; use_all_cores(3); import jax, os; jax.devices()\n"
        "names = [open(f'/proc/self/task/{t}/comm').read().strip() for t in os.listdir('/proc/self/task')]\n"
        "print(sum(name == 'tf_XLAEigen' for name in names))"
    )
    assert int(printed(code, **given)) == threads


@pytest.mark.skipif(not pathlib.Path("/proc/self/maps").exists(), reason="the system does not list libraries there")
@pytest.mark.parametrize(("given", "threads"), [({}, 1), ({"OPENBLAS_NUM_THREADS": "2"}, 2)])
def test_property_use_all_cores_leaves_decompositions_one_thread(given, threads):
    """Threads of the library for small decompositions, beside a device for every core, make them many times slower."""
    code = (
        "from cliffs.sweeps import use_all_cores; use_all_cores(2); import ctypes, jax.numpy as jnp\n"
        "jnp.linalg.qr(jnp.eye(2))[0].block_until_ready()\n"
        "files = {line.split()[-1] for line in open('/proc/self/maps') if 'scipy_openblas-' in line}\n"
        "print([ctypes.CDLL(file).scipy_openblas_get_num_threads() for file in files] or 'another library')"
    )
    words = printed(code, **given)
    if "another" in words:
        pytest.skip("SciPy does not have OpenBLAS here")
    assert words.strip() == f"[{threads}]"


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: run(grid(), 50), "num_steps"),
        (lambda: run(grid(), lanes=0), "lanes"),
        (lambda: use_all_cores(0), "count"),
        (lambda: use_all_cores(untyped("a")), "count must be a whole number and at least 1, got 'a'"),
    ],
)
def test_wrong_use_names_the_argument(call, words):
    with pytest.raises(ValueError, match=words):
        call()
