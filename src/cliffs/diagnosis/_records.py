"""What a diagnosis is made of."""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np

Evidence: TypeAlias = Mapping[str, float | int | str | list[int]]


class Finding(NamedTuple):
    """One line of a diagnosis."""

    name: str
    """`"diverged"`, `"non-finite"`, `"zero gradients"`, `"loss grew"`, `"clipped norms"`, `"vanishing"`,
    `"cliff spikes"`, `"slow explosion"`, `"sudden explosion"`, `"oscillation near critical"`, `"threshold too low"`,
    `"threshold never binds"`, `"too short to tell"`, or `"healthy"`."""
    evidence: Evidence
    """Steps (of the log where it has them, else indices into the history) and ratios that speak for it."""
    advice: str


class Threshold(NamedTuple):
    """A suggested clipping threshold, from the statistics of the norm."""

    suggested: float
    low: float
    """Half the average norm."""
    high: float
    """Ten times the average norm."""
    mean: float
    """The average norm without the start of training and without the largest 1 % of the rest."""
    median: float
    clip_fraction: float
    """The share of the finite, positive norms above `suggested`."""


class Diagnosis(NamedTuple):
    """What `diagnose` returns."""

    findings: list[Finding]
    threshold: Threshold | None
    """None where fewer than 20 norms are finite and positive, where the norms look clipped, and where the loss grew or
    the run exploded at its start."""
    nonfinite_steps: np.ndarray
    notes: tuple[str, ...] = ()
    """What was left out, and what this history is too short or too sparse to show."""

    def names(self) -> list[str]:
        """The names of all findings."""
        return [finding.name for finding in self.findings]

    def __str__(self) -> str:
        lines = []
        for finding in self.findings:
            evidence = ", ".join(f"{k} {_brief(v)}" for k, v in finding.evidence.items())
            lines.append(f"{finding.name}: {finding.advice} [{evidence}]")
        if self.threshold:
            t = self.threshold
            lines.append(
                f"threshold: {t.suggested:.3g} (range {t.low:.3g} .. {t.high:.3g}) clips {t.clip_fraction:.1%}"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def _brief(value: float | int | str | list[int]) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value[:5])[:-1] + ", ...]" if isinstance(value, list) and len(value) > 5 else str(value)
