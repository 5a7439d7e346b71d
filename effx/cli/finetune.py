"""``effx train finetune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("finetune")
@click.argument("task")
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="A folder with config.json and safetensors weights, or a name on the hub.",
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with train and validation as .jsonl[.gz], .csv, .tsv or .parquet. Default: the hub.",
)
@click.option(
    "--regime",
    default="full",
    show_default=True,
    metavar="full|frozen|last-K",
    help="What is trained: everything, the head alone, or the head and K last layers.",
)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    help="Learning rate. Default: 5e-5, or 1e-3 for the frozen regime.",
)
@click.option(
    "--max-length",
    type=click.IntRange(min=4),
    default=128,
    show_default=True,
    help="Tokens per example at most, here and in everything made from it.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Training rows at most; the same subset for every seed.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N epochs without a better score on a held-out tenth of the "
    "training rows, and keep the best weights.",
)
@click.option("--max-steps", type=click.IntRange(min=1), metavar="N", help="Stop after N steps.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where the processor has it.",
)
@click.option("--name", help="Name of the checkpoint. Default: TASK-MODEL-REGIME-sSEED.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("checkpoints"),
    show_default=True,
    help="Where checkpoints go.",
)
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint of that name.")
@click.option("--trust-remote-code", is_flag=True, help="Run model code from the repository.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
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
    effx train finetune reviews --model ./minilm --data ./reviews --regime last-2
    """  # fmt: skip
    from effx.train import Settings, finetune

    checkpoint = finetune(
        task,
        model,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=Settings(**settings),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        click.echo(json.dumps(checkpoint.manifest, indent=1))
        return
    manifest = checkpoint.manifest
    scores = ", ".join(f"{metric} {manifest['metrics'][metric]:.4f}" for metric in checkpoint.task.metrics)
    click.echo(f"{checkpoint.folder}: {scores} on {manifest['metrics']['n']} validation rows")
