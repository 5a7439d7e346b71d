"""Check a search for tickets before anything is trained."""

from __future__ import annotations

from effx import data
from effx.errors import UsageError
from effx.models import checkpoints, huggingface, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.training import TicketSearchSettings
from effx.tickets import plan
from effx.train import distributed, loop, source
from effx.train.finetune import keep_first


def check(
    task_name: str,
    model_name: str,
    data_folder: DataLocation,
    settings: TicketSearchSettings,
    head: HeadSettings | None = None,
) -> None:
    """Check the settings of a search against its rows and its model.

    Raises:
        UsageError: a level prunes nothing or too much, or a setting does not fit the model or this machine.
        DataError: the rows do not fit the task.
    """
    distributed.refuse("a search for tickets")
    finetune = settings.finetune
    loop.choose_precision(finetune.training.precision)
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    huggingface.check_source(model_name)
    data.load(task, "train", data_folder, cache=cache)
    if len(data.load(task, "validation", data_folder, cache=cache)) < 2:
        raise UsageError(
            "the super ticket is chosen on a part of the validation rows: expected at least 2 rows."
        )
    model, _ = huggingface.pretrained(model_name, task, head=head)
    checkpoints.check_length(model, finetune.max_length or task.behavior.max_length)
    keep_first(model, finetune.layers)
    available = structure(model)
    for level in settings.levels:
        plan.check(available, level, settings.pruning.min_heads, settings.pruning.granularity)
