"""Tables for the terminal, and CSV files with SI units in the names of their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from effx.analysis.cohorts import energy_of, single_stream
from effx.analysis.comparison import Comparison, EnergyRatio, LatencyRatio
from effx.analysis.frontier import FrontierPoint
from effx.analysis.objectives import OBJECTIVES, QUALITY
from effx.analysis.seeds import SeedFrontier, SeedMean
from effx.analysis.techniques import MADE_ELSEWHERE, technique
from effx.formatting import Cell, fixed, in_column, interval, not_a_formula, percent, score, symbol
from effx.report.groups import MAIN_OBJECTIVES, Group
from effx.results import Run
from effx.specs.workloads import SINGLE_STREAM

_WIDTH_OF_FILES = 160
"""Characters in a line where output is not a terminal."""


def energy_sources(runs: Sequence[Run]) -> list[str]:
    """Return the sources of the energy of single queries, without ``none``."""
    return sorted({energy_of(run).source for run in runs} - {"none"})


def energy_cell(run: Run, sources: Sequence[str]) -> str:
    """Return mJ per example of single queries, with their source if ``sources`` has several."""
    energy = energy_of(run)
    text = in_column(energy.joules_per_example, "J/example")
    return f"{text} ({energy.source})" if len(sources) > 1 and energy.source != "none" else text


def print_runs(runs: Sequence[Run]) -> None:
    """Print the measurements, one engine per row."""
    if not runs:
        return
    first = runs[0]
    with_energy = any(energy_of(run).joules_per_example is not None for run in runs)
    on_device = any(run.workload(SINGLE_STREAM.timed_on_device()) for run in runs)
    with_cpu_time = any(OBJECTIVES["cpu_time"].value(run) is not None for run in runs)
    sources = energy_sources(runs)
    table = Table(title=f"{first.host.cpu}, {first.host.cores} cores; single queries at real lengths")
    table.add_column("engine", overflow="fold")
    headings = ["score, 95 %", "n", "p50, ms", "p90, ms", "p99, ms"]
    headings += ["CPU, ms"] if with_cpu_time else []
    headings += ["peak memory, MiB"]
    headings += [f"mJ/example ({', '.join(sources)})"] if with_energy else []
    headings += ["p50 on device, ms", "host overhead", "GPU memory, MiB"] if on_device else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for run in runs:
        latency_s = single_stream(run).latency_s
        cells = [
            run.name if run.made_elsewhere is None else f"{run.name} ({MADE_ELSEWHERE})",
            f"{run.quality.described} {score(QUALITY.value(run))} {interval(QUALITY.interval(run))}",
            str(run.quality.n),
            *(in_column(latency_s[name], "s") for name in ("p50", "p90", "p99")),
        ]
        cells += [in_column(OBJECTIVES["cpu_time"].value(run), "s")] if with_cpu_time else []
        cells.append(in_column(run.memory.host_peak_bytes, "B"))
        cells += [energy_cell(run, sources)] if with_energy else []
        cells += _device_cells(run) if on_device else []
        table.add_row(*cells)
    console = _console()
    console.print(table)
    if not with_energy:
        console.print(f"energy: unavailable ({energy_of(first).reason})")


def _device_cells(run: Run) -> list[str]:
    device = run.workload(SINGLE_STREAM.timed_on_device())
    return [
        in_column(None if device is None else device.latency_s["p50"], "s"),
        "" if run.host_overhead_share is None else percent(run.host_overhead_share),
        in_column(run.memory.device_peak_bytes, "B"),
    ]


def print_frontiers(content: Mapping[str, Any]) -> None:
    """Print each main frontier, its engines in order of cost, and what could not be measured.

    Args:
        content: what frontier.json holds, see :class:`effx.report.contents.ReportContents`.
    """
    console = _console()
    for frontier in content["frontiers"]:
        console.print(_frontier_table(frontier))
        console.print("● on the frontier   ~ statistically indistinguishable from it")
    for frontier in content.get("seed_means", ()):  # reports of earlier versions have none
        console.print(_seeds_table(frontier))
    for reason in content["energy_unavailable"]:
        console.print(f"energy: unavailable ({reason})")
    for gate in content["failed_gates"]:
        console.print(f"gate failed: {gate['engine']}: {gate['gate']}: {gate['detail']}")
    for failure in content["failures"]:
        console.print(f"not measured: {failure['failure']}")


def _frontier_table(frontier: Mapping[str, Any]) -> Table:
    gain, cost = frontier["objectives"]
    unit = "J/example" if cost == "energy" else "s"
    heading = f"mJ/example ({frontier['energy_source']})" if cost == "energy" else "p50, ms"
    table = Table(title=f"{frontier['task']} on {frontier['host']}: {frontier['metric']} and {cost}")
    table.add_column("", width=1)
    table.add_column("engine", overflow="fold")
    for column in (f"{frontier['metric']}, 95 %", f"{heading}, 95 %", "P(frontier)", "proven"):
        table.add_column(column, justify="right")
    for point in frontier["points"]:
        values, intervals = point["values"], point["intervals"]
        table.add_row(
            "●" if point["non_dominated"] else "~" if point["tied_with"] else "",
            point["engine"],
            f"{score(values[gain])} {interval(intervals[gain])}",
            f"{in_column(values[cost], unit)} {interval(intervals[cost], unit)}",
            fixed(point["p_non_dominated"], 2),
            point["proven"] or "",
        )
    return table


def _seeds_table(frontier: Mapping[str, Any]) -> Table:
    """Return means over seeds; the spread over seeds beside the interval over rows."""
    objective = OBJECTIVES[frontier["cost"]]
    unit = symbol(objective.unit)
    table = Table(title=f"{frontier['task']} on {frontier['host']}: means over seeds, {objective.short}")
    table.add_column("", width=1)
    table.add_column("technique", overflow="fold")
    mean = f"mean {frontier['metric']}, 95 % over rows"
    headings = ("seeds", mean, "std over seeds", f"mean, {unit}, 95 %", "P(frontier)")
    for heading in headings:
        table.add_column(heading, justify="right")
    for point in frontier["points"]:
        quality, cost = point["quality"], point["cost"]
        table.add_row(
            "●" if point["non_dominated"] else "",
            point["technique"],
            str(quality["n"]),
            f"{score(quality['mean'])} {interval(point['quality_interval'])}",
            score(quality["std"]),
            f"{in_column(cost['mean'], objective.unit)} {interval(point['cost_interval'], objective.unit)}",
            fixed(point["p_non_dominated"], 2),
        )
    return table


def write_csv(
    runs: Sequence[Run], groups: Sequence[Group], seed_means: Sequence[SeedFrontier], path: Path
) -> None:
    """Write one row per result."""
    on_frontier: dict[tuple[str, str], FrontierPoint] = {}
    for group in groups:
        for frontier in group.frontiers:
            if frontier.objectives in MAIN_OBJECTIVES:
                for point in frontier.points:
                    key = (point.run.id, frontier.objectives[1])
                    on_frontier.setdefault(key, point)
    of_seeds = _by_result(seed_means)
    _write(path, [{**_result_row(run, on_frontier), **_seed_cells(run, of_seeds)} for run in runs])


def _by_result(seed_means: Sequence[SeedFrontier]) -> dict[str, SeedMean]:
    """Return by result the mean over seeds that it is a part of; nothing for a single seed."""
    found: dict[str, SeedMean] = {}
    for frontier in seed_means:
        for point in frontier.points:
            if point.quality.n > 1:
                for result in point.results:  # by energy it may be of fewer seeds: the first holds
                    found.setdefault(result, point)
    return found


def _seed_cells(run: Run, of_seeds: Mapping[str, SeedMean]) -> dict[str, Cell]:
    """Return the seed of a result, and what is known of its technique over seeds."""
    point = of_seeds.get(run.id)
    return {
        "seed": None if run.engine.origin is None else run.engine.origin.seed,
        "technique_of_seeds": None if point is None else point.technique,
        "seeds": None if point is None else point.quality.n,
        "score_mean_over_seeds": None if point is None else point.quality.mean,
        "score_std_over_seeds": None if point is None else point.quality.std,
    }


def _frontier_cells(
    on_frontier: Mapping[tuple[str, str], FrontierPoint], run: Run, cost: str
) -> dict[str, Cell]:
    point = on_frontier.get((run.id, cost))
    return {
        f"on_{cost}_frontier": None if point is None else point.non_dominated,
        f"p_{cost}_frontier": None if point is None else point.p_non_dominated,
        f"{cost}_frontier_proven": None if point is None else point.proven,
    }


def _result_row(run: Run, on_frontier: Mapping[tuple[str, str], FrontierPoint]) -> dict[str, Cell]:
    single, engine, reduction = single_stream(run), run.engine, technique(run)
    energy = run.energy_of(single)
    return {
        "result": run.id,
        "task": run.task,
        "host": run.host_id,
        "engine": run.name,
        "model": engine.model,
        "regime": engine.regime,
        "variant": engine.variant,
        "scheme": engine.scheme,
        "backend": engine.backend,
        "parameters": engine.parameters,
        "weight_remaining": engine.weight_remaining,
        "sparsity": None if engine.sparsity is None else engine.sparsity.share,
        "size_bytes": engine.size_bytes,
        "metric": run.quality.described,
        "score": QUALITY.value(run),
        **_ends("score", QUALITY.interval(run)),
        "n": run.quality.n,
        **{f"latency_{name}_s": single.latency_s[name] for name in ("mean", "p50", "p90", "p99")},
        "cpu_s_per_example": OBJECTIVES["cpu_time"].value(run),
        **_ends("cpu_s_per_example", OBJECTIVES["cpu_time"].interval(run)),
        "throughput_examples_per_s": single.throughput_per_s,
        "host_peak_memory_bytes": run.memory.host_peak_bytes,
        "device_peak_memory_bytes": run.memory.device_peak_bytes,
        "energy_source": energy.source,
        "energy_j_per_example": energy.joules_per_example,
        **_ends("energy_j_per_example", energy.interval),
        "energy_unavailable_reason": energy.reason,
        **_frontier_cells(on_frontier, run, "latency"),
        **_frontier_cells(on_frontier, run, "energy"),
        "reduction": reduction.name,
        "reduction_level": reduction.level,
        "reduction_text": reduction.text,
        "failed_gates": ";".join(run.flags),
        "engine_digest": engine.digest,
        "checkpoint_digest": engine.checkpoint.digest,
        "session": run.session,
        "started": run.started,
    }


def write_grid(runs: Sequence[Run], path: Path) -> None:
    """Write one row per result, batch size, length and timing."""
    _write(path, list(_grid_rows(runs)), columns=_GRID_COLUMNS)


_GRID_COLUMNS = (
    "result", "task", "host", "engine", "batch", "length", "timing", "latency_mean_s", "latency_p50_s",
    "queries", "blocks",
)  # fmt: skip


def _grid_rows(runs: Sequence[Run]) -> Iterator[dict[str, Cell]]:
    for run in runs:
        for result in run.workloads:
            workload = result.workload
            if workload.scenario == "grid":
                yield {
                    "result": run.id,
                    "task": run.task,
                    "host": run.host_id,
                    "engine": run.name,
                    "batch": workload.batch,
                    "length": workload.length,
                    "timing": workload.timing,
                    "latency_mean_s": result.latency_s["mean"],
                    "latency_p50_s": result.latency_s["p50"],
                    "queries": sum(map(len, result.blocks_s)),
                    "blocks": len(result.blocks_s),
                }


def write_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write one row per paired comparison: accuracy, median of single queries, energy."""
    _write(path, list(map(_comparison_row, comparisons)), columns=_COMPARISON_COLUMNS)


_COMPARISON_COLUMNS = (
    "result_a", "result_b", "engine_a", "engine_b", "task", "host", "metric", "n", "score_difference",
    "score_difference_low", "score_difference_high", "differing_predictions", "test",
    "p", "p_adjusted", "latency_p50_ratio", "latency_p50_ratio_low", "latency_p50_ratio_high",
    "interleaved", "cpu_time_ratio", "cpu_time_ratio_low", "cpu_time_ratio_high",
    "energy_source", "energy_ratio", "energy_ratio_low", "energy_ratio_high", "sentence",
)  # fmt: skip


def _comparison_row(comparison: Comparison) -> dict[str, Cell]:
    latency = next(
        (
            ratio
            for ratio in comparison.latency
            if (ratio.scenario, ratio.statistic) == ("single-stream", "p50")
        ),
        None,
    )
    energy = comparison.energy
    return {
        "result_a": comparison.results[0],
        "result_b": comparison.results[1],
        "engine_a": comparison.a,
        "engine_b": comparison.b,
        "task": comparison.task,
        "host": comparison.host,
        "metric": comparison.metric,
        "n": comparison.n,
        "score_difference": comparison.difference,
        **_ends("score_difference", comparison.interval),
        "differing_predictions": comparison.differing,
        "test": comparison.test,
        "p": comparison.p_value,
        "p_adjusted": comparison.p_adjusted,
        **_ratio("latency_p50_ratio", latency),
        "interleaved": None if latency is None else latency.paired,
        **_ratio("cpu_time_ratio", comparison.cpu_time),
        "energy_source": None if energy is None else energy.source,
        **_ratio("energy_ratio", energy),
        "sentence": comparison.sentence(),
    }


def _ratio(name: str, ratio: LatencyRatio | EnergyRatio | None) -> dict[str, Cell]:
    if ratio is None:
        return {name: None, **_ends(name, None)}
    return {name: ratio.value, **_ends(name, ratio.interval)}


def _ends(name: str, ends: tuple[float, float] | None) -> dict[str, Cell]:
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _write(path: Path, rows: Sequence[Mapping[str, Cell]], *, columns: Sequence[str] = ()) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns or (list(rows[0]) if rows else []))
        writer.writeheader()
        writer.writerows({name: not_a_formula(cell) for name, cell in row.items()} for row in rows)


def _console() -> Console:
    """Return a console that does not interpret markup in names, and does not wrap rows in files."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_FILES
    return console
