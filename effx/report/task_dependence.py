"""Tables, sentences and a section on whether the best reduction depends on the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effx.analysis import cohorts, pareto
from effx.analysis import task_dependence as task_comparison
from effx.analysis.objectives import OBJECTIVES
from effx.analysis.orders import LEAST_RANKED
from effx.analysis.task_results import (
    POINTS,
    Interaction,
    RankAgreement,
    TaskDependence,
    TaskOutcome,
    TechniqueOnTask,
)
from effx.analysis.technique_choices import BASELINE
from effx.formatting import confidence, fixed, p_value, percent
from effx.report import choice_sentences
from effx.report import studies as studies_of
from effx.report.choice_sentences import TASK
from effx.report.sections import Section, SectionAxis, SectionChart, SectionPoint, SectionSeries
from effx.report.sheets import Sheet, SheetCell, SheetColumn
from effx.report.studies import around, counted, ends, place
from effx.results import Run
from effx.stats import CONFIDENCE

JSON = "task-dependence.json"
FIGURE = "tasks-frontiers"
_AXIS = {True: ("loss", "points"), False: ("relative loss", "%")}
"""Whether all tasks have the same metric -> what charts show, and its unit."""
_SHOWN_PAIRS = 3
"""Pairs of tasks up to which the agreement of their orders is a sentence each."""


def write(studies: Sequence[TaskDependence], out: Path) -> None:
    """Write the tables (CSV, Markdown, LaTeX), the figure and task-dependence.json.

    Args:
        studies: with several, the tables and figure of each are in a subfolder.
        out: folder.
    """
    from effx.report import task_figures

    studies_of.write(
        studies, out, sheets=sheets, draw=lambda study, folder: task_figures.draw(study, folder / FIGURE),
        name=studies_of.folder_name, content=(JSON, to_json(studies)),
    )  # fmt: skip


def of_report(runs: Sequence[Run]) -> list[TaskDependence]:
    """Return the comparisons of tasks that a report shows: by latency, and by energy where it was measured.

    Why there is none although results are of several tasks is said on standard error.
    """
    latest = cohorts.latest(runs)
    if len({run.task for run in latest}) < 2:
        return []
    return studies_of.of_report("tasks", latest, task_comparison.compare, section, to_json)


def to_json(studies: Sequence[TaskDependence]) -> dict[str, Any]:
    """Return what task-dependence.json has."""
    return {"schema": 1, "studies": [{**study.to_json(), "sentences": lines(study)} for study in studies]}


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
                 *ends(each.loss_interval), each.relative_loss, *ends(each.relative_interval), each.cost,
                 *ends(each.cost_interval))
            )  # fmt: skip
    return Sheet("tasks-techniques", f"Loss and cost by task ({place(study)})", columns, tuple(rows),
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
        (choice.where, task.n, choice.measured, choice.measured_cost, choice.measured_loss,
         choice.shares.get(choice.measured, 0.0), choice.proven, choice.proven_cost,
         choice.proven_shares.get(choice.proven, 0.0))
        for task in study.tasks for choice in [task.choice]
    ]  # fmt: skip
    note = (
        f"The cheapest technique whose loss is at most {study.max_drop:g} in the task's metric; resamplings: "
        "share of resamplings of rows and costs with the same choice. What is proven, with "
        f"{confidence(study.confidence)} confidence, also depends on the number of rows."
    )
    if unknown := choice_sentences.single_readings([task.choice for task in study.tasks]):
        note += f" {unknown}"
    return Sheet("tasks-choices", f"Cheapest within {study.max_drop:g}", columns, tuple(rows), note)


def agreements(study: TaskDependence) -> Sheet:
    """Return a row for each pair of tasks and what techniques are ranked by."""
    columns = (
        SheetColumn("task"), SheetColumn("other task"), SheetColumn("ranked by"), SheetColumn("techniques"),
        SheetColumn("Kendall's tau", 2), SheetColumn("low", 2), SheetColumn("high", 2),
    )  # fmt: skip
    rows = [
        (*each.tasks, each.by, each.techniques, each.tau, *ends(each.interval)) for each in study.agreements
    ]
    note = (
        "tau-b of what was measured; noise brings it nearer to 0. The interval holds the true tau in at "
        f"least {percent(CONFIDENCE)} of cases: pairs of techniques whose order is not sure are taken either "
        "way."
    )
    if unknown := choice_sentences.single_readings([task.choice for task in study.tasks]):
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
        (each.technique, *each.tasks, each.scale, each.difference, *ends(each.interval), each.p,
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
    choices_of = [task.choice for task in study.tasks]
    rows = {task.task: f"{task.task} ({task.n} rows)" for task in study.tasks}
    return [
        *choice_sentences.best(
            TASK, choices_of, study.choices, study.max_drop, pairs=len(study.choices), exchanged=study.choices
        ),
        *choice_sentences.proven(
            TASK, choices_of, study.max_drop, study.confidence, lambda choice: rows[choice.where]
        ),
        *_differing(study),
        *_orders(study),
    ]


def text(study: TaskDependence) -> str:
    """Return what the terminal shows: techniques, choices, sentences and remarks."""
    columns = ("technique", "task", "score", "loss", "loss low", "loss high", "relative loss", "cost",
               "cost low", "cost high")  # fmt: skip
    return studies_of.text([techniques(study).only(columns), choices(study)], lines(study), study)


def section(study: TaskDependence) -> Section:
    """Return the section for the page of ``effx report``."""
    return Section(
        title=f"Does the best reduction depend on the task? {place(study)}",
        schema=1,
        text=studies_of.paragraph(lines(study), study),
        charts=[_chart(study)],
        tables=[sheet.section_table() for sheet in sheets(study)],
    )


def _differing(study: TaskDependence) -> list[str]:
    tested = [each for each in study.interactions if each.p is not None]
    if not tested:
        return ["No loss could be compared between tasks."]
    shown = [each for each in tested if each.loses_more_on() is not None]
    if not shown:
        return [
            "No technique is shown to lose more on one task than on another "
            f"({counted(len(tested), 'test')}; small differences would not be shown)."
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
                    SectionPoint(each.cost, value, *around(value, ends), label=each.technique)
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
