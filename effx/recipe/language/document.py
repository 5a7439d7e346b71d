"""A YAML file as plain Python values, with the line of every key and list entry.

ruamel.yaml keeps the positions. Unlike its loader, this one reports all duplicate keys at once and reads on.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from effx.errors import nearest, one_line

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the top of a document."""

_DEEPEST = 64  # an alias that contains itself would never end
_MOST_NODES = 100_000  # aliases of lists of aliases multiply
_MOST_CHARACTERS = 100_000  # the parser reads some ten thousand per second
_MARKS = re.compile(r"\s*((?:[-?:]\s+)*)")
"""Marks of lists and keys at the start of a line."""


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe."""

    where: str
    """``line 7``, or the option, as ``--set seeds=x``."""
    key: str
    """Dotted; empty for the whole file."""
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key + ': ' if self.key else ''}{self.text}"


def dotted(path: KeyPath) -> str:
    """Return a path as users write it."""
    return ".".join(map(str, path))


@dataclass
class Document:
    """Values, their positions, and the mistakes so far."""

    value: Any
    """Mappings, lists and scalars."""
    positions: dict[KeyPath, str] = field(default_factory=dict)
    """KeyPath -> ``line N`` (for an entry of a mapping, the line of its key), or the option that set it."""
    problems: list[Problem] = field(default_factory=list)

    def known(self, path: KeyPath) -> KeyPath:
        """Return the longest part of ``path`` that is in the document."""
        while path and path not in self.positions:
            path = path[:-1]
        return path

    def where(self, path: KeyPath) -> str:
        """Return where ``path``, or what contains it, is."""
        return self.positions.get(self.known(path), "line 1")

    def wrong(self, path: KeyPath, text: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(self.where(path), dotted(path), text))

    def is_wrong(self, path: KeyPath) -> bool:
        """Whether a mistake at ``path`` or within it has been noted."""
        key = dotted(path)
        return any(problem.key == key or problem.key.startswith(f"{key}.") for problem in self.problems)


def parse(text: str, where: str | None = None) -> Document:
    """Parse one YAML document.

    Args:
        text: the document.
        where: position to report instead of line numbers, for a value given as an option.

    Returns:
        The document; an empty one, with the mistake, if the text is not YAML.
    """
    duplicates: list[tuple[CommentedMap, str, int]] = []

    class Constructor(RoundTripConstructor):
        def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:
            if key not in mapping:
                return True
            duplicates.append((mapping, str(key), key_node.start_mark.line + 1))
            return False

    if len(text) > _MOST_CHARACTERS:
        reason = f"expected at most {_MOST_CHARACTERS:,} characters, got {len(text):,}"
        return _broken(where or "line 1", reason)
    if line := _too_deep(text):  # reading it would take minutes
        return _broken(where or f"line {line}", "nested too deeply")
    yaml = YAML()
    yaml.Constructor = Constructor
    try:
        loaded = yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        return _broken(where or f"line {mark.line + 1 if mark else 1}", error.problem or error.context or "")
    except (YAMLError, ValueError, RecursionError) as error:
        return _broken(where or "line 1", one_line(error, None))
    reader = _PlainValues(where)
    document = Document(reader.plain(loaded, (), "line 1"), reader.positions, reader.problems)
    for mapping, key, line in duplicates:
        path = (*reader.paths.get(id(mapping), ()), key)
        document.problems.append(
            Problem(where or f"line {line}", dotted(path), f"duplicate key, first on {document.where(path)}.")
        )
    return document


def _too_deep(text: str) -> int | None:
    """Return the line at which brackets, or marks of lists and keys, are nested too deeply; None: nowhere."""
    depth = 0
    for number, line in enumerate(text.splitlines(), 1):
        marks = _MARKS.match(line)
        if marks and len(marks[1]) > 2 * _DEEPEST:
            return number
        for char in line:
            depth += (char in "[{") - (char in "]}")
            if depth > _DEEPEST:
                return number
    return None


def _broken(where: str, reason: str) -> Document:
    return Document({}, {}, [Problem(where, "", f"not valid YAML: {reason}.")])


class _PlainValues:
    """Turns ruamel's values into plain ones, noting their positions."""

    def __init__(self, where: str | None) -> None:
        self.positions: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []
        self.paths: dict[int, KeyPath] = {}
        self._where = where
        self._nodes = 0

    def plain(self, value: Any, path: KeyPath, line: str) -> Any:
        line = self._where or line
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            if self._nodes == _MOST_NODES + 1:
                text = f"more than {_MOST_NODES:,} values after expanding aliases."
                self.problems.append(Problem(line, dotted(path[:1]), text))
            return None
        self.positions[path] = line
        if len(path) > _DEEPEST:
            text = "nested too deeply: does an alias contain itself?"
            self.problems.append(Problem(line, dotted(path[:1]), text))
            return None
        if isinstance(value, CommentedMap):
            self.paths.setdefault(id(value), path)
            plain: dict[str, Any] = {}
            for key, child in value.items():
                at = self._where or _line_of(value, key) or line
                if self._nodes > _MOST_NODES or (name := self._name(key, path, at)) is None:
                    continue
                if name in plain:  # YAML takes 1 and '1' for two keys
                    text = f"duplicate key, first on {self.positions[(*path, name)]}."
                    self.problems.append(Problem(at, dotted((*path, name)), text))
                    continue
                plain[name] = self.plain(child, (*path, name), at)
            return plain
        if isinstance(value, CommentedSeq):
            return [
                self.plain(child, (*path, index), f"line {value.lc.item(index)[0] + 1}")
                for index, child in enumerate(value)
                if self._nodes <= _MOST_NODES
            ]
        if isinstance(value, TaggedScalar):
            self.problems.append(Problem(line, dotted(path), f"unsupported tag {value.tag.value}."))
            return None
        if isinstance(value, str) and not _is_printable(value):
            self.problems.append(Problem(line, dotted(path), "a control character."))
            return None
        return _scalar(value)

    def _name(self, key: Any, path: KeyPath, line: str) -> str | None:
        if isinstance(key, str) and key and _is_printable(key):
            return str(key)
        if type(key) is int:  # one that is written in another way, such as 010 or 0x10, is of another type
            return str(key)
        if isinstance(key, bool | int | float) or type(key).__name__ == "ScalarBoolean":
            text = f"YAML reads the key as the {_kind_of(key)}: write it in quotes."
            self.problems.append(Problem(line, dotted(path), text))
            return None
        self.problems.append(Problem(line, dotted(path), "expected text as the key."))
        return None


def _kind_of(key: Any) -> str:
    """Return what YAML reads a key as that is not text."""
    value = _scalar(key)
    return f"truth value {str(value).lower()}" if isinstance(value, bool) else f"number {value}"


def _is_printable(text: str) -> bool:
    """Whether text has no control characters but tabs, and no halves of surrogate pairs."""
    return text.replace("\t", "").isprintable()


def _line_of(mapping: CommentedMap, key: Any) -> str | None:
    """Return the line of a key, which may come from a merged mapping."""
    if key in (mapping.lc.data or {}):
        return f"line {mapping.lc.key(key)[0] + 1}"
    merged = (part for part in getattr(mapping, "merge", None) or [] if isinstance(part, CommentedMap))
    return next((line for part in merged if (line := _line_of(part, key))), None)


def _scalar(value: Any) -> Any:
    """Return a scalar as a plain Python value; those of ruamel also hold how they were written."""
    if value is None or isinstance(value, bool):
        return value
    if type(value).__name__ == "ScalarBoolean":
        return bool(value)
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def override(document: Document, assignments: Sequence[str], labelled: Collection[str] = ()) -> None:
    """Apply ``KEY=VALUE``: KEY is dotted, VALUE is YAML; the last one wins.

    A number in KEY is an index of a list. Missing or empty mappings on the way are created; the schema
    checks whether the key exists. In the sections ``labelled`` users choose the keys: there a key within an
    entry that is missing is a mistake, unless the section is missing too.
    """
    for assignment in assignments:
        where = f"--set {assignment}"
        key, equals, text = assignment.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            document.problems.append(Problem(where, "", "expected KEY=VALUE, e.g. tasks.sst2.limit=300."))
            continue
        value = parse(text, where) if text.strip() else Document(None, {(): where})
        document.problems += value.problems
        section = document.value.get(path[0]) if len(path) > 2 and path[0] in labelled else None
        if isinstance(section, dict) and section and path[1] not in section:
            text = f"there is no such entry.{nearest(path[1], section)} Known: {', '.join(section)}."
            document.problems.append(Problem(where, ".".join(path[:2]), f"{text} To add it, set all of it."))
            continue
        _assign(document, path, value, where)


def _assign(document: Document, names: list[str], value: Document, where: str) -> None:
    """Put a value into the tree; note a mistake where the path leads through a scalar or past a list."""

    def fail(path: KeyPath, text: str) -> None:
        document.problems.append(Problem(where, dotted(path), text))

    key: Any
    holder: Any = document.value
    path: KeyPath = ()
    for name in names[:-1]:
        key = _key(holder, name)
        if key is None:
            return fail((*path, name), f"the list has {len(holder)} entries, counted from 0.")
        path = (*path, key)
        child = holder[key] if isinstance(holder, list) else holder.get(key)
        if child is None:
            child = holder[key] = {}
            document.positions[path] = where
        if not isinstance(child, dict | list):
            return fail((*path, *names[len(path) : len(path) + 1]), f"{child!r} is not a mapping.")
        holder = child
    key = _key(holder, names[-1])
    if key is None:
        return fail((*path, names[-1]), f"the list has {len(holder)} entries, counted from 0.")
    holder[key] = value.value
    path = (*path, key)
    for old in [known for known in document.positions if known[: len(path)] == path]:
        del document.positions[old]
    document.positions |= {(*path, *inner): position for inner, position in value.positions.items()}
    return None


def _key(holder: Any, name: str) -> str | int | None:
    """Return ``name`` as a key of a mapping or an index of a list; None: there is no such index."""
    if not isinstance(holder, list):
        return name
    return int(name) if name.isdigit() and int(name) < len(holder) else None


def dump(value: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, its keys in order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(dict(value), stream)
    return stream.getvalue()
