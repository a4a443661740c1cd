"""What the host knows of every run while a sweep goes on."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._history import empty_history, masked, store
from cliffs.sweeps._recording import Recording


@dataclasses.dataclass
class Book:
    """One entry a run in every array; the histories are `[runs, records, ...]` and `[runs, evaluations, ...]`."""

    state: PyTree
    """Up to date for runs that have ended; for the others after `Book.keep_states`."""
    records: PyTree
    evaluations: Mapping[str, PyTree]
    steps_run: np.ndarray
    solved_at: np.ndarray
    diverged_at: np.ndarray
    pruned_at: np.ndarray
    ended: np.ndarray
    """Diverged, pruned, or solved in a sweep that stops then: nothing is to be computed any more."""
    started: np.ndarray
    """Whether the run has a state."""
    num_steps: int
    """Updates that are wanted of every run."""
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def runs(self) -> int:
        """How many there are."""
        return len(self.steps_run)

    def cohort(self) -> np.ndarray:
        """The runs to go on with: those furthest behind among the unfinished ones. They are at one step."""
        open_runs = np.flatnonzero(~self.ended & (self.steps_run < self.num_steps))
        return open_runs[self.steps_run[open_runs] == self.steps_run[open_runs].min()] if len(open_runs) else open_runs

    def keep_states(self, runs: np.ndarray, state: PyTree) -> None:
        """Write the states of these runs."""

        def write(whole, part):
            whole[runs] = part

        jax.tree.map(write, self.state, state)

    def add(
        self,
        runs: np.ndarray,
        records: PyTree,
        evaluation: Mapping[str, PyTree],
        diverged_at: np.ndarray,
        steps: int,
        recording: Recording,
        stop_when_solved: bool,
    ) -> None:
        """What a block of `steps` updates of these runs left behind."""
        done = int(self.steps_run[runs[0]])
        store(self.records, runs, done // recording.every, records)
        store(self.evaluations, runs, done // steps, jax.tree.map(lambda x: x[:, None], evaluation))
        self.steps_run[runs] = done + steps
        self.diverged_at[runs] = diverged_at
        solved = np.asarray(evaluation.get("solved", np.zeros(len(runs), bool)))
        self.solved_at[runs[solved & (self.solved_at[runs] < 0)]] = done + steps
        self.ended[runs] = (diverged_at >= 0) | (solved & stop_when_solved)

    def prune(self, rule: Any, runs: np.ndarray, evaluate_every: int) -> None:
        """Ask a rule which of these runs, which are at one step, are to go on; the others end here."""
        active = np.zeros(self.runs, bool)
        active[runs] = ~self.ended[runs]
        if not active.any():
            return
        count = int(self.steps_run[runs[0]]) // evaluate_every
        filled = np.arange(count) < (self.steps_run // evaluate_every)[:, None]
        # Copies: a rule may well write into what it is given (`error[np.isnan(error)] = np.inf`).
        so_far = masked(jax.tree.map(lambda x: x[:, :count].copy(), self.evaluations), filled)
        keep = np.asarray(rule(so_far, active.copy()))
        if keep.shape != active.shape or keep.dtype != bool:
            raise ValueError(f"prune must return bool [{self.runs}], got {keep.dtype}{list(keep.shape)}")
        gone = np.flatnonzero(active & ~keep)
        self.pruned_at[gone] = self.steps_run[gone]
        self.ended[gone] = True


def new_book(runs: int, num_steps: int, evaluate_every: int, functions: Any) -> Book:
    """An empty book for that many runs and updates; `functions` gives the shapes."""

    def none() -> np.ndarray:
        return np.full(runs, -1)

    return Book(
        state=jax.tree.map(lambda x: np.zeros((runs, *x.shape), x.dtype), functions.bare_state),
        records=empty_history(functions.recorded, runs, num_steps // functions.recording.every),
        evaluations=empty_history(functions.shapes.evaluation, runs, num_steps // evaluate_every),
        steps_run=np.zeros(runs, int),
        solved_at=none(),
        diverged_at=none(),
        pruned_at=none(),
        ended=np.zeros(runs, bool),
        started=np.zeros(runs, bool),
        num_steps=num_steps,
    )
