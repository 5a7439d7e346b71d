"""ONNX Runtime sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime

from effx.errors import ArtifactError

_ERRORS_ONLY = 3


class OnnxRuntimeSession:
    """An ONNX graph on the CPU provider."""

    def __init__(self, path: Path, input_names: Sequence[str], threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no base class
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        self._names, self._threads = list(input_names), threads

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        feed = {name: inputs[name] for name in self._names}
        return {"logits": self._session.run(["logits"], feed)[0]}

    def describe(self) -> dict[str, object]:
        return {
            "providers": self._session.get_providers(),
            "threads": self._threads,
            "versions": versions(),
        }

    def close(self) -> None:
        del self._session

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(folder: Path, input_names: Sequence[str], *, threads: int | None = None) -> OnnxRuntimeSession:
    """Open ``folder/model.onnx``.

    Raises:
        ArtifactError: the runtime refuses the graph.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return OnnxRuntimeSession(folder / "model.onnx", input_names, threads or available or 1)


def versions() -> dict[str, str]:
    """Return onnxruntime's version."""
    return {"onnxruntime": onnxruntime.__version__}
