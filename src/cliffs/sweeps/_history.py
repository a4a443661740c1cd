"""Histories: what the chunks of a sweep left behind, as arrays with a run axis."""

import jax
import numpy as np


def assemble(logs, runs: int, chunks: int):
    """Chunks of the runs that were active become arrays `[runs, chunks, ...]`, NaN or 0 where a run was done."""

    def build(*pieces):
        fill = np.nan if np.issubdtype(pieces[0].dtype, np.floating) else 0
        whole = np.full((runs, chunks, *pieces[0].shape[1:]), fill, pieces[0].dtype)
        for i, (rows, piece) in enumerate(zip((rows for rows, _ in logs), pieces)):
            whole[rows, i] = piece
        return whole

    return jax.tree.map(build, *(log for _, log in logs))
