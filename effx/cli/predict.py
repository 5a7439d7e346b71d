"""``effx train predict``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from effx.cli import options
from effx.data.layouts import PREDICTED_SPLITS
from effx.specs.data import DataSource


@click.command("predict")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.data(
    "All rows of a file are predicted. Default: where the checkpoint's rows came from.",
    labelled=False,
    without=("split", "split_seed"),
)
@click.option(
    "--split",
    type=click.Choice(PREDICTED_SPLITS),
    default="test",
    show_default=True,
    help="Which rows of a folder to predict, or of the checkpoint's rows that were divided.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .csv, .tsv or .jsonl. With --glue: the folder that the submission file is written "
    "into.",
)
@click.option("--glue", is_flag=True, help="Write the task's file of a submission to gluebenchmark.com.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the file, its rows and the scores as JSON.")
def command(
    checkpoint: Path,
    data_folder: DataSource | None,
    split: str,
    out: Path,
    glue: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the predictions of CHECKPOINT, a line for each row (ranking: query), with its index from 0.

    Labels are not needed, except for ranking. If every row has one, the predictions are scored too, e.g.
    those of a second validation set such as MNLI's mismatched one.

    \b
    effx train predict checkpoints/mnli --split validation_mismatched -o mismatched.csv
    effx train predict checkpoints/mine --data new.csv -o predictions.csv
    effx train predict checkpoints/rte --split test --glue -o submission
    """  # fmt: skip
    from effx.train import predict

    predicted = predict.predict(
        checkpoint, out=out, data_folder=data_folder, split=split, glue=glue, overwrite=overwrite
    )
    if as_json:
        value = {"path": str(predicted.path), "rows": predicted.rows, "scores": predicted.scores}
        click.echo(json.dumps(value, indent=1))
        return
    scores = ""
    if predicted.scores is not None:
        scores = ": " + ", ".join(f"{name} {value:.4f}" for name, value in predicted.scores.items())
    click.echo(f"{predicted.path}: {predicted.rows} rows{scores}")
