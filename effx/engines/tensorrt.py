"""TensorRT and TensorRT-RTX plans, on the device and release that they were built for.

One execution context per shape, all on one scratch memory, so that each shape is captured as a CUDA
graph once (TensorRT developer guide, "CUDA Graphs") and launched as one afterwards. A plan whose
outputs' sizes follow from the data, or that cannot be captured, is queued layer by layer instead;
``describe`` tells which.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from effx.engines import cuda, on_device
from effx.engines.cuda import DeviceArray
from effx.engines.on_device import Placed
from effx.engines.protocol import Arrays
from effx.errors import ArtifactError, UsageError
from effx.specs import backends

_MOST_SHAPES = 256


@dataclass
class _Shape:
    """A context set to one shape at one place in memory, and its recorded graph."""

    context: Any
    outputs: Placed = field(default_factory=dict)
    growing: dict[str, Any] = field(default_factory=dict)
    """Allocators of the outputs whose sizes follow from the data."""
    graph: cuda.Graph | None = None
    runs: int = 0


class PlanGraph:
    """A deserialised plan."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        backend = str(settings["backend"])
        self.device = cuda.device()
        self._path, self._backend = path, backends.get(backend)
        self._trt: Any = importlib.import_module(self._backend.python_module)
        check_built_for(path, settings, backend, str(self._trt.__version__), self.device)
        said: list[str] = []
        self._logger = logger(self._trt, said)
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            reason = (said or ["no reason given"])[0][:200]
            raise ArtifactError(f"{path} cannot be loaded by {backend}: {reason}")
        if graph := dict(settings.get("weights") or {}).get(path.name):
            self._refit(path.with_name(graph), said)
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        taken = [name for name in names if self._mode(name) == self._trt.TensorIOMode.INPUT]
        self._inputs = {name: self._type(name) for name in taken}
        self._results = {name: self._type(name) for name in names if name not in taken}
        self._memory = cuda.Memory(self.device)
        self._shapes: OrderedDict[Any, _Shape] = OrderedDict()
        self._current: _Shape | None = None
        self._grown = 0
        self._graphs = bool(settings.get("cuda_graph", True))
        self._no_graph: str | None = None if self._graphs else "not asked for"
        self._tf32 = bool(settings.get("tf32", False))

    @property
    def inputs(self) -> Mapping[str, np.dtype[Any]]:
        return self._inputs

    def reserve(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        kind = self._inputs.get(name, np.dtype(np.int64))
        return self._memory.array(f"in {name}", shape, kind)

    def launch(self, inputs: Placed) -> Placed:
        shape = self._shape(inputs)
        if shape.graph is not None:
            shape.graph.launch()
            return shape.outputs
        self._queue(shape)
        shape.runs += 1
        if self._graphs and not shape.growing:
            self._capture(shape)
        if not shape.growing:
            return shape.outputs
        return {**shape.outputs, **{name: own.array() for name, own in shape.growing.items()}}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        return on_device.run(self, inputs)

    def describe(self) -> dict[str, object]:
        return {
            "device": self.device.name,
            "capability": self.device.capability,
            "profiles": int(self._engine.num_optimization_profiles),
            "cuda_graph": self._no_graph is None,
            "cuda_graph_reason": self._no_graph,
            "tf32": self._tf32,
            "timing": ["end-to-end", "device"],
            "versions": {self._backend.packages[0]: str(self._trt.__version__)},
        }

    def close(self) -> None:
        self._forget()
        del self._engine, self._runtime

    def layers(self) -> list[dict[str, Any]]:
        """Return what the inspector tells of the plan's layers, as built; a plan may tell names alone."""
        import json

        told = self._engine.create_engine_inspector().get_engine_information(
            self._trt.LayerInformationFormat.JSON
        )
        found = json.loads(told).get("Layers", [])
        return [layer if isinstance(layer, dict) else {"Name": layer} for layer in found]

    def _refit(self, graph: Path, said: list[str]) -> None:
        """Put a stripped plan's weights back, from the graph that it was built of.

        Raises:
            ArtifactError: they do not fit.
        """
        refitter = self._trt.Refitter(self._engine, self._logger)
        parser = self._trt.OnnxParserRefitter(refitter, self._logger)
        if not (parser.refit_from_file(str(graph)) and refitter.refit_cuda_engine()):
            reason = (said or ["no reason given"])[0][:200]
            raise ArtifactError(f"{self._path} does not take the weights of {graph.name}: {reason}")

    def _mode(self, name: str) -> Any:
        return self._engine.get_tensor_mode(name)

    def _type(self, name: str) -> np.dtype[Any]:
        made: np.dtype[Any] = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        return made

    def _shape(self, inputs: Placed) -> _Shape:
        """Return the context of these shapes and addresses, made if they are new."""
        if self._memory.grown != self._grown:
            self._forget()  # memory has moved
            self._grown = self._memory.grown
        key = tuple((name, inputs[name].pointer, inputs[name].shape) for name in self._inputs)
        if key in self._shapes:
            self._shapes.move_to_end(key)
            return self._shapes[key]
        if len(self._shapes) >= _MOST_SHAPES:
            self.device.synchronize()
            _drop(self._shapes.popitem(last=False)[1])
        made = self._prepare(inputs)
        if self._memory.grown != self._grown:  # its outputs moved memory that others used
            self._forget()
            self._grown = self._memory.grown
        self._shapes[key] = made
        return made

    def _prepare(self, inputs: Placed) -> _Shape:
        """Make a context, set its profile, shapes, addresses and scratch memory.

        Raises:
            UsageError: no profile of the plan holds these shapes.
        """
        trt, stream = self._trt, self.device.stream
        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise ArtifactError(f"{self._path}: no execution context; the GPU's memory may be full.")
        shape = _Shape(context)
        profile = self._profile(inputs)
        if not context.set_optimization_profile_async(profile, stream):  # 0 is set in the first context only
            raise ArtifactError(f"{self._path}: profile {profile} cannot be set.")
        for name in self._inputs:
            if not (
                context.set_input_shape(name, inputs[name].shape)
                and context.set_tensor_address(name, inputs[name].pointer)
            ):
                raise ArtifactError(f"{self._path}: input {name} cannot be set to {inputs[name].shape}.")
        for name, kind in self._results.items():
            size = tuple(context.get_tensor_shape(name))
            if min(size, default=0) < 0:  # it follows from the data
                growing = _allocator(trt, self._memory, name, kind)
                context.set_output_allocator(name, growing)
                shape.growing[name] = growing
                continue
            shape.outputs[name] = self._memory.array(f"out {name}", size, kind)
            context.set_tensor_address(name, shape.outputs[name].pointer)
        scratch = self._memory.array("scratch", (int(context.update_device_memory_size_for_shapes()),), "u1")
        context.set_device_memory(scratch.pointer, scratch.nbytes)
        return shape

    def _profile(self, inputs: Placed) -> int:
        """Return the first profile that holds the shapes: profiles are built from short to long."""
        for number in range(self._engine.num_optimization_profiles):
            ranges = {name: self._engine.get_tensor_profile_shape(name, number) for name in self._inputs}
            if all(
                low <= size <= high
                for name, (least, _, most) in ranges.items()
                for low, size, high in zip(least, inputs[name].shape, most, strict=True)
            ):
                return number
        told = ", ".join(f"{name} {'x'.join(map(str, inputs[name].shape))}" for name in self._inputs)
        raise UsageError(f"{self._path}: no profile of this plan takes {told}; its largest batch is fixed.")

    def _queue(self, shape: _Shape) -> None:
        if not shape.context.execute_async_v3(self.device.stream):
            raise ArtifactError(f"{self._path}: the plan failed to run.")

    def _capture(self, shape: _Shape) -> None:
        """Record the shape; it has run before, as TensorRT asks."""
        try:
            with self.device.capture() as graph:
                self._queue(shape)
        except (ArtifactError, UsageError) as error:  # a loop, or a size read back on the host
            self._graphs, self._no_graph = False, str(error)
            return
        shape.graph = graph

    def _forget(self) -> None:
        self.device.synchronize()
        while self._shapes:
            _drop(self._shapes.popitem()[1])


def _drop(shape: _Shape) -> None:
    if shape.graph is not None:
        shape.graph.close()


def _allocator(trt: Any, memory: cuda.Memory, name: str, kind: np.dtype[Any]) -> Any:
    """Return what gives TensorRT memory for an output once its size is known."""

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


def logger(trt: Any, said: list[str]) -> Any:
    """Return a logger that keeps errors and prints nothing."""

    class Errors(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                said.append(" ".join(message.split()))

    return Errors()


def check_gpu(backend: str) -> None:
    """Raise :class:`UsageError` unless a GPU is here."""
    cuda.device()


def check_built_for(
    path: Path, settings: Mapping[str, Any], backend: str, version: str, device: cuda.Device
) -> None:
    """Raise :class:`ArtifactError` unless the plan was built for this release and this GPU.

    A plan that was built on a GPU holds for its model alone, one that was built ahead of time for its kind.
    """
    built = settings.get("plan") or {}
    # built ahead of time: again for the GPU that is here
    on = "" if settings.get("device", "cuda") == "cuda" else f" --device {device.capability}"
    again = f"effx export CHECKPOINT --backend {backend} --variant {settings.get('variant', 'V')} --overwrite"
    for what, wanted, here in (
        (backend, built.get("version"), version),
        ("device", built.get("capability"), device.capability),
        ("a GPU called", built.get("device"), device.name),
    ):
        if wanted is not None and wanted != here:
            raise ArtifactError(
                f"{path} was built for {what} {wanted}, here is {here}. Build it again here: {again}{on}"
            )


def open(path: Path, settings: Mapping[str, Any], threads: int) -> PlanGraph:
    """Open a plan.

    Raises:
        UsageError: there is no GPU.
        ArtifactError: it was built for another release or device, or is damaged.
    """
    return PlanGraph(path, settings)


def versions(backend: str) -> dict[str, str]:
    """Return the version of the package that runs ``backend``; empty where it is not installed."""
    package = backends.get(backend).packages[0]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return {package: importlib.metadata.version(package)}
    return {}
