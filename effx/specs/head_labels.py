"""Matching the outputs of a task head to a task's labels by name, never by number alone.

same names, any order, any case            kept; the outputs are permuted to the task's order
LABEL_0, LABEL_1 and classes named 0, 1    kept; the numbers are the same
LABEL_0, LABEL_1 and other names           unclear: the names do not say which output is which class
other names, or another number of them     another task's head
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from effx.errors import UsageError

_NUMBERED = re.compile(r"(?:label_)?(\d+)")


def names_of_outputs(config: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """Return the names of a head's outputs, in their order, from config.json.

    Args:
        config: config.json; ``id2label`` names the outputs, and ``label2id`` where that is missing.
        outputs: width of the head.

    Returns:
        The names; LABEL_0, LABEL_1, ... where the config has none.

    Raises:
        UsageError: the config names other outputs than the head has, one name twice, or the outputs of its
            two tables differ.
    """
    named = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    if not named and config.get("label2id"):
        named = {int(number): str(label) for label, number in config["label2id"].items()}
    if not named:
        return tuple(f"LABEL_{number}" for number in range(outputs))
    if sorted(named) != list(range(outputs)):
        raise UsageError(
            f"config.json names {len(named)} labels ({', '.join(named.values())}), the head has "
            f"{outputs} outputs"
        )
    labels = tuple(named[number] for number in range(outputs))
    if duplicate := next((label for label in labels if labels.count(label) > 1), None):
        raise UsageError(f"config.json names two outputs '{duplicate}'")
    numbers = {str(label): number for label, number in (config.get("label2id") or {}).items()}
    if set(numbers) == set(labels) and any(int(numbers[label]) != n for n, label in enumerate(labels)):
        raise UsageError(
            "config.json contradicts itself: id2label and label2id number the labels differently: correct "
            "one of them"
        )
    return labels


def numbered(labels: Sequence[str]) -> bool:
    """Return whether labels are no names but numbers: LABEL_0, LABEL_1, ... or 0, 1, ..., in order."""
    matches = [_NUMBERED.fullmatch(label.strip().casefold()) for label in labels]
    return [match and int(match[1]) for match in matches] == list(range(len(labels)))


def count_differently(labels: Sequence[str]) -> bool:
    """Return whether names, which are more than numbers, each have a number other than their position.

    "1 star", "2 stars", ... do, so that a class number 1 may be the first or the second of them.
    """
    found = [re.findall(r"[0-9]+", label) for label in labels]
    if any(len(numbers) != 1 for numbers in found) or all(label.strip().isdigit() for label in labels):
        return False
    return [int(numbers[0]) for numbers in found] != list(range(len(labels)))


def order(outputs: Sequence[str], labels: Sequence[str]) -> list[int] | None:
    """Return for each of a task's labels the number of the output of that name; None: they differ.

    Case, surrounding spaces, and ``-``, ``_`` and spaces within names make no difference, unless names
    differ by nothing else.
    """
    if len(outputs) != len(labels):
        return None
    if numbered(outputs) and numbered(labels):
        return list(range(len(labels)))
    for form in (str, _plain):
        of_output = {form(name): number for number, name in enumerate(outputs)}
        wanted = [form(label) for label in labels]
        if len(of_output) == len(outputs) and set(of_output) == set(wanted):
            return [of_output[label] for label in wanted]
    return None


def given_order(given: Sequence[str], labels: Sequence[str], width: int) -> tuple[int, ...]:
    """Return for each of a task's labels the number of the output, where the user names the outputs.

    Args:
        given: names of the outputs, in their order.
        labels: of the task.
        width: number of the outputs.

    Raises:
        UsageError: they are not the task's labels.
    """
    matched = order(given, labels)
    if matched is None or len(given) != width:
        raise UsageError(
            f"labels {', '.join(given)}: expected the labels of the task in the order of the model's "
            f"outputs ({', '.join(labels)}, in any order)",
            settings="labels",
        )
    return tuple(matched)


def unclear(outputs: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether the outputs may be the labels, but their names do not say in which order."""
    return len(outputs) == len(labels) and numbered(outputs) and not numbered(labels)


def covers(outputs: Sequence[str], labels: Sequence[str]) -> bool:
    """Return whether every label is the name of an output, case and separators aside."""
    return {_plain(label) for label in labels} <= {_plain(name) for name in outputs}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())
