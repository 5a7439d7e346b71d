"""OpenVINO graphs on the CPU plugin, in the precision of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, one_line
from effx.specs.runtime import RuntimeSettings

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""Precision -> the plugin's hint for what is not quantized. Without it, CPUs with bf16 run fp32 in bf16."""


class OpenVinoGraph:
    """An OpenVINO model compiled for the CPU; each fixed length is compiled when it is first used."""

    def __init__(self, path: Path, runtime: RuntimeSettings, threads: int) -> None:
        lengths = runtime.lengths
        self._lengths = lengths if lengths and len(lengths) > 1 else None  # a single length is in the graph
        self._token_pruning = runtime.token_pruning
        self._core = openvino.Core()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint(runtime),
        }
        self._threads = threads
        try:
            self._model = self._core.read_model(path)
            self._compiled: dict[int | None, Any] = {}
            if self._lengths is None:
                self._request(None)
        except RuntimeError as error:
            reason = one_line(error)
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        self._inputs = [entry.get_any_name() for entry in self._model.inputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        length = None if self._lengths is None else int(inputs["attention_mask"].shape[1])
        compiled, request = self._request(length)
        # every engine takes int64; the plugin converts it
        request.infer({name: np.ascontiguousarray(inputs[name]) for name in self._inputs}, share_inputs=True)
        return {
            output.get_any_name(): request.get_output_tensor(number).data.copy()
            for number, output in enumerate(compiled.outputs)
        }

    def executed(self) -> list[tuple[str, str, str]]:
        """Return name, kind and precision of every node as it runs."""
        compiled, _ = self._request(None if self._lengths is None else self._lengths[0])
        nodes = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()
                     if key in ("layerType", "runtimePrecision")}  # fmt: skip
            nodes.append(
                (node.get_friendly_name(), info.get("layerType", ""), info.get("runtimePrecision", ""))
            )
        return nodes

    def _shape(self, entry: Any, length: int) -> Any:
        """Return an input's shape at a fixed length; with token pruning, segments' lengths stay dynamic."""
        shape = entry.get_partial_shape()
        if self._token_pruning and entry.get_any_name() in ("hidden", "token_mask"):
            return shape
        return openvino.PartialShape([-1, length, *(shape[i] for i in range(2, len(shape)))])

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

    def _request(self, length: int | None) -> Any:
        """Return the compiled model for a length, and a request on it."""
        if length not in self._compiled:
            model = self._model
            if length is not None:
                model = model.clone()
                model.reshape({entry.get_any_name(): self._shape(entry, length) for entry in model.inputs})
            compiled = self._core.compile_model(model, "CPU", self._config)
            self._compiled[length] = (compiled, compiled.create_infer_request())
        return self._compiled[length]


def hint(runtime: RuntimeSettings) -> str:
    """Return the plugin's precision hint for what an engine leaves unquantized."""
    return _HINTS[runtime.unquantized_precision or runtime.precision]


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> OpenVinoGraph:
    """Open an OpenVINO IR file (.xml with its .bin).

    Raises:
        ArtifactError: the runtime refuses the model.
    """
    return OpenVinoGraph(path, runtime, threads)


def versions(backend: str = "openvino") -> dict[str, str]:
    """Return OpenVINO's version."""
    return {"openvino": openvino.__version__}
