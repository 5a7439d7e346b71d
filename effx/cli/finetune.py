"""``effx train finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.heads import HeadSettings
from effx.specs.training import FinetuneSettings


@click.command("finetune")
@click.argument("task")
@options.model
@options.data("Default: the hub.")
@options.of(FinetuneSettings)
@options.of(HeadSettings)
@options.teacher_of_texts
@options.new_checkpoint(
    "TASK-MODEL-REGIME-sSEED, or TASK-MODEL-REGIME-layersK-STRATEGY-seqN-sSEED with other layers or length"
)
@options.training_meter
@options.trust_remote_code
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    data_folder: DataSource | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    trust_remote_code: bool,
    as_json: bool,
    teacher: Path | None,
    unlabelled_data: Path | None,
    **settings: Any,
) -> None:
    """Fine-tune an encoder on TASK and write a checkpoint.

    TASK is sst2, cola, mrpc, qqp, stsb, mnli, qnli, rte, snli, scitail, squad or demo, or another name for
    your rows in --data. Columns and labels are inferred from the files; docs/data.md describes them.

    \b
    effx train finetune sst2 --model bert-base-uncased
    effx train finetune sst2 --model bert-base-uncased --layers 6 --max-length 64
    effx train finetune sst2 --model bert-base-uncased --layers 6 --drop-layers symmetric
    effx train finetune reviews --model ./minilm --data ./reviews --regime last-2
    effx train finetune sst2 --model ./minilm --layers 3 --teacher checkpoints/sst2-minilm-full-s0

    To train on several GPUs: torchrun --nproc-per-node 4 -m effx train finetune ... (or accelerate
    launch -m effx ...); --batch-size is the batch size of each process.
    """  # fmt: skip
    from effx.train import distributed, finetune

    given = options.given(context, settings)
    distillation, given = options.distillation(given, teacher, unlabelled_data)
    head, rest = options.apart(HeadSettings, given)
    checkpoint = finetune(
        task,
        model,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=FinetuneSettings.of(**rest),
        head=HeadSettings.of(**head),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        distillation=distillation,
    )
    rows = checkpoint.manifest.validation_rows
    line = f"{checkpoint.scores_text()} on {rows} validation rows{options.against_baseline(checkpoint)}"
    if distributed.is_first():
        options.show(checkpoint, as_json, line)
