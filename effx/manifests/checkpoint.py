"""The manifest of a checkpoint: effx.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self, TypedDict

from pydantic import model_validator

from effx.costs import Expense
from effx.manifests.common import Manifest
from effx.manifests.dynamic import ExitsRecord, TokensRecord
from effx.manifests.fields import CheckedStructure, Count, Digest, Positive, Scores, Share
from effx.manifests.pruning import LayerReductionRecord, OneShotRecord, SparsityRecord, TicketRecord
from effx.manifests.training import BaselineRecord, ImportRecord, SharedRecord, TrainingRecord
from effx.records import StoredLabel
from effx.specs.data import DataRecord
from effx.structure import Structure


class CheckpointManifest(Manifest):
    """What effx.json holds."""

    model: str
    """The pretrained model: its name on the hub, or that of its folder."""
    structure: CheckedStructure
    weight_remaining: Share
    """Share of the full model's parameters that remain, ramps excluded."""
    seed: Count = 0
    training: TrainingRecord = TrainingRecord()
    metrics: Scores = {}
    """On the validation rows, by the model's head; empty: not scored."""
    validation_rows: Count | None = None
    validation_source: str | None = None
    """Where the validation rows came from."""
    baseline: BaselineRecord | None = None
    """Always giving one answer; None: not scored."""
    validation_overlap: Count | None = None
    """Validation rows whose text is also a training row's; None: unknown."""
    parent: Digest | None = None
    """Digest of the checkpoint that it was made from."""
    expenses: tuple[Expense, ...] | None = None
    """What had to be computed besides its own training: other checkpoints, its teacher, importance scores;
    None: unknown."""
    full_parameters: Positive
    """Parameters before anything was removed or added."""
    exits: ExitsRecord | None = None
    tokens: TokensRecord | None = None
    ticket: TicketRecord | None = None
    layer_reductions: tuple[LayerReductionRecord, ...] = ()
    """Layers that were dropped before training, in order; empty: none, or by an older release."""
    one_shot: OneShotRecord | None = None
    shared: SharedRecord | None = None
    """None: its encoder was trained on one task."""
    imported: ImportRecord | None = None
    """None: effx trained it."""
    predictions: tuple[StoredLabel, ...] | None = None
    """Of the validation rows: a class, a number, a text, or the numbers of its labels or tags."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        structure, task = self.structure, self.task_definition
        if self.exits and not structure.exits:
            raise ValueError("exits: expected null, as the structure has no exits")
        if self.exits and self.exits.validation.layers != len(structure.layers):
            raise ValueError(f"exits.validation.layers: expected {len(structure.layers)}")
        if structure.exits and (reason := task.behavior.refused.get("exits")):
            raise ValueError(f"structure.exits: {reason}")
        if structure.prunes_tokens and (reason := task.behavior.refused.get("tokens")):
            raise ValueError(f"structure.tokens: {reason}")
        indices = {layer.index for layer in structure.layers}
        for number, reduction in enumerate(self.layer_reductions):
            if not indices <= set(reduction.kept):
                raise ValueError(f"layer_reductions[{number}].kept: expected all layers of structure")
        if self.tokens and not structure.prunes_tokens:
            raise ValueError("tokens: the structure has no token schedule")
        if self.tokens and len(self.tokens.validation.kept) != len(structure.layers):
            raise ValueError(f"tokens.validation.kept: expected {len(structure.layers)} shares")
        if self.shared and self.task not in self.shared.tasks:
            raise ValueError(f"shared.tasks: {self.task!r} is not one of them")
        if self.metrics and set(task.metrics) - set(self.metrics):
            raise ValueError(f"metrics: expected {', '.join(task.metrics)}")
        if self.training.settings and self.seed != self.training.settings.get("seed", self.seed):
            raise ValueError(f"seed: expected {self.training.settings['seed']}, as in training.settings")
        if (self.validation_overlap or 0) > (self.validation_rows or 0):
            raise ValueError("validation_overlap: expected at most validation_rows")
        longest = self.training.settings.get("max_length") if self.training.kind == "finetune" else None
        if longest is not None and longest != self.max_length:
            raise ValueError(f"max_length: expected {longest}, as in training.settings")
        if self.predictions is not None:
            if not self.metrics:
                raise ValueError("metrics: expected the scores of the predictions")
            if len(self.predictions) != self.validation_rows:
                raise ValueError(f"predictions: expected {self.validation_rows}, as validation_rows")
            try:
                task.behavior.restore(self.predictions, task.labels)
            except ValueError as error:
                raise ValueError(f"predictions: {error}") from error
        return self


class CheckpointFacts(TypedDict, total=False):
    """What a caller states of a checkpoint; the rest follows from its model."""

    model: str
    seed: int
    training: TrainingRecord
    metrics: Mapping[str, float]
    validation_rows: int
    validation_source: str
    baseline: BaselineRecord | None
    validation_overlap: int | None
    parent: str | None
    expenses: tuple[Expense, ...] | None
    max_length: int
    data: DataRecord | None
    exits: ExitsRecord | None
    tokens: TokensRecord | None
    ticket: TicketRecord | None
    layer_reductions: tuple[LayerReductionRecord, ...]
    one_shot: OneShotRecord | None
    shared: SharedRecord | None
    imported: ImportRecord | None
    sparsity: SparsityRecord | None
    predictions: tuple[StoredLabel, ...] | None
    structure: Structure
