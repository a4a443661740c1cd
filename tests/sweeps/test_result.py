"""What a sweep's result answers: one run, the best, tables, frames, files."""

import dataclasses
import json
import re

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


def test_property_writing_into_one_run_leaves_the_result_as_it_is(result):
    def spoil(run):
        for x in jax.tree.leaves((run.metrics, run.evaluations)):
            x[...] = 0
        return 0.0

    whole = small.run()
    whole.best(spoil)
    small.assert_same(whole, result)


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


def test_documented_printed_results_are_a_few_lines(result):
    text = repr(result)
    assert text.startswith(
        "<SweepResult of 6 runs, 40 updates asked for, 2 solved, 2 diverged\n  grid: rate [6], seed [6]"
    )
    assert "evaluations: error [6, 4], solved [6, 4]>" in text
    assert repr(result.run(2)) == "<SweepRun 2: rate 0.1, seed 0; 20 updates, solved at 20>"
    broken = dataclasses.replace(result, complete=False, notes=("interrupted after 20 updates",))
    assert "6 runs, interrupted, 40 updates" in repr(broken)
    assert repr(broken).endswith("\n  interrupted after 20 updates>")
    keys = sweep(
        lambda run: small.init({"rate": 0.1}),
        lambda state, key: small.update(state, {"rate": 0.1, "seed": 0}),
        jax.random.split(jax.random.key(0), 2),
        10,
        progress=False,
    )
    assert repr(keys).startswith("<SweepResult of 2 runs, 10 updates")
    assert repr(keys.run(1)).startswith("<SweepRun 1: ")


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


@pytest.fixture(scope="module")
def clashing():
    """Two runs of two updates, whose grid, evaluations and metrics use one another's names."""
    names = ("run", "updates", "update", "evaluation", "steps_run", "lr", "success")
    grid = {name: np.array([10.0, 20.0]) + i for i, name in enumerate(names)}
    grid |= {"a": {"b": np.array([1, 2])}, "a/b": np.array([3, 4])}
    evaluations = {name: np.full((2, 1), 100.0 + i) for i, name in enumerate((*names, "loss", "loss_low"))}
    metrics = {name: np.full((2, 2), 1000.0 + i) for i, name in enumerate((*names, "loss"))}
    metrics |= {"w": np.full((2, 2, 3), 5.0), "w_0": np.full((2, 2), 6.0), "solved_at": np.full((2, 2), 7.0)}
    metrics |= {"a": {"b": np.full((2, 2), 8.0)}, "a/b": np.full((2, 2), 9.0)}
    none, steps = np.full(2, -1), np.full(2, 2)
    return SweepResult(grid, {}, metrics, evaluations, none, none, steps, none, evaluate_every=2, num_steps=2)


def test_property_frames_lose_no_column_whose_name_is_taken(clashing):
    pytest.importorskip("pandas")
    runs = clashing.to_frame()
    assert runs.reset_index()["run"].tolist() == [0, 1]
    assert runs["grid/run"].tolist() == [10, 20]
    assert runs["steps_run"].tolist() == [2, 2]
    assert [runs[f"{what}steps_run"][0] for what in ("grid/", "evaluations/", "metrics/")] == [14, 104, 1004]
    assert [runs[f"{what}lr"][0] for what in ("", "evaluations/", "metrics/")] == [15, 105, 1005]
    assert [runs[name][0] for name in ("loss", "metrics/loss")] == [107, 1007]
    assert [runs[f"{what}a/b"][0] for what in ("", "grid/", "metrics/", "metrics/metrics/")] == [1, 3, 8, 9]
    history = clashing.to_frame("metrics")
    assert history["run"].tolist() == [0, 0, 1, 1]
    assert history["updates"].tolist() == [1, 2, 1, 2]
    assert [history[f"{what}updates"][0] for what in ("grid/", "metrics/")] == [11, 1001]
    assert [history[f"{what}lr"][0] for what in ("", "metrics/")] == [15, 1005]


def test_property_the_dataset_loses_no_column_whose_name_is_taken(clashing):
    pytest.importorskip("xarray")
    data = clashing.to_xarray()
    assert set(data.dims) == {"run", "update", "evaluation", "w_0"}
    assert data["update"].values.tolist() == [1, 2]
    for name, index in (("run", 0), ("update", 2), ("evaluation", 3), ("steps_run", 4)):
        found = [data[f"{what}/{name}"].values.flat[0] for what in ("grid", "evaluations", "metrics")]
        assert found == [10 + index, 100 + index, 1000 + index]
    assert [data[f"{what}lr"].values.flat[0] for what in ("", "evaluations/", "metrics/")] == [15, 105, 1005]
    assert [data[f"{what}a/b"].values.flat[0] for what in ("", "grid/", "metrics/")] == [1, 3, 8]
    assert data["w"].dims == ("run", "update", "w_0")
    assert data["metrics/w_0"].values.flat[0] == 6


def test_property_tables_and_best_lose_no_number_whose_name_is_taken(clashing):
    row = clashing.table("lr")[0]
    assert [row[f"{what}lr"] for what in ("", "evaluations/", "metrics/")] == [15, 105, 1005]
    assert [row[f"{what}updates"] for what in ("", "evaluations/", "metrics/")] == [None, 101, 1001]
    assert [row[f"{what}success"] for what in ("", "evaluations/", "metrics/")] == [0, 106, 1006]
    assert [row[f"{what}loss_low"] for what in ("", "evaluations/", "metrics/")] == [107, 108, 1007]
    assert clashing.best("metrics/loss").metrics["loss"][-1] == 1007
    assert clashing.best("metrics/solved_at").index == 0


def test_analytic_nan_is_one_group_and_complex_numbers_need_no_order():
    none, first = np.full(5, -1), np.array([1, -1, 1, -1, -1])
    grid = {"x": np.array([np.nan, 2.0, np.nan, 1.0, 1.0]), "z": np.array([1j, 1j, np.nan, 2.0, 1j])}
    result = SweepResult(grid, {}, {}, {}, first, none, np.ones(5, int))
    rows = result.table("x")
    np.testing.assert_array_equal([row["x"] for row in rows], [1, 2, np.nan])
    assert [(row["runs"], row["solved"]) for row in rows] == [(2, 0), (1, 0), (2, 2)]
    rows = result.success_table("z")
    assert [row["runs"] for row in rows] == [3, 1, 1]
    assert [row["z"] for row in rows[:2]] == [1j, 2]
    assert [row["runs"] for row in result.success_table(["x", "z"])] == [1, 1, 1, 1, 1]


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


def test_property_arrays_whose_paths_coincide_come_back_in_their_places(tmp_path):
    names = ("a/b", "x", "x.mask", "x.npy", "x\0y", "\N{GREEK SMALL LETTER LAMDA}", "\udc80")
    evaluations = {name: np.full((2, 1), i) for i, name in enumerate(names)}
    evaluations |= {"a": {"b": np.full((2, 1), 50)}, "x": np.ma.MaskedArray(np.array([[60], [61]]), [[False], [True]])}
    none = np.full(2, -1)
    result = SweepResult({"seed": np.arange(2)}, {}, {}, evaluations, none, none, np.ones(2, int))
    back = load_sweep(result.save(tmp_path / "sweep")).evaluations
    assert list(back) == sorted(evaluations)
    assert jax.tree.map(np.ndarray.tolist, back) == jax.tree.map(np.ndarray.tolist, evaluations)


def test_property_files_whose_arrays_have_their_path_as_name_are_read(result, tmp_path):
    base = result.save(tmp_path / "sweep")
    text = base.with_suffix(".json").read_text()
    with np.load(base.with_suffix(".npz")) as arrays:
        base.with_suffix(".json").write_text(re.sub(r'"name": "\d+ ', '"name": "', text))
        np.savez(base.with_suffix(".npz"), **{name.split(" ", 1)[1]: arrays[name] for name in arrays})
    small.assert_same(load_sweep(base), result)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda result: result.best(lambda run: None), "by must return one real number, got None for run 0"),
        (
            lambda result: result.best(lambda run: run.metrics.loss),
            r"one real number, got an array of shape \(40,\) for",
        ),
        (lambda result: result.best(lambda run: 1j), "by must return one real number, got 1j for run 0"),
        (lambda result: result.best(["error"]), r"by must be a function, 'solved_at' or one of .*got \['error'\]"),
        (lambda result: result.run(1.0), "index must be one of the 6 runs, got 1.0"),
        (lambda result: result.run("a"), "index must be one of the 6 runs, got 'a'"),
        (lambda result: result.table(None), "by must name columns of the grid, .*got None"),
        (lambda result: result.success_table([["rate"]]), r"by must name columns of the grid, .*got \['rate'\]"),
    ],
)
def test_wrong_questions_are_named(result, ask, words):
    with pytest.raises(ValueError, match=words):
        ask(result)


@pytest.mark.wrong_arguments
def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="no sweep of format 1, got format 99"):
        load_sweep(tmp_path / "sweep")
    with pytest.raises(FileNotFoundError):
        load_sweep(tmp_path / "nothing")


DAMAGES = {
    "a list": (".json", lambda content: b"[]", r"sweep.json is no sweep of format 1, got format None"),
    "cut JSON": (".json", lambda content: content[:-20], r"sweep.json is no saved sweep: "),
    "no text": (".json", lambda content: b"\xff\xfe\xfd", r"sweep.json is no saved sweep: "),
    "no trees": (".json", lambda content: b'{"format": 1}', r"sweep.json and .*sweep.npz are no saved sweep together"),
    "no tree": (".json", lambda content: content.replace(b'"state"', b'"other"'), r"together \(KeyError: 'state'\)"),
    "no name": (".json", lambda content: content.replace(b'"kind"', b'"sort"'), r"together \(KeyError: 'kind'\)"),
    "cut arrays": (".npz", lambda content: content[:-100], r"sweep.npz is no npz file, or a damaged one"),
    "one changed": (".npz", lambda content: content.replace(b"\x3f", b"\x3e", 1), r"sweep.npz is no npz file, or a"),
    "garbage": (".npz", lambda content: b"garbage", r"sweep.npz is no npz file, or a damaged one"),
    "nothing": (".npz", lambda content: b"", r"sweep.npz is no npz file, or a damaged one"),
    "one array": (".npz", lambda content: content[content.index(b"\x93NUMPY") :][:136], r"sweep.npz is no npz file"),
}


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("case", DAMAGES)
def test_wrong_contents_of_files_are_named_by_the_file(result, tmp_path, case):
    suffix, damage, words = DAMAGES[case]
    path = result.save(tmp_path / "sweep").with_suffix(suffix)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=words):
        load_sweep(tmp_path / "sweep")


def test_property_a_result_needs_only_its_seven_first_fields():
    none = np.full(3, -1)
    bare = SweepResult({"seed": np.arange(3)}, None, {"loss": np.ones((3, 2))}, {}, none, none, np.array([2, 1, 0]))
    assert bare.mask.tolist() == [[True, True], [True, False], [False, False]]
    assert len(bare) == 3
