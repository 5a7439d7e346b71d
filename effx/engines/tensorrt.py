"""TensorRT and TensorRT-RTX plans, on the device and release that they were built for.

There is one execution context per shape, all on one scratch memory, so that each shape is captured as a
CUDA graph once (TensorRT developer guide, "CUDA Graphs") and launched as a graph afterwards. A plan whose
output sizes depend on the data, or that cannot be captured, is queued layer by layer instead; ``describe``
reports which. So are shapes beyond the first :data:`effx.engines.on_device.MOST_SHAPES`, in one context per
profile that is set to each of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effx.engines import cuda, on_device
from effx.engines.cuda import DeviceArray
from effx.engines.on_device import DeviceArrays
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, DeviceError, UsageError, one_line
from effx.specs import backends
from effx.specs.runtime import RuntimeSettings

_DATA_DEPENDENT = "the sizes of outputs depend on the data"


@dataclass
class _Shape:
    """A context set to one shape at fixed addresses, and its recorded graph; or a spare one."""

    context: Any
    outputs: DeviceArrays = field(default_factory=dict)
    growing: dict[str, Any] = field(default_factory=dict)
    """Allocators of the outputs whose sizes depend on the data."""
    graph: cuda.RecordedGraph | None = None
    spare: bool = False
    """Whether it is set anew for every shape that has no context of its own, and so is not recorded."""
    key: Any = None
    """Shapes and addresses that it is set to; None: to none that are valid."""


class PlanGraph:
    """A deserialised plan."""

    def __init__(self, path: Path, backend: str, runtime: RuntimeSettings) -> None:
        self.device = cuda.device()
        self._path, self._backend = path, backends.get(backend)
        self._trt: Any = importlib.import_module(self._backend.python_module)
        check_built_for(path, runtime, backend, str(self._trt.__version__), self.device)
        messages: list[str] = []
        self._logger = logger(self._trt, messages)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            reason = (messages or ["no reason given"])[0][:200]
            raise ArtifactError(f"{path} cannot be loaded by {backend}: {reason}")
        if graph := runtime.weight_files.get(path.name):
            self._refit(path.with_name(graph), messages)
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._mode(name) == self._trt.TensorIOMode.INPUT]
        self._inputs = {name: self._type(name) for name in inputs}
        self._results = {name: self._type(name) for name in names if name not in inputs}
        self._memory = cuda.Memory(self.device)
        self._shapes: dict[Any, _Shape] = {}
        self._spares: dict[int, _Shape] = {}  # by profile: setting another would reset the context
        self._left_out = False
        self._reallocations = 0
        self._graphs = runtime.cuda_graph
        self._no_graph: str | None = None if self._graphs else "not requested"
        self._tf32 = runtime.tf32

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._inputs

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        kind = self._inputs.get(name, np.dtype(np.int64))
        return self._memory.array(f"in {name}", shape, kind)

    def launch(self, inputs: DeviceArrays) -> DeviceArrays:
        shape = self._shape(inputs)
        if shape.graph is not None:
            shape.graph.launch()
            return shape.outputs
        self._queue(shape)
        if self._graphs and not shape.spare:
            self._capture(shape)
        if not shape.growing:
            return shape.outputs
        return {**shape.outputs, **{name: output.array() for name, output in shape.growing.items()}}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return on_device.run(self, inputs)

    def describe(self) -> dict[str, object]:
        return {
            "device": self.device.name,
            "uuid": self.device.uuid,
            "capability": self.device.capability,
            "profiles": int(self._engine.num_optimization_profiles),
            **on_device.recording(self._no_graph, left_out=self._left_out),
            "tf32": self._tf32,
            "timing": ["end-to-end", "device"],
            "versions": {self._backend.packages[0]: str(self._trt.__version__)},
        }

    def close(self) -> None:
        self._forget()
        self._spares.clear()
        del self._engine, self._runtime

    def layers(self) -> list[dict[str, Any]]:
        """Return the inspector's description of the plan's layers; some plans have only names."""
        import json

        text = self._engine.create_engine_inspector().get_engine_information(
            self._trt.LayerInformationFormat.JSON
        )
        layers = json.loads(text).get("Layers", [])
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in layers]

    def _refit(self, graph: Path, messages: list[str]) -> None:
        """Put a stripped plan's weights back, from the graph that it was built from.

        Raises:
            ArtifactError: they do not fit.
        """
        refitter = self._trt.Refitter(self._engine, self._logger)
        parser = self._trt.OnnxParserRefitter(refitter, self._logger)
        if not (parser.refit_from_file(str(graph)) and refitter.refit_cuda_engine()):
            reason = (messages or ["no reason given"])[0][:200]
            raise ArtifactError(f"{self._path} does not accept the weights of {graph.name}: {reason}")

    def _mode(self, name: str) -> Any:
        return self._engine.get_tensor_mode(name)

    def _type(self, name: str) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return dtype

    def _shape(self, inputs: DeviceArrays) -> _Shape:
        """Return a context set to these shapes and addresses; a new or a spare one where they are new.

        Raises:
            UsageError: no profile of the plan covers these shapes.
        """
        if self._memory.reallocations != self._reallocations:
            self._forget()  # memory has moved
            self._reallocations = self._memory.reallocations
        key = tuple((name, inputs[name].pointer, inputs[name].shape) for name in self._inputs)
        if key in self._shapes:
            return self._shapes[key]
        profile = self._profile(inputs)
        if len(self._shapes) < on_device.MOST_SHAPES:
            shape = self._new(profile)
        else:
            self._left_out = True
            if profile not in self._spares:
                self._spares[profile] = self._new(profile)
                self._spares[profile].spare = True
            shape = self._spares[profile]
            if shape.key == key:
                return shape
        self._set(shape, inputs)
        if self._memory.reallocations != self._reallocations:  # its outputs moved memory of other shapes
            self._forget()
            self._reallocations = self._memory.reallocations
        shape.key = key
        if not shape.spare:
            self._shapes[key] = shape
        return shape

    def _new(self, profile: int) -> _Shape:
        """Make a context of a profile."""
        context = self._engine.create_execution_context(
            self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        if context is None:
            raise ArtifactError(f"{self._path}: no execution context; the GPU's memory may be full.")
        # 0 is set in the first context only
        if not context.set_optimization_profile_async(profile, self.device.stream):
            raise ArtifactError(f"{self._path}: profile {profile} cannot be set.")
        return _Shape(context)

    def _set(self, shape: _Shape, inputs: DeviceArrays) -> None:
        """Set a context's shapes, addresses and scratch memory."""
        context = shape.context
        for name in self._inputs:
            if not (
                context.set_input_shape(name, inputs[name].shape)
                and context.set_tensor_address(name, inputs[name].pointer)
            ):
                raise ArtifactError(f"{self._path}: input {name} cannot be set to {inputs[name].shape}.")
        for name, kind in self._results.items():
            size = tuple(context.get_tensor_shape(name))
            if min(size, default=0) < 0:  # it depends on the data
                if name not in shape.growing:
                    shape.growing[name] = _allocator(self._trt, self._memory, name, kind)
                    context.set_output_allocator(name, shape.growing[name])
                self._graphs, self._no_graph = False, self._no_graph or _DATA_DEPENDENT
                continue
            shape.outputs[name] = self._memory.array(f"out {name}", size, kind)
            context.set_tensor_address(name, shape.outputs[name].pointer)
        scratch = self._memory.array("scratch", (int(context.update_device_memory_size_for_shapes()),), "u1")
        context.set_device_memory(scratch.pointer, scratch.nbytes)

    def _profile(self, inputs: DeviceArrays) -> int:
        """Return the first profile that covers the shapes; profiles are ordered from short to long."""
        for number in range(self._engine.num_optimization_profiles):
            ranges = {name: self._engine.get_tensor_profile_shape(name, number) for name in self._inputs}
            if all(
                low <= size <= high
                for name, (least, _, most) in ranges.items()
                for low, size, high in zip(least, inputs[name].shape, most, strict=True)
            ):
                return number
        shapes = ", ".join(f"{name} {'x'.join(map(str, inputs[name].shape))}" for name in self._inputs)
        raise UsageError(
            f"{self._path}: no optimization profile of this plan accepts {shapes}; its largest "
            "batch and length are fixed."
        )

    def _queue(self, shape: _Shape) -> None:
        if not shape.context.execute_async_v3(self.device.stream):
            raise ArtifactError(f"{self._path}: the plan failed to run.")

    def _capture(self, shape: _Shape) -> None:
        """Record the shape; it has run before, as TensorRT requires."""
        try:
            with self.device.capture() as graph:
                self._queue(shape)
        except (ArtifactError, DeviceError) as error:  # a loop, or a size read back on the host
            self._graphs, self._no_graph = False, str(error)
            return
        shape.graph = graph

    def _forget(self) -> None:
        self.device.synchronize()
        while self._shapes:
            _drop(self._shapes.popitem()[1])
        for spare in self._spares.values():
            spare.key = None


def _drop(shape: _Shape) -> None:
    if shape.graph is not None:
        shape.graph.close()


def _allocator(trt: Any, memory: cuda.Memory, name: str, kind: np.dtype[Any]) -> Any:
    """Return an allocator that gives TensorRT memory for an output once its size is known."""

    class Growing(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.shape: tuple[int, ...] = ()
            self.bytes: DeviceArray | None = None

        def reallocate_output_async(
            self, tensor: str, address: int, size: int, alignment: int, stream: int
        ) -> int:
            self.bytes = memory.array(f"out {name}", (size,), "u1")
            return self.bytes.pointer

        def reallocate_output(self, tensor: str, address: int, size: int, alignment: int) -> int:
            return self.reallocate_output_async(tensor, address, size, alignment, 0)

        def notify_shape(self, tensor: str, shape: Any) -> None:
            self.shape = tuple(int(size) for size in shape)

        def array(self) -> DeviceArray:
            assert self.bytes is not None
            return DeviceArray(self.bytes.pointer, self.shape, kind, self.bytes.owner)

    return Growing()


def logger(trt: Any, messages: list[str]) -> Any:
    """Return a logger that appends errors to ``messages`` and prints nothing."""

    class Errors(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                messages.append(one_line(message, None))

    return Errors()


def check_gpu(backend: str) -> None:
    """Raise :class:`DeviceError` unless there is a usable GPU."""
    cuda.device()


def check_built_for(
    path: Path, runtime: RuntimeSettings, backend: str, version: str, device: cuda.Device
) -> None:
    """Raise :class:`ArtifactError` unless the plan was built for this release and this GPU.

    A plan that was built on a GPU runs only on the same model of GPU, a plan that was built ahead of time on
    every GPU of its compute capability.
    """
    built = runtime.plan
    if built is None:
        return
    # a plan that was built ahead of time is built again for the GPU of this machine
    target = "" if runtime.device == "cuda" else f" --device {device.capability}"
    again = f"effx export CHECKPOINT --backend {backend} --variant {runtime.variant or 'V'} --overwrite"
    for what, expected, actual in (
        (backend, built.version, version),
        ("compute capability", built.capability, device.capability),
        ("GPU", built.device, device.name),
    ):
        if expected is not None and expected != actual:
            raise ArtifactError(
                f"{path} was built for {what} {expected}, this machine has {actual}. Build it again on this "
                f"machine: {again}{target}"
            )


def open(path: Path, backend: str, runtime: RuntimeSettings, threads: int) -> PlanGraph:
    """Open a plan.

    Raises:
        DeviceError: there is no usable GPU.
        ArtifactError: it was built for another release or device, or is damaged.
    """
    return PlanGraph(path, backend, runtime)


def versions(backend: str) -> dict[str, str]:
    """Return the version of the package that runs ``backend``; empty where it is not installed."""
    package = backends.get(backend).packages[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return {package: importlib.metadata.version(package)}
    return {}
