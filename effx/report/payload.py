"""What the page's script reads: every result as a row of columns, frontiers and pairs by row number.

    columns        {name: [a value per row]}; rows are in the order of ``runs``
    objectives     name, label, unit, direction; their values and intervals are columns
    units          by SI unit: the factor and the symbol it is shown with
    groups         task, host, rows, n; which rows, which baseline, which frontiers
    pairs          paired comparisons; refused: why some pairs have none
    hosts, settings, shapes    what many rows share, by id or number

Figures are rounded to six digits; frontier.json and the result files have all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from effx.analysis.cohorts import latest, single_stream
from effx.analysis.frontier import Frontier
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.techniques import longest, series, technique
from effx.formatting import UNITS
from effx.report.groups import Group
from effx.report.short_names import short_names
from effx.results import Failure, Idle, Run, Workload

_DIGITS = 6
_IMPLIED = ("points", "task", "host", "labels", "units", "maximise", "metric")


def payload(
    content: dict[str, Any],
    runs: Sequence[Run],
    groups: Sequence[Group],
    pairs: tuple[list[dict[str, Any]], list[tuple[str, str, str]]],
    failures: Sequence[Failure],
    sections: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Return the page's data as JSON holds it."""
    number = {run.id: place for place, run in enumerate(runs)}
    newest = {run.id for run in latest(runs)}
    settings, own_settings = _shared([run.settings for run in runs])
    shapes = sorted(
        {(w.batch, int(w.sequence)) for run in runs for w in run.workloads if w.scenario == "grid"}
    )
    rows = _rows(runs)
    columns: dict[str, list[Any]] = {key: [row[key] for row in rows] for key in (rows[0] if rows else {})}
    columns["settings"] = [*own_settings]
    columns["latest"] = [run.id in newest for run in runs]
    columns["grid"] = [_grid(run, shapes) for run in runs]
    columns["energy"] = [_energy(run) for run in runs]
    columns["others"] = [_others(run) for run in runs]
    for name, values in _objectives(runs, groups).items():
        columns[name] = values
    return {
        "schema": 1,
        "created": content["created"],
        "effx": content["effx"],
        "objectives": [
            {"name": one.name, "label": one.label, "short": one.short, "unit": one.unit,
             "maximise": one.maximise, "energetic": one.energetic}
            for one in OBJECTIVES.values()
            if _says_something(one, runs)
        ],
        "units": {unit: [shown.factor, shown.symbol] for unit, shown in UNITS.items()},
        "hosts": {run.host_id: run.host for run in runs},
        "settings": settings,
        "shapes": shapes,
        "columns": columns,
        "groups": [_group(group, number) for group in groups],
        "pairs": [_pair(one, number) for one in pairs[0]],
        "refused": [[number[a], number[b], why] for a, b, why in pairs[1]],
        "failures": [
            {"engine": one.engine["name"], "host": one.host["id"], "started": one.started,
             "id": one.id, "failure": one.failure}
            for one in failures
        ],
        "sections": list(sections),
    }  # fmt: skip


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each run's columns; names are shortened, and lengths compared, within a task."""
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run)
    short = {task: short_names(own) for task, own in tasks.items()}
    tokens = {task: longest(own) for task, own in tasks.items()}
    return [_row(run, short[run.task][run.name], tokens[run.task]) for run in runs]


def _row(run: Run, short: str, tokens: int | None) -> dict[str, Any]:
    engine, of = run.engine, technique(run)
    checkpoint = engine["checkpoint"]
    return {
        "id": run.id,
        "name": run.name,
        "short": short,
        "task": run.task,
        "host": run.host_id,
        "started": run.started,
        "session": run.session,
        "metric": run.accuracy.metric,
        "n": run.accuracy.n,
        "metrics": {name: _round(value) for name, value in run.accuracy.metrics.items()},
        "rows": run.accuracy.source,
        "digest": engine["digest"],
        "checkpoint": checkpoint["name"],
        "checkpoint_digest": checkpoint["digest"],
        "model": engine.get("model"),
        "regime": engine.get("regime"),
        "variant": engine["variant"],
        "precision": engine["precision"],
        "scheme": engine["scheme"],
        "backend": engine["backend"],
        "device": engine["device"],
        "parameters": engine["parameters"],
        "weight_remaining": engine.get("weight_remaining"),
        "parity": (engine.get("parity") or {}).get("label_agreement"),
        "technique": of.name,
        "level": _round(of.level),
        "level_text": of.text,
        "series": series(run, of, tokens),
        "launch_share": _round(run.launch_share),
        "failed": [[gate["name"], gate["detail"]] for gate in run.gates if gate["passed"] is False],
        "unchecked": sum(gate["passed"] is None for gate in run.gates),
        "gates": len(run.gates),
        "flags": [flag for workload in run.workloads for flag in workload.flags],
    }


def _objectives(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return value, low and high of each objective; intervals are those that the frontiers found."""
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in OBJECTIVES}
    for group in groups:
        for one in group.frontiers:
            for point in one.points:
                for name, interval in point.intervals.items():
                    if interval is not None:
                        found[name][point.run.id] = interval
    for run in runs:
        found["accuracy"].setdefault(run.id, run.accuracy.interval)
    columns: dict[str, list[Any]] = {}
    for name, objective in OBJECTIVES.items():
        intervals = [found[name].get(run.id) for run in runs]
        columns[f"{name}.value"] = [_round(objective.value(run)) for run in runs]
        columns[f"{name}.low"] = [None if pair is None else _round(pair[0]) for pair in intervals]
        columns[f"{name}.high"] = [None if pair is None else _round(pair[1]) for pair in intervals]
    return columns


def _says_something(objective: Objective, runs: Sequence[Run]) -> bool:
    """Whether a score is another one than ``accuracy``, which is the primary metric whatever its name."""
    if not objective.scored or objective.name == "accuracy":
        return True
    return any(objective.value(run) not in (None, run.accuracy.value) for run in runs)


def _group(group: Group, number: dict[str, int]) -> dict[str, Any]:
    assert group.baseline is not None
    return {
        "task": group.task,
        "host": group.host,
        "rows": group.rows,
        "n": group.n,
        "metric": group.metric,
        "members": [number[run.id] for run in group.runs],
        "baseline": number[group.baseline.id],
        "frontiers": [_frontier(one, number) for one in group.frontiers],
    }


def _frontier(one: Frontier, number: dict[str, int]) -> dict[str, Any]:
    by_name = {point.run.name: number[point.run.id] for point in one.points}
    said = {key: value for key, value in one.to_json().items() if key not in _IMPLIED}
    return {
        **said,
        "meter": single_stream(one.points[0].run).energy.meter,
        "knee": None if one.knee is None else by_name[one.knee],
        "members": [number[point.run.id] for point in one.points],
        "best": [number[point.run.id] for point in one.points if point.non_dominated],
        "p": [round(point.p_non_dominated, 3) for point in one.points],
        "tied": {
            str(number[point.run.id]): [by_name[name] for name in point.tied_with]
            for point in one.points
            if point.tied_with
        },
    }


def _pair(one: dict[str, Any], number: dict[str, int]) -> dict[str, Any]:
    kept = ("metric", "n", "difference", "interval", "differing", "p_value", "p_adjusted", "latency",
            "energy", "memory", "remarks", "non_inferiority", "sentence")  # fmt: skip
    a, b = one["results"]
    return {"a": number[a], "b": number[b], **{key: _rounded(one[key]) for key in kept}}


def _grid(run: Run, shapes: Sequence[tuple[int, int]]) -> list[float | None]:
    """Return the median seconds per query of each shape."""
    cells = [run.workload("grid", *shape) for shape in shapes]
    return [None if cell is None else _round(cell.latency_s["p50"]) for cell in cells]


def _energy(run: Run) -> list[dict[str, Any]]:
    """Return each metered workload's energy, and why the single queries have none."""
    return [
        {
            "scenario": workload.scenario,
            "timing": workload.timing,
            **{
                key: _rounded(value)
                for key, value in vars(workload.energy).items()
                if value is not None and value != []
            },
        }
        for workload in run.workloads
        if workload.energy.source != "none" or workload.scenario == "single-stream"
    ]


def _others(run: Run) -> list[dict[str, Any]]:
    return [_workload(one) for one in run.workloads if one.scenario != "grid"]


def _workload(one: Workload) -> dict[str, Any]:
    return {
        "scenario": one.scenario,
        "timing": one.timing,
        "batch": one.batch,
        "rate": one.rate_per_s,
        "latency": {name: _round(value) for name, value in one.latency_s.items()},
        "per_s": _round(one.throughput_per_s),
        "samples": sum(map(len, one.blocks_s)),
        "blocks": len(one.blocks_s),
    }


def _shared(values: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the different values, and for each the number of its own."""
    numbers: dict[str, int] = {}
    kept: list[dict[str, Any]] = []
    own = []
    for value in values:
        key = json.dumps(value, sort_keys=True)
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(value)
        own.append(numbers[key])
    return kept, own


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return _round(value)
    if isinstance(value, Idle):
        return _rounded(vars(value))
    if isinstance(value, dict):
        return {key: _rounded(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(own) for own in value]
    return value


def _round(value: float | None) -> float | None:
    """Return six digits; what JSON has no word for becomes None."""
    if value is None or not math.isfinite(value):
        return None
    if isinstance(value, int):
        return value
    return float(f"{value:.{_DIGITS}g}")
