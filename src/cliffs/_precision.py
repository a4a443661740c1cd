"""What a dtype can reach: the one place where the library decides how exact an answer may be asked for."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


def reachable_tolerance(tolerance: float | Array | None, dtype: Any, *, double: float, single: float = 1e-5) -> float:
    """The default of a dtype, or the given tolerance if the dtype resolves it; else `ValueError`.

    The finest that a dtype resolves is taken as four spacings at 1.

    >>> reachable_tolerance(None, jnp.float32, double=1e-10)
    1e-05
    >>> reachable_tolerance(1e-12, jnp.float32, double=1e-10)
    Traceback (most recent call last):
    ValueError: tolerance=1e-12 is out of reach for float32, which can reach 4.8e-07: ...
    """
    eps = float(jnp.finfo(dtype).eps)
    if tolerance is None:
        return double if eps < 1e-12 else single
    if not tolerance >= 4 * eps:
        raise ValueError(
            f"tolerance={tolerance} is out of reach for {jnp.dtype(dtype).name}, which can reach {4 * eps:.1e}: pass "
            "float64 states (jax_enable_x64) or a larger tolerance"
        )
    return float(tolerance)


def unit_margin(dtype: Any) -> float:
    """How far from modulus 1 a multiplier must be to count as inside or outside: `sqrt(eps)` of the dtype.

    >>> round(unit_margin(jnp.float32), 6)
    0.000345
    """
    return float(jnp.finfo(dtype).eps) ** 0.5
