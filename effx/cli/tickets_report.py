"""``effx tickets report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from effx.cli.options import Grammar
from effx.specs.levels import Level


@click.command("report")
@click.argument(
    "workspaces", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="WORKSPACE..."
)
@click.option(
    "--level",
    type=Grammar(Level.parse, "PERCENT"),
    default="40",
    show_default=True,
    help="Level of the winning tickets whose pruned heads and FFNs are compared between tasks.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("tickets-report"),
    show_default=True,
    metavar="DIR",
    help="Folder for tables (CSV, Markdown, LaTeX), figures and tickets.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print tickets.json.")
def command(workspaces: tuple[Path, ...], level: str, out: Path, as_json: bool) -> None:
    """Compare the super tickets of several tasks. Each WORKSPACE is the folder of one finished search.

    The tables compare full models with super tickets (paired tests over seeds with Holm's adjustment), and
    list every metric, the standard deviations over seeds, and the phases (Liang et al. 2021, tables 1 and 5
    to 7, figures 3 and 6). If all searches have the same encoder, they also show averages over tasks, and how
    similarly the tasks rank and prune its heads and FFNs. sections/tickets.json is a section for effx report
    --section.

    \b
    effx tickets report tickets/mrpc-minilm tickets/rte-minilm tickets/sst2-minilm
    effx tickets report tickets/mrpc-minilm tickets/rte-minilm --level 20 -o two-tasks
    """  # fmt: skip
    from effx.report import tickets

    value = tickets.report(workspaces, out, level=level)
    if as_json:
        click.echo(json.dumps(value, indent=1))
        return
    click.echo((out / "tasks.md").read_text().rstrip())
    if reason := value["importance_unavailable"]:
        click.echo(f"importance is not compared: {reason}", err=True)
    click.echo(str(out))
