"""The data of the page: one row per result, stored as columns; frontiers and pairs refer to row numbers.

    columns        {name: [one value per row]}; rows are in the order of ``runs``
    objectives     name, label, unit, direction; their values and intervals are columns
    units          by SI unit: the factor and the symbol it is shown with
    groups         task, host, rows, n, digests of the texts and of the reference engine; row numbers of the
                   members, the baseline and the frontiers
    pairs          paired comparisons; refused: why some pairs have none
    hosts, settings, shapes    what many rows share, by id or number

Numbers are rounded to six digits; frontier.json and the result files have all digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import effx
from effx.analysis import batches, losses, majority
from effx.analysis.cohorts import energy_of, latest
from effx.analysis.comparison import Comparison
from effx.analysis.frontier import Frontier
from effx.analysis.objectives import OBJECTIVES, Objective
from effx.analysis.techniques import Compared, kind, series, technique
from effx.formatting import UNITS
from effx.report.comparisons import RefusedPair
from effx.report.groups import Group
from effx.report.sections import Section
from effx.report.short_names import short_names
from effx.results import EnergyWindow, Failure, Idle, Run, WorkloadResult
from effx.specs import workloads

SCHEMA = 3
_DIGITS = 6
_IMPLIED = ("points", "task", "host", "labels", "units", "maximise", "metric")
"""Keys of a frontier that its group and its objectives have already."""
_OF_COMPARISON = (
    "metric", "n", "difference", "interval", "differing", "p_value", "test", "p_adjusted", "latency",
    "cpu_time", "energy", "memory", "remarks", "non_inferiority", "sentence",
)  # fmt: skip


def payload(
    created: str,
    runs: Sequence[Run],
    groups: Sequence[Group],
    comparisons: tuple[Sequence[Comparison], Sequence[RefusedPair]],
    failures: Sequence[Failure],
    sections: Sequence[Section],
) -> dict[str, Any]:
    """Return the page's data as JSON holds it.

    Args:
        created: date and time of the report.
        runs: all results.
        groups: the results that may be compared, with their frontiers.
        comparisons: paired comparisons, and the pairs that could not be compared.
        failures: engines that could not be measured.
        sections: further sections, see :mod:`effx.report.sections`.
    """
    row_numbers = {run.id: number for number, run in enumerate(runs)}
    settings, settings_numbers = _distinct([_settings(run) for run in runs])
    shapes = sorted(
        {
            (result.workload.batch, int(result.workload.length))
            for run in runs
            for result in run.workloads
            if result.workload.scenario == "grid"
        }
    )
    return {
        "schema": SCHEMA,
        "created": created,
        "effx": effx.__version__,
        "objectives": [
            {"name": objective.name, "label": objective.label, "short": objective.short,
             "unit": objective.unit, "maximise": objective.maximise, "energetic": objective.uses_energy,
             "score": objective.is_score}
            for objective in OBJECTIVES.values()
            if _is_informative(objective, runs)
        ],
        "units": {unit: [shown.factor, shown.symbol] for unit, shown in UNITS.items()},
        "hosts": {run.host_id: run.host.to_json() for run in runs},
        "settings": settings,
        "shapes": shapes,
        "columns": _columns(runs, groups, settings_numbers, shapes),
        "groups": [_group(group, row_numbers) for group in groups],
        "pairs": [_pair(comparison, row_numbers) for comparison in comparisons[0]],
        "refused": [[row_numbers[pair.a], row_numbers[pair.b], pair.reason] for pair in comparisons[1]],
        "failures": [
            {"engine": failure.name, "host": failure.host.id, "started": failure.started,
             "id": failure.id, "failure": failure.failure}
            for failure in failures
        ],
        "sections": [section.to_json() for section in sections],
    }  # fmt: skip


def _columns(
    runs: Sequence[Run],
    groups: Sequence[Group],
    settings_numbers: Sequence[int],
    shapes: Sequence[tuple[int, int]],
) -> dict[str, list[Any]]:
    newest = {run.id for run in latest(runs)}
    rows = _rows(runs)
    return {
        **{key: [row[key] for row in rows] for key in (rows[0] if rows else {})},
        "settings": list(settings_numbers),
        "latest": [run.id in newest for run in runs],
        "grid": [_grid(run, shapes) for run in runs],
        "energy": [_energy(run) for run in runs],
        "others": [_others(run) for run in runs],
        **_objectives(runs, groups),
    }


def _rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return each run's columns; within a task, names are shortened and maximum lengths compared."""
    tasks: dict[str, list[Run]] = {}
    for run in runs:
        tasks.setdefault(run.task, []).append(run)
    short = {task: short_names(members) for task, members in tasks.items()}
    compared = {task: Compared.of(members) for task, members in tasks.items()}
    return [_row(run, short[run.task][run.name], compared[run.task]) for run in runs]


def _row(run: Run, short: str, compared: Compared) -> dict[str, Any]:
    engine, reduction = run.engine, technique(run)
    return {
        "id": run.id,
        "name": run.name,
        "short": short,
        "task": run.task,
        "host": run.host_id,
        "started": run.started,
        "session": run.session,
        "metric": run.quality.described,
        "n": run.quality.n,
        "metrics": {
            name: _rounded(value)
            for name, value in run.quality.metrics.items()
            if not run.withdrawn("quality")
        },
        "label_f1": [
            [name, _rounded(value)]
            for name, value in (run.quality.label_f1 or {}).items()
            if not run.withdrawn("quality")
        ],
        "rows": run.quality.source,
        "digest": engine.digest,
        "checkpoint": engine.checkpoint.name,
        "checkpoint_digest": engine.checkpoint.digest,
        "model": engine.model,
        "regime": engine.regime,
        "variant": engine.variant,
        "precision": engine.precision,
        "scheme": engine.scheme,
        "backend": engine.backend,
        "device": engine.device,
        "parameters": engine.parameters,
        "weight_remaining": engine.weight_remaining,
        "parity": None if engine.parity is None else engine.parity.label_agreement,
        "technique": reduction.name,
        "level": _rounded(reduction.level),
        "level_text": reduction.text,
        "kind": kind(run, compared),
        "series": series(run, reduction, compared),
        "host_overhead_share": _rounded(run.host_overhead_share),
        "failed_gates": [[gate.label, gate.detail] for gate in run.failed_gates],
        "unchecked_gates": sum(gate.passed is None for gate in run.gates),
        "gates": len(run.gates),
        "flags": [
            *(flag for workload in run.workloads for flag in workload.flags),
            *filter(None, [majority.remark(run), batches.remark(run)]),
        ],
    }


def _objectives(runs: Sequence[Run], groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return value, low and high of each objective; the intervals are those of the frontiers."""
    by_objective: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in OBJECTIVES}
    for group in groups:
        for frontier in group.frontiers:
            for point in frontier.points:
                for name, interval in point.intervals.items():
                    if interval is not None:
                        by_objective[name][point.run.id] = interval
    for run in runs:
        if not run.withdrawn("quality"):
            by_objective["quality"].setdefault(run.id, run.quality.interval)
    columns: dict[str, list[Any]] = {}
    for name, objective in OBJECTIVES.items():
        ends = [by_objective[name].get(run.id) or (None, None) for run in runs]
        columns[f"{name}.value"] = [_rounded(objective.value(run)) for run in runs]
        columns[f"{name}.low"] = [_rounded(low) for low, _ in ends]
        columns[f"{name}.high"] = [_rounded(high) for _, high in ends]
    return columns


def _is_informative(objective: Objective, runs: Sequence[Run]) -> bool:
    """Return whether an objective differs from ``quality``, which is the primary metric of any task."""
    if not objective.is_score or objective.name == "quality":
        return True
    return any(objective.value(run) not in (None, OBJECTIVES["quality"].value(run)) for run in runs)


def _group(group: Group, row_numbers: Mapping[str, int]) -> dict[str, Any]:
    cohort = group.cohort
    return {
        "task": cohort.task,
        "host": cohort.host,
        "rows": cohort.rows,
        "n": cohort.n,
        "metric": cohort.described,
        "reference": None if cohort.reference is None else cohort.reference.digest,
        "texts": cohort.texts,
        "members": [row_numbers[run.id] for run in group.runs],
        "losses": [
            [outcome.status, outcome.explanation] for outcome in losses.outcomes(group.runs, group.baseline)
        ],
        "baseline": row_numbers[group.baseline.id],
        "frontiers": [
            _frontier(frontier, row_numbers, {run.id: run for run in group.runs})
            for frontier in group.frontiers
        ],
    }


def _other_values(frontier: Frontier, runs: Mapping[str, Run]) -> list[dict[str, list[Any]]]:
    """Return objective -> value, low and high of each engine, where they are not those of the columns.

    Scores differ where answers depend on the batch, and the frontier is of batches.

    Args:
        frontier: of engines.
        runs: id -> result, as the columns show it.
    """
    return [
        {
            name: [_rounded(value), *(_rounded(end) for end in point.intervals[name] or (None, None))]
            for name, value in point.values.items()
            if value != OBJECTIVES[name].value(runs[point.run.id])
        }
        for point in frontier.points
    ]


def _frontier(frontier: Frontier, row_numbers: Mapping[str, int], runs: Mapping[str, Run]) -> dict[str, Any]:
    by_name = {point.run.name: row_numbers[point.run.id] for point in frontier.points}
    return {
        **{key: value for key, value in frontier.to_json().items() if key not in _IMPLIED},
        "meter": energy_of(frontier.points[0].run).meter,
        "knee": None if frontier.knee is None else by_name[frontier.knee],
        "members": list(by_name.values()),
        "other": _other_values(frontier, runs),
        "best": [by_name[point.run.name] for point in frontier.points if point.non_dominated],
        "p": [round(point.p_non_dominated, 3) for point in frontier.points],
        "proven": [point.proven for point in frontier.points],
        "tied": {
            str(by_name[point.run.name]): [by_name[name] for name in point.tied_with]
            for point in frontier.points
            if point.tied_with
        },
    }


def _pair(comparison: Comparison, row_numbers: Mapping[str, int]) -> dict[str, Any]:
    value = comparison.to_json()
    a, b = comparison.results
    return {
        "a": row_numbers[a],
        "b": row_numbers[b],
        **{key: _rounded(value[key]) for key in _OF_COMPARISON},
    }


def _grid(run: Run, shapes: Sequence[tuple[int, int]]) -> list[float | None]:
    """Return the median seconds per query of each shape."""
    cells = [run.workload(workloads.grid(*shape)) for shape in shapes]
    return [None if cell is None else _rounded(cell.latency_s["p50"]) for cell in cells]


def _energy(run: Run) -> list[dict[str, Any]]:
    """Return each workload with energy, and single queries in any case, with the reason if there is none."""
    return [
        {
            "scenario": result.workload.scenario,
            "timing": result.workload.timing,
            **{
                key: _rounded(value)
                for key, value in vars(run.energy_of(result)).items()
                if value is not None and value != []
            },
        }
        for result in run.workloads
        if run.energy_of(result).source != "none" or result.workload.scenario == "single-stream"
    ]


def _others(run: Run) -> list[dict[str, Any]]:
    """Return the workloads that are not of the grid."""
    return [_workload(result) for result in run.workloads if result.workload.scenario != "grid"]


def _workload(result: WorkloadResult) -> dict[str, Any]:
    workload = result.workload
    return {
        "scenario": workload.scenario,
        "timing": workload.timing,
        "batch": workload.batch,
        "rate_per_s": workload.rate_per_s,
        "latency_s": {name: _rounded(value) for name, value in result.latency_s.items()},
        "throughput_per_s": _rounded(result.throughput_per_s),
        "queries": sum(map(len, result.blocks_s)),
        "blocks": len(result.blocks_s),
    }


def _settings(run: Run) -> dict[str, Any]:
    """Return how a run was measured, flat, as the page lists it."""
    settings = run.settings
    return {
        **settings.plan.to_json(),
        **settings.runtime.details,
        "threads": settings.runtime.threads,
        "versions": dict(settings.runtime.versions),
        "meter": {"name": settings.meter.name, **settings.meter.details},
        **{
            key: value
            for key, value in vars(settings).items()
            if key not in ("plan", "runtime", "meter", "interruptions") and value is not None
        },
        "interruptions": [
            f"{gap.stopped} to {gap.resumed}, after {gap.rounds} rounds" for gap in settings.interruptions
        ],
    }


def _distinct(values: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the distinct values, and for each value its index among them."""
    indices: dict[str, int] = {}
    distinct: list[dict[str, Any]] = []
    index_of_value = []
    for value in values:
        key = json.dumps(value, sort_keys=True)
        if key not in indices:
            indices[key] = len(distinct)
            distinct.append(value)
        index_of_value.append(indices[key])
    return distinct, index_of_value


def _rounded(value: Any) -> Any:
    """Return a value for JSON: floats with six digits, those that are not finite as None."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Idle | EnergyWindow):
        return _rounded(asdict(value))
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
