"""``effx train exits``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options


@click.command("exits")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--mode",
    default="two-stage",
    show_default=True,
    metavar="two-stage|joint",
    help="What is trained: the ramps alone, or everything.",
)
@click.option(
    "--after",
    type=options.Numbers(int, "layers"),
    metavar="J,J,...",
    help="Layers, from 1, after which a ramp stands. Default: all but the last.",
)
@click.option(
    "--pooling",
    default="mean",
    show_default=True,
    metavar="mean|cls",
    help="What a ramp looks at: the mean of the real tokens, or the first token.",
)
@click.option(
    "--rule",
    default="entropy",
    show_default=True,
    metavar="entropy|max-probability|patience|consecutive-entropy",
    help="When a row leaves.",
)
@click.option(
    "--depth",
    type=options.Finite(min=0, min_open=True),
    metavar="LAYERS",
    help="Choose the threshold for at most so many layers on average.",
)
@click.option(
    "--max-drop",
    type=options.Finite(min=0),
    help="Choose it for at most this loss of the task's metric. Default: 0.01.",
)
@options.data("Default: where the checkpoint's rows came from.")
@options.epochs
@options.lr("1e-3 two-stage, 5e-5 joint")
@options.training
@click.option("--name", help="Name of the new checkpoint. Default: CHECKPOINT-exits.")
@options.place
def command(
    checkpoint: Path,
    data_folder: Path | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train early-exit ramps on CHECKPOINT and choose when rows leave.

    The threshold is chosen on held-out training rows, never on the validation rows.

    \b
    effx train exits checkpoints/sst2-bert-base-uncased-full-s0
    effx train exits checkpoints/mine --mode joint --rule patience --depth 6
    """  # fmt: skip
    from effx.specs.training import EarlyExitSettings
    from effx.train import exits

    made = exits.train(
        checkpoint,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=EarlyExitSettings.of(**settings),
        overwrite=overwrite,
    )
    found, metrics = made.manifest["exits"], made.manifest["metrics"]
    seen, pruned = found["validation"], made.manifest.get("tokens")
    without = pruned["validation"] if pruned else metrics  # what tokens lose is not lost by exits
    threshold = "" if found["threshold"] is None else f" {found['threshold']:.4g}"
    patience = f", {found['patience']} in a row" if found["patience"] > 1 else ""
    line = (
        f"{found['rule']}{threshold}{patience}: {options.scores(made, seen)} at "
        f"{seen['mean_depth']:.2f} of {seen['layers']} layers on average; without exits "
        f"{options.scores(made, without)}, on {metrics['n']} validation rows"
    )
    options.show(made, as_json, line)
