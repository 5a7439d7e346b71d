"""``effx train tokens``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.imports import ImportSettings
from effx.specs.tokens import TokenPruningSettings


@click.command("tokens")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.of(TokenPruningSettings)
@options.teacher_of_predictions
@options.data("Default: where the checkpoint's rows came from.")
@options.of(ImportSettings)
@options.training_meter
@options.new_checkpoint("CHECKPOINT-tokens")
@click.pass_context
def command(
    context: click.Context,
    /,
    checkpoint: Path,
    teacher: Path | None,
    data_folder: DataSource | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Add token pruning to CHECKPOINT: each layer passes on only the most important tokens.

    Learns how many tokens each layer keeps (the schedule), unless --schedule gives it, and then
    trains the weights with that schedule. The score of a token is the attention it receives. With
    --max-drop, the schedule is then scaled so that the loss is proven to be within this limit.

    CHECKPOINT may also be a fine-tuned model in the format of transformers: it is imported first.

    \b
    effx train tokens checkpoints/sst2-bert-base-uncased-full-s0 --keep 0.5
    effx train tokens checkpoints/sst2-bert-base-uncased-full-s0 --max-drop 0.01
    effx train tokens checkpoints/mine --schedule 1,0.9,0.7,0.5,0.4,0.3
    """  # fmt: skip
    from effx.train import as_checkpoint, tokens

    imports, rest = options.apart(ImportSettings, options.given(context, settings))
    distillation, rest = options.distillation(rest, teacher)
    trained = tokens.train(
        as_checkpoint(checkpoint, out=out, data_folder=data_folder, settings=ImportSettings.of(**imports)),
        out=out,
        name=name,
        data_folder=data_folder,
        settings=TokenPruningSettings.of(**rest),
        overwrite=overwrite,
        distillation=distillation,
    )
    assert trained.manifest.tokens is not None
    measured = trained.manifest.tokens.validation
    shares = measured.kept
    by_layer = " ".join(f"{share:.2f}" for share in shares)
    line = (
        f"{trained.scores_text(measured.scores)} with {sum(shares) / len(shares):.0%} of the tokens "
        f"(by layer {by_layer}); with all of them {trained.scores_text()}, "
        f"on {trained.manifest.validation_rows} validation rows"
    )
    options.show(trained, as_json, line)
