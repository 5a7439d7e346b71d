"""``effx train exits``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.formatting import fixed, outwards
from effx.specs.data import DataSource
from effx.specs.exits import EarlyExitSettings
from effx.specs.imports import ImportSettings


@click.command("exits")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@options.of(EarlyExitSettings)
@options.teacher_of_predictions
@options.data("Default: where the checkpoint's rows came from.")
@options.of(ImportSettings)
@options.training_meter
@options.new_checkpoint("CHECKPOINT-exits")
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
    """Add early exits to CHECKPOINT: train classifiers after inner layers, calibrate when to exit.

    Each of these classifiers is a ramp (a pooler and a linear layer). A row whose prediction at a ramp
    is certain enough exits there and skips the remaining layers. The threshold is calibrated on
    held-out training rows, never on the validation rows.

    CHECKPOINT may also be a fine-tuned model in the format of transformers: it is imported first.

    \b
    effx train exits checkpoints/sst2-bert-base-uncased-full-s0
    effx train exits checkpoints/mine --mode joint --rule patience --depth 6
    """  # fmt: skip
    from effx.train import as_checkpoint, exits

    imports, rest = options.apart(ImportSettings, options.given(context, settings))
    distillation, rest = options.distillation(rest, teacher)
    trained = exits.train(
        as_checkpoint(checkpoint, out=out, data_folder=data_folder, settings=ImportSettings.of(**imports)),
        out=out,
        name=name,
        data_folder=data_folder,
        settings=EarlyExitSettings.of(**rest),
        overwrite=overwrite,
        distillation=distillation,
    )
    manifest = trained.manifest
    assert manifest.exits is not None
    rule, measured, tokens = manifest.exits.rule, manifest.exits.validation, manifest.tokens
    # the loss of token pruning is not that of exits
    without = tokens.validation.scores if tokens else manifest.metrics
    proof = manifest.exits.calibration.proof
    threshold = "" if rule.threshold is None else f" {rule.threshold:.4g}"
    patience = f", {rule.patience} in a row" if rule.patience > 1 else ""
    line = (
        f"{rule.name}{threshold}{patience}: {trained.scores_text(measured.scores)} at "
        f"{measured.mean_depth:.2f} of {measured.layers} layers on average; without exits "
        f"{trained.scores_text(without)}, on {manifest.validation_rows} validation rows"
    )
    if proof is not None and proof.proven:
        line += f"; {_proven(proof.bound, proof.confidence, proof.rows)}"
    options.show(trained, as_json, line)


def _proven(bound: float, confidence: float, rows: int) -> str:
    return (
        f"proven to lose at most {fixed(outwards(bound, 4, up=True), 4)} ({100 * confidence:g} %) on {rows} "
        "held-out rows"
    )
