"""PyTorch graphs: an exported program, run eagerly or compiled; requires torch, not transformers.

On a GPU each shape is captured as a CUDA graph: by torch.cuda.graph where the program runs eagerly, by
torch.compile's mode reduce-overhead where it is compiled.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from effx import scratch
from effx.engines import cuda, on_device
from effx.engines.cuda import DeviceArray
from effx.engines.on_device import DeviceArrays
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, MissingExtraError, one_line
from effx.quiet import quiet
from effx.specs.runtime import RuntimeSettings

_WARM_UP_RUNS = 2


def _compiled(module: Any, mode: str = "default") -> Any:
    """Return a module that is compiled when it is first called.

    PyTorch fixes the folder of precompiled headers when its compiler is imported, and uses it as long as the
    process runs: it must not be one that is removed before, as that of an export.
    """
    scratch.for_torch()
    compiler: Any = importlib.import_module("torch._inductor.codecache")
    folder = scratch.of_process() / "precompiled_headers"
    compiler._HEADER_DIR, compiler._HEADER_LOCK_DIR = str(folder), str(folder / "locks")
    return torch.compile(module, dynamic=True, mode=mode)


class TorchGraph:
    """A program saved by torch.export."""

    def __init__(self, path: Path, runtime: RuntimeSettings, threads: int) -> None:
        torch.set_num_threads(threads)
        self._threads, self._compiled = threads, runtime.compiled
        self._names = list(runtime.input_names[path.name])
        self._outputs = list(runtime.output_names[path.name])
        self._dtype = torch.bfloat16 if runtime.precision == "bf16" else None
        self._module: Any = _program(path).module()
        if self._compiled:
            self._module = _compiled(self._module)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.inference_mode(), torch.autocast("cpu", self._dtype, enabled=self._dtype is not None):
            outs = self._module(*(torch.from_numpy(inputs[name]) for name in self._names))
        outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        values = (out.float() if out.is_floating_point() else out for out in outs)
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}

    def describe(self) -> dict[str, object]:
        return {"compiled": self._compiled, "threads": self._threads, "versions": versions()}

    def close(self) -> None:
        del self._module


class TorchCudaGraph:
    """A program saved by torch.export, on the GPU."""

    def __init__(self, path: Path, runtime: RuntimeSettings) -> None:
        check_gpu()
        self.device = cuda.device()
        self._compiled = runtime.compiled
        self._names = list(runtime.input_names[path.name])
        self._results = list(runtime.output_names[path.name])
        self._inputs = {name: np.dtype(np.float32 if name == "hidden" else np.int64) for name in self._names}
        self._tf32 = runtime.tf32
        torch.backends.cuda.matmul.allow_tf32 = self._tf32
        with quiet():
            moved = move_to_device_pass(_program(path), "cuda")
        self._module: Any = moved.module()
        stream: Any = torch.cuda.ExternalStream
        self._stream = stream(self.device.stream)
        self._buffers: dict[str, torch.Tensor] = {}
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, DeviceArrays]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._left_out = False
        self._no_graph: str | None = None if runtime.cuda_graph else "not requested"
        if self._compiled:
            if len(runtime.files) > 1:  # a recorded graph may overwrite the outputs of another
                self._no_graph = "segments are compiled without recording"
            mode = "reduce-overhead" if self._no_graph is None else "default"
            self._module = _compiled(self._module, mode=mode)

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._inputs

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        kind = self._inputs.get(name, np.dtype(np.int64))
        needed = int(np.prod(shape)) * kind.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.numel() < needed:
            self.device.synchronize()
            self._recorded.clear()  # memory moves: recorded graphs are stale
            self._pool = torch.cuda.graph_pool_handle()  # an output may still hold the old one
            self._buffers[name] = buffer = torch.empty(needed, dtype=torch.uint8, device="cuda")
        return _array(buffer[:needed].view(_TYPES[kind.name]).view(shape))

    def launch(self, inputs: DeviceArrays) -> DeviceArrays:
        tensors = [inputs[name].owner for name in self._names]
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            if self._compiled or self._no_graph is not None:
                return self._run(tensors)
            key = tuple((inputs[name].pointer, inputs[name].shape) for name in self._names)
            if key not in self._recorded:
                full = len(self._recorded) >= on_device.MOST_SHAPES
                self._left_out = self._left_out or full
                if full or not self._record(key, tensors):
                    return self._run(tensors)
            graph, outputs = self._recorded[key]
            graph.replay()
            return outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return on_device.run(self, inputs)

    def describe(self) -> dict[str, object]:
        return {
            "device": self.device.name,
            "uuid": self.device.uuid,
            "capability": self.device.capability,
            "compiled": self._compiled,
            **on_device.recording(self._no_graph, left_out=self._left_out),
            "tf32": self._tf32,
            "timing": ["end-to-end", "device"],
            "versions": versions(),
        }

    def close(self) -> None:
        self.device.synchronize()
        self._recorded.clear()
        self._buffers.clear()
        del self._module

    def _run(self, tensors: list[Any]) -> DeviceArrays:
        outs = self._module(*tensors)
        outs = outs if isinstance(outs, (tuple, list)) else (outs,)
        values = (out.float() if out.is_floating_point() else out for out in outs)
        return {name: _array(value) for name, value in zip(self._results, values, strict=True)}

    def _record(self, key: Any, tensors: list[Any]) -> bool:
        """Capture a shape; return whether that worked."""
        for _ in range(_WARM_UP_RUNS):  # libraries choose kernels and take memory on the first runs
            self._run(tensors)
        self.device.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                outputs = self._run(tensors)
        except RuntimeError as error:  # a size that is read back on the host
            self._no_graph = one_line(error)
            return False
        self._recorded[key] = graph, outputs
        return True


_TYPES = {"int64": torch.int64, "float32": torch.float32}


def _array(tensor: torch.Tensor) -> DeviceArray:
    tensor = tensor.contiguous()
    kind = np.dtype(str(tensor.dtype).removeprefix("torch."))
    return DeviceArray(tensor.data_ptr(), tuple(tensor.shape), kind, tensor)


def _program(path: Path) -> Any:
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:  # pickle, zip and schema errors have no common base class
        reason = one_line(error)
        raise ArtifactError(f"{path} cannot be loaded: {reason}") from error


def check_gpu(backend: str = "torch") -> None:
    """Check that torch has CUDA and that there is a GPU.

    Raises:
        MissingExtraError: this torch was built without CUDA.
        DeviceError: there is no usable GPU.
    """
    if torch.version.cuda is None:
        raise MissingExtraError(
            "this torch was built without CUDA. Install a build with CUDA: pip install torch"
        )
    cuda.device()


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> TorchGraph | TorchCudaGraph:
    """Open a .pt2 file.

    Raises:
        ArtifactError: the file is damaged or of another release of torch.
        MissingExtraError: it is for a GPU, and this torch was built without CUDA.
        DeviceError: it is for a GPU, and there is no usable GPU.
    """
    if runtime.device == "cuda":
        return TorchCudaGraph(path, runtime)
    return TorchGraph(path, runtime, threads)


def versions(backend: str = "torch") -> dict[str, str]:
    """Return torch's version."""
    return {"torch": str(torch.__version__)}
