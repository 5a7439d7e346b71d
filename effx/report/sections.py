"""Further sections of the page, read from JSON files, such as the search for a ticket.

    {"schema": 1, "title": "...", "text": "...", "source": "checkpoints/tickets.json",
     "charts": [{"title", "interval": "95 %", "x": {"label", "unit", "log"}, "y": {...},
                 "series": [{"name", "points": [{"x", "y", "low", "high", "label"}]}]}],
     "maps":   [{"title", "unit", "corner", "rows": [...], "columns": [...], "values": [[number or null]]}],
     "tables": [{"title", "columns": [{"label", "unit"}],
                 "rows": [[text, number, {"text", "sort"} or null]]}]}

``schema`` and ``title`` are required; ``low``, ``high``, ``label``, ``unit``, ``log`` and ``sort`` are
optional. A table's cell with a text and a number to sort by is for numbers that are printed in another way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from effx import records
from effx.errors import ArtifactError

SCHEMA = 1
FOLDER = "sections"
"""Folder within the results whose sections are always shown."""


@dataclass(frozen=True)
class SectionAxis:
    """An axis of a chart."""

    label: str
    unit: str | None = None
    log: bool | None = None


@dataclass(frozen=True)
class SectionPoint:
    """A point of a chart, with the ends of its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        low, high = (self.y if end is None else end for end in (self.low, self.high))
        if not low <= self.y <= high:
            raise ValueError(f"point y {self.y:g} is outside its interval, {low:g} to {high:g}")


@dataclass(frozen=True)
class SectionSeries:
    """Connected points of one name."""

    name: str
    points: list[SectionPoint]


@dataclass(frozen=True)
class SectionChart:
    """A chart of series."""

    title: str
    x: SectionAxis
    y: SectionAxis
    series: list[SectionSeries]
    interval: str | None = None
    """What the intervals are, such as ``95 %``."""


@dataclass(frozen=True)
class SectionMap:
    """A heat map."""

    title: str
    rows: list[str | int | float]
    columns: list[str | int | float]
    values: list[list[float | None]]
    """[rows][columns]"""
    unit: str | None = None
    corner: str | None = None
    """What rows and columns are."""

    def __post_init__(self) -> None:
        if [len(row) for row in self.values] != [len(self.columns)] * len(self.rows):
            raise ValueError(f"values of '{self.title}' are not rows x columns")


@dataclass(frozen=True)
class SectionColumn:
    """A column of a table."""

    label: str
    unit: str | None = None


@dataclass(frozen=True)
class SectionCell:
    """A number as printed."""

    text: str
    sort: int | float | None = None
    """What rows are sorted by; None: such rows come last."""


@dataclass(frozen=True)
class SectionTable:
    """A table; rows are shown in their order until a reader sorts them."""

    title: str
    columns: list[SectionColumn]
    rows: list[list[str | int | float | SectionCell | None]]
    """None: missing."""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"a row of '{self.title}' does not have one cell per column")


@dataclass(frozen=True)
class Section:
    """A further section of the page."""

    title: str
    schema: InitVar[Literal[1]]
    text: str | None = None
    source: str | None = None
    """Where its numbers come from."""
    charts: list[SectionChart] = field(default_factory=list)
    maps: list[SectionMap] = field(default_factory=list)
    tables: list[SectionTable] = field(default_factory=list)

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    def to_json(self) -> dict[str, Any]:
        """Return the section as the page's data have it, without empty parts."""
        value: dict[str, Any] = TypeAdapter(Section).dump_python(self, mode="json", exclude_none=True)
        return {key: part for key, part in value.items() if part}


def read(paths: Sequence[Path]) -> list[Section]:
    """Read sections.

    Raises:
        ArtifactError: a file cannot be read or is not a section; the message says which part is wrong.
    """
    adapter: TypeAdapter[Section] = TypeAdapter(Section)
    return [_read(path, adapter) for path in paths]


def in_results(folders: Sequence[Path]) -> list[Path]:
    """Return the files in ``sections/`` of the results folders, by name."""
    return [path for folder in folders for path in sorted((folder / FOLDER).glob("*.json"))]


def _read(path: Path, adapter: TypeAdapter[Section]) -> Section:
    value = records.read_json(path)
    try:
        records.check_texts(value, line_breaks=True)
        if type(value.get("schema", SCHEMA)) is not int:  # 1.0 and true are equal to 1
            raise ValueError(f"expected schema {SCHEMA}, got {json.dumps(value['schema'])[:20]}")
    except ValueError as error:
        raise ArtifactError(f"{path} is not a section of a report ({error}).") from error
    try:
        return adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        raise ArtifactError(f"{path} is not a section of a report ({records.problems(error)}).") from error
