"""What a sweep is given and asked for that it once answered wrongly or with somebody else's error."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweeps import small

from cliffs.sweeps import load_sweep, product_grid, sweep
from cliffs.sweeps._files import pack, unpack


def tiny(grid, update=None, evaluate=None, **options):
    """A sweep of a few updates whose state does not matter."""
    update = update or (lambda state, run, *data: (state, {}))
    return sweep(small.init, update, {"rate": np.full(3, 0.1), **grid}, 4, evaluate=evaluate, progress=False, **options)


def test_property_a_rule_that_writes_into_what_it_is_given_changes_no_history():
    def rule(evaluations, active):
        evaluations["error"][...] = -7.0
        return active

    got, plain = small.run(prune=rule), small.run()
    np.testing.assert_array_equal(got.evaluations["error"], plain.evaluations["error"])


def test_property_arrays_of_a_run_and_of_the_grid_are_not_those_of_the_result():
    rates = np.array([0.01, 0.1])
    got = small.run(over={"rate": rates, "seed": np.arange(2)})
    expected = [got.evaluations["error"].copy(), got.metrics.loss.copy()]
    one = got.run(0)
    one.evaluations["error"][...] = one.metrics.loss[...] = rates[...] = 7.0
    for x, y in zip((got.evaluations["error"], got.metrics.loss), expected):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(got.grid["rate"], [0.01, 0.1])


def test_property_frames_keep_both_columns_of_one_name():
    pytest.importorskip("pandas")
    pytest.importorskip("xarray")
    grid = {"lr": np.array([0.1, 0.2, 0.3]), "run": np.array([7, 8, 9]), "steps_run": np.arange(3.0)}
    got = tiny(grid, lambda state, run: (state, {"lr": 10 * run["lr"]}), lambda state, run: {"steps_run": run["lr"]})
    frame = got.to_frame()
    np.testing.assert_allclose(frame["lr"], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(frame["last/lr"], [1, 2, 3])
    np.testing.assert_array_equal(frame["grid/run"], [7, 8, 9])
    np.testing.assert_array_equal(frame["steps_run"], [4, 4, 4])
    metrics = got.to_frame("metrics")
    np.testing.assert_array_equal(metrics["run"], np.repeat([0, 1, 2], 4))
    np.testing.assert_allclose(metrics["metrics/lr"], np.repeat([1, 2, 3], 4))
    data = got.to_xarray()
    np.testing.assert_array_equal(data["run"], [0, 1, 2])
    np.testing.assert_array_equal(data["grid/run"], [7, 8, 9])
    np.testing.assert_allclose(data["metrics/lr"][:, 0], [1, 2, 3])
    np.testing.assert_allclose(data["evaluations/steps_run"][:, 0], [0.1, 0.2, 0.3])


def test_property_keys_with_slashes_are_not_mistaken_for_nested_ones(tmp_path):
    got = tiny({}, evaluate=lambda state, run: {"a/b": jnp.float32(1), "a": {"b": jnp.float32(2)}})
    again = load_sweep(got.save(tmp_path / "sweep"))
    for result in (got, again):
        assert float(result.evaluations["a/b"][0, 0]) == 1
        assert float(result.evaluations["a"]["b"][0, 0]) == 2
    tree = {"x": np.ma.MaskedArray([1.0, 2.0], [True, False]), "x.mask": np.array([5.0])}
    arrays = {}
    node = pack(tree, "t", arrays)
    back = unpack(node, arrays)
    np.testing.assert_array_equal(back["x.mask"], [5.0])
    np.testing.assert_array_equal(np.ma.getmaskarray(back["x"]), [True, False])


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([2**53 + 1, 2**53, 0.5], "a holds 9007199254740993, which NumPy takes as"),
        ([2**63 + 1, -1], "a holds 9223372036854775809"),
        (np.ma.MaskedArray([1.0, 2.0], [False, True]), "a holds masked values"),
    ],
)
def test_wrong_numbers_that_numpy_would_change_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        product_grid(a=values)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.array([2**32 + 7]), r"data\['x'\] holds 4294967303, which does not fit into the int32"),
        (np.array([1.0, -1e39]), r"data\['x'\] holds -1e\+39, which does not fit into the float32"),
        ("abc", r"data\['x'\] must be an array of numbers or random keys, got 'abc'"),
        (len, r"data\['x'\] must be an array of numbers"),
    ],
)
def test_wrong_shared_data_that_jax_would_change_are_refused(leaf, words):
    with pytest.raises(ValueError, match=words):
        tiny({}, data={"x": leaf})


def test_property_shared_data_may_hold_infinities_digits_and_keys():
    data = {"x": np.array([np.inf, 0.1, 1e-300]), "key": jax.random.key(0), "n": 3}
    got = tiny({}, lambda state, run, data: (state, {"x": data["x"][1]}), data=data)
    np.testing.assert_allclose(got.metrics["x"], 0.1, rtol=1e-6)


def test_property_tables_count_nan_as_one_value():
    got = tiny({"z": np.array([1j, 0j, 1j]), "n": np.array([np.nan, 1.0, np.nan])})
    rows = got.success_table("n")
    assert [(row["runs"], row["n"] == 1.0) for row in rows] == [(1, True), (2, False)]
    with pytest.raises(ValueError, match="by must name columns of real numbers, which have an order: 'z' is complex"):
        got.success_table("z")


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("suffix", "content", "words"),
    [
        (".npz", b"PK\x03\x04cut", "sweep.npz does not hold the arrays of"),
        (".npz", b"nothing", "sweep.npz does not hold the arrays of"),
        (".npz", b"", "sweep.npz does not hold the arrays of"),
        (".json", b"[1, 2]", "sweep.json is no sweep of format 1, got format 'list'"),
        (".json", b'{"format": 1', "sweep.json is no sweep: "),
        (".json", b"\xff\xfe", "sweep.json is no sweep: "),
    ],
)
def test_wrong_damaged_files_are_named(tmp_path, suffix, content, words):
    base = pathlib.Path(tiny({}).save(tmp_path / "sweep"))
    base.with_suffix(suffix).write_bytes(content)
    with pytest.raises(ValueError, match=words):
        load_sweep(base)
