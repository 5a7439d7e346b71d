"""``effx profile``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


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
    metavar="auto|nvml|rapl|model:W|none",
    help="Energy meter; model:W estimates W watts per busy core and says so.",
)
@click.option(
    "--grid",
    metavar="BxL,...",
    help="Batch x length pairs, as 1x32,8x128, or none.  [default: 1, 8 and 32 x 32 and 128]",
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
@click.option("--json", "as_json", is_flag=True, help="Print the results.")
def command(
    engines: tuple[Path, ...],
    data_folder: Path | None,
    meter: str,
    grid: str | None,
    out: Path,
    as_json: bool,
    **settings: Any,
) -> int:
    """Measure ENGINES (default: all in ./engines) and write one result each.

    Engines are measured side by side in interleaved blocks, each in its own process: accuracy on
    every validation row, latency of single queries at real lengths, a grid of batch and length,
    peak memory, and energy where the host has a meter. Exit code 1: an engine failed.

    \b
    effx profile engines/
    effx profile engines/ --data ../data/sst2 --grid 1x32,32x128 --meter rapl
    """  # fmt: skip
    from effx.profile import Plan, profile
    from effx.profile.plan import DEFAULT_GRID, parse_grid

    plan = Plan(grid=DEFAULT_GRID if grid is None else parse_grid(grid), **settings)
    runs, failures = profile(
        engines or (Path("engines"),), out=out, plan=plan, meter=meter, data_folder=data_folder
    )
    if as_json:
        click.echo(json.dumps([run.to_json() for run in runs]))
    else:
        from effx.profile.report import tables

        tables.print_runs(runs)
        click.echo(f"{len(runs)} results in {out}")
    return 1 if failures else 0
