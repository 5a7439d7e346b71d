"""``effx recommend``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effx.analysis.objectives import OBJECTIVES
from effx.cli import options
from effx.specs.constraints import RecommendSettings

if TYPE_CHECKING:
    from effx.analysis.recommendation import Recommendation, Unmet


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
    number of engines. A better engine whose measured values meet the constraints without proof is
    listed as not proven, with the number of rows that would decide. One recommendation per task and
    host. Exit code 1: for a task and host no engine is proven to meet the constraints, or
    there is no answer, as its engines or their baseline could not be measured.

    \b
    effx recommend results/
    effx recommend results/ --objective latency --max-drop 0.02 --max-p99 5ms --max-memory 500MB
    """  # fmt: skip
    from effx.analysis.recommend import recommend
    from effx.results import read

    unanswered: list[str] = []
    runs, failures = read(list(results) or [Path("results")])
    answers = recommend(
        runs,
        objective,
        RecommendSettings.of(**settings),
        baseline=baseline,
        task=task,
        host=host,
        failures=failures,
        unanswered=unanswered,
    )
    recommended, unmet = _divided(answers)
    if not as_json:
        return max(print_answers(answers), 1 if unanswered else 0)
    shown = {
        "recommendations": [answer.to_json() for answer in recommended],
        "unmet": [answer.to_json() for answer in unmet],
    }
    click.echo(json.dumps(shown, indent=1, allow_nan=False))
    return max(_print_unmet(unmet), 1 if unanswered else 0)


def print_answers(answers: Sequence[Recommendation | Unmet]) -> int:
    """Print recommendations, and on stderr which limits no engine meets; return the exit code."""
    from effx.analysis import wording

    recommended, unmet = _divided(answers)
    if recommended:
        click.echo("\n\n".join(wording.recommendation(answer, _option) for answer in recommended))
    return _print_unmet(unmet)


def _option(setting: str) -> str:
    """Return the option of effx recommend that sets a setting, whichever command prints the answers."""
    return options.names(command)[setting]


def _print_unmet(answers: Sequence[Unmet]) -> int:
    from effx.analysis import wording

    for answer in answers:
        click.echo(f"effx: {wording.unmet(answer, _option)}", err=True)
    return 1 if answers else 0


def _divided(answers: Sequence[Recommendation | Unmet]) -> tuple[list[Recommendation], list[Unmet]]:
    from effx.analysis.recommendation import Unmet

    unmet = [answer for answer in answers if isinstance(answer, Unmet)]
    return [answer for answer in answers if not isinstance(answer, Unmet)], unmet
