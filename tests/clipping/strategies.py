"""Names from the registry of strategies, which the tests go through, and trees to feed them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cliffs.clipping import STRATEGIES

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


@functools.cache
def first_update(name):
    """The rule at 0.5, its compiled update, and a matrix with what the first update makes of it."""
    transform = STRATEGIES[name].make(0.5)
    params = {"w_rec": jnp.linspace(-2.0, 3.0, 16).reshape(4, 4)}
    update = quick_jit(lambda grads: transform.update(grads, transform.init(params), params)[0])
    return transform, params, update


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
