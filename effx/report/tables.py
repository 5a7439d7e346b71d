"""Tables for the terminal and for files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from effx.analysis.cohorts import single_stream
from effx.analysis.techniques import technique
from effx.formatting import in_column, interval, percent, score
from effx.report.groups import MAIN, Group
from effx.report.style import energy_sources, joules
from effx.results import Run


def print_runs(runs: Sequence[Run]) -> None:
    """Print what was measured, one engine a row."""
    if not runs:
        return
    first = runs[0]
    metered = any(single_stream(run).energy.joules_per_example is not None for run in runs)
    sources = energy_sources(runs)
    table = Table(title=f"{first.host['cpu']}, {first.host['cores']} cores; single queries at real lengths")
    table.add_column("engine", overflow="fold")
    for column in ("score, 95 %", "n", "p50 ms", "p90 ms", "p99 ms", "peak MiB"):
        table.add_column(column, justify="right")
    if metered:
        table.add_column(f"mJ/example ({', '.join(sources)})", justify="right")
    timed = any(run.launch_share is not None for run in runs)
    if timed:
        table.add_column("device p50 ms", justify="right")
        table.add_column("not on device", justify="right")
        table.add_column("GPU MiB", justify="right")
    for run in runs:
        latency = single_stream(run).latency_s
        cells = [
            run.name,
            f"{run.accuracy.metric} {score(run.accuracy.value)} {interval(run.accuracy.interval)}",
            str(run.accuracy.n),
            *(in_column(latency[name], "s") for name in ("p50", "p90", "p99")),
            in_column(run.memory.get("host_peak_bytes"), "B"),
        ]
        if metered:
            cells.append(joules(run, sources))
        if timed:
            device = run.workload("single-stream", timing="device")
            cells += [
                in_column(None if device is None else device.latency_s["p50"], "s"),
                "" if run.launch_share is None else percent(run.launch_share),
                in_column(run.memory.get("device_peak_bytes"), "B"),
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
        of_cost = "J/example" if energy else "s"
        for point in frontier["points"]:
            mark = "●" if point["non_dominated"] else ("~" if point["tied_with"] else "")
            table.add_row(
                mark,
                point["engine"],
                f"{score(point['values'][gain])} {interval(point['intervals'][gain])}",
                f"{in_column(point['values'][cost], of_cost)} {interval(point['intervals'][cost], of_cost)}",
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


def write_csv(runs: Sequence[Run], groups: Sequence[Group], path: Path) -> None:
    """Write one row per result: every number with its unit in the column's name."""
    best: dict[str, dict[str, tuple[bool, float]]] = {}
    for group in groups:
        for one in group.frontiers:
            if one.objectives in MAIN:
                for point in one.points:
                    own = (point.non_dominated, point.p_non_dominated)
                    best.setdefault(point.run.id, {})[one.objectives[1]] = own
    rows = []
    for run in runs:
        single, engine, on, of = single_stream(run), run.engine, best.get(run.id, {}), technique(run)
        latency, energy = on.get("latency", (None, None)), on.get("energy", (None, None))
        rows.append(
            [
                run.id, run.task, run.host_id, run.name, engine.get("model"), engine.get("regime"),
                engine["variant"], engine["scheme"], engine["backend"], engine["parameters"],
                engine.get("weight_remaining"), (engine.get("sparsity") or {}).get("share"),
                engine.get("size_bytes"), run.accuracy.metric,
                run.accuracy.value, *run.accuracy.interval, run.accuracy.n,
                *(single.latency_s[key] for key in ("mean", "p50", "p90", "p99")),
                single.throughput_per_s, run.memory.get("host_peak_bytes"), single.energy.source,
                single.energy.joules_per_example, *(single.energy.interval or (None, None)),
                single.energy.reason, latency[0], energy[0], latency[1], energy[1], of.name, of.level,
                of.text, ";".join(run.flags), engine["digest"], engine["checkpoint"]["digest"],
                run.session, run.started,
            ]
        )  # fmt: skip
    _write(path, _COLUMNS, rows)


def write_grid(runs: Sequence[Run], path: Path) -> None:
    """Write one row per result, batch, length and way of timing."""
    rows = [
        [run.id, run.task, run.host_id, run.name, one.batch, one.sequence, one.timing, one.latency_s["mean"],
         one.latency_s["p50"], sum(map(len, one.blocks_s)), len(one.blocks_s)]
        for run in runs
        for one in run.workloads
        if one.scenario == "grid"
    ]  # fmt: skip
    names = "result,task,host,engine,batch,length,timing,latency_mean_s,latency_p50_s,samples,blocks"
    _write(path, names.split(","), rows)


def write_pairs(pairs: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the paired comparisons, one row each: accuracy, single queries' median, energy."""
    rows = []
    for one in pairs:
        latency = next(
            (
                own
                for own in one["latency"]
                if (own["scenario"], own["statistic"]) == ("single-stream", "p50")
            ),
            None,
        )
        energy = one["energy"]
        rows.append(
            [
                *one["results"], one["a"], one["b"], one["task"], one["host"], one["metric"], one["n"],
                one["difference"], *(one["interval"] or (None, None)), one["differing"], one["p_value"],
                one["p_adjusted"], *_ratio(latency), None if latency is None else latency["paired"],
                None if energy is None else energy["source"], *_ratio(energy), one["sentence"],
            ]
        )  # fmt: skip
    names = (
        "result_a,result_b,engine_a,engine_b,task,host,metric,n,difference,difference_low,difference_high,"
        "differing,mcnemar_p,mcnemar_p_adjusted,latency_p50_ratio,latency_low,latency_high,interleaved,"
        "energy_source,energy_ratio,energy_low,energy_high,sentence"
    )
    _write(path, names.split(","), rows)


def _ratio(one: dict[str, Any] | None) -> tuple[float | None, ...]:
    return (None, None, None) if one is None else (one["value"], *(one["interval"] or (None, None)))


def _write(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows)


_COLUMNS = (
    "result,task,host,engine,model,regime,variant,scheme,backend,parameters,weight_remaining,sparsity,siz"
    "e_bytes,metric,score,score_low,score_high,n,latency_mean_s,latency_p50_s,latency_p90_s,latency_p99_s"
    ",throughput_per_s,host_peak_bytes,energy_source,joules_per_example,joules_low,joules_high,energy_rea"
    "son,on_latency_frontier,on_energy_frontier,p_latency_frontier,p_energy_frontier,reduction,reduction_"
    "level,reduction_text,gates_failed,engine_digest,checkpoint_digest,session,started"
).split(",")


def _console() -> Console:
    """A console that obeys nothing in names and reasons, and keeps whole rows where there is no terminal."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    return console
