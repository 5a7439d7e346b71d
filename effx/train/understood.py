"""Report what was understood of a model and a task, before anything is computed."""

from __future__ import annotations

from effx import progress
from effx.models import checkpoints, families
from effx.models.huggingface import Loaded
from effx.models.structure import parameters, structure
from effx.specs.tasks import Task

_MOST_LABELS = 20
_READS = {"cls": "the first token", "mean": "the mean of the tokens"}


def lines(name: str, task: Task, loaded: Loaded, max_length: int) -> list[str]:
    """Return the block: model, family, task, labels, head, lengths, and what is unusual.

    Args:
        name: of the model.
        task: that its head is for.
        loaded: the model.
        max_length: tokens per example at most.
    """
    model = loaded.model
    size = f"{len(families.of(model).layers(model))} layers, {parameters(model) / 1e6:.1f} M parameters"
    more = f", ... ({len(task.labels)} labels)" if len(task.labels) > _MOST_LABELS else ""
    labels = f": {', '.join(task.labels[:_MOST_LABELS])}{more}" if task.labels else ""
    reads = "every token" if task.behavior.of_tokens else _READS[structure(model).head_pooling]
    return [
        f"model {name}: {model.config.model_type}, {size}",
        f"  task {task.name}: {task.kind}{labels}",
        f"  head {loaded.head}; it reads {reads}",
        f"  at most {max_length} tokens per example (the model reads {checkpoints.position_limit(model)})",
        *(f"  note: {note}" for note in loaded.notes),
    ]


def say(name: str, task: Task, loaded: Loaded, max_length: int) -> None:
    """Print the block to stderr, once for each model."""
    progress.say_once(*lines(name, task, loaded, max_length))
