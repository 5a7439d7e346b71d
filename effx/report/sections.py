"""Further sections of the page, read from JSON files, such as the search for a ticket.

    {"schema": 1, "title": "...", "text": "...", "source": "checkpoints/tickets.json",
     "charts": [{"title", "interval": "95 %", "x": {"label", "unit", "log"}, "y": {...},
                 "series": [{"name", "points": [{"x", "y", "low", "high", "label"}]}]}],
     "maps":   [{"title", "unit", "corner", "rows": [...], "columns": [...], "values": [[number or null]]}],
     "tables": [{"title", "columns": [{"label", "unit"}], "rows": [[text, number or null]]}]}

``schema`` and ``title`` are required; ``low``, ``high``, ``label``, ``unit`` and ``log`` are optional.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effx.errors import ArtifactError
from effx.results import check_numbers, check_texts, refuse_constant

SCHEMA = 1
FOLDER = "sections"
"""Folder within the results whose sections are always shown."""


def read(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read sections.

    Raises:
        ArtifactError: a file cannot be read or is not a section; the message says which part is wrong.
    """
    return [_read(path) for path in paths]


def in_results(folders: Sequence[Path]) -> list[Path]:
    """Return the files in ``sections/`` of the results folders, by name."""
    return [path for folder in folders for path in sorted((folder / FOLDER).glob("*.json"))]


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes(), parse_constant=refuse_constant)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not a section of a report ({error}).") from error
    try:
        _check(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{path} is not a section of a report ({error!r}).") from error
    known = ("title", "text", "source", "charts", "maps", "tables")
    return {key: value[key] for key in known if value.get(key)}


def _check(value: Any) -> None:
    if value["schema"] != SCHEMA:
        raise ValueError(f"schema {value['schema']}, expected {SCHEMA}")
    check_texts(value["title"], value.get("text", ""), value.get("source", ""))
    for chart in value.get("charts", []):
        check_texts(chart["title"], chart["x"]["label"], chart["y"]["label"])
        for series in chart["series"]:
            check_texts(series["name"])
            for point in series["points"]:
                check_numbers(point["x"], point["y"], point.get("low", 0.0), point.get("high", 0.0))
    for heat_map in value.get("maps", []):
        check_texts(heat_map["title"])
        shape = [len(row) for row in heat_map["values"]]
        if shape != [len(heat_map["columns"])] * len(heat_map["rows"]):
            raise ValueError(f"values of '{heat_map['title']}' are not rows x columns")
        check_numbers(*(cell for row in heat_map["values"] for cell in row if cell is not None))
    for table in value.get("tables", []):
        check_texts(table["title"], *(column["label"] for column in table["columns"]))
        if any(len(row) != len(table["columns"]) for row in table["rows"]):
            raise ValueError(f"a row of '{table['title']}' does not have one cell per column")
