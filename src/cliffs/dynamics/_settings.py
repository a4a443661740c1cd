"""Settings that travel together."""

from typing import Any


def frozen_settings(settings: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Keywords for `settle` as a hashable static argument; scalar arrays become the numbers that they hold.

    >>> import numpy as np
    >>> frozen_settings({"window": 8, "escape": np.float32(2.5)})
    (('escape', 2.5), ('window', 8))
    """
    return tuple(sorted((name, x.item() if hasattr(x, "item") else x) for name, x in settings.items()))
