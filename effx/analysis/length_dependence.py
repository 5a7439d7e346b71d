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
    LengthChoices,
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
from effx.row_slices import LEAST_ROWS, WORDS
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
        UsageError: no lengths can be compared, or none of a task in ``tasks``; or the objective is unknown,
            not of a workload, or not measured.
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
    by_words = _by_words(one, remarks)
    measured = [_costs_of_batch(selection, objective, batch, able, remarks) for batch in selection.shapes]
    pairs = sum(each.is_tested(*pair) for each in measured for pair in each.pairs())
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
        batches=_adjusted([_batch(each, settings, pairs=pairs) for each in measured]),
        losses=tuple(_loss(one, title, by_words.report) for title in one.engines),
        unit=None if by_words.report is None else by_words.report.unit,
        shortest=by_words.shortest,
        longest=by_words.longest,
        pairs=pairs,
        remarks=(*remarks, *_doubts(selection, objective)),
    )


def _able(one: TaskRuns, remarks: list[str]) -> _Able | None:
    """Return the engines of which a loss can be tested; None: the baseline is not one, or none is."""
    if reason := technique_runs.unable(one.baseline):
        remarks.append(
            f"the cheapest technique within the limit is not stated: {one.baseline.name}: {reason}"
        )
        return None
    unable = {run.name: reason for run in one.engines.values() if (reason := technique_runs.unable(run))}
    for reason in dict.fromkeys(unable.values()):
        names = ", ".join(name for name, why in unable.items() if why == reason)
        remarks.append(f"no loss can be tested, so that these are not chosen: {names}: {reason}")
    engines = {title: run for title, run in one.engines.items() if run.name not in unable}
    scores = OBJECTIVES["quality"].draws([one.baseline, *engines.values()])
    losses = dict(zip(engines, scores[0] - scores[1:], strict=True))
    return _Able(TaskRuns(one.task, one.baseline, engines), losses) if engines else None


@dataclass(frozen=True)
class _ByWords:
    """What techniques lose on the quarters of the rows by their number of words."""

    report: SliceReport | None = None
    """None: not known."""
    shortest: str | None = None
    """Title of the slice of the shortest rows; None: it is not in the report."""
    longest: str | None = None


def _by_words(one: TaskRuns, remarks: list[str]) -> _ByWords:
    """Return the losses by the number of words, or remark why they are not known."""
    if not slices.is_quick(len(one.engines), one.baseline):
        remarks.append("losses by the length of the rows take long to test here; see effx slices")
        return _ByWords()
    quarters = [part for each in one.baseline.quality.groups if each.group == WORDS for part in each.slices()]
    report = slices.of_results(list(one.engines.values()), one.baseline, group=WORDS)
    if report is None:
        known = map(cohorts.has_predictions, one.engines.values())
        if not (cohorts.has_predictions(one.baseline) and any(known)):
            why = "predictions were not shared"
        elif not quarters:
            why = "the results do not say how many words rows have"
        else:
            why = f"the quarters of the rows have fewer than {LEAST_ROWS} rows, or leave fewer"
        remarks.append(f"losses by the length of the rows are not known: {why}")
        return _ByWords()
    tested = {part.title for part in report.slices}
    first, last = (part.title if part.title in tested else None for part in (quarters[0], quarters[-1]))
    return _ByWords(report, first, last)


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

    def is_single(self, title: str) -> bool:
        """Whether nobody knows how far another reading of a technique's cost would be."""
        return self.relative.single[self.titles.index(title)]

    def single(self) -> list[str]:
        """Return those techniques; none where it is so of all: then choices are stated as measured."""
        found = [title for title in self.titles if self.is_single(title)]
        return found if len(found) < len(self.titles) else []

    def ranked(self, name: str) -> Ranked:
        """Return what techniques are ordered by; resamplings are drawn by the name."""
        drawn = orders.independent(name, self.relative.draws)
        return Ranked(self.relative.values, drawn, self.relative.widened, self.relative.single_readings)


@dataclass(frozen=True)
class _BatchCosts:
    """The techniques of one batch size."""

    one: TaskRuns
    batch: int
    lengths: tuple[int, ...]
    costs: tuple[_Costs, ...]
    """At each length."""
    able: _Able | None
    """Whose loss is known in batches of this size, and can be tested; None: none is."""

    def candidates(self, index: int) -> tuple[str, ...]:
        """Return the techniques that can be chosen at a length."""
        if self.able is None:
            return ()
        costs = self.costs[index]
        few = costs.single()
        return tuple(title for title in costs.titles if title in self.able.losses and title not in few)

    def shared(self, first: int, last: int) -> tuple[str, ...]:
        """Return the techniques that can be chosen at two lengths."""
        others = self.candidates(last)
        return tuple(title for title in self.candidates(first) if title in others)

    def pairs(self) -> list[tuple[int, int]]:
        """Return the pairs of lengths that have techniques in common that can be chosen."""
        every = itertools.combinations(range(len(self.lengths)), 2)
        return [pair for pair in every if self.shared(*pair)]

    def is_tested(self, first: int, last: int) -> bool:
        """Whether the choices at two lengths may be shown to differ: costs have errors."""
        titles = self.shared(first, last)
        return not any(costs.is_single(title) for costs in (self.costs[first], self.costs[last])
                       for title in titles)  # fmt: skip


def _costs_of_batch(
    selection: Selection, objective: str, batch: int, able: _Able | None, remarks: list[str]
) -> _BatchCosts:
    one, lengths = selection.runs, selection.shapes[batch]
    found: list[_Costs] = []
    for length in lengths:
        cost = length_runs.cost_at(objective, batch, length)
        found.append(_Costs.of(one, cost, [title for title, run in one.engines.items() if cost.value(run)]))
    if able is not None:
        few = {one.engines[title].name for each in found for title in each.single() if title in able.losses}
        if few:
            remarks.append(
                f"batch size {batch}: not chosen where costs are single readings, or of too few rounds: "
                f"{', '.join(sorted(few))}"
            )
    return _BatchCosts(one, batch, lengths, tuple(found), _scored(one, able, batch, lengths, remarks))


def _scored(
    one: TaskRuns, able: _Able | None, batch: int, lengths: Sequence[int], remarks: list[str]
) -> _Able | None:
    """Return the engines whose loss is known in batches of a size, and name the others in a remark.

    The answers of some depend on the other rows of a batch; shapes of the grid are not scored.
    """
    unscored = [
        run.name
        for run in (one.baseline, *one.engines.values())
        if any(run.quality_in(workloads.grid(batch, length)) is None for length in lengths)
    ]
    of_baseline = one.baseline.name in unscored
    if unscored:
        what = "no choice is stated" if of_baseline else "not chosen"
        remarks.append(
            f"batch size {batch}: {what}, as answers of these depend on the other rows of a batch and were "
            f"not scored in such batches: {', '.join(unscored)}"
        )
    if able is None or of_baseline:
        return None
    engines = {title: run for title, run in able.runs.engines.items() if run.name not in unscored}
    if not engines:
        return None
    runs = TaskRuns(able.runs.task, able.runs.baseline, engines)
    return _Able(runs, {title: able.losses[title] for title in engines})


def _batch(of: _BatchCosts, settings: TechniqueComparisonSettings, *, pairs: int) -> BatchOutcome:
    chosen: dict[tuple[int, tuple[str, ...]], Choice] = {}

    def choice(index: int, among: tuple[str, ...]) -> Choice:
        if (index, among) not in chosen:
            chosen[index, among] = _choice(of, index, among, settings)
        return chosen[index, among]

    found = []
    for first, last in of.pairs():
        both = of.shared(first, last)
        at = choice(first, both), choice(last, both)
        found.append(LengthChoices(at, technique_choices.pair(*at, pairs=max(1, pairs))))
    return BatchOutcome(
        batch=of.batch,
        lengths=tuple(
            LengthOutcome(
                length=length,
                baseline_cost=float(costs.cost.value(of.one.baseline) or 0.0),
                techniques=tuple(_at_length(of.one, title, costs) for title in of.one.engines),
                choice=choice(index, among) if (among := of.candidates(index)) else None,
            )
            for index, (length, costs) in enumerate(zip(of.lengths, of.costs, strict=True))
        ),
        changes=tuple(
            change for title in of.one.engines if (change := _change(title, of.lengths, of.costs)) is not None
        ),
        agreements=tuple(
            _agreement(of, first, last) for first, last in itertools.combinations(range(len(of.lengths)), 2)
        ),
        choices=tuple(found),
    )


def _at_length(one: TaskRuns, title: str, costs: _Costs) -> TechniqueAtLength:
    if title not in costs.titles:
        return TechniqueAtLength(title, None, None, costs.cost.missing(one.engines[title]))
    index = costs.titles.index(title)
    return TechniqueAtLength(title, costs.relative.values[index], costs.relative.intervals[index], None)


def _choice(
    of: _BatchCosts, index: int, titles: Sequence[str], settings: TechniqueComparisonSettings
) -> Choice:
    """Return the cheapest of some techniques within the limit, at a length."""
    assert of.able is not None  # else nothing can be chosen
    able, cost = of.able, of.costs[index].cost
    runs = TaskRuns(able.runs.task, able.runs.baseline, {title: able.runs.engines[title] for title in titles})
    losses = np.array([able.losses[title] for title in titles])
    relative = _Costs.of(runs, cost, titles).relative
    where = f"{of.lengths[index]} tokens"
    return technique_choices.choose(where, runs, cost, losses, relative, settings)


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
        reason = next(filter(None, (relative.reasons[index] for relative, index in both)), None)
        return CostChange(title, ends, (before, after), after / before, None, None, None, reason)
    error, degrees = intervals.welch(of_before, of_after)
    log = float(np.log(after / before))
    ratio = intervals.ratio_of_logs(log, error, degrees)
    p = tests.student_two_sided(log, error, degrees)
    return CostChange(title, ends, (before, after), ratio.value, ratio.interval, p, None, None)


def _agreement(of: _BatchCosts, first: int, last: int) -> LengthAgreement:
    lengths, both = (of.lengths[first], of.lengths[last]), (of.costs[first], of.costs[last])
    titles = [title for title in both[0].titles if title in both[1].titles]
    ranked = [
        _Costs.of(of.one, each.cost, titles).ranked(f"{of.one.task} {of.batch}x{length}")
        for each, length in zip(both, lengths, strict=True)
    ]
    return LengthAgreement(lengths, len(titles), *orders.agreement(*ranked))


def _adjusted(found: Sequence[BatchOutcome]) -> tuple[BatchOutcome, ...]:
    values = iter(tests.holm_of_known([change.p for batch in found for change in batch.changes]))
    return tuple(
        replace(batch, changes=tuple(replace(change, p_adjusted=next(values)) for change in batch.changes))
        for batch in found
    )


def _doubts(selection: Selection, objective: str) -> list[str]:
    """Return what limits what the costs of the grid, and the losses beside them, say."""
    one = selection.runs
    runs = [one.baseline, *one.engines.values()]
    remarks = _failed_gates(selection, runs)
    if adaptive := [run.name for run in one.engines.values() if _is_adaptive(run)]:
        remarks.append(
            "rows of the grid are tokens of several rows, one after the other: what exits and token "
            f"thresholds make of them may differ from real rows of that length: {', '.join(adaptive)}"
        )
    costs = [
        length_runs.cost_at(objective, batch, length)
        for batch, lengths in selection.shapes.items() for length in lengths
    ]  # fmt: skip
    remarks += relative_costs.few_rounds(costs, runs)
    unknown = [batches.remark(run) for run in runs if run.quality.batch_dependent is None]
    return [*remarks, *filter(None, unknown)]


def _failed_gates(selection: Selection, runs: Sequence[Run]) -> list[str]:
    """Return which gates of the costs failed: those of the shapes, and those of whole runs."""
    shapes = [
        workloads.grid(batch, length) for batch, lengths in selection.shapes.items() for length in lengths
    ]
    names: set[str | None] = {None, *(shape.name for shape in shapes)}
    failed: dict[str, set[str]] = {}
    for run in runs:
        for gate in run.failed_gates:
            spec = GATES.get(gate.name)
            if spec is not None and spec.concerns == "latency" and gate.workload in names:
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
