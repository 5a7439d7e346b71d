"""What the tables of sweeps share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effx import files


def write(folder: Path, value: Mapping[str, Any], csv: str, markdown: str) -> None:
    """Write table.json, table.csv and table.md."""
    files.write_json(folder / "table.json", value)
    files.write_atomic(folder / "table.csv", csv.encode())
    files.write_atomic(folder / "table.md", markdown.encode())


def mean_and_std(spread: Mapping[str, Any]) -> str:
    """Return the mean of a :class:`effx.stats.runs.Spread` as JSON, and its deviation if there is one."""
    return f"{spread['mean']:.4f}" + ("" if spread["std"] is None else f" ± {spread['std']:.4f}")
