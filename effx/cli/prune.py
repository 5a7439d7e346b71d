"""``effx train prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.optimize import OneShotSettings


@click.command("prune")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--costs",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Cost table of the encoder, as effx cost-table writes it on the machine that will run the engine.",
)
@options.of(OneShotSettings)
@options.data("Default: where the checkpoint's rows came from.")
@options.training_meter
@options.new_checkpoint("that of CHECKPOINT with -prunedSPEEDUPx")
@click.pass_context
def command(
    context: click.Context,
    /,
    checkpoint: Path,
    costs: Path,
    data_folder: DataSource | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Prune heads, FFN neurons and layers of CHECKPOINT without training, to a measured speed-up.

    What remains of each layer is chosen so that the engine reaches the speed-up by the cost table and the
    model's predictions change least; the remaining weights are refitted by least squares, on rows that
    CHECKPOINT was trained on. This takes minutes and uses no labels. To recover what is lost, fine-tune the
    result with the checkpoint as its teacher: effx train finetune TASK --model PRUNED --teacher CHECKPOINT.
    That result can be pruned further with the same table; the speed-up is always that compared with the
    unreduced model.

    \b
    effx train prune checkpoints/sst2 --costs costs/sst2.int8.onnxruntime.single.json --speedup 2
    effx train prune checkpoints/sst2 --costs costs/sst2.int8.openvino.32x128.json --speedup 3 --rows 4000
    """  # fmt: skip
    from effx.optimize import one_shot
    from effx.optimize.cost_table import CostTable

    given = OneShotSettings.of(**options.given(context, settings))
    written = one_shot.prune(
        checkpoint, CostTable.read(costs), given, out=out, name=name, data_folder=data_folder,
        overwrite=overwrite,
    )  # fmt: skip
    record = written.manifest.one_shot
    assert record is not None
    predicted = f"{1e3 * record.predicted_s:.3f} ms ({record.unreduced_s / record.predicted_s:.2f}x)"
    if record.predicted_j is not None and record.unreduced_j is not None:
        saved = record.unreduced_j / record.predicted_j
        predicted += f" and {1e3 * record.predicted_j:.3f} mJ ({saved:.2f}x)"
    line = (
        f"{written.scores_text()} on {written.manifest.validation_rows} validation rows, "
        f"{written.manifest.weight_remaining:.0%} of the weights, predicted {predicted} on {record.backend}"
    )
    options.show(written, as_json, line)
