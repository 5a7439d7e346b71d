"""OpenVINO graphs on the CPU plugin, in the precision that the engine says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from effx.engines.protocol import Arrays
from effx.errors import ArtifactError

_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}
"""Precision -> that of what is not quantised. Without it, CPUs with bf16 compute fp32 models in bf16."""


class OpenVinoGraph:
    """An OpenVINO model compiled for the CPU; fixed lengths are compiled one by one, when first met."""

    def __init__(self, path: Path, settings: Mapping[str, Any], threads: int) -> None:
        lengths = settings.get("lengths")
        self._lengths = lengths if lengths and len(lengths) > 1 else None  # one: fixed in the graph
        self._shortened = bool(settings.get("tokens"))
        self._core = openvino.Core()
        self._config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": hint(settings),
        }
        self._threads = threads
        try:
            self._model = self._core.read_model(path)
            self._compiled: dict[int | None, Any] = {}
            if self._lengths is None:
                self._request(None)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        self._inputs = [entry.get_any_name() for entry in self._model.inputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        length = None if self._lengths is None else int(inputs["attention_mask"].shape[1])
        compiled, request = self._request(length)
        # int64 is what every engine is fed; the plugin converts it inside
        request.infer({name: np.ascontiguousarray(inputs[name]) for name in self._inputs}, share_inputs=True)
        return {
            output.get_any_name(): request.get_output_tensor(number).data.copy()
            for number, output in enumerate(compiled.outputs)
        }

    def executed(self) -> list[tuple[str, str, str]]:
        """Return name, kind and precision of every node as it runs."""
        compiled, _ = self._request(None if self._lengths is None else self._lengths[0])
        found = []
        for node in compiled.get_runtime_model().get_ordered_ops():
            facts = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()
                     if key in ("layerType", "runtimePrecision")}  # fmt: skip
            found.append(
                (node.get_friendly_name(), facts.get("layerType", ""), facts.get("runtimePrecision", ""))
            )
        return found

    def _shape(self, entry: Any, length: int) -> Any:
        """Return an input's shape at a fixed length; segments that get fewer tokens keep theirs open."""
        shape = entry.get_partial_shape()
        if self._shortened and entry.get_any_name() in ("hidden", "alive"):
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


def hint(settings: Mapping[str, Any]) -> str:
    """Return the plugin's precision for what an engine leaves unquantised."""
    return _HINTS[settings.get("rest") or settings.get("precision", "fp32")]


def open(path: Path, settings: Mapping[str, Any], threads: int) -> OpenVinoGraph:
    """Open an OpenVINO IR file (.xml beside its .bin).

    Raises:
        ArtifactError: the runtime refuses the model.
    """
    return OpenVinoGraph(path, settings, threads)


def versions(backend: str = "openvino") -> dict[str, str]:
    """Return OpenVINO's version."""
    return {"openvino": openvino.__version__}
