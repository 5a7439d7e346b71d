"""A recipe as cells: pieces of work with what they read, what decides their result, and a key.

    pretrain -> finetune -> prune -> tokens -> exits    one cell per checkpoint; prune, tokens, exits optional
    pretrain -> lottery -> lottery-mask -> lottery ...  one cell per mask and per round, see lottery.py
                  each  ->  export                      one per engine
    tickets-full -> tickets-scores -> ticket -> tickets a search for super tickets, see sweeps.py
                  all of a task's -> profile            one interleaved session per task and host
                  all of them -> report                 one

A cell's key is a digest of its stage, name, settings, the digests of the files it reads, the code and
package versions that decide its result, and the keys of the cells it reads. So keys are known before
anything has run, and a change of any input changes the keys of all that depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from effx import data, files
from effx.errors import UsageError
from effx.recipe.execute.protocol import CellInputs, LocalPaths
from effx.recipe.graph import processor
from effx.recipe.graph.digests import Digests
from effx.recipe.language.recipe import DEMO_MODEL, ModelEntry, Recipe, TaskEntry
from effx.specs import backends, variants
from effx.specs.settings import Settings
from effx.specs.stages import PretrainStage
from effx.specs.training import FinetuneSettings, steps_of, unknown_steps

SCHEMA = 2
KEY_DIGITS = 20


@dataclass(frozen=True)
class Cell:
    """One piece of work."""

    stage: str
    """One of :data:`effx.specs.stages.STAGES`."""
    name: str
    """Of the folder that it makes."""
    settings: Settings
    """Of the stage's type; they decide the result."""
    local_paths: LocalPaths = LocalPaths()
    inputs: CellInputs = CellInputs()
    sources: tuple[str, ...] = ()
    """Ids of the cells it reads."""
    pause_at: int | None = None
    """Optimizer steps after which the training run is paused; None: it is complete."""
    keep: bool = True
    """False: what it makes is removed when no open cell reads it; its record and small results stay."""
    alone: bool = False
    """It measures: nothing else may compute on its host."""
    work: float = 1.0
    """How much there is to do, in units of its stage."""
    group: str = ""
    """Cells of one stage and group take times in proportion to ``work``."""
    view: str | None = None
    """Its link in the workspace, see :attr:`effx.specs.stages.StageSpec.view`; None: the stage's."""

    @property
    def id(self) -> str:
        """Unique within a plan, and readable."""
        return f"{self.stage} {self.name}"

    def key(self, source_keys: Iterable[str]) -> str:
        """Return the cell's key, given those of the cells that it reads."""
        return self._key(source_keys, self.name, self.pause_at)

    def run_key(self, source_keys: Iterable[str]) -> str:
        """Return the key of the complete training run; for a cell that is not paused, the cell's key."""
        if self.pause_at is None:
            return self.key(source_keys)
        return self._key(source_keys, self.name.removesuffix(f"-at{self.pause_at}"), None)

    def _key(self, source_keys: Iterable[str], name: str, pause_at: int | None) -> str:
        return files.json_digest(
            {
                "schema": SCHEMA,
                "stage": self.stage,
                "name": name,
                "settings": self._settings,
                "inputs": self._inputs,
                "sources": sorted(source_keys),
                **({} if pause_at is None else {"pause_at": pause_at}),
            }
        )[:KEY_DIGITS]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return self.settings.to_json()

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        return self.inputs.to_json()


class CellBuilder:
    """Collects the cells of a recipe, each after those that it reads."""

    def __init__(self, recipe: Recipe, digests: Digests) -> None:
        self.recipe, self.digests = recipe, digests
        self.cells: list[Cell] = []
        self._ids: set[str] = set()
        self._rows: dict[str, dict[str, Any]] = {}

    def add(
        self,
        stage: str,
        name: str,
        settings: Settings,
        *,
        local_paths: LocalPaths | None = None,
        sources: tuple[str, ...] = (),
        rows: dict[str, Any] | None = None,
        model: dict[str, Any] | None = None,
        backends: tuple[str, ...] = (),
        meter: str | None = None,
        **options: Any,
    ) -> Cell:
        """Add a cell.

        Args:
            stage: its stage.
            name: of the folder that it makes.
            settings: of the stage's type; the precision auto is replaced by what this machine trains in.
            local_paths: where its rows and model are.
            sources: ids of the cells it reads.
            rows: digests of the task's rows.
            model: digests of the pretrained model.
            backends: the backends in use, where its stage has code for each.
            meter: the energy meter in use, likewise.
            **options: other fields of :class:`Cell`.

        Raises:
            UsageError: there is a cell of that stage and name.
        """
        code = self.digests.code(stage, backends, meter)
        versions = self.digests.versions(stage, backends)
        inputs = CellInputs(code, versions, rows, model)
        settings = processor.trained(stage, settings)
        cell = Cell(stage, name, settings, local_paths or LocalPaths(), inputs, sources, **options)
        if cell.id in self._ids:
            raise UsageError(
                f"two different results would be named '{name}' ({stage}): give tasks, models or entries "
                "other names."
            )
        self._ids.add(cell.id)
        self.cells.append(cell)
        return cell

    def pretrained(self, model: ModelEntry) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
        """Return a pretrained model's digests, or the id of the cell that makes it."""
        if model.source != DEMO_MODEL:
            return self.digests.model(model.source), ()
        known = next((cell for cell in self.cells if cell.stage == "pretrain"), None)
        return None, ((known or self.add("pretrain", "demo-bert", PretrainStage())).id,)

    def rows(self, task: TaskEntry) -> dict[str, Any]:
        """Return the digests of a task's rows, and how many training rows there are if known."""
        if task.name not in self._rows:
            self._rows[task.name] = self.digests.rows(data.resolve(task.name, task.source), task.source)
        return self._rows[task.name]

    def training_rows(self, task: TaskEntry) -> int:
        """Return the number of training rows; 1 where it is not known before they are loaded."""
        rows = self.rows(task)["rows"] or task.limit or 1
        return int(min(rows, task.limit or rows))

    def amount(self, task: TaskEntry, settings: Settings, *epochs: str) -> float:
        """Return the training rows that a training sees; ``epochs`` are names of settings that add up."""
        values = settings.flat()
        if values.get("max_steps"):
            return float(values["max_steps"]) * float(values["batch_size"])
        share = values.get("share") or 1.0
        return share * self.training_rows(task) * sum(float(values[name]) for name in epochs)

    def steps(self, task: TaskEntry, settings: FinetuneSettings) -> int:
        """Return the optimizer steps of a complete fine-tuning; at most, where it may stop early.

        Raises:
            UsageError: they are not known before the rows are encoded.
        """
        if settings.training.max_steps is None:
            kind = data.resolve(task.name, task.source).behavior
            if reason := unknown_steps(task.name, one_sequence_per_row=kind.one_sequence_per_row):
                raise UsageError(reason, settings="max_steps")
        rows = self.rows(task)["rows"]
        if rows is None and settings.training.max_steps is None:  # on the hub: known once they are loaded
            resolved = data.resolve(task.name, task.source)
            rows = len(data.load(resolved, "train", task.source))
        return steps_of(settings, min(int(rows or 0), task.limit or int(rows or 0)))


def data_paths(task: TaskEntry, model: ModelEntry | None = None) -> LocalPaths:
    """Return where a task's rows and a model are, as absolute paths; names on the hub stay."""
    return LocalPaths(
        None if task.source is None else task.source.absolute(), _absolute(model.source) if model else None
    )


def _absolute(source: str | None) -> str | None:
    return str(Path(source).resolve()) if source is not None and Path(source).is_dir() else source


def chosen_by_time(variant: str, backend: str, device: str | None, built_for: str | None) -> bool:
    """Whether an engine is the fastest of several candidates, so that it depends on the host.

    Args:
        variant: its name.
        backend: that builds it.
        device: that it is built for; None: the backend's own.
        built_for: the workload in which candidates are compared; None: the usual one.
    """
    row = backends.get(backend)
    return row.is_chosen_by_time(variants.parse(variant).scheme, row.device(device), built_for)
