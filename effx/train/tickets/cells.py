"""The cells of a sweep, each a training run that is done once and for all.

    sweep.json                            what every cell shares; other settings are refused
    checkpoints/STEM-full-s0/             the full model of a seed, fine-tuned
    checkpoints/STEM-full-s0.importance.* its scores: JSON, and a heat map as PNG and SVG
    checkpoints/STEM-winning40-s0/        a ticket: pretrained weights again, cut, fine-tuned
    cells/NAME.json                       what a cell came to, its predictions included
    paused/NAME-at63/                     a cell of halving after 63 steps, as long as it may go on
    locks/NAME                            which process works on it

A checkpoint is there or not, and its record follows from it, so a sweep that was killed goes on
where it was; every cell starts from its seed alone, so it ends with the same scores, whichever of the
processes that share a workspace trains it. STEM is TASK-MODEL.
"""

from __future__ import annotations

import contextlib
import glob
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import PreTrainedModel

from effx import data, files
from effx.artifacts import Checkpoint
from effx.data import Rows
from effx.errors import ArtifactError, UsageError
from effx.host import locks
from effx.models import checkpoints, huggingface, load, structure
from effx.specs.levels import Level
from effx.specs.tasks import Task
from effx.specs.training import TicketSearchSettings
from effx.structure import Structure
from effx.train import importance, loop, source, workspace
from effx.train.finetune import finetune, keep_first
from effx.train.segment import RunSegment
from effx.train.tickets import draw, plan

FREE = {"levels", "seeds", "kinds", "search", "keep"}
"""Settings that may change from run to run in one workspace: they say which cells, not how."""
_SCHEMA = 1
FULL = "full"
_AT = "-at"
_SCORES = ".importance"


@dataclass(frozen=True)
class Cell:
    """One training run."""

    kind: str
    """``full``, or a kind of ticket."""
    level: Level | None
    """None: nothing is removed."""
    seed: int
    steps: int | None = None
    """Where the run is paused; None: it is whole."""

    def name(self, stem: str) -> str:
        """Return the name of the cell's checkpoint."""
        level = self.level.name if self.level else ""
        return f"{stem}-{self.kind}{level}-s{self.seed}{'' if self.steps is None else f'{_AT}{self.steps}'}"


@dataclass(frozen=True)
class Record:
    """What a cell came to."""

    cell: Cell
    checkpoint: str
    """Its digest."""
    steps: int
    """Optimizer steps that it took."""
    parameters: int
    weight_remaining: float
    removed: dict[str, int]
    """Heads, FFNs and neurons."""
    predictions: np.ndarray
    """[n]; classes, or values, of the validation rows."""


def _run_of(cell: Cell) -> Cell:
    """Return the whole run that a cell is the beginning of: a run is one process's, with all its states."""
    return replace(cell, steps=None)


class Workspace:
    """A folder of cells, and what they share."""

    def __init__(
        self,
        folder: Path,
        task_name: str,
        model_name: str,
        data_folder: Path | None,
        settings: TicketSearchSettings,
    ) -> None:
        """Check the settings against the model and the folder; train nothing yet.

        Raises:
            UsageError: a setting is wrong, or the folder was made with others.
            DataError: the rows do not fit the task.
        """
        self.training = settings.finetune.training
        loop.choose_precision(self.training.precision)
        self.folder, self.settings = folder, settings
        self.model_name, self.data_folder = model_name, data_folder
        self.task: Task = data.resolve(task_name, data_folder)
        source.check_trainable(self.task)
        huggingface.check_source(model_name, self.task)
        self.stem = workspace.stem(self.task.name, model_name)
        self.train: Rows = data.load(self.task, "train", data_folder).limit(self.training.limit)
        self.validation: Rows = data.load(self.task, "validation", data_folder)
        if len(self.validation) < 2:
            raise UsageError("the super ticket is chosen on one part of the validation rows: 2 are needed.")
        self.structure: Structure = structure(self.pretrained())
        for level in settings.levels:
            plan.check(self.structure, level, settings.pruning.min_heads, settings.pruning.granularity)
        self._claim()

    @property
    def seeds(self) -> list[int]:
        """The seeds of the sweep."""
        return list(range(self.training.seed, self.training.seed + self.settings.seeds))

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch of a cell."""
        n = len(self.train)
        rows = n - len(source.held_out(n, 0)) if self.settings.finetune.patience else n
        return math.ceil(rows / self.training.batch_size)

    @property
    def steps(self) -> int:
        """Optimizer steps of a whole cell; at most, where it may stop early."""
        return self.training.max_steps or math.ceil(self.steps_per_epoch * self.settings.finetune.epochs)

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of a cell, in which the learning rate rises."""
        return int(self.training.warmup * self.steps)

    def pretrained(self, seed: int | None = None) -> PreTrainedModel:
        """Return the model that every cell of a seed starts from."""
        transformers.set_seed(self.training.seed if seed is None else seed)
        model, _ = huggingface.pretrained(self.model_name, self.task, fresh_head=True)
        checkpoints.check_length(model, self.settings.finetune.max_length)
        keep_first(model, self.settings.finetune.layers)
        return model

    def run(self, cell: Cell) -> Record:
        """Return what a cell came to, training it if that has not been done.

        While another process trains it, wait.
        """
        with workspace.alone(self.folder, _run_of(cell).name(self.stem)):
            if (done := self._recorded(cell)) is None:
                return self._train(cell)
            self._let_go(cell)  # if it was killed before it did
            return done

    def busy(self, cell: Cell) -> bool:
        """Whether another process works on a cell, or on what it needs."""
        full = Cell(FULL, None, cell.seed).name(self.stem)
        needed = [full, full + _SCORES] if cell.level else []
        names = [_run_of(cell).name(self.stem), *needed]
        return any(locks.holder(workspace.lock(self.folder, name)) for name in names)

    def _train(self, cell: Cell) -> Record:
        folder = self.checkpoint(cell)
        if not Checkpoint.find(folder):
            removal = None if cell.level is None else self.removal(cell)
            options: dict[str, Any] = {
                "out": folder.parent,
                "name": folder.name,
                "data_folder": self.data_folder,
                "keep_predictions": True,
                "segment": self._segment(cell),
            }
            if removal is None or cell.level is None:
                finetune(
                    self.task.name,
                    self.model_name,
                    settings=self.settings.finetune.replace(seed=cell.seed),
                    record={"parent": None},
                    fresh_head=True,
                    **options,
                )
            else:
                ticket = self.settings.ticket(cell.level, cell.kind, cell.seed)
                full = self.run(Cell(FULL, None, cell.seed)).checkpoint
                draw.train(self.task.name, self.model_name, full, removal, ticket, **options)
        record = self._record(cell, Checkpoint.open(folder))
        for _, earlier in self._paused(cell):
            shutil.rmtree(earlier)
        return record

    def drop_paused(self, runs: Sequence[Cell]) -> None:
        """Remove the states of runs that will not be continued."""
        folder = self.folder / "paused"
        for run in runs:
            name = run.name(self.stem)
            with workspace.alone(self.folder, name):
                for state in folder.glob(f"*{glob.escape(name)}{_AT}*"):
                    shutil.rmtree(state)
        with contextlib.suppress(OSError):  # others' states are in it
            folder.rmdir()

    def _segment(self, cell: Cell) -> RunSegment:
        """Return what is left of a cell's run, from where it was paused last."""
        paused = self._paused(cell)
        begin = max(paused)[1] if paused else None
        if cell.steps is None:
            return RunSegment(begin)
        return RunSegment(begin, cell.steps, self.folder / "paused" / cell.name(self.stem))

    def _paused(self, cell: Cell) -> list[tuple[int, Path]]:
        """Return steps and folders of the states that a cell's run left before where it ends."""
        start = _run_of(cell).name(self.stem) + _AT
        states = [
            (int(folder.name.removeprefix(start)), folder)
            for folder in (self.folder / "paused").glob(f"{glob.escape(start)}*")
        ]
        return [one for one in states if cell.steps is None or one[0] < cell.steps]

    def removal(self, cell: Cell) -> plan.Removal:
        """Return what a ticket loses, by the scores of its seed's full model."""
        assert cell.level is not None
        return plan.removal(
            self.scores(cell.seed),
            self.structure,
            cell.level,
            cell.kind,
            min_heads=self.settings.pruning.min_heads,
            granularity=self.settings.pruning.granularity,
            seed=cell.seed,
        )

    def scores(self, seed: int) -> importance.Importance:
        """Return the scores of a seed's full model, computing them if that has not been done."""
        if seed in self._scores:
            return self._scores[seed]
        cell = Cell(FULL, None, seed)
        record = self.run(cell)
        with workspace.alone(self.folder, cell.name(self.stem) + _SCORES):
            known = self._known_scores(seed, record.checkpoint)
            self._scores[seed] = known or self._score(seed, Checkpoint.open(self.checkpoint(cell)))
        with workspace.alone(self.folder, cell.name(self.stem)):
            self._let_go(cell)
        return self._scores[seed]

    def _known_scores(self, seed: int, checkpoint: str) -> importance.Importance | None:
        """Return the scores that are there, if they are those of the checkpoint with this digest."""
        path = self.scores_path(seed)
        known = importance.read(path) if path.is_file() else None
        return known[0] if known and known[1].get("checkpoint") == checkpoint else None

    def _score(self, seed: int, opened: Checkpoint) -> importance.Importance:
        path = self.scores_path(seed)
        found = draw.scores(
            opened, load(opened), self.train, self.settings.pruning, self.training.replace(seed=seed)
        )
        importance.write(
            path,
            found,
            checkpoint=opened.digest,
            method=self.settings.pruning.importance,
            precision=loop.choose_precision(self.training.precision),
            rows=len(self.train),
            layers=[layer.index for layer in self.structure.layers],
        )
        return found

    @cached_property
    def _scores(self) -> dict[int, importance.Importance]:
        return {}

    def scores_path(self, seed: int) -> Path:
        """Return where the scores of a seed are."""
        folder = self.checkpoint(Cell(FULL, None, seed))
        return folder.with_name(f"{folder.name}{_SCORES}.json")

    def checkpoint(self, cell: Cell) -> Path:
        """Return a cell's checkpoint folder."""
        return self.folder / "checkpoints" / cell.name(self.stem)

    def _keeps(self, cell: Cell) -> bool:
        kept = {"all": True, "winning": cell.kind in (FULL, "winning"), "none": False}
        return cell.steps is None and kept[self.settings.keep]

    def _recorded(self, cell: Cell) -> Record | None:
        """Return a cell's record if it is there, and its checkpoint where that stays or is to be scored."""
        record = self._read(cell)
        if record is None:
            return None
        to_score = cell.kind == FULL and self._known_scores(cell.seed, record.checkpoint) is None
        needed = self._keeps(cell) or to_score
        return None if needed and not Checkpoint.find(self.checkpoint(cell)) else record

    def _let_go(self, cell: Cell) -> None:
        """Remove a recorded cell's checkpoint where it does not stay and is not to be scored."""
        record = self._read(cell)
        scored = record and self._known_scores(cell.seed, record.checkpoint)
        if not self._keeps(cell) and (cell.kind != FULL or scored):
            shutil.rmtree(self.checkpoint(cell), ignore_errors=True)

    def _read(self, cell: Cell) -> Record | None:
        path = self._record_path(cell)
        if not path.is_file():
            return None
        try:
            value = json.loads(path.read_bytes())
            return Record(
                cell,
                str(value["checkpoint"]),
                int(value["steps"]),
                int(value["parameters"]),
                float(value["weight_remaining"]),
                {str(key): int(count) for key, count in value["removed"].items()},
                np.array(value["predictions"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{path} cannot be read ({error}). Delete it to have it made again."
            ) from error

    def _record(self, cell: Cell, made: Checkpoint) -> Record:
        """Write a cell's record, then let go of a checkpoint that does not stay."""
        manifest = made.manifest
        removed = manifest.get("ticket", {}).get("removed", {"heads": 0, "ffns": 0, "neurons": 0})
        files.write_json(
            self._record_path(cell),
            {
                "schema": _SCHEMA,
                "checkpoint": made.digest,
                "steps": manifest["training"]["steps"],
                "seconds": manifest["training"]["seconds"],
                "parameters": manifest["parameters"],
                "weight_remaining": manifest["weight_remaining"],
                "removed": removed,
                "metrics": manifest["metrics"],
                "predictions": manifest["predictions"],
            },
        )
        self._let_go(cell)
        done = self._read(cell)
        assert done is not None
        return done

    def _record_path(self, cell: Cell) -> Path:
        return self.folder / "cells" / f"{cell.name(self.stem)}.json"

    def _claim(self) -> None:
        """Write sweep.json, or compare with the one that is there."""
        shared = {key: value for key, value in self.settings.to_json().items() if key not in FREE}
        workspace.claim(
            self.folder / "sweep.json",
            {
                "task": self.task.name,
                **workspace.model_of(self.model_name),
                "train": workspace.digest(self.train),
                "validation": workspace.digest(self.validation),
                **shared,
            },
        )
