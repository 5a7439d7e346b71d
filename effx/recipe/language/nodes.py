"""YAML as a tree in which every value knows where it was written.

PyYAML's own mapping drops the line numbers and lets a later key silently replace an earlier one, so
the tree is built from its nodes; scalars, anchors and merge keys mean what they mean in any YAML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 64  # an alias that contains itself would go on for ever


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


@dataclass
class Node:
    """A value, its children and where they stand; ``value`` of a mapping or list is None."""

    where: str
    value: Any = None
    mapping: dict[str, Node] | None = None
    items: list[Node] | None = None
    key_where: dict[str, str] = field(default_factory=dict)
    """Of a mapping: where each key stands; its value may begin lines later."""

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        if self.mapping is not None:
            return "a mapping"
        if self.items is not None:
            return "a list"
        return "nothing" if self.value is None else repr(self.value)

    def plain(self) -> Any:
        """Return it as Python's dicts, lists and scalars."""
        if self.mapping is not None:
            return {key: child.plain() for key, child in self.mapping.items()}
        if self.items is not None:
            return [child.plain() for child in self.items]
        return self.value


def parse(text: str, where: str | None = None) -> tuple[Node, list[Problem]]:
    """Parse one YAML document.

    Args:
        text: the document.
        where: what to say instead of line numbers, for a value that stood in an option.

    Returns:
        The tree (an empty mapping if the text is no YAML) and what was wrong with it: syntax, and
        keys that stand twice.
    """
    problems: list[Problem] = []
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(where or "line 1", mapping={}), problems
        return _Builder(loader, where, problems).build(root, "", 0), problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = where or f"line {mark.line + 1 if mark else 1}"
        return Node(line, mapping={}), [Problem(line, "", f"not YAML: {error.problem or error.context}.")]
    except yaml.YAMLError as error:
        line = where or "line 1"
        return Node(line, mapping={}), [Problem(line, "", f"not YAML: {' '.join(str(error).split())}.")]
    finally:
        loader.dispose()


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, where: str | None, problems: list[Problem]) -> None:
        self._loader, self._where, self._problems = loader, where, problems

    def build(self, node: yaml.Node, key: str, depth: int) -> Node:
        where = self._place(node)
        if depth > _DEEPEST:
            self._problems.append(Problem(where, key, "nested too deeply; does an alias contain itself?"))
            return Node(where)
        if isinstance(node, yaml.MappingNode):
            made = Node(where, mapping={})
            self._fill(made, node, key, depth)
            return made
        if isinstance(node, yaml.SequenceNode):
            children = [self.build(child, f"{key}.{i}", depth + 1) for i, child in enumerate(node.value)]
            return Node(where, items=children)
        return Node(where, self._scalar(node, key))

    def _fill(self, made: Node, node: yaml.MappingNode, key: str, depth: int) -> None:
        assert made.mapping is not None
        merged: dict[str, Node] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                parts = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in parts:
                    for name, child in (self.build(part, key, depth + 1).mapping or {}).items():
                        merged.setdefault(name, child)
                continue
            name = str(self._scalar(key_node, key)) if isinstance(key_node, yaml.ScalarNode) else ""
            path = f"{key}.{name}" if key else name
            place = self._place(key_node)
            if not name:
                self._problems.append(Problem(place, key, "a key must be a word."))
                continue
            if name in made.mapping:
                first = made.key_where[name]
                self._problems.append(Problem(place, path, f"stands twice; the first is on {first}."))
                continue
            made.mapping[name] = self.build(value_node, path, depth + 1)
            made.key_where[name] = place
        for name, child in merged.items():
            made.mapping.setdefault(name, child)
            made.key_where.setdefault(name, child.where)

    def _scalar(self, node: yaml.Node, key: str) -> Any:
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            reason = getattr(error, "problem", None) or str(error)
            self._problems.append(Problem(self._place(node), key, f"cannot be read: {reason}."))
            return None

    def _place(self, node: yaml.Node) -> str:
        return self._where or f"line {node.start_mark.line + 1}"


def override(root: Node, assignments: Sequence[str]) -> list[Problem]:
    """Apply ``KEY=VALUE`` options: KEY is dotted, VALUE is YAML; the last one wins.

    A number in KEY is a place in a list. Mappings on the way that are missing, or were empty, are
    made; whether the key means anything is for the schema to say.
    """
    problems: list[Problem] = []
    for assignment in assignments:
        where = f"--set {assignment}"
        path, equals, text = assignment.partition("=")
        names = path.strip().split(".")
        if not equals or not all(names):
            problems.append(Problem(where, "", "write KEY=VALUE, as tasks.sst2.limit=300."))
            continue
        value, wrong = parse(text, where)
        if not text.strip():
            value = Node(where)
        problems += wrong
        problems += _assign(root, names, value, where)
    return problems


def _assign(root: Node, names: list[str], value: Node, where: str) -> list[Problem]:
    node = root
    for number, name in enumerate(names):
        last = number == len(names) - 1
        path = ".".join(names[: number + 1])
        if node.items is not None:
            if not name.isdigit() or int(name) >= len(node.items):
                return [Problem(where, path, f"the list has {len(node.items)} entries, counted from 0.")]
            if last:
                node.items[int(name)] = value
            node = node.items[int(name)]
            continue
        if node.mapping is None:
            if node.value is not None:
                return [Problem(where, path, f"{node.kind} stands here, not a mapping.")]
            node.mapping = {}
        if last:
            node.mapping[name] = value
        else:
            node.mapping.setdefault(name, Node(where))
        node.key_where.setdefault(name, where)
        if last:
            node.key_where[name] = where
        node = node.mapping[name]
    return []
