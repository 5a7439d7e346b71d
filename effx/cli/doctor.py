"""``effx doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import click

_MARKS = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}


@click.command("doctor")
@click.argument("folder", type=click.Path(path_type=Path, exists=True), default=Path("."))
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(folder: Path, as_json: bool) -> int:
    """Say what works on this machine, what does not, and the command that fixes it.

    Looks at Python, packages and their clashes, runtimes and providers (each that is installed is
    really loaded), processor instructions, GPU driver, energy counters and power rails, limits of
    containers, and the disk of FOLDER (default: here). Missing is what effx does without; broken is
    what fails or makes other things fail. Exit code 1: something is broken.

    \b
    effx doctor
    effx doctor --json
    """  # fmt: skip
    from effx.doctor import examine

    lines = examine(folder)
    if as_json:
        click.echo(json.dumps([line.to_json() for line in lines], indent=1))
    else:
        width = max(len(line.name) for line in lines)
        topic = ""
        for line in lines:
            if line.topic != topic:
                topic = line.topic
                click.echo(f"{topic}")
            click.echo(f"  {_MARKS[line.state]}  {line.name:<{width}}  {line.detail}")
            if line.fix:
                click.echo(f"  {'':7}  {'':<{width}}  fix: {line.fix}")
    return 1 if any(line.state == "broken" for line in lines) else 0
