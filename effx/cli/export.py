"""``effx export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from effx.cli import options
from effx.specs import measurement, variants
from effx.specs.backends import BUILDABLE
from effx.specs.data import DataSource
from effx.specs.imports import ImportSettings


@click.command("export")
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--variant",
    "wanted",
    multiple=True,
    default=("fp32",),
    show_default=True,
    metavar="VARIANT",
    help=f"What to build: parts joined by +: {', '.join(variants.PARTS)}. docs/export.md explains them. "
    "Repeatable.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("onnxruntime",),
    show_default=True,
    type=options.Word(BUILDABLE, "backend"),
    help="Runtime to build for. Repeatable.",
)
@click.option(
    "--device",
    metavar="D",
    help="Device of the engines: cpu, cuda, or smNN (e.g. sm89) to build with tensorrt-rtx for a GPU that "
    "this machine does not have. Default: cpu, or cuda for backends without cpu.",
)
@options.data(
    "For the parity gate and the calibration of int8. Default: where the checkpoint's rows came from.",
    labelled=False,
)
@options.of(ImportSettings)
@click.option(
    "--calibration",
    "calibration_rows",
    type=click.IntRange(min=1),
    default=variants.CALIBRATION_ROWS,
    show_default=True,
    metavar="N",
    help="Number of training rows that calibrate static int8; without this option, fewer are enough.",
)
@click.option(
    "--for",
    "built_for",
    type=options.Grammar(measurement.built_for, measurement.BUILT_FOR_GRAMMAR),
    help="Keep the fastest of several candidates (int8 schemes, graphs, settings of the runtime) in this "
    "workload: single rows, batches of B rows of L tokens, or offline batches of 32 rows. Default: int8 is "
    "the fastest in single rows and batches of 16 alike, and other variants are built as they are named.",
)
@options.engines_folder
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write the engines to this Triton Inference Server model repository.",
)
@click.option(
    "--hub",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write the engines to DIR/CHECKPOINT in the layout of the Hugging Face hub, for "
    "transformers.js, sentence-transformers, text-embeddings-inference and Optimum.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of engines built in parallel. Default: as many as processors and memory allow.",
)
@click.option("--overwrite", is_flag=True, help="Rebuild engines that are up to date.")
@click.option("--keep-failed", is_flag=True, help="Keep an engine that failed its parity gate.")
@click.option("--json", "as_json", is_flag=True, help="Print the engines' manifests.")
@click.pass_context
def command(
    context: click.Context,
    /,
    checkpoints: tuple[Path, ...],
    wanted: tuple[str, ...],
    backends: tuple[str, ...],
    device: str | None,
    data_folder: DataSource | None,
    calibration_rows: int,
    built_for: str | None,
    out: Path,
    triton: Path | None,
    hub: Path | None,
    jobs: int | None,
    overwrite: bool,
    keep_failed: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Build engines from CHECKPOINTS (default: all in ./checkpoints).

    A checkpoint may also be a fine-tuned model in the format of transformers, or a name on the hub: it is
    imported into ./checkpoints first (see effx import).

    Every engine is compared with its checkpoint on validation rows (parity gate). Early exits and
    token pruning are applied only if the variant names them (exit, exit-if, tokens). int8 tries the
    INT8 schemes of the backend and keeps the fastest on this machine that passes the parity gate.
    Exit code 1: an engine failed; the others were built.

    \b
    effx export --variant fp32 --variant int8
    effx export checkpoints/mine --variant int8 --backend onnxruntime --backend openvino
    effx export ./my-huggingface-model --data ./reviews --variant int8
    effx export checkpoints/mine --variant fp32 --variant int8 --hub ./models
    effx export checkpoints/mine --variant int8 --for 32x128
    effx export checkpoints/mine-exits --variant exit+int8 --variant exit-if+seq64
    """  # fmt: skip
    from effx import progress
    from effx.errors import GateError
    from effx.export import export_all, to_hub, to_triton
    from effx.train import as_checkpoint

    imports = ImportSettings.of(**options.given(context, settings))
    engines, failures = export_all(
        [as_checkpoint(path, data_folder=data_folder, settings=imports) for path in checkpoints]
        or [Path("checkpoints")],
        wanted,
        backends,
        out,
        device=device,
        data_folder=data_folder,
        calibration_rows=calibration_rows,
        built_for=built_for,
        overwrite=overwrite,
        keep_failed=keep_failed,
        jobs=jobs,
    )
    if triton:
        failures += to_triton(engines, triton)
    if hub:
        failures += to_hub(engines, hub)
    for failure in failures:
        progress.say(f"effx: {failure}")
    if as_json:
        click.echo(json.dumps([engine.to_json() for engine in engines], indent=1))
    else:
        for engine in engines:
            click.echo(str(engine.folder))
    if not failures and all(engine.parity_passed for engine in engines):
        return 0
    return 1 if engines or any(isinstance(failure, GateError) for failure in failures) else 2
