"""ONNX Runtime graphs on a GPU, by its CUDA or TensorRT provider, with inputs and outputs bound there.

The provider runs asynchronously on the device's one stream, so that events time it. Shapes are recorded
as CUDA graphs where the provider can: not for graphs with If, nor where a node other than shape
arithmetic runs on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from effx.engines import cuda, on_device
from effx.engines.cuda import DeviceArray
from effx.engines.on_device import DeviceArrays
from effx.engines.protocol import Arrays
from effx.engines.shapes import filled_shape
from effx.errors import ArtifactError, one_line
from effx.specs.runtime import RuntimeSettings

_ERRORS_ONLY = 3
_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
_USUAL_BATCH = 8
_NO_GRAPH = "-1"
_LIBRARIES = ("cudart", "nvrtc", "nvJitLink", "cublasLt", "cublas", "cufft", "curand", "cudnn")
"""What the providers link against, each after its dependencies."""
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def preload() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, wherever on the Python path they are.

    ONNX Runtime's ``preload_dlls`` looks in the site-packages that ONNX Runtime is in, and uses what PyTorch
    has loaded: the processes that measure have no PyTorch, and packages may be in several folders.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
    for name in _LIBRARIES:
        for path in (path for folder in folders for path in sorted(folder.glob(f"*/lib/lib{name}.so.*"))):
            with contextlib.suppress(OSError):  # the provider reports what is missing
                ctypes.CDLL(os.fspath(path), ctypes.RTLD_GLOBAL)
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def optimization_profile(path: Path, max_length: int, max_batch: int) -> dict[str, str]:
    """Return options of the TensorRT provider: one optimization profile over all shapes of a graph's inputs.

    Without it the provider builds again whenever a shape is outside the range that it has seen so far.
    """
    inputs = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()
    options = {}
    for bound, batch, length in (
        ("min", 1, 1),
        ("opt", _USUAL_BATCH, max_length),
        ("max", max_batch, max_length),
    ):
        shapes = (filled_shape(entry.shape, batch, length) for entry in inputs)
        options[f"trt_profile_{bound}_shapes"] = ",".join(
            f"{entry.name}:{'x'.join(map(str, shape))}" for entry, shape in zip(inputs, shapes, strict=True)
        )
    return options


class OnnxRuntimeCudaGraph:
    """An ONNX graph on the GPU."""

    def __init__(self, path: Path, runtime: RuntimeSettings, provider: str) -> None:
        self.device = cuda.device()
        self._tf32 = runtime.tf32
        if not self._tf32:  # TensorRT's provider has no option; NVIDIA's libraries read this as they load
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        preload()
        self._path, self._provider = path, provider
        self._profile: dict[str, str] = {}
        if provider == TENSORRT and runtime.max_length and runtime.max_batch:
            self._profile = optimization_profile(path, runtime.max_length, runtime.max_batch)
        self._no_graph: str | None = None
        if not runtime.cuda_graph:
            self._no_graph = "not requested"
        elif provider == TENSORRT:
            self._no_graph = "the TensorRT provider records a single shape"
        self._session = self._open()
        self._inputs = {entry.name: _TYPES[entry.type] for entry in self._session.get_inputs()}
        self._results = {entry.name: _TYPES[entry.type] for entry in self._session.get_outputs()}
        self._memory = cuda.Memory(self.device)
        self._reallocations = 0
        self._shapes: dict[Any, tuple[int, Any, DeviceArrays]] = {}
        self._left_out = False
        self._last_number = 0

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._inputs

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        return self._memory.array(f"in {name}", shape, self._inputs.get(name, np.dtype(np.int64)))

    def launch(self, inputs: DeviceArrays) -> DeviceArrays:
        if self._no_graph is not None:
            return self._run_unrecorded(inputs)
        if self._memory.reallocations != self._reallocations:
            self._shapes.clear()  # memory has moved: recorded graphs are stale
            self._reallocations = self._memory.reallocations
        key = tuple((name, inputs[name].pointer, inputs[name].shape) for name in self._inputs)
        if key not in self._shapes:
            full = len(self._shapes) >= on_device.MOST_SHAPES
            self._left_out = self._left_out or full
            if full or not self._record(key, inputs):
                return self._run_unrecorded(inputs)
        number, binding, outputs = self._shapes[key]
        self._run(binding, str(number))
        return outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return on_device.run(self, inputs)

    def describe(self) -> dict[str, object]:
        return {
            "device": self.device.name,
            "uuid": self.device.uuid,
            "capability": self.device.capability,
            "providers": self._session.get_providers(),
            **on_device.recording(self._no_graph, left_out=self._left_out),
            "tf32": self._tf32,
            "timing": ["end-to-end", "device"],
            "versions": {"onnxruntime": onnxruntime.__version__},
        }

    def close(self) -> None:
        self.device.synchronize()
        self._shapes.clear()
        del self._session

    def _open(self) -> Any:
        """Return a session that records CUDA graphs, if the provider accepts the graph for that."""
        if self._no_graph is None:
            try:
                return self._new_session(record=True)
            except ArtifactError as error:
                self._no_graph = str(error)
        return self._new_session(record=False)

    def _new_session(self, *, record: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        common: dict[str, str] = {"device_id": "0", "user_compute_stream": str(self.device.stream)}
        cuda_options = {**common, "use_tf32": str(int(self._tf32)), "enable_cuda_graph": str(int(record))}
        providers: list[Any] = [(CUDA, cuda_options)]
        if self._provider == TENSORRT:
            providers = [(TENSORRT, {**common, **self._profile}), (CUDA, cuda_options)]
        try:
            session = onnxruntime.InferenceSession(os.fspath(self._path), options, providers=providers)
        except Exception as error:  # onnxruntime's errors have no common base class
            reason = one_line(error)
            raise ArtifactError(f"{self._path} cannot be loaded: {reason}") from error
        if self._provider not in session.get_providers():
            raise ArtifactError(
                f"{self._path}: {self._provider} did not load, so ONNX Runtime would use the CPU. Check the "
                "driver, CUDA and cuDNN."
            )
        return session

    def _run_unrecorded(self, inputs: DeviceArrays) -> DeviceArrays:
        """Run without recording; the provider allocates the outputs."""
        binding = self._bound(inputs)
        for name in self._results:
            binding.bind_output(name, "cuda", 0)
        self._run(binding, _NO_GRAPH)
        return {
            name: DeviceArray(value.data_ptr(), tuple(value.shape()), self._results[name], value)
            for name, value in zip(self._results, binding.get_outputs(), strict=True)
        }

    def _record(self, key: Any, inputs: DeviceArrays) -> bool:
        """Record a shape; return whether that worked."""
        sizes = {name: array.shape for name, array in self._run_unrecorded(inputs).items()}
        outputs = {name: self._memory.array(f"out {name}", size, self._results[name])
                   for name, size in sizes.items()}  # fmt: skip
        if self._memory.reallocations != self._reallocations:
            self._shapes.clear()
            self._reallocations = self._memory.reallocations
        binding = self._bound(inputs)
        for name, array in outputs.items():
            binding.bind_output(name, "cuda", 0, array.dtype, array.shape, array.pointer)
        self._last_number += 1
        try:
            self._run(binding, str(self._last_number))
        except Exception as error:
            self._no_graph = one_line(error)
            self._session = self._new_session(record=False)
            return False
        self._shapes[key] = self._last_number, binding, outputs
        return True

    def _bound(self, inputs: DeviceArrays) -> Any:
        binding = self._session.io_binding()
        for name in self._inputs:
            array = inputs[name]
            binding.bind_input(name, "cuda", 0, array.dtype, array.shape, array.pointer)
        return binding

    def _run(self, binding: Any, graph: str) -> None:
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if self._no_graph is None:
            options.add_run_config_entry("gpu_graph_id", graph)
        self._session.run_with_iobinding(binding, options)
