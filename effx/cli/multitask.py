"""``effx train multitask``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options, several_tasks
from effx.specs.multitask import MultitaskSettings


@click.command("multitask")
@click.argument("tasks", metavar="TASK,TASK,...")
@options.model
@several_tasks.data
@click.option(
    "--ticket",
    "tickets",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Checkpoint whose remaining heads and FFNs are the ticket of its task; repeatable, once per task. A "
    "task without a ticket uses all heads and FFNs.",
)
@click.option(
    "--union",
    "write_union",
    is_flag=True,
    help="With tickets: also write the checkpoint NAME-union, with the heads and FFNs of all tickets and the "
    "head of the first task, to train other tasks from it.",
)
@options.teachers_of_predictions
@options.of(MultitaskSettings)
@options.new_checkpoint("multitask-MODEL-sSEED, followed by -TASK")
@options.training_meter
@options.trust_remote_code
@click.pass_context
def command(
    context: click.Context,
    /,
    tasks: str,
    model: str,
    sources: tuple[str, ...],
    tickets: tuple[Path, ...],
    write_union: bool,
    teachers: tuple[Path, ...],
    name: str | None,
    out: Path,
    overwrite: bool,
    trust_remote_code: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train several tasks with one encoder and write a checkpoint for each task.

    The tasks share the encoder, and each has a head (MT-DNN, Liu et al. 2019). With tickets, a task uses
    and trains only the heads and FFNs of its ticket (ticket sharing, Liang et al. 2021). The same command
    resumes training that was stopped.

    To train on several GPUs: torchrun --nproc-per-node 4 -m effx train multitask ...; --batch-size is the
    batch size of each process, and training that was stopped begins again.

    \b
    effx train multitask mrpc,rte,stsb --model ./minilm --data ./glue
    effx train multitask mrpc,rte --model ./minilm --data ./glue --ticket MRPC_TICKET --ticket RTE_TICKET
    effx train multitask reviews,topics --model ./minilm --data reviews=./reviews --data topics=./topics
    """  # fmt: skip
    from effx.train import distributed
    from effx.train.multitask import multitask

    distilled, rest = options.distillations(options.given(context, settings), teachers)
    names = several_tasks.names(tasks)
    written = multitask(
        names,
        model,
        out=out,
        name=name,
        data_folders=several_tasks.folders(sources, names),
        tickets=tickets,
        teachers=distilled,
        settings=MultitaskSettings.of(**rest),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        write_union=write_union,
    )
    if not distributed.is_first():
        return
    if as_json:
        click.echo(json.dumps([checkpoint.to_json() for checkpoint in written], indent=1))
        return
    for checkpoint in written:
        rows = checkpoint.manifest.validation_rows
        options.show(
            checkpoint,
            False,
            f"{checkpoint.scores_text()} on {rows} validation rows{options.against_baseline(checkpoint)}",
        )
    shared = written[0].manifest.shared
    assert shared is not None
    click.echo(f"average score of {len(names)} tasks: {shared.average:.4f}")
