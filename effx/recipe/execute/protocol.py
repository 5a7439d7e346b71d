"""What a run and the process that does its cells tell each other: one JSON object per line.

    run -> worker    CellSpec      a cell to do
    worker -> run    CellOutcome   how it ended

The same objects are used if a cell is computed within the process of the run, and on Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from effx.errors import EffxError
from effx.specs.data import DataSource


@dataclass(frozen=True)
class LocalPaths:
    """Where a cell finds its inputs. The same inputs in another folder make the same cell."""

    data: DataSource | None = None
    """File or folder of the rows; None: the hub, or the demo corpus."""
    model: str | None = None
    """Folder of the pretrained encoder, or its name on the hub; None: the cell reads a checkpoint."""
    text: str | None = None
    """File of passages for masked language modelling; None: the task's training texts."""
    mask: str | None = None
    """File of a mask that was given."""
    unlabelled: str | None = None
    """File of further texts without labels for a teacher."""
    teacher: str | None = None
    """Folder of a teacher that was given."""
    scores: str | None = None
    """File of importance scores that was given; None: a full model is scored."""
    data_of_tasks: Mapping[str, DataSource] = field(default_factory=dict)
    """Where several tasks are trained: task -> ``data``, of those whose rows are files."""

    def to_json(self) -> dict[str, Any]:
        """Return the paths as JSON values."""
        of_tasks = {task: source.to_json() for task, source in self.data_of_tasks.items()}
        return {
            **vars(self),
            "data": None if self.data is None else self.data.to_json(),
            "data_of_tasks": of_tasks,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LocalPaths:
        """Return the paths that JSON values describe."""
        of_tasks = {task: DataSource.from_json(source) for task, source in value["data_of_tasks"].items()}
        source = DataSource.from_json(value["data"]) if value["data"] else None
        return cls(**{**value, "data": source, "data_of_tasks": of_tasks})


@dataclass(frozen=True)
class CellInputs:
    """What decides a cell's result besides its settings: digests of files and code, versions of packages."""

    code: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    rows: dict[str, Any] | None = None
    """Digests of a task's rows, see :meth:`effx.recipe.graph.digests.Digests.rows`."""
    model: dict[str, Any] | None = None
    """SHA-256 of each of the model's files, or its name on the hub."""

    def to_json(self) -> dict[str, Any]:
        """Return the inputs that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class SourceCell:
    """A cell that another one reads."""

    stage: str
    name: str
    key: str
    folder: str
    """``cells/KEY`` of the workspace."""

    @property
    def id(self) -> str:
        """Unique within a plan, and readable."""
        return f"{self.stage} {self.name}"

    @property
    def artifact(self) -> Path:
        """The output folder of the cell: a checkpoint, an engine, results, ..."""
        return Path(self.folder) / self.name


@dataclass(frozen=True)
class CellSpec:
    """A cell as the process that does it gets it."""

    workspace: str
    key: str
    stage: str
    """One of :data:`effx.specs.stages.STAGES`."""
    name: str
    """Of the folder that it makes."""
    settings: dict[str, Any]
    """The stage's settings, as JSON."""
    local_paths: LocalPaths
    inputs: CellInputs
    sources: tuple[SourceCell, ...] = ()
    run_key: str = ""
    """Key of the complete training run if the cell is its beginning, otherwise the key of the cell. The lock
    and the paused states of a training run have this name."""
    pause_at: int | None = None
    """Optimizer steps after which the training run is paused; None: it runs to its end."""
    artifact_needed: bool = True
    """False: a record without the output folder is enough."""
    alone: bool = False
    """It measures: nothing else may compute on its host."""
    threads: int | None = None
    """Compute threads; None: the cell decides."""
    meter: str = "auto"
    """Energy meter of what the cell trains."""
    meter_required: bool = False
    """Whether the cell fails if the meter cannot be read."""
    work: float = 1.0
    group: str = ""

    @property
    def id(self) -> str:
        """Unique within a plan, and readable."""
        return f"{self.stage} {self.name}"

    def source(self, *stages: str) -> SourceCell | None:
        """Return the first cell of these stages that it reads; None: there is none."""
        return next((source for source in self.sources if source.stage in stages), None)

    def to_line(self) -> str:
        """Return the specification as one line of JSON."""
        return json.dumps(
            {**asdict(replace(self, local_paths=LocalPaths())), "local_paths": self.local_paths.to_json()}
        )

    @classmethod
    def from_line(cls, line: str) -> CellSpec:
        """Return the specification that a line holds."""
        value = json.loads(line)
        return cls(
            **{
                **value,
                "local_paths": LocalPaths.from_json(value["local_paths"]),
                "inputs": CellInputs(**value["inputs"]),
                "sources": tuple(SourceCell(**source) for source in value["sources"]),
            }
        )


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended."""

    outcome: str
    """``done``; ``gate``: built, and did not pass; ``refused``: cannot be built; ``failed``; ``stopped``."""
    note: str
    """One line: a score, or why not."""
    seconds: float = 0.0
    already_done: bool = False
    """Another run had done it."""

    def to_line(self) -> str:
        """Return the outcome as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str | bytes) -> CellOutcome | None:
        """Return the outcome that a line holds; None: the line is not one."""
        try:
            value = json.loads(line)
            return cls(**value) if isinstance(value, Mapping) else None
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class StageOutput:
    """What a stage's function returns."""

    digest: str | None
    """Of the artifact, where it has one."""
    note: str = ""
    """One line about the result."""


class RefusedError(EffxError):
    """The combination cannot be built; nothing is wrong with the other cells."""
