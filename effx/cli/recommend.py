"""``effx recommend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.analysis.objectives import OBJECTIVES
from effx.cli import options
from effx.specs.constraints import RecommendSettings


@click.command("recommend")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--objective",
    type=options.Word(tuple(OBJECTIVES), "objective"),
    metavar="OBJECTIVE",
    help=f"Objective to optimise: {', '.join(OBJECTIVES)}. correct: share of correct predictions; latency: "
    "the median; energy: per example. Default: energy if it was measured, else latency.",
)
@options.of(RecommendSettings, defaults=RecommendSettings().flat())
@click.option(
    "--baseline",
    metavar="ENGINE",
    help="Engine to compare with. Default: the most accurate unreduced fp32 engine.",
)
@click.option("--task", metavar="T", help="Only this task. Default: every task.")
@click.option("--host", metavar="H", help="Only results of this host. Default: every host.")
@click.option("--json", "as_json", is_flag=True, help="Print the recommendations as JSON.")
def command(
    results: tuple[Path, ...],
    objective: str | None,
    baseline: str | None,
    task: str | None,
    host: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Recommend an engine to deploy, from RESULTS (default: ./results).

    Prints the best engine by one objective among those that are proven to meet all constraints, the
    binding constraints, the runner-up, and how certain the choice is. The tests are adjusted for the
    number of engines. A better engine that meets the constraints only as measured is listed as not
    proven, with the number of rows that would decide. One recommendation per task and host. Exit code
    1: for a task and host no engine is proven to meet the constraints.

    \b
    effx recommend results/
    effx recommend results/ --objective latency --max-drop 0.02 --max-p99 5ms --max-memory 500MB
    """  # fmt: skip
    from effx.analysis import wording
    from effx.analysis.recommend import recommend
    from effx.analysis.recommendation import Unmet
    from effx.results import find

    answers = recommend(
        find(list(results) or [Path("results")]),
        objective,
        RecommendSettings.of(**settings),
        baseline=baseline,
        task=task,
        host=host,
    )
    unmet = [answer for answer in answers if isinstance(answer, Unmet)]
    recommended = [answer for answer in answers if not isinstance(answer, Unmet)]
    if as_json:
        shown = {
            "recommendations": [answer.to_json() for answer in recommended],
            "unmet": [answer.to_json() for answer in unmet],
        }
        click.echo(json.dumps(shown, indent=1, allow_nan=False))
    elif recommended:
        click.echo("\n\n".join(wording.recommendation(answer, options.of_setting) for answer in recommended))
    for answer in unmet:
        click.echo(f"effx: {wording.unmet(answer, options.of_setting)}", err=True)
    return 1 if unmet else 0
