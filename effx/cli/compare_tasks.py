"""``effx compare-tasks``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.analysis.objectives import OBJECTIVES
from effx.cli.technique_studies import answer, study_options


@click.command("compare-tasks")
@study_options(
    tuple(name for name, objective in OBJECTIVES.items() if not objective.is_score),
    tasks="Compare only these tasks; repeatable. Default: all.",
    cost="Cost, relative to the unreduced engine of the task",
    out="Also write the tables to this folder (CSV, Markdown, LaTeX), the frontiers of all tasks on one "
    "scale (PNG, SVG) and task-dependence.json.",
    json_file="task-dependence.json",
)
def command(results: tuple[Path, ...], **settings: Any) -> None:
    """Show whether the best reduction depends on the task, from RESULTS (default: ./results).

    RESULTS hold engines of at least two tasks, made from one encoder and measured on one host and backend.
    Compares the techniques that all tasks have with each task's unreduced fp32 engine: what they lose and
    cost, whether tasks order them alike, which lose more on one task than on another (adjusted for the
    number of tests), and the cheapest that loses at most --max-drop on each task.

    \b
    effx compare-tasks sst2/results mrpc/results rte/results
    effx compare-tasks results --task sst2 --task mrpc --objective energy -o tasks
    """  # fmt: skip
    from effx.analysis import task_dependence
    from effx.report import task_dependence as tables

    answer(task_dependence.compare, tables, results, **settings)
