"""``effx train lottery``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.heads import HeadSettings
from effx.specs.training import LotterySettings


@click.command("lottery")
@click.argument("task")
@options.model
@options.data("Default: the hub.")
@options.of(LotterySettings)
@options.of(HeadSettings)
@options.teacher
@options.training_meter
@options.workspace("checkpoints and masks. Default: lottery/TASK-MODEL, with -mlm or -mask.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    data_folder: DataSource | None,
    teacher: Path | None,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Search for unstructured lottery tickets on TASK by iterative magnitude pruning.

    In each round, the encoder is trained, another 10 % of all its weights are set to zero, the smallest
    that remain, and the others are reset to the pretrained weights (Chen et al. 2020). This is a baseline:
    dense kernels are not faster for zeros. The same command resumes a search that was stopped.

    \b
    effx train lottery sst2 --model bert-base-uncased --sparsity 60
    effx train lottery sst2 --model bert-base-uncased --objective mlm --text wikipedia.txt
    effx train lottery mrpc --model bert-base-uncased --mask masks/mlm70-s0.safetensors
    """  # fmt: skip
    from effx.recipe import sweeps

    head, rest = options.apart(HeadSettings, options.given(context, settings))
    given_teacher, rest = options.given_teacher(rest, teacher)
    checkpoints = sweeps.lottery(
        task,
        model,
        out=out,
        data_folder=data_folder,
        settings=LotterySettings.of(**rest),
        head=HeadSettings.of(**head),
        teacher=given_teacher,
    )
    if as_json:
        click.echo(json.dumps([checkpoint.to_json() for checkpoint in checkpoints], indent=1))
        return
    for checkpoint in checkpoints:
        manifest = checkpoint.manifest
        assert manifest.sparsity is not None
        zeros = f"{manifest.sparsity.share:.0%} zeros"
        line = f"{zeros}, {options.scores(checkpoint)} on {manifest.validation_rows} validation rows"
        options.show(checkpoint, False, line)
