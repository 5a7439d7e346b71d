"""What the files of sentence-transformers say: how texts are read, and how an output becomes a vector.

A key that changes the model's answers in a way that effx does not compute is refused, and so is one that effx
does not know, unless it has no value.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import model_files, records
from effx.errors import ArtifactError, one_line, printable
from effx.specs.sentence_transformers import (
    CONFIG_FILE,
    LENGTH_FILES,
    MODULES_FILE,
    POOLING_FILE,
    POOLING_SWITCHES,
)


@dataclass(frozen=True)
class TextSettings:
    """How sentence-transformers reads the texts of a model."""

    max_length: int | None = None
    """Tokens of a text at most; None: it is not stated."""
    lower_case: bool = False
    """Whether texts are put into lower case before the tokenizer."""


@dataclass(frozen=True)
class SentenceEncoder:
    """What the files of sentence-transformers say about a model of embeddings."""

    pooling: str
    """``mean`` or ``cls``."""
    texts: TextSettings
    prompts: tuple[str, ...] = ()
    """Names of the prompts that sentence-transformers puts before queries or documents."""


CROSS_ENCODER = "CrossEncoder"
_TYPES = (None, "SentenceTransformer", CROSS_ENCODER)
_CONFIG_KEYS = ("__version__", "model_type", "prompts", "default_prompt_name", "similarity_fn_name",
                "activation_fn", "keep_in_fp32_modules", "requirements", "version")  # fmt: skip
"""Keys of config_sentence_transformers.json that are read, or that change no answer in fp32."""
_LENGTH_KEYS = ("max_seq_length", "do_lower_case", "transformer_task", "modality_config",
                "module_output_name", "unpad_inputs")  # fmt: skip
"""Likewise, of sentence_bert_config.json."""
_OUTPUTS = {"feature-extraction": "last_hidden_state", "sequence-classification": "logits"}
"""Task of the model in sentence-transformers -> the output that it uses."""
_MODEL_KEYS = ("model_args", "model_kwargs")
_WITHOUT_EFFECT = ("add_pooling_layer", "attn_implementation", "dtype", "torch_dtype", "trust_remote_code")
"""Arguments of a model that change no answer in fp32, or that sentence-transformers ignores."""
_SEARCH_PROMPTS = ("query", "document", "passage", "corpus")
"""Names of the prompts that ``encode_query`` and ``encode_document`` of sentence-transformers use."""


class OtherEncoderError(Exception):
    """A sentence encoder computes something that effx does not; the message says what."""


def own_pooling(folder: Path) -> str | None:
    """Return ``mean`` or ``cls`` as a model's pooling config says; None: there is none, or it is another."""
    config = _read(folder / POOLING_FILE)
    active = _active(config)
    return active[0] if len(active) == 1 and active[0] in POOLING_SWITCHES.values() else None


def embeds(folder: Path) -> bool:
    """Whether a folder is that of a model of sentence-transformers that pools tokens into a vector."""
    return "Pooling" in [name for name, _ in _modules(folder)]


def sentence_encoder(folder: Path) -> SentenceEncoder | None:
    """Return what the files of sentence-transformers say; None: there are none.

    Raises:
        OtherEncoderError: a module, a pooling, a prompt, a similarity or a setting is one that effx does not
            compute.
    """
    modules = _modules(folder)
    if not modules:
        return None
    names = [name for name, _ in modules]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise OtherEncoderError(
            f"{MODULES_FILE} has the modules {', '.join(names)}: expected Transformer, Pooling and Normalize"
        )
    if modules[0][1]:
        raise OtherEncoderError(
            f"{MODULES_FILE}: the Transformer is in {modules[0][1]}, and expected in the folder itself"
        )
    active = _active(_read(model_files.module_config(folder, modules[1][1])))
    if len(active) != 1 or active[0] not in POOLING_SWITCHES.values():
        raise OtherEncoderError(
            f"its pooling is {' and '.join(active) or 'not stated'}: effx computes mean and cls"
        )
    config, texts = _config(folder), _text_settings(folder, "feature-extraction")
    similarity = config.get("similarity_fn_name")
    if similarity not in (None, "cosine") and "Normalize" not in names:
        raise OtherEncoderError(
            f"its vectors are compared by {one_line(similarity, 40)}: effx compares vectors by their cosine"
        )
    prompts = config.get("prompts")
    known = prompts if isinstance(prompts, dict) else {}
    of_search = tuple(name for name in _SEARCH_PROMPTS if known.get(name))
    return SentenceEncoder(active[0], texts, of_search)


def cross_encoder(folder: Path) -> TextSettings:
    """Return what the files of a CrossEncoder of sentence-transformers say of its texts; defaults: nothing.

    Raises:
        OtherEncoderError: a module, a prompt or a setting is one that effx does not compute.
    """
    if _read(folder / CONFIG_FILE).get("model_type") != CROSS_ENCODER:
        return TextSettings()
    _config(folder)
    modules = _modules(folder)
    if modules and modules != [("Transformer", "")]:
        raise OtherEncoderError(
            f"{MODULES_FILE} has the modules {', '.join(name for name, _ in modules)}: expected Transformer "
            "alone, in the folder itself"
        )
    return _text_settings(folder, "sequence-classification") if modules else TextSettings()


def _config(folder: Path) -> dict[str, Any]:
    """Return config_sentence_transformers.json.

    Raises:
        OtherEncoderError: it has a prompt for every text, or a key that effx does not compute.
    """
    config = _stated(folder / CONFIG_FILE)
    _check_keys(CONFIG_FILE, config, _CONFIG_KEYS)
    if config.get("model_type") not in _TYPES:
        raise OtherEncoderError(
            f"{CONFIG_FILE} says {one_line(config['model_type'], 40)}: effx computes SentenceTransformer and "
            f"{CROSS_ENCODER}"
        )
    prompts, default = config.get("prompts"), config.get("default_prompt_name")
    if default is not None and isinstance(prompts, dict) and prompts.get(default):
        raise OtherEncoderError(
            f"sentence-transformers puts the prompt '{one_line(prompts[default], 40)}' before each text, and "
            f"effx does not: add it to the rows, and remove default_prompt_name from {CONFIG_FILE}"
        )
    return config


def _text_settings(folder: Path, task: str) -> TextSettings:
    """Return what the file with the maximum length says.

    Args:
        folder: of the model.
        task: of the model in sentence-transformers.

    Raises:
        OtherEncoderError: it has a key that effx does not compute.
    """
    name, stated = next(
        ((name, stated) for name in LENGTH_FILES if (stated := _stated(folder / name))), (LENGTH_FILES[0], {})
    )
    for key in _MODEL_KEYS:
        if isinstance(given := stated.get(key), dict):
            _check_keys(f"{name}: {key}", given, _WITHOUT_EFFECT)
    _check_keys(name, stated, (*_LENGTH_KEYS, *_MODEL_KEYS))
    if stated.get("transformer_task", task) != task:
        raise OtherEncoderError(f"{name}: transformer_task: effx computes {task}")
    how = stated.get("modality_config", {})
    of_text = how.get("text", {}) if isinstance(how, dict) else None
    expected = {"method": "forward", "method_output_name": _OUTPUTS[task]}
    if not isinstance(of_text, dict) or {**expected, **of_text} != expected:
        raise OtherEncoderError(
            f"{name}: modality_config: effx computes {_OUTPUTS[task]} of forward, got {one_line(how, 60)}"
        )
    length = stated.get("max_seq_length")
    if length is not None and (type(length) is not int or length < 1):
        raise OtherEncoderError(
            f"{name}: max_seq_length: expected an integer >= 1, got {one_line(length, 40)}"
        )
    return TextSettings(length, stated.get("do_lower_case") is True)


def _check_keys(where: str, stated: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise :class:`OtherEncoderError` for a key with a value that effx does not know."""
    for key, value in stated.items():
        if key not in known and value not in (None, False, "", [], {}):
            raise OtherEncoderError(f"{where}: effx does not compute {printable(key)}: {one_line(value, 60)}")


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return class name and path of each module of modules.json; empty: there is none.

    Raises:
        OtherEncoderError: it is not a list of modules.
    """
    try:
        return model_files.modules(folder)
    except model_files.ModelFilesError as error:
        raise OtherEncoderError(str(error)) from error


def _stated(path: Path) -> dict[str, Any]:
    """Return a JSON file; empty: there is none.

    Raises:
        OtherEncoderError: it is damaged.
    """
    if not os.path.lexists(path):
        return {}
    try:
        return dict(records.read_foreign_json(path))
    except ArtifactError as error:
        raise OtherEncoderError(str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(records.read_foreign_json(path))
    except ArtifactError:  # no such file, usually
        return {}


def _active(config: dict[str, Any]) -> list[str]:
    """Return the poolings of a config: ``pooling_mode``, or one switch ``pooling_mode_KIND`` per kind."""
    mode = config.get("pooling_mode")
    if isinstance(mode, str):
        return [mode]
    on = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    return [POOLING_SWITCHES.get(key, key.removeprefix("pooling_mode_")) for key in on]
