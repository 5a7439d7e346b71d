"""Which files belong to an engine that was made elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from effx import records
from effx.errors import ArtifactError, UsageError
from effx.records import Record

BACKENDS = {".onnx": "onnxruntime", ".xml": "openvino"}
"""Suffix of a graph -> the backend that runs it."""
_PROGRAMS = (".pt", ".pt2", ".pth", ".bin", ".pkl")
"""Files that can run code when they are opened."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LARGEST_JSON_BYTES = 64 << 20
LARGEST_GRAPH_BYTES = 16 << 30
"""Of a graph and the files with its weights, together."""

_Number = Annotated[int, Field(ge=0, lt=1 << 31)]


class GraphConfig(Record):
    """What is read of config.json, as transformers writes it; None: it does not say."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    id2label: Mapping[int, str] | None = None
    label2id: Mapping[str, int] | None = None
    model_type: str | None = None
    pad_token_id: _Number | None = None
    max_position_embeddings: _Number | None = None
    vocab_size: _Number | None = None
    original: str | None = Field(default=None, alias="_name_or_path")
    """The model that it was fine-tuned from: a name on the hub, or a folder."""


@dataclass(frozen=True)
class ForeignFiles:
    """The files of an engine that was made elsewhere."""

    graph: Path
    backend: str
    config: GraphConfig
    """Empty: there is no config.json."""
    config_json: Mapping[str, Any]
    """All of config.json."""
    tokenizer: Path
    """The folder with tokenizer.json."""

    @property
    def folder(self) -> Path:
        """The graph's folder, absolute; links are not followed: those of the hub's cache have no names."""
        return Path(os.path.abspath(self.graph)).parent

    @property
    def tokenizer_files(self) -> list[Path]:
        """The tokenizer's files that exist."""
        return [path for name in _TOKENIZER_FILES if (path := self.tokenizer / name).exists()]

    @property
    def tokenizer_limit(self) -> int | None:
        """Tokens per example at most, by tokenizer_config.json; None: it does not say."""
        path = self.tokenizer / "tokenizer_config.json"
        if not path.exists():
            return None
        settings = records.read_foreign_json(path, limit_bytes=_LARGEST_JSON_BYTES)
        length = settings.get("model_max_length")
        # transformers writes 1e30 for no limit
        return length if isinstance(length, int) and 0 < length < 1_000_000 else None


def locate(model: Path, tokenizer: Path | None) -> ForeignFiles:
    """Return the files of a graph, or of a folder that has one, as Optimum writes it.

    Args:
        model: an .onnx or .xml file, or a folder with one, itself or in its subfolder ``onnx``.
        tokenizer: the folder with tokenizer.json; None: that of the graph, or the folder above it.

    Raises:
        UsageError: there is no graph, or several.
        ArtifactError: tokenizer.json is missing, a file of the tokenizer or config.json is not a JSON object,
            or a file is too large.
    """
    graph = model if model.is_file() else _only_graph(model)
    if graph.suffix in _PROGRAMS:
        raise UsageError(
            f"{graph}: files of PyTorch can run code when they are opened, and are refused: export the model "
            "as .onnx, or import it with: effx import",
            settings="model",
        )
    if graph.suffix not in BACKENDS:
        raise UsageError(f"{graph}: expected a graph as .onnx (ONNX) or .xml (OpenVINO).", settings="model")
    if graph.name.startswith("."):
        raise UsageError(f"{graph} is a hidden file: rename it.", settings="model")
    folders = [graph.parent, graph.parent.parent]  # "onnx/model.onnx" has its config.json in the folder above
    if model.is_dir():
        folders = [model, graph.parent]
    tokenizers = folders if tokenizer is None else [tokenizer]
    with_tokenizer = [folder for folder in tokenizers if (folder / "tokenizer.json").exists()]
    if not with_tokenizer:
        raise ArtifactError(
            f"{tokenizers[0]}: tokenizer.json is missing. Name the tokenizer's folder; transformers writes "
            "the file with AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER).",
            settings="tokenizer",
        )
    for name in _TOKENIZER_FILES:
        path = with_tokenizer[0] / name
        if path.exists():  # a link, as in the hub's cache, must not bring another file into the engine
            records.read_foreign_json(path, limit_bytes=_LARGEST_JSON_BYTES)
    config, config_json = _config([*folders, with_tokenizer[0]])
    return ForeignFiles(graph, BACKENDS[graph.suffix], config, config_json, with_tokenizer[0])


def is_foreign(path: Path) -> bool:
    """Return whether a path is a graph that was made elsewhere, or a folder with one, and not an engine."""
    if path.is_file():
        return path.suffix in BACKENDS
    return path.is_dir() and not (path / "engine.json").exists() and bool(_graphs(path))


def check_regular(graph: Path, name: str) -> None:
    """Check a file with weights of a graph.

    Raises:
        ArtifactError: it is missing, hidden, not a file in the graph's folder, or not a regular file.
    """
    file = graph.parent / name
    if not name or "\0" in name or Path(name).is_absolute() or "\\" in name or ".." in Path(name).parts:
        raise ArtifactError(f"{graph}: its weights are at '{name}', which is not a file in its folder.")
    if not file.exists():
        raise ArtifactError(f"{graph}: {name}, which has its weights, is missing.")
    if Path(name).as_posix().startswith("."):  # an engine's manifest has no hidden files
        raise ArtifactError(
            f"{graph}: its weights are at '{name}', a hidden file: save the graph with another name for it."
        )
    if file.is_symlink() or not file.is_file() or graph.parent.resolve() not in file.resolve().parents:
        raise ArtifactError(
            f"{graph}: {name}, which has its weights, is not a regular file in its folder: copy it there."
        )


def check_size(graph: Path, names: tuple[str, ...]) -> None:
    """Raise :class:`ArtifactError` if a graph and the files with its weights are too large."""
    size = sum((graph.parent / name).stat().st_size for name in names)
    if size > LARGEST_GRAPH_BYTES:
        raise ArtifactError(f"{graph}: expected at most {LARGEST_GRAPH_BYTES:,} bytes, got {size:,}.")


def _graphs(folder: Path) -> list[Path]:
    parents = (folder, folder / "onnx", folder / "openvino")
    return [path for parent in parents for suffix in BACKENDS for path in sorted(parent.glob(f"*{suffix}"))
            if path.is_file() and "tokenizer" not in path.stem]  # fmt: skip


def _only_graph(folder: Path) -> Path:
    if not folder.is_dir():
        problem = "is not a regular file" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {problem}.", settings="model")
    graphs = _graphs(folder)
    if not graphs:
        raise UsageError(f"{folder} has no graph (.onnx or .xml).", settings="model")
    if len(graphs) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in graphs)
        raise UsageError(f"{folder} has {len(graphs)} graphs: {listed}. Name one of them.", settings="model")
    return graphs[0]


def _config(folders: list[Path]) -> tuple[GraphConfig, dict[str, Any]]:
    for folder in folders:
        path = folder / "config.json"
        if path.exists():
            value = records.read_json(path, limit_bytes=_LARGEST_JSON_BYTES)
            return records.build(GraphConfig, value, path), value
    return GraphConfig(), {}
