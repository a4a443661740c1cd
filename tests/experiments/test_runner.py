"""The runner: it finds every experiment, keeps what it computed, and starts quickly."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from experiments import runner

from cliffs.records import load_record

ROOT = pathlib.Path(runner.__file__).resolve().parents[1]
TOY = '''
"""A toy. Second sentence.

More words.
"""

import dataclasses
from typing import NamedTuple

from cliffs.plotting import figure


@dataclasses.dataclass(frozen=True)
class Config:
    """Of the toy."""

    updates: int = 3
    seed: int = 5


class Result(NamedTuple):
    config: Config
    metrics: dict
    arrays: dict
    rows: list
    notes: list
    files: dict


def run(config, say=print, keep=None):
    keep({"early": [config.updates]})
    say("half done")
    return Result(config, {"x": 1.0}, {"y": [1, 2]}, [("x", "1.0", "one")], ["a note"], {"page.html": "<p>"})


def draw(result):
    fig, ax = figure()
    return {"toy": fig, "toy.svg": fig}
'''


def test_documented_the_list_has_a_line_for_every_experiment_and_loads_no_jax():
    code = "import sys, experiments.runner as r; print(r.listing()); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "/" in line.split(" ")[0] and "reproduce" not in line]
    assert [line.split()[0] for line in lines] == list(runner.experiments())
    assert all(len(line.split("  ", 1)[1].strip()) > 20 for line in lines)


@pytest.mark.parametrize("name", list(runner.experiments()))
def test_documented_every_experiment_has_settings_that_are_flags_in_one_vocabulary(name):
    module = runner.load(name)
    config = module.Config()
    assert dataclasses.is_dataclass(config)
    assert module.Config.__dataclass_params__.frozen
    if name.startswith("benchmarks/"):
        return
    # One word for one thing: see the runner's docstring.
    words = {field.name for field in dataclasses.fields(config)}
    assert not words & {"batch_size", "sequences", "num_steps", "num_updates", "networks", "test_sequences"}
    assert {"config", "metrics"} <= set(module.Result._fields)
    assert callable(module.draw)


def test_property_results_lie_where_their_script_writes_them():
    known = {*runner.experiments(), "reproduce"}
    tracked = subprocess.run(["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode or not tracked.stdout:
        pytest.skip("no checkout")
    folders = {pathlib.PurePosixPath(p).parent.relative_to("results").as_posix() for p in tracked.stdout.split()}
    assert folders <= known
    pictures = [pathlib.PurePosixPath(p) for p in tracked.stdout.split() if p.endswith(".svg")]
    assert [p.stem for p in pictures] == ["bifurcation_diagram"]  # stored once, but where a reader zooms


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "experiments" / "figures").mkdir(parents=True)
    (tmp_path / "experiments" / "figures" / "toy.py").write_text(TOY.lstrip())
    monkeypatch.setattr(runner, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results")
    namespace = type(sys)("toy")
    # dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "toy", namespace)
    exec(compile(TOY, "toy.py", "exec"), vars(namespace))
    monkeypatch.setattr(runner, "load", lambda name: namespace)
    return namespace


def test_integration_one_file_is_enough_for_a_new_experiment(toy, capsys):
    assert list(runner.experiments()) == ["figures/toy"]
    assert "figures/toy  A toy. Second sentence." in runner.listing()
    runner.command_line(["toy", "--updates", "7"])
    folder = runner.RESULTS / "figures" / "toy"
    record = load_record(folder)
    assert (record.name, record.seed, record.settings) == ("figures/toy", 5, {"updates": 7, "seed": 5})
    assert record.metrics == {"x": 1.0}
    assert record.arrays["y"].tolist() == [1, 2]
    assert {p.name for p in folder.iterdir()} == {"metrics.json", "arrays.npz", "toy.png", "toy.svg", "page.html"}
    printed = capsys.readouterr().out
    for text in ("half done", "x  1.0  one", "a note", str(folder)):
        assert text in printed


def test_integration_a_slip_in_a_figure_does_not_cost_the_computation(toy):
    def broken(result):
        raise RuntimeError("a slip")

    toy.draw = broken
    with pytest.raises(RuntimeError, match="a slip"):
        runner.execute("figures/toy", toy.Config())
    assert load_record(runner.RESULTS / "figures" / "toy").metrics == {"x": 1.0}

    def fails(config, keep):
        keep({"early": np.arange(2)})
        raise RuntimeError("a slip")

    toy.run = fails
    with pytest.raises(RuntimeError, match="a slip"):
        runner.execute("figures/toy", toy.Config(), folder=runner.RESULTS / "other")
    assert np.load(runner.RESULTS / "other" / "arrays.npz")["early"].tolist() == [0, 1]


def test_documented_a_benchmarks_last_line_is_one_json_object(toy, capsys):
    runner.execute("benchmarks/toy", toy.Config())
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["settings"] == {"updates": 3, "seed": 5}
    assert last["x"] == 1.0
    assert {"jax", "device", "cores"} <= set(last["device"])


@pytest.mark.parametrize("name", ["cusp", "figures/cusp", "experiments/figures/cusp.py"])
def test_property_an_experiment_goes_by_its_name_kind_or_path(name):
    assert runner.resolve(name) == "figures/cusp"


@pytest.mark.wrong_arguments
def test_wrong_names_are_answered_with_the_list():
    with pytest.raises(ValueError, match="'no_such' is no experiment"):
        runner.resolve("no_such")
    with pytest.raises(SystemExit, match="figures/cusp"):
        runner.command_line(["no_such"])


def test_property_rows_of_two_and_three_cells_make_one_table():
    lines = runner.table([("quantity", "here", "expected"), ("a", "1"), ("long name", "2", "3")])
    assert lines == ["quantity   here  expected", "a          1", "long name  2     3"]
    assert runner.table([]) == []


@pytest.mark.parametrize("path", ["figures/cusp.py", "hypotheses/curvature_alignment.py"])
def test_integration_a_script_runs_by_its_path(path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / path), "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "--" in run.stdout
    assert textwrap.shorten(runner.listing(), 40) not in run.stdout


def test_property_a_record_names_no_place_of_this_machine(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        data_dir: str = str(tmp_path / "corpora")
        checkpoint: str | None = None
        updates: int = 3

    class Done(NamedTuple):
        metrics: dict

    runner.record("figures/toy", Settings(), Done({"x": 1.0}), 0.1, folder=tmp_path / "out")
    assert load_record(tmp_path / "out").settings == {"data_dir": "corpora", "checkpoint": None, "updates": 3}
    assert str(tmp_path) not in (tmp_path / "out" / "metrics.json").read_text()
