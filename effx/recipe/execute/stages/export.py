"""Build one engine."""

from __future__ import annotations

from pathlib import Path

from effx.errors import EffxError
from effx.host import cpu
from effx.recipe.execute.protocol import CellSpec, RefusedError, StageOutput
from effx.recipe.execute.stages import common
from effx.specs import backends, variants
from effx.specs.stages import ExportStage


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Build one engine and check it against its checkpoint.

    A combination that cannot be built is refused for good: what the refusal depends on of the processor is
    part of the cell's settings.
    """
    from effx.export.build import refusal
    from effx.export.plan import export

    settings = common.settings(cell, ExportStage)
    device = backends.get(settings.backend).device(settings.device)
    for name, planned, has in (
        ("VNNI", settings.vnni, cpu.has_vnni()),
        ("bf16 arithmetic", settings.bf16, cpu.has_bf16()),
    ):
        if planned not in (None, has):
            raise EffxError(
                f"{cell.name}: it was planned for a processor {'with' if planned else 'without'} {name}, "
                "and this one differs: begin the run on a machine like those that build."
            )
    reason = refusal(variants.parse(settings.variant), settings.backend, device)
    if reason:
        raise RefusedError(f"{cell.name}: {reason}.")
    engine = export(
        common.checkpoint(cell),
        settings.variant,
        settings.backend,
        out,
        device=device,
        data_folder=cell.local_paths.data,
        calibration_rows=settings.calibration_rows,
        built_for=settings.built_for,
    )
    if engine.folder.name != cell.name:  # the first device is not in the engine's name
        engine.folder.rename(out / cell.name)
    parity = engine.manifest.parity
    assert parity is not None  # built by effx
    note = f"{engine.manifest.scheme}, {parity.agreement}"
    return StageOutput(engine.digest, note)
