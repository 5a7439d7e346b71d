"""``effx slices``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from effx.cli import options
from effx.specs.data import DataSource


@click.command("slices")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@options.data("The rows that the engines were scored on. Default: the hub, or the demo's.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME",
    help="Column of the rows whose values are slices, or the quartiles of its numbers; repeatable.",
)
@click.option(
    "--baseline",
    metavar="ENGINE",
    help="What the others are compared with. Default: the unreduced fp32 engine.",
)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR",
    help="Also write the tables to this folder (CSV, Markdown, LaTeX), slices.json, the rows that became "
    "wrong, and sections/slices.json, a section for effx report --section.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print slices.json.")
def command(
    results: tuple[Path, ...],
    data_folder: DataSource | None,
    columns: tuple[str, ...],
    baseline: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Show on which rows reduced engines lose more than on others, from RESULTS (default: ./results).

    Slices are the classes, quartiles of length, rows with a negation, rows with a word that is rare in the
    training rows, for pairs quartiles of how much the texts overlap, and the values of your columns. Each
    is compared with all other rows; tests are adjusted for their number.

    \b
    effx slices results --data ./glue/sst2
    effx slices results --data ./reviews --column product --column country -o slices
    """  # fmt: skip
    from effx.analysis import sliced_results
    from effx.report import slices as tables

    report, texts = sliced_results.report(
        list(results) or [Path("results")], data_folder, columns=columns, baseline=baseline
    )
    if out is not None:
        tables.write(report, texts, out)
    if as_json:
        click.echo(json.dumps(tables.to_json(report), indent=1))
        return
    click.echo("\n".join([tables.table(report).markdown().rstrip(), "", *tables.lines(report)]))
    if out is not None:
        click.echo(str(out))
