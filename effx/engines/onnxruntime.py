"""ONNX Runtime graphs on the CPU provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from effx.engines.protocol import Arrays
from effx.errors import ArtifactError

_ERRORS_ONLY = 3


class OnnxRuntimeGraph:
    """An ONNX graph."""

    def __init__(self, path: Path, threads: int, *, one_of_many: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if one_of_many:  # threads that go on spinning after a segment are in the next one's way
            options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base class
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self._threads = threads

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        # its int64 is C's long long, which other runtimes do not take for NumPy's
        plain = (value.astype(np.int64) if value.dtype == np.int64 else value for value in values)
        return dict(zip(self._outputs, plain, strict=True))

    def describe(self) -> dict[str, object]:
        return {
            "providers": self._session.get_providers(),
            "threads": self._threads,
            "versions": versions(),
        }

    def close(self) -> None:
        del self._session


def open(path: Path, settings: Mapping[str, Any], threads: int) -> OnnxRuntimeGraph:
    """Open an ONNX file.

    Raises:
        ArtifactError: the runtime refuses the graph.
    """
    return OnnxRuntimeGraph(path, threads, one_of_many=len(settings.get("files", [])) > 1)


def versions() -> dict[str, str]:
    """Return onnxruntime's version."""
    return {"onnxruntime": onnxruntime.__version__}
