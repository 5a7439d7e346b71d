"""One NVIDIA GPU through its driver: memory, a stream, events and graphs.

It calls the driver's library (libcuda.so.1) through ctypes, so plans run without a CUDA toolkit or a
further package. TensorRT, ONNX Runtime and PyTorch use the same context, the device's primary context,
and this stream. Names and structures: CUDA Driver API, sections 6.5 to 6.24.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from effx.errors import DeviceError

LIBRARY = "libcuda.so.1"
_ON_DEVICE = 2  # CU_MEMORYTYPE_DEVICE
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NON_BLOCKING = 1


class _Memcpy2D(ctypes.Structure):
    """CUDA_MEMCPY2D."""

    _fields_ = [
        (f"{side}{name}", kind)
        for side in ("src", "dst")
        for name, kind in (
            ("XInBytes", ctypes.c_size_t), ("Y", ctypes.c_size_t), ("MemoryType", ctypes.c_int),
            ("Host", ctypes.c_void_p), ("Device", ctypes.c_uint64), ("Array", ctypes.c_void_p),
            ("Pitch", ctypes.c_size_t),
        )
    ] + [("WidthInBytes", ctypes.c_size_t), ("Height", ctypes.c_size_t)]  # fmt: skip


@dataclass(frozen=True)
class DeviceArray:
    """An array in the device's memory, contiguous."""

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: object = None
    """The object that frees the memory; referenced so that the memory outlives the array."""

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Device:
    """The first GPU that CUDA lists, with one stream that all work uses."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DeviceError(
                f"no NVIDIA driver ({LIBRARY} cannot be loaded): engines for a GPU need a host with an "
                "NVIDIA GPU and driver; a container needs access to the GPU (docker run --gpus all)."
            ) from error
        self._call("cuInit", 0)
        number, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(number), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
        self._context, self._number = context, number
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(stream), _NON_BLOCKING)
        self.stream = int(stream.value or 0)
        """The stream's handle, for other libraries."""

    @functools.cached_property
    def name(self) -> str:
        text = ctypes.create_string_buffer(256)
        self._call("cuDeviceGetName", text, len(text), self._number)
        return text.value.decode()

    @functools.cached_property
    def capability(self) -> str:
        """The kind of device, as ``sm90``."""
        return f"sm{self._attribute(_CAPABILITY_MAJOR)}{self._attribute(_CAPABILITY_MINOR)}"

    @functools.cached_property
    def uuid(self) -> str:
        """Its UUID, as ``GPU-aaaaaaaa-0000-1111-2222-333333333333``: NVML has the same."""
        identifier = (ctypes.c_ubyte * 16)()
        self._call("cuDeviceGetUuid", identifier, self._number)
        return f"GPU-{uuid.UUID(bytes=bytes(identifier))}"

    def make_current(self) -> None:
        """Bind the device to this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, nbytes: int) -> Buffer:
        """Return device memory; freed when nothing refers to it."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(max(1, nbytes)))
        return Buffer(self, pointer.value, max(1, nbytes))

    def free(self, pointer: int) -> None:
        """Free device memory."""
        # unchecked: at the end of the process the driver has freed everything already
        self._library.cuMemFree_v2(ctypes.c_uint64(pointer))

    def destroy_event(self, event: ctypes.c_void_p) -> None:
        """Free an event."""
        self._library.cuEventDestroy_v2(event)

    def upload(self, target: DeviceArray, array: np.ndarray) -> None:
        """Copy a host array to the device, in stream order; the host array may be changed afterwards."""
        array = np.ascontiguousarray(array, dtype=target.dtype)
        assert array.nbytes == target.nbytes
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(target.pointer),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            self._stream,
        )

    def download(self, source: DeviceArray) -> np.ndarray:
        """Wait for the stream and return a copy in host memory."""
        array = np.empty(source.shape, dtype=source.dtype)
        if array.nbytes:
            self._call(
                "cuMemcpyDtoHAsync_v2",
                ctypes.c_void_p(array.ctypes.data),
                ctypes.c_uint64(source.pointer),
                ctypes.c_size_t(array.nbytes),
                self._stream,
            )
        self.synchronize()
        return array

    def copy_rows(self, target: DeviceArray, source: DeviceArray, rows: np.ndarray) -> None:
        """Copy rows of ``source`` [n, length, ...] to ``target`` [len(rows), shorter, ...].

        Consecutive rows are one copy; positions of a row from ``shorter`` on are not copied.
        """
        pitch, width = (array.nbytes // array.shape[0] if array.shape[0] else 0 for array in (source, target))
        starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1] + 1))
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            copy = _Memcpy2D(
                srcMemoryType=_ON_DEVICE, srcDevice=source.pointer + int(rows[start]) * pitch, srcPitch=pitch,
                dstMemoryType=_ON_DEVICE, dstDevice=target.pointer + int(start) * width, dstPitch=width,
                WidthInBytes=width, Height=int(end - start),
            )  # fmt: skip
            self._call("cuMemcpy2DAsync_v2", ctypes.byref(copy), self._stream)

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        self._call("cuStreamSynchronize", self._stream)

    def event(self) -> Event:
        """Return a new event; record it to mark a point of the stream."""
        handle = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(handle), 0)
        return Event(self, handle)

    @contextlib.contextmanager
    def capture(self) -> Iterator[RecordedGraph]:
        """Record what is queued on the stream inside, without running it, as a graph."""
        graph = RecordedGraph(self)
        self._call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            yield graph
        except BaseException:
            self._library.cuStreamEndCapture(self._stream, ctypes.byref(graph.template))
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph.template))
        self._call(
            "cuGraphInstantiateWithFlags", ctypes.byref(graph.handle), graph.template, ctypes.c_uint64(0)
        )

    def call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver; see :meth:`_call`."""
        self._call(function, *arguments)

    @property
    def _stream(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.stream)

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, self._number)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            DeviceError: it fails; the message is the driver's.
        """
        code = getattr(self._library, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(code, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise DeviceError(f"the GPU driver failed ({function}: {reason}, error {code}). See: nvidia-smi")


class Buffer:
    """Device memory."""

    def __init__(self, device: Device, pointer: int, nbytes: int) -> None:
        self._device, self.pointer, self.nbytes = device, pointer, nbytes

    def array(self, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Return the first bytes of it as an array."""
        array = DeviceArray(self.pointer, tuple(int(size) for size in shape), np.dtype(dtype), self)
        assert array.nbytes <= self.nbytes
        return array

    def __del__(self) -> None:
        self._device.free(self.pointer)


class Event:
    """A point of the stream, to measure time between."""

    def __init__(self, device: Device, handle: ctypes.c_void_p) -> None:
        self._device, self._handle = device, handle

    def __del__(self) -> None:
        self._device.destroy_event(self._handle)

    def record(self) -> None:
        """Mark the point after everything that is queued now."""
        self._device.call("cuEventRecord", self._handle, ctypes.c_void_p(self._device.stream))

    def seconds_since(self, earlier: Event) -> float:
        """Wait for it and return the device's seconds from ``earlier`` (resolution: 0.5 us)."""
        milliseconds = ctypes.c_float()
        self._device.call("cuEventSynchronize", self._handle)
        self._device.call("cuEventElapsedTime", ctypes.byref(milliseconds), earlier._handle, self._handle)
        return milliseconds.value * 1e-3


class RecordedGraph:
    """A CUDA graph: recorded work that is launched at once."""

    def __init__(self, device: Device) -> None:
        self._device, self.template, self.handle = device, ctypes.c_void_p(), ctypes.c_void_p()

    def launch(self) -> None:
        """Queue the recorded work."""
        self._device.call("cuGraphLaunch", self.handle, ctypes.c_void_p(self._device.stream))

    def close(self) -> None:
        """Free the graph."""
        if self.handle:
            self._device.call("cuGraphExecDestroy", self.handle)
            self._device.call("cuGraphDestroy", self.template)
            self.handle = ctypes.c_void_p()


class Memory:
    """Named device memory that is reused from call to call and only grows."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffers: dict[str, Buffer] = {}
        self.reallocations = 0
        """How often memory moved: addresses in graphs recorded before are then stale."""

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> DeviceArray:
        """Return the memory of that name as an array."""
        needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < needed:
            self._device.synchronize()  # what is queued may still use it
            self._buffers[name] = buffer = self._device.allocate(needed)
            self.reallocations += 1
        return buffer.array(shape, dtype)


@functools.cache
def device() -> Device:
    """Return this process's GPU.

    Raises:
        DeviceError: there is no driver or no device.
    """
    return Device()
