"""Choose the forms in which the unreduced model is the fastest.

Engines have the times of their candidates, but each was timed when it was built, minutes apart, and the speed
of a machine changes by more in that time than forms differ. So they are timed again, in turns.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from effx import files
from effx.artifacts import Engine
from effx.optimize.forms import EngineForm, FastestForms, kept
from effx.recipe.execute.protocol import CellSpec, StageOutput
from effx.recipe.execute.stages import common
from effx.specs.measurement import built_for
from effx.specs.stages import FastestStage

_ROWS = 256
"""Validation rows that queries are drawn from."""


def run(cell: CellSpec, out: Path) -> StageOutput:
    """Write the forms; a single one needs no time."""
    engines = [Engine.open(source.artifact) for source in cell.sources]
    forms = [EngineForm(variant=each.variant, backend=each.manifest.backend) for each in engines]
    if len(forms) == 1:
        found, times = FastestForms(forms=tuple(forms)), ""
    else:
        seconds = dict(zip(forms, _seconds(engines, cell), strict=True))
        found = kept(seconds)
        times = "; of " + ", ".join(f"{_text(form)} {1e3 * each:.3f} ms" for form, each in seconds.items())
    folder = out / cell.name
    folder.mkdir()
    files.write_json(folder / common.FASTEST, found.to_json())
    return StageOutput(None, ", ".join(map(_text, found.forms)) + times)


def _seconds(engines: list[Engine], cell: CellSpec) -> list[float]:
    """Return the seconds per query of each engine."""
    from effx import data
    from effx.encoding import Encoder
    from effx.export import fastest

    workload, task = built_for(common.settings(cell, FastestStage).workload), engines[0].task
    texts = data.load_to_measure(task, cell.local_paths.data).texts
    chosen = np.random.default_rng(0).permutation(len(texts))[:_ROWS]
    encoder = Encoder(engines[0].folder, engines[0].max_length, form=task.behavior.form)
    return fastest.seconds(
        [fastest.Files(each.folder, each.manifest.backend, each.runtime) for each in engines],
        encoder([texts[row] for row in chosen]),
        workload,
    )


def _text(form: EngineForm) -> str:
    return f"{form.variant} on {form.backend}"
