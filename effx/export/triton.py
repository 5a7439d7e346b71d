"""Engines as a model repository of NVIDIA's Triton Inference Server.

    DIR/NAME/config.pbtxt      the server's configuration (protobuf text of inference.ModelConfig)
    DIR/NAME/labels.txt        class names, one per line
    DIR/NAME/1/model.*         the engine's files

NAME is the engine's with ``+`` as ``-``. The server batches requests of equal length: ``seqN`` engines
benefit most. Work of the host around a graph (padding to buckets, early exit in segments) is not part of
the graph, so buckets are served at any length, and segments are refused: use ``exit-if``. So are graphs that
were made elsewhere, whose inputs and logits the host renames and reorders. The server has no
setting for graph optimizers of ONNX Runtime that an engine switches off, and none that keeps OpenVINO from
computing fp32 in bf16 where the processor can. A TensorRT plan
runs on servers with the same release of TensorRT and the same kind of GPU.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from effx import files, progress
from effx.artifacts import Engine
from effx.errors import EffxError, UsageError
from effx.specs import backends

MAX_BATCH = 64
_QUEUE_DELAY_MICROSECONDS = 500
_THREADS = {"onnxruntime": "intra_op_thread_count", "openvino": "INFERENCE_NUM_THREADS"}
"""Backend -> the parameter with its threads."""


class _Name(str):
    """An enum value: written without quotes."""


def write_all(engines: Iterable[Engine], repository: str | Path) -> list[EffxError]:
    """Write engines into a model repository; return the errors of those that could not be written."""
    failures: list[EffxError] = []
    for engine in engines:
        try:
            progress.say(f"{write(engine, repository)}: written for Triton")
            if engine.backend == "openvino" and _unquantized(engine) == "fp32":
                progress.say(
                    f"{engine.name}: on processors with bf16 the server computes its fp32 parts in bf16, "
                    "which the parity gate has not checked, and has no setting against it; for fp32, export "
                    "for onnxruntime."
                )
        except EffxError as error:
            failures.append(error)
    return failures


def write(engine: Engine, repository: str | Path) -> Path:
    """Write an engine into a model repository, replacing an existing model of its name.

    Returns:
        The model's folder in the repository.

    Raises:
        UsageError: the server cannot run this engine, the engine was made elsewhere, or the repository cannot
            be written to.
    """
    if backends.get(engine.backend).triton_backend is None:
        known = ", ".join(sorted(row.name for row in backends.BACKENDS.values() if row.triton_backend))
        raise UsageError(f"{engine.name}: Triton cannot run {engine.backend} engines. Supported: {known}.")
    if engine.runtime.weight_files:
        raise UsageError(
            f"{engine.name}: Triton cannot put weights back into a stripped plan; export without stripped."
        )
    if engine.runtime.interface is not None:
        raise UsageError(
            f"{engine.name}: it was made elsewhere, and Triton would serve inputs, outputs and labels as its "
            "graph has them, not as the engine does. Import the model, and export its checkpoint."
        )
    graphs = engine.runtime.files
    if len(graphs) > 1:
        raise UsageError(f"{engine.name}: Triton cannot run early exit in segments; export exit-if instead.")
    folder = Path(repository) / engine.name.replace("+", "-")
    with files.new_folder(folder, replace=True) as temporary:
        version = temporary / "1"
        version.mkdir()
        stem = graphs[0].split(".")[0]
        for name in engine.manifest.files:
            if name.startswith(f"{stem}.") and not name.endswith(".json"):
                shutil.copyfile(engine.folder / name, version / name)
        named = {"labels.txt": engine.manifest.labels}
        for head in engine.manifest.other_heads:
            named[_label_file(head.task_definition.name)] = head.task_definition.labels
        for name, labels in named.items():
            if labels:
                (temporary / name).write_text("".join(f"{label}\n" for label in labels))
        (temporary / "config.pbtxt").write_text(_text(config(engine, folder.name)))
    return folder


def _unquantized(engine: Engine) -> str:
    """Return the precision of what an engine leaves unquantized."""
    return engine.runtime.unquantized_precision or (
        "fp32" if engine.manifest.precision == "int8" else engine.runtime.precision
    )


def _label_file(task: str) -> str:
    return f"labels_{task}.txt"


def config(engine: Engine, name: str) -> dict[str, Any]:
    """Return the server's configuration of an engine; keys are fields of inference.ModelConfig."""
    manifest, runtime = engine.manifest, engine.runtime
    lengths = runtime.lengths
    length = lengths[0] if lengths and len(lengths) == 1 else -1
    answers: list[dict[str, Any]]
    kind = engine.task.behavior
    if kind.of_words:
        answers = [_tensor("logits", "TYPE_FP32", length, engine.task.outputs)]
    elif kind.of_tokens:
        answers = [_tensor(output, "TYPE_FP32", length) for output in kind.output_names]
    elif kind.head == "embedding":
        assert manifest.encoder is not None
        width = manifest.encoder.width
        answers = [_tensor(output, "TYPE_FP32", width) for output in kind.output_names]
        answers.append(_tensor("last_hidden_state", "TYPE_FP32", length, width))
    else:
        answers = [_tensor("logits", "TYPE_FP32", engine.task.outputs)]
        if manifest.labels:
            answers[0]["label_filename"] = "labels.txt"
        for head in manifest.other_heads:
            answers.append(_tensor(head.output, "TYPE_FP32", head.task_definition.outputs))
            if head.task_definition.labels:
                answers[-1]["label_filename"] = _label_file(head.task_definition.name)
    if manifest.exits:  # one number per row: the server adds the batch dimension
        answers.append({**_tensor("depth", "TYPE_INT64", 1), "reshape": {"shape": []}})
    device = "KIND_GPU" if engine.on_gpu else "KIND_CPU"
    group: dict[str, Any] = {"kind": _Name(device), "count": 1}
    if runtime.profile_batches:  # by default the server uses only the first optimization profile
        batches = enumerate(runtime.profile_batches)
        group["profile"] = [str(number) for number, batch in batches if batch >= MAX_BATCH]
    settings: dict[str, str] = {}
    if engine.backend == "openvino" and _unquantized(engine) == "bf16":
        settings["HINT_BF16"] = "YES"
    if runtime.threads is not None:
        settings[_THREADS[engine.backend]] = str(runtime.threads)
    parameters = [{"key": key, "value": {"string_value": value}} for key, value in settings.items()]
    return {
        "name": name,
        "backend": backends.get(engine.backend).triton_backend,
        "max_batch_size": MAX_BATCH,
        "input": [_tensor(entry.name, "TYPE_INT64", length) for entry in manifest.inputs],
        "output": answers,
        "dynamic_batching": {"max_queue_delay_microseconds": _QUEUE_DELAY_MICROSECONDS},
        "instance_group": [group],
        "parameters": parameters,
    }


def _tensor(name: str, kind: str, *sizes: int) -> dict[str, Any]:
    return {"name": name, "data_type": _Name(kind), "dims": list(sizes)}


def _text(message: dict[str, Any], indent: str = "") -> str:
    """Return a message as protobuf text: a repeated field is written once per entry."""
    lines = []
    for key, value in message.items():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict):
                lines.append(f"{indent}{key} {{\n{_text(entry, indent + '  ')}{indent}}}\n")
            elif isinstance(entry, _Name):
                lines.append(f"{indent}{key}: {entry}\n")
            else:
                lines.append(f"{indent}{key}: {json.dumps(entry)}\n")
    return "".join(lines)
