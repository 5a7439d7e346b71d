"""``effx import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.imports import ImportSettings


@click.command("import")
@click.argument("model")
@options.of(ImportSettings)
@options.data("Default: the hub.", labelled=False)
@options.new_checkpoint("TASK-MODEL")
@options.trust_remote_code
@click.pass_context
def command(
    context: click.Context,
    /,
    model: str,
    data_folder: DataSource | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    trust_remote_code: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Make a checkpoint from MODEL, which was fine-tuned elsewhere; nothing is trained.

    MODEL is a folder written by save_pretrained of transformers, or a name on the Hugging Face hub.
    Labels and their order, maximum length and tokenizer settings are read from its files and printed. The
    checkpoint is then scored on the validation rows.

    \b
    effx import ./my-model --data ./reviews
    effx import cardiffnlp/twitter-roberta-base-sentiment-latest --data ./tweets
    effx import textattack/bert-base-uncased-SST-2 --task sst2 --labels negative,positive
    """  # fmt: skip
    from effx.train import import_model

    checkpoint = import_model(
        model,
        out=out,
        checkpoint_name=name,
        data_folder=data_folder,
        settings=ImportSettings.of(**options.given(context, settings)),
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    metrics, rows = checkpoint.manifest.metrics, checkpoint.manifest.validation_rows
    if metrics:
        line = f"{checkpoint.scores_text(metrics)} on {rows} validation rows"
    else:
        line = f"not scored: the {rows} rows have no labels"
    options.show(checkpoint, as_json, line)
