"""``effx train lottery``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from effx.cli import options


@click.command("lottery")
@click.argument("task")
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="A folder with config.json and safetensors weights, or a name on the hub.",
)
@click.option(
    "--sparsity",
    type=int,
    default=70,
    show_default=True,
    metavar="PERCENT",
    help="Of the encoder's matrices, in rounds of 10; each round is a checkpoint.",
)
@click.option(
    "--objective",
    default="task",
    show_default=True,
    metavar="task|mlm",
    help="What the rounds train; mlm: a mask for any task, by masked language modelling.",
)
@click.option("--text", metavar="FILE", help="A passage a line, for mlm. Default: the task's training texts.")
@click.option(
    "--mask", metavar="FILE", help="Take a mask that was found before, as masks/mlm70-s0.safetensors."
)
@options.data("Default: the hub.")
@options.max_length
@options.epochs
@options.lr("2e-5")
@options.training
@options.patience
@options.workspace("checkpoints and masks. Default: lottery/TASK-MODEL, with -mlm or -mask.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifests.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    data_folder: Path | None,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Find unstructured lottery tickets on TASK: single weights set to zero, the shapes whole.

    A baseline: dense kernels run zeros as fast as anything, which profiling shows. A run that was
    stopped goes on when it is started again.

    \b
    effx train lottery sst2 --model bert-base-uncased --sparsity 60
    effx train lottery sst2 --model bert-base-uncased --objective mlm --text wikipedia.txt
    effx train lottery mrpc --model bert-base-uncased --mask masks/mlm70-s0.safetensors
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.specs.training import LotterySettings

    if settings["mask"] and context.get_parameter_source("sparsity") is not ParameterSource.DEFAULT:
        raise click.UsageError("--mask has its own share of zeros: leave --sparsity out.")
    made = sweeps.lottery(
        task, model, out=out, data_folder=data_folder, settings=LotterySettings.of(**settings)
    )
    if as_json:
        click.echo(json.dumps([one.manifest for one in made], indent=1))
        return
    for one in made:
        share, metrics = one.manifest["sparsity"]["share"], one.manifest["metrics"]
        line = f"{share:.0%} zeros, {options.scores(one, metrics)} on {metrics['n']} validation rows"
        options.show(one, False, line)
