"""Convert committed results to the current schema.

    python tools/convert_results.py docs/results           convert in place; converted files are not changed
    python tools/convert_results.py --check docs/results   open every result, render a report per folder

Handles result files (``effx.results``), frontier.json, aa.json and the CSV files of a report. Only names
and nesting change: gates, keys and columns. No number is changed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from effx import files, results
from effx.errors import EffxError
from effx.report import contents, report
from effx.specs import workloads
from effx.specs.measurement import MeasurementPlan

GATES = {
    "timed answers are the scored ones": "prediction-agreement",
    "host otherwise idle": "host-idle",
    "energy": "energy-measured",
    "power between idle and limit": "power-range",
    "counter agrees with integrated power": "counter-agreement",
    "joules per example above the floor": "energy-floor",
    "twice the work, twice the joules": "energy-linearity",
    "windows undisturbed": "undisturbed-windows",
}
"""Names of gates in results of schema 1 -> slugs (``effx.specs.gates``)."""
STEADY = "steady "
"""Prefix of the gates that had the workload in their name: ``steady grid 1x32``."""
NO_MINIMUM = {"block_s": 0.0, "grid_block_s": 0.0}
"""Settings of the first results, whose blocks ended after a number of queries only."""
_TYPED = 3
"""Schema of results since which gates, settings and workloads have their current keys."""
KEYS_OF_REPORT = {"more": "other_frontiers", "gates_failed": "failed_gates"}
COLUMNS: dict[str, dict[str, str]] = {
    "frontier.csv": {
        "throughput_per_s": "throughput_examples_per_s",
        "host_peak_bytes": "host_peak_memory_bytes",
        "joules_per_example": "energy_j_per_example",
        "joules_low": "energy_j_per_example_low",
        "joules_high": "energy_j_per_example_high",
        "energy_reason": "energy_unavailable_reason",
        "gates_failed": "failed_gates",
    },
    "grid.csv": {"samples": "queries"},
    "comparisons.csv": {
        "difference": "score_difference",
        "difference_low": "score_difference_low",
        "difference_high": "score_difference_high",
        "differing": "differing_predictions",
        "latency_low": "latency_p50_ratio_low",
        "latency_high": "latency_p50_ratio_high",
        "energy_low": "energy_ratio_low",
        "energy_high": "energy_ratio_high",
    },
}
"""File -> old column -> new column."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="check instead of converting")
    options = parser.parse_args()
    return check(options.folder) if options.check else convert(options.folder)


def convert(folder: Path) -> int:
    """Convert every file below ``folder`` that needs it."""
    for path in sorted(folder.rglob("*")):
        convert_text = converter(path)
        if convert_text is None:
            continue
        before = path.read_bytes().decode()
        after = convert_text(before)
        if after != before:
            files.write_atomic(path, after.encode())
            print(f"converted {path}")
    return 0


def check(folder: Path) -> int:
    """Open every result below ``folder``, and render a report for every folder that contains results."""
    failed = 0
    for results_folder in result_folders(folder):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                report([results_folder], Path(scratch) / "report")
        except EffxError as error:
            print(f"{results_folder}: {error}", file=sys.stderr)
            failed += 1
    return int(failed > 0)


def result_folders(folder: Path) -> list[Path]:
    """Return the folders below ``folder`` that contain result files."""
    return sorted({path.parent for path in folder.rglob("*.json") if is_result(path)})


def is_result(path: Path) -> bool:
    """Return whether a JSON file is a result of a measurement, of any schema."""
    value = json.loads(path.read_bytes())
    return isinstance(value, dict) and {"engine", "host", "workloads"} <= set(value)


def converter(path: Path) -> Callable[[str], str] | None:
    """Return the function that converts a file's text; None if it is of another kind."""
    if path.name in COLUMNS:
        return lambda text: convert_csv(text, COLUMNS[path.name])
    if path.name == "frontier.json":
        return lambda text: _dump(convert_report(json.loads(text)), like=text)
    if path.name == "aa.json":
        return lambda text: _dump(convert_sessions(json.loads(text)), like=text)
    if path.suffix == ".json" and is_result(path):
        return lambda text: _dump(convert_result(json.loads(text)), like=text)
    return None


def convert_result(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with gates by slug, its failed gates as flags, and typed settings and workloads."""
    if value["schema"] == results.SCHEMA:
        return dict(value)
    renamed = {"quality" if key == "accuracy" else key: part for key, part in value.items()}
    typed = renamed if value["schema"] >= _TYPED else _typed(renamed)
    batches = workloads.offline(typed["settings"]["plan"]["batch_size"]).to_json()
    quality = {**typed["quality"], "workload": batches, "batch_dependent": None}
    return {**typed, "quality": quality, "schema": results.SCHEMA}


def _typed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of schema 1 or 2 with the gates, settings and workloads of schema 3."""
    gates = [convert_gate(gate) for gate in value.get("gates", [])]
    return {
        **value,
        "workloads": [convert_workload(workload) for workload in value["workloads"]],
        "settings": convert_settings(value["settings"]),
        "flags": list(dict.fromkeys(gate["name"] for gate in gates if gate["passed"] is False)),
        "gates": gates,
    }


def convert_workload(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload of a result with its identity and its statistics as objects."""
    workload = {
        "scenario": value["scenario"],
        "batch": value["batch"],
        "length": value["sequence"],
        "timing": value["timing"],
        "rate_per_s": value.get("rate_per_s"),
    }
    moved = {"scenario", "batch", "sequence", "timing", "rate_per_s", "latency_s", "throughput_per_s"}
    return {
        "workload": workload,
        **{key: part for key, part in value.items() if key not in moved},
        "statistics": {"latency_s": value["latency_s"], "throughput_per_s": value["throughput_per_s"]},
    }


def convert_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a result: the plan, and what runtime, meter and session report."""
    plan = {**NO_MINIMUM, **{key: part for key, part in value.items() if key in MeasurementPlan.model_fields}}
    plan["grid"] = [f"{batch}x{length}" for batch, length in plan["grid"]]
    meter = value["meter"] if isinstance(value["meter"], dict) else {"name": value["meter"]}
    of_session = ("mean_tokens", "mean_depth", "device_memory_by", "load_average", "session_wall_s",
                  "session_measured_s")  # fmt: skip
    other = {*plan, *of_session, "versions", "meter"}
    return {
        "plan": plan,
        "runtime": {
            "threads": value["threads"],
            "versions": value["versions"],
            "details": {key: part for key, part in value.items() if key not in other},
        },
        "meter": {
            "name": meter["name"], "details": {key: part for key, part in meter.items() if key != "name"}
        },
        **{key: value.get(key) for key in of_session},
    }  # fmt: skip


def convert_gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a gate with its slug, and the workload where that was part of its name."""
    name, workload = slug(gate["name"])
    return {**gate, "name": name, "workload": gate.get("workload", workload)}


def slug(name: str) -> tuple[str, str | None]:
    """Return the slug of a gate and the workload in its name."""
    if name.startswith(STEADY):
        return "steady-rounds", name.removeprefix(STEADY)
    base, _, workload = name.partition(" (")
    return GATES.get(base, base), workload.removesuffix(")") or None


def _slugs(names: Iterable[str]) -> list[str]:
    """Return the different slugs of gates, in order."""
    return list(dict.fromkeys(slug(name)[0] for name in names))


def convert_report(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of frontier.json with the current keys."""
    renamed = {KEYS_OF_REPORT.get(key, key): entry for key, entry in value.items()}
    for key in ("frontiers", "other_frontiers"):
        if key in renamed and value["schema"] < contents.SCHEMA:
            renamed[key] = [convert_frontier(frontier) for frontier in renamed[key]]
    return {**renamed, "schema": contents.SCHEMA}


def convert_frontier(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a frontier with the primary metric as the objective ``quality``."""
    frontier = dict(value)
    frontier["objectives"] = ["quality" if name == "accuracy" else name for name in value["objectives"]]
    for key in ("labels", "units", "maximise"):
        if key in value:
            frontier[key] = _with_quality(value[key])
    frontier["points"] = [
        {**point, "values": _with_quality(point["values"]), "intervals": _with_quality(point["intervals"])}
        for point in value["points"]
    ]
    return frontier


def _with_quality(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"quality" if key == "accuracy" else key: part for key, part in value.items()}


def convert_sessions(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the output of benchmarks/aa.py with the gates' slugs."""
    sessions = [{**session, "flags": _slugs(session["flags"])} for session in value["sessions"]]
    return {**value, "sessions": sessions}


def convert_csv(text: str, columns: Mapping[str, str]) -> str:
    """Return a CSV file with renamed columns, and with slugs of gates."""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    head = [columns.get(name, name) for name in rows[0]]
    out = io.StringIO(newline="")
    csv.writer(out).writerows([head, *_with_slugs(head, rows[1:])])
    return out.getvalue()


def _with_slugs(head: list[str], rows: list[list[str]]) -> Iterator[list[str]]:
    column = head.index("failed_gates") if "failed_gates" in head else None
    for row in rows:
        if column is not None:
            row[column] = ";".join(_slugs(filter(None, row[column].split(";"))))
        yield row


def _dump(value: Any, *, like: str) -> str:
    """Return JSON, indented if the text that it was read from was."""
    indent = 1 if like.startswith("{\n") else None
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
