"""What a sweep's result answers: one run, the best, tables, frames, files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sweeps import small
from tests.untyped import untyped

from cliffs import training
from cliffs.sweeps import SweepResult, load_sweep, product_grid, sweep


@pytest.fixture(scope="module")
def result():
    return small.run()


def test_integration_one_run_goes_on_where_the_sweep_stopped(result):
    longer = small.run(60)
    one = result.run(0)
    assert one.settings == {"rate": 0.01, "seed": 0}
    assert int(one.state.step) == 40
    state, metrics, update = one.state, untyped(None), jax.jit(small.update)
    for _ in range(20):
        state, metrics = update(state, jax.tree.map(jnp.asarray, one.settings))
    np.testing.assert_allclose(state.params, longer.state.params[0], rtol=1e-5)
    np.testing.assert_allclose(metrics.loss, longer.metrics.loss[0, -1], rtol=1e-5)
    assert [x.metrics.loss.shape for x in map(result.run, range(6))] == [(40,)] * 2 + [(20,)] * 4
    assert result.run(-1).index == 5
    assert result.run(2).solved_at == 20
    assert result.run(4).diverged_at == 15


def test_analytic_best_by_evaluation_metric_function_and_time(result):
    errors = np.nan_to_num(result.evaluations["error"], nan=np.inf)
    last = [errors[i, n // 10 - 1] for i, n in enumerate(result.steps_run)]
    assert result.best("error").index == int(np.argmin(last[:4]))
    assert result.best("error", largest=True).index == int(np.argmax(last[:4]))
    assert result.best("aux/size", largest=True).index in (0, 1)
    assert result.best(lambda run: run.settings["rate"], largest=True).index in (2, 3)  # not a diverged one
    assert result.best("solved_at").index == 2
    with pytest.raises(ValueError, match=r"by must be .*'error', 'grad_norm', 'loss'.*got 'accuracy'"):
        result.best("accuracy")
    with pytest.raises(ValueError, match="index must be one of the 6 runs, got 6"):
        result.run(6)
    gone = small.run(over=small.grid(rates=(10.0, 20.0)))
    with pytest.raises(ValueError, match="no run has a value of 'error': 4 diverged"):
        gone.best("error")


def test_analytic_tables_count_by_the_values_of_the_grid(result):
    stats = pytest.importorskip("cliffs.stats")
    rows = result.success_table("rate")
    assert [row["success"] for row in result.success_table("seed")] == [1 / 3, 1 / 3]
    assert [(row["runs"], row["solved"], row["diverged"], row["updates"]) for row in rows] == [
        (2, 0, 0, None),
        (2, 2, 0, 20.0),
        (2, 0, 2, None),
    ]
    low, high = stats.wilson_interval(2, 2)
    assert (rows[1]["success_low"], rows[1]["success_high"]) == (low, high)
    full = result.table(by=("rate", "seed"))
    assert [(row["rate"], row["seed"]) for row in full] == [(r, s) for r in (0.01, 0.1, 10.0) for s in (0, 1)]
    errors = result.evaluations["error"]
    assert full[1]["error"] == pytest.approx(errors[1, 3])
    assert full[4]["error"] is None
    two = result.table("rate")[1]
    assert two["error"] == pytest.approx(np.median(errors[2:4, 1]))
    assert two["error_low"] <= two["error"] <= two["error_high"]
    with pytest.raises(ValueError, match=r"by must name columns of the grid, which are \['rate', 'seed'\], got 'lr'"):
        result.table("lr")


def test_parity_frames_hold_what_the_arrays_hold(result):
    pytest.importorskip("pandas")
    runs = result.to_frame()
    assert len(runs) == 6
    np.testing.assert_array_equal(runs["solved_at"], result.solved_at)
    np.testing.assert_allclose(runs["loss"][0], result.metrics.loss[0, -1])
    history = result.to_frame("metrics")
    assert len(history) == result.steps_run.sum()
    mine = history[(history["run"] == 3) & (history["updates"] == 7)]
    assert mine["loss"].item() == result.metrics.loss[3, 6]
    assert mine["rate"].item() == 0.1
    evaluations = result.to_frame("evaluations")
    assert evaluations.groupby("run")["updates"].max().tolist() == result.steps_run.tolist()
    with pytest.raises(ValueError, match="what must be"):
        result.to_frame("all")


def test_parity_the_dataset_holds_what_the_arrays_hold(result):
    pytest.importorskip("xarray")
    data = result.to_xarray()
    chosen = data.where(data["rate"] == 0.1, drop=True)
    np.testing.assert_array_equal(chosen["loss"].sel(update=20), result.metrics.loss[2:4, 19])
    np.testing.assert_array_equal(data["error"].sel(evaluation=40), result.evaluations["error"][:, 3])
    assert np.isnan(data["solved"].values[2:, 2:]).all()
    assert data["aux/size"].dims == ("run", "update")


def everything(run):
    """A state with all that an optimiser may hold: keys, NamedTuples, None, bfloat16, integers."""
    params = {"w": jnp.full((2, 3), run["rate"]), "b": (jnp.zeros(2, jnp.bfloat16), [jnp.arange(3)]), "none": None}
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.add_noise(0.1, 0.5, run["key"]), optax.adam(0.1))
    return training.init_train_state(params, tx)


def test_property_a_saved_sweep_comes_back_to_the_bit_with_its_keys(tmp_path):
    grid = product_grid(rate=[0.5, 1.5], key=jax.random.split(jax.random.key(0, impl="rbg"), 2))

    def update(state, run):
        return state._replace(step=state.step + 1), {"count": state.step, "half": jnp.zeros((2,), jnp.bfloat16)}

    result = sweep(everything, update, grid, 4, evaluate_every=2, progress=False)
    result = dataclasses.replace(result, notes=("one",), complete=False)
    back = load_sweep(result.save(tmp_path / "folder" / "sweep.npz"))
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["sweep.json", "sweep.npz"]
    assert jax.tree.structure(back.state) == jax.tree.structure(result.state)
    for a, b in zip(jax.tree.leaves((back.grid, back.state)), jax.tree.leaves((result.grid, result.state))):
        assert a.dtype == b.dtype
        a, b = (jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in (a, b))
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert (back.complete, back.notes, back.num_steps, back.evaluate_every) == (False, ("one",), 4, 2)
    assert back.metrics["half"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(back.mask, result.mask)
    assert int(back.run(1).state.step) == 4


def test_property_masks_and_padding_survive_saving(result, tmp_path):
    back = load_sweep(result.save(tmp_path / "sweep"))
    small.assert_same(back, result)
    np.testing.assert_array_equal(np.ma.getmaskarray(back.evaluations["solved"]), ~result.evaluation_mask)
    assert json.loads((tmp_path / "sweep.json").read_text())["versions"]["jax"] == jax.__version__


@pytest.mark.wrong_arguments
def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="no sweep of format 1, got format 99"):
        load_sweep(tmp_path / "sweep")
    with pytest.raises(FileNotFoundError):
        load_sweep(tmp_path / "nothing")


def test_property_a_result_needs_only_its_seven_first_fields():
    none = np.full(3, -1)
    bare = SweepResult({"seed": np.arange(3)}, None, {"loss": np.ones((3, 2))}, {}, none, none, np.array([2, 1, 0]))
    assert bare.mask.tolist() == [[True, True], [True, False], [False, False]]
    assert len(bare) == 3
