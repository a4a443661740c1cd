"""Ways to end runs that will not win: callables for `sweep(..., prune=...)`.

A sweep calls `prune(evaluations, active) -> keep` after every evaluation: `evaluations` maps names to arrays
`[runs, evaluations so far, ...]`, `active` is bool `[runs]`, and so is `keep`. Active runs that are not kept end there.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class SuccessiveHalving:
    """See `successive_halving`, which makes it."""

    metric: str
    eta: float
    first: int
    rungs: tuple[int, ...] | None
    survivors: int
    largest: bool

    def __call__(self, evaluations: Mapping[str, PyTree], active: np.ndarray) -> np.ndarray:
        """Which runs go on: the best `runs / eta^(k + 1)` at rung k, all between the rungs."""
        if self.metric not in evaluations:
            raise ValueError(f"metric must be one of the evaluations {sorted(evaluations)}, got {self.metric!r}")
        values = np.ma.filled(np.ma.asarray(evaluations[self.metric], float), np.nan)
        if values.ndim != 2:
            raise ValueError(f"metric must be one number a run, {self.metric!r} has the shape {values.shape[2:]}")
        rung = self._rung(values.shape[1])
        if rung is None:
            return active
        # Runs that have diverged count among those that leave.
        quota = max(self.survivors, math.ceil(len(active) / self.eta ** (rung + 1) - 1e-9))
        now = -values[:, -1] if self.largest else values[:, -1]
        worst_last = np.where(active, np.where(np.isnan(now), np.inf, now), np.nan)
        order = np.argsort(worst_last, kind="stable")  # NaN, the runs that are not active, come last
        keep = np.zeros_like(active)
        keep[order[:quota]] = True
        return keep & active

    def _rung(self, evaluations: int) -> int | None:
        if self.rungs is not None:
            return self.rungs.index(evaluations) if evaluations in self.rungs else None
        rung = round(math.log(evaluations / self.first, self.eta)) if evaluations >= self.first else -1
        return rung if rung >= 0 and round(self.first * self.eta**rung) == evaluations else None


def successive_halving(
    metric: str,
    eta: float = 3,
    *,
    first: int = 1,
    rungs: Sequence[int] | None = None,
    survivors: int = 1,
    largest: bool = False,
) -> SuccessiveHalving:
    """Keep the best `1 / eta` of the runs at each rung.

    After evaluation number `first * eta^k` (k = 0, 1, ...) the best `runs / eta^(k + 1)` runs go on, where `runs` is
    the size of the grid: every rung then costs about as much as the first.

    **Arguments**

    - `metric`: the evaluation that is compared, one number a run; its last value counts, NaN is worst.
    - `eta`: above 1; 2 halves, 3 keeps a third.
    - `first`: the number of the evaluation at the first rung, counted from 1.
    - `rungs`: the numbers of the evaluations instead, rising: a run that learns late is judged late.
    - `survivors`: no rung leaves fewer.
    - `largest`: whether large values are good.

    **Returns** a callable for `sweep(..., prune=...)`.

    **Raises** `ValueError` for numbers out of range; when called, for a metric that is no evaluation.

    Source: Jamieson & Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter optimization".

    >>> rule = successive_halving("error", eta=3)
    >>> rule({"error": np.array([[0.3], [0.1], [0.2]])}, np.ones(3, bool)).tolist()
    [False, True, False]
    """
    if not isinstance(metric, str):
        kind = type(metric).__name__
        raise ValueError(f"metric must be the name of an evaluation, got a {kind}: prune=successive_halving('error')")
    if not isinstance(eta, (int, float, np.number)) or not (math.isfinite(eta) and eta > 1):
        raise ValueError(f"eta must be above 1, got {eta!r}")
    for name, number in (("first", first), ("survivors", survivors)):
        if not isinstance(number, (int, np.integer)) or number < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {number!r}")
    chosen: tuple[int, ...] | None = None
    if rungs is not None:
        whole = isinstance(rungs, Iterable) and all(isinstance(r, (int, np.integer)) for r in rungs)
        chosen = tuple(map(int, rungs)) if whole else ()
        if not chosen or chosen[0] < 1 or any(a >= b for a, b in itertools.pairwise(chosen)):
            raise ValueError(f"rungs must be rising numbers of evaluations, counted from 1, got {rungs!r}")
    return SuccessiveHalving(metric, eta, int(first), chosen, int(survivors), largest)
