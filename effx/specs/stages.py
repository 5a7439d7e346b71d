"""The stages of a recipe: one row each, with all that planning and keys need to know, without PyTorch.

    pretrain ── finetune ──┬── prune ──┬── tokens ──┬── exits
                           └───────────┴────────────┴── export ── profile ── report
    lottery ── lottery-mask ── lottery ...  ── lottery-table     (each round of a lottery ticket is a cell)
    tickets-full ── tickets-scores ── ticket ── tickets-rung ── tickets
    lottery, lottery-mask, tickets-scores and ticket of several tasks ── transfer-table
    adapt ── adaptation
    prune, of all tasks ── multitask ── multitask-checkpoint, of each task ── further ── export
    given ── export ── fastest ── costs ── one-shot ── recovery ── exits ── export ── profile ── answer
                                                        (effx optimize)    └── choosing ──┘

A new stage is one row here, its settings, and the function ``run`` in a module of its name in
``effx/recipe/execute/stages/``. Its key follows from the row: settings, rows, the code that ``code``,
``code_of_backend`` and ``assets`` name with what it imports, and the versions of ``packages`` and of the
backends' packages. So do the recipe's section of a stage that trains checkpoints, the chains of such stages,
and their cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from effx.specs.adaptation import AdaptationSettings
from effx.specs.distillation import DistillationSettings
from effx.specs.exits import EarlyExitSettings
from effx.specs.heads import HeadSettings
from effx.specs.lottery import LotterySearchSettings, LotterySettings, MlmSettings
from effx.specs.measurement import BuiltFor, MeasurementPlan
from effx.specs.multitask import MultitaskSettings
from effx.specs.optimize import OneShotSettings, OptimizeSettings
from effx.specs.settings import Settings
from effx.specs.tickets import LevelField, TicketSearchSettings, TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.specs.transfer import TransferRun, TransferSettings
from effx.specs.variants import CALIBRATION_ROWS


class PretrainStage(Settings):
    """Pretrain the demo's encoder; nothing can be set."""


class DistilledStage(Settings):
    """What the stages have in common that may learn from a teacher."""

    teacher: str | None = None
    """Name of the cell whose checkpoint is the teacher; None: there is no teacher."""
    distillation: DistillationSettings = DistillationSettings()


class TaughtStage(Settings):
    """What the stages of sweeps have in common that may learn from a teacher that the user gives."""

    teacher_digest: str | None = None
    """Of the teacher's manifest; None: there is no teacher."""
    distillation: DistillationSettings = DistillationSettings()


class FinetuneStage(DistilledStage):
    """Fine-tune a pretrained encoder on a task."""

    task: str
    trust_remote_code: bool = False
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class PruneStage(DistilledStage):
    """Prune a ticket by the scores of a checkpoint and fine-tune it from the pretrained weights."""

    task: str
    trust_remote_code: bool = False
    head: HeadSettings = HeadSettings()
    ticket: TicketSettings


class LotteryMaskStage(Settings):
    """Find the mask of a percentage of the weights, and write its file."""

    task: str
    """Empty: the passages of a file, or the pretrained weights alone, decide the mask."""
    percent: int
    """Percentage of the weights that the mask sets to zero."""
    kind: str
    """imp and standard: the smallest weights of the round before; one-shot: of the pretrained weights;
    random: drawn with the seed."""
    objective: str = "task"
    """mlm: with kind imp, a round of masked language modelling under the mask before is trained first; with
    one-shot, the pretrained weights are those of the language model."""
    text_digest: str | None = None
    """SHA-256 of the file of passages; None: the task's training texts."""
    mlm_rows: str = "passages"
    """What masked language modelling trains on, as in :class:`effx.specs.lottery.MlmSettings`."""
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    """Of masks that are not found in a checkpoint: how to train, or the layers and the seed."""


class LotteryRewindStage(TaughtStage):
    """Fine-tune the pretrained weights for some steps; the state is what later rounds are rewound to."""

    task: str
    rewind: int
    """Optimizer steps."""
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class LotteryRoundStage(TaughtStage):
    """Fine-tune weights under a mask."""

    task: str
    percent: int | None
    """Percentage of the weights that the mask sets to zero; 0: there is no mask, the first round. None: the
    mask was given as a file."""
    kind: str | None
    """How the mask was found; None: there is no mask, or it was given as a file."""
    init: str = "pretrained"
    """Which weights are fine-tuned, if no other cell has them."""
    rewind: int | None = None
    """Optimizer steps after which the first fine-tuning had the weights; None: it is not rewound to."""
    objective: str | None
    """For the manifest: what the rounds trained; None: nothing, or unknown, as the mask was given."""
    mask_digest: str | None = None
    """SHA-256 of the mask file that was given."""
    source: str | None = None
    """Where the mask was found, if not on the same task with the same seed."""
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class LotteryTableStage(Settings):
    """Write the table and the figure of a search for lottery tickets."""

    task: str
    model: str
    """Its name, for the table."""
    lottery: LotterySearchSettings = LotterySearchSettings()
    """Without files."""


class TokensStage(DistilledStage):
    """Give a checkpoint a token schedule."""

    task: str
    tokens: TokenPruningSettings = TokenPruningSettings()
    limit_s: float | None = None
    """Seconds of training at most; None: as many as its epochs take."""
    rows_apart: int = 0
    """Of the rows that limit and share leave out, those that are not used at all."""


class ExitsStage(DistilledStage):
    """Give a checkpoint early exits."""

    task: str
    exits: EarlyExitSettings = EarlyExitSettings()
    limit_s: float | None = None
    """Seconds of training at most; None: as many as its epochs take."""
    rows_apart: int = 0
    """Of the rows that limit and share leave out, those that are not used at all."""


class MultitaskStage(Settings):
    """Train one encoder on all tasks of a recipe."""

    tasks: tuple[str, ...]
    trust_remote_code: bool = False
    multitask: MultitaskSettings = MultitaskSettings()


class MultitaskCheckpointStage(Settings):
    """Take the checkpoint of one task from a multi-task training."""

    task: str


class FurtherStage(DistilledStage):
    """Fine-tune a checkpoint further on its task."""

    task: str
    finetune: FinetuneSettings = FinetuneSettings()


class TicketsFullStage(TaughtStage):
    """Fine-tune the full model of one seed of a search for tickets."""

    task: str
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class TicketsScoresStage(Settings):
    """Score the structures of a full model."""

    importance: str = "taylor"
    granularity: str = "ffns"
    training: TrainingSettings = TrainingSettings()
    """Its batch size, precision, seed, limit and share decide the scores."""
    given_digest: str | None = None
    """SHA-256 of a file of scores that was given; None: the full model is scored."""


class TicketStage(TaughtStage):
    """Train one ticket of a search."""

    task: str
    head: HeadSettings = HeadSettings()
    ticket: TicketSettings
    source: str | None = None
    """Where the scores are from, if not from the same task with the same seed."""


class TicketsRungStage(Settings):
    """Choose the better half of the levels of a rung of successive halving."""

    task: str
    levels: tuple[LevelField, ...]
    rung: int
    """Counted from 1."""
    steps: int
    """Optimizer steps of each level so far, over its seeds."""
    selection: float
    seed: int


class TicketsStage(TaughtStage):
    """Write the table and the figures of a search for tickets."""

    task: str
    model: str
    """Its name, for the table."""
    grid_steps: int | None = None
    """For successive halving: the maximum optimizer steps of the complete grid."""
    tickets: TicketSearchSettings = TicketSearchSettings()
    scores_given: bool = False
    """Whether tickets are pruned by scores that were given, not by those of the full models."""


class TransferTableStage(Settings):
    """Write the table and the figure of a transfer of masks and tickets between tasks."""

    model: str
    """Its name, for the table."""
    runs: tuple[TransferRun, ...]
    """Every fine-tuning, and what it is in the table."""
    transfer: TransferSettings = TransferSettings()
    """Without files and controls."""
    mlm: MlmSettings | None = None
    """How the control mlm was found, without the file; None: there is none."""
    text_digest: str | None = None
    """SHA-256 of the file of passages."""


class AdaptStage(Settings):
    """Fine-tune one model on one draw of a share of a task's rows."""

    task: str
    model: str
    """Its name, for the table."""
    head: HeadSettings = HeadSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class AdaptationStage(Settings):
    """Write the table and the figure of a few-shot adaptation."""

    task: str
    models: tuple[str, ...]
    """Their names; the first is the one that the others are compared with."""
    adaptation: AdaptationSettings = AdaptationSettings()


class GivenStage(Settings):
    """Take a checkpoint that the user gave; nothing can be set."""


class FastestStage(Settings):
    """Choose the forms in which the unreduced model is the fastest."""

    workload: BuiltFor
    host: str
    """Id of the host on which the engines are timed."""


class CostsStage(Settings):
    """Measure what attention and FFNs of every size cost."""

    variant: str
    backend: str
    device: str | None = None
    workload: BuiltFor
    rounds: int
    checks: int
    seed: int
    host: str
    """Id of the host that measures."""
    meter: str = "none"
    """Of energy, as :func:`effx.meters.open` takes it."""


class OneShotStage(Settings):
    """Prune a checkpoint without training, to a speed-up by a table of costs."""

    one_shot: OneShotSettings = OneShotSettings()
    limit: int | None = None
    """Of the training rows: as of the trainings, so that rows that these leave out are not used."""
    share: float | None = None
    """Likewise."""


class RecoveryStage(Settings):
    """Train a pruned checkpoint with the unpruned one as its teacher."""

    task: str
    limit_s: float | None = None
    """Seconds of training at most; None: as many as its epochs take."""
    text_digest: str | None = None
    """SHA-256 of the file of further texts without labels; None: there is none."""
    finetune: FinetuneSettings = FinetuneSettings()
    distillation: DistillationSettings = DistillationSettings()


class ChoosingStage(Settings):
    """Predict training rows that no pruned model was trained on, with every engine."""

    rows: int
    """At most."""
    training: TrainingSettings = TrainingSettings()
    """Its limit, share and seed say which rows were trained on."""
    workload: BuiltFor = "single"
    unseen: tuple[str, ...] = ()
    """Engines whose last training left these rows out."""


class AnswerStage(Settings):
    """Find the cheapest engine of a session that is proven to lose at most what is accepted."""

    optimize: OptimizeSettings = OptimizeSettings()
    workload: BuiltFor = "single"
    by_agreement: bool = False
    """Whether the labels of the rows are the given checkpoint's own predictions."""
    overlap: int = 0
    """Validation rows whose texts are also those of training rows."""
    different_texts: int | None = None
    """Of the validation rows, where many are repeated; None: few are."""


class ExportStage(Settings):
    """Build one engine."""

    variant: str
    backend: str
    device: str | None = None
    calibration_rows: int = CALIBRATION_ROWS
    built_for: BuiltFor | None = None
    host: str | None = None
    """Id of the host whose times choose among several candidates; None: nothing is timed."""
    vnni: bool | None = None
    """Whether the processor has VNNI, of int8 on the CPU; None: it does not matter."""
    bf16: bool | None = None
    """Whether the processor multiplies bf16, of bf16 on the CPU; None: it does not matter."""


class ProfileStage(Settings):
    """Measure the engines of a task."""

    plan: MeasurementPlan = MeasurementPlan()
    meter: str = "auto"
    host: str
    """Id of the host that measures."""


class ReportStage(Settings):
    """Draw the frontiers; nothing can be set."""


@dataclass(frozen=True)
class SectionSpec:
    """The section of a recipe in which users name the trainings of a stage."""

    name: str
    """Key in the recipe."""
    settings: type[Settings]
    """What an entry sets: a group of the stage's settings."""
    hidden: frozenset[str] = frozenset()
    """Settings of that type, or of distillation, that a recipe does not take here."""
    variant_part: str | None = None
    """``exits`` or ``tokens``: the part of a variant that runs what the stage adds to a checkpoint."""
    joins_tasks: bool = False
    """Whether a training reads the checkpoints of all tasks, or without ``of`` the pretrained encoder."""
    bare_label: str | None = None
    """The setting that has the label of an entry as its value, if the entry does not set it and it may have
    that value; the label of an entry that sets nothing has to be one."""


@dataclass(frozen=True)
class StageSpec:
    """A stage of a recipe."""

    name: str
    settings: type[Settings]
    code: tuple[str, ...]
    """Modules that decide the result, with all that they import; globs relative to the package. The stage's
    own function is always one."""
    packages: tuple[str, ...]
    """Distributions whose versions decide the result."""
    follows: tuple[str, ...] = ()
    """Stages whose cells it may read."""
    view: str | None = None
    """Link to the result in the workspace; {name} is the cell's. Ending in ``/*``: a link to each file."""
    gpu: bool = False
    """Whether it computes on the GPU, where there is one."""
    measures: bool = False
    """Whether it measures, so that it takes all processors and nothing else may run on its host."""
    any_source: bool = False
    """It reads those of its cells that were built, at least one, instead of all."""
    reads_artifacts: bool = True
    """False: it reads records and small results of other cells, not their checkpoints."""
    shares_process: bool = False
    """Whether its cells may be done one after the other in one process; importing PyTorch takes seconds."""
    code_of_backend: tuple[str, ...] = ()
    """As ``code``, for each backend in use: {engine} and {builder} are the modules that its row names."""
    code_of_meter: tuple[str, ...] = ()
    """As ``code``, for the energy meter in use."""
    assets: tuple[str, ...] = ()
    """Other files that decide the result."""
    section: SectionSpec | None = None
    """Where recipes have its trainings; None: it follows from other sections."""

    @property
    def may_distil(self) -> bool:
        """Whether a training of this stage may have a teacher."""
        return issubclass(self.settings, DistilledStage)

    @property
    def continues(self) -> bool:
        """Whether it takes the checkpoints of other sections."""
        return any(STAGES[name].section is not None for name in self.follows if name != self.name)


def _training(
    name: str, settings: type[Settings], code: str, follows: tuple[str, ...] = (), **more: Any
) -> StageSpec:
    """Return the row of a stage that trains; its result is a checkpoint unless ``view`` says otherwise."""
    row = {
        "packages": ("torch", "transformers", "tokenizers", "numpy"),
        "view": "checkpoints/{name}",
        "gpu": True,
        "shares_process": True,
    }
    return StageSpec(name, settings, (code,), follows=follows, **{**row, **more})


_DRAW = "train/tickets/draw.py"
_ROWS = (
    _training("pretrain", PretrainStage, "demo/pretraining.py", view="pretrained/{name}"),
    _training(
        "finetune", FinetuneStage, "train/finetune.py", ("pretrain", "finetune"),
        section=SectionSpec("regimes", FinetuneSettings, bare_label="regime"),
    ),
    _training("lottery-rewind", LotteryRewindStage, "train/lottery/rounds.py", ("pretrain",), view=None),
    _training(
        "lottery-mask", LotteryMaskStage, "train/lottery/masks.py", ("pretrain", "lottery-mask", "lottery"),
        view="masks/*",
    ),
    _training(
        "lottery", LotteryRoundStage, "train/lottery/rounds.py",
        ("pretrain", "lottery", "lottery-mask", "lottery-rewind"),
        section=SectionSpec("lottery", LotterySettings, frozenset({"text", "mlm_rows", "mask"})),
    ),
    StageSpec(
        "lottery-table", LotteryTableStage,
        ("train/lottery/table.py", "train/lottery/figure.py", "formatting.py"),
        ("numpy", "scipy", "matplotlib"), view="*", reads_artifacts=False, shares_process=True,
        follows=("lottery",),
    ),
    _training(
        "prune", PruneStage, _DRAW, ("finetune", "pretrain"),
        section=SectionSpec(
            "pruned", TicketSettings, frozenset({"layers", "drop_layers", "head_dropout", "head_pooling"})
        ),
    ),
    _training(
        "tokens", TokensStage, "train/tokens.py",
        ("finetune", "prune", "lottery", "given", "recovery"),
        section=SectionSpec(
            "tokens", TokenPruningSettings, frozenset({"hidden_weight"}), variant_part="tokens"
        ),
    ),
    _training(
        "exits", ExitsStage, "train/exits.py",
        ("finetune", "prune", "lottery", "tokens", "given", "recovery"),
        section=SectionSpec("exits", EarlyExitSettings, frozenset({"hidden_weight"}), variant_part="exits"),
    ),
    _training(
        "multitask", MultitaskStage, "train/multitask/run.py", ("pretrain", "prune"), view=None,
        section=SectionSpec(
            "multitask", MultitaskSettings, frozenset({"task_limit"}), joins_tasks=True
        ),
    ),
    StageSpec(
        "multitask-checkpoint", MultitaskCheckpointStage, (), (), follows=("multitask",),
        view="checkpoints/{name}", shares_process=True,
    ),
    _training(
        "further", FurtherStage, "train/finetune.py", ("multitask", "multitask-checkpoint"),
        section=SectionSpec("further", FinetuneSettings, frozenset({"regime", "layers", "drop_layers"})),
    ),
    _training("tickets-full", TicketsFullStage, "train/finetune.py"),
    _training("tickets-scores", TicketsScoresStage, _DRAW, ("tickets-full", "lottery"), view=None),
    _training("ticket", TicketStage, _DRAW, ("tickets-scores",), reads_artifacts=False),
    StageSpec(
        "tickets-rung", TicketsRungStage, ("train/tickets/halving.py",), ("numpy", "scipy"),
        follows=("ticket",), reads_artifacts=False, shares_process=True,
    ),
    StageSpec(
        "tickets", TicketsStage,
        ("train/tickets/table.py", "train/tickets/figure.py", "formatting.py"),
        ("numpy", "scipy", "matplotlib"), view="tickets/{name}/*", reads_artifacts=False, shares_process=True,
        follows=("tickets-full", "tickets-scores", "ticket", "tickets-rung"),
    ),
    StageSpec(
        "transfer-table", TransferTableStage,
        ("train/transfer/table.py", "train/transfer/figure.py", "formatting.py"),
        ("numpy", "scipy", "matplotlib"), view="*", reads_artifacts=False, shares_process=True,
        follows=("lottery", "ticket"),
    ),
    _training("adapt", AdaptStage, "train/finetune.py"),
    StageSpec(
        "adaptation", AdaptationStage,
        ("train/adaptation/table.py", "train/adaptation/figure.py", "formatting.py"),
        ("numpy", "scipy", "matplotlib"), view="*", reads_artifacts=False, shares_process=True,
        follows=("adapt",),
    ),
    StageSpec(
        "given", GivenStage, (), (), view="checkpoints/{name}", shares_process=True,
    ),
    StageSpec(
        "costs", CostsStage, ("optimize/measure_costs.py",),
        ("torch", "transformers", "onnx", "onnxscript", "tokenizers", "numpy"), follows=("given",),
        view="costs/{name}", gpu=True, measures=True,
        code_of_backend=("engines/{engine}.py", "export/builders/{builder}.py"),
        code_of_meter=("meters/{meter}.py",),
    ),
    _training("one-shot", OneShotStage, "optimize/one_shot.py", ("given", "costs", "recovery")),
    _training("recovery", RecoveryStage, "train/finetune.py", ("one-shot", "given")),
    StageSpec(
        "export", ExportStage, ("export/plan.py",),
        ("torch", "transformers", "onnx", "onnxscript", "tokenizers"), view="engines/{name}",
        follows=(
            "finetune", "prune", "lottery", "tokens", "exits", "multitask-checkpoint", "further", "given",
            "one-shot", "recovery",
        ),
        code_of_backend=("engines/{engine}.py", "export/builders/{builder}.py"),
    ),
    StageSpec(
        "profile", ProfileStage, ("profile/run.py", "profile/worker.py"), ("numpy", "tokenizers"),
        follows=("export",), view="results/{name}", gpu=True, measures=True, any_source=True,
        code_of_backend=("engines/{engine}.py",), code_of_meter=("meters/{meter}.py",),
    ),
    StageSpec(
        "fastest", FastestStage, ("optimize/forms.py", "export/fastest.py"), ("numpy", "tokenizers"),
        follows=("export",), any_source=True, measures=True, code_of_backend=("engines/{engine}.py",),
    ),
    StageSpec(
        "choosing", ChoosingStage, ("optimize/choosing.py", "profile/worker.py"), ("numpy", "tokenizers"),
        follows=("export",), any_source=True, code_of_backend=("engines/{engine}.py",),
    ),
    StageSpec(
        "answer", AnswerStage, ("analysis/optimized.py", "formatting.py"), ("numpy", "scipy"),
        follows=("profile", "choosing"), view="answer", shares_process=True,
    ),
    StageSpec(
        "report", ReportStage, ("report/__init__.py", "report/*.py", "formatting.py"),
        ("matplotlib", "numpy"), follows=("profile", "answer"), view="report", any_source=True,
        assets=("report/assets/*", "report/templates/*"),
    ),
)  # fmt: skip

STAGES = {row.name: row for row in _ROWS}
"""Stage -> its row, in an order in which their cells can be done."""
SECTIONS = {row.section.name: row for row in _ROWS if row.section is not None}
"""Section of a recipe -> the row of its stage, in the order in which sections may refer to each other."""
