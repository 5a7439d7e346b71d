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
    """Check what works on this machine, and print the command that fixes what does not.

    Checks Python, packages and their conflicts, runtimes and providers (each installed one is loaded),
    processor instructions, the GPU driver, energy counters and power rails, container limits, and the
    disk of FOLDER (default: here). Missing: optional, effx works without it. Broken: it fails or makes
    something else fail. Exit code 1: something is broken.

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
