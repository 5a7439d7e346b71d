"""``effx profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options


@click.command("profile")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Validation rows. Default: where the checkpoint's came from.",
)
@click.option(
    "--meter",
    default="auto",
    show_default=True,
    metavar="auto|nvml[:GPU]|rapl|hwmon|model:W|replay:FILE|none",
    help="Energy meter; model:W estimates W watts per busy core and says so.",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    metavar="S",
    help="Besides single-stream: multi-stream, offline, server, or all. Repeatable.",
)
@click.option(
    "--rate",
    "rate_per_s",
    type=options.Finite(min=0, min_open=True),
    metavar="QPS",
    help="Arrivals per second of the server scenario. Default: half of what the slowest engine manages.",
)
@click.option(
    "--grid",
    metavar="BxL,...",
    help="Batch x length pairs, as 1x32,8x128, or none.  [default: 1, 8, 32 x 32, 128; on a GPU up to 512]",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=3),
    default=10,
    show_default=True,
    help="Interleaved blocks per engine of single queries.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compute threads. Default: the processors that may be used.",
)
@click.option(
    "--resident",
    type=click.IntRange(min=1),
    metavar="N",
    help="Engines loaded at once. Default: as many as free memory holds.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Validation rows at most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Where results go.",
)
@click.option("--host", metavar="NAME", help="What to call this machine; tells machines of one kind apart.")
@click.option("--mlflow", "uri", metavar="URI", help="Log the results to this MLflow store as well.")
@click.option("--strict", is_flag=True, help="Exit code 1 if a gate failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the results.")
def command(
    engines: tuple[Path, ...],
    data_folder: Path | None,
    meter: str,
    scenarios: tuple[str, ...],
    grid: str | None,
    out: Path,
    host: str | None,
    uri: str | None,
    strict: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Measure ENGINES (default: all in ./engines) and write one result each.

    Engines are measured side by side in interleaved blocks, each in its own process: accuracy on
    every validation row, latency of single queries at real lengths, a grid of batch and length,
    peak memory, and energy where the host has a meter. Exit code 1: an engine failed, or with
    --strict a gate did.

    \b
    effx profile engines/
    effx profile engines/ --data ../data/sst2 --grid 1x32,32x128 --meter rapl
    """  # fmt: skip
    from effx.profile import Plan, profile
    from effx.profile.plan import parse_grid
    from effx.report import tracking
    from effx.specs.workloads import SCENARIOS

    if uri is not None:
        tracking.check(uri)
    wanted = tuple(SCENARIOS) if "all" in scenarios else tuple(dict.fromkeys(("single-stream", *scenarios)))
    cells = None if grid is None else parse_grid(grid)
    plan = Plan(scenarios=wanted, grid=cells, **settings)
    runs, failures = profile(
        engines or (Path("engines"),), out=out, plan=plan, meter=meter, data_folder=data_folder, host=host
    )
    if as_json:
        click.echo(json.dumps([run.to_json() for run in runs]))
    else:
        from effx.report import tables

        tables.print_runs(runs)
        click.echo(f"{len(runs)} results in {out}")
        for run in runs:
            for gate in run.failed_gates:
                click.echo(f"{run.name}: gate failed: {gate.label}: {gate.detail}", err=True)
    if uri is not None:
        tracking.log_runs(runs, uri)
    return 1 if failures or (strict and any(run.flags for run in runs)) else 0
