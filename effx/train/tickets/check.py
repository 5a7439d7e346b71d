"""Check a search for tickets before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from effx import data
from effx.errors import UsageError
from effx.models import checkpoints, huggingface, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.tickets import TicketSearchSettings
from effx.structure import Structure
from effx.tickets import plan
from effx.tickets import scores as score_files
from effx.train import distributed, layer_reduction, loop, source
from effx.train import rows as training_rows
from effx.train.finetune import checked_encoder


def check(
    task_name: str,
    model_name: str,
    data_folder: DataLocation,
    settings: TicketSearchSettings,
    head: HeadSettings | None = None,
    scores: Mapping[int, Path] | None = None,
) -> None:
    """Check the settings of a search against its rows and its model.

    Args:
        task_name: as :func:`effx.train.finetune` takes it.
        model_name: the pretrained encoder.
        data_folder: file or folder of the rows.
        settings: which tickets, and how to train.
        head: whether the task head of the model is kept or replaced.
        scores: seed -> file of scores by which tickets are pruned.

    Raises:
        UsageError: a level prunes nothing or too much, a setting does not fit the model or this machine, or
            scores are of another encoder.
        ArtifactError: scores are missing or damaged.
        DataError: the rows do not fit the task.
    """
    distributed.refuse("a search for tickets")
    finetune = settings.finetune
    loop.choose_precision(finetune.training.precision)
    cache: data.Cache = {}
    task = data.resolve(task_name, data_folder, cache=cache)
    source.check_trainable(task)
    huggingface.check_source(model_name)
    rows = data.load(task, "train", data_folder, cache=cache)
    if len(data.load(task, "validation", data_folder, cache=cache)) < 2:
        raise UsageError(
            "the super ticket is chosen on a part of the validation rows: expected at least 2 rows."
        )
    model, tokenizer = huggingface.pretrained(model_name, task, head=head)
    max_length = finetune.max_length or task.behavior.max_length
    checkpoints.check_length(model, max_length)
    layer_reduction.check(model, finetune)
    encoder = checked_encoder(model_name, model, tokenizer, max_length, rows.texts, form=task.behavior.form)
    fit = rows.take(training_rows.chosen(rows, finetune.training))
    layer_reduction.reduce_layers(model_name, model, finetune, encoder, fit)
    available = structure(model)
    for level in settings.levels:
        plan.check(available, level, settings.pruning.min_heads, settings.pruning.granularity)
    for path in dict.fromkeys((scores or {}).values()):
        _check_scores(path, available, settings.pruning.granularity)


def _check_scores(path: Path, available: Structure, granularity: str) -> None:
    """Check that a file has a score for every structure of an encoder."""
    scored, about = score_files.read(path)
    layers = [layer.index for layer in available.layers]
    heads = 1 + max((head for layer in available.layers for head in layer.heads), default=-1)
    columns = scored.heads.shape[1]
    if about.get("layers") != layers or len(scored.heads) != len(layers) or columns < heads:
        raise UsageError(
            f"{path} has scores of {len(scored.heads)} layers with {columns} heads, but the model has "
            f"{len(layers)} layers with {heads} heads: scores must be of the same encoder.",
            settings="scores",
        )
    if granularity == "neurons" and scored.neurons is None:
        raise UsageError(f"{path} has no scores of neurons: set granularity to ffns.",
                         settings=("scores", "granularity"))  # fmt: skip
