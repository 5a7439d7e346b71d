"""What the manifests of checkpoints and engines have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from effx.manifests.fields import MAX_LENGTH, Count, Digest, FileName, Moment, RowsRecord, TaskDefinition
from effx.manifests.pruning import SparsityRecord
from effx.records import Record
from effx.specs import variants


class ArtifactReference(Record):
    """Another artifact."""

    name: str
    digest: Digest


class Manifest(Record):
    """What both kinds of manifest hold."""

    name: str = ""
    """Name of the folder when it was written."""
    created: Moment | None = None
    files: Mapping[FileName, Digest] = {}
    """File -> SHA-256; every file of the folder but the manifest."""
    task: str
    task_definition: TaskDefinition
    parameters: Count
    """Ramps of exits included."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH, le=MAX_LENGTH)]
    """Maximum tokens per example, in training and in evaluation."""
    data: RowsRecord | None = None
    """Which rows it was made with; None: those of the hub or the demo corpus."""
    sparsity: SparsityRecord | None = None
    versions: Mapping[str, str]

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if self.task != self.task_definition.name:
            raise ValueError(f"task: {self.task!r} is not the name in task_definition")
        return self
