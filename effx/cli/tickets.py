"""``effx train tickets``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.heads import HeadSettings
from effx.specs.presets import PRESETS
from effx.specs.presets import preset as preset_settings
from effx.specs.tickets import TicketSearchSettings


@click.command("tickets")
@click.argument("task")
@options.model
@options.data("Default: the hub.")
@click.option(
    "--preset",
    type=options.Word(tuple(PRESETS), "preset"),
    help="Training settings of a paper. super-tickets: Liang et al. 2021 (Adamax, 6 epochs, early stopping); "
    "other options override them.",
)
@options.of(TicketSearchSettings)
@options.of(HeadSettings)
@options.teacher
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Prune by the importance scores of another search, e.g. of another task: its workspace, or one of "
    "its importance-sSEED.json for all seeds. The full models of TASK are trained too, for comparison.",
)
@options.training_meter
@options.workspace("checkpoints, table, figure. Default: tickets/TASK-MODEL.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    model: str,
    preset: str | None,
    data_folder: DataSource | None,
    teacher: Path | None,
    scores: Path | None,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Search for super tickets on TASK: pruned encoders that score as well as the full model.

    A ticket is the encoder with some heads and FFNs pruned. A super ticket is a ticket that scores at
    least as well as the full model (Liang et al. 2021). For every seed, the encoder is fine-tuned and its
    heads and FFNs are scored; each ticket is pruned by these scores, reset to the pretrained weights and
    fine-tuned again. The same command resumes a search that was stopped; levels, seeds and kinds can be
    added. Several processes may share a workspace, e.g. one per GPU; they divide the fine-tunings.

    \b
    effx train tickets sst2 --model bert-base-uncased
    effx train tickets rte --model bert-base-uncased --preset super-tickets --search halving
    effx train tickets mrpc --model ./minilm --levels 20,40,20/10 --kinds winning --seeds 3
    effx train tickets rte --model ./minilm --scores tickets/mrpc-minilm -o tickets/rte-from-mrpc
    for gpu in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$gpu effx train tickets rte --model M & done
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.train.tickets import markdown

    chosen = preset_settings(preset, task).given() if preset else {}
    head, rest = options.apart(HeadSettings, options.given(context, given))
    given_teacher, rest = options.given_teacher(rest, teacher)
    table = sweeps.tickets(
        task,
        model,
        out=out,
        data_folder=data_folder,
        settings=TicketSearchSettings.of(**{**chosen, **rest}),
        head=HeadSettings.of(**head),
        scores=scores,
        teacher=given_teacher,
    )
    click.echo(json.dumps(table, indent=1) if as_json else markdown(table).rstrip())
