"""Choose the forms in which the unreduced model was the fastest when it was built."""

from __future__ import annotations

import math
from pathlib import Path

from effx import files
from effx.artifacts import Engine
from effx.optimize.forms import EngineForm, kept
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write the forms; an engine that was not timed counts as the slowest."""
    manifests = [Engine.open(source.artifact).manifest for source in cell.sources]
    seconds = {
        EngineForm(variant=manifest.variant, backend=manifest.backend): min(
            (each.seconds for each in manifest.candidates or () if each.seconds and each.failure is None),
            default=math.inf,
        )
        for manifest in manifests
    }
    found = kept(seconds)
    folder = out / cell.name
    folder.mkdir()
    files.write_json(folder / common.FASTEST, found.to_json())
    names = ", ".join(f"{form.variant} on {form.backend}" for form in found.forms)
    times = ", ".join(
        f"{form.variant} on {form.backend} {1e3 * value:.3f} ms"
        for form, value in seconds.items()
        if value < math.inf
    )
    return StageOutput(None, f"{names}; of {times}" if times else names)
