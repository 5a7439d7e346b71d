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
    """One constraint, what is proven of the choice, and which better engine it excludes."""

    setting: str
    """A field of :class:`effx.specs.constraints.Constraints`."""
    objective: str
    limit: float
    """The setting's value."""
    threshold: float
    """What an engine's value must reach (accuracy) or not exceed."""
    value: float
    """The choice's."""
    bound: float | None
    """What the choice's value reaches or does not exceed, with the recommendation's confidence, adjusted; of
    ``max_drop`` the largest loss. None: a single reading, or the choice is the baseline."""
    admits: str | None
    """The engine that is better by the objective and is not proven to meet this constraint alone, by the
    least; None: the constraint does not bind."""
    needed: float | None
    """The limit, in the terms of ``limit``, that admits it: the engine is proven to meet it."""
    gain: float | None
    """Its objective divided by the choice's; None for a score, or where the choice's is 0."""
    difference: float | None
    """Of a score: its objective less the choice's, 0.01 is a point."""


@dataclass(frozen=True)
class NotProven:
    """An engine that is better than the choice and meets every constraint as measured, but not for
    certain.
    """

    engine: str
    result: str
    setting: str
    """The constraint that is not proven; of several, that which needs the most measurements."""
    limit: float
    """The setting's value."""
    value: float
    """The engine's, as measured; of ``max_drop`` the loss."""
    bound: float | None
    """What its value reaches or does not exceed with the same confidence, likewise; None: no interval."""
    more: int | None
    """How many further units would prove it, if its value remains what it is; None: not known."""
    unit: str | None
    """``rows``, ``rounds`` or ``windows``."""
    ratio: float | None
    """Its objective divided by the choice's; None for a score, where the choice's is 0, or without a
    choice."""
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
    confidence: float
    """With which the choice meets every constraint: in at most 1 - confidence of sessions is an engine chosen
    that misses one."""
    tested: int
    """Number of engines that could have been chosen on a test; the tests are adjusted for it."""
    not_proven: list[NotProven]
    """Engines that would be chosen instead, as measured; the best first."""
    runner_up: RunnerUp | None
    versus_baseline: Comparison | None
    """From the baseline to the choice: losses and gains; None if it is the baseline, or there is none."""
    p_choice: float
    """Share of joint resamplings in which the whole procedure, tests included, chooses it. As the resamplings
    are of the rows that chose it, another session chooses it less often where engines are close."""
    p_others: dict[str, float]
    """Share of those in which another engine is, the likeliest first; not those below 0.01."""
    p_none: float
    """Share of those in which no engine is proven to meet the constraints."""
    p_kept: float
    """Chance that the choice of one resampling, if any, meets the constraints in another: the certainty of
    the promise after selection."""
    candidates: int
    left_out: int = 0
    """Number of engines of the task and host that cannot be compared with the candidates; remarks say why."""
    optimism: float | None = None
    """By how much the choice's score, compared with the baseline's, is overestimated on average, because the
    rows that were scored also chose it: over joint resamplings, the score of each one's choice in it minus
    that on all rows (Efron 1983, "Estimating the error rate of a prediction rule"). None: no tests of scores
    decided."""
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
    """No engine of a task on a host is proven to meet the constraints."""

    task: str
    host: str
    metric: str
    candidates: int
    confidence: float
    engine: str
    """The best of those that meet them as measured; where there are none, that which misses them by the
    least."""
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
    not_proven: NotProven | None
    """Why it is not proven, where it meets every constraint as measured; None: it does not."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
