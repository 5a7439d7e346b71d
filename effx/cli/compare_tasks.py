"""``effx compare-tasks``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.analysis.objectives import OBJECTIVES
from effx.cli import options
from effx.specs.constraints import TechniqueComparisonSettings

_COSTS = tuple(name for name, objective in OBJECTIVES.items() if not objective.is_score)


@click.command("compare-tasks")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--task", "tasks", multiple=True, metavar="NAME",
    help="Compare only these tasks; repeatable. Default: all.",
)  # fmt: skip
@click.option(
    "--objective",
    type=options.Word(_COSTS, "cost"),
    default="latency",
    show_default=True,
    metavar="COST",
    help=f"Cost, relative to the unreduced engine of the task: {', '.join(_COSTS)}.",
)
@options.of(TechniqueComparisonSettings)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR",
    help="Also write the tables to this folder (CSV, Markdown, LaTeX), the frontiers of all tasks on one "
    "scale (PNG, SVG) and task-dependence.json.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print task-dependence.json.")
def command(
    results: tuple[Path, ...],
    tasks: tuple[str, ...],
    objective: str,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Show whether the best reduction depends on the task, from RESULTS (default: ./results).

    RESULTS hold engines of at least two tasks, made from one encoder and measured on one host and backend.
    Compares the techniques that all tasks have with each task's unreduced fp32 engine: what they lose and
    cost, whether tasks order them alike, which lose more on one task than on another (adjusted for the
    number of tests), and the cheapest that loses at most --max-drop on each task.

    \b
    effx compare-tasks sst2/results mrpc/results rte/results
    effx compare-tasks results --task sst2 --task mrpc --objective energy -o tasks
    """  # fmt: skip
    if out is not None:
        from effx.errors import need

        need("report", "matplotlib")
    from effx.analysis import task_dependence
    from effx.results import find

    studies = task_dependence.compare(
        find(list(results) or [Path("results")]),
        objective,
        TechniqueComparisonSettings.of(**settings),
        tasks=tasks,
    )
    from effx.report import task_dependence as tables

    if out is not None:
        tables.write(studies, out)
    if as_json:
        click.echo(json.dumps(tables.to_json(studies), indent=1, allow_nan=False))
        return
    click.echo("\n\n".join(tables.text(study) for study in studies))
    if out is not None:
        click.echo(str(out))
