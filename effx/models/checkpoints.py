"""Models in and out of checkpoint folders: weights, tokenizer and the structure that remains.

Weights are safetensors only: pickles are never loaded.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, EffxError, UsageError
from effx.models import exits, families, surgery
from effx.models.structure import full, full_parameters, parameters, parameters_left, record, structure
from effx.quiet import quiet
from effx.specs.tasks import Task
from effx.structure import Structure

_WEIGHTS = "model.safetensors"


def save(
    model: PreTrainedModel,
    folder: str | Path,
    /,
    *,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    overwrite: bool = False,
    **manifest: Any,
) -> Checkpoint:
    """Write a checkpoint: config, weights, tokenizer and manifest; nothing remains after an error.

    Args:
        model: a task model of a supported family.
        folder: the checkpoint's folder; its name is the checkpoint's name.
        tokenizer: saved as tokenizer.json in the same folder.
        task: what the model was trained for.
        overwrite: replace a folder that exists.
        **manifest: the rest of effx.json: model, seed, training, metrics, parent, max_length...

    Raises:
        UsageError: the folder exists already or cannot be written to.
    """
    families.of(model)  # raises for architectures that could not be loaded again
    with Checkpoint.create(folder, overwrite=overwrite) as (temporary, target):
        with quiet():
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(temporary)
            # not model.save_pretrained: some releases of transformers rename parameters on the way
            try:
                save_model(model, str(temporary / _WEIGHTS), metadata={"format": "pt"})
            except SafetensorError as error:  # where others raise OSError, e.g. if the disk is full
                raise UsageError(f"cannot write {folder}: {error}.") from error
            tokenizer.save_pretrained(temporary)
            _unpadded(temporary / "tokenizer.json", manifest.get("max_length"))
        target |= {
            "task": task.name,
            "task_definition": task.to_json(),
            "model": str(model.config.name_or_path),
            "seed": 0,
            "training": {},
            "metrics": {},
            "parent": None,
            "max_length": position_limit(model),
            "versions": versions(),
            "structure": structure(model).to_json(),
            "parameters": parameters(model),
            "full_parameters": full_parameters(model),
            "weight_remaining": parameters_left(model) / full_parameters(model),
        }
        target |= manifest
    return Checkpoint.open(folder)


def load(folder: str | Path | Checkpoint) -> PreTrainedModel:
    """Return the model of a checkpoint in eval mode and fp32, with its reduced structure.

    Raises:
        ArtifactError: the checkpoint is missing, damaged, or its weights do not fit.
    """
    checkpoint = folder if isinstance(folder, Checkpoint) else Checkpoint.open(folder)
    try:
        kept = Structure.from_json(checkpoint.manifest["structure"])
        with quiet():
            model = _rebuilt(checkpoint, kept)
    except (EffxError, OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ArtifactError(f"{checkpoint.folder} cannot be loaded: {reason}") from error
    model.effx_full_parameters = int(checkpoint.manifest.get("full_parameters", parameters_left(model)))
    return model.eval()


def _rebuilt(checkpoint: Checkpoint, kept: Structure) -> PreTrainedModel:
    """Build the unreduced model that config.json describes, reduce it to ``kept`` and load the weights."""
    folder = checkpoint.folder
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    families.named(config.model_type)
    model: PreTrainedModel = auto_class(checkpoint.task).from_config(config, dtype=torch.float32)
    layers = full(model).layers
    if len(layers) != len(kept.layers):
        raise ArtifactError(f"config.json has {len(layers)} layers, effx.json has {len(kept.layers)}.")
    numbered = [replace(layer, index=other.index) for layer, other in zip(layers, kept.layers, strict=True)]
    record(model, Structure(tuple(numbered)))
    surgery.reduce_to(model, replace(kept, exits=()))
    if kept.exits:
        exits.add_ramps(model, kept.exits, pooling=kept.exit_pooling)
    load_model(model, str(folder / _WEIGHTS))
    return model


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


def _unpadded(path: Path, max_length: int | None) -> None:
    """Rewrite tokenizer.json without padding: some tokenizers pad every row to 128 tokens."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    tokenizer.save(str(path))


def auto_class(task: Task) -> Any:
    """Return the class of transformers that adds the task's head to an encoder."""
    if task.kind == "answer-span":
        return AutoModelForQuestionAnswering
    return AutoModelForSequenceClassification
