"""What the processes of one sweep tell each other; with one process, nothing."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Processes:
    """`count` processes, of which this is number `index`; all must call the same methods in the same order."""

    count: int = 1
    index: int = 0

    def wait(self, name: str) -> None:
        """Until all have come here."""
        if self.count > 1:
            from jax.experimental import multihost_utils

            with lost_process():
                multihost_utils.sync_global_devices(name)

    def gather(self, x: np.ndarray) -> np.ndarray:
        """`[count, ...]`: what each has given."""
        if self.count == 1:
            return x[None]
        from jax.experimental import multihost_utils

        with lost_process():
            return np.asarray(multihost_utils.process_allgather(x)).reshape(self.count, *x.shape)

    def gather_rows(self, tree: PyTree) -> Any:
        """Device arrays that are spread over all devices, as whole host arrays."""
        if self.count == 1:
            return jax.tree.map(np.asarray, tree)
        from jax.experimental import multihost_utils

        with lost_process():
            return multihost_utils.process_allgather(tree, tiled=True)

    def any_says(self, flag: bool) -> bool:
        """Whether one of them says yes."""
        return bool(self.gather(np.array([flag])).any())

    def first_says(self, flag: bool) -> bool:
        """What number 0 says."""
        return bool(self.gather(np.array([flag]))[0].any())


@contextlib.contextmanager
def lost_process() -> Iterator[None]:
    """A failed exchange ends this process, after it has said what to do.

    An exception would not reach anybody: JAX's runtime ends a process of a broken group by itself, after a timeout and
    without Python. Until then the others wait for this one, whose open connections tell them that all is well.
    """
    try:
        yield
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        print(
            "cliffs.sweep: another process of this sweep is gone, so this one ends too. To resume, start all processes "
            "again with the same call and the same checkpoint folder (their number may be another one). "
            f"JAX said: {first}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
