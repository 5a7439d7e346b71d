"""``effx profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.workloads import SCENARIOS, SELECT_ALL


@click.command("profile")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Validation rows. Default: where the checkpoint's came from.",
)
@options.meter
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=options.Word((*SCENARIOS, SELECT_ALL), "scenario"),
    help="Scenario to measure besides single-stream. Repeatable.",
)
@click.option(
    "--rate",
    "rate_per_s",
    type=options.Finite(min=0, min_open=True),
    metavar="QPS",
    help="Queries per second in the server scenario. Default: half the throughput of the slowest engine.",
)
@click.option(
    "--grid",
    metavar="BxL,...",
    help="Batch x length pairs, e.g. 1x32,8x128, or none. Default: 1, 8, 32 x 32, 128; on a GPU up to 512.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=3),
    default=10,
    show_default=True,
    help="Interleaved blocks of single queries per engine.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compute threads. Default: the available processors.",
)
@click.option(
    "--resident",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of engines loaded at once. Default: as many as fit in free memory.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Maximum number of validation rows.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results"),
    show_default=True,
    help="Folder for results.",
)
@click.option(
    "--host",
    metavar="NAME",
    help="Name of this machine in results; distinguishes machines of one kind. Default: the host name.",
)
@click.option("--mlflow", "uri", metavar="URI", help="Log the results to this MLflow store as well.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if a gate failed.")
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

    Engines are measured in interleaved blocks, each in its own process: accuracy on every validation
    row, latency of single queries at real lengths, a grid of batch and length, peak memory, and
    energy where the host has a meter. Exit code 1: an engine failed, or with
    --strict a gate did.

    \b
    effx profile engines/
    effx profile engines/ --data ../data/sst2 --grid 1x32,32x128 --meter rapl
    """  # fmt: skip
    from effx.profile import Plan, profile
    from effx.profile.plan import parse_grid
    from effx.report import tracking

    if uri is not None:
        tracking.check(uri)
    wanted = (
        tuple(SCENARIOS) if SELECT_ALL in scenarios else tuple(dict.fromkeys(("single-stream", *scenarios)))
    )
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
