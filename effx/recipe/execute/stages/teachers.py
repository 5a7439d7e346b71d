"""What the functions of stages share that train with a teacher.

Apart from :mod:`effx.recipe.execute.stages.common`: the code of training is part of the key of every stage
that imports it.
"""

from __future__ import annotations

from effx.artifacts import Checkpoint
from effx.errors import ArtifactError
from effx.recipe.execute.protocol import CellSpec
from effx.specs.stages import DistilledStage, TaughtStage
from effx.train.distillation import Distillation


def distillation(cell: CellSpec, settings: DistilledStage) -> Distillation | None:
    """Return the teacher of a cell's training, and what is learned from it."""
    if settings.teacher is None:
        return None
    source = next(source for source in cell.sources if source.name == settings.teacher)
    return Distillation(source.artifact, settings.distillation)


def given_distillation(cell: CellSpec, settings: TaughtStage) -> Distillation | None:
    """Return the teacher that the user gave to a sweep, and what is learned from it.

    Raises:
        ArtifactError: it is another checkpoint than when the sweep was planned.
    """
    if settings.teacher_digest is None:
        return None
    assert cell.local_paths.teacher is not None
    if Checkpoint.open(cell.local_paths.teacher).digest != settings.teacher_digest:
        raise ArtifactError(f"{cell.local_paths.teacher} has changed since the search was planned.")
    return Distillation(cell.local_paths.teacher, settings.distillation)
