"""What a sweep leaves behind."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from cliffs.training import StepMetrics, TrainState


class SweepResult(NamedTuple):
    """What a sweep leaves behind; numpy arrays, run axis first, in the order of the grid."""

    grid: PyTree
    state: TrainState
    metrics: StepMetrics
    """Leaves `[runs, steps, ...]`; NaN (or 0 for integers) after the step at which a run was finished."""
    evaluations: Mapping[str, np.ndarray]
    """Leaves `[runs, evaluations, ...]`, one evaluation after every `evaluate_every` steps."""
    solved_at: np.ndarray
    """`[runs]`: number of updates at the first evaluation that called the run solved; -1 if none did."""
    diverged_at: np.ndarray
    """`[runs]`: the step whose loss or parameters were not finite; -1 if none was."""
    steps_run: np.ndarray
    """`[runs]`: how many updates were computed."""
