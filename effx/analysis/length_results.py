"""What is compared between lengths of the inputs.

For each technique and shape, batch size x tokens, compared with the task's unreduced fp32 engine:

    relative cost    engine's cost / baseline's, in the same rounds; of a throughput the inverse

Between lengths of one batch size:

    change           relative cost at the longest length / at the shortest: below 1 the technique saves more
                     of long inputs. Rounds of two lengths are independent, so the errors of both logarithms
                     add in squares: Welch's t, adjusted for all techniques and batch sizes (Holm 1979)
    rank agreement   Kendall's tau-b of the techniques, by cost
    choices          the cheapest technique that loses little, see :mod:`effx.analysis.technique_choices`;
                     each pair of lengths is compared among the techniques that both have

What a technique loses, it loses on the rows of the task, whatever shape costs are of: in total, and on each
quarter of the rows by their number of words (:mod:`effx.analysis.slices`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from effx.analysis.objectives import Interval
from effx.analysis.slices import SliceLoss
from effx.analysis.technique_choices import Choice, ChoicePair
from effx.stats import CONFIDENCE


@dataclass(frozen=True)
class TechniqueAtLength:
    """What one technique costs at one length."""

    technique: str
    cost: float | None
    """Relative to the baseline, less is better; None: not measured, and ``reason`` says why."""
    cost_interval: Interval
    """95 %; None: single readings, or too few rounds."""
    reason: str | None


@dataclass(frozen=True)
class LengthOutcome:
    """All techniques at one length."""

    length: int
    """Tokens of every row."""
    baseline_cost: float
    """In SI units."""
    techniques: tuple[TechniqueAtLength, ...]
    choice: Choice | None
    """Among the techniques that were measured at this length; None: there is nothing to choose from, as no
    loss can be tested."""


@dataclass(frozen=True)
class CostChange:
    """Whether the relative cost of a technique depends on the length."""

    technique: str
    lengths: tuple[int, int]
    """The shortest and the longest that it was measured at."""
    costs: tuple[float, float]
    """Relative to the baseline, at both."""
    ratio: float
    """The second relative cost divided by the first."""
    interval: Interval
    """95 %, of this ratio alone."""
    p: float | None
    """That both are the same; None: not tested."""
    p_adjusted: float | None
    """Holm's, over all techniques and batch sizes."""
    reason: str | None
    """Why it was not tested."""

    def cheaper_at(self, level: float = 1 - CONFIDENCE) -> int | None:
        """Return the length at which the technique is shown to be relatively cheaper; None: neither."""
        if self.p_adjusted is None or self.p_adjusted > level:
            return None
        return self.lengths[1] if self.ratio < 1 else self.lengths[0]


@dataclass(frozen=True)
class LengthAgreement:
    """Whether two lengths order the techniques alike by their cost."""

    lengths: tuple[int, int]
    techniques: int
    """That were measured at both."""
    tau: float | None
    """Kendall's tau-b; None: fewer than three techniques, or all cost the same."""
    interval: Interval
    """See :class:`effx.analysis.task_results.RankAgreement`."""


@dataclass(frozen=True)
class LengthChoices:
    """The choices at two lengths, among the techniques that both have."""

    at: tuple[Choice, Choice]
    compared: ChoicePair

    @property
    def techniques(self) -> frozenset[str]:
        """What was chosen from, the baseline among them."""
        return frozenset(self.at[0].costs)


@dataclass(frozen=True)
class BatchOutcome:
    """All lengths of one batch size."""

    batch: int
    lengths: tuple[LengthOutcome, ...]
    """The shortest first."""
    changes: tuple[CostChange, ...]
    agreements: tuple[LengthAgreement, ...]
    """For each pair of lengths."""
    choices: tuple[LengthChoices, ...]
    """For each pair of lengths that have a technique in common whose loss can be tested."""


@dataclass(frozen=True)
class TechniqueLoss:
    """What one technique loses on the rows of the task."""

    technique: str
    engine: str
    result: str
    score: float
    loss: float
    """In the task's metric; 0.01 is a point."""
    loss_interval: Interval
    """95 %; None: too few predictions differ, or they are not stored."""
    by_words: tuple[SliceLoss, ...]
    """On the rows between quartiles of the number of words, the shortest first; empty: not known."""


@dataclass(frozen=True)
class LengthDependence:
    """Techniques of one task and encoder, on one host and backend, at several lengths of the inputs."""

    task: str
    encoder: str
    host: str
    backend: str
    device: str
    objective: str
    """What cost is: one of :data:`effx.analysis.objectives.OF_WORKLOADS`."""
    metric: str
    n: int
    """Number of rows."""
    baseline: str
    result: str
    score: float
    """Of the baseline."""
    max_drop: float
    confidence: float
    batches: tuple[BatchOutcome, ...]
    losses: tuple[TechniqueLoss, ...]
    """Of every technique."""
    unit: str | None
    """Of the losses by the number of words, see :class:`effx.analysis.slices.SliceReport`; None: there are
    none."""
    shortest: str | None
    """Slice of ``by_words`` that has the shortest rows of all; None: their loss is not known."""
    longest: str | None
    """Likewise the longest."""
    pairs: int
    """Pairs of lengths whose choices are tested, of all batch sizes; coverages are adjusted for them."""
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as length-dependence.json has it."""
        value = asdict(self)
        for batch, outcome in zip(value["batches"], self.batches, strict=True):
            for entry, change in zip(batch["changes"], outcome.changes, strict=True):
                entry["cheaper_at"] = change.cheaper_at()
        for entry, loss in zip(value["losses"], self.losses, strict=True):
            for part, of_rows in zip(entry["by_words"], loss.by_words, strict=True):
                part["flagged"] = of_rows.flagged
        return value
