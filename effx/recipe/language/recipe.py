"""A recipe as data: what is trained, built and measured.

The sections consist of settings of :mod:`effx.specs`, so recipes and the command line accept the same values.
A section holds only what the recipe sets. Defaults are applied when cells are planned: what a stage does not
set is taken from ``training`` and from the stage before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, create_model, field_validator, model_validator

from effx.specs import meters, variants
from effx.specs.backends import BUILDABLE
from effx.specs.data import DataSettings, DataSource
from effx.specs.distillation import DistillationSettings
from effx.specs.heads import HeadSettings
from effx.specs.levels import SUPER, Level
from effx.specs.lottery import LotterySettings
from effx.specs.measurement import BuiltFor, MeasurementPlan
from effx.specs.presets import PRESETS
from effx.specs.settings import OneOf, Parsed, Seed, Settings, leaves, wrong
from effx.specs.stages import SECTIONS, StageSpec
from effx.specs.tickets import TicketSearchSettings, TicketSettings
from effx.specs.training import Count, NotNegative, Positive, TrainingSettings
from effx.specs.variants import CALIBRATION_ROWS

DEMO_MODEL = "demo"
"""The model that effx pretrains itself; see :mod:`effx.demo.pretraining`."""
_OF_RECIPE = frozenset({"seed", "limit"})
"""Settings that the recipe sets for all its stages, in ``seeds`` and ``tasks``."""


def _variant(text: str) -> str:
    return variants.parse(text).text


class TaskEntry(Settings):
    """A task and its rows."""

    name: str
    data: str | None = None
    """File or folder of the rows; None: the hub, or the demo corpus."""
    limit: Count | None = None
    """Maximum number of training rows."""
    reading: DataSettings = DataSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.data is None and self.reading.given():
            name = next(iter(self.reading.given()))
            raise wrong(f"{name} says how local files are read: add data.", name, "data")
        if self.reading.unlabelled:
            raise wrong("a recipe trains, which needs labels: leave unlabelled out.", "unlabelled")
        return self

    @property
    def source(self) -> DataSource | None:
        """Where the rows are."""
        return None if self.data is None else DataSource(self.data, self.reading)


class ModelEntry(Settings):
    """A pretrained encoder, or a fine-tuned model."""

    label: str
    source: Annotated[str, Field(min_length=1)]
    """A folder, a name on the hub, or ``demo``."""
    trust_remote_code: bool = False
    head: HeadSettings = HeadSettings()
    only: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Labels of the stages that are trained from it. Default: all, and the search in tickets; with labels,
    that search is done only if one of them has the level super."""

    def trains(self, label: str) -> bool:
        """Return whether a stage of that label may be trained from it."""
        return self.only is None or label in self.only


class TrainingDefaults(Settings):
    """Values for every training stage that does not set them."""

    HIDDEN: ClassVar[frozenset[str]] = _OF_RECIPE

    epochs: Positive | None = None
    training: TrainingSettings = TrainingSettings()


class TeachingSettings(Settings):
    """From whom, and how, the checkpoint of a stage learns besides the labels."""

    teacher: str | None = None
    """Label of the regime whose checkpoint, of the same task, model and seed, it learns from."""
    distillation: DistillationSettings = DistillationSettings()

    @model_validator(mode="after")
    def _has_teacher(self) -> Self:
        if self.teacher is None and (given := self.distillation.given()):
            name = next(iter(given))
            raise wrong(f"{name} has no effect without a teacher: add teacher.", name, "teacher")
        return self


class StageEntry(Settings):
    """A labelled stage: one way to train."""

    HIDDEN: ClassVar[frozenset[str]] = _OF_RECIPE
    """Settings that cannot be set here."""

    label: str
    parents: Annotated[tuple[str, ...], Field(alias="of")] = ()
    """Labels of the stages whose checkpoints it takes; a regime and a lottery ticket have none."""
    teaching: TeachingSettings = TeachingSettings()
    settings: Settings


def _entry_type(row: StageSpec) -> type[StageEntry]:
    """Return the type of the entries of a stage's section."""
    section = row.section
    assert section is not None
    hidden = _OF_RECIPE | section.hidden | (frozenset() if row.continues else {"of"})
    hidden |= frozenset() if row.may_distil else {leaf.name for leaf in leaves(TeachingSettings)}
    required = any(field.is_required() for field in section.settings.model_fields.values())
    entry = create_model(
        f"{row.name.title()}Entry",
        __base__=StageEntry,
        __doc__=row.settings.__doc__,
        settings=(section.settings, ... if required else section.settings()),
    )
    entry.HIDDEN = hidden
    return entry


ENTRIES: Mapping[str, type[StageEntry]] = {section: _entry_type(row) for section, row in SECTIONS.items()}
"""Section -> the type of its entries."""


class TicketsEntry(Settings):
    """A search for super tickets. ``keep`` cannot be set: all records remain in the workspace."""

    HIDDEN: ClassVar[frozenset[str]] = _OF_RECIPE | {"keep"}

    preset: Annotated[str, OneOf("preset", tuple(PRESETS))] | None = None
    """Published training settings. The settings of the search override them; they override ``training``."""
    tickets: TicketSearchSettings = TicketSearchSettings()


class VariantEntry(Settings):
    """A variant to build."""

    variant: Annotated[str, Parsed(_variant, "VARIANT", "a variant, e.g. int8 or exit+int8")]
    parents: Annotated[tuple[str, ...] | None, Field(alias="of")] = None
    """Labels of the stages it is built of; None: those that have exactly the exits and tokens it names."""

    @property
    def text(self) -> str:
        """The variant as written, without spaces."""
        return self.variant


class BackendEntry(Settings):
    """A runtime for the engines."""

    backend: Annotated[str, OneOf("backend", BUILDABLE)]
    device: str | None = None


class WorkloadsEntry(Settings):
    """How engines are measured."""

    plan: MeasurementPlan = MeasurementPlan()
    meter: Annotated[str, Parsed(meters.check, meters.grammar(), "a meter, e.g. rapl or model:5")] = "auto"
    """Energy meter."""


class Budgets(Settings):
    """Limits of a run. None: no limit."""

    total_s: Positive | None = None
    """No cell is started after this time; running cells are finished."""
    cell_s: Positive | None = None
    """A cell that takes longer is stopped, and counts as failed. Time in the queue of Ray does not count."""
    threads: Count | None = None
    """Compute threads of a cell; None: the available processors, shared by ``at_once``."""
    at_once: Count = 1
    """Cells in parallel on one machine; measurements always run alone."""
    memory_bytes: Count | None = None
    """Memory that Ray reserves for a cell."""
    gpus: NotNegative = 0.0
    """GPUs, or a share of one, that Ray gives to a cell that trains or measures."""
    retries: Annotated[int, Field(ge=0)] = 3
    """How many times Ray restarts a cell whose node was lost."""


class RecipeBase(Settings):
    """A recipe without the sections of stages."""

    name: str
    workspace: Annotated[str, Field(min_length=1)]
    tasks: tuple[TaskEntry, ...]
    models: tuple[ModelEntry, ...]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    limit: Count | None = None
    """Maximum number of training rows of tasks without ``limit``."""
    training: TrainingDefaults = TrainingDefaults()
    tickets: TicketsEntry | None = None
    variants: tuple[VariantEntry, ...] = ()
    backends: tuple[BackendEntry, ...] = (BackendEntry(backend="onnxruntime"),)
    calibration_rows: Count = CALIBRATION_ROWS
    built_for: BuiltFor | None = None
    """The workload in which engines are the fastest of several candidates: single, BxL or offline. Default:
    int8 is the fastest in single rows and batches of 16 alike, and others are built as they are named."""
    workloads: WorkloadsEntry = WorkloadsEntry()
    budgets: Budgets = Budgets()

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise wrong(f"duplicate seed {seed}.")
        return seeds

    @property
    def folder(self) -> Path:
        """The workspace."""
        return Path(self.workspace)

    @property
    def needs_search(self) -> bool:
        """Whether a ticket has the level that the search for tickets chooses."""
        return any(level_of(stage) == SUPER for stage in self.entries("pruned"))

    def entries(self, section: str) -> tuple[StageEntry, ...]:
        """Return the entries of a section of :data:`effx.specs.stages.SECTIONS`."""
        entries: tuple[StageEntry, ...] = getattr(self, section)
        return entries

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as a mapping; reading it gives the same recipe."""

        def stages(group: tuple[StageEntry, ...]) -> dict[str, Any]:
            return {
                stage.label: {
                    **_of(stage.parents),
                    **_given(stage.teaching),
                    **_given(stage.settings),
                }
                for stage in group
            }

        whole = {
            "name": self.name,
            "workspace": self.workspace,
            "limit": self.limit,
            "tasks": {
                task.name: {"data": task.data, "limit": task.limit, **_given(task.reading)}
                for task in self.tasks
            },
            "models": {
                model.label: {
                    "source": model.source,
                    "trust_remote_code": model.trust_remote_code,
                    **_given(model.head),
                    **({} if model.only is None else {"only": list(model.only)}),
                }
                for model in self.models
            },
            "seeds": list(self.seeds),
            "training": _given(self.training),
            **{section: stages(self.entries(section)) for section in SECTIONS},
            "tickets": None if self.tickets is None else _given(self.tickets) or {"preset": None},
            "variants": [{"variant": variant.text, **_of(variant.parents)} for variant in self.variants],
            "backends": [_given(backend) for backend in self.backends],
            "calibration_rows": self.calibration_rows,
            "built_for": self.built_for,
            "workloads": _given(self.workloads),
            "budgets": _given(self.budgets),
        }
        return {  # without the key, variants have a default
            key: value for key, value in whole.items() if value not in ({}, [], None) or key == "variants"
        }


if TYPE_CHECKING:
    Recipe = RecipeBase
else:
    Recipe = create_model(
        "Recipe",
        __base__=RecipeBase,
        __doc__="A recipe: its sections of stages are those of :data:`effx.specs.stages.SECTIONS`.",
        **{section: (tuple[entry, ...], ()) for section, entry in ENTRIES.items()},
    )


def level_of(stage: StageEntry) -> Level | None:
    """Return the level of a ticket in ``pruned``, which may be ``super``; None: of another section."""
    settings = stage.settings
    return settings.level if isinstance(settings, TicketSettings) else None


def lottery_settings(recipe: RecipeBase, stage: StageEntry, **shared: Any) -> LotterySettings:
    """Return the settings of an entry of ``lottery``; ``shared``: those that the recipe sets for all stages.

    Raises:
        UsageError: settings of the entry and those of ``training`` exclude each other.
    """
    return LotterySettings.of(**{**recipe.training.given(), **stage.settings.given(), **shared})


def _of(parents: tuple[str, ...] | None) -> dict[str, Any]:
    return {"of": list(parents)} if parents else {}


def _given(settings: Settings) -> dict[str, Any]:
    """Return the settings that the recipe sets, as JSON values."""
    values = settings.to_json()
    return {name: values[name] for name in settings.given()}
