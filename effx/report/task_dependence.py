"""Tables, sentences and a section on whether the best reduction depends on the task."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx import files, progress
from effx.analysis import cohorts, pareto
from effx.analysis import task_dependence as task_comparison
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.task_choices import BASELINE, ChoicePair
from effx.analysis.task_dependence import LEAST_RANKED
from effx.analysis.task_results import (
    POINTS,
    Interaction,
    RankAgreement,
    TaskDependence,
    TaskOutcome,
    TechniqueOnTask,
)
from effx.errors import UsageError
from effx.formatting import fixed, p_value, percent, times
from effx.report.sections import (
    Section,
    SectionAxis,
    SectionChart,
    SectionColumn,
    SectionPoint,
    SectionSeries,
    SectionTable,
)
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.results import Run
from effx.stats import CONFIDENCE

JSON = "task-dependence.json"
FIGURE = "tasks-frontiers"
_AXIS = {True: ("loss", "points"), False: ("relative loss", "%")}
"""Whether all tasks have the same metric -> what charts show, and its unit."""
_MOST_ENGINES = 300
"""In a report; the losses of some metrics take half a second each."""
_SHOWN_PAIRS = 3
"""Pairs of tasks up to which the agreement of their orders is a sentence each."""


def write(studies: Sequence[TaskDependence], out: Path) -> None:
    """Write the tables (CSV, Markdown, LaTeX), the figure and task-dependence.json.

    Args:
        studies: with several, the tables and figure of each are in a subfolder.
        out: folder.
    """
    from effx.report import task_figures

    out.mkdir(parents=True, exist_ok=True)
    for study in studies:
        folder = out / folder_name(study) if len(studies) > 1 else out
        folder.mkdir(exist_ok=True)
        for sheet in sheets(study):
            sheet.write(folder)
        task_figures.draw(study, folder / FIGURE)
    files.write_json(out / JSON, to_json(studies))


def of_report(runs: Sequence[Run]) -> list[TaskDependence]:
    """Return the comparisons of tasks that a report shows: by latency, and by energy where it was measured.

    Why there is none although results are of several tasks is said on standard error.
    """
    latest = cohorts.latest(runs)
    if len({run.task for run in latest}) < 2:
        return []
    if len(latest) > _MOST_ENGINES:
        progress.say(f"tasks are not compared: more than {_MOST_ENGINES} engines; use effx compare-tasks")
        return []
    try:
        studies = _shown(latest, "latency")
        with contextlib.suppress(UsageError):  # energy was not measured of all, or by several meters
            studies += _shown(latest, "energy")
    except UsageError as error:
        progress.say(f"tasks are not compared: {error}")
        return []
    except Exception as error:  # whatever it is, the rest of the report must not be lost to this section
        progress.say(f"tasks are not compared: {type(error).__name__}: {error}")
        return []
    return studies


def _shown(runs: Sequence[Run], objective: str) -> list[TaskDependence]:
    """Return comparisons that can be written.

    Raises:
        UsageError: there are none.
        ValueError: a number is not finite.
    """
    studies = task_comparison.compare(runs, objective)
    for study in studies:
        section(study)
    json.dumps(to_json(studies), allow_nan=False)
    return studies


def to_json(studies: Sequence[TaskDependence]) -> dict[str, Any]:
    """Return what task-dependence.json has."""
    return {"schema": 1, "studies": [{**study.to_json(), "sentences": lines(study)} for study in studies]}


def folder_name(study: TaskDependence) -> str:
    """Return a name for what is written about one of several studies."""
    return files.safe_name(f"{study.objective}-{study.encoder}-{study.host}-{study.backend}-{study.device}")


def title(study: TaskDependence) -> str:
    """Return encoder, backend, host and cost."""
    where = study.backend if study.device == "cpu" else f"{study.backend} on {study.device}"
    return f"{study.encoder}, {where}, {study.host}, {OBJECTIVES[study.objective].short}"


def sheets(study: TaskDependence) -> list[Sheet]:
    """Return all tables."""
    return [techniques(study), choices(study), agreements(study), interactions(study)]


def techniques(study: TaskDependence) -> Sheet:
    """Return a row for each technique and task: loss and relative cost."""
    columns = (
        SheetColumn("technique"), SheetColumn("task"), SheetColumn("metric"), SheetColumn("rows"),
        SheetColumn("score"), SheetColumn("loss", signed=True), SheetColumn("loss low", signed=True),
        SheetColumn("loss high", signed=True), SheetColumn("relative loss", 3, percent=True, signed=True),
        SheetColumn("relative loss low", 3, percent=True, signed=True),
        SheetColumn("relative loss high", 3, percent=True, signed=True), SheetColumn("cost", 3),
        SheetColumn("cost low", 3), SheetColumn("cost high", 3),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = []
    for index in range(len(study.tasks[0].techniques)):
        for task in study.tasks:
            each = task.techniques[index]
            rows.append(
                (each.technique, task.task, task.metric, task.n, each.score, each.loss,
                 *_ends(each.loss_interval), each.relative_loss, *_ends(each.relative_interval), each.cost,
                 *_ends(each.cost_interval))
            )  # fmt: skip
    return Sheet("tasks-techniques", f"Loss and cost by task ({title(study)})", columns, tuple(rows),
                 _note(study))  # fmt: skip


def choices(study: TaskDependence) -> Sheet:
    """Return a row for each task: the cheapest technique within the limit, as measured and as proven."""
    columns = (
        SheetColumn("task"), SheetColumn("rows"), SheetColumn("measured choice"), SheetColumn("cost", 3),
        SheetColumn("loss", signed=True), SheetColumn("resamplings", 2, percent=True),
        SheetColumn("proven choice"), SheetColumn("proven cost", 3),
        SheetColumn("proven resamplings", 2, percent=True),
    )  # fmt: skip
    rows = [
        (choice.task, task.n, choice.measured, choice.measured_cost, choice.measured_loss,
         choice.shares.get(choice.measured, 0.0), choice.proven, choice.proven_cost,
         choice.proven_shares.get(choice.proven, 0.0))
        for task in study.tasks for choice in [task.choice]
    ]  # fmt: skip
    note = (
        f"The cheapest technique whose loss is at most {study.max_drop:g} in the task's metric; resamplings: "
        "share of resamplings of rows and costs with the same choice. What is proven, with "
        f"{percent(study.confidence)} confidence, also depends on the number of rows."
    )
    if unknown := _single_readings(study):
        note += f" {unknown}"
    return Sheet("tasks-choices", f"Cheapest within {study.max_drop:g}", columns, tuple(rows), note)


def agreements(study: TaskDependence) -> Sheet:
    """Return a row for each pair of tasks and what techniques are ranked by."""
    columns = (
        SheetColumn("task"), SheetColumn("other task"), SheetColumn("ranked by"), SheetColumn("techniques"),
        SheetColumn("Kendall's tau", 2), SheetColumn("low", 2), SheetColumn("high", 2),
    )  # fmt: skip
    rows = [
        (*each.tasks, each.by, each.techniques, each.tau, *_ends(each.interval)) for each in study.agreements
    ]
    note = (
        "tau-b of what was measured; noise brings it nearer to 0. The interval holds the true tau in at "
        f"least {percent(CONFIDENCE)} of cases: pairs of techniques whose order is not sure are taken either "
        "way."
    )
    if unknown := _single_readings(study):
        note += f" {unknown} Orders by them have no interval."
    return Sheet("tasks-ranks", "Do tasks order the techniques alike", columns, tuple(rows), note)


def interactions(study: TaskDependence) -> Sheet:
    """Return a row for each technique and pair of tasks, those that are shown to differ first."""
    columns = (
        SheetColumn("technique"), SheetColumn("task"), SheetColumn("other task"), SheetColumn("scale"),
        SheetColumn("difference of losses", signed=True), SheetColumn("low", signed=True),
        SheetColumn("high", signed=True), SheetColumn("p"), SheetColumn("p adjusted"),
        SheetColumn("loses more on"),
    )  # fmt: skip
    ordered = sorted(
        study.interactions, key=lambda each: (each.p_adjusted is None, each.p_adjusted, each.p or 0.0)
        if each.p_adjusted is not None else (True, 2.0, 0.0),
    )  # fmt: skip
    rows: list[tuple[SheetCell, ...]] = [
        (each.technique, *each.tasks, each.scale, each.difference, *_ends(each.interval), each.p,
         each.p_adjusted, each.loses_more_on() or each.reason or "")
        for each in ordered
    ]  # fmt: skip
    note = (
        "Loss on the task minus loss on the other task. Scale points: in the metric of both; relative: "
        "shares of the baseline's score above a constant answer. p is adjusted for all techniques and pairs "
        "of tasks (Holm); few rows show only large differences."
    )
    return Sheet("tasks-interactions", "Does a technique lose more on one task", columns, tuple(rows), note)


def lines(study: TaskDependence) -> list[str]:
    """Return what the comparison shows, in sentences."""
    return [*_best(study), *_proven(study), *_differing(study), *_orders(study)]


def text(study: TaskDependence) -> str:
    """Return what the terminal shows: techniques, choices, sentences and remarks."""
    columns = ("technique", "task", "score", "loss", "loss low", "loss high", "relative loss", "cost",
               "cost low", "cost high")  # fmt: skip
    tables = [techniques(study).only(columns), choices(study)]
    return "\n".join([*(sheet.markdown() for sheet in tables), *lines(study), *map(_sentence, study.remarks)])


def section(study: TaskDependence) -> Section:
    """Return the section for the page of ``effx report``."""
    return Section(
        title=f"Does the best reduction depend on the task? {title(study)}",
        schema=1,
        text=" ".join([*lines(study), *(f"{_sentence(remark)}" for remark in study.remarks)]),
        charts=[_chart(study)],
        tables=[_table(sheet) for sheet in sheets(study)],
    )


def _best(study: TaskDependence) -> list[str]:
    named = _listed(study, lambda task: task.choice.measured)
    limit = f"the cheapest technique that loses at most {_points(study.max_drop)} as measured is"
    coverage = study.choices[0].coverage
    covered = f"{fixed(100 * coverage, 1).removesuffix('.0')} %"
    if all(pair.measured[0] == pair.measured[1] for pair in study.choices):
        choice = study.tasks[0].choice.measured
        same = f"the same on all {len(study.tasks)} tasks: {limit} '{choice}'"
        share = min(task.choice.shares.get(choice, 0.0) for task in study.tasks)
        agree = f"{percent(share)} of resamplings of each task, or more, choose it"
        if unknown := _single_readings(study):
            return [f"As measured, the best reduction is {same}. {unknown}"]
        if share >= coverage:
            return [f"The best reduction is {same}; {agree}."]
        return [
            f"As measured, the best reduction is {same}. That is not certain: {agree}, and "
            f"{covered} would show it."
        ]
    shown = [pair for pair in study.choices if pair.measured_differ]
    if not shown:
        why = _single_readings(study) or (
            f"For every two tasks, a technique is among the likeliest, which {covered} of "
            "resamplings choose, of both."
        )
        return [f"The best reductions of the tasks cannot be told apart: {limit} {named}. {why}"]
    pairs = "; ".join(" and ".join(pair.tasks) for pair in shown)
    adjusted = f", adjusted for {len(study.choices)} pairs of tasks" if len(study.choices) > 1 else ""
    return [
        f"The best reduction depends on the task: {limit} {named}. With {percent(CONFIDENCE)} confidence"
        f"{adjusted}, the choices differ between {pairs}: the techniques that {covered} of "
        "resamplings choose have none in common.",
        *(_exchanged(pair, study) for pair in shown),
    ]


def _single_readings(study: TaskDependence) -> str:
    """Return that costs have no known error; empty: they have."""
    if not any(task.choice.single_readings for task in study.tasks):
        return ""
    return "Costs are single readings: how far others would be from them is not known."


def _exchanged(pair: ChoicePair, study: TaskDependence) -> str:
    parts = []
    for place, other in ((0, 1), (1, 0)):
        loss, ratio = pair.exchanged_losses[place], pair.exchanged_costs[place]
        allowed = "" if loss <= study.max_drop else ", more than allowed"
        parts.append(
            f"on {pair.tasks[place]}, '{pair.measured[other]}' loses {_points(loss)}{allowed} and costs "
            f"{times(ratio)}x as much as '{pair.measured[place]}'"
        )
    return f"With the choices exchanged, {' and '.join(parts)}."


def _proven(study: TaskDependence) -> list[str]:
    proven = [task for task in study.tasks if task.choice.proven != BASELINE]
    certain = f"with {percent(study.confidence)} confidence to lose at most {_points(study.max_drop)}"
    without = [f"{task.task} ({task.n} rows)" for task in study.tasks if task not in proven]
    if not proven:
        return [f"No technique is proven {certain} on any task: more rows may prove one."]
    named = ", ".join(f"'{task.choice.proven}' on {task.task}" for task in proven)
    none = f" None is on {', '.join(without)}, which may be a matter of rows." if without else ""
    return [f"The cheapest technique that is proven {certain}: {named}.{none}"]


def _differing(study: TaskDependence) -> list[str]:
    tested = [each for each in study.interactions if each.p is not None]
    if not tested:
        return ["No loss could be compared between tasks."]
    shown = [each for each in tested if each.loses_more_on() is not None]
    if not shown:
        return [
            f"No technique is shown to lose more on one task than on another ({_count(len(tested), 'test')}; "
            "small differences would not be shown)."
        ]
    return [
        f"{_interaction(each)}"
        for each in sorted(shown, key=lambda each: -abs(each.difference or 0.0))
    ]  # fmt: skip


def _interaction(each: Interaction) -> str:
    assert each.difference is not None and each.interval is not None and each.p_adjusted is not None
    worse, better = each.tasks if each.difference > 0 else each.tasks[::-1]
    low, high = sorted(abs(end) for end in each.interval)
    if min(each.interval) < 0 < max(each.interval):  # cannot be shown, and is not printed
        low = 0.0
    unit = "points" if each.scale == POINTS else "% of the score above a constant answer"
    amount = fixed(100 * abs(each.difference), 1)
    return (
        f"'{each.technique}' loses {amount} {unit} more on {worse} than on {better} "
        f"(95 % {fixed(100 * low, 1)} to {fixed(100 * high, 1)}; adjusted {p_value(each.p_adjusted)})."
    )


def _orders(study: TaskDependence) -> list[str]:
    if len(study.choices) > _SHOWN_PAIRS:
        return []
    return [_order(each) for each in study.agreements if each.by == "loss"]


def _order(each: RankAgreement) -> str:
    tasks = " and ".join(each.tasks)
    if each.tau is None:
        few = each.techniques < LEAST_RANKED
        why = (
            "are too few to compare their order"
            if few
            else "lose the same on one of them: they have no order"
        )
        return f"{tasks}: techniques {why}."
    ends = (
        ""
        if each.interval is None
        else f", 95 % {fixed(each.interval[0], 2)} to {fixed(each.interval[1], 2)}"
    )
    return (
        f"{tasks} order {each.techniques} techniques by their loss with Kendall's tau "
        f"{fixed(each.tau, 2)}{ends}."
    )


def _note(study: TaskDependence) -> str:
    cost = OBJECTIVES[study.objective].short
    inverse = ", inverted" if OBJECTIVES[study.objective].maximise else ""
    return (
        "Loss: the unreduced fp32 engine's score minus the technique's, on the same rows, in the task's own "
        "metric. Relative loss: divided by the baseline's score above that of the best constant answer. "
        f"Cost: {cost} relative to the baseline{inverse}. Intervals 95 %."
    )


def frontier(task: TaskOutcome) -> list[TechniqueOnTask]:
    """Return the techniques of a task that none dominates by loss and cost, the baseline included."""
    points = np.array([(1.0, 0.0), *((each.cost, each.loss) for each in task.techniques)])
    best = pareto.non_dominated(points)[1:]
    members = [each for each, keep in zip(task.techniques, best, strict=True) if keep]
    return sorted(members, key=lambda each: each.cost)


def _chart(study: TaskDependence) -> SectionChart:
    return SectionChart(
        title="Frontiers of all tasks on one scale; 1 is the cost of the unreduced engine",
        x=SectionAxis(f"{OBJECTIVES[study.objective].short}, relative"),
        y=SectionAxis(*_AXIS[study.same_metric]),
        series=[
            SectionSeries(
                task.task,
                [
                    SectionPoint(each.cost, value, *_around(value, ends), label=each.technique)
                    for each in frontier(task)
                    for value, ends in [each.in_percent(relative=not study.same_metric)]
                    if value is not None
                ]
                + [SectionPoint(1.0, 0.0, label=BASELINE)],
            )
            for task in study.tasks
        ],
        interval="95 %",
    )


def _around(value: float, ends: tuple[float, float] | None) -> tuple[float | None, float | None]:
    """Return the ends of an interval, which a chart wants to hold its point."""
    return (None, None) if ends is None else (min(ends[0], value), max(ends[1], value))


def _table(sheet: Sheet) -> SectionTable:
    return SectionTable(
        sheet.title,
        [SectionColumn(column.label) for column in sheet.columns],
        [["" if cell is None else cell for cell in row] for row in sheet.rows],
    )


def _listed(study: TaskDependence, of: Any) -> str:
    by_choice: dict[str, list[str]] = {}
    for task in study.tasks:
        by_choice.setdefault(of(task), []).append(task.task)
    return "; ".join(f"'{choice}' on {', '.join(tasks)}" for choice, tasks in by_choice.items())


def _ends(interval: tuple[float, float] | None) -> tuple[float | None, float | None]:
    return interval or (None, None)


def _points(difference: float) -> str:
    number = fixed(100 * difference, 1)
    return f"{number.removesuffix('.0')} point" + ("" if number == "1.0" else "s")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
