"""What a sweep leaves behind."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """What a sweep leaves behind; numpy arrays, run axis first, in the order of the grid.

    Entries of a history after the step at which its run ended are empty: NaN, and masked (`numpy.ma`) where the dtype
    has no NaN, so that no mean counts them. `mask` says which entries were computed.
    """

    grid: PyTree
    state: PyTree
    """The last states, leaves `[runs, ...]`."""
    metrics: Any
    """What `update` returned, leaves `[runs, records, ...]`, a record for every `record_every` updates."""
    evaluations: Mapping[str, Any]
    """Leaves `[runs, evaluations, ...]`, one evaluation after every `evaluate_every` updates."""
    solved_at: np.ndarray
    """`[runs]`: number of updates at the first evaluation that called the run solved; -1 if none did."""
    diverged_at: np.ndarray
    """`[runs]`: the step whose loss or parameters were not finite; -1 if none was."""
    steps_run: np.ndarray
    """`[runs]`: how many updates were computed."""
    evaluate_every: int = 1
    record_every: int = 1

    @property
    def mask(self) -> np.ndarray:
        """Bool `[runs, records]`: which entries of `metrics` were computed; the others are empty."""
        return _filled(self.metrics, self.steps_run // self.record_every)

    @property
    def evaluation_mask(self) -> np.ndarray:
        """Bool `[runs, evaluations]`: the same for `evaluations`."""
        return _filled(self.evaluations, self.steps_run // self.evaluate_every)


def _filled(history: PyTree, counts: np.ndarray) -> np.ndarray:
    leaves = jax.tree.leaves(history)
    return np.arange(leaves[0].shape[1] if leaves else counts.max(initial=0)) < counts[:, None]
