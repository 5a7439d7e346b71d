"""Check a transfer of masks and tickets before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping

from effx import data
from effx.errors import UsageError, nearest
from effx.models import huggingface, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.transfer import CONTROLS, FULL, MLM, OTHER_SEED, TransferSettings
from effx.tickets import plan
from effx.train import distributed, layer_reduction, loop, rows, source
from effx.train.finetune import checked_encoder
from effx.train.lottery import language
from effx.train.lottery.check import check_dense


def check(
    tasks: Mapping[str, DataLocation], model_name: str, settings: TransferSettings, head: HeadSettings
) -> None:
    """Check the settings against the rows of every task and the model.

    Args:
        tasks: name -> file or folder of the rows; None: the hub.
        model_name: the pretrained encoder.
        settings: which masks and tickets, and how to train.
        head: whether the task head of the model is kept or replaced.

    Raises:
        UsageError: a setting does not fit the tasks, the model or this machine.
        DataError: the rows do not fit a task.
    """
    distributed.refuse("a transfer")
    if reserved := next((name for name in tasks if name in (FULL, OTHER_SEED, *CONTROLS)), None):
        raise UsageError(f"task '{reserved}': the table uses this name: give the task another name.")
    for name, _ in settings.task_limit or ():
        if name not in tasks:
            raise UsageError(
                f"task_limit of {name}: it is not one of the tasks.{nearest(name, tuple(tasks))}",
                settings="task_limit",
            )
    finetune = settings.finetune
    loop.choose_precision(finetune.training.precision)
    huggingface.check_source(model_name)
    if MLM in settings.controls:
        language.check(model_name, settings.mlm, finetune)
    for name, location in tasks.items():
        cache: data.Cache = {}
        task = data.resolve(name, location, cache=cache)
        source.check_trainable(task)
        every = data.load(task, "train", location, cache=cache)
        data.load(task, "validation", location, cache=cache)
        training = finetune.training.replace(limit=settings.limit_of(name))
        drawn = rows.chosen(every, training)
        rows.check_classes(task, len(drawn), training)
        if finetune.patience and len(drawn) < 2:
            raise UsageError(
                f"task {name} has 1 training row, and early stopping holds rows out: use more rows, or leave "
                "patience out.", settings="patience",
            )  # fmt: skip
        model, tokenizer = huggingface.pretrained(model_name, task, head=head)
        if settings.sparsities:
            check_dense(model_name, model)
        layer_reduction.check(model, finetune)
        max_length = finetune.max_length or task.behavior.max_length
        checked_encoder(model_name, model, tokenizer, max_length, every.texts, form=task.behavior.form)
        layer_reduction.reduce_by_position(model, finetune)
        for level in settings.levels or ():
            plan.check(structure(model), level, settings.pruning.min_heads, settings.pruning.granularity)
