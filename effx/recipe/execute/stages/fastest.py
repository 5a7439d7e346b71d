"""Choose the backend on which an engine was the fastest when it was built."""

from __future__ import annotations

import math
from pathlib import Path

from effx import files
from effx.artifacts import Engine
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.backends import BACKENDS


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write the name of the backend; an engine that was not timed counts as the slowest."""
    manifests = [Engine.open(source.artifact).manifest for source in cell.sources]
    seconds = {
        manifest.backend: min(
            (each.seconds for each in manifest.candidates or () if each.seconds and each.failure is None),
            default=math.inf,
        )
        for manifest in manifests
    }
    backend = min(seconds, key=lambda name: (seconds[name], [*BACKENDS].index(name)))
    folder = out / cell.name
    folder.mkdir()
    files.write_json(folder / common.FASTEST, {"backend": backend})
    times = ", ".join(f"{name} {1e3 * value:.3f} ms" for name, value in seconds.items() if value < math.inf)
    return StageOutput(None, f"{backend}: {times}" if times else backend)
