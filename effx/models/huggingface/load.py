"""Pretrained and fine-tuned encoders as transformers saves them, with a head for a task.

    folder -> config and tensors, checked -> reduced structure -> model of transformers -> head by label names

Code from a model's repository runs only if the caller allows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from effx.artifacts import Checkpoint
from effx.errors import UsageError, one_line
from effx.models import checkpoints, families, heads
from effx.models.families import Family
from effx.models.heads import HeadType
from effx.models.huggingface import contents, reduced, tokenizers, weights
from effx.models.huggingface.folder import (
    ModelFolder,
    building,
    check_source,
    open_folder,
    reading,
    wrong,
)
from effx.models.huggingface.pooling import (
    OtherEncoderError,
    SentenceEncoder,
    TextSettings,
    cross_encoder,
    own_pooling,
    sentence_encoder,
)
from effx.models.huggingface.reduced import Reduction, UnknownStructureError
from effx.models.pooling import set_pooling
from effx.models.structure import full_parameters, structure
from effx.models.surgery import prune
from effx.specs.heads import Head, HeadPlan, HeadSettings, OtherHeadError
from effx.specs.sentence_transformers import MODULES_FILE
from effx.specs.tasks import Task


@dataclass(frozen=True)
class Opened:
    """A model's folder, read and checked; no module is built yet."""

    folder: ModelFolder
    config: PreTrainedConfig
    tensors: weights.Tensors
    """By the names of :attr:`model_class`, at the size that the config describes."""
    head: Head
    reduction: Reduction
    structure: str | None
    """The remaining structure in words; None: nothing was removed."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint of effx that is the source of another one: its manifest says what was removed."""

    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.name

    @property
    def path(self) -> Path:
        """The checkpoint's folder."""
        return self.checkpoint.folder

    @property
    def head(self) -> Head:
        """The task head."""
        task = self.checkpoint.task
        numbers = task.behavior.of_numbers
        reason = f"task '{task.name}', {task.kind}"
        return Head(task.kind, task.labels or ("LABEL_0",), reason, of_numbers=numbers)


@dataclass(frozen=True)
class Loaded:
    """A model with a head for a task, its tokenizer, and what was understood of them."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    head: str
    """The origin of the task head, in words."""
    fresh: bool
    """Whether the last Linear of the task head is new."""
    pooling: str | None = None
    """``mean`` or ``cls``: what the encoder was trained with; None: unknown."""
    max_length: int | None = None
    """Tokens of a text at most, as sentence-transformers cuts them; None: as the tokenizer says."""
    notes: list[str] = field(default_factory=list)
    """What is unusual, in words."""


def pretrained(
    name: str | Path, task: Task, *, trust_remote_code: bool = False, head: HeadSettings | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model and its tokenizer; see :func:`load`."""
    loaded = load(name, task, trust_remote_code=trust_remote_code, head=head)
    return loaded.model, loaded.tokenizer


def load(
    name: str | Path, task: Task, *, trust_remote_code: bool = False, head: HeadSettings | None = None
) -> Loaded:
    """Return an encoder with a head for ``task``, new where it has none for it, and its tokenizer.

    A head is kept if its outputs have the names of the task's labels, in any order; see
    :mod:`effx.specs.head_labels`.

    Args:
        name: a folder, an effx checkpoint (it remains reduced), or a name on the Hugging Face hub.
        task: determines the number and names of the head's outputs.
        trust_remote_code: run model code from the model's repository.
        head: what to do with the model's task head.

    Raises:
        UsageError: there is no such model, part of it would be left out, or its architecture is not
            supported.
        MissingExtraError: its tokenizer needs a package that is not installed.
    """
    name, head = str(name), head or HeadSettings()
    check_source(name)
    with reading(name):
        opened = open_model(name, trust_remote_code=trust_remote_code)
        return build(opened, task, _plan(opened.head, task, head, name), trust_remote_code)


def open_model(name: str, *, trust_remote_code: bool = False) -> Opened | OpenedCheckpoint:
    """Read and check a model's folder, or that of a checkpoint of effx.

    Raises:
        UsageError: as :func:`load`.
    """
    if Checkpoint.is_at(name):
        return OpenedCheckpoint(Checkpoint.open(name))
    folder = open_folder(name)
    contents.check_config(folder)
    with building(folder.name, "a model", "config.json"):
        config = AutoConfig.from_pretrained(folder.path, trust_remote_code=trust_remote_code)
        family = families.named(config.model_type)
        if reason := family.refusal({**folder.config, **config.to_dict()}):
            raise wrong(folder.name, reason)
        skeleton = _skeleton(config, trust_remote_code, heads.HEADS["sequence"])
    prefix = skeleton.base_model_prefix
    tensors = weights.canonical(family.renamed(weights.read(folder)), set(skeleton.state_dict()), prefix)
    output_path = family.output_path(skeleton)
    head = contents.head_of(folder, tensors, output_path, family.token_head, family.span_head)
    reduction, words = Reduction(), None
    if any(key.startswith(f"{family.layers_path}.") for key in tensors):
        try:
            tensors, reduction = reduced.filled_up(skeleton, family, tensors, folder.config)
        except UnknownStructureError as error:
            raise wrong(name, f"its weights do not fit its config: {error}") from error
    if reduction:
        counts = family.heads(skeleton), family.neurons(skeleton), len(family.layers(skeleton))
        words = reduction.describe(*counts)
    if hasattr(config, "pruned_heads"):
        del config.pruned_heads  # from here on the manifest says which heads remain
    return Opened(folder, config, tensors, head, reduction, words)


def _plan(head: Head, task: Task, settings: HeadSettings, name: str) -> HeadPlan:
    """Decide what becomes of a model's head where a new one is allowed, as in fine-tuning."""
    if head.kind in ("none", "embedding") and task.behavior.head != "embedding":
        if settings.keep_head or settings.labels:
            raise wrong(name, "it has no task head", "keep_head", "labels")
        return HeadPlan("new (the model has none)", keep=False)
    if settings.fresh_head:
        return HeadPlan("new, as requested", keep=False, whole=True)
    try:
        return task.behavior.match_head(head, task.labels, settings)
    except OtherHeadError as error:
        if settings.keep_head or settings.labels:
            raise wrong(name, str(error), "keep_head", "labels") from error
        return HeadPlan(f"new: {error}", keep=False)


def build(
    opened: Opened | OpenedCheckpoint, task: Task, plan: HeadPlan, trust_remote_code: bool = False
) -> Loaded:
    """Build the model of transformers, with the head as planned, and reduce it.

    Raises:
        UsageError: a tensor would be left out, or part of the encoder has no weights; a checkpoint has exits
            or a token schedule, or another kind of head.
    """
    if isinstance(opened, OpenedCheckpoint):
        return _from_checkpoint(opened.checkpoint, task, plan)
    folder, config, tensors = opened.folder, opened.config, dict(opened.tensors)
    family = families.named(config.model_type)
    if task.behavior.head == "span" and family.span_head is None:
        raise wrong(
            folder.name, f"transformers has no model for question answering of type {config.model_type}"
        )
    activation = contents.activation(folder) if plan.keep else None
    heads.describe(config, task, plan.names(opened.head.outputs), activation)
    skeleton = _skeleton(config, trust_remote_code, heads.head_type(task))
    known = set(skeleton.state_dict())
    path, embeds = family.output_path(skeleton), family.embeds(skeleton)
    encoder, texts = _sentence_files(folder, embeds, plan)
    unused = [key for key in tensors if key not in known]
    notes = contents.check_unused(
        folder, unused, without_head=not plan.keep, pretraining=family.pretraining_head
    )
    if path is None:
        pass
    elif plan.keep:
        notes += contents.other_architecture(folder, type(skeleton).__name__)
        _arrange(tensors, path, plan)
        if plan.two_logits:  # sentence-transformers would apply the activation to both
            _forget_activation(config)
    else:
        for name in [name for name, _ in _head(skeleton)] if plan.whole else [path]:
            tensors.pop(f"{name}.weight", None), tensors.pop(f"{name}.bias", None)
    model, info = type(skeleton).from_pretrained(
        None,
        config=config,
        state_dict={key: tensor for key, tensor in tensors.items() if key in known},
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    family.prepare(model)
    new = check_encoder(folder.name, model, info)
    if plan.keep and (absent := sorted(new)):
        raise wrong(folder.name, f"its weights are incomplete: {', '.join(absent)}")
    if opened.reduction:
        prune(model, heads=opened.reduction.heads, neurons=opened.reduction.neurons)
    of_words = task.behavior.of_words
    read = tokenizers.load(
        folder, trust_remote_code=trust_remote_code, prefix_space=of_words and not plan.keep
    )
    tokenizer = read.tokenizer
    if read.rebuilt:
        notes.append(
            f"its {read.followed} is followed: transformers {transformers.__version__} would build "
            f"{' and '.join(read.rebuilt)} of its tokenizer anew, and can give other token ids"
        )
    if read.unlike is not None:
        notes.append(
            f"its tokenizer, as transformers {transformers.__version__} builds it, divides texts such as "
            f"'{one_line(read.unlike)}' into other tokens than its SentencePiece model does: right only if "
            "the model was trained in the same way"
        )
    tokenizers.check_vocabulary(folder.name, tokenizer, model.get_input_embeddings().num_embeddings)
    notes += tokenizers.without_effect(folder)
    notes += tokenizers.notes(tokenizer, token_types=family.token_types, of_words=of_words)
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)  # to be saved with it
    if opened.structure:
        notes.append(f"it is a reduced model: {opened.structure}")
    if texts.lower_case and not tokenizers.ignores_case(tokenizer):
        raise wrong(
            folder.name,
            "sentence-transformers puts texts into lower case before its tokenizer, and effx does not",
        )
    if not embeds:
        pooling = own_pooling(folder.path)
        return Loaded(model, tokenizer, plan.words, not plan.keep, pooling, texts.max_length, notes)
    if encoder is None:
        notes.append(
            f"it has no {MODULES_FILE}: its tokens are pooled by their mean, as by sentence-transformers"
        )
    if encoder is not None and encoder.prompts and task.behavior.form == "documents":
        raise wrong(
            folder.name,
            f"sentence-transformers puts the prompt '{encoder.prompts[0]}' before texts of a search, and "
            "effx does not: add the prompts to the queries and documents, and remove them from the model's "
            "config_sentence_transformers.json",
        )
    pooling = encoder.pooling if encoder else own_pooling(folder.path) or "mean"
    set_pooling(model, pooling)
    return Loaded(model, tokenizer, plan.words, False, pooling, texts.max_length, notes)


def _sentence_files(
    folder: ModelFolder, embeds: bool, plan: HeadPlan
) -> tuple[SentenceEncoder | None, TextSettings]:
    """Return what the files of sentence-transformers say, where the model's answers depend on it."""
    try:
        if embeds:
            encoder = sentence_encoder(folder.path)
            return encoder, TextSettings() if encoder is None else encoder.texts
        return None, cross_encoder(folder.path) if plan.keep else TextSettings()
    except OtherEncoderError as error:
        raise wrong(folder.name, str(error)) from error


def _arrange(tensors: weights.Tensors, path: str, plan: HeadPlan) -> None:
    """Permute the rows of a head's last Linear, or add the row of a class whose logit is 0."""
    for key in (f"{path}.weight", f"{path}.bias"):
        if key in tensors and plan.two_logits:
            tensors[key] = torch.cat([torch.zeros_like(tensors[key]), tensors[key]])
        if key in tensors and plan.order is not None:
            tensors[key] = tensors[key][list(plan.order)]


def _skeleton(config: PreTrainedConfig, trust_remote_code: bool, head: HeadType) -> PreTrainedModel:
    """Return the task model of a config without memory for its weights."""
    with torch.device("meta"):
        model: PreTrainedModel = head.auto_class.from_config(config, trust_remote_code=trust_remote_code)
    return model


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
        if wrong_keys := sorted(key for key in keys if key.startswith(encoder)):
            raise wrong(
                name,
                f"its weights do not fit its config: {len(wrong_keys)} of the encoder's tensors are {what}, "
                f"e.g. {wrong_keys[0]}",
            )
    return missing | mismatched


def _from_checkpoint(checkpoint: Checkpoint, task: Task, plan: HeadPlan) -> Loaded:
    """Return the model of a checkpoint, which stays reduced, with a head for another or the same task."""
    model = checkpoints.load(checkpoint)
    remaining = structure(model)
    if remaining.exits or remaining.prunes_tokens:
        raise UsageError(
            "this checkpoint has exits or a token schedule, which depend on its weights: fine-tune the "
            "checkpoint before them, then train exits or tokens again."
        )
    family = families.of(model)
    if checkpoint.task.behavior.head != task.behavior.head:
        raise UsageError(
            f"task '{task.name}' ({task.kind}) needs another kind of head than this checkpoint has: "
            "fine-tune the pretrained encoder instead."
        )
    known = tuple(model.config.id2label[number] for number in sorted(model.config.id2label))
    _refit(model, family, task, plan)
    activation = heads.activation(vars(model.config)) if plan.keep else None
    heads.describe(model.config, task, plan.names(known), activation)
    if task.behavior.head == "sequence" and task.outputs != 1:
        _forget_activation(model.config)
    tokenizer = checkpoints.tokenizer(checkpoint.folder)
    fresh = not plan.keep and not family.embeds(model)
    return Loaded(model, tokenizer, plan.words, fresh, remaining.head_pooling)


def _refit(model: PreTrainedModel, family: Family, task: Task, plan: HeadPlan) -> None:
    """Permute the outputs of a model's head, or replace it; a model without a head stays as it is."""
    path = family.output_path(model)
    if path is None:
        return
    old = model.get_submodule(path)
    assert isinstance(old, nn.Linear)
    if plan.keep:
        state = {f"{path}.weight": old.weight.data, f"{path}.bias": old.bias.data}
        _arrange(state, path, plan)
        new = _resized(model, path, len(state[f"{path}.bias"]))
        new.weight.data, new.bias.data = state[f"{path}.weight"], state[f"{path}.bias"]
        return
    _resized(model, path, task.outputs)
    for module in [module for _, module in _head(model)] if plan.whole else [model.get_submodule(path)]:
        nn.init.normal_(module.weight, std=float(model.config.initializer_range))  # as transformers does
        nn.init.zeros_(module.bias)


def _resized(model: PreTrainedModel, path: str, outputs: int) -> nn.Linear:
    """Return the last Linear of a model's head; a new one takes its place if it has other outputs."""
    old = model.get_submodule(path)
    assert isinstance(old, nn.Linear)
    if old.out_features == outputs:
        return old
    new = nn.Linear(old.in_features, outputs)
    model.set_submodule(path, new)
    model.num_labels = outputs
    grown = new.weight.numel() + new.bias.numel() - old.weight.numel() - old.bias.numel()
    model.effx_full_parameters = full_parameters(model) + grown
    return new


def _forget_activation(config: PreTrainedConfig) -> None:
    """Remove the function that a CrossEncoder applies to a single output from a config."""
    for key in ("sentence_transformers", "sbert_ce_default_activation_function"):
        config.__dict__.pop(key, None)


def _head(model: PreTrainedModel) -> Iterator[tuple[str, nn.Linear]]:
    """Yield names and Linears of the task head, without the encoder's pooler."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.partition(".")[0] != model.base_model_prefix:
            yield name, module
