"""``effx train transfer``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options, several_tasks
from effx.specs import presets
from effx.specs.transfer import TransferSettings


@click.command("transfer")
@click.argument("tasks", metavar="TASK,TASK,...")
@options.model
@several_tasks.data
@options.mask_preset
@options.of(TransferSettings)
@options.training_meter
@options.workspace("masks, table, figure, checkpoints. Default: transfer/MODEL.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json.")
@click.pass_context
def command(
    context: click.Context,
    /,
    tasks: str,
    model: str,
    preset: str | None,
    sources: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find masks on each of several tasks, and train every task under the masks of the others.

    TRANSFER(S, T) is the score on task T of the pretrained weights under the mask of task S, with a new
    task head, fine-tuned on T (Chen et al. 2020, section 4). Masks are of single weights (--sparsity) or
    super tickets of heads and FFNs (--levels). Masks of the same task that were found with another seed
    show how much is chance. The same command resumes a transfer that was stopped; tasks, percentages,
    levels, controls and seeds can be added.

    \b
    effx train transfer mrpc,rte,cola --model ./minilm --data ./glue
    effx train transfer mrpc,rte --model ./minilm --data ./glue --sparsity 50,70 --levels 20,40
    effx train transfer mrpc,sst2 --model ./minilm --data ./glue --controls random,one-shot
    effx train transfer mrpc,rte --model ./minilm --data ./glue --controls mlm --text t.txt --preset universal
    effx train transfer reviews,topics --model ./minilm --data reviews=./r --data topics=./t --levels 40
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.train.transfer import markdown

    rest = options.given(context, settings)
    rest = presets.transfer_values(preset, rest) if preset else rest
    names = several_tasks.names(tasks)
    table = sweeps.transfer(
        names,
        model,
        out=out,
        data_folders=several_tasks.folders(sources, names),
        settings=TransferSettings.of(**rest),
    )
    click.echo(json.dumps(table, indent=1) if as_json else markdown(table).rstrip())
