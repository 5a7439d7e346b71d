"""Does the best reduction depend on the length of the inputs? One task, at the shapes of a grid.

What is compared is in :mod:`effx.analysis.length_results`, which results may be in
:mod:`effx.analysis.length_runs`. Costs at one length are of the same rounds; rounds of different lengths ran
one after the other and are independent.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effx.analysis import (
    batches,
    cohorts,
    length_runs,
    objectives,
    orders,
    relative_costs,
    slices,
    technique_choices,
    technique_runs,
)
from effx.analysis.length_results import (
    BatchOutcome,
    CostChange,
    LengthAgreement,
    LengthDependence,
    LengthOutcome,
    TechniqueAtLength,
    TechniqueLoss,
)
from effx.analysis.length_runs import Selection
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.orders import Ranked
from effx.analysis.relative_costs import RelativeCosts
from effx.analysis.slices import SliceReport
from effx.analysis.technique_choices import Choice
from effx.analysis.technique_runs import TaskRuns
from effx.results import Run
from effx.row_slices import WORDS
from effx.specs import variants, workloads
from effx.specs.constraints import TechniqueComparisonSettings
from effx.specs.gates import GATES
from effx.stats import intervals, tests


def compare(
    runs: Sequence[Run],
    objective: str = "latency",
    settings: TechniqueComparisonSettings | None = None,
    *,
    tasks: Sequence[str] = (),
) -> list[LengthDependence]:
    """Compare techniques over lengths, for each task, encoder, host, backend and device with two lengths.

    Args:
        runs: results; of each engine the latest is used.
        objective: what is to be low, or high, apart from the loss: a cost of a workload.
        settings: what a technique may lose, and with which confidence; None: the defaults.
        tasks: only these; empty: all.

    Raises:
        UsageError: no lengths can be compared, or the objective is unknown, not of a workload, or not
            measured.
    """
    objectives.at(objective, workloads.SINGLE_STREAM)  # refuses others before the results are read
    selections = length_runs.select(runs, objective, tasks)
    settings = settings or TechniqueComparisonSettings()
    return [_compare(selection, objective, settings) for selection in selections]


@dataclass(frozen=True)
class _Able:
    """The engines of which a loss can be tested."""

    runs: TaskRuns
    losses: Mapping[str, np.ndarray]
    """By technique, in joint resamplings of rows [resamples]."""


def _compare(selection: Selection, objective: str, settings: TechniqueComparisonSettings) -> LengthDependence:
    one = selection.runs
    remarks = list(selection.remarks)
    able = _able(one, remarks)
    report = _by_words(one, remarks)
    measured = [
        _batch(selection, objective, batch, able, settings, pairs=_pairs(selection))
        for batch in selection.shapes
    ]
    quality = one.baseline.quality
    return LengthDependence(
        task=one.task,
        encoder=selection.place.encoder,
        host=selection.place.host,
        backend=selection.place.backend,
        device=selection.place.device,
        objective=objective,
        metric=quality.described,
        n=quality.n,
        baseline=one.baseline.name,
        result=one.baseline.id,
        score=quality.value,
        max_drop=settings.max_drop,
        confidence=settings.confidence,
        batches=_adjusted(measured),
        losses=tuple(_loss(one, title, report) for title in one.engines),
        unit=None if report is None else report.unit,
        remarks=(*remarks, *_doubts(selection, objective)),
    )


def _pairs(selection: Selection) -> int:
    """Return how many pairs of lengths there are, of all batch sizes."""
    return sum(len(lengths) * (len(lengths) - 1) // 2 for lengths in selection.shapes.values())


def _able(one: TaskRuns, remarks: list[str]) -> _Able | None:
    """Return the engines of which a loss can be tested; None: the baseline is not one, or none is."""
    if reason := technique_runs.unable(one.baseline):
        remarks.append(
            f"the cheapest technique within the limit is not stated: {one.baseline.name}: {reason}"
        )
        return None
    engines = {title: run for title, run in one.engines.items() if technique_runs.unable(run) is None}
    if left := [run.name for title, run in one.engines.items() if title not in engines]:
        remarks.append(f"{', '.join(left)} cannot be chosen: no loss can be tested")
    scores = OBJECTIVES["quality"].draws([one.baseline, *engines.values()])
    losses = dict(zip(engines, scores[0] - scores[1:], strict=True))
    return _Able(TaskRuns(one.task, one.baseline, engines), losses) if engines else None


def _by_words(one: TaskRuns, remarks: list[str]) -> SliceReport | None:
    """Return what techniques lose on the quarters of the rows by their number of words; None: not known."""
    if not slices.is_quick(len(one.engines), one.baseline):
        remarks.append("losses by the length of the rows take long to test here; see effx slices")
        return None
    report = slices.of_results(list(one.engines.values()), one.baseline, group=WORDS)
    if report is None:
        remarks.append(
            "losses by the length of the rows are not known: the results do not say how many words rows have"
        )
    return report


def _loss(one: TaskRuns, title: str, report: SliceReport | None) -> TechniqueLoss:
    run, baseline = one.engines[title], one.baseline
    known = cohorts.has_predictions(run) and cohorts.has_predictions(baseline)
    parts = () if report is None else tuple(each for each in report.losses if each.engine == run.name)
    return TechniqueLoss(
        technique=title,
        engine=run.name,
        result=run.id,
        score=run.quality.value,
        loss=baseline.quality.value - run.quality.value,
        loss_interval=technique_runs.loss_interval(baseline, run) if known else None,
        by_words=parts,
    )


@dataclass(frozen=True)
class _Costs:
    """Techniques that were measured at one length."""

    cost: Objective
    titles: tuple[str, ...]
    relative: RelativeCosts

    @classmethod
    def of(cls, one: TaskRuns, cost: Objective, titles: Sequence[str]) -> _Costs:
        """Return those of some techniques."""
        engines = [one.engines[title] for title in titles]
        return cls(cost, tuple(titles), relative_costs.measure(one.baseline, engines, cost))

    def ranked(self, name: str) -> Ranked:
        """Return what techniques are ordered by; resamplings are drawn by the name."""
        drawn = orders.independent(name, self.relative.draws)
        return Ranked(self.relative.values, drawn, self.relative.widened, self.relative.single_readings)


def _batch(
    selection: Selection,
    objective: str,
    batch: int,
    able: _Able | None,
    settings: TechniqueComparisonSettings,
    *,
    pairs: int,
) -> BatchOutcome:
    one, lengths = selection.runs, selection.shapes[batch]
    costs = [length_runs.cost_at(objective, batch, length) for length in lengths]
    found: list[_Costs] = []
    for length, cost in zip(lengths, costs, strict=True):
        titles = [title for title, run in one.engines.items() if cost.value(run)]
        if cost.uses_energy:
            members = [one.baseline, *(one.engines[title] for title in titles)]
            cohorts.check(members, energy=True, workload=workloads.grid(batch, length))
        found.append(_Costs.of(one, cost, titles))
    shared = [title for title in one.engines if all(title in each.titles for each in found)]
    own = [_choice(length, each, able, each.titles, settings)
           for length, each in zip(lengths, found, strict=True)]  # fmt: skip
    outcomes = [
        LengthOutcome(
            length=length,
            baseline_cost=float(cost.value(one.baseline) or 0.0),
            techniques=tuple(_at_length(one, title, each) for title in one.engines),
            choice=choice,
            shared_choice=choice
            if len(shared) == len(each.titles)
            else _choice(length, each, able, shared, settings),
        )
        for length, cost, each, choice in zip(lengths, costs, found, own, strict=True)
    ]
    both = list(itertools.combinations(range(len(lengths)), 2))
    return BatchOutcome(
        batch=batch,
        lengths=tuple(outcomes),
        changes=tuple(
            change for title in one.engines if (change := _change(title, lengths, found)) is not None
        ),
        agreements=tuple(
            _agreement(one, (lengths[first], lengths[last]), found[first], found[last], batch)
            for first, last in both
        ),
        choices=tuple(
            technique_choices.pair(a, b, pairs=pairs)
            for first, last in both
            if (a := outcomes[first].shared_choice) is not None
            and (b := outcomes[last].shared_choice) is not None
        ),
    )


def _at_length(one: TaskRuns, title: str, costs: _Costs) -> TechniqueAtLength:
    if title not in costs.titles:
        return TechniqueAtLength(title, None, None, costs.cost.missing(one.engines[title]))
    index = costs.titles.index(title)
    return TechniqueAtLength(title, costs.relative.values[index], costs.relative.intervals[index], None)


def _choice(
    length: int,
    costs: _Costs,
    able: _Able | None,
    among: Sequence[str],
    settings: TechniqueComparisonSettings,
) -> Choice | None:
    """Return the cheapest of some techniques within the limit; None: there are none to choose from."""
    titles = [] if able is None else [title for title in among if title in able.losses]
    if able is None or not titles:
        return None
    chosen_from = TaskRuns(
        able.runs.task, able.runs.baseline, {title: able.runs.engines[title] for title in titles}
    )
    losses = np.array([able.losses[title] for title in titles])
    relative = _Costs.of(chosen_from, costs.cost, titles).relative
    where = f"{length} tokens"
    return technique_choices.choose(where, chosen_from, costs.cost, losses, relative, settings)


def _change(title: str, lengths: Sequence[int], found: Sequence[_Costs]) -> CostChange | None:
    """Return the change of a relative cost, not yet adjusted; None: it was measured at one length."""
    measured = [index for index, each in enumerate(found) if title in each.titles]
    if len(measured) < length_runs.LEAST_LENGTHS:
        return None
    first, last = measured[0], measured[-1]
    both = [(each.relative, each.titles.index(title)) for each in (found[first], found[last])]
    (before, after), (of_before, of_after) = (
        [relative.values[index] for relative, index in both],
        [relative.errors[index] for relative, index in both],
    )
    ends = lengths[first], lengths[last]
    if of_before is None or of_after is None:
        reason = "costs are single readings, or of fewer than three rounds"
        return CostChange(title, ends, (before, after), after / before, None, None, None, reason)
    error, degrees = intervals.welch(of_before, of_after)
    log = float(np.log(after / before))
    ratio = intervals.ratio_of_logs(log, error, degrees)
    p = tests.student_two_sided(log, error, degrees)
    return CostChange(title, ends, (before, after), ratio.value, ratio.interval, p, None, None)


def _agreement(
    one: TaskRuns, lengths: tuple[int, int], first: _Costs, second: _Costs, batch: int
) -> LengthAgreement:
    titles = [title for title in first.titles if title in second.titles]
    ranked = [
        _Costs.of(one, each.cost, titles).ranked(f"{one.task} {batch}x{length}")
        for each, length in zip((first, second), lengths, strict=True)
    ]
    return LengthAgreement(lengths, len(titles), *orders.agreement(*ranked))


def _adjusted(found: Sequence[BatchOutcome]) -> tuple[BatchOutcome, ...]:
    p_values = [change.p for batch in found for change in batch.changes if change.p is not None]
    values = iter(tests.holm(p_values))
    return tuple(
        replace(
            batch,
            changes=tuple(
                change if change.p is None else replace(change, p_adjusted=next(values))
                for change in batch.changes
            ),
        )
        for batch in found
    )


def _doubts(selection: Selection, objective: str) -> list[str]:
    """Return what limits what the costs of the grid, and the losses beside them, say."""
    one = selection.runs
    runs = [one.baseline, *one.engines.values()]
    remarks = _failed_gates(selection, runs, objective)
    if adaptive := [run.name for run in one.engines.values() if _is_adaptive(run)]:
        remarks.append(
            "rows of the grid are tokens of several rows, one after the other: what exits and token "
            f"thresholds make of them may differ from real rows of that length: {', '.join(adaptive)}"
        )
    dependent = [run.name for run in runs if run.quality.batch_dependent]
    if dependent and max(selection.shapes) > 1:
        remarks.append(
            "losses are of single queries; these answer otherwise in batches, and shapes of the grid are not "
            f"scored: {', '.join(dependent)}"
        )
    unknown = [batches.remark(run) for run in runs if run.quality.batch_dependent is None]
    return [*remarks, *filter(None, unknown)]


def _failed_gates(selection: Selection, runs: Sequence[Run], objective: str) -> list[str]:
    """Return which gates of the costs failed: those of the shapes, and those of whole runs."""
    shapes = [
        workloads.grid(batch, length) for batch, lengths in selection.shapes.items() for length in lengths
    ]
    names: set[str | None] = {None, *(shape.name for shape in shapes)}
    concern = "energy" if objective == "energy" else "latency"
    failed: dict[str, set[str]] = {}
    for run in runs:
        for gate in run.failed_gates:
            spec = GATES.get(gate.name)
            if spec is not None and spec.concerns == concern and gate.workload in names:
                failed.setdefault(spec.label, set()).add(run.name)
    return [
        f"gate failed: {label}: {len(engines)} of {len(runs)} engines, whose relative costs may be those of "
        "the host's state"
        for label, engines in failed.items()
    ]


def _is_adaptive(run: Run) -> bool:
    """Whether what an engine computes depends on the row."""
    structure, variant = run.engine.structure, variants.parse(run.engine.variant)
    thresholds = structure is not None and bool(structure.token_thresholds)
    return variant.exits is not None or (variant.tokens and thresholds)
