"""What may stand at a key of a recipe: small rules that read one node each and collect what is wrong.

A rule takes a node and its dotted key and returns the value, or :data:`WRONG` after it has noted why;
nothing here raises, so that one reading finds every mistake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effx.errors import nearest
from effx.recipe.language.nodes import Node, Problem
from effx.specs.tasks import NAME, NAMING


class _Wrong:
    def __repr__(self) -> str:
        return "WRONG"


WRONG = _Wrong()
"""Stands for a value that was refused."""


@dataclass
class Notes:
    """Mistakes found so far."""

    problems: list[Problem] = field(default_factory=list)

    def wrong(self, where: str, key: str, text: str) -> _Wrong:
        """Note a mistake."""
        self.problems.append(Problem(where, key, text))
        return WRONG

    def about(self, key: str) -> bool:
        """Return whether a mistake at ``key`` has been noted."""
        return any(problem.key == key for problem in self.problems)


Rule = Callable[[Notes, Node, str], Any]


def whole(least: int = 0) -> Rule:
    """A whole number, ``least`` or more."""

    def rule(notes: Notes, node: Node, key: str) -> Any:
        value = _number(node)
        if value is None or value != int(value) or value < least:
            return notes.wrong(node.where, key, f"a whole number from {least} on is needed, not {node.kind}.")
        return int(value)

    return rule


def number(least: float = 0.0, most: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    """A number from ``least`` (``above``: greater than it) to ``most`` (``below``: less than it)."""
    text = f"a number {'above' if above else 'from'} {least:g}"
    if most != math.inf:
        text += f" and below {most:g}" if below else f" to {most:g}"

    def rule(notes: Notes, node: Node, key: str) -> Any:
        value = _number(node)
        if (
            value is None
            or not least <= value <= most
            or (above and value == least)
            or (below and value == most)
        ):
            return notes.wrong(node.where, key, f"{text} is needed, not {node.kind}.")
        return float(value)

    return rule


def flag(notes: Notes, node: Node, key: str) -> Any:
    """True or false."""
    if not isinstance(node.value, bool):
        return notes.wrong(node.where, key, f"true or false is needed, not {node.kind}.")
    return node.value


def text(notes: Notes, node: Node, key: str) -> Any:
    """A word; numbers are taken as written."""
    if node.value is None or isinstance(node.value, bool):
        return notes.wrong(node.where, key, f"a word is needed, not {node.kind}.")
    return str(node.value)


def choice(known: Iterable[str | int], what: str) -> Rule:
    """One of ``known``."""
    names = tuple(known)
    words = [str(name) for name in names]

    def rule(notes: Notes, node: Node, key: str) -> Any:
        if node.value not in names or isinstance(node.value, bool):
            hint = nearest(str(node.value), words)
            told = node.kind if node.value is None else f"'{node.value}'"
            return notes.wrong(node.where, key, f"unknown {what} {told}.{hint} Known: {', '.join(words)}.")
        return names[names.index(node.value)]  # 70.0 is 70

    return rule


def parsed(parse: Callable[[str], Any]) -> Rule:
    """A word that ``parse`` takes; its error's message becomes the mistake's."""

    def rule(notes: Notes, node: Node, key: str) -> Any:
        value = text(notes, node, key)
        if value is WRONG:
            return WRONG
        try:
            parse(value)
        except Exception as error:  # whatever the parser of that word raises is about that word
            return notes.wrong(node.where, key, str(error))
        return value

    return rule


def each(rule: Rule, *, single: bool = True, least: int = 1, distinct: bool = False) -> Rule:
    """A list of what ``rule`` takes, ``distinct`` or not; ``single``: one alone stands for a list of one."""

    def of(notes: Notes, node: Node, key: str) -> Any:
        if node.items is None and not single:
            return notes.wrong(node.where, key, f"a list is needed, not {node.kind}.")
        if node.items is None:
            value = rule(notes, node, key)
            return WRONG if value is WRONG else (value,)
        if len(node.items) < least:
            return notes.wrong(
                node.where, key, f"at least {least} {'entry is' if least == 1 else 'entries are'} needed."
            )
        values = [rule(notes, child, f"{key}.{number}") for number, child in enumerate(node.items)]
        if any(value is WRONG for value in values):
            return WRONG
        if doubles := [value for value in values if distinct and values.count(value) > 1]:
            return notes.wrong(node.where, key, f"'{doubles[0]}' stands twice.")
        return tuple(values)

    return of


def section(notes: Notes, node: Node, key: str, table: Mapping[str, Rule]) -> dict[str, Any]:
    """Read a mapping by a table of rules; refused and absent values are left out."""
    if node.mapping is None:
        if node.value is not None or node.items is not None:
            notes.wrong(
                node.where, key, f"a mapping is needed, with {', '.join(table)}; this is {node.kind}."
            )
        return {}
    found = {}
    for name, child in node.mapping.items():
        path = f"{key}.{name}" if key else name
        if name not in table:
            where = node.key_where.get(name, child.where)
            notes.wrong(where, path, f"unknown key.{nearest(name, table)} Known: {', '.join(table)}.")
        elif child.value is not None or child.mapping is not None or child.items is not None:
            value = table[name](notes, child, path)
            if value is not WRONG:
                found[name] = value
    return found


def labelled(notes: Notes, node: Node, key: str) -> dict[str, Node]:
    """Read a mapping from names that the recipe gives, or a list of such names without settings."""
    if node.mapping is None and node.items is None and node.value is not None:
        node = Node(node.where, items=[node])
    found: dict[str, Node] = {}
    if node.items is not None:
        for number, child in enumerate(node.items):
            name = text(notes, child, f"{key}.{number}")
            if name in found:
                notes.wrong(child.where, f"{key}.{number}", f"'{name}' stands twice.")
            elif name is not WRONG:
                found[name] = Node(child.where, mapping={})
    for name, child in (node.mapping or {}).items():
        found[name] = child
    for name in list(found):
        if not NAME.fullmatch(name):
            where = node.key_where.get(name, found[name].where)
            notes.wrong(where, f"{key}.{name}", NAMING)
            del found[name]
    return found


def _number(node: Node) -> float | None:
    value = node.value
    if isinstance(value, str):  # YAML 1.1 takes 1e-3 for a word
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
