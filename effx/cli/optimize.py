"""``effx optimize``."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs import measurement
from effx.specs.backends import BUILDABLE
from effx.specs.data import DataSource
from effx.specs.imports import ImportSettings
from effx.specs.optimize import OptimizeSettings


@click.command("optimize")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.of(OptimizeSettings)
@click.option(
    "--for",
    "built_for",
    type=options.Grammar(measurement.built_for, measurement.BUILT_FOR_GRAMMAR),
    help="Workload: single rows at their real lengths, batches of B rows of L tokens, or offline batches of "
    "32 rows. Default: single; offline for throughput.",
)
@click.option(
    "--backend", "backends", multiple=True, type=options.Word(BUILDABLE, "backend"),
    help="Runtime; repeatable. The one on which the unreduced engine is the fastest is taken, and a second "
    "one that is nearly as fast. Default: onnxruntime and openvino, as far as they are installed; on a GPU "
    "the first of tensorrt, onnxruntime and torch, and one only.",
)  # fmt: skip
@options.device
@options.meter
@click.option(
    "--unlabelled-data", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Further texts without labels to learn from the unreduced model on: .csv, .tsv, .txt, .jsonl, "
    ".json, .parquet or .arrow, with the columns of the task.",
)  # fmt: skip
@options.data("Default: where the checkpoint's rows came from.", labelled=False)
@options.of(ImportSettings, without=("max_length",))
@options.workspace("engines, results, report, answer. Default: optimized/CHECKPOINT.")
@click.option("--dry-run", is_flag=True, help="Check everything and print what would be done first.")
@click.option(
    "--on", "where", default="local", show_default=True, metavar="local|ray[:ADDRESS]",
    help="Where cells run: this machine, or a Ray cluster.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print answer.json.")
@click.pass_context
def command(
    context: click.Context,
    /,
    checkpoint: Path,
    built_for: str | None,
    backends: tuple[str, ...],
    device: str | None,
    meter: str,
    unlabelled_data: Path | None,
    data_folder: DataSource | None,
    out: Path | None,
    dry_run: bool,
    where: str,
    as_json: bool,
    **settings: Any,
) -> int:
    """Find the cheapest engine of CHECKPOINT that is proven to lose at most --max-drop.

    CHECKPOINT is a fine-tuned model: a checkpoint of effx, or a folder written by save_pretrained of
    transformers. What its heads, FFN neurons and layers cost is measured on this machine; it is pruned to
    several speed-ups, trained again with the unreduced model as its teacher, built, and measured beside
    the unreduced engines, for single rows also with early exits. The loss is proven on the validation rows,
    which nothing was trained on: engines are tested from the costliest to the cheapest until one fails. The
    same command resumes after a stop. Exit code 1: no cheaper engine is proven; the answer then says what
    is, and how many rows would be needed.

    \b
    effx optimize checkpoints/sst2 --max-drop 1% --time 45m
    effx optimize ./my-model --data ./reviews --max-drop 0.02 --speedups 2,3,4
    effx optimize checkpoints/sst2 --objective throughput --for 32x128 --backend openvino
    """  # fmt: skip
    from effx import records
    from effx.errors import StoppedError
    from effx.recipe.execute.view import summary
    from effx.recipe.optimize import optimize
    from effx.train import as_checkpoint

    imports, rest = options.apart(ImportSettings, options.given(context, settings))
    try:
        done = optimize(
            as_checkpoint(checkpoint, data_folder=data_folder, settings=ImportSettings.of(**imports)),
            out=out,
            data_folder=data_folder,
            settings=OptimizeSettings.of(**rest),
            backends=backends,
            device=device,
            built_for=built_for,
            meter=meter,
            unlabelled=unlabelled_data,
            where=where,
            dry_run=dry_run,
        )
    except StoppedError as error:
        again = shlex.join(["effx", *sys.argv[1:]])
        raise StoppedError(f"{error} To resume: {again}", error.exit_code) from None
    if done.folder is None:
        from effx.recipe.execute import console

        console.print_plan(done.plan, done.recipe)
        if not any(entry.cell.stage == "answer" for entry in done.plan.entries.values()):
            speedups = ", ".join(f"{each:g}" for each in OptimizeSettings.of(**rest).speedups)
            click.echo(
                "then, on the fastest backend: the cost table; pruning, training and engines for each of "
                f"the speed-ups {speedups}; one session; answer and report"
            )
        return 0
    answer = records.read_json(done.folder / "answer.json")
    if as_json:
        click.echo(json.dumps(answer, indent=1))
    else:
        click.echo((done.folder / "answer.txt").read_text(encoding="utf-8").rstrip())
        for entry in done.plan.entries.values():
            if entry.state in ("gate", "refused", "failed", "blocked"):
                click.echo(summary(entry))
        workspace = done.plan.store.folder
        lines = [] if answer["engine"] is None else [f"engine: {workspace / 'engines' / answer['engine']}"]
        click.echo("\n".join(["", *lines, f"report: {workspace / 'report' / 'index.html'}"]))
    return 0 if answer["engine"] is not None else 1
