"""ONNX Runtime graphs on a GPU, by its CUDA or TensorRT provider, with inputs and outputs bound there.

The provider works on the device's one stream and is not waited for, so that events time it. Shapes
are recorded as CUDA graphs where the provider can: not for graphs with If, nor where a node other
than shape arithmetic is left to the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from effx.engines import cuda, on_device
from effx.engines.cuda import DeviceArray
from effx.engines.on_device import Placed
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError

_ERRORS_ONLY = 3
_TYPES: dict[str, np.dtype[Any]] = {
    "tensor(int64)": np.dtype(np.int64),
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
}
_MOST_SHAPES = 256
_USUAL_BATCH = 8
_NO_GRAPH = "-1"
_LIBRARIES = ("cudart", "nvrtc", "nvJitLink", "cublasLt", "cublas", "cufft", "curand", "cudnn")
"""What the providers link against, each after what it needs itself."""
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


def preload() -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, wherever on the path they are.

    ONNX Runtime's own ``preload_dlls`` looks beside itself, and takes what PyTorch has loaded: the
    processes that measure have no PyTorch, and packages may lie in several places.
    """
    spec = importlib.util.find_spec("nvidia")
    places = [] if spec is None else [Path(place) for place in spec.submodule_search_locations or ()]
    for name in _LIBRARIES:
        for path in (found for place in places for found in sorted(place.glob(f"*/lib/lib{name}.so.*"))):
            with contextlib.suppress(OSError):  # the provider says what it misses
                ctypes.CDLL(os.fspath(path), ctypes.RTLD_GLOBAL)
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def profile(path: Path, longest: int, largest_batch: int) -> dict[str, str]:
    """Return options of the TensorRT provider: one profile over all shapes of a graph's inputs.

    Without it the provider builds again whenever a shape leaves the range that it has seen so far.
    """
    inputs = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).get_inputs()
    found = {}
    for what, batch, length in (
        ("min", 1, 1),
        ("opt", _USUAL_BATCH, longest),
        ("max", largest_batch, longest),
    ):
        shapes = (
            [size if isinstance(size, int) else (batch, length)[min(place, 1)]
             for place, size in enumerate(entry.shape)]
            for entry in inputs
        )  # fmt: skip
        found[f"trt_profile_{what}_shapes"] = ",".join(
            f"{entry.name}:{'x'.join(map(str, shape))}" for entry, shape in zip(inputs, shapes, strict=True)
        )
    return found


class OnnxRuntimeCudaGraph:
    """An ONNX graph on the GPU."""

    def __init__(self, path: Path, settings: Mapping[str, Any], provider: str) -> None:
        self.device = cuda.device()
        self._tf32 = bool(settings.get("tf32", False))
        if not self._tf32:  # TensorRT's provider has no option; NVIDIA's libraries read this as they load
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
        preload()
        self._path, self._provider = path, provider
        self._profile: dict[str, str] = {}
        if provider == TENSORRT and "longest" in settings:
            self._profile = profile(path, int(settings["longest"]), int(settings["largest_batch"]))
        self._no_graph: str | None = None
        if not settings.get("cuda_graph", True):
            self._no_graph = "not asked for"
        elif provider == TENSORRT:
            self._no_graph = "the TensorRT provider records one shape only"
        self._session = self._open()
        self._inputs = {entry.name: _TYPES[entry.type] for entry in self._session.get_inputs()}
        self._results = {entry.name: _TYPES[entry.type] for entry in self._session.get_outputs()}
        self._memory = cuda.Memory(self.device)
        self._grown = 0
        self._shapes: OrderedDict[Any, tuple[int, Any, Placed]] = OrderedDict()
        self._numbered = 0

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._inputs

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        return self._memory.array(f"in {name}", shape, self._inputs.get(name, np.dtype(np.int64)))

    def launch(self, inputs: Placed) -> Placed:
        if self._no_graph is not None:
            return self._plain(inputs)
        if self._memory.grown != self._grown:
            self._shapes.clear()  # memory has moved: what was recorded is stale
            self._grown = self._memory.grown
        key = tuple((name, inputs[name].pointer, inputs[name].shape) for name in self._inputs)
        if key not in self._shapes:
            if len(self._shapes) >= _MOST_SHAPES:
                return self._plain(inputs)
            if not self._record(key, inputs):
                return self._plain(inputs)
        number, binding, outputs = self._shapes[key]
        self._run(binding, str(number))
        return outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return on_device.run(self, inputs)

    def describe(self) -> dict[str, object]:
        return {
            "device": self.device.name,
            "capability": self.device.capability,
            "providers": self._session.get_providers(),
            "cuda_graph": self._no_graph is None,
            "cuda_graph_reason": self._no_graph,
            "tf32": self._tf32,
            "timing": ["end-to-end", "device"],
            "versions": {"onnxruntime": onnxruntime.__version__},
        }

    def close(self) -> None:
        self.device.synchronize()
        self._shapes.clear()
        del self._session

    def _open(self) -> Any:
        """Return a session, with recording where the provider accepts the graph for it."""
        if self._no_graph is None:
            try:
                return self._made(record=True)
            except ArtifactError as error:
                self._no_graph = str(error)
        return self._made(record=False)

    def _made(self, *, record: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        own: dict[str, str] = {"device_id": "0", "user_compute_stream": str(self.device.stream)}
        plain = {**own, "use_tf32": str(int(self._tf32)), "enable_cuda_graph": str(int(record))}
        providers: list[Any] = [(CUDA, plain)]
        if self._provider == TENSORRT:
            providers = [(TENSORRT, {**own, **self._profile}), (CUDA, plain)]
        try:
            session = onnxruntime.InferenceSession(os.fspath(self._path), options, providers=providers)
        except Exception as error:  # onnxruntime's own errors share no base class
            reason = " ".join(str(error).split())[:200]
            raise ArtifactError(f"{self._path} cannot be loaded: {reason}") from error
        if self._provider not in session.get_providers():
            raise ArtifactError(
                f"{self._path}: {self._provider} did not load, which leaves the CPU. Check the driver, CUDA "
                "and cuDNN."
            )
        return session

    def _plain(self, inputs: Placed) -> Placed:
        """Run with outputs wherever the provider puts them."""
        binding = self._bound(inputs)
        for name in self._results:
            binding.bind_output(name, "cuda", 0)
        self._run(binding, _NO_GRAPH)
        return {
            name: DeviceArray(value.data_ptr(), tuple(value.shape()), self._results[name], value)
            for name, value in zip(self._results, binding.get_outputs(), strict=True)
        }

    def _record(self, key: Any, inputs: Placed) -> bool:
        """Record a shape; whether that worked, and nothing moved while it did."""
        sizes = {name: array.shape for name, array in self._plain(inputs).items()}
        outputs = {name: self._memory.array(f"out {name}", size, self._results[name])
                   for name, size in sizes.items()}  # fmt: skip
        if self._memory.grown != self._grown:
            self._shapes.clear()
            self._grown = self._memory.grown
        binding = self._bound(inputs)
        for name, array in outputs.items():
            binding.bind_output(name, "cuda", 0, array.dtype, array.shape, array.pointer)
        self._numbered += 1
        try:
            self._run(binding, str(self._numbered))
        except Exception as error:
            self._no_graph = " ".join(str(error).split())[:200]
            self._session = self._made(record=False)
            return False
        self._shapes[key] = self._numbered, binding, outputs
        return True

    def _bound(self, inputs: Placed) -> Any:
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
