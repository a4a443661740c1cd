"""What a benchmark that the runner does not run yet needs: `save`, `machine`, `plain`."""

import pathlib
import time
from collections.abc import Mapping
from typing import Any

from cliffs.records import git_revision, machine, save_record
from cliffs.records import to_json as plain
from experiments import runner

RESULTS = runner.RESULTS
__all__ = ["RESULTS", "machine", "plain", "save"]


def save(
    name: str,
    *,
    metrics: Mapping[str, Any],
    settings: Mapping[str, Any],
    started: float,
    arrays: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> pathlib.Path:
    """Write results/benchmarks/<name>; returns its path. `started` is `time.perf_counter()` at the beginning."""
    revision = git_revision(runner.ROOT, ("src", "experiments"))
    seconds = time.perf_counter() - started
    folder = RESULTS / "benchmarks" / name
    return save_record(
        folder, metrics=metrics, settings=settings, seconds=seconds, seed=seed, arrays=arrays, revision=revision
    )
