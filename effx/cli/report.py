"""``effx report``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("report")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the report. Default: report/ in the first results folder.",
)
@click.option(
    "--section",
    "sections",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Additional section of the page, as JSON. Those in RESULTS/sections/ are always included.",
)
@click.option("--mlflow", "uri", metavar="URI", help="Log the report to this MLflow store as well.")
@click.option("--json", "as_json", is_flag=True, help="Print frontier.json.")
def command(
    results: tuple[Path, ...], out: Path | None, sections: tuple[Path, ...], uri: str | None, as_json: bool
) -> None:
    """Write the report on RESULTS (default: ./results): page, figures, CSV, LaTeX and JSON.

    \b
    effx report results/
    effx report laptop-results/ server-results/ -o report
    """  # fmt: skip
    from effx.errors import need
    from effx.report import report

    folders = list(results) or [Path("results")]
    if uri is not None:
        need("mlflow", "mlflow")  # before the work, not after it
    content, folder = report(folders, out, sections=sections)
    if uri is not None:
        from effx.report import tracking

        tracking.log_report(content, folder, uri)
    if as_json:
        click.echo(json.dumps(content.to_json(), indent=1))
        return
    from effx.report import tables

    tables.print_frontiers(content.to_json())
    click.echo(str(folder / "index.html"))
