"""Initial weights: the paper's three recipes and the usual others, as functions of a key.

Every initialiser is pure JAX and works under `jit` and under `vmap` over keys, on any device. Conventions are
those of `cliffs.recurrent`: row vectors, `state @ w_rec`, biases zero.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, DTypeLike, Float, Key

from cliffs.recurrent._vanilla import ModelParams, ReadoutParams, RNNParams

Initializer = Callable[..., Array]
"""`init(key, shape, dtype) -> array`, as in `jax.nn.initializers`."""


def spectral_radius(matrix: Float[Array, "n n"], *, num_squarings: int = 40) -> Float[Array, ""]:
    """The spectral radius by Gelfand's formula `rho = lim ||A^k||^(1/k)` with `k = 2^num_squarings`.

    Repeated squaring with the scale carried apart: `num_squarings` products of n x n matrices (40 x 2 n^3 flops;
    10 Mflop at n = 50), no eigenvalue call, so it runs on every device, under `jit` and `vmap`. The result
    exceeds the true radius by a factor of at most `||V||·||V^-1||` to the power `2^-num_squarings`; rounding leaves
    about `n · eps · (condition of the leading eigenvalue)`, below 1e-5 in float32 for the matrices used here.

    The derivative is that of the radius where one real eigenvalue leads. Where a complex pair does, the derivative of
    `||A^k||^(1/k)` turns with the phase of its power and is not the radius's: `cliffs.penalties.spectral_penalty` goes
    by eigenvalues for that reason.

    **Arguments**

    - `matrix`: `[n, n]`, real or complex, floating point.
    - `num_squarings`: how often the matrix is squared.

    **Returns** a real scalar, `max |eigenvalue|`; 0 for a nilpotent matrix, NaN where an entry is not finite.

    **Raises** `ValueError` when `matrix` is not square.

    Source: I. Gelfand, Normierte Ringe (1941).

    >>> round(float(spectral_radius(jnp.array([[0.9, 5.0], [0.0, 0.9]]))), 4)
    0.9
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"matrix must be square, got shape {matrix.shape}")

    # log rho accumulates: with A = s B, A^(2^j) = s^(2^j) B^(2^j), each new scale counts 2^-j.
    def square(carry, j):
        power, log_radius, alive = carry
        scale = jnp.max(jnp.abs(power))
        alive = alive & (scale > 0)
        safe = jnp.where(alive, scale, 1.0)
        power = power / safe
        log_radius = log_radius + jnp.log(safe) * 0.5**j
        return (power @ power, log_radius, alive), None

    real = jnp.finfo(matrix.dtype).dtype
    start = (matrix, jnp.zeros((), real), jnp.array(True))
    (power, log_radius, alive), _ = jax.lax.scan(square, start, jnp.arange(num_squarings, dtype=real))
    size = jnp.max(jnp.abs(power))
    alive = alive & (size > 0)
    log_radius = log_radius + jnp.log(jnp.where(alive, size, 1.0)) * 0.5**num_squarings
    radius = jnp.where(alive, jnp.exp(log_radius), 0.0)
    return jnp.where(jnp.isfinite(matrix).all(), radius, jnp.nan)


def scale_to_spectral_radius(matrix: Float[Array, "n n"], radius: float | Float[Array, ""]) -> Float[Array, "n n"]:
    """`matrix` times the factor that gives it spectral radius `radius`.

    **Arguments**: `matrix` `[n, n]`; `radius`, non-negative, may be traced.

    **Returns** `[n, n]`; a matrix whose spectral radius is 0 is returned unchanged (no factor can help).

    **Raises** `ValueError` for a negative `radius`.

    >>> float(scale_to_spectral_radius(jnp.diag(jnp.array([2.0, 1.0])), 0.5)[0, 0])
    0.5
    """
    if not isinstance(radius, Tracer) and not radius >= 0:
        raise ValueError(f"radius must be non-negative, got {radius}")
    current = spectral_radius(matrix)
    return matrix * jnp.where(current > 0, radius / jnp.where(current > 0, current, 1.0), 1.0)


def gaussian(std: float = 0.01) -> Initializer:
    """Entries `N(0, std^2)`: the second argument is the standard deviation, as in the released code of 2013.

    >>> gaussian(0.01)(jax.random.key(0), (3, 4)).shape
    (3, 4)
    """
    return jax.nn.initializers.normal(std)


def glorot() -> Initializer:
    """Uniform with variance `2 / (fan_in + fan_out)` (Glorot & Bengio 2010).

    >>> glorot()(jax.random.key(0), (3, 4)).shape
    (3, 4)
    """
    return jax.nn.initializers.glorot_uniform()


def orthogonal(scale: float = 1.0) -> Initializer:
    """`scale` times a random orthogonal matrix, all singular values `scale` (Saxe et al. 2014).

    >>> w = orthogonal()(jax.random.key(0), (3, 3))
    >>> bool(jnp.allclose(w @ w.T, jnp.eye(3), atol=1e-5))
    True
    """
    return jax.nn.initializers.orthogonal(scale)


def identity_plus_noise(std: float = 0.001, scale: float = 1.0) -> Initializer:
    """`scale · I + N(0, std^2)`, with ReLU units the IRNN (Le, Jaitly & Hinton 2015).

    >>> identity_plus_noise(0.0)(jax.random.key(0), (2, 2)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    def init(key, shape, dtype=float):
        return scale * jnp.eye(*shape, dtype=dtype) + std * jax.random.normal(key, shape, dtype)

    return init


def sparse_spectral(
    nonzeros: int = 15, radius: float = 0.95, std: float = 0.01, connections: str = "outgoing"
) -> Initializer:
    """`N(0, std^2)` with `nonzeros` entries kept per unit, rescaled to spectral radius `radius` ("smart tanh").

    The released code keeps 15 entries of each *row*; with `h @ w_rec` a row holds a unit's outgoing weights. The
    ICML text says 15 non-zero *incoming* connections, which are columns: `connections="incoming"`.

    **Arguments**

    - `nonzeros`: entries kept per row or column, at least 1; all when the matrix is smaller.
    - `radius`: the spectral radius after rescaling. `std` only matters for a nilpotent draw.
    - `connections`: `"outgoing"` (rows, the code) or `"incoming"` (columns, the text).

    **Raises** `ValueError` for `nonzeros < 1`, a negative radius, or another word for `connections`.

    Source: Pascanu, Mikolov & Bengio (ICML 2013) and its released code; Jaeger's echo state networks.

    >>> w = sparse_spectral()(jax.random.key(0), (50, 50))
    >>> int((w != 0).sum()), round(float(spectral_radius(w)), 3)
    (750, 0.95)
    """
    if nonzeros < 1:
        raise ValueError(f"nonzeros must be at least 1, got {nonzeros}")
    if isinstance(radius, int | float) and not radius >= 0:
        raise ValueError(f"radius must be non-negative, got {radius}")
    if connections not in ("outgoing", "incoming"):
        raise ValueError(f"connections must be 'outgoing' or 'incoming', got {connections!r}")

    def init(key, shape, dtype=float):
        key_value, key_mask = jax.random.split(key)
        # A uniform random subset of each row: the places of the `nonzeros` smallest of n uniform numbers.
        rank = jnp.argsort(jnp.argsort(jax.random.uniform(key_mask, shape), axis=1), axis=1)
        weights = jnp.where(rank < nonzeros, jax.random.normal(key_value, shape, dtype) * std, 0)
        return scale_to_spectral_radius(weights if connections == "outgoing" else weights.T, radius)

    return init


def init_model(
    key: Key[Array, ""],
    features: int,
    hidden: int,
    outputs: int,
    *,
    w_rec: Initializer,
    w_in: Initializer,
    w_out: Initializer,
    bias: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> ModelParams:
    """A vanilla network with a linear read-out; biases, where there are any, start at 0.

    **Arguments**

    - `key`: one key; `vmap` over keys gives many networks.
    - `features`, `hidden`, `outputs`: sizes.
    - `w_rec`, `w_in`, `w_out`: initialisers of the three weight matrices.
    - `bias`: whether the units and the read-out have biases.

    **Returns** `ModelParams(rnn=RNNParams(...), readout=ReadoutParams(...))`.

    >>> p = init_model(jax.random.key(0), 6, 50, 4, w_rec=orthogonal(), w_in=glorot(), w_out=glorot())
    >>> p.rnn.w_rec.shape, p.readout.w_out.shape
    ((50, 50), (50, 4))
    """
    for name, size in (("features", features), ("hidden", hidden), ("outputs", outputs)):
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
    keys = jax.random.split(key, 3)
    return ModelParams(
        RNNParams(
            w_rec(keys[0], (hidden, hidden), dtype),
            w_in(keys[1], (features, hidden), dtype),
            jnp.zeros(hidden, dtype) if bias else None,
        ),
        ReadoutParams(w_out(keys[2], (hidden, outputs), dtype), jnp.zeros(outputs, dtype) if bias else None),
    )


def paper_init(
    name: str, key: Key[Array, ""], features: int, hidden: int, outputs: int, dtype: DTypeLike = jnp.float32
) -> ModelParams:
    """One of the paper's three initialisations for the synthetic tasks.

    - `"sigmoid"`: all weights `N(0, 0.01^2)`, to be used with logistic units;
    - `"basic_tanh"`: all weights `N(0, 0.1^2)`, tanh units;
    - `"smart_tanh"`: `w_in`, `w_out` `N(0, 0.01^2)`, `w_rec` of `sparse_spectral()`, tanh units.

    **Raises** `ValueError` for another name. Source: Pascanu, Mikolov & Bengio (ICML 2013), section 4.1.

    >>> paper_init("smart_tanh", jax.random.key(0), 6, 50, 4).rnn.w_in.shape
    (6, 50)
    """
    recipes = {
        "sigmoid": (gaussian(0.01), gaussian(0.01)),
        "basic_tanh": (gaussian(0.1), gaussian(0.1)),
        "smart_tanh": (sparse_spectral(), gaussian(0.01)),
    }
    if name not in recipes:
        raise ValueError(f"name must be one of {sorted(recipes)}, got {name!r}")
    w_rec, other = recipes[name]
    return init_model(key, features, hidden, outputs, w_rec=w_rec, w_in=other, w_out=other, dtype=dtype)
