"""``effx train finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options


@click.command("finetune")
@click.argument("task")
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="A folder with config.json and safetensors weights, a checkpoint, or a name on the hub.",
)
@options.data("Default: the hub.")
@click.option(
    "--regime",
    default="full",
    show_default=True,
    metavar="full|frozen|last-K",
    help="What is trained: everything, the head alone, or the head and K last layers.",
)
@click.option(
    "--layers",
    type=click.IntRange(min=1),
    metavar="K",
    help="Layer reduction: drop all but the first K layers before training.",
)
@options.max_length
@options.epochs
@options.lr("5e-5, or 1e-3 for the frozen regime")
@options.training
@options.patience
@click.option(
    "--name", help="Name of the checkpoint. Default: TASK-MODEL-REGIME-sSEED, with what is reduced."
)
@options.place
@click.option("--trust-remote-code", is_flag=True, help="Run model code from the repository.")
def command(
    task: str,
    model: str,
    data_folder: Path | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    trust_remote_code: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune an encoder on TASK and write a checkpoint.

    TASK is sst2, cola, mrpc, qqp, stsb, mnli, qnli, rte, snli, scitail or demo; with --data any
    other name stands for your own rows (columns sentence, or sentence1 and sentence2, and label).

    \b
    effx train finetune sst2 --model bert-base-uncased
    effx train finetune sst2 --model bert-base-uncased --layers 6 --max-length 64
    effx train finetune reviews --model ./minilm --data ./reviews --regime last-2

    A model that one GPU would train for too long: torchrun --nproc-per-node 4 -m effx train finetune
    ... (or accelerate launch -m effx ...); --batch-size is then that of each process.
    """  # fmt: skip
    from effx.specs.training import FinetuneSettings
    from effx.train import distributed, finetune

    checkpoint = finetune(
        task,
        model,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=FinetuneSettings.of(**settings),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    metrics = checkpoint.manifest["metrics"]
    line = f"{options.scores(checkpoint, metrics)} on {metrics['n']} validation rows"
    if distributed.is_first():
        options.show(checkpoint, as_json, line)
