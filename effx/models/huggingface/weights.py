"""Reading weights: safetensors or pytorch_model.bin, in one file or several, as float32.

Pickles are read by ``torch.load(weights_only=True)`` alone, which runs no code.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from effx.errors import one_line
from effx.models.huggingface.folder import ModelFolder, wrong

Tensors = dict[str, torch.Tensor]

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_LEGACY = ((re.compile(r"LayerNorm\.gamma$"), "LayerNorm.weight"),
           (re.compile(r"LayerNorm\.beta$"), "LayerNorm.bias"))  # fmt: skip


def read(folder: ModelFolder) -> Tensors:
    """Return every tensor of a model's weight files by name, floats as float32.

    Raises:
        UsageError: a file is damaged or holds more than tensors, a weight is quantized, or a value is not
            finite.
    """
    tensors: Tensors = {}
    for path in folder.weights:
        shard = _read_file(folder.name, path)
        if twice := sorted(tensors.keys() & shard.keys()):
            raise wrong(folder.name, f"{twice[0]} is in {path.name} and in another file of its weights")
        tensors |= shard
    for key, tensor in tensors.items():
        if tensor.dtype in _FLOATS:
            if not bool(torch.isfinite(tensor).all()):
                count = int((~torch.isfinite(tensor)).sum())
                raise wrong(
                    folder.name,
                    f"{count} of the {tensor.numel()} values of {key} are not finite (NaN or infinite)",
                )
            tensors[key] = tensor.to(torch.float32)
        elif tensor.dim() > 1 and key.endswith(".weight"):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise wrong(
                folder.name,
                f"the weights are quantized ({key} is {kind}): import the model before quantization",
            )
    return tensors


def canonical(tensors: Mapping[str, torch.Tensor], known: Collection[str], prefix: str) -> Tensors:
    """Return the tensors by the names that the task model has for them, where it has one.

    Args:
        tensors: by the names in the file: with or without the encoder's prefix, LayerNorms possibly as gamma
            and beta.
        known: the parameter names of the task model.
        prefix: of the encoder within the task model, as ``bert``.

    Raises:
        ValueError: two tensors are the same parameter.
    """
    renamed: Tensors = {}
    for key, tensor in tensors.items():
        name = key
        for pattern, replacement in _LEGACY:
            name = pattern.sub(replacement, name)
        if name not in known and f"{prefix}.{name}" in known:
            name = f"{prefix}.{name}"
        name = name if name in known else key
        if name in renamed:
            raise ValueError(f"two of its tensors would become {name}; one of them is named {key}")
        renamed[name] = tensor
    return renamed


def _read_file(name: str, path: Path) -> Tensors:
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (OSError, ValueError, SafetensorError) as error:
            raise wrong(name, f"{path.name} cannot be read ({error})") from error
    _check_stored(name, path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise wrong(
            name,
            f"{path.name} cannot be read as weights alone ({one_line(error, 120)}): convert it "
            "to safetensors",
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise wrong(name, f"{path.name} contains more than named tensors: convert it to safetensors")
    for key, value in loaded.items():
        if value.nbytes > value.untyped_storage().nbytes():  # a view that repeats a few numbers
            raise wrong(name, f"{path.name}: {key} has more values than the file: convert it to safetensors")
    return {str(key): value.contiguous() for key, value in loaded.items()}


def _check_stored(name: str, path: Path) -> None:
    """Raise for a compressed file, which can expand to any size; ``torch.save`` does not compress."""
    try:
        with zipfile.ZipFile(path) as file:
            compressed = [entry for entry in file.infolist() if entry.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError):  # the format before PyTorch 1.6, or not a file of weights
        return
    if compressed:
        raise wrong(name, f"{path.name} is compressed: save it with torch.save, or convert it to safetensors")
