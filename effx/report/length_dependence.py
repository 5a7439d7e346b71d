"""Tables, sentences and a section on whether the best reduction depends on the length of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx.analysis import cohorts
from effx.analysis import length_dependence as length_comparison
from effx.analysis.length_results import (
    BatchOutcome,
    CostChange,
    LengthAgreement,
    LengthDependence,
    LengthOutcome,
    TechniqueLoss,
)
from effx.analysis.length_runs import LEAST_LENGTHS
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.slices import ABSOLUTE_ERROR, LEVEL, SliceLoss
from effx.analysis.technique_choices import BASELINE, Choice, ChoicePair
from effx.analysis.technique_runs import Place
from effx.formatting import confidence, fixed, p_value, percent
from effx.report import choice_sentences
from effx.report import studies as studies_of
from effx.report.choice_sentences import LENGTH
from effx.report.sections import Section, SectionAxis, SectionChart, SectionPoint, SectionSeries
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.report.studies import around, counted, ends, place
from effx.results import Run
from effx.row_slices import WORDS
from effx.stats import CONFIDENCE

JSON = "length-dependence.json"
FIGURE = "lengths-curves"
_NAMED = 5
"""Techniques that a sentence names."""
_MAX_SERIES = 24
"""Of a chart: those that depend most on the length."""


def write(studies: Sequence[LengthDependence], out: Path) -> None:
    """Write the tables (CSV, Markdown, LaTeX), the figure and length-dependence.json.

    Args:
        studies: with several, the tables and figure of each are in a subfolder.
        out: folder.
    """
    from effx.report import length_figures

    studies_of.write(
        studies, out, sheets=sheets, draw=lambda study, folder: length_figures.draw(study, folder / FIGURE),
        name=lambda study: f"{study.task}-{studies_of.folder_name(study)}", content=(JSON, to_json(studies)),
    )  # fmt: skip


def of_report(runs: Sequence[Run]) -> list[LengthDependence]:
    """Return the comparisons of lengths that a report shows, by latency.

    What is left out although several lengths were measured is said on standard error.
    """
    latest = cohorts.latest(runs)
    places = {(run.task, Place.of(run)) for run in latest if _several_lengths(run)}
    able = [run for run in latest if (run.task, Place.of(run)) in places]
    if len(able) < 2:
        return []
    return studies_of.of_report(
        "lengths", able, length_comparison.compare, section, to_json, objectives=("latency",)
    )


def _several_lengths(run: Run) -> bool:
    shapes = {(each.workload.batch, each.workload.length) for each in run.workloads
              if each.workload.scenario == "grid"}  # fmt: skip
    batches = [batch for batch, _ in shapes]
    return any(batches.count(batch) >= LEAST_LENGTHS for batch in batches)


def to_json(studies: Sequence[LengthDependence]) -> dict[str, Any]:
    """Return what length-dependence.json has."""
    return {"schema": 1, "studies": [{**study.to_json(), "sentences": lines(study)} for study in studies]}


def sheets(study: LengthDependence) -> list[Sheet]:
    """Return all tables; that of the quarters of the rows only where these are known."""
    by_words = [losses(study)] if any(each.by_words for each in study.losses) else []
    return [overview(study), costs(study), changes(study), choices(study), agreements(study), *by_words]


def overview(study: LengthDependence) -> Sheet:
    """Return a row for each technique: what it loses, on short and long rows, and its cost at every shape."""
    shapes = [(batch, length) for batch in study.batches for length in batch.lengths]
    extremes = [(name, title) for name, title in (("shortest", study.shortest), ("longest", study.longest))
                if title is not None]  # fmt: skip
    columns = (
        SheetColumn("technique"), SheetColumn("score"), SheetColumn("loss", signed=True),
        *(SheetColumn(f"loss, {name} rows", signed=True) for name, _ in extremes),
        *(SheetColumn(f"{batch.batch}x{length.length}", 3) for batch, length in shapes),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = []
    for index, each in enumerate(study.losses):
        of_part = {part.slice: part.loss for part in each.by_words}
        rows.append(
            (each.technique, each.score, each.loss, *(of_part.get(title) for _, title in extremes),
             *(length.techniques[index].cost for _, length in shapes))
        )  # fmt: skip
    parts = ""
    if extremes:
        scale = ", as mean absolute errors" if study.unit == ABSOLUTE_ERROR else ""
        named = "; ".join(f"{name} rows: {_words(title)}" for name, title in extremes)
        parts = f" {named[0].upper()}{named[1:]}{scale}."
    note = f"{_note(study)} Columns BxL: batch size x tokens; –: not measured.{parts}"
    return Sheet(
        "lengths-overview", f"Loss, and cost by length ({_title(study)})", columns, tuple(rows), note
    )


def costs(study: LengthDependence) -> Sheet:
    """Return a row for each technique, batch size and length: the relative cost with its interval."""
    columns = (
        SheetColumn("technique"), SheetColumn("batch size"), SheetColumn("tokens"), SheetColumn("cost", 3),
        SheetColumn("cost low", 3), SheetColumn("cost high", 3), SheetColumn("not measured"),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = [
        (each.technique, batch.batch, length.length, each.cost, *ends(each.cost_interval), each.reason or "")
        for index in range(len(study.losses))
        for batch in study.batches
        for length in batch.lengths
        for each in [length.techniques[index]]
    ]
    return Sheet("lengths-costs", f"Relative cost by length ({_title(study)})", columns, tuple(rows),
                 _note(study))  # fmt: skip


def changes(study: LengthDependence) -> Sheet:
    """Return a row for each technique and batch size, those whose cost is shown to change first."""
    columns = (
        SheetColumn("technique"), SheetColumn("batch size"), SheetColumn("shortest"), SheetColumn("longest"),
        SheetColumn("cost at shortest", 3), SheetColumn("cost at longest", 3), SheetColumn("ratio", 3),
        SheetColumn("low", 3), SheetColumn("high", 3), SheetColumn("p"), SheetColumn("p adjusted"),
        SheetColumn("relatively cheaper"),
    )  # fmt: skip
    found = [(batch.batch, each) for batch in study.batches for each in batch.changes]
    found.sort(key=lambda pair: 2.0 if pair[1].p_adjusted is None else pair[1].p_adjusted)
    rows: list[tuple[SheetCell, ...]] = [
        (each.technique, batch, *each.lengths, *each.costs, each.ratio, *ends(each.interval), each.p,
         each.p_adjusted, _cheaper(each))
        for batch, each in found
    ]  # fmt: skip
    note = (
        "Relative cost at the longest length divided by that at the shortest: below 1, the technique saves "
        "more of long inputs. p is adjusted for all techniques and batch sizes (Holm). What is not shown to "
        "change is not shown to be equal."
    )
    return Sheet("lengths-changes", "Does the relative cost depend on the length", columns, tuple(rows), note)


def choices(study: LengthDependence) -> Sheet:
    """Return a row for each shape: the cheapest technique within the limit, as measured and as proven."""
    columns = (
        SheetColumn("batch size"), SheetColumn("tokens"), SheetColumn("measured choice"),
        SheetColumn("cost", 3), SheetColumn("loss", signed=True), SheetColumn("resamplings", 2, percent=True),
        SheetColumn("proven choice"), SheetColumn("proven cost", 3),
        SheetColumn("proven resamplings", 2, percent=True),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = [
        (batch.batch, length.length, choice.measured, choice.measured_cost, choice.measured_loss,
         choice.shares.get(choice.measured, 0.0), choice.proven, choice.proven_cost,
         choice.proven_shares.get(choice.proven, 0.0))
        for batch in study.batches for length in batch.lengths
        if (choice := length.choice) is not None
    ]  # fmt: skip
    note = (
        "The cheapest technique that was measured at the length, that can be chosen (remarks name those that "
        "cannot, as of batches that were not scored), and whose loss on all rows is at most "
        f"{study.max_drop:g} in {study.metric}; resamplings: share of resamplings of rows and costs with the "
        f"same choice. Proven: with {confidence(study.confidence)} confidence, at each length by itself."
    )
    unknown = choice_sentences.single_readings([*_chosen(study)])
    return Sheet("lengths-choices", f"Cheapest within {study.max_drop:g}", columns, tuple(rows),
                 " ".join(filter(None, [note, unknown])))  # fmt: skip


def agreements(study: LengthDependence) -> Sheet:
    """Return a row for each pair of lengths of a batch size."""
    columns = (
        SheetColumn("batch size"), SheetColumn("tokens"), SheetColumn("other tokens"),
        SheetColumn("techniques"), SheetColumn("Kendall's tau", 2), SheetColumn("low", 2),
        SheetColumn("high", 2),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = [
        (batch.batch, *each.lengths, each.techniques, each.tau, *ends(each.interval))
        for batch in study.batches for each in batch.agreements
    ]  # fmt: skip
    note = (
        "tau-b of relative costs of the techniques that were measured at both lengths; noise brings it "
        f"nearer to 0. The interval holds the true tau in at least {percent(CONFIDENCE)} of cases: pairs of "
        "techniques whose order is not sure are taken either way. Single readings have no interval."
    )
    return Sheet("lengths-ranks", "Do lengths order the techniques alike", columns, tuple(rows), note)


def losses(study: LengthDependence) -> Sheet:
    """Return a row for each technique and quarter of the rows by their number of words."""
    columns = (
        SheetColumn("technique"), SheetColumn("words"), SheetColumn("rows"), SheetColumn("baseline"),
        SheetColumn("score"), SheetColumn("loss", signed=True), SheetColumn("low", signed=True),
        SheetColumn("high", signed=True), SheetColumn("more than others", signed=True),
        SheetColumn("p adjusted"), SheetColumn("loses more"),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = [
        (technique.technique, part.slice.removeprefix(f"{WORDS}: "), part.rows, part.before, part.after,
         part.loss, *ends(part.interval), part.excess, part.p_adjusted, "yes" if part.flagged else "")
        for technique in study.losses for part in technique.by_words
    ]  # fmt: skip
    unit = "Scores are absolute errors, as negative numbers" if study.unit == ABSOLUTE_ERROR else (
        "Scores are shares of right rows, or means of the rows' scores")  # fmt: skip
    note = (
        f"{unit}. A quarter loses more than the other rows if a permutation test says so at "
        f"{percent(LEVEL)}, adjusted for all quarters and techniques (Holm)."
    )
    return Sheet("lengths-losses", "Loss by the length of the rows", columns, tuple(rows), note)


def lines(study: LengthDependence) -> list[str]:
    """Return what the comparison shows, in sentences."""
    return [
        *(line for batch in study.batches for line in _of_batch(study, batch)),
        *_changes(study),
        *_losses(study),
        f"Losses and costs are relative to {study.baseline}, the unreduced fp32 engine.",
    ]


def text(study: LengthDependence) -> str:
    """Return what the terminal shows: techniques, changes, choices, sentences and remarks."""
    tables = [overview(study), changes(study)]
    tables += [choices(study)] if any(True for _ in _chosen(study)) else []
    return studies_of.text(tables, lines(study), study)


def section(study: LengthDependence) -> Section:
    """Return the section for the page of ``effx report``."""
    return Section(
        title=f"Does the best reduction depend on the length? {_title(study)}",
        schema=1,
        text=studies_of.paragraph(lines(study), study),
        charts=[_chart(study, batch) for batch in study.batches],
        tables=[sheet.section_table() for sheet in sheets(study)],
    )


def _title(study: LengthDependence) -> str:
    return f"{study.task}, {place(study)}"


def _note(study: LengthDependence) -> str:
    inverse = ", inverted" if OBJECTIVES[study.objective].maximise else ""
    return (
        f"Loss: {study.metric} of {study.baseline}, the unreduced fp32 engine, minus the technique's, on all "
        f"rows. Cost: {OBJECTIVES[study.objective].short} relative to that engine{inverse}. Intervals 95 %."
    )


def _chosen(study: LengthDependence) -> list[Choice]:
    return [length.choice for batch in study.batches for length in batch.lengths if length.choice is not None]


def _best(study: LengthDependence, batch: BatchOutcome) -> list[str]:
    """Return the best technique at the lengths of a batch size, and whether it depends on them."""
    if not batch.choices:
        return [
            "No technique that can be chosen was measured at two lengths: whether the best one depends on "
            "the length is not known."
        ] if any(length.choice for length in batch.lengths) else []  # fmt: skip
    at = {choice.where: choice for each in batch.choices for choice in each.at}
    ordered = [f"{length.length} tokens" for length in batch.lengths]
    named = [where for where in ordered if where in at]
    widest = [each.compared for each in batch.choices if each.compared.where == (named[0], named[-1])]

    def best(choices: Sequence[Choice], compared: Sequence[ChoicePair]) -> list[str]:
        return choice_sentences.best(
            LENGTH, choices, compared, study.max_drop, pairs=study.pairs, exchanged=widest
        )

    if len({each.techniques for each in batch.choices}) == 1:
        return best([at[where] for where in named], [each.compared for each in batch.choices])
    found = []
    for each in batch.choices:
        first, *others = best(each.at, [each.compared])
        count = counted(len(each.techniques) - 1, "technique")
        between = " and ".join(each.compared.where)
        found += [f"Between {between}, among {count} that both have: {first[0].lower()}{first[1:]}", *others]
    return found


def _of_batch(study: LengthDependence, batch: BatchOutcome) -> list[str]:
    """Return what is best at the lengths of a batch size."""
    found = _best(study, batch)
    found += [
        f"At {choice.where}, '{choice.measured}' is cheaper still; it has no cost to compare at another "
        "length."
        for length in batch.lengths
        if (choice := length.choice) is not None
        and choice.measured != BASELINE
        and not any(
            choice.where in each.compared.where and choice.measured in each.techniques
            for each in batch.choices
        )
        and batch.choices
    ]
    if chosen := [length.choice for length in batch.lengths if length.choice is not None]:
        found += choice_sentences.proven(
            LENGTH, chosen, study.max_drop, study.confidence, lambda choice: choice.where
        )
    if len(batch.agreements) == 1:
        found += [_order(each, each.tau) for each in batch.agreements if each.tau is not None]
    if not found:
        return []
    first, *others = found
    return [f"Batch size {batch.batch}: {first[0].lower()}{first[1:]}", *others]


def _order(each: LengthAgreement, tau: float) -> str:
    lengths = " and ".join(map(str, each.lengths))
    around_it = "" if each.interval is None else (
        f", 95 % {fixed(each.interval[0], 2)} to {fixed(each.interval[1], 2)}")  # fmt: skip
    return (
        f"{lengths} tokens order {each.techniques} techniques by their cost with Kendall's tau "
        f"{fixed(tau, 2)}{around_it}."
    )


def _changes(study: LengthDependence) -> list[str]:
    found = [(batch.batch, each) for batch in study.batches for each in batch.changes]
    tested = [pair for pair in found if pair[1].p is not None]
    if not tested:
        return ["Whether relative costs depend on the length could not be tested."]
    groups: dict[tuple[int, tuple[int, int], int], list[CostChange]] = {}
    for batch, each in tested:
        if (length := each.cheaper_at()) is not None:
            groups.setdefault((batch, each.lengths, length), []).append(each)
    if not groups:
        return [
            "No technique is shown to cost relatively more at one length than at another "
            f"({counted(len(tested), 'test')}; small changes would not be shown)."
        ]
    return [_group(*key, members) for key, members in groups.items()]


def _group(batch: int, lengths: tuple[int, int], cheaper: int, members: Sequence[CostChange]) -> str:
    """Return which techniques are relatively cheaper at one length."""
    ordered = sorted(members, key=lambda each: -abs(np.log(each.ratio)))
    named = [
        f"'{each.technique}' {fixed(each.costs[0], 2)} at {lengths[0]}, {fixed(each.costs[1], 2)} at "
        f"{lengths[1]} (ratio {fixed(each.ratio, 2)}, 95 % {fixed(low, 2)} to {fixed(high, 2)}, adjusted "
        f"{p_value(each.p_adjusted)})"
        for each in ordered[:_NAMED]
        if each.interval is not None and each.p_adjusted is not None
        for low, high in [each.interval]
    ]
    more = f"; and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    kind = "long" if cheaper == lengths[1] else "short"
    return f"Relatively cheaper on {kind} inputs, batch size {batch}: {'; '.join(named)}{more}."


def _losses(study: LengthDependence) -> list[str]:
    known = [each for each in study.losses if each.by_words]
    if not known:
        return []
    flagged = [(each, part) for each in known for part in each.by_words if part.flagged and part.loss > 0]
    if not flagged:
        return [
            "No technique is shown to lose more on a quarter of the rows, by their number of words, than on "
            "the others."
        ]
    return [_lost(study, each, part) for each, part in flagged]


def _saves_at(study: LengthDependence, technique: str) -> list[int]:
    """Return the batch sizes at which a technique is shown to be relatively cheaper on long inputs; none
    where another batch size shows the opposite.
    """
    shown = {
        batch.batch: length == each.lengths[1]
        for batch in study.batches
        for each in batch.changes
        if each.technique == technique and (length := each.cheaper_at()) is not None
    }
    return list(shown) if all(shown.values()) else []


def _lost(study: LengthDependence, of: TechniqueLoss, part: SliceLoss) -> str:
    factor, unit = (1.0, "") if study.unit == ABSOLUTE_ERROR else (100.0, " points")
    elsewhere = factor * (part.loss - part.excess)
    batches = _saves_at(study, of.technique) if part.slice == study.longest else []
    of_some = len(batches) < len(study.batches)
    at = f" (batch size {', '.join(map(str, batches))})" if of_some else ""
    also = f" It is relatively cheaper on long inputs{at}, and loses more there." if batches else ""
    return (
        f"'{of.technique}' loses {fixed(factor * part.loss, 1)}{unit} on {_words(part.slice)} instead of "
        f"{fixed(elsewhere, 1)} on the others (adjusted {p_value(part.p_adjusted)}).{also}"
    )


def _words(title: str) -> str:
    return f"rows of {title.removeprefix(f'{WORDS}: ')} words"


def _cheaper(each: CostChange) -> str:
    length = each.cheaper_at()
    return f"at {length} tokens" if length is not None else each.reason or ""


def _chart(study: LengthDependence, batch: BatchOutcome) -> SectionChart:
    by_size = sorted(batch.changes, key=lambda each: -abs(np.log(each.ratio)))[:_MAX_SERIES]
    shown = {each.technique for each in by_size}
    return SectionChart(
        title=f"Cost relative to the unreduced engine, batch size {batch.batch}",
        x=SectionAxis("tokens", log=True),
        y=SectionAxis(f"{OBJECTIVES[study.objective].short}, relative"),
        series=[
            SectionSeries(each.technique, _points(batch.lengths, index))
            for index, each in enumerate(study.losses)
            if each.technique in shown
        ],
        interval="95 %",
    )


def _points(lengths: Sequence[LengthOutcome], index: int) -> list[SectionPoint]:
    return [
        SectionPoint(float(length.length), each.cost, *around(each.cost, each.cost_interval))
        for length in lengths
        for each in [length.techniques[index]]
        if each.cost is not None
    ]
