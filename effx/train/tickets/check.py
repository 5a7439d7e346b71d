"""Check a search for tickets before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from effx import data, progress
from effx.errors import UsageError
from effx.models import checkpoints, families, huggingface, structure
from effx.specs.data import DataLocation
from effx.specs.heads import HeadSettings
from effx.specs.tickets import TicketSearchSettings
from effx.structure import Layer
from effx.tickets import plan
from effx.tickets import scores as score_files
from effx.tickets.scores import Importance
from effx.train import distributed, layer_reduction, loop, source
from effx.train import rows as training_rows
from effx.train.finetune import checked_encoder
from effx.train.lottery.masks import recorded_name


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
            scores are of other layers, heads or neurons, or lack some.
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
        _check_scores(path, recorded_name(model_name), model, settings.pruning.granularity)


def _check_scores(path: Path, name: str, model: PreTrainedModel, granularity: str) -> None:
    """Check that scores are of an encoder, and that every structure of it has one.

    Args:
        path: of the file.
        name: of the encoder, as manifests have it.
        model: the encoder, reduced as it is before tickets are pruned.
        granularity: one of :data:`effx.specs.tickets.GRANULARITIES`.
    """
    scored, about = score_files.read(path)
    found = score_files.encoder(path, about)
    if found is not None and huggingface.short_name(found.model) != huggingface.short_name(name):
        progress.say(f"the scores in {path} are of the encoder {found.model}, and the tickets of {name}")
    family, available = families.of(model), structure(model)
    layers, heads, neurons = [layer.index for layer in available.layers], family.heads(model), None
    if granularity == "neurons":
        if scored.neurons is None:
            raise UsageError(f"{path} has no scores of neurons: set granularity to ffns.",
                             settings=("scores", "granularity"))  # fmt: skip
        neurons = family.neurons(model)
    recorded = [about.get("layers")]
    if found is not None:
        recorded.append([layer.index for layer in found.structure.layers])
    other_layers = any(numbers != layers for numbers in recorded) or len(scored.heads) != len(layers)
    if other_layers or scored.heads.shape[1] != heads:
        raise _other(
            path,
            f"are of {len(scored.heads)} layers with {scored.heads.shape[1]} heads, but the model has "
            f"{len(layers)} layers with {heads} heads",
        )
    if neurons is not None and scored.neurons is not None and scored.neurons.shape[1] != neurons:
        raise _other(
            path, f"are of {scored.neurons.shape[1]} neurons per layer, but the model has {neurons} neurons"
        )
    for position, layer in enumerate(available.layers):
        lost = _unscored(scored, None if found is None else found.structure.layers[position], position, layer)
        if lost is not None:
            raise _other(
                path, f"lack {lost} of layer {layer.index} (from 0), which the scored model did not have"
            )


def _unscored(scored: Importance, before: Layer | None, position: int, layer: Layer) -> str | None:
    """Return what a layer has and the scored one had not, in words; None: nothing.

    Args:
        scored: the scores.
        before: the layer that was scored; None: it is not recorded, and a score of exactly 0 is taken for a
            head or FFN that had been removed.
        position: of the layer.
        layer: of the encoder.
    """
    if before is None:
        heads = {head for head in layer.heads if scored.heads[position, head] == 0}
        return _heads(heads) or ("the FFN" if layer.intermediate and scored.ffns[position] == 0 else None)
    if heads := set(layer.heads) - set(before.heads):
        return _heads(heads)
    neurons = set(layer.neuron_indices) - set(before.neuron_indices)
    if not neurons:
        return None
    return "neurons of the FFN" if before.intermediate else "the FFN"


def _heads(heads: set[int]) -> str | None:
    return f"head {min(heads)}" if heads else None


def _other(path: Path, reason: str) -> UsageError:
    return UsageError(
        f"the scores in {path} {reason}: scores must be of the same encoder.", settings="scores"
    )
