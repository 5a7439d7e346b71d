"""Files as text: plain and gzip-compressed, in any encoding; what does not fit is refused with its line.

A byte-order mark decides the encoding, that of all lines unless the user names several. Without one it is
UTF-8, or what the user says. Latin-1 accepts every byte, also those of other encodings, so control characters
that no text has are refused.
"""

from __future__ import annotations

import codecs
import gzip
import re
import stat
import zlib
from pathlib import Path

from effx.errors import DataError

_CHUNK_BYTES = 1 << 20
MAX_BYTES = 4 << 30
"""Largest file that is read, uncompressed."""
_MAX_RATIO = 200
_RATIO_FROM_BYTES = 100 << 20
"""A compressed file may expand by more than the ratio up to this size: text of few words does."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Byte-order mark -> encoding; UTF-32-LE is first, because its mark begins with that of UTF-16-LE."""
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")  # \x85, next line, is in some UTF-8 texts


def check_plain(path: Path) -> None:
    """Raise :class:`DataError` for a device, a pipe or a socket, which may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path} is not a plain file: copy its content into one.")


def check_expanded(path: Path, total: int, size: int) -> None:
    """Raise :class:`DataError` for a file that takes too much memory.

    Args:
        path: of the file.
        total: bytes that were read so far, uncompressed.
        size: of the file in bytes.
    """
    if total > MAX_BYTES or (total > _RATIO_FROM_BYTES and total > _MAX_RATIO * size):
        raise DataError(f"{path} expands to more than {total:,} bytes from {size:,}: not a file of texts.")


def read(path: Path, encoding: str | None) -> tuple[str, str]:
    """Return a file's text, with its line ends, and the encoding as messages name it.

    Args:
        path: a plain file; one that ends in ``.gz`` is decompressed.
        encoding: name of the encoding, or several with commas: each line has the first that fits. None:
            UTF-8, or that of the byte-order mark.

    Raises:
        DataError: the file is not plain, too large, or not text in this encoding.
    """
    content = _content(path)
    mark = next((mark for mark in _MARKS if content.startswith(mark)), None)
    names = encoding.split(",") if encoding else ["utf-8"]
    if mark is not None:
        return _marked(path, content, mark, names if encoding else None)
    if len(names) > 1:
        return _by_line(path, content, names)
    text = _decoded(path, content, names[0], given=encoding is not None)
    _check_characters(path, text, names[0])
    return text, _shown(names[0])


def _content(path: Path) -> bytes:
    check_plain(path)
    try:
        size = path.stat().st_size
        if path.suffix != ".gz":
            if size > MAX_BYTES:
                raise DataError(f"{path} has {size:,} bytes; at most {MAX_BYTES:,} are read.")
            return path.read_bytes()
        chunks: list[bytes] = []
        total = 0
        with gzip.open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total += len(chunk)
                check_expanded(path, total, size)
                chunks.append(chunk)
        return b"".join(chunks)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _marked(path: Path, content: bytes, mark: bytes, names: list[str] | None) -> tuple[str, str]:
    """Decode a file with a byte-order mark; ``names`` are the encodings that the user gives, None: none.

    Lines after the first may have another encoding, if the user says so.
    """
    name = _MARKS[mark]
    family = name.removesuffix("-sig")
    if names is not None and not _normal(names[0]).startswith(_normal(family)):
        raise DataError(
            f"{path} begins with the byte-order mark of {_shown(family)}, but the encoding is set to "
            f"{','.join(names)}: leave encoding out",
            settings="encoding",
        )
    if names is not None and len(names) > 1:
        text, shown = _by_line(path, content.removeprefix(mark), names)
        return text, f"{shown}, with byte-order mark"
    text = _decoded(path, content, name, given=False)
    _check_characters(path, text, name)
    return text, f"{_shown(family)} with byte-order mark"


def _decoded(path: Path, content: bytes, encoding: str, *, given: bool) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        start = error.start
    line = content[:start].count(b"\n") + 1
    where = f"{path}, line {line}"
    if encoding != "utf-8" or given:
        raise DataError(
            f"{where}: not text in {_shown(encoding)} (byte {start}): set the file's encoding",
            settings="encoding",
        )
    if b"\0" in content[:1000]:
        raise DataError(
            f"{where}: not text in UTF-8, and it has NUL bytes: if it is UTF-16, set encoding to utf-16-le "
            "or utf-16-be; otherwise it is not text",
            settings="encoding",
        )
    raise DataError(f"{where}: not text in UTF-8: {_remedy(content)}", settings="encoding")


def _remedy(content: bytes) -> str:
    """Return which encodings to set for bytes that are not UTF-8."""
    foreign = re.findall("[\udc80-\udcff]", content.decode("utf-8", errors="surrogateescape"))
    # bytes 0x80 to 0x9f are letters and quotes in Windows' encoding, and control characters in Latin-1
    western = "cp1252" if any(char < "\udca0" for char in foreign) else "latin-1"
    if any(not line.isascii() and _fits(line, "utf-8") for line in content.split(b"\n")):
        return f"other lines are UTF-8; set encoding to utf-8,{western}, or convert the file to UTF-8"
    return f"set encoding to {western}, or to what wrote the file"


def _fits(line: bytes, encoding: str) -> bool:
    try:
        text = line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(text) is None or _normal(encoding) == "utf8"


def _by_line(path: Path, content: bytes, names: list[str]) -> tuple[str, str]:
    """Decode each line in the first encoding that fits it."""
    wide = [name for name in names if len("a".encode(name)) != 1]
    if wide:
        raise DataError(
            f"{path}: encoding {wide[0]} has several bytes per character: it cannot be mixed with others",
            settings="encoding",
        )
    lines: list[str] = []
    counts = dict.fromkeys(names, 0)
    for number, line in enumerate(content.split(b"\n"), 1):
        name = next((name for name in names if _fits(line, name)), None)
        if name is not None:
            counts[name] += not line.isascii()
            lines.append(line.decode(name))
        elif _normal(names[0]) == "utf8":  # both in one line, as an emoji after Latin-1
            counts[names[1]] += 1
            lines.append(_by_sequence(line, names[1]))
        else:
            raise DataError(
                f"{path}, line {number}: not text in any of {', '.join(map(_shown, names))}",
                settings="encoding",
            )
    text = "\n".join(lines)
    _check_characters(path, text, "latin-1" if "latin-1" in names[1:] else names[0])
    return text, " and ".join(f"{_shown(name)} ({count} lines)" for name, count in counts.items())


def _by_sequence(line: bytes, other: str) -> str:
    """Return the line with every sequence that is not UTF-8 decoded in the other encoding."""
    parts: list[str] = []
    while line:
        try:
            parts.append(line.decode("utf-8"))
            break
        except UnicodeDecodeError as error:
            parts.append(line[: error.start].decode("utf-8"))
            parts.append(line[error.start : error.end].decode(other))
            line = line[error.end :]
    return "".join(parts)


def _check_characters(path: Path, text: str, encoding: str) -> None:
    """Refuse control characters that no text has; they come from another encoding, or from binary files."""
    if (at := text.find("\0")) >= 0:
        line = text[:at].count("\n") + 1
        raise DataError(f"{path}, line {line}: NUL characters: this is not text, or the wrong encoding.")
    if _normal(encoding) not in ("latin1", "iso88591"):
        return
    if match := _CONTROL.search(text):
        line = text[: match.start()].count("\n") + 1
        content = text.split("\n")[line - 1].encode("latin-1", errors="replace")
        other = "utf-8,latin-1" if _fits(content, "utf-8") else "cp1252"
        raise DataError(
            f"{path}, line {line}: control characters in Latin-1, so it is written in another encoding: set "
            f"encoding to {other}",
            settings="encoding",
        )


def _normal(encoding: str) -> str:
    return re.sub("[^a-z0-9]", "", encoding.lower())


def _shown(encoding: str) -> str:
    """Return an encoding as texts name it."""
    usual = {"utf8": "UTF-8", "utf8sig": "UTF-8", "utf16": "UTF-16", "utf32": "UTF-32", "latin1": "Latin-1"}
    return usual.get(_normal(encoding), encoding)
