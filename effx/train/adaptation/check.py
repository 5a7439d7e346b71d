"""Check a few-shot adaptation before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from effx import data
from effx.errors import UsageError
from effx.models import checkpoints, huggingface
from effx.specs.adaptation import AdaptationSettings
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.training import rows_share_text
from effx.train import distributed, layer_reduction, loop, rows, source


def check(
    task_name: str,
    models: Sequence[str],
    data_folder: DataLocation,
    settings: AdaptationSettings,
    head: HeadSettings,
) -> None:
    """Check the settings against the rows and every model.

    Raises:
        UsageError: a share leaves fewer rows than the task has labels, or a setting does not fit a model or
            this machine.
        DataError: the rows do not fit the task.
    """
    distributed.refuse("few-shot adaptation")
    finetune = settings.finetune
    loop.choose_precision(finetune.training.precision)
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    every = data.load(task, "train", data_folder, cache=cache)
    data.load(task, "validation", data_folder, cache=cache)
    for share in settings.shares:
        training = settings.run(share, settings.seeds[0]).training
        drawn = rows.chosen(every, training)
        rows.check_classes(task, len(drawn), training)
        if finetune.patience and len(drawn) < 2:
            raise UsageError(
                f"share {rows_share_text(share)} leaves 1 training row, and early stopping holds rows out: "
                "use a larger share, or leave patience out.", settings="patience",
            )  # fmt: skip
    for name in models:
        huggingface.check_source(name)
        model, _ = huggingface.pretrained(name, task, head=head)
        checkpoints.check_length(model, finetune.max_length or task.behavior.max_length)
        layer_reduction.check(model, finetune)
