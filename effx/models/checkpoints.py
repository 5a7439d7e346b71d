"""Models in and out of folders: pretrained encoders, and checkpoints with their structure.

Weights are safetensors only: no pickle is ever loaded. No code from a model's repository runs
unless the caller says so.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from tokenizers import Tokenizer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from effx.artifacts import Checkpoint
from effx.errors import ArtifactError, EffxError, UsageError
from effx.models import exits, families, surgery
from effx.models.structure import (
    Structure,
    full,
    full_parameters,
    parameters,
    parameters_left,
    record,
    structure,
)
from effx.quiet import quiet
from effx.specs.tasks import Task

_WEIGHTS = "model.safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model",
               "tokenizer.model")  # fmt: skip


def pretrained(
    name: str | Path, task: Task, *, trust_remote_code: bool = False, fresh_head: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a pretrained encoder with a head for ``task``, fresh where it has none, and its tokenizer.

    Args:
        name: a folder, a checkpoint of effx's own (its structure stays), or a name on the Hugging
            Face hub.
        task: gives the width and the label names of the head.
        trust_remote_code: run model code that the repository brings.
        fresh_head: a task head that comes with the weights is new too; else it stays where the task's
            outputs are its own.

    Raises:
        UsageError: no such model, no safetensors weights, or an unsupported architecture.
    """
    name = str(name)
    check_source(name, task)
    reduced = Checkpoint.open(name) if Checkpoint.is_at(name) else None
    try:
        with quiet():
            if reduced:
                model = _refitted(load(reduced), task, fresh_head)
            else:
                config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
                families.family_of(config.model_type)
                if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _TOKENIZERS):
                    raise UsageError(f"--model {name}: there is no tokenizer.json or vocab.txt in it.")
                _describe(config, task)
                model, told = _auto(task).from_pretrained(
                    name,
                    config=config,
                    use_safetensors=True,
                    trust_remote_code=trust_remote_code,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # a head of another width gives way to the task's
                )
                new = check_whole(name, model, told)
                if fresh_head and any(key not in new for key, _ in _head(model)):
                    _renew_head(model)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"--model {name}: {reason}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"--model {name}: its tokenizer cannot be written as tokenizer.json.")
    return model, tokenizer


def check_whole(name: str, model: PreTrainedModel, told: Mapping[str, Any]) -> set[str]:
    """Return which tensors are new: those of a task head, and of the pooler before it, may be.

    Args:
        name: the model's.
        model: loaded with whatever fits.
        told: what transformers says of the loading.

    Raises:
        UsageError: the encoder would be trained from random weights, in part or whole.
    """
    encoder = f"{model.base_model_prefix}."
    missing, mismatched = set(told["missing_keys"]), {key for key, *_ in told["mismatched_keys"]}
    absent = {key for key in missing if ".pooler." not in f".{key}"}
    for keys, what in ((absent, "missing"), (mismatched, "of another shape")):
        if wrong := sorted(key for key in keys if key.startswith(encoder)):
            raise UsageError(
                f"--model {name}: its weights do not fit its config: {len(wrong)} of the encoder's tensors "
                f"are {what}, as {wrong[0]}."
            )
    return missing | mismatched


def _describe(config: PreTrainedConfig, task: Task) -> None:
    """Write the task's outputs into a model's config."""
    config.num_labels = task.outputs
    if task.kind == "classification":
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}
        config.problem_type = "single_label_classification"
    elif task.kind == "regression":
        config.problem_type = "regression"


def _unpadded(path: Path, max_length: int | None) -> None:
    """Rewrite tokenizer.json without padding: some pad every row to 128, which plain runtimes attend to."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    if max_length is not None:
        tokenizer.enable_truncation(max_length)
    tokenizer.save(str(path))


def _auto(task: Task) -> Any:
    """Return the class of transformers that puts the task's head on an encoder."""
    if task.kind == "answer-span":
        return AutoModelForQuestionAnswering
    return AutoModelForSequenceClassification


def _refitted(model: PreTrainedModel, task: Task, fresh_head: bool) -> PreTrainedModel:
    """Return a reduced model ready for ``task``: a fresh head, or a last Linear where the outputs differ."""
    kept = structure(model)
    if kept.exits or kept.tokens or kept.token_thresholds:
        raise UsageError(
            "exits and token schedules follow the weights, so they come last: fine-tune the checkpoint "
            "that they were made from, then make them again with effx train exits or tokens."
        )
    if families.answers_spans(model) != (task.kind == "answer-span"):
        raise UsageError(
            f"task '{task.name}' ({task.kind}) wants another kind of head than this checkpoint has: "
            "start from the checkpoint's encoder."
        )
    names = families.family(model)
    path = names.span_head if families.answers_spans(model) else names.head_out
    old = model.get_submodule(path)
    assert isinstance(old, nn.Linear)
    if old.out_features != task.outputs:
        new = nn.Linear(old.in_features, task.outputs)
        _renew(new, model)
        model.set_submodule(path, new)
        model.num_labels = task.outputs
        grown = new.weight.numel() + new.bias.numel() - old.weight.numel() - old.bias.numel()
        model.effx_full_parameters = full_parameters(model) + grown
    if fresh_head:
        _renew_head(model)
    _describe(model.config, task)
    return model


def _head(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the Linears of the task head and the names of their weights; a pooler is the encoder's."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.partition(".")[0] != model.base_model_prefix:
            yield f"{name}.weight", module


def _renew_head(model: PreTrainedModel) -> None:
    for _, module in _head(model):
        _renew(module, model)


def _renew(linear: nn.Linear, model: PreTrainedModel) -> None:
    """Draw a Linear of a task head anew, as the families' own code does."""
    nn.init.normal_(linear.weight, std=float(model.config.initializer_range))
    nn.init.zeros_(linear.bias)


def check_source(name: str, task: Task) -> None:
    """Raise what :func:`pretrained` would, as far as that shows without loading anything."""
    path = Path(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    config = path / "config.json"
    if looks_like_path and not config.is_file():
        raise UsageError(f"--model {name}: there is no folder with a config.json.")
    if config.is_file():
        try:
            json.loads(config.read_bytes())
        except ValueError as error:
            raise UsageError(f"--model {name}: its config.json is not JSON ({error}).") from error


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
    """Write a checkpoint: config, weights, tokenizer and manifest, all or nothing.

    Args:
        model: a task model of a supported family.
        folder: the checkpoint's folder; its name is the checkpoint's name.
        tokenizer: saved beside the weights as tokenizer.json.
        task: what the model was trained for.
        overwrite: replace a folder that exists.
        **manifest: the rest of effx.json: model, seed, training, metrics, parent, max_length...

    Raises:
        UsageError: the folder exists already or cannot be written to.
    """
    families.family(model)
    with Checkpoint.create(folder, overwrite=overwrite) as (temporary, target):
        with quiet():
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(temporary)
            # not model.save_pretrained: some releases of transformers rename parameters on the way
            try:
                save_model(model, str(temporary / _WEIGHTS), metadata={"format": "pt"})
            except SafetensorError as error:  # what is an OSError elsewhere, as a full disk
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
    """Return the model of a checkpoint in eval mode and fp32, its structure rebuilt.

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
    """Build the unreduced model that config.json describes, cut it to ``kept``, fill in the weights."""
    folder = checkpoint.folder
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    families.family_of(config.model_type)
    model: PreTrainedModel = _auto(checkpoint.task).from_config(config, dtype=torch.float32)
    layers = full(model).layers
    if len(layers) != len(kept.layers):
        raise ArtifactError(f"config.json has {len(layers)} layers, effx.json {len(kept.layers)}.")
    placed = [replace(layer, index=known.index) for layer, known in zip(layers, kept.layers, strict=True)]
    record(model, Structure(tuple(placed)))
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
    """Return the names of the arrays that the model takes, in order."""
    names = ["input_ids", "attention_mask"]
    return [*names, "token_type_ids"] if families.family(model).token_types else names


def position_limit(model: PreTrainedModel) -> int:
    """Return the longest input in tokens that the position embeddings allow."""
    limit = int(model.config.max_position_embeddings)
    embeddings = families.embeddings(model)[0]
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    return limit - padding - 1 if padding is not None else limit  # RoBERTa counts from padding + 1


def check_length(model: PreTrainedModel, max_length: int) -> None:
    """Raise :class:`UsageError` for a limit that the model cannot read or no text fits into."""
    limit = position_limit(model)
    if max_length > limit:
        raise UsageError(f"--max-length {max_length}: this model reads {limit} tokens at most.")
    if max_length < 4:
        raise UsageError(f"--max-length {max_length}: at least 4 tokens are needed.")


def name_of(model_name: str) -> str:
    """Return a short name for a model: its own name where it has one, else its folder's."""
    path = Path(model_name)
    config = path / "config.json"
    if config.is_file():
        own = ""
        with contextlib.suppress(ValueError, AttributeError):  # whoever opens it says what is wrong
            own = str(json.loads(config.read_bytes()).get("_name_or_path") or "")
        if own and not own.startswith((".", "/")):
            return own.rsplit("/", 1)[-1]
        return path.resolve().name
    return model_name.rsplit("/", 1)[-1]


def versions() -> dict[str, str]:
    """Return the versions that decide what a checkpoint's numbers are."""
    import effx

    return {
        "effx": effx.__version__,
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }
