"""``effx tickets``."""

from __future__ import annotations

import click

from effx.cli import LazyGroup


@click.group(
    cls=LazyGroup,
    table={"report": ("effx.cli.tickets_report", "Compare finished searches over tasks and seeds.")},
)
def command() -> None:
    """Analyse finished searches for super tickets."""
