"""``effx train tokens``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from effx.cli import options


@click.command("tokens")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--rule",
    default="share",
    show_default=True,
    metavar="share|threshold",
    help="Keep a share of the tokens in each layer, or those with enough attention.",
)
@click.option(
    "--schedule",
    type=options.Numbers(float, "shares or thresholds"),
    metavar="R,R,...",
    help="One share or threshold per layer. Default: learned.",
)
@click.option(
    "--keep",
    type=options.Finite(min=0, max=1, min_open=True),
    metavar="SHARE",
    help="Bring the learned schedule to this mean share of tokens.",
)
@click.option(
    "--penalty",
    type=options.Finite(min=0),
    default=0.3,
    show_default=True,
    help="Of kept tokens, while the schedule is learned: higher keeps fewer.",
)
@options.data("Default: where the checkpoint's rows came from.")
@click.option("--soft-epochs", type=options.Finite(min=0, min_open=True), default=1.0, show_default=True)
@click.option(
    "--epochs",
    type=options.Finite(min=0),
    default=2.0,
    show_default=True,
    help="With the schedule in force; 0: the weights stay as the soft stage left them.",
)
@options.lr("5e-5")
@options.training
@click.option("--name", help="Name of the new checkpoint. Default: CHECKPOINT-tokens.")
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
    """Give CHECKPOINT a token schedule and train it to work with fewer tokens.

    \b
    effx train tokens checkpoints/sst2-bert-base-uncased-full-s0 --keep 0.5
    effx train tokens checkpoints/mine --schedule 1,0.9,0.7,0.5,0.4,0.3
    """  # fmt: skip
    from effx.specs.training import TokenPruningSettings
    from effx.train import tokens

    made = tokens.train(
        checkpoint,
        out=out,
        name=name,
        data_folder=data_folder,
        settings=TokenPruningSettings.of(**settings),
        overwrite=overwrite,
    )
    found, metrics = made.manifest["tokens"], made.manifest["metrics"]
    seen = found["validation"]
    kept = " ".join(f"{share:.2f}" for share in seen["kept"])
    line = (
        f"{options.scores(made, seen)} with {sum(seen['kept']) / len(seen['kept']):.0%} of the tokens "
        f"(by layer {kept}); with all of them {options.scores(made, metrics)}, "
        f"on {metrics['n']} validation rows"
    )
    options.show(made, as_json, line)
