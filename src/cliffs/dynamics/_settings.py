"""Settings that travel together."""

import dataclasses

import numpy as np
from jaxtyping import Array


@dataclasses.dataclass(frozen=True)
class Settling:
    """How trajectories are followed until they settle; hashable, so it can be a static argument.

    >>> import numpy as np
    >>> Settling(window=8, escape=np.float32(2.5))
    Settling(max_steps=4096, max_period=4, tolerance=None, escape=2.5, window=8)
    """

    max_steps: int = 4096
    """Steps after which a start is given up (rounded up to a multiple of `window`)."""
    max_period: int = 4
    """The longest cycle that is recognised."""
    tolerance: float | np.number | Array | None = None
    """An orbit repeats when `|F^p(x) - x|` is at most this, relative to `scale + |x|`; 1e-10 in float64 and 1e-5 in
    float32 if None."""
    escape: float | np.number | Array | None = None
    """A state with an entry beyond this, in the state's own units, or not finite, has escaped. If None, a million times
    the scale of the entry, or a million where that is less."""
    window: int = 64
    """Steps between two checks of whether an orbit repeats."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if hasattr(value, "item"):  # scalar arrays become the numbers that they hold
                object.__setattr__(self, field.name, value.item())
        for name in ("max_steps", "max_period", "window"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("tolerance", "escape"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")


DEFAULT_SETTLING = Settling()
