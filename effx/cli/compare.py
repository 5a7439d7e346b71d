"""``effx compare``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click

from effx.cli import options


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--margin",
    type=options.Finite(min=0, min_open=True),
    default=0.01,
    show_default=True,
    help="Accepted loss of the task's metric (non-inferiority margin); 0.01 is one percentage point.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def command(a: str, b: str, results: tuple[Path, ...], margin: float, as_json: bool) -> None:
    """Compare engine B with engine A, from RESULTS (default: ./results).

    A and B are names of engines or ids of results. For names, the latest session that measured both
    engines in turns is used; if there is none, the latest result of each.

    \b
    effx compare sst2-bert.fp32.onnxruntime sst2-bert.int8.onnxruntime
    """  # fmt: skip
    from effx.analysis import comparison, slices, wording
    from effx.results import find

    first, second = comparison.pair(find(list(results) or [Path("results")]), a, b)
    compared = comparison.compare(first, second)
    lost = slices.remarks(slices.of_results([second], first), second.name)
    compared = replace(compared, remarks=[*compared.remarks, *lost])
    if as_json:
        value = {**compared.to_json(), "margin": margin, "non_inferiority": compared.non_inferiority(margin)}
        click.echo(json.dumps(value, indent=1, allow_nan=False))
    else:
        click.echo(wording.comparison(compared, margin))
