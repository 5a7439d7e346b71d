"""``effx recommend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.cli.options import DURATION, SIZE


@click.command("recommend")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--objective",
    metavar="energy|latency|latency_p90|memory|size|throughput|energy_per_correct|...",
    help="What to have the best of. Default: energy if it was measured, else latency (the median).",
)
@click.option(
    "--max-drop",
    type=options.Finite(min=0),
    default=0.01,
    show_default=True,
    metavar="X",
    help="Loss of the task's metric beside the baseline that is accepted; 0.01 is a point.",
)
@click.option("--min-accuracy", type=options.Finite(-1, 1), metavar="X", help="Least value of that metric.")
@click.option("--max-p90", "max_p90_s", type=DURATION, metavar="T", help="Longest p90 latency, as 5ms.")
@click.option("--max-p99", "max_p99_s", type=DURATION, metavar="T", help="Longest p99 latency.")
@click.option("--max-memory", "max_memory_bytes", type=SIZE, metavar="SIZE", help="Most memory, as 500MB.")
@click.option("--max-size", "max_size_bytes", type=SIZE, metavar="SIZE", help="Largest on disk, as 64MiB.")
@click.option("--baseline", metavar="ENGINE", help="Default: the most accurate unreduced fp32 engine.")
@click.option("--task", metavar="T", help="Only this task. Default: each.")
@click.option("--host", metavar="H", help="Only this host's results. Default: each.")
@click.option("--json", "as_json", is_flag=True, help="Print everything.")
def command(
    results: tuple[Path, ...],
    objective: str | None,
    baseline: str | None,
    task: str | None,
    host: str | None,
    as_json: bool,
    **limits: Any,
) -> int:
    """Say which engine of RESULTS (default: ./results) to deploy.

    The best by one objective among the engines that meet the constraints: which constraint keeps a
    better one out, what the runner-up costs, and how certain the choice is. One answer per task and
    host. Exit code 1: for one of them no engine meets the constraints.

    \b
    effx recommend results/
    effx recommend results/ --objective latency --max-drop 0.02 --max-p99 5ms --max-memory 500MB
    """  # fmt: skip
    from effx.analysis.recommend import Limits, Unmet, recommend
    from effx.results import find

    answers = recommend(
        find(list(results) or [Path("results")]),
        objective,
        Limits(**limits),
        baseline=baseline,
        task=task,
        host=host,
    )
    unmet = [answer for answer in answers if isinstance(answer, Unmet)]
    found = [answer for answer in answers if not isinstance(answer, Unmet)]
    if as_json:
        shown = {
            "recommendations": [answer.to_json() for answer in found],
            "unmet": [answer.to_json() for answer in unmet],
        }
        click.echo(json.dumps(shown, indent=1, allow_nan=False))
    elif found:
        from effx.analysis import wording

        click.echo("\n\n".join(wording.recommendation(answer) for answer in found))
    for answer in unmet:
        click.echo(f"effx: {answer.message}", err=True)
    return 1 if unmet else 0
