"""The loop of a sweep: blocks of updates of the runs that are left, until none is."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import PyTree

from cliffs.sweeps._book import Book
from cliffs.sweeps._checkpoint import Store
from cliffs.sweeps._devices import Layout
from cliffs.sweeps._grid import rows
from cliffs.sweeps._identity import Identity
from cliffs.sweeps._interrupts import Interrupts
from cliffs.sweeps._programs import Functions
from cliffs.sweeps._progress import Reporter


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be computed, and where."""

    functions: Functions
    layout: Layout
    grid: PyTree
    """Numpy arrays `[runs, ...]`, keys as words."""
    data: PyTree
    stop_when_solved: bool
    prune: Any


def advance_all(
    job: Job, book: Book, store: Store | None, identity: Identity, reporter: Reporter | None, interrupts: Interrupts
) -> bool:
    """Fill the book; returns whether the sweep came to its end (not so after Ctrl-C).

    The runs furthest behind go first, so that runs added later catch up and join the others.
    """
    functions, layout = job.functions, job.layout
    cohort = book.cohort()
    if len(cohort) == 0:
        return True
    shared = () if job.data is None else (layout.share(job.data),)
    state, on_device = _first_states(job, book, cohort)
    advance = functions.advance(layout)
    if reporter:
        reporter.start()
    written = False
    while True:
        # Ctrl-C may have come while the program was compiled.
        if layout.processes.any_says(interrupts.asked):
            _keep_and_write(layout, book, cohort, state, None if written else store, identity)
            return False
        state, *log = advance(state, on_device, layout.groups(len(cohort)), *shared)
        records, evaluation, diverged_at = layout.fetch(log, len(cohort))
        book.add(cohort, records, evaluation, diverged_at, functions.steps, functions.recording, job.stop_when_solved)
        if job.prune is not None:
            book.prune(job.prune, cohort, functions.steps)
        following = book.cohort()
        if reporter:
            reporter.report(book, functions.steps * len(cohort), last=len(following) == 0)
        if len(following) == 0:
            _keep_and_write(layout, book, cohort, state, store, identity)
            return True
        if not np.array_equal(following, cohort):
            book.keep_states(cohort, layout.fetch(state, len(cohort)))
            # Finished runs leave and the others close ranks at the front of the run axis.
            source = layout.sources(following)
            state, on_device = layout.place((rows(book.state, source), rows(job.grid, source)))
            cohort = following
        written = store is not None and store.is_time()
        if store is not None and written:
            _write(layout, book, cohort, state, store, identity)


def _first_states(job: Job, book: Book, cohort: np.ndarray) -> tuple[Any, Any]:
    """The states of the cohort on the devices, and their entries of the grid."""
    layout, everyone = job.layout, np.arange(book.runs)
    new = everyone[~book.started]
    if len(new):
        on_device = layout.place(rows(job.grid, layout.sources(everyone)))
        state = job.functions.start(layout)(on_device)
        book.started[:] = True
        if len(new) == book.runs:
            return state, on_device
        book.keep_states(new, rows(layout.fetch(state, book.runs), new))
    source = layout.sources(cohort)
    return layout.place((rows(book.state, source), rows(job.grid, source)))


def _write(layout: Layout, book: Book, cohort: np.ndarray, state: Any, store: Store, identity: Identity) -> None:
    """A checkpoint: each process writes the runs on its own devices, and its share of those that have left."""
    places, own_states = layout.fetch_own(state, len(cohort))
    book.keep_states(cohort[places], own_states)
    left = np.setdiff1d(np.arange(book.runs), cohort)
    share = left[left % layout.processes.count == layout.processes.index]
    store.write(book, np.concatenate([cohort[places], share]), identity)


def _keep_and_write(
    layout: Layout, book: Book, cohort: np.ndarray, state: Any, store: Store | None, identity: Identity
) -> None:
    if store is not None:
        _write(layout, book, cohort, state, store, identity)
    book.keep_states(cohort, layout.fetch(state, len(cohort)))
