"""The folder of a model as transformers saves it: its config, its weight files, its tokenizer files.

A name on the Hugging Face hub is downloaded into the cache of huggingface_hub first.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from effx import model_files, records
from effx.errors import ArtifactError, UsageError, one_line
from effx.models import families
from effx.quiet import quiet
from effx.specs.sentence_transformers import POOLING_FILE

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spiece.model", "spm.model", "tokenizer.model")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", *SENTENCEPIECE_FILES)
_MAX_LAYERS = 1024
_ADAPTER = "adapter_config.json"
_DOWNLOADED = [*model_files.PATTERNS]


@dataclass(frozen=True)
class ModelFolder:
    """A folder with config.json, weights and a tokenizer."""

    name: str
    """As the user gave it: a folder or a name on the hub."""
    path: Path
    config: Mapping[str, Any]
    """config.json."""
    weights: tuple[Path, ...]
    """The files of the weights: safetensors where there are any, else pytorch_model.bin."""

    @property
    def tokenizer_config(self) -> Mapping[str, Any]:
        """tokenizer_config.json; empty: there is none."""
        return self._optional("tokenizer_config.json")

    @property
    def cross_encoder_config(self) -> Mapping[str, Any]:
        """config_sentence_transformers.json of a CrossEncoder; empty: there is none."""
        config = self._optional("config_sentence_transformers.json")
        return config if config.get("model_type") == "CrossEncoder" else {}

    def _optional(self, file: str) -> Mapping[str, Any]:
        path = self.path / file
        return _read_json(self.name, path) if os.path.lexists(path) else {}  # a FIFO is refused, not absent


def open_folder(name: str) -> ModelFolder:
    """Return the folder of a model, downloaded if ``name`` is not a folder.

    Raises:
        UsageError: there is no such model, its architecture is not supported, or one of its files is missing,
            unreadable or of a kind that effx does not read.
    """
    check_source(name)
    path = Path(name) if (Path(name) / "config.json").is_file() else _download(name)
    if (path / _ADAPTER).is_file():
        raise wrong(
            name,
            f"it is an adapter ({_ADAPTER}), not a model: load it with peft, call merge_and_unload(), "
            "save the result with save_pretrained, and use that folder",
        )
    config = _read_json(name, path / "config.json")
    families.named(str(config.get("model_type")))
    for key in ("num_hidden_layers", "n_layers"):
        count = config.get(key, 1)
        if not isinstance(count, int) or not 1 <= count <= _MAX_LAYERS:
            raise wrong(name, f"config.json: {key}: expected 1 to {_MAX_LAYERS}, got {one_line(count, 40)}")
    weights = _weight_files(name, path)
    if not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise wrong(name, "the folder has no tokenizer.json or vocab.txt")
    return ModelFolder(name, path, config, weights)


def is_model(path: str | Path) -> bool:
    """Return whether a path is a folder with a config.json of transformers."""
    with contextlib.suppress(ArtifactError):
        return "model_type" in records.read_foreign_json(Path(path) / "config.json")
    return False


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name that is not a path could be a name on the hub, as ``org/model``."""
    text = str(name)
    return not Path(text).exists() and not text.startswith((".", "/", "~")) and text.count("/") == 1


def needs_sentencepiece(folder: ModelFolder) -> bool:
    """Return whether the tokenizer can only be read with the package sentencepiece."""
    present = {file for file in TOKENIZER_FILES if (folder.path / file).is_file()}
    return bool(present) and present <= set(SENTENCEPIECE_FILES)


def check_source(name: str) -> None:
    """Raise the errors of :func:`open_folder` that can be detected without a download.

    Raises:
        UsageError: the folder does not exist, or its config.json is missing or damaged.
    """
    path = Path(name)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or path.exists()
    config = path / "config.json"
    if looks_like_path and (path / _ADAPTER).is_file() and not config.is_file():
        return  # open_folder reports it
    if looks_like_path and not config.is_file():
        raise wrong(name, "there is no folder with a config.json")
    if config.is_file():
        _read_json(name, config)


def recorded_name(model_name: str) -> str:
    """Return a model's name as manifests have it: that on the hub, or that of the folder without its path."""
    return name_of(model_name) if Path(model_name).exists() else model_name


def short_name(recorded: str) -> str:
    """Return a recorded name without the organisation, which a folder with the same model may lack."""
    return recorded.rsplit("/", 1)[-1]


def name_of(model_name: str) -> str:
    """Return a short name for a model: the name in its config, else the name of its folder."""
    path = Path(model_name)
    config = path / "config.json"
    if config.is_file():
        original = ""
        with contextlib.suppress(ArtifactError):  # loading it reports the error
            original = str(records.read_foreign_json(config).get("_name_or_path") or "")
        if original and not original.startswith((".", "/")):
            return re.split(r"[/\\]", original)[-1]
        return path.resolve().name
    return model_name.rsplit("/", 1)[-1]


def wrong(name: str, reason: str, *settings: str) -> UsageError:
    """Return the error for a model: its name, and what is wrong with it."""
    return UsageError(f"model {name}: {reason}", settings=settings or ("model",))


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Silence the libraries that read a model, and report what they raise as its one-line error.

    Raises:
        UsageError: a library could not read the model.
    """
    try:
        with quiet():
            yield
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise wrong(name, one_line(error, 300)) from error


@contextlib.contextmanager
def building(name: str, what: str, file: str) -> Iterator[None]:
    """Report what transformers raises for values of a file that it does not check as the model's error.

    Args:
        name: of the model.
        what: that is built.
        file: from which it is built.

    Raises:
        UsageError: transformers cannot build it.
    """
    try:
        yield
    except (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, UnicodeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise wrong(name, f"transformers cannot build {what} from its {file} ({reason})") from error


def _read_json(name: str, path: Path) -> Mapping[str, Any]:
    try:
        return records.read_foreign_json(path)
    except ArtifactError as error:
        raise wrong(name, str(error)) from error


def _weight_files(name: str, path: Path) -> tuple[Path, ...]:
    try:
        return model_files.weights(path)
    except model_files.ModelFilesError as error:
        raise wrong(name, str(error)) from error


def _download(name: str) -> Path:
    try:
        path = Path(
            huggingface_hub.snapshot_download(name, allow_patterns=_DOWNLOADED, ignore_patterns="*/*")
        )
        if not any(path.glob("*.safetensors")):
            patterns = [*_DOWNLOADED, "pytorch_model*.bin"]
            path = Path(
                huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns="*/*")
            )
    except Exception as error:  # the hub client raises many kinds, without a common base
        reason = one_line(error)
        raise wrong(name, f"no such folder, and it cannot be loaded from the hub: {reason}") from error
    if not (path / "config.json").is_file() and not (path / _ADAPTER).is_file():
        raise wrong(name, "it has no config.json on the hub")
    with contextlib.suppress(Exception):  # most models have none
        huggingface_hub.snapshot_download(name, allow_patterns=POOLING_FILE)
    return path
