"""``effx train compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("compare")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="CHECKPOINTS...")
@click.option(
    "--baseline",
    metavar="METHOD",
    help="What the other methods are compared with. Default: the method with the shortest name.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write the tables to this folder (CSV, Markdown, LaTeX), and trainings.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print trainings.json.")
def command(sources: tuple[Path, ...], baseline: str | None, out: Path | None, as_json: bool) -> None:
    """Compare ways of training over tasks and seeds, by the scores of their checkpoints.

    CHECKPOINTS are checkpoints, or folders of them, e.g. that of a recipe's workspace. What is left of a
    checkpoint's name without its task and seed is its method: TASK-METHOD-sSEED. Prints the scores of every
    method, and its differences from the baseline, paired by seed. A trainings.json of an earlier comparison
    adds the scores of its checkpoints, e.g. seeds that were trained on another machine.

    \b
    effx train compare effx-ticket-sharing/checkpoints --baseline encoder-full
    effx train compare seeds-0-1/trainings.json effx-ticket-sharing/checkpoints -o all-seeds
    """  # fmt: skip
    from effx.analysis import trainings
    from effx.report import trainings as tables

    table = trainings.compare(trainings.read(sources), baseline)
    if out is not None:
        tables.write(table, out)
    if as_json:
        click.echo(json.dumps(tables.to_json(table), indent=1))
        return
    sheets = (tables.scores(table), tables.differences(table))
    click.echo("\n".join(sheet.markdown() for sheet in sheets).rstrip())
    if out is not None:
        click.echo(str(out))
