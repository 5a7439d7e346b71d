"""The files that decide what a model's folder, as transformers saves it, is: without PyTorch.

:mod:`effx.models.huggingface` opens them, and the keys of cells have their digests
(:meth:`effx.recipe.graph.digests.Digests.model`): what is loaded is what is counted.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from effx import records
from effx.errors import ArtifactError, EffxError, printable
from effx.specs.sentence_transformers import MODULES_FILE, POOLING_FILE

PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Configs, tokenizer files and weights; pickled weights are :func:`weights` where there are no others."""
_CODE = "*.py"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_OTHER_WEIGHTS = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "model.onnx", "openvino_model.xml")


class ModelFilesError(EffxError):
    """A file is missing or damaged; the message says which."""


def deciding(folder: Path) -> list[Path]:
    """Return the files that decide what is loaded from a folder, sorted; damaged indices name none.

    Args:
        folder: of a model.
    """
    paths = {path for pattern in (*PATTERNS, _CODE, POOLING_FILE) for path in folder.glob(pattern)}
    with contextlib.suppress(ModelFilesError):  # whoever loads the model reports it
        paths |= {*weights(folder)}
    with contextlib.suppress(ModelFilesError):
        paths |= {module_config(folder, inside) for _, inside in modules(folder)}
    return sorted(path for path in paths if path.is_file())


def weights(folder: Path) -> tuple[Path, ...]:
    """Return the files of the weights: safetensors where there are any, else pytorch_model.bin.

    Raises:
        ModelFilesError: there are none, a shard is missing, or the index of shards is damaged.
    """
    path = weights_or_index(folder)
    if path is not None:
        return (path,) if path.name in _WEIGHTS else _shards(path)
    other = [file for file in _OTHER_WEIGHTS if (folder / file).is_file()]
    hint = f"; {other[0]} cannot be imported: save the PyTorch model with save_pretrained" if other else ""
    raise ModelFilesError(f"the folder has no model.safetensors or pytorch_model.bin{hint}")


def weights_or_index(folder: Path) -> Path | None:
    """Return the file of the weights that is opened first: theirs, or an index of shards; None: neither."""
    paths = [folder / name for file in _WEIGHTS for name in (file, f"{file}.index.json")]
    return next((path for path in paths if path.is_file()), None)


def modules(folder: Path) -> list[tuple[str, str]]:
    """Return class name and folder of each module of modules.json; empty: there is none.

    Raises:
        ModelFilesError: it is not a list of modules.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return []
    try:
        value = records.read_foreign_list(path)
    except ArtifactError as error:
        raise ModelFilesError(str(error)) from error
    found = []
    for entry in value:
        kind, inside = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(inside, str) or Path(inside).name != inside:
            raise ModelFilesError(f"{MODULES_FILE}: expected a type and a path for each module")
        found.append((kind.rpartition(".")[2], inside))
    return found


def module_config(folder: Path, inside: str) -> Path:
    """Return the config of a module that is in the folder ``inside`` of a model's folder."""
    return folder / inside / "config.json"


def _shards(index: Path) -> tuple[Path, ...]:
    """Return the weight files that an index names, all of them in its folder."""
    try:
        names = records.read_foreign_json(index).get("weight_map")
    except ArtifactError as error:
        raise ModelFilesError(str(error)) from error
    if not isinstance(names, dict) or not names:
        raise ModelFilesError(f"{index.name} names no shards")
    for shard in names.values():
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", "..") or "\0" in shard:
            raise ModelFilesError(f"{index.name} names {printable(str(shard))}: expected files of its folder")
    shards = tuple(index.with_name(shard) for shard in sorted(set(names.values())))
    if absent := [shard.name for shard in shards if not shard.is_file()]:
        raise ModelFilesError(f"the shard {absent[0]} of {index.name} is missing")
    return shards
