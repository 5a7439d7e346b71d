"""The part of TensorRT that runs plans, on the fake driver's memory; a plan is an ONNX file.

It checks what the real one asks for: shapes within the profile, every address set, scratch memory given
before a run, a run before a capture. Work is queued on the stream as a host function, so it is recorded and
replayed as kernels would be.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

__version__ = "9.9.9"
_cuda = ctypes.CDLL("libcuda.so.1")
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_KINDS = {"tensor(int64)": np.int64, "tensor(float)": np.float32}
RUNS: list[str] = []
"""Events in order: ``context`` when one is made, ``queue`` when one is called, ``run`` when the stream
executes what was queued."""


class ILogger:
    ERROR, WARNING = 1, 2


class TensorIOMode:
    INPUT, OUTPUT = "in", "out"


class ExecutionContextAllocationStrategy:
    USER_MANAGED = "user"


class LayerInformationFormat:
    JSON = "json"


class IOutputAllocator:
    pass


def nptype(kind: Any) -> Any:
    return kind


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger: Any = logger

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        try:
            return Engine(plan)
        except Exception:
            self._logger.log(ILogger.ERROR, "magic tag does not match")
            return None


class Refitter:
    def __init__(self, engine: Engine, logger: ILogger) -> None:
        self._engine = engine
        self.weights: bytes | None = None

    def refit_cuda_engine(self) -> bool:
        assert self.weights is not None
        self._engine.session = _session(self.weights)
        return True


class OnnxParserRefitter:
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter, self._logger = refitter, logger

    def refit_from_file(self, path: str) -> bool:
        try:
            self._refitter.weights = Path(path).read_bytes()
        except OSError:
            self._logger.log(ILogger.ERROR, "no such model")
            return False
        return True


def _session(plan: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])


class Engine:
    def __init__(self, plan: bytes) -> None:
        self.session = _session(plan)
        self.ins = {entry.name: entry for entry in self.session.get_inputs()}
        self.outs = {entry.name: entry for entry in self.session.get_outputs()}
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.longest = json.loads(metadata.get("profiles", "[64]"))
        self.hidden_sizes = metadata.get("data_dependent") == "yes"
        self.num_io_tensors = len(self.ins) + len(self.outs)
        self.num_optimization_profiles = len(self.longest)
        self.contexts = 0

    def get_tensor_name(self, number: int) -> str:
        return [*self.ins, *self.outs][number]

    def get_tensor_mode(self, name: str) -> str:
        return TensorIOMode.INPUT if name in self.ins else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _KINDS[(self.ins | self.outs)[name].type]

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        fixed = [size if isinstance(size, int) else None for size in self.ins[name].shape]
        return [
            tuple(size or fallback for size, fallback in zip(fixed, (batch, length, 0), strict=False))
            for batch, length in ((1, 1), (8, self.longest[profile]), (128, self.longest[profile]))
        ]

    def create_execution_context(self, strategy: str) -> Context:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        RUNS.append("context")
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine, self._scratch = engine, 0
        self.profile = -1 if engine.contexts else 0  # only the first context of an engine has one
        engine.contexts += 1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._ran = False

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        assert not self._shapes  # it resets them
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile >= 0
        low, _, high = self._engine.get_tensor_profile_shape(name, self.profile)
        assert all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        self._shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        self._allocators[name] = allocator
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        values = self._answer({key: np.ones(shape, self._engine.get_tensor_dtype(key))
                               for key, shape in self._shapes.items()})  # fmt: skip
        shape = values[name].shape
        return (shape[0], -1, *shape[2:]) if self._engine.hidden_sizes and len(shape) > 2 else shape

    def update_device_memory_size_for_shapes(self) -> int:
        return 1000

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert size >= 1000
        self._scratch = pointer

    def execute_async_v3(self, stream: int) -> bool:
        assert self._scratch and set(self._addresses) | set(self._allocators) == {
            *self._engine.ins,
            *self._engine.outs,
        }
        RUNS.append("queue")
        self._callback = _CALL(self._run)
        return _cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), self._callback, None) == 0

    def _run(self, _: Any) -> None:
        RUNS.append("run")
        inputs = {name: self._view(name, shape).copy() for name, shape in self._shapes.items()}
        ctypes.memset(self._scratch, 0xEE, 1000)
        for name, value in self._answer(inputs).items():
            if name in self._allocators:
                allocator = self._allocators[name]
                self._addresses[name] = allocator.reallocate_output_async(name, 0, value.nbytes, 256, 0)
                allocator.notify_shape(name, value.shape)
            self._view(name, value.shape)[...] = value

    def _answer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._engine.outs, self._engine.session.run(None, inputs), strict=True))

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = np.dtype(self._engine.get_tensor_dtype(name))
        count = int(np.prod(shape)) * kind.itemsize
        memory = (ctypes.c_char * count).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype=kind).reshape(shape)
