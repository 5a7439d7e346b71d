"""Committed results have the current schema, and the report renders them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from effx import results
from effx.report import report

ROOT = Path(__file__).parents[1]
COMMITTED = ROOT / "docs" / "results"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _load(ROOT / "tools" / "convert_results.py")
FOLDERS = TOOL.result_folders(COMMITTED)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(COMMITTED)))
def test_committed_results_render(folder: Path, tmp_path: Path) -> None:
    runs = results.find([folder])
    assert runs and len(runs) == sum(TOOL.is_result(path) for path in folder.glob("*.json"))
    page = (report([folder], tmp_path / "report")[1] / "index.html").read_text()
    assert all(run.id in page and run.engine.digest in page for run in runs)


def test_committed_results_need_no_conversion() -> None:
    for path in sorted(COMMITTED.rglob("*")):
        converter = TOOL.converter(path)
        if converter is not None:
            text = path.read_bytes().decode()
            assert converter(text) == text, path


@pytest.mark.parametrize(
    ("name", "slug", "workload"),
    [
        ("steady grid 1x32 device", "steady-rounds", "grid 1x32 device"),
        ("energy (offline 32xreal)", "energy-measured", "offline 32xreal"),
        ("twice the work, twice the joules", "energy-linearity", None),
        ("host-idle", "host-idle", None),
    ],
)
def test_gates_are_converted_to_slugs(name: str, slug: str, workload: str | None) -> None:
    gate = TOOL.convert_gate({"name": name, "passed": False, "detail": "why"})
    assert gate == {"name": slug, "passed": False, "detail": "why", "workload": workload}
    assert TOOL.convert_gate(gate) == gate


def test_conversion_changes_names_and_nesting_only() -> None:
    path = next(path for path in (COMMITTED / "lottery" / "results").glob("*.json"))
    value = json.loads(path.read_bytes())
    old = as_schema_1(value)
    old["gates"] = [{"name": "host otherwise idle", "passed": False, "detail": "12 %"}]
    converted = TOOL.convert_result(old)
    assert converted["flags"] == ["host-idle"]
    assert converted["gates"][0]["name"] == "host-idle"
    assert {**converted, "flags": value["flags"], "gates": value["gates"]} == value
    assert TOOL.convert_result(value) == value


def as_schema_1(value: dict[str, Any]) -> dict[str, Any]:
    """Return a result as the first version wrote it."""
    settings = value["settings"]
    flat = {key: part for key, part in settings.items() if key not in ("plan", "runtime", "meter")}
    flat |= {**settings["plan"], **settings["runtime"]["details"], "threads": settings["runtime"]["threads"]}
    flat |= {"versions": settings["runtime"]["versions"]}
    flat |= {"meter": {"name": settings["meter"]["name"], **settings["meter"]["details"]}}
    flat["grid"] = [[int(number) for number in shape.split("x")] for shape in flat["grid"]]
    workloads = [
        {
            **{key: part for key, part in entry.items() if key not in ("workload", "statistics")},
            **{key: part for key, part in entry["workload"].items() if key != "length"},
            "sequence": entry["workload"]["length"],
            **entry["statistics"],
        }
        for entry in value["workloads"]
    ]
    return {**value, "schema": 1, "settings": flat, "workloads": workloads}
