"""ONNX Runtime graphs on the execution provider that the engine was built for; never on a fallback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from effx.engines import cuda
from effx.engines.protocol import Arrays, EngineGraph
from effx.errors import ArtifactError, MissingExtraError, one_line
from effx.specs import backends
from effx.specs.runtime import RuntimeSettings

_ERRORS_ONLY = 3


class OnnxRuntimeGraph:
    """An ONNX graph on the CPU."""

    def __init__(self, path: Path, runtime: RuntimeSettings, threads: int, provider: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        if runtime.keep_qdq:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        # threads that keep spinning after a segment slow the next segment down
        if len(runtime.files) > 1:
            options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=[provider], disabled_optimizers=[*runtime.disabled_optimizers]
            )
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = one_line(error)
            raise ArtifactError(f"{path} cannot be loaded: {reason}") from error
        if provider not in self._session.get_providers():
            raise ArtifactError(
                f"{path}: {provider} did not load, so ONNX Runtime would use the CPU. Check the driver, CUDA "
                "and cuDNN."
            )
        self._inputs = [entry.name for entry in self._session.get_inputs()]
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self._threads = threads

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        values = self._session.run(self._outputs, {name: inputs[name] for name in self._inputs})
        # its int64 is C's long long, which other runtimes do not accept as NumPy's
        arrays = (value.astype(np.int64) if value.dtype == np.int64 else value for value in values)
        return dict(zip(self._outputs, arrays, strict=True))

    def describe(self) -> dict[str, object]:
        return {
            "providers": self._session.get_providers(),
            "threads": self._threads,
            "versions": versions(),
        }

    def close(self) -> None:
        del self._session


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> EngineGraph:
    """Open an ONNX file.

    Raises:
        MissingExtraError: this onnxruntime was built without the provider.
        ArtifactError: the runtime refuses the graph, or the provider does not load.
    """
    provider = _provider(backend, runtime.device)
    if provider != "CPUExecutionProvider":
        from effx.engines.onnxruntime_cuda import OnnxRuntimeCudaGraph

        return OnnxRuntimeCudaGraph(path, runtime, provider)
    return OnnxRuntimeGraph(path, runtime, threads, provider)


def check_gpu(backend: str) -> None:
    """Check that this onnxruntime has the backend's provider, and that there is a GPU.

    Raises:
        MissingExtraError: it was built without the provider.
        DeviceError: there is no usable GPU.
    """
    _provider(backend, "cuda")
    cuda.device()


def _provider(backend: str, device: str) -> str:
    row = backends.get(backend)
    provider = row.execution_providers[row.device(device)]  # ONNX Runtime falls back to the CPU silently
    if provider not in onnxruntime.get_available_providers():
        raise MissingExtraError(
            f"this onnxruntime was built without {provider}. On the target, run: pip uninstall onnxruntime; "
            "pip install 'effx[gpu]'"
        )
    return provider


def versions(backend: str = "onnxruntime") -> dict[str, str]:
    """Return onnxruntime's version."""
    return {"onnxruntime": onnxruntime.__version__}
