"""How far a sweep is: silent unless there is somebody to read it, JSON lines on request."""

import io
import json

from sweeps import small

from cliffs.sweeps import Progress
from cliffs.sweeps._book import new_book
from cliffs.sweeps._contracts import Shapes
from cliffs.sweeps._progress import Reporter
from cliffs.sweeps._recording import Recording


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_integration_silent_when_not_a_terminal_unless_asked(capsys):
    small.run(progress=None)
    assert capsys.readouterr() == ("", "")
    small.run(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("40/40 updates, all 6 runs ended, 2 solved, 2 diverged, ")
    small.run(progress=False)
    assert capsys.readouterr() == ("", "")


def test_integration_json_lines_count_the_runs(tmp_path, capsys):
    small.run(progress=Progress(show=False, json_lines=tmp_path / "log.jsonl"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in lines] == [10, 20, 30, 40]
    assert [line["alive"] for line in lines] == [6, 2, 2, 0]
    assert [(line["solved"], line["diverged"], line["pruned"]) for line in lines][1:] == [(2, 2, 0)] * 3
    computed = [60, 120, 140, 160]
    for line, count in zip(lines, computed):
        assert abs(line["updates_per_second"] * line["seconds"] - count) < 0.02 * count + 1
    assert lines[-1]["seconds_left"] == 0
    assert capsys.readouterr() == ("", "")


def test_property_a_terminal_gets_one_line_that_is_written_over():
    stream, book = Terminal(), new_book(2, 40, 10, _Functions())
    book.steps_run[:], book.ended[0], book.solved_at[0] = 10, True, 10
    reporter = Reporter(Progress(), stream)
    reporter.start()
    reporter.report(book, 10, last=False)
    reporter.report(book, 10, last=True)
    text = stream.getvalue()
    assert text.count("\r") == 2
    assert text.count("\n") == 1
    assert "10/40 updates, 1 of 2 runs alive, 1 solved" in text
    assert text.rstrip().endswith("left")


class _Functions:
    """As much of a sweep's functions as an empty book needs."""

    bare_state, recorded, recording = (), (), Recording()
    shapes = Shapes((), (), {})
