"""``effx train``: the commands that train."""

import click

from effx.cli import LazyGroup


@click.group(
    cls=LazyGroup,
    table={
        "finetune": ("effx.cli.finetune", "Fine-tune a pretrained encoder on a task."),
        "exits": ("effx.cli.exits", "Early exits on a checkpoint."),
        "tokens": ("effx.cli.tokens", "Token pruning on a checkpoint."),
        "tickets": ("effx.cli.tickets", "Super tickets: structured lottery tickets, search and table."),
        "lottery": ("effx.cli.lottery", "Unstructured lottery tickets, a baseline."),
    },
)
def command() -> None:
    """Fine-tune and reduce encoders into checkpoints."""
