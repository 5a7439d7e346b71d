"""``effx import-engine``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs.data import DataSource
from effx.specs.foreign import ForeignSettings


@click.command("import-engine")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--task", required=True, metavar="T", help="Task that the graph was trained for.")
@options.data("Default: that of the checkpoint, or the hub.", labelled=False)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder with tokenizer.json. Default: next to the graph.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Checkpoint of effx that the engine is compared with (parity gate). Default: not compared.",
)
@options.of(ForeignSettings)
@click.option("--name", metavar="NAME", help="Name of the engine. Default: that of the graph's folder.")
@options.engines_folder
@click.option("--overwrite", is_flag=True, help="Replace an engine of that name.")
@click.option("--keep-failed", is_flag=True, help="Keep an engine that failed its parity gate.")
@click.option("--json", "as_json", is_flag=True, help="Print the engine's manifest.")
def command(
    model: Path,
    task: str,
    data_folder: DataSource | None,
    tokenizer: Path | None,
    checkpoint: Path | None,
    name: str | None,
    out: Path,
    overwrite: bool,
    keep_failed: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Make an engine from a graph of another tool, such as Optimum, Olive, NNCF or torch.onnx.

    MODEL is an .onnx file, an OpenVINO .xml file, or a folder with one and its config.json. The engine can
    be profiled in one session with those of effx. Results, reports and recommendations mark it as made
    elsewhere.

    Labels are matched by their names in config.json. If it has no names (LABEL_0), give them with --labels,
    in the order of the logits.

    \b
    effx import-engine optimum-sst2/ --task sst2 --data ../data/sst2
    effx import-engine model.onnx --tokenizer tokenizer/ --task sst2 --labels negative,positive
    """  # fmt: skip
    from effx.export.foreign.importing import import_engine

    engine = import_engine(
        model,
        task,
        tokenizer=tokenizer,
        data_folder=data_folder,
        checkpoint=checkpoint,
        settings=ForeignSettings.of(**settings),
        out=out,
        name=name,
        overwrite=overwrite,
        keep_failed=keep_failed,
    )
    click.echo(json.dumps(engine.to_json(), indent=1) if as_json else str(engine.folder))
    return 0
