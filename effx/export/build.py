"""Build engines: checkpoint -> graph -> precision -> parity gate -> engines/NAME/.

The fp32 graph of a checkpoint is traced once and shared by all its variants.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from effx import data, engines, progress
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoded, Encoder
from effx.errors import DataError, EffxError, GateError, MissingExtraError, unknown
from effx.export import graph, parity, quantize, variants
from effx.export.variants import Variant
from effx.models import io

_PARITY_ROWS = 256
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass
class _Source:
    """A checkpoint on its way to engines: what every variant of it shares."""

    checkpoint: Checkpoint
    model: PreTrainedModel
    onnx: Path
    rows: Encoded
    inputs: str


def _onnxruntime(source: _Source, variant: Variant, folder: Path) -> None:
    target = folder / "model.onnx"
    if variant.scheme == "fp32":
        for file in source.onnx.parent.iterdir():  # the graph and, past 2 GB, its weights
            shutil.copyfile(file, folder / file.name)
    else:
        quantize.dynamic(source.onnx, target)


Builder = Callable[[_Source, Variant, Path], None]
BUILDERS: dict[str, Builder] = {"onnxruntime": _onnxruntime}


def export(
    checkpoint: str | Path,
    variant: str = "fp32",
    backend: str = "onnxruntime",
    out: str | Path = "engines",
    **options: Any,
) -> Engine:
    """Build one engine; see :func:`export_all` for the options.

    Raises:
        GateError: the engine's answers differ from the checkpoint's by more than the precision
            allows.
        UsageError: a name is unknown or the place cannot be written to.
    """
    built, failures = export_all([Path(checkpoint)], [variant], [backend], out, **options)
    if failures:
        raise failures[0]
    return built[0]


def export_all(
    checkpoints: Sequence[Path],
    variant_names: Sequence[str],
    backends: Sequence[str] = ("onnxruntime",),
    out: str | Path = "engines",
    *,
    device: str = "cpu",
    data_folder: str | Path | None = None,
    overwrite: bool = False,
    keep_failed: bool = False,
) -> tuple[list[Engine], list[EffxError]]:
    """Build every variant of every checkpoint; one that fails does not stop the others.

    Args:
        checkpoints: checkpoint folders, or folders of them.
        variant_names: see :mod:`effx.export.variants`.
        backends: see ``BUILDERS``.
        out: where engines go, as CHECKPOINT.VARIANT.BACKEND.
        device: what the engines are for; this version builds for ``cpu``.
        data_folder: rows for the parity gate; default: where the checkpoint's came from.
        overwrite: build again what is there and up to date.
        keep_failed: keep an engine that failed its gate; its manifest says so.

    Returns:
        The engines, those that were up to date included, and what went wrong with the others.
    """
    wanted = [variants.parse(name) for name in dict.fromkeys(variant_names)]
    for backend in backends:
        if backend not in BUILDERS:
            raise unknown("backend", backend, BUILDERS)
    if device != "cpu":
        raise unknown("device", device, ["cpu"])
    for backend in backends:
        engines.check_backend(backend)
    built: list[Engine] = []
    failures: list[EffxError] = []
    for folder in Checkpoint.find_all([Path(path) for path in checkpoints]):
        try:
            checkpoint = Checkpoint.open(folder)
            jobs = [(variant, backend) for variant in wanted for backend in backends]
            todo = []
            for variant, backend in jobs:
                target = Path(out) / f"{checkpoint.name}.{variant.text}.{backend}"
                ready = None if overwrite else _up_to_date(target, checkpoint)
                if ready:
                    progress.say(f"{target.name}: up to date")
                    built.append(ready)
                else:
                    todo.append((variant, backend, target))
            if todo:
                with tempfile.TemporaryDirectory(prefix="effx-export-") as scratch:
                    source = _open(checkpoint, Path(scratch), data_folder)
                    for variant, backend, target in todo:
                        try:
                            built.append(_build(source, variant, backend, device, target, keep_failed))
                        except GateError as error:
                            failures.append(error)
        except EffxError as error:
            if isinstance(error, MissingExtraError):
                raise
            failures.append(error)
    return built, failures


def _up_to_date(target: Path, checkpoint: Checkpoint) -> Engine | None:
    """Return the engine at ``target`` if it was built from this very checkpoint and passed."""
    if not Engine.find(target):
        return None
    try:
        engine = Engine.open(target)
    except EffxError:
        return None
    same = engine.manifest["checkpoint"]["digest"] == checkpoint.digest
    return engine if same and engine.manifest["parity"]["passed"] else None


def _open(checkpoint: Checkpoint, scratch: Path, data_folder: str | Path | None) -> _Source:
    model = io.load(checkpoint)
    path = scratch / "model.onnx"
    graph.write_whole(model, path)
    rows, inputs = _parity_rows(checkpoint, model, data_folder)
    return _Source(checkpoint, model, path, rows, inputs)


def _parity_rows(
    checkpoint: Checkpoint, model: PreTrainedModel, data_folder: str | Path | None
) -> tuple[Encoded, str]:
    """Return task rows spread over the lengths, or random ids where there are no rows."""
    limit = io.position_limit(model)
    encoder = Encoder(checkpoint.folder, checkpoint.max_length)
    folder = data_folder or checkpoint.data
    try:
        rows = data.load(checkpoint.task, "validation", folder).limit(_PARITY_ROWS)
    except (DataError, MissingExtraError):
        if data_folder is not None:
            raise
        random = parity.random_rows(
            _PARITY_ROWS, model.config.vocab_size, checkpoint.max_length, encoder.pad_id
        )
        return parity.with_longest(random, limit), "random"
    return parity.with_longest(encoder(rows.texts), limit), "task"


def _build(
    source: _Source, variant: Variant, backend: str, device: str, target: Path, keep_failed: bool
) -> Engine:
    checkpoint = source.checkpoint
    names = io.input_names(source.model)
    limit = io.position_limit(source.model)
    with Engine.create(target, overwrite=True) as (folder, manifest):
        BUILDERS[backend](source, variant, folder)
        for name in ("config.json", *_TOKENIZER_FILES):
            if (checkpoint.folder / name).is_file():
                shutil.copyfile(checkpoint.folder / name, folder / name)
        with engines.open_unchecked(folder, backend, names) as session:
            result = parity.measure(
                source.model, session, source.rows, checkpoint.task, variant.precision, source.inputs
            )
        if not result.passed:
            message = (
                f"{target.name}: parity failed on {result.examples} examples: logits differ by "
                f"{result.max_abs_diff:.2g} at most, labels agree on {result.label_agreement:.1%}."
            )
            if not keep_failed:
                raise GateError(f"{message} Not kept; --keep-failed keeps it.")
            progress.say(message)
        progress.say(
            f"{target.name}: built; logits differ by {result.max_abs_diff:.2g} at most, "
            f"labels agree on {result.label_agreement:.1%} of {result.examples} {result.inputs} inputs"
        )
        manifest |= {
            "task": checkpoint.task.name,
            "task_definition": checkpoint.task.to_json(),
            "variant": variant.text,
            "precision": variant.precision,
            "scheme": variant.scheme,
            "backend": backend,
            "device": device,
            "checkpoint": {"name": checkpoint.name, "digest": checkpoint.digest},
            "inputs": [
                {"name": name, "dtype": "int64", "min": [1, 1], "opt": [1, checkpoint.max_length],
                 "max": [None, limit]}
                for name in names
            ],
            "labels": list(checkpoint.task.labels),
            "structure": checkpoint.manifest["structure"],
            "parameters": checkpoint.manifest["parameters"],
            "weight_remaining": checkpoint.manifest["weight_remaining"],
            "model": io.name_of(str(checkpoint.manifest["model"])),
            "regime": checkpoint.manifest["training"].get("regime"),
            "max_length": checkpoint.max_length,
            "data": checkpoint.data,
            "parity": result.to_json(),
            "nodes": graph.node_counts(folder / "model.onnx"),
            "exits": None,
            "built_on": {
                "machine": platform.machine(),
                "system": platform.system(),
                "cpu_count": os.cpu_count(),
                "vnni": quantize.has_vnni(),
            },
            "versions": {**io.versions(), **engines.versions(backend), "torch": torch.__version__},
        }  # fmt: skip
    return Engine.open(target)
