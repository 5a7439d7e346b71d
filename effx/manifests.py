"""What the manifests of checkpoints (effx.json) and engines (engine.json) hold, as typed records.

A manifest is read once, where its folder is opened (:mod:`effx.artifacts`). What can be computed from other
values is checked against them here; what needs the folder's files is checked there, and what needs the model
in :mod:`effx.models.checkpoints`.
"""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Self, TypedDict

from pydantic import AfterValidator, Field, JsonValue, PlainSerializer, PlainValidator, model_validator

from effx.costs import Cost, Expense, total
from effx.errors import UsageError
from effx.records import Record, StoredLabel
from effx.specs import backends, layer_reduction, variants
from effx.specs.data import DataRecord
from effx.specs.distillation import DistillationSettings
from effx.specs.exit_rules import ExitPoint, ExitRule
from effx.specs.measurement import BuiltFor
from effx.specs.optimize import OneShotSettings
from effx.specs.runtime import MAX_STATIC_BATCH, GraphInterface, RuntimeSettings
from effx.specs.settings import OneOf, Settings
from effx.specs.tasks import TASKS, Task
from effx.specs.training import (
    EXIT_MODES,
    POOLINGS,
    PRECISIONS,
    TOKEN_RULES,
    EarlyExitSettings,
    FinetuneSettings,
    MultitaskSettings,
    TokenPruningSettings,
    check_shares,
)
from effx.stats.metrics import METRICS
from effx.structure import Structure

_MAX_NAME = 255
_MAX_LAYERS = 1024
_MAX_WIDTH = 1 << 20
"""Heads, FFN neurons or hidden width of a layer at most."""
_MAX_ROWS = 1 << 20
"""Rows of an input at most that an engine is built for best."""
_MAX_LENGTH = 1 << 20
"""Tokens of an input at most."""

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 as 64 hex digits."""


def _file_name(name: str) -> str:
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is not a relative file name within the folder")
    if len(name) > _MAX_NAME:
        raise ValueError(f"a file name of {len(name)} characters")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
"""Name of a file in the folder, relative, with ``/``."""


def _moment(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a time as 2026-01-31T12:00:00+00:00, got {text!r}") from None
    return text


Moment = Annotated[str, AfterValidator(_moment)]
"""A time as ISO 8601."""


def _checked_task(task: Task) -> Task:
    """Check a task against itself; a known task gets its location on the hub again."""
    if not task.name or not task.name.isprintable():
        raise ValueError(f"name: expected a name, got {task.name!r}")
    if not 1 <= len(task.columns) <= 2:
        raise ValueError(f"columns: expected 1 or 2, got {len(task.columns)}")
    if "" in task.columns:
        raise ValueError("columns: expected a name for each column, got ''")
    if unknown := [name for name in task.metrics if name not in METRICS]:
        raise ValueError(f"metrics: unknown metric {unknown[0]!r}. Known: {', '.join(METRICS)}")
    if not task.metrics:
        raise ValueError("metrics: expected at least one")
    if len(set(task.labels)) < len(task.labels):
        raise ValueError("labels: expected each label once")
    if "" in task.labels:
        raise ValueError("labels: expected a name for each label, got ''")
    task.behavior.check_labels(task.labels)
    hub = TASKS[task.name].hub if task.name in TASKS else None
    if task.hub not in (None, hub):
        raise ValueError("hub: unknown key")
    return replace(task, hub=hub)


TaskDefinition = Annotated[Task, AfterValidator(_checked_task), PlainSerializer(Task.to_json)]
"""A task as it was when the manifest was written, tasks inferred from files included."""


def _read_data(value: Any) -> DataRecord:
    """Return which rows an artifact was made with, from a manifest's JSON."""
    if isinstance(value, DataRecord):
        return value
    if not isinstance(value, Mapping) or set(value) != {"name", "folder", "settings", "digest"}:
        raise ValueError("expected name, folder, settings and digest")
    name, settings, digest = value["name"], value["settings"], value["digest"]
    if not isinstance(name, str) or not name.isprintable() or "/" in name:
        raise ValueError(f"name: {name!r} is not the name of a file or folder")
    if not isinstance(value["folder"], bool):
        raise ValueError("folder: expected true or false")
    if not isinstance(settings, Mapping):
        raise ValueError("settings: expected a mapping")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError(f"digest: {digest!r} is not a SHA-256")
    try:
        return DataRecord.from_json(value)
    except UsageError as error:
        raise ValueError(f"settings: {error}") from error


RowsRecord = Annotated[DataRecord, PlainValidator(_read_data), PlainSerializer(DataRecord.to_json)]
"""Which rows an artifact was made with."""


def _checked_structure(structure: Structure) -> Structure:
    """Raise :class:`ValueError` for a structure that no model has."""
    layers = structure.layers
    if not 1 <= len(layers) <= _MAX_LAYERS:
        raise ValueError(f"layers: expected 1 to {_MAX_LAYERS}, got {len(layers)}")
    _check_indices("layers: index", [layer.index for layer in layers], _MAX_LAYERS)
    for position, layer in enumerate(layers):
        key = f"layers[{position}]"
        _check_indices(f"{key}.heads", layer.heads, _MAX_WIDTH)
        if not 0 <= layer.intermediate <= _MAX_WIDTH:
            raise ValueError(f"{key}.intermediate: expected 0 to {_MAX_WIDTH}, got {layer.intermediate}")
        if layer.neurons is not None:
            _check_indices(f"{key}.neurons", layer.neurons, _MAX_WIDTH)
            if len(layer.neurons) != layer.intermediate:
                raise ValueError(
                    f"{key}.neurons: expected {layer.intermediate}, as intermediate, got {len(layer.neurons)}"
                )
    inner = structure.numbers[:-1]
    if list(structure.exits) != sorted(set(structure.exits) & set(inner)):
        raise ValueError("exits: expected rising numbers of layers before the last")
    if structure.exit_pooling not in POOLINGS:
        raise ValueError(f"exit_pooling: expected one of {', '.join(POOLINGS)}")
    if structure.head_pooling not in POOLINGS:
        raise ValueError(f"head_pooling: expected one of {', '.join(POOLINGS)}")
    if structure.tokens is not None and structure.token_thresholds is not None:
        raise ValueError("tokens and token_thresholds exclude each other")
    for name in ("tokens", "token_thresholds"):
        values = getattr(structure, name)
        if values is not None and len(values) != len(layers):
            raise ValueError(f"{name}: expected {len(layers)} numbers, one per layer, got {len(values)}")
    if structure.tokens is not None:
        check_shares(structure.tokens)
    if not all(0 <= value <= 1 for value in structure.token_thresholds or ()):
        raise ValueError("token_thresholds: expected numbers from 0 to 1")
    return structure


def _check_indices(key: str, values: tuple[int, ...] | list[int], limit: int) -> None:
    if any(after <= before for before, after in itertools.pairwise(values)):
        raise ValueError(f"{key}: expected rising numbers, each once")
    if values and not 0 <= values[0] <= values[-1] < limit:
        raise ValueError(f"{key}: expected numbers from 0 to {limit - 1}")


CheckedStructure = Annotated[Structure, AfterValidator(_checked_structure)]


def _checked_scores(scores: Mapping[str, float]) -> Mapping[str, float]:
    for name, value in scores.items():
        if name not in METRICS:
            raise ValueError(f"{name}: unknown metric. Known: {', '.join(METRICS)}")
        if not -1 <= value <= 1:
            raise ValueError(f"{name}: expected a number from -1 to 1, got {value:g}")
    return scores


Scores = Annotated[Mapping[str, float], AfterValidator(_checked_scores)]
"""Metric -> value."""


class ArtifactReference(Record):
    """Another artifact."""

    name: str
    digest: Digest


class RemovedCounts(Record):
    """How many structures were pruned."""

    heads: Count = 0
    ffns: Count = 0
    neurons: Count = 0


class TicketRecord(Record):
    """Which ticket a checkpoint is."""

    kind: str
    level: str
    """Percentage of the heads, or of heads and FFNs, as ``20/10``."""
    importance: str
    granularity: str
    min_heads: Count
    removed: RemovedCounts
    """Without those of the checkpoint that was scored first, if it was reduced itself."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Rounds in which they were pruned, each scored anew; 1: one shot."""


LayerStrategy = Annotated[str, OneOf("layer reduction", layer_reduction.STRATEGIES)]


class LayerReductionRecord(Record):
    """Layers that were dropped before training. Layers are by their index in the unreduced model, from 0."""

    strategy: LayerStrategy
    before: tuple[Count, ...]
    """The layers of the model before."""
    kept: Annotated[tuple[Count, ...], Field(min_length=1)]
    similarity: tuple[float, ...] | None = None
    """For ``contribution``: of each of the layers before, the mean cosine between the representations of the
    first token before and after it. None: not measured for this checkpoint, but for another, whose ticket it
    is."""
    rows: Positive | None = None
    """Training rows that it was measured on."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _check_indices("before", self.before, _MAX_LAYERS)
        _check_indices("kept", self.kept, _MAX_LAYERS)
        if missing := set(self.kept) - set(self.before):
            raise ValueError(f"kept: layer {min(missing)} is not in before")
        measured = self.similarity
        if (measured is None) != (self.rows is None):
            raise ValueError("similarity and rows: expected both or neither")
        if measured is not None:
            if self.strategy != layer_reduction.CONTRIBUTION:
                raise ValueError(f"similarity: expected null, as the strategy is {self.strategy}")
            if len(measured) != len(self.before):
                raise ValueError(f"similarity: expected {len(self.before)} numbers, one per layer before")
            if not all(-1 - 1e-6 <= value <= 1 + 1e-6 for value in measured):
                raise ValueError("similarity: expected numbers from -1 to 1")
        elif self.strategy == layer_reduction.CONTRIBUTION:
            return self
        positions = layer_reduction.remaining(self.strategy, len(self.before), len(self.kept), measured)
        expected = [self.before[position] for position in positions]
        if list(self.kept) != expected:
            raise ValueError(f"kept: expected {expected}, as {self.strategy} keeps, got {list(self.kept)}")
        return self


class OneShotRecord(Record):
    """How a checkpoint was pruned without training, under a budget of measured cost."""

    settings: Mapping[str, JsonValue]
    """All settings, by name."""
    rows: Positive
    """Training rows that it was fitted and compared on."""
    predicted_s: float
    """Seconds per query by the cost table."""
    unreduced_s: float
    """Those of the checkpoint that was pruned."""
    backend: str
    scheme: str
    workload: str
    host: str
    distance: float
    """Of its predictions from those of the checkpoint that was pruned."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        OneShotSettings.from_json(self.settings)
        return self


class DistillationRecord(Record):
    """What a checkpoint learned from a teacher."""

    teacher: str
    """Name of the checkpoint."""
    teacher_digest: Digest
    settings: Mapping[str, JsonValue]
    """All settings of distillation, by name."""
    hidden_layers: Count
    """Layers whose outputs were compared; 0: predictions alone."""
    unlabelled_rows: Count = 0
    """Rows without labels that it was trained on too."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        DistillationSettings.from_json(self.settings)
        return self


class SparsityRecord(Record):
    """Single weights that are zero."""

    share: Share
    zeros: Count
    of: Count
    """Weights of the prunable matrices."""
    objective: str | None = None
    """What the rounds trained; None: nothing, or unknown, as the mask was given as a file."""
    mask: Digest | None = None
    """SHA-256 of the mask's file; None: nothing is masked, or the mask was not written to a file."""
    kind: str | None = None
    """How the mask was found, one of :data:`effx.specs.training.MASK_KINDS`; None: nothing is masked, the
    mask was given as a file, or the checkpoint is older than kinds."""
    init: str = "pretrained"
    """Which weights were fine-tuned under the mask, one of :data:`effx.specs.training.START_WEIGHTS`."""
    rewind: Positive | None = None
    """Optimizer steps of the first fine-tuning that the weights were reset to; None: to ``init``."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.zeros > self.of or abs(self.share - self.zeros / max(self.of, 1)) > 1e-6:
            raise ValueError(f"share: expected {self.zeros} / {self.of} (zeros / of), got {self.share:g}")
        return self

    @property
    def found_by(self) -> str | None:
        """How the mask was found; None: unknown, it was given as a file.

        Before kinds were recorded there was imp alone, and only a given mask had no objective.
        """
        return self.kind or (None if self.objective is None else "imp")

    @property
    def described(self) -> str:
        """How the mask was found, and to which weights it was applied, in words: ``imp, fresh weights``."""
        kind = self.found_by or "mask of a file"
        parts = [kind if self.objective in (None, "task") else f"{kind} of {self.objective}"]
        parts += {"fresh": ["fresh weights"], "shuffled": ["shuffled layers"]}.get(self.init, [])
        parts += [] if self.rewind is None else [f"rewound to step {self.rewind}"]
        return ", ".join(parts)


class ExitTarget(Record):
    """What the exits' settings were chosen for: one of the two."""

    depth: float | None = None
    """Maximum mean number of layers."""
    max_drop: float | None = None
    """Maximum loss of the primary metric."""


class ProvenLoss(Record):
    """What is proven of the loss of the primary metric on held-out rows."""

    proven: bool
    """False: no setting was proven, so rows never exit early, or keep all tokens."""
    confidence: float
    """One-sided."""
    rows: Positive
    """Number of rows that tested the setting."""
    loss: float
    """On these rows, against the final head."""
    bound: float
    """Largest loss that is not ruled out."""


class TwoSamples(Record):
    """How far two samples of rows differ (Kolmogorov and Smirnov)."""

    distance: float
    """Largest difference of the distribution functions, 0 to 1."""
    p_value: float
    """Of the hypothesis that both are drawn from one distribution."""


class RowShift(Record):
    """Whether the validation rows are like the held-out rows that chose the exits."""

    lengths: TwoSamples
    """Of the numbers of tokens."""
    depths: TwoSamples
    """Of the layers that rows run through."""


class ExitCalibration(Record):
    """What the exit rule did on the held-out rows that chose its settings."""

    rows: Positive
    seen_in_training: bool | None
    """Whether the checkpoint was trained on any of them; None: unknown."""
    mean_depth: float
    score: float
    final_head: float
    """Score of the final head on the same rows, without early exits."""
    points: tuple[ExitPoint, ...]
    """Best settings of the rule for a few mean depths."""
    proof: ProvenLoss | None = None
    """None: the exits were calibrated for a depth."""


class ExitValidation(Record):
    """What the exits did on the validation rows."""

    scores: Scores
    mean_depth: float
    """Layers that a row runs through on average."""
    layers: Positive
    lost: float
    """Primary metric without exits minus with exits."""
    lost_at_least: float | None
    """Its lower 95 % bound, one-sided; None: no interval."""
    shift: RowShift | None = None
    """Against the held-out rows; None: it was not tested."""


class ExitsRecord(Record):
    """Early exits of a checkpoint: their rule, and what it did."""

    rule: ExitRule
    mode: str
    target: ExitTarget
    calibration: ExitCalibration
    validation: ExitValidation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mode not in EXIT_MODES:
            raise ValueError(f"mode: expected one of {', '.join(EXIT_MODES)}")
        return self


class TokensTarget(Record):
    """What a learned token schedule was scaled to: one of the two."""

    keep: Share | None = None
    """Mean share of the tokens to keep."""
    max_drop: Share | None = None
    """Maximum loss of the primary metric, against the checkpoint with all tokens before this training."""


class TokensCalibration(Record):
    """What chose the scale of a learned token schedule, on held-out rows."""

    seen_in_training: bool | None
    """Whether the checkpoint was trained on any of them; None: unknown."""
    proof: ProvenLoss
    lengths: TwoSamples
    """Of the numbers of tokens, against the validation rows."""


class TokensValidation(Record):
    """What a token schedule did on the validation rows."""

    scores: Scores
    kept: tuple[Share, ...]
    """Mean share of the tokens that enter each layer's FFN."""


class TokensRecord(Record):
    """Token schedule of a checkpoint: its rule, and what it did."""

    rule: str
    target: TokensTarget | None = None
    """None: the schedule was given, or learned without a target."""
    calibration: TokensCalibration | None = None
    """None: the target is not a loss."""
    validation: TokensValidation

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rule not in TOKEN_RULES:
            raise ValueError(f"rule: expected one of {', '.join(TOKEN_RULES)}")
        return self


@dataclass(frozen=True)
class TrainingStage:
    """What one training run took, from its first step on."""

    steps: int
    seconds: float
    loss: float
    """Mean over the steps, and over the processes."""
    precision: str
    cost: Cost | None = None
    """What it took, without evaluations; None: an earlier version wrote it."""
    evaluations: Count = 0
    """Times that held-out rows were scored during training."""
    evaluation: Cost | None = None
    """What these took together; None: there were none, or an earlier version wrote it."""


class TrainingRecord(Record):
    """How a checkpoint was trained."""

    SETTINGS: ClassVar[Mapping[str, type[Settings]]] = {
        "finetune": FinetuneSettings,
        "exits": EarlyExitSettings,
        "tokens": TokenPruningSettings,
        "multitask": MultitaskSettings,
    }

    kind: Literal["finetune", "exits", "tokens", "multitask"] | None = None
    """None: effx did not train it."""
    settings: Mapping[str, JsonValue] = {}
    """All settings of that kind, by name."""
    stages: tuple[TrainingStage, ...] = ()
    """The training runs, in order."""
    learning_rate: float | None = None
    """Peak learning rate."""
    limit: Positive | None = None
    """Number of rows that it was trained on (subsets are nested); None: all."""
    regime: str | None = None
    """What was trained; for exits and tokens, of the checkpoint before."""
    rows: Count | None = None
    """Number of training rows."""
    held_out_rows: Count = 0
    """Training rows that early stopping was decided on."""
    head: str | None = None
    """Origin of the task head before training, in words; None: unknown."""
    source: str | None = None
    """Where the rows came from."""
    rows_digest: Digest | None = None
    """Digest of the task's complete training rows; None: unknown, or trained from a checkpoint that may have
    seen others."""
    distillation: DistillationRecord | None = None
    """None: it learned from labels alone."""
    processes: Positive = 1
    host: str | None = None
    """Kind of processor."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind is None:
            fields = type(self).model_fields
            stated = [name for name in fields if getattr(self, name) != fields[name].default]
            if stated:
                raise ValueError(f"{stated[0]}: expected no value, as kind is null")
        else:
            settings = self.SETTINGS[self.kind].from_json(self.settings).flat()
            if self.kind == "finetune" and self.regime != settings["regime"]:
                raise ValueError(f"regime: expected {settings['regime']}, as in settings")
            if self.kind == "finetune" and self.limit != settings["limit"]:
                raise ValueError(f"limit: expected {settings['limit']}, as in settings")
            if settings["lr"] is not None and self.learning_rate != settings["lr"]:
                raise ValueError(f"learning_rate: expected {settings['lr']}, as lr in settings")
        if self.limit is not None and (self.rows or 0) + self.held_out_rows > self.limit:
            raise ValueError(f"rows: expected at most {self.limit} with the held-out rows, as limit")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError("learning_rate: expected a number > 0")
        for stage in self.stages:
            if min(stage.steps, stage.seconds, stage.loss) < 0:
                raise ValueError("stages: expected steps, seconds and loss >= 0")
            if stage.precision not in PRECISIONS:
                raise ValueError(f"stages: unknown precision {stage.precision[:40]!r}")
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def cost(self) -> Cost | None:
        """What all stages took; None: unknown."""
        return total(stage.cost for stage in self.stages)

    @property
    def loss(self) -> float:
        """Mean loss of the last stage."""
        return self.stages[-1].loss

    @property
    def seed(self) -> int:
        """The random seed of the training settings."""
        value = self.settings.get("seed")
        return value if isinstance(value, int) else 0


class SharedRecord(Record):
    """Several tasks that were trained with one encoder."""

    tasks: tuple[str, ...]
    average: float
    """Mean over the tasks of the mean of each task's metrics, on the validation rows."""
    encoder: Digest
    """Of the weights of the shared encoder; the same in the checkpoints of all tasks."""
    tickets: Mapping[str, Digest] = {}
    """Task -> digest of the checkpoint whose structure is its ticket; a task without one uses everything."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.tasks)) < 2 or len(set(self.tasks)) < len(self.tasks):
            raise ValueError("shared: expected at least two different tasks")
        if unknown := sorted(set(self.tickets) - set(self.tasks)):
            raise ValueError(f"shared.tickets: {unknown[0]!r} is not one of the tasks")
        return self


class ImportRecord(Record):
    """How a model that was fine-tuned elsewhere became a checkpoint."""

    digest: Digest
    """Of the files of the model's folder."""
    settings: Mapping[str, JsonValue] = {}
    """The settings of the import that were given, by name, without the task."""
    head: str
    """What became of its task head, in words."""
    notes: tuple[str, ...] = ()
    """What is unusual about the model, in words."""


class BaselineRecord(Record):
    """A model that gives the same answer to every row."""

    answer: str
    """The most frequent class of the training rows, in quotes, or their mean."""
    score: Annotated[float, Field(ge=-1, le=1)]
    """The task's primary metric on the validation rows."""


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
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH, le=_MAX_LENGTH)]
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


@dataclass(frozen=True)
class Parity:
    """Differences of an engine's logits from its checkpoint's."""

    examples: int
    max_abs_diff: float
    """-1: an answer was not finite."""
    label_agreement: float
    passed: bool
    inputs: str
    """``task`` rows or ``random`` ids."""
    measured_on: str = "engine"
    """The engine, or the graphs that it was built from where it cannot run."""
    depth_agreement: float | None = None
    """Share of rows that exit after the same layer; None: the engine has no exits."""
    accuracy: float | None = None
    """On the labelled rows, where there are any."""
    accuracy_lost: float | None = None
    """Against the checkpoint on the same rows; negative: gained."""
    accuracy_lost_interval: tuple[float, float] | None = None
    """95 %, from the paired differences."""
    metric: str | None = None
    """The task's primary metric, where it is another one than accuracy, with labelled rows."""
    metric_lost: float | None = None
    """As ``accuracy_lost``."""
    metric_lost_interval: tuple[float, float] | None = None
    """95 %; None: too few predictions differ."""
    worst_class: str | None = None
    """The class whose recall fell by the most on the labelled rows, with its interval; None: none fell."""
    recall_lost: float | None = None
    recall_lost_interval: tuple[float, float] | None = None
    """95 %, adjusted for the number of classes."""
    lost_classes: tuple[str, ...] = ()
    """Classes that the checkpoint predicts and the engine never does, on more rows than chance explains."""
    least_cosine: float | None = None
    """Of the engine's and the checkpoint's vector of a text; None: texts are not embedded."""
    rows_per_query: Count = 8
    """1: the answers depend on the other rows of a batch, and this comparison is of single queries."""

    @property
    def agreement(self) -> str:
        """The agreement of the predictions, for messages; that of numbers has no lower limit."""
        if self.label_agreement < 0:
            return "label agreement below 0%"
        return f"label agreement {self.label_agreement:.1%}"

    @property
    def compared_rows(self) -> str:
        """Number and kind of the compared rows, for messages."""
        return (
            f"{self.examples} rows of the task" if self.inputs == "task" else f"{self.examples} random inputs"
        )


def check_parity(parity: Parity) -> Parity:
    """Return the differences; raise :class:`ValueError` if they contradict each other."""
    if parity.examples < 0:
        raise ValueError(f"examples: expected an integer >= 0, got {parity.examples}")
    if parity.passed and (parity.max_abs_diff < 0 or not 0 <= parity.label_agreement <= 1):
        raise ValueError("passed: contradicts max_abs_diff or label_agreement")
    if parity.least_cosine is not None and not -1 - 1e-6 <= parity.least_cosine <= 1 + 1e-6:
        raise ValueError(f"least_cosine: expected a number from -1 to 1, got {parity.least_cosine:g}")
    if parity.rows_per_query not in (1, 8):
        raise ValueError(f"rows_per_query: expected 1 or 8, got {parity.rows_per_query}")
    for name in ("depth_agreement", "accuracy"):
        value = getattr(parity, name)
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: expected a number from 0 to 1, got {value:g}")
    lost, interval = parity.accuracy_lost, parity.accuracy_lost_interval
    if lost is not None and not -1 <= lost <= 1:
        raise ValueError(f"accuracy_lost: expected a number from -1 to 1, got {lost:g}")
    if interval is not None and (lost is None or not interval[0] - 1e-9 <= lost <= interval[1] + 1e-9):
        raise ValueError("accuracy_lost_interval: does not contain accuracy_lost")
    for name, loss in (("metric", "metric_lost"), ("worst_class", "recall_lost")):
        if (getattr(parity, name) is None) != (getattr(parity, loss) is None):
            raise ValueError(f"{name} and {loss}: expected both or neither")
        if getattr(parity, f"{loss}_interval") is not None and getattr(parity, loss) is None:
            raise ValueError(f"{loss}_interval: expected none without {loss}")
    if parity.metric_lost is not None and not -2 <= parity.metric_lost <= 2:
        raise ValueError(f"metric_lost: expected a number from -2 to 2, got {parity.metric_lost:g}")
    if parity.recall_lost is not None and not 0 < parity.recall_lost <= 1:
        raise ValueError(f"recall_lost: expected a number from 0 to 1, got {parity.recall_lost:g}")
    return parity


CheckedParity = Annotated[Parity, AfterValidator(check_parity)]


@dataclass(frozen=True)
class PlanAudit:
    """What a built TensorRT plan runs, by its inspector."""

    layers: Mapping[str, Count]
    """Kind of layer -> how many."""
    product_precisions: Mapping[str, Count]
    """Precision -> how many matrix products with weights run in it; ``unknown`` where it is not reported."""
    fused_attention: Count
    """Kernels of fused attention."""


@dataclass(frozen=True)
class Audit:
    """What an engine's files compute, counted."""

    nodes: Mapping[str, Count]
    """Kind of node -> how many, the most frequent first."""
    weight_products: Count
    """Matrix products with weights."""
    integer_weight_products: Count
    """Those that are computed in integers."""
    fused_attention: Count
    product_precisions: Mapping[str, Count] | None = None
    """Precision -> how many matrix products with weights; None: not reported by the runtime."""
    head_products: Count | None = None
    """Matrix products of heads and ramps, which are not quantized; None: counted with the others."""
    plan: PlanAudit | None = None
    """What the built plan runs; None: not a plan, or not built on its GPU."""


class CandidateRecord(Record):
    """What was built for an engine's precision; the fastest that passed its gates is the engine."""

    scheme: str
    merged_projections: bool = False
    """Whether Q, K and V of a layer are one product."""
    disabled_optimizers: tuple[str, ...] = ()
    """Graph optimizers of the runtime that were switched off."""
    static_shape: tuple[Count, Count] | None = None
    """Batch and length that a model without dynamic dimensions was compiled for."""
    parity: CheckedParity | None
    """None: not compared with the checkpoint, because another one was faster."""
    failure: str | None
    """Why it may not be used; None: no gate failed."""
    seconds: Seconds | None
    """Seconds per query; None: not timed."""


class HeadRecord(Record):
    """The head of another task in an engine with several."""

    task_definition: TaskDefinition
    checkpoint: ArtifactReference
    parity: CheckedParity
    gate_data: RowsRecord | None = None
    """The rows that it was compared on; None: random ids, those of the hub, or the demo's."""

    @property
    def output(self) -> str:
        """Name of the output with its logits."""
        return head_output(self.task_definition.name)


def head_output(task: str) -> str:
    """Return the name of the output with another task's logits, in an engine with several heads."""
    return f"logits_{task}"


def _check_parity(parity: Parity, task: Task, key: str) -> None:
    if parity.metric not in (None, *task.metrics):
        raise ValueError(f"{key}.metric: {parity.metric!r} is not a metric of the task")
    if unknown := {parity.worst_class, *parity.lost_classes} - {None, *task.labels}:
        raise ValueError(f"{key}: {unknown.pop()!r} is not a label of the task")


INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


class EngineInput(Record):
    """An input array of an engine; shapes are [rows, tokens]."""

    name: Annotated[str, OneOf("input", INPUT_NAMES)]
    dtype: Literal["int64"]
    min: tuple[Positive, Positive]
    opt: tuple[Annotated[int, Field(ge=1, le=_MAX_ROWS)], Positive]
    max: tuple[Positive | None, Annotated[int, Field(ge=1, le=_MAX_LENGTH)]]
    """None: any number of rows."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        rows, tokens = self.max
        if not (self.min[0] <= self.opt[0] and self.min[1] <= self.opt[1] <= tokens) or (
            rows is not None and self.opt[0] > rows
        ):
            raise ValueError("expected min <= opt <= max")
        return self


class EncoderShape(Record):
    """The unreduced encoder of an engine, whatever its family calls these numbers."""

    width: Annotated[int, Field(ge=1, le=_MAX_WIDTH)]
    """Of the hidden states."""
    heads: Positive
    """Attention heads of a layer."""
    intermediate: Positive
    """FFN neurons of a layer."""


class BuildHost(Record):
    """The machine that an engine was built on."""

    machine: str
    system: str
    cpu_count: Positive | None
    vnni: bool
    bf16: bool


def _precisions(scheme: str) -> tuple[str, ...]:
    """Return the precisions that a graph of a scheme made elsewhere may compute in."""
    if scheme.endswith("-weights"):
        return ("fp32", "fp16", "bf16")
    return (scheme.split("-")[0], "fp32")  # fp32: several kinds of products, none of them most


@dataclass(frozen=True)
class EngineExits:
    """Early exit of an engine, as results state it."""

    rule: ExitRule
    depths: tuple[int, ...]
    """Layers before each ramp and, last, before the model's head."""
    segments: int
    """Number of graphs."""

    def to_json(self) -> dict[str, Any]:
        return {**self.rule.to_json(), "depths": list(self.depths), "segments": self.segments}


class ForeignGraph(Record):
    """A graph that effx did not build."""

    producer: str
    """The program that wrote it, as it says."""
    weights_per_token: Count
    """Elements of the matrices that tokens are multiplied with, those of pooler and head among them."""


class CheckpointOrigin(Record):
    """How an engine's checkpoint was made: what tells seeds of one method and one method on several tasks."""

    seed: Count
    settings: Digest
    """Of everything that was set for the checkpoint but the seed: training and its rows, ticket, exits,
    tokens, teacher's settings and name, zeros, a mask that was given, pretrained model, maximum length."""
    trained_further: bool
    """Whether it was made from another checkpoint, or has the structure of one, whose settings ``settings``
    does not include."""
    unrecorded: bool = False
    """Whether something else of how it was made is not in ``settings``: how its teacher was trained, or the
    text on which its mask was found by masked language modelling."""
    distilled: bool = False
    """Whether it learned from a teacher."""
    ticket: TicketRecord | None = None
    speedup: float | None = None
    """What it was pruned to without training; None: it was not."""
    exits: ExitTarget | None = None
    tokens: TokensTarget | None = None


class EngineManifest(Manifest):
    """What engine.json holds."""

    variant: str
    precision: str
    scheme: str
    backend: str
    device: str
    checkpoint: ArtifactReference
    """Made elsewhere and not compared with a checkpoint: the graph's folder, and the digest of its file."""
    made_elsewhere: ForeignGraph | None = None
    """None: effx built it."""
    structure: CheckedStructure | None
    """None: made elsewhere."""
    weight_remaining: Share | None
    """Share of the full model's parameters that remain, ramps excluded; None: made elsewhere."""
    inputs: Annotated[tuple[EngineInput, ...], Field(min_length=2, max_length=3)]
    parameters_removed: Count = 0
    model: str | None = None
    """Short name of the pretrained model."""
    regime: str | None = None
    drop_layers: tuple[LayerStrategy, ...] = ()
    """By which strategies layers were dropped before training, in order; empty: none were, or by an older
    release."""
    origin: CheckpointOrigin | None = None
    """How the checkpoint was made; None: made elsewhere, or by an earlier version."""
    encoder: EncoderShape | None = None
    """None: unknown."""
    parity: CheckedParity | None
    """None: made elsewhere, and not compared with a checkpoint."""
    audit: Audit | None = None
    candidates: tuple[CandidateRecord, ...] | None = None
    """What was compared; None: there was one."""
    built_for: BuiltFor | None = None
    """The workload that the fastest candidate was chosen in; None: single rows and batches of 16."""
    merged_projections: bool = False
    """Whether Q, K and V of a layer are one product."""
    other_heads: tuple[HeadRecord, ...] = ()
    """Heads of other tasks, each of which is an output of its own; the engine's task has ``logits``."""
    gate_data: RowsRecord | None = None
    """The rows of the parity gate and of calibration; None: random ids, those of the hub, or the demo's."""
    calibration_rows: Count | None = None
    """Training rows that activation ranges were to be taken from; None: made elsewhere."""
    runtime: RuntimeSettings
    expenses: tuple[Expense, ...] | None = None
    """What had to be computed to have its checkpoint; None: unknown."""
    build_s: Seconds | None = None
    built_on: BuildHost | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        runtime = self.runtime
        if self.encoder is not None:
            self._check_encoder(self.encoder)
        row = backends.get(self.backend)
        row.device(self.device)
        if self.made_elsewhere is None and None in (self.structure, self.weight_remaining, self.parity):
            raise ValueError("structure, weight_remaining or parity is missing, but effx built the engine")
        if self.made_elsewhere is None and runtime.interface is not None:
            raise ValueError("runtime.interface: expected none, effx built the engine")
        variant = variants.parse(self.variant)
        if variant.precision not in (variants.AUTO, self.precision) or runtime.precision != self.precision:
            raise ValueError(f"precision: {self.precision!r} is not that of variant and runtime")
        self._check_schemes(row.schemes_for(variant.scheme, self.device))
        if variant.scheme == variants.AUTO and self.scheme not in row.schemes_for(
            self.precision, self.device
        ):
            raise ValueError(f"scheme: {self.scheme!r} does not compute in {self.precision}")
        divides = self.task_definition.behavior.form == "windows"
        if reason := variant.stride_refusal(self.max_length, divides=divides):
            raise ValueError(f"variant: {self.variant!r}: {reason}")
        if runtime.variant not in (None, self.variant):
            raise ValueError(
                f"runtime.variant: expected {self.variant!r}, as variant, got {runtime.variant!r}"
            )
        if runtime.device != self.device:
            raise ValueError(f"runtime.device: expected {self.device!r}, as device, got {runtime.device!r}")
        names = [entry.name for entry in self.inputs]
        if len(set(names)) < len(names) or names[:2] != ["input_ids", "attention_mask"]:
            raise ValueError("inputs: expected input_ids, attention_mask and perhaps token_type_ids")
        if len({entry.max for entry in self.inputs}) > 1:
            raise ValueError("inputs: expected the same max for all")
        if self.max_length > self.longest_input:
            raise ValueError(
                f"max_length: expected at most {self.longest_input}, as inputs, got {self.max_length}"
            )
        if self.parity is not None:
            _check_parity(self.parity, self.task_definition, "parity")
        for number, head in enumerate(self.other_heads):
            _check_parity(head.parity, head.task_definition, f"other_heads[{number}].parity")
        names = [self.task_definition.name, *(head.task_definition.name for head in self.other_heads)]
        if len(set(names)) < len(names) or variant.multi != bool(self.other_heads):
            raise ValueError("other_heads: expected one for each other task of a variant with multi")
        self._check_runtime()
        return self

    def _check_schemes(self, built: tuple[str, ...]) -> None:
        """Check the scheme; ``built``: those that effx builds of the variant."""
        if self.candidates is not None and len(self.candidates) < 2:
            raise ValueError(f"candidates: expected several or null, got {len(self.candidates)}")
        row, scheme, unquantized = backends.get(self.backend), self.scheme, self.runtime.unquantized_precision
        if scheme not in backends.SCHEMES:
            raise ValueError(f"scheme: unknown scheme {scheme[:40]!r}")
        if row.builder_module is not None and self.made_elsewhere is None and scheme not in built:
            raise ValueError(f"scheme: {self.backend} does not build {self.variant} as {scheme!r}")
        if self.made_elsewhere is not None and self.precision not in _precisions(scheme):
            raise ValueError(f"scheme: {scheme!r} does not compute in {self.precision}")
        if unknown := {candidate.scheme for candidate in self.candidates or ()} - {*built}:
            raise ValueError(f"candidates: {self.backend} does not build {min(unknown)[:40]!r}")
        if unquantized != ("bf16" if scheme == backends.INT8_BF16 else None):
            raise ValueError(f"runtime.unquantized_precision: {unquantized!r}, but the scheme is {scheme}")

    def _check_encoder(self, encoder: EncoderShape) -> None:
        layers = () if self.structure is None else self.structure.layers
        if any(max(layer.heads, default=-1) >= encoder.heads for layer in layers):
            raise ValueError(f"encoder.heads: {encoder.heads}, fewer than in structure")
        if any(layer.intermediate > encoder.intermediate for layer in layers):
            raise ValueError(f"encoder.intermediate: {encoder.intermediate}, fewer than in structure")
        if encoder.width % encoder.heads:
            raise ValueError(f"encoder.width: {encoder.width} is not a multiple of heads")
        if self.weight_remaining == 1 and any(
            len(layer.heads) < encoder.heads or layer.intermediate < encoder.intermediate for layer in layers
        ):
            raise ValueError("weight_remaining: 1, but structure has layers with fewer heads or neurons")

    def _check_runtime(self) -> None:
        runtime = self.runtime
        if not runtime.files or len(set(runtime.files)) < len(runtime.files):
            raise ValueError("runtime.files: expected at least one file, each once")
        for name in (*runtime.files, *runtime.weight_files.values()):
            _file_name(name)
        for key in ("input_names", "output_names", "weight_files"):
            if unknown := set(getattr(runtime, key)) - set(runtime.files):
                raise ValueError(f"runtime.{key}: {min(unknown)!r} is not in runtime.files")
        lengths = runtime.lengths
        if lengths is not None and (
            not lengths
            or any(after <= before for before, after in itertools.pairwise((0, *lengths)))
            or lengths[-1] > self.longest_input
        ):
            raise ValueError(f"runtime.lengths: expected rising numbers from 1 to {self.longest_input}")
        if runtime.pad_id < 0:
            raise ValueError(f"runtime.pad_id: expected an integer >= 0, got {runtime.pad_id}")
        if runtime.max_batch != self.inputs[0].max[0]:
            raise ValueError("runtime.max_batch: expected the rows of the inputs' max")
        if runtime.max_length not in (None, self.longest_input):
            raise ValueError(f"runtime.max_length: expected {self.longest_input}, as inputs, or null")
        if runtime.threads != variants.parse(self.variant).threads:
            raise ValueError(f"runtime.threads: {runtime.threads}, but the variant is {self.variant!r}")
        if unknown := set(runtime.disabled_optimizers) - {*backends.get(self.backend).disabled_optimizers}:
            raise ValueError(f"runtime.disabled_optimizers: unknown optimizer {min(unknown)[:40]!r}")
        if runtime.static_shape is not None:
            self._check_static_shape(runtime.static_shape)
        if runtime.interface is not None:
            self._check_interface(runtime.interface)
        exits = runtime.exits
        layers = 0 if self.structure is None else len(self.structure.layers)
        if exits is None:
            if len(runtime.files) > 1:
                raise ValueError(f"runtime.files: expected one file without exits, got {len(runtime.files)}")
            return
        if any(after <= before for before, after in itertools.pairwise((0, *exits.depths))):
            raise ValueError("runtime.exits.depths: expected rising numbers >= 1")
        if not exits.depths or exits.depths[-1] != layers:
            raise ValueError(f"runtime.exits.depths: expected {layers} as the last, the number of layers")
        if len(runtime.files) not in (1, len(exits.depths)):
            raise ValueError(f"runtime.files: expected 1 or {len(exits.depths)}, one per exit and head")

    def _check_static_shape(self, shape: tuple[int, int]) -> None:
        if not backends.get(self.backend).compiles_static_shapes:
            raise ValueError(f"runtime.static_shape: {self.backend} does not compile one")
        if not (1 <= shape[0] <= MAX_STATIC_BATCH and 1 <= shape[1] <= self.longest_input):
            raise ValueError(
                f"runtime.static_shape: expected 1 to {MAX_STATIC_BATCH} rows and 1 to {self.longest_input} "
                "tokens"
            )

    def _check_interface(self, interface: GraphInterface) -> None:
        if unknown := set(interface.inputs.values()) - {entry.name for entry in self.inputs}:
            raise ValueError(f"runtime.interface.inputs: {min(unknown)!r} is not in inputs")
        if interface.dtypes.keys() != interface.inputs.keys() or not set(interface.dtypes.values()) <= {
            "int64",
            "int32",
        }:
            raise ValueError("runtime.interface.dtypes: expected int64 or int32 for every input")
        order = interface.label_order
        if order is not None and sorted(order) != list(range(len(self.task_definition.labels))):
            raise ValueError("runtime.interface.label_order: expected each label once")

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty for regression."""
        return self.task_definition.labels

    @property
    def worst_parity(self) -> Parity | None:
        """The first comparison that failed; else that of the engine's own task, which may be None."""
        failed = (head.parity for head in self.other_heads if not head.parity.passed)
        if self.parity is None or not self.parity.passed:
            return self.parity
        return next(failed, self.parity)

    @property
    def longest_input(self) -> int:
        """The most tokens per row that the engine accepts."""
        return self.inputs[0].max[1]

    @property
    def largest_batch(self) -> int | None:
        """The most rows that the engine accepts at a time; None: any number."""
        return self.inputs[0].max[0]

    @property
    def exits(self) -> EngineExits | None:
        """Early exit; None: every row runs through all layers."""
        exits = self.runtime.exits
        return None if exits is None else EngineExits(exits.rule, exits.depths, len(self.runtime.files))
