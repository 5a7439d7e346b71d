"""Which files belong to an engine that was made elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effx.errors import ArtifactError, UsageError

BACKENDS = {".onnx": "onnxruntime", ".xml": "openvino"}
"""Suffix of a graph -> the backend that runs it."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True)
class ForeignFiles:
    """The files of an engine that was made elsewhere."""

    graph: Path
    backend: str
    config: dict[str, Any]
    """config.json, as transformers writes it; empty: there is none."""
    tokenizer: Path
    """The folder with tokenizer.json."""

    @property
    def tokenizer_files(self) -> list[Path]:
        """The tokenizer's files that exist."""
        return [path for name in _TOKENIZER_FILES if (path := self.tokenizer / name).is_file()]


def locate(model: Path, tokenizer: Path | None) -> ForeignFiles:
    """Return the files of a graph, or of a folder that has one, as Optimum writes it.

    Args:
        model: an .onnx or .xml file, or a folder with one, itself or in its subfolder ``onnx``.
        tokenizer: the folder with tokenizer.json; None: that of the graph, or the folder above it.

    Raises:
        UsageError: there is no graph, or several.
        ArtifactError: config.json or tokenizer.json is missing or damaged.
    """
    graph = model if model.is_file() else _only_graph(model)
    if graph.suffix not in BACKENDS:
        raise UsageError(f"{graph}: expected a graph as .onnx (ONNX) or .xml (OpenVINO).", settings="model")
    folders = [graph.parent, graph.parent.parent]  # "onnx/model.onnx" has its config.json in the folder above
    if model.is_dir():
        folders = [model, graph.parent]
    tokenizers = folders if tokenizer is None else [tokenizer]
    with_tokenizer = [folder for folder in tokenizers if (folder / "tokenizer.json").is_file()]
    if not with_tokenizer:
        raise ArtifactError(
            f"{tokenizers[0]}: tokenizer.json is missing. Name the tokenizer's folder; transformers writes "
            "the file with AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER).",
            settings="tokenizer",
        )
    return ForeignFiles(
        graph, BACKENDS[graph.suffix], _config([*folders, with_tokenizer[0]]), with_tokenizer[0]
    )


def is_foreign(path: Path) -> bool:
    """Return whether a path is a graph that was made elsewhere, or a folder with one, and not an engine."""
    if path.is_file():
        return path.suffix in BACKENDS
    return path.is_dir() and not (path / "engine.json").exists() and bool(_graphs(path))


def _graphs(folder: Path) -> list[Path]:
    parents = (folder, folder / "onnx", folder / "openvino")
    return [path for parent in parents for suffix in BACKENDS for path in sorted(parent.glob(f"*{suffix}"))
            if "tokenizer" not in path.stem]  # fmt: skip


def _only_graph(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"{folder} does not exist.", settings="model")
    graphs = _graphs(folder)
    if not graphs:
        raise UsageError(f"{folder} has no graph (.onnx or .xml).", settings="model")
    if len(graphs) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in graphs)
        raise UsageError(f"{folder} has {len(graphs)} graphs: {listed}. Name one of them.", settings="model")
    return graphs[0]


def _config(folders: list[Path]) -> dict[str, Any]:
    for folder in folders:
        path = folder / "config.json"
        if path.is_file():
            try:
                value = json.loads(path.read_bytes())
            except ValueError as error:
                raise ArtifactError(f"{path} cannot be read: {error}") from error
            if not isinstance(value, dict):
                raise ArtifactError(f"{path} cannot be read: expected an object.")
            return value
    return {}
