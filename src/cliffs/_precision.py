"""What a dtype can reach: the one place where the library decides how exact an answer may be asked for."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike


def spacing(dtype: DTypeLike) -> float:
    """The distance from 1 to the next number of the dtype.

    >>> spacing(jnp.float32) == 2.0**-23
    True
    """
    return float(jnp.finfo(dtype).eps)


def by_precision(dtype: DTypeLike, *, double: float, single: float) -> float:
    """One of two settings: `double` for float64, `single` for every coarser dtype.

    >>> by_precision(jnp.float32, double=1e-10, single=1e-5)
    1e-05
    """
    return double if spacing(dtype) < 1e-12 else single


def reachable_tolerance(
    tolerance: float | np.number | Array | None, dtype: DTypeLike, *, double: float, single: float = 1e-5
) -> float:
    """The default of a dtype, or the given tolerance if the dtype resolves it; else `ValueError`.

    The finest that a dtype resolves is taken as four spacings at 1.

    >>> reachable_tolerance(None, jnp.float32, double=1e-10)
    1e-05
    >>> reachable_tolerance(1e-12, jnp.float32, double=1e-10)
    Traceback (most recent call last):
    ValueError: tolerance=1e-12 is out of reach for float32, which can reach 4.8e-07: ...
    """
    if tolerance is None:
        return by_precision(dtype, double=double, single=single)
    if not tolerance >= 4 * spacing(dtype):
        raise ValueError(
            f"tolerance={tolerance} is out of reach for {jnp.dtype(dtype).name}, which can reach "
            f"{4 * spacing(dtype):.1e}: pass float64 states (jax_enable_x64) or a larger tolerance"
        )
    return float(tolerance)


def merge_distance(given: float | Array | None, tolerance: float) -> float:
    """How close two solutions count as one: as given, or the square root of the tolerance.

    A double root is known to no better than the square root of the residual.

    >>> merge_distance(None, 1e-10), merge_distance(0.5, 1e-10)
    (1e-05, 0.5)
    """
    if given is None:
        return tolerance**0.5
    if not given > 0:
        raise ValueError(f"merge_distance must be positive, got {given}")
    return float(given)


def rounding(dtype: DTypeLike) -> float:
    """Sixteen spacings: what a few dozen operations may be wrong by, relative to the largest number in them.

    >>> round(rounding(jnp.float32), 8)
    1.91e-06
    """
    return 16 * spacing(dtype)


def unit_margin(dtype: DTypeLike) -> float:
    """How far from modulus 1 a multiplier must be to count as inside or outside: `sqrt(eps)` of the dtype.

    A double multiplier, as of an area-preserving map, is known to no better than that.

    >>> round(unit_margin(jnp.float32), 6)
    0.000345
    """
    return spacing(dtype) ** 0.5


def num_halvings(dtype: DTypeLike) -> int:
    """How often a bracket must be halved until it is as narrow as the dtype's spacing at 1, from a width up to 256.

    >>> num_halvings(jnp.float32), num_halvings(jnp.float64)
    (31, 60)
    """
    return int(jnp.finfo(dtype).nmant) + 8
