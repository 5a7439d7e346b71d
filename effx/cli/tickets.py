"""``effx train tickets``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from effx.cli import options


@click.command("tickets")
@click.argument("task")
@click.option(
    "--model",
    required=True,
    metavar="M",
    help="A folder with config.json and safetensors weights, a checkpoint, or a name on the hub.",
)
@click.option(
    "--levels",
    default="10,...,80",
    show_default=True,
    metavar="P,P,...",
    help="Percent of the heads to remove, with 10/12 as much of the FFNs, as published; "
    "H/F: percentages of heads and FFNs apart, as 20/10.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, metavar="N")
@click.option(
    "--kinds",
    default="winning,random,losing",
    show_default=True,
    metavar="K,K,...",
    help="What goes: the least important, any, the most important.",
)
@click.option(
    "--importance",
    default="taylor",
    show_default=True,
    metavar="taylor|fisher|published|magnitude|random",
    help="How structures are scored.",
)
@click.option(
    "--granularity",
    default="ffns",
    show_default=True,
    metavar="ffns|neurons",
    help="What goes beside heads: whole FFNs, or FFN neurons, as many percent of them.",
)
@click.option(
    "--min-heads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Heads that every layer keeps.",
)
@click.option(
    "--search",
    default="grid",
    show_default=True,
    metavar="grid|halving",
    help="halving: winning tickets alone, most levels stopped early; its share of the grid's steps, a third "
    "with eight levels and three seeds, is told first.",
)
@click.option(
    "--selection",
    type=options.Finite(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Of the validation rows, chooses the super ticket; the rest reports it.",
)
@click.option(
    "--keep",
    default="all",
    show_default=True,
    metavar="all|winning|none",
    help="Checkpoints that stay; winning: and the full model's; none: records and scores alone, from which a "
    "sweep goes on.",
)
@click.option(
    "--preset",
    metavar="super-tickets",
    help="Train as Liang et al. 2021: Adamax, 6 epochs, early stopping; options given here prevail.",
)
@options.data("Default: the hub.")
@click.option(
    "--layers", type=click.IntRange(min=1), metavar="K", help="Drop all but the first K layers before all."
)
@options.max_length
@options.epochs
@options.lr("5e-5")
@click.option(
    "--optimizer", default="adamw", show_default=True, metavar="adamw|adamax", help="With linear decay."
)
@options.training
@options.patience
@options.workspace("checkpoints, table, figure. Default: tickets/TASK-MODEL.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    levels: str,
    kinds: str,
    preset: str | None,
    data_folder: Path | None,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Find super tickets of an encoder on TASK: which heads and FFNs it does better without.

    For every seed the encoder is fine-tuned and its structures scored. A ticket loses some of them
    and starts again from the pretrained weights. A sweep that was stopped goes on when it is started
    again; more levels, seeds and kinds can be added. --seed is the first of the --seeds. Started several
    times at once with the same workspace, once for each GPU say, it shares the cells out.

    \b
    effx train tickets sst2 --model bert-base-uncased
    effx train tickets rte --model bert-base-uncased --preset super-tickets --search halving
    effx train tickets mrpc --model ./minilm --levels 20,40,20/10 --kinds winning --seeds 3
    for gpu in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$gpu effx train tickets rte --model M & done
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.specs.levels import parse_levels
    from effx.specs.presets import preset as preset_settings
    from effx.specs.training import TicketSearchSettings
    from effx.train.tickets import markdown

    chosen = preset_settings(preset, task).given() if preset else {}
    explicit = {
        name: value
        for name, value in given.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    settings = TicketSearchSettings.of(
        **{**given, **chosen, **explicit},
        levels=parse_levels(levels),
        kinds=tuple(part.strip() for part in kinds.split(",")),
    )
    table = sweeps.tickets(task, model, out=out, data_folder=data_folder, settings=settings)
    click.echo(json.dumps(table, indent=1) if as_json else markdown(table).rstrip())
