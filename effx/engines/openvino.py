"""OpenVINO graphs on the CPU plugin, in the precision of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, one_line
from effx.host import cpu
from effx.specs.runtime import RuntimeSettings

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""Precision -> the plugin's hint for what is not quantized. Without it, CPUs with bf16 run fp32 in bf16."""


class OpenVinoGraph:
    """An OpenVINO model compiled for the CPU.

    At any length, one compiled model answers all shapes. At fixed lengths, each length is compiled when it is
    first used, for single rows apart from batches: a model without any dynamic dimension skips the plugin's
    inference of shapes, which takes a sixth of the time of a single row of 32 tokens, and more where lengths
    change from call to call (docs/results/export). ``runtime.static_shape`` is compiled in this way too. With
    ``runtime.part_rows`` its rows are computed in parts at the same time, in as many streams as there are
    parts or threads: threads then wait for each other once per query, not in every node.
    """

    def __init__(self, path: Path, runtime: RuntimeSettings, threads: int) -> None:
        self._fixed = runtime.lengths
        self._static_shape, self._part_rows = runtime.static_shape, runtime.part_rows
        self._token_pruning = runtime.token_pruning
        self._core, self._path = openvino.Core(), path
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint(runtime),
            # Pinned, all processes with fewer threads than processors would use the same processors.
            "ENABLE_CPU_PINNING": threads >= cpu.allowed_processors(),
        }
        self._threads = threads
        try:
            self._model = self._core.read_model(path)
            if (self._fixed is not None and len(self._fixed) > 1) or self._static_shape is not None:
                _unpack_embeddings(self._core, self._model)
            self._compiled: dict[tuple[int, int], tuple[Any, tuple[Any, ...]]] = {}
            if self._static_shape is not None:
                self._requests(*self._static_shape)
            elif self._fixed is None or len(self._fixed) == 1:
                self._requests(*self._shape_of(1, self._fixed[0] if self._fixed else -1))
        except RuntimeError as error:
            reason = one_line(error)
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        self._inputs = [entry.get_any_name() for entry in self._model.inputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        # segments may have fewer tokens than the mask; a graph made elsewhere names its inputs as it likes
        batch, length = inputs.get("attention_mask", inputs[self._inputs[0]]).shape
        compiled, requests = self._requests(*self._shape_of(batch, length))
        # every engine takes int64; the plugin converts it
        arrays = {name: np.ascontiguousarray(inputs[name]) for name in self._inputs}
        if len(requests) == 1:
            requests[0].infer(arrays, share_inputs=True)
        else:
            rows = batch // len(requests)
            for number, request in enumerate(requests):
                part = slice(number * rows, (number + 1) * rows)
                request.start_async({name: array[part] for name, array in arrays.items()}, share_inputs=True)
            for request in requests:
                request.wait()
        found = {
            output.get_any_name(): [request.get_output_tensor(number).data for request in requests]
            for number, output in enumerate(compiled.outputs)
        }
        return {
            name: parts[0].copy() if len(parts) == 1 else np.concatenate(parts)
            for name, parts in found.items()
        }

    def executed(self) -> list[tuple[str, str, str]]:
        """Return name, kind and precision of every node as it runs."""
        compiled, _ = self._requests(-1, self._fixed[0] if self._fixed else -1)
        nodes = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()
                     if key in ("layerType", "runtimePrecision")}  # fmt: skip
            nodes.append(
                (node.get_friendly_name(), info.get("layerType", ""), info.get("runtimePrecision", ""))
            )
        return nodes

    def _shape_of(self, batch: int, length: int) -> tuple[int, int]:
        """Return the batch and length that a query's model is compiled for; -1: any."""
        if (batch, length) == self._static_shape:
            return batch, length
        if self._fixed is None:
            return -1, -1
        return (1 if batch == 1 and not self._token_pruning else -1), length

    def _input_shape(self, entry: Any, batch: int, length: int) -> Any:
        """Return an input's shape; with token pruning, the lengths of segments stay dynamic."""
        shape = entry.get_partial_shape()
        if self._token_pruning and entry.get_any_name() in ("hidden", "token_mask"):
            return shape
        return openvino.PartialShape([batch, length, *(shape[i] for i in range(2, len(shape)))])

    def describe(self) -> dict[str, object]:
        return {
            "device": "CPU",
            "precision_hint": self._config["INFERENCE_PRECISION_HINT"],
            "threads": self._threads,
            "versions": versions(),
        }

    def close(self) -> None:
        self._compiled.clear()
        del self._model, self._core

    def _requests(self, batch: int, length: int) -> tuple[Any, tuple[Any, ...]]:
        """Return the model compiled for a batch and length (-1: any), and a request for each part of a query.

        Raises:
            ArtifactError: it computes in another precision than the engine's on this processor.
        """
        if (batch, length) not in self._compiled:
            model, config, parts = self._model, self._config, 1
            if self._part_rows is not None and (batch, length) == self._static_shape:
                parts = batch // self._part_rows
                config = {**config, "NUM_STREAMS": min(parts, self._threads)}
            if length != -1:
                model = model.clone()
                model.reshape(
                    {
                        entry.get_any_name(): self._input_shape(entry, batch // parts, length)
                        for entry in model.inputs
                    }
                )
            compiled = self._core.compile_model(model, "CPU", config)
            requested = self._config["INFERENCE_PRECISION_HINT"]
            used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
            if used != requested:
                raise ArtifactError(
                    f"{self._path}: OpenVINO computes in {used} instead of {requested} on this processor, "
                    "which does not support that. Export the checkpoint here, with another precision."
                )
            requests = tuple(compiled.create_infer_request() for _ in range(parts))
            self._compiled[batch, length] = compiled, requests
        return self._compiled[batch, length]


def _unpack_embeddings(core: openvino.Core, model: openvino.Model) -> None:
    """Replace quantized embedding tables by their values, which all compiled models share.

    The plugin unpacks them in each compiled model anyway.
    """
    for node in model.get_ops():
        if node.get_type_name() != "Gather":
            continue
        table = node.input_value(0)
        if table.get_node().get_type_name() == "Constant" or not _is_constant(table.get_node()):
            continue
        alone = core.compile_model(openvino.Model([table], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        values = openvino.opset13.constant(alone([])[0].copy())
        node.input(0).replace_source_output(values.output(0))


def _is_constant(node: Any) -> bool:
    if node.get_type_name() == "Constant":
        return True
    sources = node.input_values()
    return bool(sources) and all(_is_constant(source.get_node()) for source in sources)


def hint(runtime: RuntimeSettings) -> str:
    """Return the plugin's precision hint for what an engine leaves unquantized."""
    return _HINTS[runtime.unquantized_precision or runtime.precision]


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> OpenVinoGraph:
    """Open an OpenVINO IR file (.xml with its .bin).

    Raises:
        ArtifactError: the runtime refuses the model, or runs it in another precision.
    """
    return OpenVinoGraph(path, runtime, threads)


def versions(backend: str = "openvino") -> dict[str, str]:
    """Return OpenVINO's version."""
    return {"openvino": openvino.__version__}
