"""Types of the values in manifests, each checked where it is read."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator

from effx.errors import UsageError
from effx.specs.data import DataRecord
from effx.specs.tasks import TASKS, Task
from effx.specs.tokens import check_shares
from effx.specs.training import POOLINGS
from effx.stats.metrics import METRICS
from effx.structure import Structure

_MAX_NAME = 255
MAX_LAYERS = 1024
MAX_WIDTH = 1 << 20
"""Heads, FFN neurons or hidden width of a layer at most."""
MAX_ROWS = 1 << 20
"""Rows of an input at most that an engine is built for best."""
MAX_LENGTH = 1 << 20
"""Tokens of an input at most."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 as 64 hex digits."""


def file_name(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is not a relative file name within the folder")
    if len(name) > _MAX_NAME:
        raise ValueError(f"a file name of {len(name)} characters")
    return name


FileName = Annotated[str, AfterValidator(file_name)]
"""Name of a file in the folder, relative, with ``/``."""


def _moment(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a time as 2026-01-31T12:00:00+00:00, got {text!r}") from None
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time as ISO 8601."""


def _checked_task(task: Task) -> Task:
    """Check a task against itself; a known task gets its location on the hub again."""
    if not task.name or not task.name.isprintable():
        raise ValueError(f"name: expected a name, got {task.name!r}")
    if not 1 <= len(task.columns) <= 2:
        raise ValueError(f"columns: expected 1 or 2, got {len(task.columns)}")
    if "" in task.columns:
        raise ValueError("columns: expected a name for each column, got ''")
    if unknown := [name for name in task.metrics if name not in METRICS]:
        raise ValueError(f"metrics: unknown metric {unknown[0]!r}. Known: {', '.join(METRICS)}")
    if not task.metrics:
        raise ValueError("metrics: expected at least one")
    if len(set(task.labels)) < len(task.labels):
        raise ValueError("labels: expected each label once")
    if "" in task.labels:
        raise ValueError("labels: expected a name for each label, got ''")
    task.behavior.check_labels(task.labels)
    hub = TASKS[task.name].hub if task.name in TASKS else None
    if task.hub not in (None, hub):
        raise ValueError("hub: unknown key")
    return replace(task, hub=hub)


TaskDefinition = Annotated[Task, AfterValidator(_checked_task), PlainSerializer(Task.to_json)]
"""A task as it was when the manifest was written, tasks inferred from files included."""


def _read_data(value: Any) -> DataRecord:
    """Return which rows an artifact was made with, from a manifest's JSON."""
    if isinstance(value, DataRecord):
        return value
    if not isinstance(value, Mapping) or set(value) != {"name", "folder", "settings", "digest"}:
        raise ValueError("expected name, folder, settings and digest")
    name, settings, digest = value["name"], value["settings"], value["digest"]
    if not isinstance(name, str) or not name.isprintable() or "/" in name:
        raise ValueError(f"name: {name!r} is not the name of a file or folder")
    if not isinstance(value["folder"], bool):
        raise ValueError("folder: expected true or false")
    if not isinstance(settings, Mapping):
        raise ValueError("settings: expected a mapping")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"digest: {digest!r} is not a SHA-256")
    try:
        return DataRecord.from_json(value)
    except UsageError as error:
        raise ValueError(f"settings: {error}") from error


RowsRecord = Annotated[DataRecord, PlainValidator(_read_data), PlainSerializer(DataRecord.to_json)]
"""Which rows an artifact was made with."""


def _checked_structure(structure: Structure) -> Structure:
    """Raise :class:`ValueError` for a structure that no model has."""
    layers = structure.layers
    if not 1 <= len(layers) <= MAX_LAYERS:
        raise ValueError(f"layers: expected 1 to {MAX_LAYERS}, got {len(layers)}")
    check_indices("layers: index", [layer.index for layer in layers], MAX_LAYERS)
    for position, layer in enumerate(layers):
        key = f"layers[{position}]"
        check_indices(f"{key}.heads", layer.heads, MAX_WIDTH)
        if not 0 <= layer.intermediate <= MAX_WIDTH:
            raise ValueError(f"{key}.intermediate: expected 0 to {MAX_WIDTH}, got {layer.intermediate}")
        if layer.neurons is not None:
            check_indices(f"{key}.neurons", layer.neurons, MAX_WIDTH)
            if len(layer.neurons) != layer.intermediate:
                raise ValueError(
                    f"{key}.neurons: expected {layer.intermediate}, as intermediate, got {len(layer.neurons)}"
                )
    inner = structure.numbers[:-1]
    if list(structure.exits) != sorted(set(structure.exits) & set(inner)):
        raise ValueError("exits: expected rising numbers of layers before the last")
    if structure.exit_pooling not in POOLINGS:
        raise ValueError(f"exit_pooling: expected one of {', '.join(POOLINGS)}")
    if structure.head_pooling not in POOLINGS:
        raise ValueError(f"head_pooling: expected one of {', '.join(POOLINGS)}")
    if structure.tokens is not None and structure.token_thresholds is not None:
        raise ValueError("tokens and token_thresholds exclude each other")
    for name in ("tokens", "token_thresholds"):
        values = getattr(structure, name)
        if values is not None and len(values) != len(layers):
            raise ValueError(f"{name}: expected {len(layers)} numbers, one per layer, got {len(values)}")
    if structure.tokens is not None:
        check_shares(structure.tokens)
    if not all(0 <= value <= 1 for value in structure.token_thresholds or ()):
        raise ValueError("token_thresholds: expected numbers from 0 to 1")
    return structure


def check_indices(key: str, values: tuple[int, ...] | list[int], limit: int) -> None:
    if any(after <= before for before, after in itertools.pairwise(values)):
        raise ValueError(f"{key}: expected rising numbers, each once")
    if values and not 0 <= values[0] <= values[-1] < limit:
        raise ValueError(f"{key}: expected numbers from 0 to {limit - 1}")


CheckedStructure = Annotated[Structure, AfterValidator(_checked_structure)]


def _checked_scores(scores: Mapping[str, float]) -> Mapping[str, float]:
    for name, value in scores.items():
        if name not in METRICS:
            raise ValueError(f"{name}: unknown metric. Known: {', '.join(METRICS)}")
        if not -1 <= value <= 1:
            raise ValueError(f"{name}: expected a number from -1 to 1, got {value:g}")
    return scores


Scores = Annotated[Mapping[str, float], AfterValidator(_checked_scores)]
"""Metric -> value."""
