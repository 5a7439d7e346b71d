"""The answer to which engine to deploy, for one task on one host."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from effx.analysis.comparison import Comparison


@dataclass(frozen=True)
class Estimate:
    """One number of an engine."""

    value: float
    unit: str
    interval: tuple[float, float] | None
    """95 %; None where there is none."""


@dataclass(frozen=True)
class ConstraintOutcome:
    """One constraint, whether the choice meets it, and which better engine it excludes."""

    setting: str
    """A field of :class:`effx.specs.constraints.Constraints`."""
    objective: str
    limit: float
    """The setting's value."""
    threshold: float
    """What an engine's value must reach (accuracy) or not exceed."""
    value: float
    """The choice's."""
    p_met: float
    """Share of resamplings in which the choice meets it."""
    admits: str | None
    """The engine that is better by the objective and misses this constraint alone, by the least; None: the
    constraint does not bind."""
    needed: float | None
    """The limit, in the terms of ``limit``, that admits it."""
    gain: float | None
    """Its objective divided by the choice's; None for a score, or where the choice's is 0."""
    difference: float | None
    """Of a score: its objective less the choice's, 0.01 is a point."""


@dataclass(frozen=True)
class RunnerUp:
    """The engine that is the best if the choice is left out."""

    engine: str
    result: str
    ratio: float | None
    """Its objective divided by the choice's; None for a score, or where the choice's is 0."""
    difference: float | None
    """Of a score: its objective less the choice's, 0.01 is a point."""
    interval: tuple[float, float] | None
    """95 % of the ratio or difference, from joint resamplings; None where nothing varies in them."""
    baseline: str | None
    """The baseline of its constraints: another one if the choice is the baseline; None: it would be the only
    engine."""
    comparison: Comparison
    """From the choice to it."""


@dataclass(frozen=True)
class Recommendation:
    """The answer for one task on one host."""

    task: str
    host: str
    objective: str
    metric: str
    n: int
    energy_source: str
    engine: str
    made_elsewhere: str | None
    """The program that made the engine's graph; None: effx did."""
    result: str
    estimates: dict[str, Estimate]
    """By the names of ``OBJECTIVES``; without those not measured."""
    baseline: str | None
    """None: no other engine was measured."""
    constraints: list[ConstraintOutcome]
    runner_up: RunnerUp | None
    versus_baseline: Comparison | None
    """From the baseline to the choice: losses and gains; None if it is the baseline, or there is none."""
    p_choice: float
    """Share of joint resamplings in which it is the choice."""
    p_others: dict[str, float]
    """Share of those in which another engine is, the likeliest first; not those below 0.01."""
    p_none: float
    """Share of those in which no engine meets the constraints."""
    candidates: int
    remarks: list[str] = field(default_factory=list)

    @property
    def binding(self) -> list[ConstraintOutcome]:
        """The constraints that exclude a better engine, the one that is missed by the least first."""
        binding = [outcome for outcome in self.constraints if outcome.admits is not None]
        return sorted(
            binding,
            key=lambda outcome: abs((outcome.needed or 0.0) - outcome.limit) / abs(outcome.threshold or 1.0),
        )

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["binding"] = [outcome.setting for outcome in self.binding]
        if self.runner_up is not None:
            value["runner_up"]["comparison"] = self.runner_up.comparison.to_json()
        if self.versus_baseline is not None:
            value["versus_baseline"] = self.versus_baseline.to_json()
        return value


@dataclass(frozen=True)
class Unmet:
    """No engine of a task on a host meets the constraints."""

    task: str
    host: str
    metric: str
    candidates: int
    engine: str
    """The one that misses them by the least."""
    setting: str
    """The constraint that it misses by the most."""
    objective: str
    limit: float
    """The setting's value."""
    threshold: float
    """What an engine's value must reach (accuracy) or not exceed."""
    value: float | None
    """The engine's; None: not measured."""
    baseline: str | None
    """The engine relative to which the threshold is set; None: it is absolute."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
