"""``effx demo``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from effx.cli import options


@click.command("demo")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("effx-demo"),
    show_default=True,
    help="Output folder: checkpoints, engines, results.",
)
@options.meter
@click.option("--json", "as_json", is_flag=True, help="Print frontier.json.")
def command(out: Path, meter: str, as_json: bool) -> int:
    """Run the whole pipeline on a generated data set: two to three minutes on two cores.

    Pretrains a small BERT on a generated corpus, fine-tunes it with three regimes (full, last-2,
    frozen), exports each checkpoint to fp32 and int8, profiles the six engines and writes the report.
    Completed work is skipped. Exit code 1: an engine failed.

    \b
    effx demo
    effx demo -o /tmp/effx-demo --meter none
    """  # fmt: skip
    from effx.demo import demo

    content, page, failures = demo(out, meter=meter)
    if as_json:
        click.echo(json.dumps(content, indent=1))
    else:
        from effx.report import tables

        tables.print_frontiers(content.to_json())
        click.echo(f"report: {page.resolve()}")
    return 1 if failures else 0
