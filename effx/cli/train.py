"""``effx train``: the commands that write checkpoints."""

import click

from effx.cli import LazyGroup


@click.group(
    cls=LazyGroup,
    table={
        "finetune": ("effx.cli.finetune", "Fine-tune a pretrained encoder on a task."),
        "multitask": ("effx.cli.multitask", "Train several tasks with one encoder, or share their tickets."),
        "exits": ("effx.cli.exits", "Add early exits to a checkpoint."),
        "tokens": ("effx.cli.tokens", "Add token pruning to a checkpoint."),
        "prune": ("effx.cli.prune", "Prune a checkpoint without training, to a measured speed-up."),
        "tickets": ("effx.cli.tickets", "Search for super tickets: prune heads and FFNs."),
        "adapt": ("effx.cli.adapt", "Adapt models to a task with few training rows."),
        "lottery": ("effx.cli.lottery", "Search for unstructured lottery tickets, a baseline."),
        "transfer": ("effx.cli.transfer", "Train tasks under the masks and tickets of other tasks."),
        "compare": ("effx.cli.train_compare", "Compare ways of training over tasks and seeds."),
        "predict": ("effx.cli.predict", "Write a checkpoint's predictions to a file."),
    },
)
def command() -> None:
    """Fine-tune encoders and reduce them; each command writes checkpoints."""
