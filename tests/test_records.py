"""Results on disk: complete, whole or not there, and read back as they were."""

import json
import pathlib
import signal
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cliffs import records


class Law(NamedTuple):
    rate: float
    fits: bool


def test_integration_a_record_comes_back_as_it_was_written(tmp_path):
    metrics = {
        "x": np.float32(1.5),
        "bad": [float("nan"), -np.inf],
        "law": Law(2.0, True),
        "j": jnp.arange(2),
        "n": None,
    }
    arrays = {"y": np.arange(3), "z": jnp.full(2, jnp.nan)}
    folder = records.save_record(
        tmp_path / "a" / "b", metrics=metrics, settings={"limit": np.inf}, seconds=3.14159, seed=7, arrays=arrays
    )
    found = records.load_record(folder)
    assert (found.name, found.seconds, found.seed, found.settings) == ("b", 3.14, 7, {"limit": np.inf})
    assert np.isnan(found.metrics["bad"][0])
    assert found.metrics["bad"][1] == -np.inf
    assert {k: found.metrics[k] for k in ("x", "law", "j", "n")} == {
        "x": 1.5,
        "law": {"rate": 2.0, "fits": True},
        "j": [0, 1],
        "n": None,
    }
    np.testing.assert_array_equal(found.arrays["y"], arrays["y"])
    np.testing.assert_array_equal(found.arrays["z"], arrays["z"])
    assert found.machine["jax"] == jax.__version__
    assert found.machine["platform"] == "cpu"
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "metrics.json"]


def test_integration_a_write_that_fails_leaves_the_old_record(tmp_path):
    folder = records.save_record(tmp_path, metrics={"x": 1}, settings={}, seconds=0, arrays={"y": np.arange(3)})

    def broken(path):
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        records.write_atomic(folder / "metrics.json", broken)
    with pytest.raises(TypeError):
        records.save_record(tmp_path, metrics={"x": object()}, settings={}, seconds=0, arrays={"y": np.arange(9)})
    found = records.load_record(folder)
    assert found.metrics == {"x": 1}
    assert found.arrays["y"].tolist() == [0, 1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "metrics.json"]


def test_integration_a_program_killed_while_it_writes_leaves_the_old_file(tmp_path):
    target = tmp_path / "arrays.npz"
    records.save_arrays(tmp_path, {"y": np.arange(3)})
    code = f"""
import os, signal
from cliffs.records import write_atomic
def half(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
write_atomic({str(target)!r}, half)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert records.load_arrays(tmp_path)["y"].tolist() == [0, 1, 2]


def test_property_a_record_without_arrays_keeps_none_of_an_earlier_one(tmp_path):
    records.save_record(tmp_path, metrics={}, settings={}, seconds=0, arrays={"y": np.arange(3)})
    records.save_record(tmp_path, metrics={}, settings={}, seconds=0)
    assert records.load_record(tmp_path).arrays == {}


def test_property_the_revision_marks_changes_of_the_named_paths_only(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True)

    git("init", "-q")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "code.py").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "HEAD").stdout.strip()
    assert records.git_revision(tmp_path) == head
    (tmp_path / "result.json").write_text("{}")
    assert records.git_revision(tmp_path) == head + "+"
    assert records.git_revision(tmp_path, ["src"]) == head
    (tmp_path / "src" / "code.py").write_text("2")
    assert records.git_revision(tmp_path, ["src"]) == head + "+"


def test_property_the_given_revision_and_name_are_kept(tmp_path):
    folder = records.save_record(tmp_path, metrics={}, settings={}, seconds=0, name="kind/trial", revision="abc+")
    found = records.load_record(folder)
    assert (found.name, found.revision) == ("kind/trial", "abc+")


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"name": "x"}'])
def test_wrong_records_are_named(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.json is no record"):
        records.load_record(tmp_path)


@pytest.mark.wrong_arguments
def test_wrong_arrays_are_named(tmp_path):
    whole = pathlib.Path(records.save_arrays(tmp_path, {"y": np.arange(1000.0)})) / "arrays.npz"
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"arrays\.npz cannot be read"):
        records.load_arrays(tmp_path)


def test_documented_the_file_is_plain_json(tmp_path):
    records.save_record(tmp_path, metrics={"x": np.nan}, settings={"n": 3}, seconds=1.0, seed=7)
    record = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record["metrics"] == {"x": "nan"}
    assert {"name", "written", "settings", "seed", "seconds", "machine", "git_revision"} <= set(record)
