"""``effx train``: what trains."""

import click

from effx.cli import LazyGroup


@click.group(
    cls=LazyGroup,
    table={"finetune": ("effx.cli.finetune", "Fine-tune a pretrained encoder on a task.")},
)
def command() -> None:
    """Fine-tune encoders into checkpoints."""
