"""A sweep that goes on from where it was stopped, and of which only the whole counts."""

import pathlib
from collections.abc import Mapping
from typing import Any

from cliffs.sweeps import Checkpoint, SweepResult, sweep


def whole_sweep(
    init: Any,
    update: Any,
    grid: Mapping[str, Any],
    num_steps: int,
    *,
    folder: str | None,
    name: str = "",
    **options: Any,
) -> SweepResult:
    """`cliffs.sweep` with a checkpoint in `folder / name`, every half minute; without one where `folder` is None.

    **Raises** `KeyboardInterrupt` for a sweep that was interrupted: what was not run must not be counted.
    """
    if folder is not None:
        options["checkpoint"] = Checkpoint(pathlib.Path(folder) / name, every_seconds=30)
    result = sweep(init, update, dict(grid), num_steps, **options)
    if not result.complete:
        raise KeyboardInterrupt(f"{name}: {'; '.join(result.notes)}")
    return result
