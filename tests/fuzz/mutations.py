"""Damaged JSON documents: every key of a document, by rules that know the type of its value.

A rule yields a value that no valid document has at that key: of another type, out of every range,
unprintable, outside the folder. Some rules write text that Python's json module would not, as NaN or a key
that is there twice; they are tokens that replace a marker in the text.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
DEEP = 100_000


@dataclass(frozen=True)
class Token:
    """Text that is written instead of a value."""

    text: str
    value: Any = None
    """What a lenient reader makes of it, for digests."""


@dataclass(frozen=True)
class Mutant:
    """A damaged document."""

    path: Path
    rule: str
    document: Any
    """With a :class:`Token` at ``path`` where the rule writes one."""

    @property
    def key(self) -> str:
        """The path with ``#`` for positions in lists, as allowances name it."""
        return ".".join("#" if isinstance(part, int) else part for part in self.path)

    def text(self) -> str:
        """Return the document as JSON text."""
        tokens: dict[str, str] = {}

        def plain(value: Any) -> str:
            if not isinstance(value, Token):
                raise TypeError(type(value).__name__)
            marker = f"@token-{len(tokens)}@"
            tokens[marker] = value.text
            return marker

        text = json.dumps(self.document, default=plain)
        for marker, token in tokens.items():
            text = text.replace(f'"{marker}"', token)
        return text

    def lenient(self) -> Any:
        """Return the document as a lenient reader would: tokens are replaced by their values."""
        return _lenient(self.document)


_TOKENS = {
    "nan": Token("NaN", float("nan")),
    "infinity": Token("-Infinity", float("-inf")),
    "1e400": Token("1e400", float("inf")),
    "huge integer": Token("1" + "0" * 400, 10**400),
    "nested": Token("[" * DEEP + "]" * DEEP, []),
    "nested object": Token('{"a":' * DEEP + "1" + "}" * DEEP, {}),
}
_TEXTS = {
    "empty": "",
    "NUL": "a\0b",
    "escape": "\x1b]0;title\x07",
    "line break": "a\nb",
    "surrogate": "a\ud800",
    "right to left": "a\u202eb",
    "long": "x" * 200_000,
    "absolute": "/etc/passwd",
    "parent": "../../outside",
    "unknown": "no-such-name",
}


def mutants(document: Mapping[str, Any]) -> Iterator[Mutant]:
    """Yield every damaged version of a document; of lists, the first and the last element are damaged."""
    for path, value in _values(document, ()):
        for rule, changed in _changes(value):
            yield Mutant(path, rule, _with(document, path, changed))
        if path and isinstance(path[-1], str):
            yield Mutant(path, "missing", _without(document, path))
            yield Mutant(path, "twice", _twice(document, path))


def _values(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _values(inner, (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1} if value else ()):
            yield from _values(value[index], (*path, index))


def _changes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from _TOKENS.items()
    for name, other in {"null": None, "true": True, "5": 5, "text": "5", "list": [], "object": {}}.items():
        if type(other) is not type(value) and not (name == "5" and isinstance(value, float)):
            yield name, other
    if isinstance(value, str):
        yield from ((rule, text) for rule, text in _TEXTS.items() if text != value)
    elif isinstance(value, bool):
        yield "1", 1
    elif isinstance(value, int | float):
        yield from {"negative": -2 * abs(value) - 1, "large": 10**15, "beyond 64 bits": 2**64}.items()
        if isinstance(value, int):
            yield from {"fraction": value + 0.5, "float": float(value)}.items()
    elif isinstance(value, list):
        if value:
            yield from {"emptied": [], "one more": [*value, value[0]], "one less": value[:-1]}.items()
        if value != [[]]:
            yield "of lists", [[]]
    elif isinstance(value, Mapping):
        yield "unknown key", {**value, "no_such_key": 1}
        yield "surrogate key", {**value, "\ud800": 1}
        if value:
            yield "emptied", {}


def _with(document: Any, path: Path, changed: Any) -> Any:
    result = copy.deepcopy(document)
    target = result
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = changed
    return result


def _without(document: Any, path: Path) -> Any:
    result = copy.deepcopy(document)
    target = result
    for part in path[:-1]:
        target = target[part]
    del target[path[-1]]
    return result


def _twice(document: Any, path: Path) -> Any:
    """Return the document with a key and its value twice."""
    result = copy.deepcopy(document)
    target = result
    for part in path[:-1]:
        target = target[part]
    value, key = target[path[-1]], json.dumps(path[-1])
    target[path[-1]] = Token(f"{json.dumps(value)}, {key}: {json.dumps(value)}", value)
    return result


def _lenient(value: Any) -> Any:
    if isinstance(value, Token):
        return value.value
    if isinstance(value, Mapping):
        return {key: _lenient(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_lenient(inner) for inner in value]
    return value
