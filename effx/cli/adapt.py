"""``effx train adapt``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx import files
from effx.cli import options
from effx.errors import UsageError
from effx.specs.adaptation import AdaptationSettings
from effx.specs.data import DataSource
from effx.specs.heads import HeadSettings


@click.command("adapt")
@click.argument("task")
@click.option(
    "--model",
    "models",
    required=True,
    multiple=True,
    metavar="MODEL|NAME=MODEL",
    help="Model to adapt: a folder with config.json and safetensors weights, a checkpoint of effx, or a name "
    "on the Hugging Face hub; repeatable. NAME is its name in the table. The other models are compared with "
    "the first.",
)
@options.data("Default: the hub.")
@options.of(AdaptationSettings, without=("share",))
@options.of(HeadSettings, without=("fresh_head",))
@options.training_meter
@options.workspace("table, figure, checkpoints. Default: adaptation/TASK.")
@click.option("--json", "as_json", is_flag=True, help="Print table.json.")
@click.pass_context
def command(
    context: click.Context,
    /,
    task: str,
    models: tuple[str, ...],
    data_folder: DataSource | None,
    out: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Adapt models to TASK with few training rows, and compare them.

    Each model is fine-tuned on small shares of the training rows, drawn several times at random (Liu et
    al. 2019, section 4.4; Liang et al. 2021, section 5.4). All models get the same draws, and a new task
    head unless --keep-head or --labels is given. The same command resumes after a stop, also
    with more shares, draws and models.

    \b
    effx train adapt scitail --model checkpoints/mnli-minilm-full-s0 --model checkpoints/mnli-ticket40-s0
    effx train adapt snli --model plain=./minilm --model mnli=checkpoints/mnli-minilm-full-s0 --draws 3
    effx train adapt tickets --data ./tickets --model ./minilm --shares 1%,10%,100%
    """  # fmt: skip
    from effx.recipe import sweeps
    from effx.train.adaptation import markdown

    head, rest = options.apart(HeadSettings, options.given(context, settings))
    table = sweeps.adapt(
        task,
        _named(models),
        out=out,
        data_folder=data_folder,
        settings=AdaptationSettings.of(**rest),
        head=HeadSettings.of(**head) if head else None,
    )
    click.echo(json.dumps(table, indent=1) if as_json else markdown(table).rstrip())


def _named(models: tuple[str, ...]) -> dict[str, str]:
    """Return name -> model.

    Raises:
        UsageError: two models have the same name.
    """
    result: dict[str, str] = {}
    for text in models:
        name, model = _split(text)
        if name in result:
            raise UsageError(
                f"two models are named '{name}': write NAME=MODEL to give them different names.",
                settings="model",
            )
        result[name] = model
    return result


def _split(text: str) -> tuple[str, str]:
    """Return name and model of ``NAME=MODEL``, or of a model alone."""
    name, separator, model = text.partition("=")
    if separator and not Path(text).exists():
        if name != files.safe_name(name) or not model:
            raise UsageError(
                f"model '{text}': expected NAME=MODEL, with letters, digits, '-' and '_' in NAME.",
                settings="model",
            )
        return name, model
    path = Path(text)
    return files.safe_name(path.resolve().name if path.exists() else text.rsplit("/", 1)[-1]), text
