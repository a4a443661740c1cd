"""The one list of strategies that the tests go through, and trees to feed them: add a name and it is covered."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cliffs import clipping


class Case(NamedTuple):
    make: object  # make(threshold, **kwargs) -> transformation
    keeps_direction: bool = False
    bounds: str | None = None  # "global", "leaf": norms of the result stay below the threshold
    exact: bool = True  # untouched to the bit where the threshold is not reached
    idempotent: bool = True
    on_matrix: bool = False  # acts on the matrix after the update


STRATEGIES = {
    "clip": Case(clipping.clip),
    "clip_by_global_norm": Case(clipping.clip_by_global_norm, True, "global"),
    "clip_by_block_rms": Case(clipping.clip_by_block_rms),
    "adaptive_grad_clip": Case(clipping.adaptive_grad_clip),
    "clip_by_leaf_norm": Case(clipping.clip_by_leaf_norm, bounds="leaf"),
    "clip_by_group_norm": Case(clipping.clip_by_group_norm, bounds="leaf"),
    "soft_clip_by_global_norm": Case(clipping.soft_clip_by_global_norm, True, "global", False, False),
    "clip_by_ema_norm": Case(clipping.clip_by_ema_norm, True, idempotent=False),
    "clip_by_norm_quantile": Case(lambda t, **k: clipping.clip_by_norm_quantile(t / (1 + t), 4, **k), True, exact=False,
                                  idempotent=False),
    "clip_by_zscore": Case(lambda t, **k: clipping.clip_by_zscore(t, warmup=1, max_norm=t, **k), True, "global",
                           idempotent=False),
    "clip_by_ema_leaf_norm": Case(lambda t, **k: clipping.clip_by_ema_leaf_norm(t, warmup=1, max_norm=t, **k),
                                  idempotent=False),
    "clip_spikes": Case(lambda t, **k: clipping.clip_spikes(t, warmup=1, **k), idempotent=False),
    "clip_or_shrink": Case(lambda t, **k: clipping.clip_or_shrink(t, limit=jnp.inf, **k), True, "global"),
    "spectral_normalize": Case(clipping.spectral_normalize, on_matrix=True),
    "project_spectral_radius": Case(clipping.project_spectral_radius, on_matrix=True),
}  # fmt: skip
NAMES = list(STRATEGIES)
RULES = [n for n in NAMES if not STRATEGIES[n].on_matrix]
DTYPES = ("float32", "mixed")  # mixed: bfloat16, complex64, float16 and float32 in one tree


def tree(values, dtype="float32", scales=(1.0, 1.0, 1.0, 1.0)):
    """A tree with a matrix, a vector, a scalar, an empty leaf and a tuple, from 14 numbers in [-1, 1]."""
    types = ("bfloat16", "float32", "float16", "float32") if dtype == "mixed" else ("float32",) * 4
    values = np.split(np.asarray(values, np.float64), [9, 12, 13])
    pieces = []
    for piece, kind, scale in zip(values, types, scales):
        top = float(jnp.finfo(kind).max)
        pieces.append(jnp.asarray(np.clip(piece * scale, -top, top).astype(jnp.dtype(kind))))
    vector = jax.lax.complex(pieces[1], pieces[1][::-1]) if dtype == "mixed" else pieces[1]
    return {
        "rnn": {"w_rec": pieces[0].reshape(3, 3), "bias": vector},
        "scalar": pieces[2][0],
        "others": (jnp.zeros((0, 2), types[3]), pieces[3]),
    }


def quick_jit(function):
    """Compile time is what these tests cost: leave out the optimisations that small programs do not need."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


PARAMS = {dtype: tree(np.linspace(-1, 1, 14), dtype) for dtype in DTYPES}


@functools.cache
def compiled(name, dtype, **kwargs):
    """Two updates with the same gradient, as one program with a traced threshold."""
    case = STRATEGIES[name]

    @quick_jit
    def run(first, second, threshold):
        transform = case.make(threshold, **kwargs)
        state = transform.init(PARAMS[dtype])
        one, middle = transform.update(first, state, PARAMS[dtype])
        two, last = transform.update(second, middle, PARAMS[dtype])
        return one, two, middle, last

    return run


def norm64(t):
    return float(np.sqrt(sum(np.sum(np.abs(np.asarray(x, np.complex128)) ** 2) for x in jax.tree.leaves(t))))


def flat64(t):
    return np.concatenate([np.asarray(x, np.complex128).reshape(-1) for x in jax.tree.leaves(t)])


def identical(a, b):
    return all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


def epsilon(dtype):
    return float(jnp.finfo("bfloat16" if dtype == "mixed" else dtype).eps)
