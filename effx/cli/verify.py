"""``effx verify``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effx.cli import options
from effx.specs.data import DataSource

if TYPE_CHECKING:
    from effx.artifacts import Engine
    from effx.specs.tasks import Task


@click.command("verify")
@click.argument("engines", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--checkpoints",
    type=click.Path(path_type=Path),
    default=Path("checkpoints"),
    show_default=True,
    help="Folder with the engines' checkpoints.",
)
@options.data("Default: where the checkpoint's rows came from.", labelled=False)
@click.option(
    "--trust",
    is_flag=True,
    help="Also open engines that can run code (PyTorch programs) and were not built on this machine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the comparisons as JSON.")
def command(
    engines: tuple[Path, ...], checkpoints: Path, data_folder: DataSource | None, trust: bool, as_json: bool
) -> int:
    """Compare ENGINES (default: all in ./engines) with their checkpoints again, on this machine.

    Use it after engines were moved to another machine. Exit code 1: an engine did not pass the parity
    gate, because its outputs differ from those of its checkpoint by more than its precision allows.

    \b
    effx verify
    effx verify engines/mine.int8.openvino --checkpoints checkpoints
    """  # fmt: skip
    from effx.export import verify

    comparisons = verify(engines or (Path("engines"),), checkpoints, data_folder=data_folder, trust=trust)
    if as_json:
        named = {_name(engine, task): asdict(parity) for engine, task, parity in comparisons}
        click.echo(json.dumps(named, indent=1))
    else:
        for engine, task, parity in comparisons:
            lost = "" if parity.accuracy_lost is None else f", accuracy lost {parity.accuracy_lost:+.4f}"
            single = ", in single queries" if parity.rows_per_query == 1 else ""
            what = engine.folder.with_name(_name(engine, task))
            click.echo(
                f"{what}: {'passed' if parity.passed else 'FAILED'}: logits differ by "
                f"{parity.max_abs_diff:.2g} at most, {parity.agreement} "
                f"on {parity.compared_rows}{single}{lost}"
            )
    return 0 if all(parity.passed for *_, parity in comparisons) else 1


def _name(engine: Engine, task: Task) -> str:
    """Return an engine's name, with the task where it is not the engine's own."""
    from effx.manifests import head_output

    return engine.name if task.name == engine.task.name else f"{engine.name} {head_output(task.name)}"
