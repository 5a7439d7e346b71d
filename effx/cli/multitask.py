"""``effx train multitask``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.errors import UsageError
from effx.specs.training import MultitaskSettings


@click.command("multitask")
@click.argument("tasks", metavar="TASK,TASK,...")
@options.model
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="DIR|TASK=PATH",
    help="DIR: a folder with a file or folder of rows for each task, with the name of the task. TASK=PATH: "
    "the rows of one task; repeatable. Default: the hub.",
)
@click.option(
    "--ticket",
    "tickets",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="Checkpoint whose remaining heads and FFNs are the ticket of its task; repeatable, once per task. A "
    "task without a ticket uses all heads and FFNs.",
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
    names = [task.strip() for task in tasks.split(",") if task.strip()]
    written = multitask(
        names,
        model,
        out=out,
        name=name,
        data_folders=_folders(sources, names),
        tickets=tickets,
        teachers=distilled,
        settings=MultitaskSettings.of(**rest),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
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
            f"{options.scores(checkpoint)} on {rows} validation rows{options.against_baseline(checkpoint)}",
        )
    shared = written[0].manifest.shared
    assert shared is not None
    click.echo(f"average score of {len(written)} tasks: {shared.average:.4f}")


def _folders(sources: tuple[str, ...], tasks: list[str]) -> dict[str, Path]:
    """Return task -> file or folder of its rows.

    Raises:
        UsageError: a folder has nothing of a task, or a task has two sources.
    """
    result: dict[str, Path] = {}
    for source in sources:
        task, separator, path = source.partition("=")
        parts = {task: Path(path)} if separator else {name: _within(Path(source), name) for name in tasks}
        if twice := sorted(set(parts) & set(result)):
            raise UsageError(f"data of task '{twice[0]}' given twice: expected one source.", settings="data")
        result |= parts
    return result


def _within(folder: Path, task: str) -> Path:
    """Return the folder, or the only file, of a task in a folder of several tasks."""
    if (folder / task).is_dir():
        return folder / task
    files = sorted(folder.glob(f"{task}.*")) if folder.is_dir() else []
    if len(files) != 1:
        problem = "is not a folder" if not folder.is_dir() else f"has no folder or file of rows named {task}"
        raise UsageError(f"data {folder}: it {problem}; write TASK=PATH for single tasks.", settings="data")
    return files[0]
