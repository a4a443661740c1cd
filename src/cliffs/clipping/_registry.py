"""The one list of strategies: a new strategy is one more entry here.

The tables of the docs, the tests, the benchmark of their cost and the comparison on a task all read it.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import optax

from cliffs.clipping import (
    _adaptive,
    _entries,
    _error_feedback,
    _group_band,
    _leaf_averages,
    _norms,
    _recurrent_matrix,
    _spectral,
    _spectral_clip,
    _stable_spam,
    _units,
    _update_rms,
)


@dataclasses.dataclass(frozen=True)
class StrategyInfo:
    """What tables, tests and experiments need to know about one strategy."""

    factory: Callable[..., optax.GradientTransformationExtraArgs]
    rule: str
    """The rule in a few words, for tables."""
    memory: str
    """What the state holds besides a count of the updates."""
    keeps_direction: bool | None
    """Whether the whole gradient keeps its direction; None for rules that act on the matrix after the update."""
    thresholds: tuple[float, float, float]
    """Three values of the first argument, from tight to loose, for comparisons on a task."""
    settings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Arguments under which a rule with a warm-up acts from its second step on."""
    bounds: Literal["global", "leaf"] | None = None
    """Whose norm stays below the first argument (with these settings): the whole gradient's, or each leaf's."""
    threshold_bounds: tuple[str, ...] = ()
    """Further arguments that get the value of the threshold in `make`, as fixed limits."""
    exact: bool = True
    """Whether a gradient below the threshold passes unchanged, to the bit."""
    idempotent: bool = True
    """Whether clipping twice is clipping once."""
    sets_norm: bool = False
    """Whether the first argument is the norm that a gradient is brought to from either side, not a limit."""
    copies: int = 0
    """How many arrays of each parameter's shape the state holds."""
    as_quantile: bool = False
    """Whether the first argument lies in [0, 1]: `make` then maps a threshold t there, t / (1 + t)."""
    schedules: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """All arguments that may be schedules, each with two values to test."""

    @property
    def name(self) -> str:
        """The name under which `cliffs.clipping` exports it."""
        return self.factory.__name__

    @property
    def argument(self) -> str:
        """The name of its first argument, the threshold."""
        return next(iter(inspect.signature(self.factory).parameters))

    @property
    def on_matrix(self) -> bool:
        """Whether it acts on the parameters after the update, so that it goes last in a chain."""
        return self.keeps_direction is None

    def make(self, threshold: Any, **kwargs: object) -> optax.GradientTransformationExtraArgs:
        """The strategy with a threshold (traced or not, or a schedule) and with `settings`.

        >>> STRATEGIES["clip_by_norm_quantile"].make(1.0).init(0.0).norms.shape
        (4,)
        """
        if self.as_quantile:
            threshold = threshold / (1 + threshold)
        limits = dict.fromkeys(self.threshold_bounds, threshold)
        return self.factory(threshold, **{**self.settings, **limits, **kwargs})


_INFOS = (
    StrategyInfo(_entries.clip, "entry by entry", "none", False, (0.01, 0.1, 1.0), schedules={"max_delta": (0.5, 0.2)}),
    StrategyInfo(
        _norms.clip_by_global_norm,
        "norm of the whole gradient",
        "none",
        True,
        (0.1, 1.0, 10.0),
        bounds="global",
        schedules={"max_norm": (0.5, 0.2)},
    ),
    StrategyInfo(
        _norms.clip_by_block_rms,
        "root mean square per array",
        "none",
        False,
        (0.01, 0.1, 1.0),
        schedules={"threshold": (0.5, 0.2)},
    ),
    StrategyInfo(
        _units.adaptive_grad_clip,
        "per unit, relative to its weights (AGC)",
        "none",
        False,
        (0.01, 0.1, 1.0),
        schedules={"clipping": (0.5, 0.2), "eps": (1.0, 3.0)},
    ),
    StrategyInfo(
        _norms.clip_by_leaf_norm,
        "norm per array",
        "none",
        False,
        (0.1, 1.0, 10.0),
        bounds="leaf",
        schedules={"max_norm": (0.5, 0.2)},
    ),
    StrategyInfo(
        _norms.clip_by_group_norm,
        "norm per layer or any group",
        "none",
        False,
        (0.1, 1.0, 10.0),
        bounds="leaf",
        schedules={"max_norm": (0.5, 0.2)},
    ),
    StrategyInfo(
        _norms.soft_clip_by_global_norm,
        "g / (1 + norm / max_norm)",
        "none",
        True,
        (0.1, 1.0, 10.0),
        bounds="global",
        exact=False,
        idempotent=False,
        schedules={"max_norm": (0.5, 0.2)},
    ),
    StrategyInfo(
        _adaptive.clip_by_ema_norm,
        "multiple of the norm's moving average",
        "1 number",
        True,
        (1.1, 3.0, 10.0),
        idempotent=False,
        schedules={"multiplier": (0.5, 0.2), "decay": (0.9, 0.3)},
    ),
    StrategyInfo(
        _adaptive.clip_by_norm_quantile,
        "quantile of past norms (AutoClip)",
        "buffer",
        True,
        (0.1, 0.5, 0.9),
        settings={"buffer_size": 4},
        exact=False,
        idempotent=False,
        as_quantile=True,
        schedules={"quantile": (0.5, 0.2)},
    ),
    StrategyInfo(
        _adaptive.clip_by_quantile_tracker,
        "limit that follows a quantile of the norms",
        "1 number",
        True,
        (0.1, 0.5, 0.9),
        settings={"start": 1.0},
        exact=False,
        idempotent=False,
        as_quantile=True,
        schedules={"quantile": (0.5, 0.2), "rate": (0.2, 1.0)},
    ),
    StrategyInfo(
        _adaptive.clip_by_zscore,
        "outliers of the norm (ZClip)",
        "2 numbers",
        True,
        (1.0, 2.5, 5.0),
        settings={"warmup": 1},
        bounds="global",
        threshold_bounds=("max_norm",),
        idempotent=False,
        schedules={
            "z_threshold": (2.0, 0.1),
            "decay": (0.9, 0.3),
            "warmup": (1, 2),
            "max_norm": (2.0, 1.5),
            "clip_factor": (1.0, 0.7),
        },
    ),
    StrategyInfo(
        _leaf_averages.clip_by_ema_leaf_norm,
        "per array, multiple of its moving average (AdaGC)",
        "1 number per array",
        False,
        (1.05, 2.0, 5.0),
        settings={"warmup": 1},
        threshold_bounds=("max_norm",),
        idempotent=False,
        schedules={"multiplier": (1.1, 0.4), "decay": (0.9, 0.3), "warmup": (1, 2), "max_norm": (1.0, 0.7)},
    ),
    StrategyInfo(
        _entries.clip_spikes,
        "entry by entry, against its second moment (SPAM)",
        "1 number per entry",
        False,
        (50.0, 500.0, 5000.0),
        settings={"warmup": 1},
        idempotent=False,
        copies=1,
        schedules={"theta": (2.0, 0.5), "decay": (0.9, 0.3), "warmup": (1, 2)},
    ),
    StrategyInfo(
        _stable_spam.clip_by_ema_max,
        "entry by entry, against the average largest entry (AdaClip)",
        "2 numbers per array",
        False,
        (0.5, 1.0, 3.0),
        idempotent=False,
        schedules={"multiplier": (0.5, 0.2), "decay": (0.9, 0.3)},
    ),
    StrategyInfo(
        _stable_spam.adaptive_grad_norm,
        "steady norm per array (AdaGN)",
        "4 numbers per array",
        False,
        (0.01, 0.1, 1.0),
        exact=False,
        idempotent=False,
        sets_norm=True,
        schedules={"norm": (0.5, 0.2), "b1": (0.7, 0.2), "b2": (0.9, 0.5), "eps": (0.1, 0.3)},
    ),
    StrategyInfo(
        _group_band.clip_by_group_band,
        "band around the average norm of a group (AGGC)",
        "2 numbers per group",
        False,
        (1.05, 1.5, 3.0),
        idempotent=False,
        schedules={
            "high": (1.5, 0.7),
            "low": (0.5, 0.9),
            "decay": (0.9, 0.3),
            "min_norm": (0.1, 1.0),
            "least_factor": (0.2, 0.8),
            "most_factor": (2.0, 1.1),
        },
    ),
    StrategyInfo(
        _update_rms.clip_update_rms,
        "root mean square of the update per array (StableAdamW)",
        "1 number per entry",
        False,
        (0.3, 1.0, 3.0),
        idempotent=False,
        copies=1,
        schedules={"max_rms": (0.5, 0.2), "b2": (0.9, 0.3), "eps": (1e-3, 1.0)},
    ),
    StrategyInfo(
        _error_feedback.clip_with_error_feedback,
        "difference to an estimate of the gradient (Clip21)",
        "1 or 2 numbers per entry",
        False,
        (0.01, 0.1, 1.0),
        exact=False,
        idempotent=False,
        copies=1,
        schedules={"max_norm": (0.5, 0.2), "b1": (1.0, 0.3), "b2": (1.0, 0.4)},
    ),
    StrategyInfo(
        _spectral_clip.clip_by_spectral_norm,
        "singular values of each matrix (SPECTRA)",
        "none, or 2 numbers per array",
        False,
        (0.1, 1.0, 10.0),
        schedules={"max_norm": (0.5, 0.2)},
    ),
    StrategyInfo(
        _recurrent_matrix.clip_or_shrink,
        "norm; shrinks the recurrent matrix when broken (2013 code)",
        "none",
        True,
        (0.1, 1.0, 10.0),
        settings={"limit": math.inf},
        bounds="global",
        schedules={"max_norm": (0.5, 0.2), "shrink": (0.02, 0.01), "limit": (1e10, 2.0)},
    ),
    StrategyInfo(
        _spectral.spectral_normalize,
        "largest singular value of the matrix, after the update",
        "basis",
        None,
        (1.0, 1.5, 2.5),
        schedules={"max_norm": (0.5, 0.2), "num_iterations": (1, 3)},
    ),
    StrategyInfo(
        _spectral.project_spectral_radius,
        "spectral radius of the matrix, after the update",
        "basis",
        None,
        (0.9, 1.0, 1.2),
        schedules={"max_radius": (0.5, 0.2), "num_iterations": (1, 3)},
    ),
)
STRATEGIES: Mapping[str, StrategyInfo] = MappingProxyType({info.name: info for info in _INFOS})
"""Every strategy by its name, in the order of the tables."""


@functools.cache
def strategies_table() -> str:
    """The table of all strategies, in markdown, as the docs have it.

    >>> print("\\n".join(strategies_table().splitlines()[:3]))
    | strategy | rule | keeps the direction | memory |
    | --- | --- | --- | --- |
    | `clip` | entry by entry | no | none |
    """
    words = {True: "yes", False: "no", None: "-"}
    rows = ["| strategy | rule | keeps the direction | memory |", "| --- | --- | --- | --- |"]
    rows += [f"| `{s.name}` | {s.rule} | {words[s.keeps_direction]} | {s.memory} |" for s in STRATEGIES.values()]
    return "\n".join(rows)
