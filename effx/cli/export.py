"""``effx export``."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("export")
@click.argument("checkpoints", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--variant",
    "variants",
    multiple=True,
    default=("fp32",),
    show_default=True,
    metavar="V",
    help="Parts joined by +: fp32, fp16, bf16, int8, int8-dynamic, int8-static or fp8; seqN or buckets; exit "
    "or exit-if; tokens. Repeatable.",
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    default=("onnxruntime",),
    show_default=True,
    metavar="B",
    help="onnxruntime, onnxruntime-tensorrt, tensorrt, tensorrt-rtx, openvino, torch or torch-compile. "
    "Repeatable.",
)
@click.option(
    "--device",
    metavar="D",
    help="What the engines run on: cpu, cuda, or for tensorrt-rtx smNN of a GPU that is not here. "
    "Default: the backend's first.",
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Rows for the parity gate. Default: where the checkpoint's came from.",
)
@click.option(
    "--calibration",
    "calibration_rows",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    metavar="N",
    help="Training rows that static int8 takes its ranges from.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("engines"),
    show_default=True,
    help="Where engines go.",
)
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the engines into a Triton Inference Server model repository too.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that build at once. Default: as many as processors and memory allow.",
)
@click.option("--overwrite", is_flag=True, help="Build again what is up to date.")
@click.option("--keep-failed", is_flag=True, help="Keep an engine that failed its parity gate.")
@click.option("--json", "as_json", is_flag=True, help="Print the engines' manifests.")
def command(
    checkpoints: tuple[Path, ...],
    variants: tuple[str, ...],
    backends: tuple[str, ...],
    device: str | None,
    data_folder: Path | None,
    calibration_rows: int,
    out: Path,
    triton: Path | None,
    jobs: int | None,
    overwrite: bool,
    keep_failed: bool,
    as_json: bool,
) -> int:
    """Build engines from CHECKPOINTS (default: all in ./checkpoints).

    Every engine is compared with its checkpoint on real rows before it is kept. fp32 is the plain
    forward pass; exits and tokens act where a variant names them. int8 is the fastest scheme that
    passes its gates here. Exit code 1: an engine failed; the others are there.

    \b
    effx export --variant fp32 --variant int8
    effx export checkpoints/mine --variant int8 --backend onnxruntime --backend openvino
    effx export checkpoints/mine-exits --variant exit+int8 --variant exit-if+seq64
    """  # fmt: skip
    from effx import progress
    from effx.errors import GateError
    from effx.export import export_all, to_triton

    engines, failures = export_all(
        checkpoints or (Path("checkpoints"),),
        variants,
        backends,
        out,
        device=device,
        data_folder=data_folder,
        calibration_rows=calibration_rows,
        overwrite=overwrite,
        keep_failed=keep_failed,
        jobs=jobs,
    )
    if triton:
        failures += to_triton(engines, triton)
    for failure in failures:
        progress.say(f"effx: {failure}")
    if as_json:
        click.echo(json.dumps([engine.manifest for engine in engines], indent=1))
    else:
        for engine in engines:
            click.echo(str(engine.folder))
    if not failures and all(engine.manifest["parity"]["passed"] for engine in engines):
        return 0
    return 1 if engines or any(isinstance(failure, GateError) for failure in failures) else 2
