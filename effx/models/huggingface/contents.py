"""What a model is, from its config and tensors, and what effx would have to leave out: refused by name.

A tensor that the model does not use is an error, unless it is known to be without effect: buffers, the heads
of pretraining, and a pooler that the task model does not have.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Collection, Mapping
from typing import Any

from effx import model_files
from effx.errors import one_line
from effx.models import heads
from effx.models.huggingface import pooling
from effx.models.huggingface.folder import ModelFolder, wrong
from effx.models.huggingface.weights import Tensors
from effx.specs import head_labels
from effx.specs.families import POSITIONS_AFTER_PADDING
from effx.specs.heads import Head

_BUFFERS = re.compile(r"(^|\.)embeddings\.(position_ids|token_type_ids)$")
_PRETRAINING = re.compile(
    r"^(cls\.(predictions|seq_relationship)|lm_head|vocab_(transform|layer_norm|projector)|"
    r"(discriminator|generator)_(predictions|lm_head))\."
)
_POOLER = re.compile(r"(^|\.)pooler\.")
_HEADS = re.compile(r"^(classifier|pre_classifier|qa_outputs)\.")
_SIGMOID = "Sigmoid"
_TAKEN_OVER = ("nomic_bert",)
"""Model types whose original code transformers has taken over, so that their files name it."""

_CHUNKED = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert")
"""Model types whose FFN transformers computes in parts of ``chunk_size_feed_forward`` tokens."""
_PADDING_BEFORE = POSITIONS_AFTER_PADDING - {"mpnet"}
"""Model types whose positions begin after ``pad_token_id``; MPNet's begin after 1, whatever it is."""

_RANGES = {
    "layer_norm_eps": (0.0, 1.0), "initializer_range": (0.0, 100.0), "hidden_dropout_prob": (0.0, 1.0),
    "attention_probs_dropout_prob": (0.0, 1.0), "classifier_dropout": (0.0, 1.0), "dropout": (0.0, 1.0),
    "attention_dropout": (0.0, 1.0), "seq_classif_dropout": (0.0, 1.0), "qa_dropout": (0.0, 1.0),
}  # fmt: skip
"""Numbers of a config that transformers does not check: with a negative epsilon, answers can be NaN."""


def check_config(folder: ModelFolder) -> None:
    """Raise for a config that describes more than effx computes.

    Raises:
        UsageError: code of its own, other files of weights, relative position embeddings, a decoder, cross
            attention, quantized weights, another normalisation, no padding token where positions need it,
            an FFN in parts, or a number outside its range.
    """
    config = folder.config
    if code := _own_code(config):
        raise wrong(
            folder.name,
            f"config.json names code of its own for the model (auto_map: {one_line(code, 80)}), and effx "
            "computes the model of transformers: if both compute the same, remove auto_map from config.json",
        )
    _check_weights(folder)
    positions = config.get("position_embedding_type")
    if positions not in (None, "absolute"):
        raise wrong(
            folder.name,
            f"its position embeddings are of type {positions}, which effx does not compute (absolute only); "
            "without them its answers would be wrong",
        )
    for key in ("is_decoder", "add_cross_attention"):
        if config.get(key):
            raise wrong(folder.name, f"config.json says {key}: effx computes encoders only")
    if config.get("quantization_config"):
        raise wrong(
            folder.name,
            "its weights are quantized (quantization_config): import the model before quantization",
        )
    for key, (low, high) in _RANGES.items():
        value = config.get(key)
        if isinstance(value, int | float) and not low <= value < high:
            raise wrong(
                folder.name,
                f"config.json: {key}: expected a number from {low:g} to {high:g}, got {one_line(value, 40)}",
            )
    kind, padding = config.get("model_type"), config.get("pad_token_id", 1)
    if kind in _PADDING_BEFORE and (not isinstance(padding, int) or isinstance(padding, bool)):
        raise wrong(
            folder.name,
            f"config.json: pad_token_id: expected an integer, got {one_line(padding, 40)}: positions of "
            f"{kind} begin after it: set it to the id of the tokenizer's padding token, usually 1",
        )
    parts = config.get("chunk_size_feed_forward")
    if kind in _CHUNKED and isinstance(parts, int) and parts > 0:
        raise wrong(
            folder.name,
            f"config.json: chunk_size_feed_forward is {parts}, and lengths that are no multiple of it "
            "cannot be computed: set it to 0, which gives the same answers",
        )
    architectures = config.get("architectures")
    if architectures is not None and not isinstance(architectures, list):
        raise wrong(
            folder.name, f"config.json: architectures: expected a list, got {one_line(architectures, 40)}"
        )
    if config.get("layer_norm_type") not in (None, "layer_norm"):
        raise wrong(folder.name, f"its normalisation is {config['layer_norm_type']}, not LayerNorm")


def _check_weights(folder: ModelFolder) -> None:
    """Raise where transformers 5 reads other weights than the usual ones, because config.json names them."""
    named, read = folder.config.get("transformers_weights"), model_files.weights_or_index(folder.path)
    if named is None or read is None or (isinstance(named, str) and os.path.normpath(named) == read.name):
        return
    raise wrong(
        folder.name,
        f"config.json names {one_line(named, 80)} as its weights (transformers_weights), and effx reads "
        f"{read.name}: keep the right one of both as {read.name}, and remove the key from config.json",
    )


def _own_code(config: Mapping[str, Any]) -> str | None:
    """Return the class of a model in the repository's own code; None: transformers has its model."""
    named = config.get("auto_map")
    if not isinstance(named, Mapping) or config.get("model_type") in _TAKEN_OVER:
        return None
    return next((str(value) for key, value in named.items() if str(key).startswith("AutoModel")), None)


def head_of(
    folder: ModelFolder,
    tensors: Tensors,
    output_path: str | None,
    token_path: str,
    span_path: str | None,
) -> Head:
    """Return what a model's task head predicts.

    Args:
        folder: of the model.
        tensors: its weights.
        output_path: name of the last Linear of the family's classifiers.
        token_path: name of the Linear of the family's token-classification models.
        span_path: name of the Linear of the family's question-answering models; None: it has none.

    Raises:
        UsageError: the config names other outputs than the head has, or modules.json is damaged.
    """
    config = folder.config
    architecture = one_line((config.get("architectures") or [""])[0], 100)
    suffix = architecture.rpartition("For")[2] if "For" in architecture else ""
    if suffix == "QuestionAnswering" or (
        not suffix and span_path and span_path != output_path and f"{span_path}.weight" in tensors
    ):
        return Head("answer-span", (), architecture or f"it has {span_path}")
    if suffix == "MultipleChoice":
        return Head("other", (), architecture)
    of_tokens = suffix == "TokenClassification"
    weight = tensors.get(f"{token_path if of_tokens else output_path}.weight")
    if weight is None:
        try:
            if pooling.embeds(folder.path):
                return Head("embedding", (), "a model of sentence embeddings")
        except pooling.OtherEncoderError as error:
            raise wrong(folder.name, str(error)) from error
        return Head("none", (), architecture or "no classifier")
    try:
        outputs = head_labels.names_of_outputs(config, weight.shape[0])
    except ValueError as error:
        raise wrong(folder.name, f"the labels of config.json cannot be read ({error})") from error
    except Exception as error:
        raise wrong(folder.name, str(error)) from error
    if of_tokens:
        return Head("token-classification", outputs, f"{architecture}, {len(outputs)} outputs")
    problem = config.get("problem_type")
    description = f"{architecture or 'a classifier'}, {len(outputs)} output{'s' * (len(outputs) > 1)}"
    if problem:
        description += f", problem_type {problem}"
    if problem == "multi_label_classification":
        return Head("multi-label", outputs, description)
    if len(outputs) == 1:
        sigmoid = (activation(folder) or "").endswith(_SIGMOID)
        of_numbers = problem == "regression" and not sigmoid
        return Head("regression", outputs, description, sigmoid=sigmoid, of_numbers=of_numbers)
    if problem == "regression":
        return Head("other", outputs, description)
    return Head("classification", outputs, description)


def other_architecture(folder: ModelFolder, built: str) -> list[str]:
    """Return that a head was saved by another class than the one that it is read as, in words.

    Args:
        folder: of the model.
        built: name of the class of transformers that is built.
    """
    named = one_line((folder.config.get("architectures") or [built])[0], 60)
    if named == built:
        return []
    return [
        f"config.json names {named}: its task head is read as that of {built} of transformers, which may "
        "compute something else"
    ]


def check_unused(
    folder: ModelFolder, unused: Collection[str], *, without_head: bool, pretraining: str | None = None
) -> list[str]:
    """Return what the built model leaves out, in words.

    Args:
        folder: of the model.
        unused: names of the tensors that the built model has no use for.
        without_head: the task head is a new one, so that the model's is left out.
        pretraining: the family's pattern of tensors that only the head of its pretraining uses.

    Raises:
        UsageError: a tensor is left out that may change the model's answers.
    """
    notes = []
    rest = [name for name in unused if not _BUFFERS.search(name)]
    patterns = [(_PRETRAINING, "the head of its pretraining"), (_POOLER, "its pooler")]
    patterns += [(re.compile(pretraining), "the head of its pretraining")] if pretraining else []
    for pattern, what in patterns:
        matched = [name for name in rest if pattern.search(name)]
        rest = [name for name in rest if name not in matched]
        if matched:
            notes.append(f"{what} is not used ({len(matched)} tensors, e.g. {matched[0]})")
    if without_head:
        matched = [name for name in rest if _HEADS.search(name)]
        rest = [name for name in rest if name not in matched]
        if matched:
            notes.append(f"its task head is not used ({len(matched)} tensors, e.g. {matched[0]})")
    if rest:
        raise wrong(
            folder.name,
            f"{len(rest)} of its tensors have no use in the model that its config describes, e.g. "
            f"{sorted(rest)[0]}: leaving them out would change its answers",
        )
    return notes


def activation(folder: ModelFolder) -> str | None:
    """Return the class that a CrossEncoder applies to the outputs; None: no file states it."""
    named = (
        folder.cross_encoder_config.get("activation_fn")  # as version 5.7 writes it
        or heads.activation(folder.config)
        or folder.config.get("sbert_ce_default_activation_function")  # before version 4
    )
    return str(named) if named else None
