"""How far a sweep is: a line on the terminal, JSON lines in a file."""

import dataclasses
import json
import math
import os
import sys
import time
from typing import Any

from cliffs.sweeps._book import Book

SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a sweep reports while it runs: runs alive, solved, diverged, pruned, updates a second, time left."""

    show: bool | None = None
    """Whether to write to stderr; None means only where that is a terminal."""
    json_lines: str | os.PathLike[str] | None = None
    """A file that gets one JSON object a line after every evaluation."""


def check_progress(progress: Any) -> Progress:
    """A `Progress` from what a user may give.

    >>> check_progress(False).show, check_progress(None).show
    (False, None)
    """
    if progress is None or isinstance(progress, bool):
        return Progress(progress)
    if not isinstance(progress, Progress):
        raise ValueError(f"progress must be None, a bool or a Progress, got {progress!r}")
    if progress.show is not None and not isinstance(progress.show, bool):
        raise ValueError(f"a Progress's show must be None, True or False, got {progress.show!r}")
    if progress.json_lines is not None and not isinstance(progress.json_lines, (str, os.PathLike)):
        raise ValueError(f"a Progress's json_lines must be the path of a file or None, got {progress.json_lines!r}")
    return progress


class Reporter:
    """Tells how far a sweep is, after every block."""

    def __init__(self, progress: Progress, stream: Any = None):
        self._stream = sys.stderr if stream is None else stream
        self._terminal = bool(getattr(self._stream, "isatty", lambda: False)())
        self._show = self._terminal if progress.show is None else progress.show
        self._lines = progress.json_lines
        self._started = self._last_line = time.monotonic()
        self._computed = 0

    def start(self) -> None:
        """The clock starts here: what comes before is compiling."""
        self._started = time.monotonic()

    def report(self, book: Book, computed: int, last: bool) -> None:
        """Tell of a block that computed that many updates of runs."""
        self._computed += computed
        facts = self._facts(book)
        if self._lines is not None:
            with open(self._lines, "a") as file:
                file.write(json.dumps(facts) + "\n")
        if not self._show:
            return
        now = time.monotonic()
        if self._terminal:
            self._stream.write("\r\x1b[K" + describe(facts) + ("\n" if last else ""))
        elif last or now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._stream.write(describe(facts) + "\n")
        self._stream.flush()

    def _facts(self, book: Book) -> dict[str, Any]:
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self._computed / seconds
        alive = ~book.ended & (book.steps_run < book.num_steps)
        left = (book.num_steps - book.steps_run[alive]).sum()
        behind = book.steps_run[alive].min() if alive.any() else book.steps_run.max()
        return {
            "updates": int(behind),
            "num_steps": book.num_steps,
            "runs": book.runs,
            "alive": int(alive.sum()),
            "solved": int((book.solved_at >= 0).sum()),
            "diverged": int((book.diverged_at >= 0).sum()),
            "pruned": int((book.pruned_at >= 0).sum()),
            "updates_per_second": round(rate, 3),
            "seconds": round(seconds, 6),
            "seconds_left": round(float(left / rate), 1) if rate else None,
        }


def describe(facts: dict[str, Any]) -> str:
    """The facts as one line. The time left assumes that no further run leaves.

    >>> describe({"updates": 200, "num_steps": 1000, "runs": 8, "alive": 5, "solved": 2, "diverged": 1, "pruned": 0,
    ...           "updates_per_second": 812.3, "seconds_left": 65.0})
    '200/1000 updates, 5 of 8 runs alive, 2 solved, 1 diverged, 812 updates/s, 1:05 left'
    """
    runs = f"{facts['alive']} of {facts['runs']} runs alive" if facts["alive"] else f"all {facts['runs']} runs ended"
    parts = [f"{facts['updates']}/{facts['num_steps']} updates", runs]
    parts += [f"{facts[what]} {what}" for what in ("solved", "diverged", "pruned") if facts[what]]
    parts.append(f"{facts['updates_per_second']:.3g} updates/s")
    if facts["alive"] and facts["seconds_left"] is not None:
        minutes, seconds = divmod(math.ceil(facts["seconds_left"]), 60)
        hours, minutes = divmod(minutes, 60)
        parts.append((f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}") + " left")
    return ", ".join(parts)
