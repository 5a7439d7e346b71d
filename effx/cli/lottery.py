"""``effx train lottery``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs import presets
from effx.specs.data import DataSource
from effx.specs.heads import HeadSettings
from effx.specs.lottery import LotterySearchSettings


@click.command("lottery")
@click.argument("task")
@options.model
@options.data("Default: the hub.")
@options.mask_preset
@options.of(LotterySearchSettings)
@options.of(HeadSettings)
@options.teacher
@options.training_meter
@options.workspace("checkpoints, masks, table, figure. Default: lottery/TASK-MODEL, with -mlm or -mask.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests of the checkpoints.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    preset: str | None,
    data_folder: DataSource | None,
    teacher: Path | None,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Search for unstructured lottery tickets on TASK by iterative magnitude pruning.

    In each round, the encoder is trained, another 10 % of all its weights are set to zero, the smallest
    that remain, and the others are reset to the pretrained weights (Chen et al. 2020). This is a baseline:
    dense kernels are not faster for zeros. Other kinds of masks, and other weights under them, are its
    controls; all are compared with the full model, over seeds. The masks are files that can be used for
    other tasks. The same command resumes a search that was stopped; kinds, percentages and seeds can be
    added.

    \b
    effx train lottery sst2 --model bert-base-uncased --sparsity 60
    effx train lottery mrpc --model ./minilm --kind imp,random --init pretrained,fresh --sparsity 30,70
    effx train lottery mrpc --model ./minilm --kind imp,one-shot,standard --seeds 5 --keep none
    effx train lottery sst2 --model bert-base-uncased --rewind 500
    effx train lottery sst2 --model bert-base-uncased --objective mlm --text wikipedia.txt
    effx train lottery sst2 --model bert-base-uncased --preset universal --text wikipedia.txt
    effx train lottery mrpc --model bert-base-uncased --mask masks/mlm70-s0.safetensors
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.train.lottery import markdown

    head, rest = options.apart(HeadSettings, options.given(context, settings))
    given_teacher, rest = options.given_teacher(rest, teacher)
    rest = presets.search_values(preset, rest) if preset else rest
    found = sweeps.lottery(
        task,
        model,
        out=out,
        data_folder=data_folder,
        settings=LotterySearchSettings.of(**rest),
        head=HeadSettings.of(**head),
        teacher=given_teacher,
    )
    if as_json:
        click.echo(json.dumps([checkpoint.to_json() for checkpoint in found.checkpoints], indent=1))
        return
    for checkpoint in found.checkpoints:
        manifest = checkpoint.manifest
        assert manifest.sparsity is not None
        zeros = f"{manifest.sparsity.share:.0%} zeros"
        line = f"{zeros}, {checkpoint.scores_text()} on {manifest.validation_rows} validation rows"
        options.show(checkpoint, False, line)
    click.echo(markdown(found.table).rstrip())
