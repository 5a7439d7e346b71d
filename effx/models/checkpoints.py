"""Models in and out of checkpoint folders: weights, tokenizer and the structure that remains.

Weights are safetensors only: pickles are never loaded.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from effx import files
from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, EffxError, UsageError, one_line
from effx.manifests import CheckpointFacts, CheckpointManifest
from effx.models import exits, families, pooling, surgery
from effx.models.heads import head_type
from effx.models.markers import markers, unmarked
from effx.models.structure import full, full_parameters, parameters, parameters_left, record, structure
from effx.quiet import quiet
from effx.specs import sentence_transformers
from effx.specs.tasks import Task
from effx.structure import Structure

_WEIGHTS = "model.safetensors"
_METADATA = {"format": "pt"}
_MAX_LAYERS = 1024
_ROUNDING = 1e-9


def save(
    model: PreTrainedModel,
    folder: str | Path,
    /,
    *,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    overwrite: bool = False,
    **facts: Unpack[CheckpointFacts],
) -> Checkpoint:
    """Write a checkpoint: config, weights, tokenizer and manifest; nothing remains after an error.

    Args:
        model: a task model of a supported family.
        folder: the checkpoint's folder; its name is the checkpoint's name.
        tokenizer: saved as tokenizer.json in the same folder.
        task: what the model was trained for.
        overwrite: replace a folder that exists.
        **facts: what else effx.json states, see :class:`effx.manifests.CheckpointFacts`.

    Raises:
        UsageError: the folder exists already or cannot be written to.
    """
    families.of(model)  # raises for architectures that could not be loaded again
    with Checkpoint.create(folder, overwrite=overwrite) as draft:
        temporary = draft.folder
        with quiet():
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(temporary)
            # not model.save_pretrained: some releases of transformers rename parameters on the way
            try:
                save_model(model, str(temporary / _WEIGHTS), metadata=_METADATA)
            except SafetensorError as error:  # where others raise OSError, e.g. if the disk is full
                raise UsageError(f"cannot write {folder}: {error}.") from error
            _add(temporary / _WEIGHTS, markers(model))
            with files.os_errors(temporary / "tokenizer.json"):
                tokenizer.save_pretrained(temporary)
            _name_class(temporary / "tokenizer_config.json")
            _unpadded(temporary / "tokenizer.json", facts.get("max_length"), tokenizer.truncation_side)
            if families.of(model).embeds(model):
                _write_sentence_files(model, temporary, facts.get("max_length") or position_limit(model))
        derived: CheckpointFacts = {
            "model": Path(str(model.config.name_or_path)).name,
            "max_length": position_limit(model),
            "structure": structure(model),
        }
        derived.update(facts)
        draft.manifest = CheckpointManifest(
            task=task.name,
            task_definition=task,
            versions=versions(),
            parameters=parameters(model),
            full_parameters=full_parameters(model),
            weight_remaining=parameters_left(model) / full_parameters(model),
            **derived,
        )
    return Checkpoint.open(folder)


def _write_sentence_files(model: PreTrainedModel, folder: Path, max_length: int) -> None:
    """Write the files by which sentence-transformers reads a model."""
    pooled = structure(model).head_pooling
    width = int(model.config.hidden_size)
    for name, value in sentence_transformers.contents(pooled, width, max_length).items():
        (folder / name).parent.mkdir(exist_ok=True)
        files.write_json(folder / name, value)


def load(folder: str | Path | Checkpoint) -> PreTrainedModel:
    """Return the model of a checkpoint in eval mode and fp32, with its reduced structure.

    Raises:
        ArtifactError: the checkpoint is missing, damaged, or its weights do not fit.
    """
    checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint.open(folder)
    try:
        with quiet():
            model = _rebuilt(checkpoint)
    except (EffxError, OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = one_line(error, 300)
        raise ArtifactError(f"{checkpoint.folder} cannot be loaded: {reason}") from error
    return model.eval()


def _rebuilt(checkpoint: Checkpoint) -> PreTrainedModel:
    """Build the unreduced model that config.json describes, reduce it as effx.json says, load the weights."""
    folder, manifest = checkpoint.folder, checkpoint.manifest
    recorded = manifest.structure
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    families.named(config.model_type)
    _check_size(config)
    if checkpoint.task.outputs not in (0, config.num_labels):
        raise ArtifactError(
            f"task '{checkpoint.task.name}' has {checkpoint.task.outputs} outputs, config.json "
            f"{config.num_labels}."
        )
    model: PreTrainedModel = head_type(checkpoint.task).auto_class.from_config(config, dtype=torch.float32)
    families.of(model).prepare(model)
    unreduced = full(model).layers
    if len(unreduced) != len(recorded.layers):
        raise ArtifactError(f"config.json has {len(unreduced)} layers, effx.json has {len(recorded.layers)}.")
    numbered = [
        replace(layer, index=other.index) for layer, other in zip(unreduced, recorded.layers, strict=True)
    ]
    record(model, Structure(tuple(numbered)))
    surgery.reduce_to(model, replace(recorded, exits=()))
    if recorded.exits:
        exits.add_ramps(model, recorded.exits, pooling=recorded.exit_pooling)
    pooling.follow(model)
    read_weights(model, folder / _WEIGHTS)
    _check_counts(model, manifest)
    return model


def read_weights(model: PreTrainedModel, path: Path) -> None:
    """Read a checkpoint's weights into a model of its structure.

    Raises:
        ArtifactError: a tensor is missing, or the structure has none of that name.
        RuntimeError: a tensor has another shape.
    """
    if structure(model).head_pooling == "mean":
        missing, unexpected = model.load_state_dict(unmarked(load_file(path)), strict=False)
    else:
        missing, unexpected = load_model(model, str(path), strict=False)
    if others := sorted({*missing, *unexpected} - set(markers(model))):
        raise ArtifactError(f"{path.name} does not fit effx.json: {others[0]} is missing or not expected.")


def _add(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Add tensors to a file of weights."""
    if tensors:
        save_file({**load_file(path), **tensors}, path, metadata=_METADATA)


def _check_size(config: PreTrainedConfig) -> None:
    """Raise :class:`ArtifactError` for a config of a model that no machine could build."""
    layers = int(config.num_hidden_layers)
    if not 1 <= layers <= _MAX_LAYERS:
        raise ArtifactError(f"config.json: expected 1 to {_MAX_LAYERS} layers, got {layers}.")


def _check_counts(model: PreTrainedModel, manifest: CheckpointManifest) -> None:
    """Raise :class:`ArtifactError` unless the manifest states the sizes of the model that was loaded."""
    model.effx_full_parameters = manifest.full_parameters
    if manifest.parameters != parameters(model):
        raise ArtifactError(
            f"effx.json: parameters: expected {parameters(model)}, as the weights, got {manifest.parameters}."
        )
    remaining = parameters_left(model) / manifest.full_parameters
    if abs(manifest.weight_remaining - remaining) > _ROUNDING:
        raise ArtifactError(
            f"effx.json: weight_remaining: expected {remaining:.6f}, got {manifest.weight_remaining:.6f}."
        )
    check_length(model, manifest.max_length)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{_WEIGHTS}: {name} has values that are not finite.")


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a checkpoint."""
    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def input_names(model: PreTrainedModel) -> list[str]:
    """Return the names of the model's input arrays, in order."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if families.of(model).token_types else names


def position_limit(model: PreTrainedModel) -> int:
    """Return the longest input in tokens that the position embeddings allow."""
    return families.of(model).position_limit(model)


def check_length(model: PreTrainedModel, max_length: int) -> None:
    """Raise :class:`UsageError` unless ``max_length`` is from 4 to the model's limit."""
    limit = position_limit(model)
    if max_length > limit:
        raise UsageError(
            f"max_length {max_length}: this model reads at most {limit} tokens", settings="max_length"
        )
    if max_length < 4:
        raise UsageError(f"max_length {max_length}: expected at least 4 tokens", settings="max_length")


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a checkpoint's numbers depend on."""
    import effx

    return {
        "effx": effx.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _name_class(path: Path) -> None:
    """Name the class that reads tokenizer.json as it is by the name that transformers 4 knows too."""
    settings = json.loads(path.read_bytes())
    if settings.get("tokenizer_class") == "TokenizersBackend":
        files.write_json(path, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def _unpadded(path: Path, max_length: int | None, truncation_side: str) -> None:
    """Rewrite tokenizer.json without padding: some tokenizers pad every row to 128 tokens."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    if max_length is not None:
        tokenizer.enable_truncation(max_length, direction=truncation_side)
    tokenizer.save(str(path))
