"""Logs on disk in every form, and the command that reads them.

The three `trainer_state*.json` were written by Hugging Face's Trainer in runs of a tiny transformer on random tokens:
one that learns, one with a learning rate of 300 and clipping, one with 3000 and no clipping.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from tests.untyped import number

from cliffs import _cli
from cliffs.diagnosis import diagnose, read_history

DATA = pathlib.Path(__file__).parent / "data"
SOURCE = pathlib.Path(__file__).parents[2] / "src"


def rows(count=300):
    rng = np.random.default_rng(0)
    norms, losses = np.exp(rng.normal(0, 0.2, count)), np.exp(rng.normal(0, 0.1, count))
    norms[[100, 200]] *= 50
    return [{"step": 10 * (i + 1), "loss": losses[i], "grad_norm": norms[i]} for i in range(count)]


def write_csv(path, table, separator=","):
    names = list(dict.fromkeys(name for row in table for name in row))
    lines = [separator.join(names), *(separator.join(str(row.get(n, "")) for n in names) for row in table)]
    path.write_text("\n".join(lines) + "\n")


def same(history):
    want = rows()
    np.testing.assert_array_equal(history.steps, [row["step"] for row in want])
    np.testing.assert_array_equal(history.norms, [row["grad_norm"] for row in want])
    np.testing.assert_array_equal(history.losses, [row["loss"] for row in want])


def test_integration_a_real_trainer_state_is_read_as_it_was_written():
    history = read_history(DATA / "trainer_state.json")
    log = json.loads((DATA / "trainer_state.json").read_text())["log_history"]
    train = [row for row in log if "grad_norm" in row]
    assert len(log) > len(train) == 120  # evaluations are left out
    np.testing.assert_array_equal(history.steps, np.arange(1, 121))
    np.testing.assert_array_equal(history.norms, [row["grad_norm"] for row in train])
    np.testing.assert_array_equal(history.losses, [row["loss"] for row in train])
    assert diagnose(history).names() == ["healthy"]


def test_integration_real_runs_that_failed_are_told_why():
    lost = diagnose(read_history(DATA / "trainer_state_lost.json"))
    assert lost.names() == ["diverged"]  # the Trainer logs a loss of 0 for NaN: that is no convergence
    assert lost.findings[0].evidence["step"] == 4
    np.testing.assert_allclose(number(lost.findings[0].evidence["decades_grown"]), 6.26, atol=0.01)
    high = diagnose(read_history(DATA / "trainer_state_high_rate.json"), max_norm=1.0)
    assert high.names() == ["sudden explosion", "loss grew"]
    assert all("ower the learning rate" in finding.advice for finding in high.findings)
    np.testing.assert_allclose(number(high.findings[0].evidence["decades_gained"]), 2.27, atol=0.01)
    assert high.threshold is None


def test_parity_all_forms_of_a_log_give_one_history(tmp_path):
    table = rows()
    write_csv(tmp_path / "a.csv", table)
    write_csv(tmp_path / "b.tsv", table, "\t")
    write_csv(tmp_path / "c.csv", table, ";")
    (tmp_path / "c.csv").write_text((tmp_path / "c.csv").read_text().replace(".", ","))  # as European tables have it
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, table)))
    (tmp_path / "e.json").write_text(json.dumps(table))
    (tmp_path / "f.json").write_text(json.dumps({name: [row[name] for row in table] for name in table[0]}))
    (tmp_path / "g.json").write_text("\n".join(map(json.dumps, table)))  # lines, with the wrong ending
    state = {"log_history": [x for row in table for x in (row, {"eval_loss": 1.0, "step": row["step"]})]}
    for folder, content in (("checkpoint-9", {"log_history": []}), ("checkpoint-3000", state)):
        (tmp_path / "run" / folder).mkdir(parents=True)
        (tmp_path / "run" / folder / "trainer_state.json").write_text(json.dumps(content))
    # A logger that writes loss and norm of a step to rows of their own.
    split = [
        x
        for r in table
        for x in ({"step": r["step"], "loss": r["loss"]}, {"step": r["step"], "grad_norm": r["grad_norm"]})
    ]
    write_csv(tmp_path / "h.csv", split)
    for name in ("a.csv", "b.tsv", "c.csv", "d.jsonl", "e.json", "f.json", "g.json", "run", "h.csv"):
        same(read_history(tmp_path / name))
        for encoding in ("utf-16", "utf-8-sig"):
            if (tmp_path / name).is_file():
                (tmp_path / f"{encoding} {name}").write_text((tmp_path / name).read_text(), encoding)
                same(read_history(tmp_path / f"{encoding} {name}"))


def test_parity_event_files_of_tensorboard_give_the_same_history(tmp_path):
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer", reason="tensorboard is not installed")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    log = writer.EventFileWriter(str(tmp_path / "logs"))
    for row in rows():
        for name in ("loss", "grad_norm"):
            value = Summary.Value(tag=f"train/{name}", simple_value=row[name])
            log.add_event(Event(step=row["step"], wall_time=0.0, summary=Summary(value=[value])))
    log.close()
    for path in (tmp_path / "logs", *(tmp_path / "logs").iterdir()):
        history = read_history(path)
        np.testing.assert_array_equal(history.steps, [row["step"] for row in rows()])
        np.testing.assert_array_equal(history.norms, np.array([row["grad_norm"] for row in rows()], np.float32))
        np.testing.assert_array_equal(history.losses, np.array([row["loss"] for row in rows()], np.float32))


@pytest.mark.wrong_arguments
def test_wrong_event_files_without_their_reader_say_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    with pytest.raises(ImportError, match="pip install tensorboard"):
        read_history(tmp_path)


def test_analytic_not_finite_numbers_and_cut_off_lines_are_read(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [json.dumps(row) for row in rows()]
    lines[3], lines[4] = (
        '{"step": 40, "loss": NaN, "grad_norm": Infinity}',
        '{"step": 50, "loss": 1, "grad_norm": "nan"}',
    )
    path.write_text("\n".join(lines) + '\n{"step": 3010, "lo')
    history = read_history(path)
    assert len(history.norms) == 300
    np.testing.assert_array_equal(diagnose(history).nonfinite_steps, [40, 50])
    assert "cut off" in history.notes[0]
    table = tmp_path / "log.csv"
    table.write_text("step,grad_norm\n1,inf\n2,NaN\n3,1e-3\n4,")
    np.testing.assert_array_equal(read_history(table).norms, [np.inf, np.nan, 1e-3])


def test_analytic_a_step_that_goes_back_is_said_and_loses_no_row(tmp_path):
    table = [{"step": i % 100, "grad_norm": 1.0 + i} for i in range(300)]  # the step within an epoch
    write_csv(tmp_path / "log.csv", table)
    history = read_history(tmp_path / "log.csv")
    np.testing.assert_array_equal(history.steps, np.arange(300))
    assert "does not rise" in history.notes[0]


@pytest.mark.wrong_arguments
@pytest.mark.parametrize("name", ["log.csv", "log.json", "log.jsonl"])
@pytest.mark.parametrize(
    ("content", "match"),
    [("é,grad_norm".encode("latin-1"), "byte 0xe9"), ("step,grad_norm\n1,2\n".encode("utf-16-le"), "a zero byte")],
)
def test_wrong_encodings_name_the_file(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} must be text in UTF-8.*{match}"):
        read_history(tmp_path / name)


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("name", "content", "columns", "match"),
    [
        ("log.csv", "step,loss\n1,2\n", {}, r"log.csv: norms: none of the columns \['step', 'loss'\].*--norm"),
        ("log.csv", "step,a,b\n1,2,3\n", {"norm": "c"}, r"norm must be one of .*\['step', 'a', 'b'\], got 'c'"),
        ("log.csv", "step,grad_norm\n1,2\n", {"loss": "c"}, "loss must be one of"),
        ("log.csv", "step,grad_norm\n1,2,3\n4,5\n", {}, "row 2 has 3 cells, the header has 2"),
        ("log.csv", "step,grad_norm\n1,high\n", {}, "grad_norm must hold numbers, got 'high' in row 0"),
        ("log.csv", "a,a\n1,2\n", {}, "twice"),
        ("log.csv", "0,1.5,2e-3\n1,1.4,3e-3\n", {}, "the first line must name the columns, .*'2e-3'"),
        ("log.csv", "", {}, "holds no rows"),
        ("log.csv", "step,grad_norm\n1,\n", {}, "log.csv"),
        ("log.json", '{"log_history": 3}', {}, "must hold log_history"),
        ("log.json", "{", {}, "is not JSON"),
        ("log.jsonl", '{"grad_norm": 1}\n[1]\n', {}, "line 2 must be an object"),
        ("log.jsonl", '{"grad_norm": 1}\n{,}\n{"grad_norm": 1}\n', {}, "line 2 is not JSON"),
        ("log.parquet", "", {}, "must end in .json.*got log.parquet"),
    ],
)
def test_wrong_logs_say_where_and_what(tmp_path, name, content, columns, match):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=match):
        read_history(tmp_path / name, **columns)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_history(tmp_path / "other.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty does not"):
        read_history(tmp_path / "empty")


def test_integration_the_command_prints_the_findings_and_draws_the_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = [{"update": r["step"], "gn": r["grad_norm"], "nll": r["loss"]} for r in rows()]
    write_csv(tmp_path / "log.csv", table)
    columns = ["--norm", "gn", "--loss", "nll"]
    assert _cli.main(["diagnose", "log.csv", *columns, "--max-norm", "2", "--out", "picture.png"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "300 norms, steps 10 to 3000, with losses",
        "cliff spikes:",
        "steps [1010, 2010]",
        "followed_by_loss_jump",
        "threshold: 2.0",
        "every 10th step",
        "picture: picture.png",
    ):
        assert words in text
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert _cli.main(["diagnose", str(DATA / "trainer_state_lost.json"), "--no-picture"]) == 0
    assert "diverged at step 4" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "diagnosis.png").exists()
    assert _cli.main(["diagnose", str(DATA / "trainer_state_lost.json")]) == 0
    assert (tmp_path / "diagnosis.png").exists()


@pytest.mark.parametrize("nothing", ["null", "None", "N/A", "NA", "<NA>", "-"])
def test_property_a_word_for_an_empty_cell_is_one(tmp_path, nothing):
    log = tmp_path / "log.csv"
    log.write_text("step,loss,grad_norm\n" + "".join(f"{i},1.0,{nothing if i % 2 else 2.0}\n" for i in range(60)))
    history = read_history(log)
    np.testing.assert_array_equal(history.steps, np.arange(0, 60, 2))
    np.testing.assert_array_equal(history.norms, np.full(30, 2.0))


def test_property_a_chart_exported_by_weights_and_biases(tmp_path):
    log = tmp_path / "chart.csv"
    name = "run-1 - train/grad_norm"
    log.write_text(f'"Step","{name}","{name}__MIN","{name}__MAX"\n"0","2.0","1.0","3.0"\n"1","2.5","1.5","3.5"\n')
    np.testing.assert_array_equal(read_history(log).norms, [2.0, 2.5])


@pytest.mark.wrong_arguments
def test_wrong_a_cell_that_holds_a_whole_column_is_shown_by_its_beginning(tmp_path):
    log = tmp_path / "log.json"
    log.write_text(json.dumps({"grad_norm": [1.0] * 10_000, "config": {"lr": 0.1}}))
    with pytest.raises(ValueError, match=r"grad_norm must hold numbers, got \[1.0, 1.0.*\.\.\. in row 0") as error:
        read_history(log)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("given", ["picture", "norms of run 3", "some.folder/picture"])
def test_integration_the_command_names_the_file_that_it_wrote(tmp_path, capsys, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.folder").mkdir()
    assert _cli.main(["diagnose", str(DATA / "trainer_state.json"), "--out", given]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed == f"picture: {pathlib.Path(given)}.png"
    assert (tmp_path / printed.removeprefix("picture: ")).read_bytes()[:4] == b"\x89PNG"


def test_integration_without_matplotlib_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cliffs.plotting", None)
    assert _cli.main(["diagnose", str(DATA / "trainer_state.json")]) == 0
    assert "pip install 'cliffs[experiments]'" in capsys.readouterr().out


@pytest.mark.wrong_arguments
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.csv"], "there is no file nowhere.csv"),
        ([str(DATA / "trainer_state.json"), "--norm", "gn"], "got 'gn'"),
        ([str(DATA / "trainer_state.json"), "--max-norm", "-1"], "max_norm must be a positive number"),
        ([str(DATA / "trainer_state.json"), "--out", "picture.docx"], "picture.docx"),
        ([str(DATA / "trainer_state.json"), "--out", "."], "--out ."),
    ],
)
def test_wrong_arguments_end_with_one_line_and_status_2(arguments, words, capsys):
    assert _cli.main(["diagnose", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cliffs: ")
    assert words in error
    assert "Traceback" not in error


def test_integration_help_answers_before_jax_is_loaded():
    """The file by itself: what `import cliffs` loads is that module's matter."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('command', {str(SOURCE / 'cliffs' / '_cli.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "try:\n    module.main(['diagnose', '--help'])\n"
        "finally:\n    assert not {'jax', 'numpy', 'cliffs', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for option in ("LOG", "--norm COLUMN", "--loss COLUMN", "--out PICTURE"):
        assert option in done.stdout
