"""Tables for the terminal and for files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from effx.profile.frontier import Frontier, single_stream
from effx.profile.report.style import four, mebibytes, millijoules, milliseconds, span
from effx.results import Run


def print_runs(runs: Sequence[Run]) -> None:
    """Print what was measured, one engine a row."""
    if not runs:
        return
    first = runs[0]
    metered = any(single_stream(run).energy.joules_per_example is not None for run in runs)
    table = Table(title=f"{first.host['cpu']}, {first.host['cores']} cores; single queries at real lengths")
    table.add_column("engine", overflow="fold")
    for column in ("score, 95 %", "n", "p50 ms", "p90 ms", "p99 ms", "peak MiB"):
        table.add_column(column, justify="right")
    if metered:
        table.add_column(f"mJ/example ({single_stream(first).energy.source})", justify="right")
    timed = any(run.launch_share is not None for run in runs)
    if timed:
        table.add_column("device p50 ms", justify="right")
        table.add_column("not on device", justify="right")
        table.add_column("GPU MiB", justify="right")
    for run in runs:
        latency = single_stream(run).latency_s
        cells = [
            run.name,
            f"{run.accuracy.metric} {four(run.accuracy.value)} {span(run.accuracy.interval)}",
            str(run.accuracy.n),
            *(milliseconds(latency[name]) for name in ("p50", "p90", "p99")),
            mebibytes(run.memory["host_peak_bytes"]),
        ]
        if metered:
            cells.append(millijoules(single_stream(run).energy.joules_per_example))
        if timed:
            device = run.workload("single-stream", timing="device")
            cells += [
                milliseconds(None if device is None else device.latency_s["p50"]),
                "" if run.launch_share is None else f"{run.launch_share:.0%}",
                mebibytes(run.memory["device_peak_bytes"]),
            ]
        table.add_row(*cells)
    console = _console()
    console.print(table)
    if not metered:
        console.print(f"energy: unavailable ({single_stream(first).energy.reason})")


def print_frontiers(content: dict[str, Any]) -> None:
    """Print each frontier, its engines from cheap to dear."""
    console = _console()
    for frontier in content["frontiers"]:
        gain, cost = frontier["objectives"]
        energy = cost == "energy"
        unit = f"mJ/example ({frontier['energy_source']})" if energy else "p50 ms"
        table = Table(title=f"{frontier['task']} on {frontier['host']}: {frontier['metric']} and {cost}")
        table.add_column("", width=1)
        table.add_column("engine", overflow="fold")
        for column in (f"{frontier['metric']}, 95 %", f"{unit}, 95 %", "P(frontier)"):
            table.add_column(column, justify="right")
        form = millijoules if energy else milliseconds
        for point in frontier["points"]:
            mark = "●" if point["non_dominated"] else ("~" if point["tied_with"] else "")
            table.add_row(
                mark,
                point["engine"],
                f"{four(point['values'][gain])} {span(point['intervals'][gain])}",
                f"{form(point['values'][cost])} {span(point['intervals'][cost], form)}",
                f"{point['p_non_dominated']:.2f}",
            )
        console.print(table)
        console.print("● on the frontier   ~ not distinguishable from it")
    for reason in content["energy_unavailable"]:
        console.print(f"energy: unavailable ({reason})")
    for gate in content["gates_failed"]:
        console.print(f"gate failed: {gate['engine']}: {gate['gate']}: {gate['detail']}")
    for failure in content["failures"]:
        console.print(f"not measured: {failure['failure']}")


def write_csv(runs: Sequence[Run], found: dict[tuple[str, str], list[Frontier]], path: Path) -> None:
    """Write one row per result: every number with its unit in the column's name."""
    best: dict[str, dict[str, bool]] = {}
    for (_, cost), group in found.items():
        for frontier in group:
            for point in frontier.points:
                best.setdefault(point.run.id, {})[cost] = point.non_dominated
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for run in runs:
            single, on = single_stream(run), best.get(run.id, {})
            writer.writerow(
                [
                    run.id, run.task, run.host_id, run.name, run.engine["model"],
                    run.engine["regime"], run.engine["variant"], run.engine["scheme"],
                    run.engine["backend"], run.engine["parameters"],
                    run.engine["weight_remaining"], run.engine["size_bytes"],
                    run.accuracy.metric, run.accuracy.value, *run.accuracy.interval,
                    run.accuracy.n, *(single.latency_s[key] for key in ("mean", "p50", "p90", "p99")),
                    single.throughput_per_s, run.memory["host_peak_bytes"],
                    single.energy.source, single.energy.joules_per_example,
                    *(single.energy.interval or (None, None)), single.energy.reason,
                    on.get("latency"), on.get("energy"),
                ]
            )  # fmt: skip


_COLUMNS = (
    "result,task,host,engine,model,regime,variant,scheme,backend,parameters,weight_remaining,size_bytes,m"
    "etric,score,score_low,score_high,n,latency_mean_s,latency_p50_s,latency_p90_s,latency_p99_s,throughp"
    "ut_per_s,host_peak_bytes,energy_source,joules_per_example,joules_low,joules_high,energy_reason,on_la"
    "tency_frontier,on_energy_frontier"
).split(",")


def _console() -> Console:
    """A console that keeps whole rows where stdout is no terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
