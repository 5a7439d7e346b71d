"""Committed results have the current schema, and the report renders them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

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
    assert all(run.id in page and run.engine["digest"] in page for run in runs)


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


def test_conversion_changes_names_only() -> None:
    path = next(path for path in (COMMITTED / "lottery" / "results").glob("*.json"))
    value = json.loads(path.read_bytes())
    old = {**value, "schema": 1, "flags": ["steady grid 1x32", "steady grid 32x32"]}
    old["gates"] = [{"name": "host otherwise idle", "passed": True, "detail": "idle"}]
    converted = TOOL.convert_result(old)
    assert converted["flags"] == ["steady-rounds"]
    assert converted["gates"][0]["name"] == "host-idle"
    unchanged = set(value) - {"schema", "flags", "gates"}
    assert {key: converted[key] for key in unchanged} == {key: value[key] for key in unchanged}
