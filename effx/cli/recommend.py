"""``effx recommend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.analysis.objectives import OBJECTIVES
from effx.cli import options
from effx.cli.options import DURATION, SIZE


@click.command("recommend")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--objective",
    type=options.Word(tuple(OBJECTIVES), "objective"),
    metavar="OBJECTIVE",
    help=f"Objective to optimise: {', '.join(OBJECTIVES)}. Default: energy if it was measured, else the "
    "median latency.",
)
@click.option(
    "--max-drop",
    type=options.Finite(min=0),
    default=0.01,
    show_default=True,
    metavar="X",
    help="Maximum loss of the task's metric against the baseline; 0.01 is one percentage point.",
)
@click.option("--min-accuracy", type=options.Finite(-1, 1), metavar="X", help="Minimum value of that metric.")
@click.option("--max-p90", "max_p90_s", type=DURATION, metavar="T", help="Maximum p90 latency, e.g. 5ms.")
@click.option("--max-p99", "max_p99_s", type=DURATION, metavar="T", help="Maximum p99 latency.")
@click.option(
    "--max-memory", "max_memory_bytes", type=SIZE, metavar="SIZE", help="Maximum peak memory, e.g. 500MB."
)
@click.option(
    "--max-size", "max_size_bytes", type=SIZE, metavar="SIZE", help="Maximum size on disk, e.g. 64MiB."
)
@click.option(
    "--baseline",
    metavar="ENGINE",
    help="Engine to compare with. Default: the most accurate unreduced fp32 engine.",
)
@click.option("--task", metavar="T", help="Only this task. Default: every task.")
@click.option("--host", metavar="H", help="Only results of this host. Default: every host.")
@click.option("--json", "as_json", is_flag=True, help="Print everything.")
def command(
    results: tuple[Path, ...],
    objective: str | None,
    baseline: str | None,
    task: str | None,
    host: str | None,
    as_json: bool,
    **constraints: Any,
) -> int:
    """Recommend an engine to deploy, from RESULTS (default: ./results).

    Prints the best engine by one objective among those that meet all constraints, the binding
    constraints, the runner-up, and how certain the choice is. One recommendation per task and host.
    Exit code 1: for a task and host no engine meets the constraints.

    \b
    effx recommend results/
    effx recommend results/ --objective latency --max-drop 0.02 --max-p99 5ms --max-memory 500MB
    """  # fmt: skip
    from effx.analysis import wording
    from effx.analysis.constraints import Constraints
    from effx.analysis.recommend import recommend
    from effx.analysis.recommendation import Unmet
    from effx.results import find

    answers = recommend(
        find(list(results) or [Path("results")]),
        objective,
        Constraints(**constraints),
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
        click.echo("\n\n".join(wording.recommendation(answer, _option) for answer in recommended))
    for answer in unmet:
        click.echo(f"effx: {wording.unmet(answer, _option)}", err=True)
    return 1 if unmet else 0


def _option(setting: str) -> str:
    """Return the option that sets a constraint."""
    parameters = click.get_current_context().command.params
    return next(parameter.opts[0] for parameter in parameters if parameter.name == setting)
