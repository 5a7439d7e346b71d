"""What an ONNX file refers to outside itself, read without the package onnx and without its weights.

Tensors of large graphs are in other files, named in the graph as relative paths. Old releases of the runtime
follow any path, so that a graph from others could read files of this machine. A file is read as protobuf
messages; those that may contain a tensor are entered, by the field numbers of onnx.proto.
"""

from __future__ import annotations

import mmap
import stat
from collections.abc import Iterator
from pathlib import Path

from effx.errors import ArtifactError

_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _TRAINING, _ENTRY = range(9)
_MESSAGES: dict[int, dict[int, int]] = {
    _MODEL: {7: _GRAPH, 20: _TRAINING, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR, 15: _SPARSE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH, 22: _SPARSE, 23: _SPARSE},
    _TENSOR: {13: _ENTRY},
    _SPARSE: {1: _TENSOR, 2: _TENSOR},
    _FUNCTION: {7: _NODE, 11: _ATTRIBUTE},
    _TRAINING: {1: _GRAPH, 2: _GRAPH},
    _ENTRY: {},
}
"""Message -> field number -> message that is entered."""
_OP_TYPE = 4
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 5_000_000
_MAX_DEPTH = 64
_COMPILED = b"EPContext"
"""Node that names a file of compiled code, which an execution provider would run."""


def check(path: Path) -> None:
    """Check that an ONNX file refers to regular files in its own folder only.

    Raises:
        ArtifactError: it cannot be read, is not ONNX, names a file elsewhere or a hidden one, or contains
            compiled code.
    """
    for name in sorted(external_files(path)):
        if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ArtifactError(f"{path}: a tensor is in {name!r}, which is not a file of its folder.")
        if name.startswith("."):
            raise ArtifactError(f"{path}: a tensor is in {name!r}, a hidden file, which no manifest lists.")
        try:
            file = path.parent / name
            mode = file.lstat().st_mode
            if file.parent.resolve() != path.parent.resolve() / Path(name).parent:
                raise ArtifactError(f"{path}: a tensor is in {name!r}, which is not a file of its folder.")
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path}: a tensor is in {name!r}, which cannot be read.") from error
        if not stat.S_ISREG(mode):
            raise ArtifactError(f"{path}: a tensor is in {name!r}, which is not a regular file.")


def external_files(path: Path) -> set[str]:
    """Return the locations of the tensors that are in other files, as the graph names them.

    Raises:
        ArtifactError: the file cannot be read, is not ONNX, or contains compiled code.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_Reader(path, data).locations(_MODEL, 0, len(data), 0))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as ONNX: {error}.") from error


class _Reader:
    """Fields of the messages of one file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._count = path, data, 0

    def locations(self, message: int, start: int, end: int, depth: int) -> Iterator[str]:
        """Yield the locations of external tensors in the message at ``start`` to ``end``."""
        if depth > _MAX_DEPTH:
            raise ValueError("its graphs are nested too deeply")
        entered = _MESSAGES[message]
        key = value = b""
        for number, first, last in self._fields(start, end):
            if number in entered:
                yield from self.locations(entered[number], first, last, depth + 1)
            elif message == _NODE and number == _OP_TYPE and self._data[first:last] == _COMPILED:
                raise ArtifactError(f"{self._path} contains compiled code (EPContext), which is not run.")
            elif message == _ENTRY and number in (_KEY, _VALUE):
                text = self._data[first:last]
                key, value = (text, value) if number == _KEY else (key, text)
        if message == _ENTRY and key == b"location":
            yield value.decode()

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, first and last byte of each field that has a length; numbers are skipped."""
        at = start
        while at < end:
            self._count += 1
            if self._count > _MAX_FIELDS:
                raise ValueError("it has too many fields")
            tag, at = self._varint(at, end)
            kind = tag & 7
            if kind == _VARINT:
                _, at = self._varint(at, end)
            elif kind == _BYTES:
                length, at = self._varint(at, end)
                if length > end - at:
                    raise ValueError("it is truncated")
                yield tag >> 3, at, at + length
                at += length
            elif kind in (_FIXED32, _FIXED64):
                at += 4 if kind == _FIXED32 else 8
            else:
                raise ValueError("it is not a protobuf message")
        if at != end:
            raise ValueError("it is truncated")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise ValueError("it is truncated")
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise ValueError("it is not a protobuf message")
