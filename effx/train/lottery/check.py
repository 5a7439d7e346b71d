"""Check a search for lottery tickets before anything is trained."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel

from effx import data, progress
from effx.errors import UsageError
from effx.models import huggingface, sparse
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.lottery import LotterySearchSettings
from effx.train import distributed, source
from effx.train.layer_reduction import reduce_by_position
from effx.train.lottery import language, masks, start
from effx.train.lottery.result import EXACT


def check(
    task_name: str,
    model_name: str,
    data_folder: DataLocation,
    settings: LotterySearchSettings,
    head: HeadSettings | None = None,
) -> None:
    """Check what can be checked before the first round.

    Raises:
        UsageError: a setting or the model is wrong.
        DataError: the rows do not fit the task.
        ArtifactError: the mask is damaged, or fits another model.
    """
    distributed.refuse("a search for lottery tickets")
    search = settings.search
    for key, path in (("mask", search.mask), ("text", search.mlm.text)):
        if path is not None and not Path(path).is_file():
            raise UsageError(f"{key} {path}: no such file.", settings=key)
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    huggingface.check_source(model_name)
    data.load(task, "train", data_folder, cache=cache)
    data.load(task, "validation", data_folder, cache=cache)
    if search.objective == "mlm" and search.mask is None:
        language.check(
            model_name, search.mlm, settings.finetune,
            usual_length=None if search.mlm.text else task.behavior.max_length,
        )  # fmt: skip
    given = masks.read(Path(search.mask)) if search.mask else None
    model, _ = huggingface.pretrained(model_name, task, head=head)
    check_dense(model_name, model)
    if given is None and "shuffled" not in settings.init:
        return
    reduce_by_position(model, settings.finetune)
    if given is not None and search.mask is not None:
        found_for, name = masks.model_of(Path(search.mask)), masks.recorded_name(model_name)
        masks.check_fit(given, model, found_for)
        if found_for is not None and huggingface.short_name(found_for.name) != huggingface.short_name(name):
            progress.say(
                f"{search.mask} was found for model {found_for.name}, and this one is called {name}: if "
                "it has other pretrained weights, the mask has no meaning for it."
            )
    if "shuffled" in settings.init:
        start.check_shuffle(model)


def check_dense(name: str, model: PreTrainedModel) -> None:
    """Raise :class:`UsageError` if weights that masks are for are zero before, as in a lottery ticket.

    They would remain zero in the full model, and in every ticket in addition to those of its mask.
    """
    counted = sparse.counts(model)
    if counted.share > EXACT:
        raise UsageError(
            f"model {name} is sparse: {counted.share:.1%} of its weights are zero before any mask, so that "
            "the percentages of the tickets would be wrong: use the model that it was made from.",
            settings="model",
        )
