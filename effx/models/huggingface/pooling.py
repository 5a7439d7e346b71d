"""How a sentence encoder's output becomes a vector, from the files of sentence-transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx import model_files, records
from effx.errors import ArtifactError, one_line
from effx.specs.sentence_transformers import (
    CONFIG_FILE,
    LENGTH_FILE,
    MODULES_FILE,
    POOLING_FILE,
    POOLING_SWITCHES,
)


@dataclass(frozen=True)
class SentenceEncoder:
    """What the files of sentence-transformers say about a model."""

    pooling: str
    """``mean`` or ``cls``."""
    max_length: int | None
    """Tokens of a text at most; None: it is not stated."""
    lower_case: bool
    """Whether texts are put into lower case before the tokenizer."""
    prompts: tuple[str, ...] = ()
    """Names of the prompts that sentence-transformers puts before queries or documents."""


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
        OtherEncoderError: a module, a pooling, a prompt or a similarity is one that effx does not compute.
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
    config, length = _read(folder / CONFIG_FILE), _read(folder / LENGTH_FILE)
    prompts, default = config.get("prompts"), config.get("default_prompt_name")
    if default is not None and isinstance(prompts, dict) and prompts.get(default):
        raise OtherEncoderError(
            f"sentence-transformers puts the prompt '{one_line(prompts[default], 40)}' before each text, and "
            f"effx does not: add it to the rows, and remove default_prompt_name from {CONFIG_FILE}"
        )
    similarity = config.get("similarity_fn_name")
    if similarity not in (None, "cosine") and "Normalize" not in names:
        raise OtherEncoderError(
            f"its vectors are compared by {one_line(similarity, 40)}: effx compares vectors by their cosine"
        )
    stated = length.get("max_seq_length")
    if stated is not None and (type(stated) is not int or stated < 1):
        raise OtherEncoderError(
            f"{LENGTH_FILE}: max_seq_length: expected an integer >= 1, got {one_line(stated, 40)}"
        )
    known = prompts if isinstance(prompts, dict) else {}
    of_search = tuple(name for name in _SEARCH_PROMPTS if known.get(name))
    return SentenceEncoder(active[0], stated, length.get("do_lower_case") is True, of_search)


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return class name and path of each module of modules.json; empty: there is none.

    Raises:
        OtherEncoderError: it is not a list of modules.
    """
    try:
        return model_files.modules(folder)
    except model_files.ModelFilesError as error:
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
