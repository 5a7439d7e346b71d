"""What is compared between tasks.

For each technique and task, compared with the task's unreduced fp32 engine:

    loss             baseline's score - engine's, on the same rows, in the task's own metric
    relative loss    loss / (baseline's score - score of the best constant answer): 0 nothing is lost, 1 all
                     that the model knows beyond a constant. It means the same for all metrics
    relative cost    engine's cost / baseline's, in the same rounds; of a throughput the inverse

Between tasks:

    rank agreement   Kendall's tau-b of the techniques, by loss and by cost
    interactions     loss on one task - loss on the other, for every technique and pair of tasks: a normal
                     test, adjusted for all of them (Holm 1979). In points where both tasks have the same
                     metric, else relative
    choices          the cheapest technique that loses little, see :mod:`effx.analysis.technique_choices`
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from effx.analysis.technique_choices import Choice, ChoicePair
from effx.stats import CONFIDENCE

Interval = tuple[float, float] | None
POINTS, RELATIVE = "points", "relative"
"""Scales on which losses of two tasks are compared."""


@dataclass(frozen=True)
class TechniqueOnTask:
    """One technique on one task."""

    technique: str
    engine: str
    result: str
    score: float
    loss: float
    """In the task's metric; 0.01 is a point."""
    loss_interval: Interval
    """95 %; None: too few predictions differ."""
    relative_loss: float | None
    """None: the baseline is not better than a constant answer in every resampling of rows."""
    relative_interval: Interval
    cost: float
    """Relative to the baseline; less is better."""
    cost_interval: Interval
    """95 %; None: single readings, or too few rounds."""

    def in_percent(self, *, relative: bool) -> tuple[float | None, Interval]:
        """Return the loss and its interval in points, or the relative loss in percent; for charts."""
        value, interval = (
            (self.relative_loss, self.relative_interval) if relative else (self.loss, self.loss_interval)
        )
        ends = None if interval is None else (100 * interval[0], 100 * interval[1])
        return (None if value is None else 100 * value), ends


@dataclass(frozen=True)
class TaskOutcome:
    """All techniques on one task."""

    task: str
    metric: str
    n: int
    """Number of rows."""
    baseline: str
    result: str
    score: float
    """Of the baseline."""
    constant_score: float
    """Of the best constant answer."""
    techniques: tuple[TechniqueOnTask, ...]
    choice: Choice


@dataclass(frozen=True)
class RankAgreement:
    """Whether two tasks order the techniques alike."""

    tasks: tuple[str, str]
    by: str
    """``loss`` or ``cost``."""
    techniques: int
    tau: float | None
    """Kendall's tau-b of what was measured; None: fewer than three techniques, or all are equal on a task."""
    interval: Interval
    """95 %: which pairs of techniques are surely ordered on both tasks, and the others either way; see
    :func:`effx.stats.ranks.kendall_interval`. Noise in what is ranked brings tau itself nearer to 0. None:
    there is no tau, or costs are single readings."""


@dataclass(frozen=True)
class Interaction:
    """Whether a technique loses more on one task than on another."""

    technique: str
    tasks: tuple[str, str]
    scale: str
    """:data:`POINTS` or :data:`RELATIVE`."""
    difference: float | None
    """Loss on the first task minus loss on the second; None: not tested."""
    interval: Interval
    """95 %, of this difference alone."""
    p: float | None
    p_adjusted: float | None
    """Holm's, over all techniques and pairs of tasks."""
    reason: str | None
    """Why it was not tested."""

    def loses_more_on(self, level: float = 1 - CONFIDENCE) -> str | None:
        """Return the task on which the technique is shown to lose more; None: neither."""
        if self.p_adjusted is None or self.difference is None or self.p_adjusted > level:
            return None
        return self.tasks[0] if self.difference > 0 else self.tasks[1]


@dataclass(frozen=True)
class TaskDependence:
    """Techniques of one encoder, on one host and backend, over several tasks."""

    encoder: str
    host: str
    backend: str
    device: str
    objective: str
    """What cost is: a key of :data:`effx.analysis.objectives.OBJECTIVES`."""
    max_drop: float
    confidence: float
    tasks: tuple[TaskOutcome, ...]
    agreements: tuple[RankAgreement, ...]
    interactions: tuple[Interaction, ...]
    choices: tuple[ChoicePair, ...]
    """For each pair of tasks."""
    remarks: tuple[str, ...]

    @property
    def same_metric(self) -> bool:
        """Whether losses in points mean the same on all tasks."""
        return len({task.metric for task in self.tasks}) == 1

    def to_json(self) -> dict[str, Any]:
        """Return it as task-dependence.json has it."""
        value = asdict(self)
        for entry, interaction in zip(value["interactions"], self.interactions, strict=True):
            entry["loses_more_on"] = interaction.loses_more_on()
        for task in value["tasks"]:
            task["choice"] = {"task": task["choice"].pop("where"), **task["choice"]}
        value["choices"] = [{"tasks": pair.pop("where"), **pair} for pair in value["choices"]]
        return value
