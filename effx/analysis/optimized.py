"""Which engine of a session to deploy: the cheapest that is proven to lose at most what is accepted.

Pure functions over results; the tests are those of :mod:`effx.analysis.fixed_sequence`. The answer states
what is proven, what was measured, and what is gained over the unreduced engine in fp32 and in the precision
of the reduced ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from effx.analysis import batches, cohorts, comparison, fixed_sequence, limits
from effx.analysis.fixed_sequence import Choosing, ChoosingRows, Outcome, State
from effx.analysis.techniques import technique
from effx.errors import UsageError
from effx.results import Failure, Run
from effx.specs.optimize import OptimizeSettings
from effx.specs.variants import Variant, parse
from effx.specs.workloads import SINGLE_STREAM, Workload, offline
from effx.stats import noninferiority
from effx.stats.intervals import Ratio
from effx.stats.metrics import METRICS

TIMES = ("latency", "throughput")
"""Objectives whose costs are seconds per query."""
_AGREEMENT = "{} on the unreduced model's own predictions"
_OF_AGREEMENT = (
    "the rows have no labels: scores say for how many different texts answers are those of the unreduced "
    "model, not how often they are right"
)


@dataclass(frozen=True)
class Gain:
    """How many times as cheap an engine is as another one.

    Of seconds, the geometric mean over rounds of the ratio of the two means.
    """

    value: float
    interval: tuple[float, float] | None
    """95 %, rounds in pairs; None: a single reading, or too few rounds."""

    @classmethod
    def of(cls, ratio: Ratio | comparison.LatencyRatio | comparison.EnergyRatio) -> Gain:
        """Return the gain that a ratio of costs is."""
        interval = None if ratio.interval is None else (1 / ratio.interval[1], 1 / ratio.interval[0])
        return cls(1 / ratio.value, interval)


@dataclass(frozen=True)
class Candidate:
    """An engine of the session."""

    engine: str
    result: str
    """Id of its result."""
    technique: str
    cost: float
    """By the objective: mean seconds per query, mean processor seconds or joules per example, or bytes."""
    score: float
    """The metric on all rows."""
    gain: Gain
    """Over the baseline."""
    gain_over_plain: Gain | None
    """Over the unreduced engine of the same precision; None: there is none."""
    tested: Outcome | None
    """None: the baseline."""

    def to_json(self) -> dict[str, Any]:
        return {
            **vars(self),
            "gain": vars(self.gain),
            "gain_over_plain": None if self.gain_over_plain is None else vars(self.gain_over_plain),
            "tested": None if self.tested is None else self.tested.to_json(),
        }


@dataclass(frozen=True)
class Unproven:
    """An engine that costs less than the answer and is not proven.

    If nothing is proven, the one that loses least in the worst case; otherwise the cheapest one whose
    measured loss is within the limit.
    """

    engine: str
    difference: float
    """Measured: its metric minus the baseline's."""
    loses_at_most: float | None
    """With the confidence, adjusted for the number of engines; None: too few predictions differ."""
    rows_needed: int | None
    """Rows that would prove it if the shares of rows stayed the same; None: no number would."""


@dataclass(frozen=True)
class OptimizedAnswer:
    """Which engine to deploy, and what is known of it."""

    task: str
    host: str
    metric: str
    objective: str
    workload: Workload
    energy_source: str | None
    """Where joules come from, if they are the objective: ``counter``, ``integrated`` or ``model``, an
    estimate; None: another objective."""
    max_drop: float
    confidence: float
    choosing_rows: int
    """Training rows that chose which engines are tested; 0: every cheaper engine is tested."""
    proving_rows: int
    """Validation rows."""
    baseline: str
    """The unreduced fp32 engine that costs least."""
    plain: str | None
    """The unreduced engine of another precision that costs least."""
    engine: str | None
    """None: no engine that costs less than the baseline is proven."""
    candidates: list[Candidate]
    """By rising cost; the baseline is one of them."""
    unproven: Unproven | None
    remarks: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> Candidate | None:
        """The engine to deploy."""
        return next((each for each in self.candidates if each.engine == self.engine), None)

    def to_json(self) -> dict[str, Any]:
        unproven = self.unproven
        return {
            **vars(self),
            "workload": self.workload.to_json(),
            "candidates": [candidate.to_json() for candidate in self.candidates],
            "unproven": None if unproven is None else vars(unproven),
        }


def answer(
    runs: Sequence[Run],
    settings: OptimizeSettings,
    workload: Workload,
    *,
    by_agreement: bool = False,
    choosing: ChoosingRows | None = None,
    overlap: int = 0,
    different_texts: int | None = None,
    failures: Sequence[Failure] = (),
) -> OptimizedAnswer:
    """Return which engine of a session to deploy.

    Args:
        runs: of one task on one host, with the unreduced fp32 engine among them.
        settings: the accepted loss and the objective.
        workload: in which cost and score are compared.
        by_agreement: whether the labels of the rows are the unreduced model's own predictions.
        choosing: rows that choose which engines are tested; None: every cheaper engine is.
        overlap: rows that prove whose texts are also those of training rows.
        different_texts: of the rows that prove, where many are repeated; None: few are.
        failures: engines of the session that could not be measured.

    Raises:
        UsageError: no unreduced fp32 engine, or none with a value of the objective.
    """
    remarks = [_OF_AGREEMENT] if by_agreement else []
    remarks += [
        f"{failure.name} is left out: it could not be measured: {failure.failure}" for failure in failures
    ]
    able = [run for run in runs if not run.withdrawn("quality")]
    remarks += [
        f"{run.name} is left out: its quality is unavailable: {run.withdrawn('quality')}"
        for run in runs
        if run not in able
    ]
    of_score = offline(workload.batch) if workload.scenario == "grid" and workload.batch > 1 else workload
    remarks += [
        f"{run.name} is left out: its answers depend on the other rows of a batch, and were not scored in "
        f"batches of {of_score.batch}"
        for run in able
        if run.scored_in(of_score) is None
    ]
    scored = [run for run in (run.scored_in(of_score) for run in able) if run is not None]
    costs = [cost(run, settings.objective, workload) for run in scored]
    known = [(run, value) for run, value in zip(scored, costs, strict=True) if value is not None]
    remarks += [
        f"{run.name} is left out: {settings.objective} was not measured"
        for run, value in zip(scored, costs, strict=True)
        if value is None
    ]
    if not known:
        raise UsageError(f"no engine has a value of {settings.objective}.", settings="objective")
    cost_of = {run.name: value for run, value in known}
    baseline = _cheapest(known, "fp32")
    if baseline is None:
        raise UsageError("there is no result of an unreduced fp32 engine to compare with.")
    plain = None if settings.variant == "fp32" else _cheapest(known, settings.variant, of_any_length=True)
    others = [run for run, _ in known if run is not baseline]
    cohorts.check([baseline, *others], energy=settings.objective == "energy")
    labels = cohorts.shared_labels([baseline, *others])
    remarks += rows_remarks(len(labels), overlap, different_texts)
    chosen_on = _choosing(choosing, baseline, others)
    metric = METRICS[baseline.quality.metric]
    tested = fixed_sequence.prove(
        metric,
        labels,
        baseline.quality.prediction_array,
        [run.quality.prediction_array for run in others],
        [cost_of[run.name] for run in others],
        cost_of[baseline.name],
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        choosing=chosen_on,
    )
    outcome = {run.name: each for run, each in zip(others, tested, strict=True)}
    candidates = [
        Candidate(
            engine=run.name,
            result=run.id,
            technique=technique(run).text or technique(run).name,
            cost=value,
            score=run.quality.value,
            gain=gain(baseline, run, settings.objective, workload),
            gain_over_plain=None if plain is None else gain(plain, run, settings.objective, workload),
            tested=outcome.get(run.name),
        )
        for run, value in sorted(known, key=lambda pair: pair[1])
    ]
    proven = [each for each in candidates if each.tested and each.tested.state is State.PROVEN]
    engine = proven[0].engine if proven else None
    chosen = next((run for run, _ in known if run.name == engine), None)
    if chosen is not None:
        remarks += [f"{chosen.name}: gate failed: {gate.label}" for gate in chosen.failed_gates]
        remarks += [*filter(None, [batches.remark(chosen)]), *cohorts.without_labels(chosen)]
    return OptimizedAnswer(
        task=baseline.task,
        host=baseline.host_id,
        metric=_AGREEMENT.format(baseline.quality.metric) if by_agreement else baseline.quality.described,
        objective=settings.objective,
        workload=workload,
        energy_source=_energy_source(baseline, workload) if settings.objective == "energy" else None,
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        choosing_rows=0 if chosen_on is None else len(chosen_on.labels),
        proving_rows=len(labels),
        baseline=baseline.name,
        plain=None if plain is None else plain.name,
        engine=engine,
        candidates=candidates,
        unproven=_unproven(baseline, others, outcome, settings, cost_of, proven[:1]),
        remarks=remarks,
    )


def rows_remarks(rows: int, overlap: int, different_texts: int | None) -> list[str]:
    """Return why the rows that prove may prove less than they seem to.

    Args:
        rows: how many there are.
        overlap: those whose texts are also those of training rows.
        different_texts: their number, where many texts are repeated; None: few are.
    """
    remarks = []
    if overlap:
        remarks.append(
            f"{overlap} of the {rows} validation rows are also training rows: engines may lose more on new "
            "ones"
        )
    if different_texts is not None:
        remarks.append(
            f"the {rows} validation rows have {different_texts} different texts, and the proof takes them as "
            "independent: that is right for rows that were drawn at random, and too good if all rows of a "
            "text were drawn together. If so, give each text once"
        )
    return remarks


def _choosing(rows: ChoosingRows | None, baseline: Run, others: Sequence[Run]) -> Choosing | None:
    """Return the rows that choose, if every engine has predictions for them."""
    if rows is None or any(run.name not in rows.predictions for run in (baseline, *others)):
        return None
    return Choosing(
        labels=rows.labels,
        baseline=rows.predictions[baseline.name],
        engines=[rows.predictions[run.name] for run in others],
        may_beat=[run.name in rows.unseen for run in others],
    )


def cost(run: Run, objective: str, workload: Workload) -> float | None:
    """Return what an engine costs by an objective of :data:`effx.specs.optimize.OBJECTIVES`.

    Seconds are the mean per query. A median of single rows would not see how slow the others are: with early
    exits it is that of the rows that leave early as soon as these are the majority.
    """
    if objective == "memory":
        return run.memory.host_peak_bytes
    if objective == "size":
        return run.engine.size_bytes
    result = run.workload(workload)
    if result is None:
        return None
    if objective in TIMES:
        return workload.batch / result.throughput_per_s
    if objective == "cpu_time":
        return result.cpu_s_per_example
    return run.energy_of(result).joules_per_example


def gain(a: Run, b: Run, objective: str, workload: Workload) -> Gain:
    """Return how many times as cheap ``b`` is as ``a``; both have a value of the objective."""
    if a is not b:
        compared = comparison.compare(a, b)
        ratio: comparison.LatencyRatio | comparison.EnergyRatio | None = None
        if objective in TIMES:
            of_workload = [
                each for each in compared.latency
                if (each.scenario, each.batch, each.length)
                == (workload.scenario, workload.batch, workload.length)
                and each.statistic != "p50"  # costs are means
            ]  # fmt: skip
            ratio = of_workload[0] if of_workload else None
        elif workload == SINGLE_STREAM:  # what comparisons have of these is of single queries
            ratio = {"cpu_time": compared.cpu_time, "energy": compared.energy}.get(objective)
        if ratio is not None:
            return Gain.of(ratio)
    of_a, of_b = cost(a, objective, workload), cost(b, objective, workload)
    assert of_a is not None and of_b is not None
    return Gain(of_a / of_b, None)


def _energy_source(run: Run, workload: Workload) -> str | None:
    result = run.workload(workload)
    return None if result is None else run.energy_of(result).source


def _cheapest(known: Sequence[tuple[Run, float]], variant: str, *, of_any_length: bool = False) -> Run | None:
    """Return the engine of the unreduced model that costs least in a variant, on any backend.

    ``of_any_length``: also with lengths to which inputs are padded.
    """

    def built(text: str) -> Variant:
        parsed = parse(text).built
        return replace(parsed, buckets=False, bucket_step=None) if of_any_length else parsed

    able = [
        (value, run.name, run)
        for run, value in known
        if technique(run).name == "full" and built(run.engine.variant) == built(variant)
    ]
    return min(able)[2] if able else None


def _unproven(
    baseline: Run,
    others: Sequence[Run],
    outcome: dict[str, Outcome],
    settings: OptimizeSettings,
    costs: dict[str, float],
    answer: Sequence[Candidate],
) -> Unproven | None:
    most = answer[0].cost if answer else costs[baseline.name]
    cheaper = [run for run in others if costs[run.name] < most]
    if answer:
        cheaper = [run for run in cheaper if outcome[run.name].difference > -settings.max_drop]
    if not cheaper:
        return None
    metric = METRICS[baseline.quality.metric]
    labels, before = baseline.quality.label_array, baseline.quality.prediction_array
    adjusted = 1 - (1 - settings.confidence) / len(cheaper)
    bounds = {}
    for run in cheaper:
        found = noninferiority.bounds(metric, labels, before, run.quality.prediction_array, adjusted)
        bounds[run.name] = -np.inf if found is None else found[0]
    if answer:
        best = min(cheaper, key=lambda run: costs[run.name])
    else:
        best = max(cheaper, key=lambda run: bounds[run.name])
    after, level = best.quality.prediction_array, settings.confidence
    alone = noninferiority.bounds(metric, labels, before, after, level)
    needed = limits.rows_to_prove(metric, labels, before, after, alone, settings.max_drop, level)
    least = bounds[best.name]
    return Unproven(
        engine=best.name,
        difference=outcome[best.name].difference,
        loses_at_most=None if least == -np.inf else float(max(-least, 0.0)),
        rows_needed=needed,
    )
