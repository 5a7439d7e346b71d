"""Pretrained encoders from a folder or the Hugging Face hub, with a head for a task.

Weights are safetensors only: pickles are never loaded. Code from a model's repository runs only if the
caller allows it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.models import checkpoints, families
from effx.models.structure import full_parameters, structure
from effx.quiet import quiet
from effx.specs.tasks import Task

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model",
               "tokenizer.model")  # fmt: skip


def pretrained(
    name: str | Path, task: Task, *, trust_remote_code: bool = False, fresh_head: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a pretrained encoder with a head for ``task``, new where it has none, and its tokenizer.

    Args:
        name: a folder, an effx checkpoint (it remains reduced), or a name on the Hugging Face hub.
        task: determines the number and names of the head's outputs.
        trust_remote_code: run model code from the model's repository.
        fresh_head: initialise the task head randomly even if the weights have a suitable one.

    Raises:
        UsageError: there is no such model, it has no safetensors weights, or its architecture is not
            supported.
    """
    name = str(name)
    check_source(name, task)
    reduced = Checkpoint.open(name) if Checkpoint.is_at(name) else None
    try:
        with quiet():
            if reduced:
                model = _refitted(checkpoints.load(reduced), task, fresh_head)
            else:
                config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
                families.named(config.model_type)
                if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in _TOKENIZERS):
                    raise UsageError(
                        f"model {name}: the folder has no tokenizer.json or vocab.txt", settings="model"
                    )
                _describe(config, task)
                model, loading_info = checkpoints.auto_class(task).from_pretrained(
                    name,
                    config=config,
                    use_safetensors=True,
                    trust_remote_code=trust_remote_code,
                    dtype=torch.float32,
                    output_loading_info=True,
                    ignore_mismatched_sizes=True,  # a head of another width is replaced
                )
                new = check_encoder(name, model, loading_info)
                if fresh_head and any(key not in new for key, _ in _head(model)):
                    _renew_head(model)
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"model {name}: {reason}", settings="model") from error
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"model {name}: its tokenizer cannot be saved as tokenizer.json", settings="model")
    return model, tokenizer


def check_encoder(name: str, model: PreTrainedModel, loading_info: Mapping[str, Any]) -> set[str]:
    """Return the names of newly initialised tensors, which may be those of a task head or pooler.

    Args:
        name: of the model.
        model: loaded with all weights that fit.
        loading_info: of transformers, from ``from_pretrained``.

    Raises:
        UsageError: a part of the encoder has no weights, so that it would be trained from random ones.
    """
    encoder = f"{model.base_model_prefix}."
    missing, mismatched = (
        set(loading_info["missing_keys"]),
        {key for key, *_ in loading_info["mismatched_keys"]},
    )
    absent = {key for key in missing if ".pooler." not in f".{key}"}
    for keys, what in ((absent, "missing"), (mismatched, "of another shape")):
        if wrong := sorted(key for key in keys if key.startswith(encoder)):
            raise UsageError(
                f"model {name}: its weights do not fit its config: {len(wrong)} of the encoder's tensors "
                f"are {what}, e.g. {wrong[0]}",
                settings="model",
            )
    return missing | mismatched


def _describe(config: PreTrainedConfig, task: Task) -> None:
    """Write the number and names of the task's outputs into a model's config."""
    config.num_labels = task.outputs
    if task.kind == "classification":
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: number for number, label in enumerate(task.labels)}
        config.problem_type = "single_label_classification"
    elif task.kind == "regression":
        config.problem_type = "regression"


def _refitted(model: PreTrainedModel, task: Task, fresh_head: bool) -> PreTrainedModel:
    """Fit the head of a reduced model to ``task``: a new head, or a new last Linear if the outputs differ."""
    kept = structure(model)
    if kept.exits or kept.prunes_tokens:
        raise UsageError(
            "this checkpoint has exits or a token schedule, which depend on its weights: fine-tune the "
            "checkpoint before them, then train exits or tokens again."
        )
    family = families.of(model)
    if family.answers_spans(model) != (task.kind == "answer-span"):
        raise UsageError(
            f"task '{task.name}' ({task.kind}) needs another kind of head than this checkpoint has: "
            "fine-tune the pretrained encoder instead."
        )
    path = family.output_path(model)
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
    """Yield names of weights and Linears of the task head, without the encoder's pooler."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.partition(".")[0] != model.base_model_prefix:
            yield f"{name}.weight", module


def _renew_head(model: PreTrainedModel) -> None:
    for _, module in _head(model):
        _renew(module, model)


def _renew(linear: nn.Linear, model: PreTrainedModel) -> None:
    """Initialise a Linear of a task head randomly, as transformers does."""
    nn.init.normal_(linear.weight, std=float(model.config.initializer_range))
    nn.init.zeros_(linear.bias)


def check_source(name: str, task: Task) -> None:
    """Raise the errors of :func:`pretrained` that can be detected without loading weights."""
    path = Path(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    config = path / "config.json"
    if looks_like_path and not config.is_file():
        raise UsageError(f"model {name}: there is no folder with a config.json", settings="model")
    if config.is_file():
        try:
            json.loads(config.read_bytes())
        except ValueError as error:
            raise UsageError(
                f"model {name}: its config.json is not JSON ({error})", settings="model"
            ) from error


def name_of(model_name: str) -> str:
    """Return a short name for a model: the name in its config, else the name of its folder."""
    path = Path(model_name)
    config = path / "config.json"
    if config.is_file():
        original = ""
        with contextlib.suppress(ValueError, AttributeError):  # loading it reports the error
            original = str(json.loads(config.read_bytes()).get("_name_or_path") or "")
        if original and not original.startswith((".", "/")):
            return original.rsplit("/", 1)[-1]
        return path.resolve().name
    return model_name.rsplit("/", 1)[-1]
