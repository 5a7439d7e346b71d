"""Settings of everything that trains, without PyTorch: the command line and recipes read them too.

    TrainingSettings        the optimizer and its data, whatever is trained
    FinetuneSettings        a pretrained encoder on a task
    PruningSettings         how structures are scored, and which may be pruned
    TicketSettings          one ticket: a level and a kind, pruned and fine-tuned
    TicketSearchSettings    many tickets, and the search for the super ticket
    MlmSettings             the rounds of a search for masks by masked language modelling
    LotterySettings         one unstructured lottery ticket
    LotterySearchSettings   many lottery tickets, compared with the full model
    AdaptationSettings      few-shot adaptation of several models to one task
    TokenPruningSettings    a token schedule
    EarlyExitSettings       early-exit ramps
    MultitaskSettings       several tasks with one encoder

Those of a transfer of masks between tasks are in :mod:`effx.specs.transfer`.

Each choice is a tuple of names here; the code that trains has a function for each name, and a test compares
the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from effx.errors import UsageError, nearest
from effx.specs import exit_rules, variants
from effx.specs.constraints import Confidence
from effx.specs.layer_reduction import CONTRIBUTION, STRATEGIES, TOP
from effx.specs.levels import ELLIPSES, Level, parse_level_or_super, parse_levels
from effx.specs.quantities import parse_share
from effx.specs.settings import OneOf, Parsed, Seed, Settings, wrong

OPTIMIZERS = ("adamw", "adamax")
PRECISIONS = ("auto", "fp32", "bf16")
IMPORTANCE_METHODS = ("taylor", "fisher", "published", "magnitude", "random")
GRANULARITIES = ("ffns", "neurons")
TICKET_KINDS = ("winning", "random", "losing")
SEARCHES = ("grid", "halving")
SHARINGS = ("strict", "published", "none")
KEPT_CHECKPOINTS = ("all", "winning", "none")
OBJECTIVES = ("task", "mlm")
MASK_KINDS = ("imp", "random", "one-shot", "standard")
START_WEIGHTS = ("pretrained", "fresh", "shuffled")
MLM_ROWS = ("passages", "blocks")
MLM_PRUNE = ("after", "before")
TOKEN_RULES = ("share", "threshold")
EXIT_MODES = ("two-stage", "joint")
POOLINGS = ("mean", "cls")
HEAD_POOLINGS = ("auto", *POOLINGS)

LR_ENCODER = 5e-5
LR_HEAD_ONLY = 1e-3  # a head or a ramp alone barely moves at an encoder's learning rate
LR_LOTTERY = 2e-5
MAX_DROP = 0.01
SPARSITY_STEP = 10
"""Percent of the weights that each round of a search for lottery tickets removes."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _RowsShare(Parsed):
    """A share of rows above 0; as a number with a decimal point, 1.0 is all of them."""

    def _read(self, value: Any) -> Any:
        return value if isinstance(value, float) and 0 < value <= 1 else super()._read(value)


def parse_rows_share(text: str) -> float:
    """Parse ``0.1%`` or ``0.001`` as 0.001.

    Raises:
        UsageError: it is not a share above 0.
    """
    share = parse_share(text)
    if share == 0:
        raise UsageError(f"'{text}': expected more than 0.")
    return share


def rows_share_text(share: float) -> str:
    """Return 0.001 as ``0.1%``."""
    return f"{100 * share:.12g}%"


RowsShare = Annotated[
    float, _RowsShare(parse_rows_share, "SHARE", "a share of the rows, e.g. 0.01 or 1%", rows_share_text)
]
TicketKind = Annotated[str, OneOf("kind of ticket", TICKET_KINDS)]
LevelField = Annotated[
    Level, Parsed(Level.parse, "PERCENT", "a level, e.g. 40 or 20/10", lambda level: level.text)
]

TicketLevel = Annotated[
    Level,
    Parsed(
        parse_level_or_super, "PERCENT|super", "a level, e.g. 40 or 20/10, or super", lambda level: level.text
    ),
]


def trained_layers(regime: str) -> int | None:
    """Return how many of the last layers a regime trains besides the head; None: everything.

    Raises:
        UsageError: the regime is none of full, frozen, last-K.
    """
    if regime == "full":
        return None
    if regime == "frozen":
        return 0
    if match := re.fullmatch(r"last-([1-9][0-9]{0,4})", regime):
        return int(match.group(1))
    hint = nearest(regime, ("full", "frozen", "last-2"))
    raise UsageError(f"unknown regime '{regime}'.{hint} Known: full, frozen, last-K (e.g. last-2).")


def _regime(text: str) -> str:
    trained_layers(text)
    return text


def _expanded(levels: Any) -> Any:
    """Return levels with ``10,...,80`` written out."""
    parts = levels if isinstance(levels, list | tuple) else (levels,)
    words = [part for part in parts if isinstance(part, str)]
    if not any("," in word or word.strip() in ELLIPSES for word in words):
        return levels
    try:
        return parse_levels(",".join(part.text if isinstance(part, Level) else str(part) for part in parts))
    except UsageError as error:
        raise wrong(str(error)) from error


Levels = Annotated[tuple[LevelField, ...], BeforeValidator(_expanded), Field(min_length=1)]


def check_shares(shares: Sequence[float]) -> None:
    """Raise :class:`UsageError` for shares of tokens that no model takes: in (0, 1], never rising."""
    thousandths = [round(share, 3) for share in shares]
    if not all(0 < share <= 1 for share in thousandths):
        raise UsageError("token shares must be between 0.001 and 1.", settings="schedule")
    if any(after > before for before, after in zip(thousandths, thousandths[1:], strict=False)):
        raise UsageError(
            "token shares must not rise: a pruned token does not come back.", settings="schedule"
        )


_ALL_ROWS = "Default: all."
_AS_CHECKPOINT = "Default: as many as the checkpoint was trained on."


class TrainingSettings(Settings):
    """How weights are optimised: shared by everything that trains."""

    batch_size: Count = 32
    """Examples per step."""
    lr: Positive | None = None
    """Peak learning rate."""
    weight_decay: NotNegative = 0.01
    """Weight decay; biases and LayerNorm have none."""
    warmup: Share = 0.1
    """Share of the steps in which the learning rate rises; then it decays linearly to 0."""
    optimizer: Annotated[str, OneOf("optimizer", OPTIMIZERS)] = "adamw"
    """Optimizer."""
    precision: Annotated[str, OneOf("precision", PRECISIONS)] = "auto"
    """Arithmetic of matrix products; auto: bf16 where the processor has it, else fp32."""
    max_steps: Count | None = None
    """Stop after this many steps."""
    seed: Seed = 0
    """Random seed."""
    limit: Count | None = None
    """Maximum number of training rows; the same subset for every seed."""
    share: RowsShare | None = None
    """Share of the training rows, after the limit, that is drawn at random with the seed. With the same seed,
    a larger share contains the rows of a smaller one. Default: all."""

    def rows_of(self, rows: int) -> int:
        """Return the number of training rows of ``rows`` that limit and share leave.

        The share is rounded down, as in the published subsets (Liu et al. 2019, section 4.4).
        """
        limited = min(rows, self.limit or rows)
        return limited if self.share is None else math.floor(round(self.share * limited, 6))


class FinetuneSettings(Settings):
    """How a pretrained encoder is fine-tuned on a task."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_ENCODER:g}, or {LR_HEAD_ONLY:g} for the frozen regime.",
        "limit": _ALL_ROWS,
        "batch_size": "With torchrun: in each process.",
    }

    regime: Annotated[str, Parsed(_regime, "full|frozen|last-K", "full, frozen or last-K")] = "full"
    """What is trained: everything (full), the task head alone (frozen), or the head and the last K layers."""
    layers: Count | None = None
    """Layer reduction: keep K layers and drop the others before training. Default: all."""
    drop_layers: Annotated[str, OneOf("layer reduction", STRATEGIES)] | None = None
    """Which layers are dropped to keep K, as in Sajjad et al. 2020. top: the last ones; bottom: the first
    ones; odd-alternate, even-alternate: every second one, from the top; symmetric: those in the middle;
    contribution: those that change the representation of the first token the least, measured on training rows
    before training. Default: top."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """Maximum tokens per example, in training and in all engines of the checkpoint. Default: 128, or 384 for
    answers in a context."""
    epochs: Positive = 3.0
    """Passes over the training rows."""
    training: TrainingSettings = TrainingSettings()
    patience: Count | None = None
    """Early stopping: stop after this many epochs without a better score on a held-out tenth of the training
    rows, and keep the best weights."""
    head_dropout: Share | None = None
    """Dropout in the task head. Default: the model's."""
    head_pooling: Annotated[str, OneOf("pooling", HEAD_POOLINGS)] = "auto"
    """Input of the task head: the first token (cls), or the mean over all tokens except padding (mean). auto:
    an existing head keeps its pooling; for a new head, the pooling that the encoder was trained with if its
    folder has 1_Pooling/config.json, else cls."""
    quantization_aware: bool = False
    """Round weights and activations of the encoder during training as int8 engines do, so that the model
    learns to bear it. Use it where the int8 engine of a model loses too much."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.drop_layers is not None and self.layers is None:
            raise wrong(
                "drop_layers has no effect without layers: set layers to the number of layers to keep.",
                "drop_layers", "layers",
            )  # fmt: skip
        return self

    @property
    def layer_strategy(self) -> str | None:
        """Which layers are dropped; None: none."""
        return None if self.layers is None else self.drop_layers or TOP

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        default = LR_HEAD_ONLY if trained_layers(self.regime) == 0 else LR_ENCODER
        return self.training.lr or default


def steps_of(settings: FinetuneSettings, rows: int) -> int:
    """Return the optimizer steps of a fine-tuning on ``rows`` rows; the most, if it may stop early."""
    training = settings.training
    if training.max_steps:
        return training.max_steps
    rows = training.rows_of(rows)
    held_out = max(1, rows // 10) if settings.patience else 0  # as effx.train.rows.held_out
    return math.ceil(math.ceil((rows - held_out) / training.batch_size) * settings.epochs)


def parse_task_dropout(text: str) -> tuple[str, float]:
    """Parse ``TASK=P``: a task and the dropout in its head, a share.

    Raises:
        UsageError: the text is not of that form.
    """
    task, equals, share = (part.strip() for part in text.partition("="))
    if not equals or not task:
        raise UsageError(f"'{text}': expected TASK=P, e.g. cola=0.05.")
    value = parse_share(share)
    if not 0 <= value <= 1:
        raise UsageError(f"'{text}': expected a dropout from 0 to 1.")
    return task, value


TaskDropout = Annotated[
    tuple[str, float],
    Parsed(
        parse_task_dropout, "TASK=P", "a task and its dropout, e.g. cola=0.05",
        lambda value: f"{value[0]}={value[1]:g}",
    ),
]  # fmt: skip


def parse_task_limit(text: str) -> tuple[str, int]:
    """Parse ``TASK=N``: a task and its maximum number of training rows.

    Raises:
        UsageError: the text is not of that form.
    """
    task, equals, number = (part.strip() for part in text.partition("="))
    if not equals or not task or not number.isdecimal() or int(number) < 1:
        raise UsageError(f"'{text}': expected TASK=N, e.g. sst2=8000.")
    return task, int(number)


TaskLimit = Annotated[
    tuple[str, int],
    Parsed(
        parse_task_limit, "TASK=N", "a task and its maximum number of training rows, e.g. sst2=8000",
        lambda value: f"{value[0]}={value[1]}",
    ),
]  # fmt: skip


class MultitaskSettings(Settings):
    """How several tasks are trained with one encoder."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_ENCODER:g}.",
        "limit": f"It applies to each task. {_ALL_ROWS}",
        "batch_size": "A step uses rows of a single task.",
    }

    sharing: Annotated[str, OneOf("sharing", SHARINGS)] = "strict"
    """What a training step changes, if there are tickets. strict: only the weights of its task's ticket;
    published: as in the code of Liang et al. 2021, momentum and weight decay also change other weights; none:
    tickets cannot be given, and every step changes all weights."""
    mismatched: bool = False
    """Accept tickets that were trained with another learning rate or optimizer."""
    max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] = 128
    """Maximum tokens per example, in training and in all engines of the checkpoints."""
    epochs: Positive = 5.0
    """Passes over the training rows of all tasks."""
    training: TrainingSettings = TrainingSettings()
    patience: Count | None = None
    """Early stopping: stop after this many epochs without a better average score on a held-out tenth of every
    task's training rows, and keep the best weights."""
    head_dropout: Share | None = None
    """Dropout in the task heads. Default: the model's."""
    task_dropout: tuple[TaskDropout, ...] | None = None
    """Dropout in the heads of single tasks, instead of head_dropout, e.g. cola=0.05,mnli=0.3 as in MT-DNN."""
    task_limit: tuple[TaskLimit, ...] | None = None
    """Maximum training rows of single tasks, instead of limit, e.g. sst2=8000,qqp=20000."""
    head_pooling: Annotated[str, OneOf("pooling", HEAD_POOLINGS)] = "auto"
    """Input of the task heads: the first token (cls), or the mean over all tokens except padding (mean).
    auto: the pooling that the encoder was trained with if its folder has 1_Pooling/config.json, else cls."""

    @model_validator(mode="after")
    def _each_task_once(self) -> Self:
        for name, of_tasks in (("task_dropout", self.task_dropout), ("task_limit", self.task_limit)):
            tasks = [task for task, _ in of_tasks or ()]
            if double := next((task for task in tasks if tasks.count(task) > 1), None):
                word = name.removeprefix("task_")
                raise wrong(f"the {word} of task '{double}' is given twice: expected one.", name)
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or LR_ENCODER

    def training_of(self, task: str) -> TrainingSettings:
        """Return how the rows of a task are chosen."""
        limit = dict(self.task_limit or ()).get(task, self.training.limit)
        return self.training.replace(limit=limit)

    def dropout_of(self, task: str) -> float | None:
        """Return the dropout in the head of a task; None: the model's."""
        return dict(self.task_dropout or ()).get(task, self.head_dropout)


class PruningSettings(Settings):
    """How structures are scored, and which may be pruned."""

    importance: Annotated[str, OneOf("importance method", IMPORTANCE_METHODS)] = "taylor"
    """How heads, FFNs and neurons are scored. taylor: mean absolute gradient of the structure's mask; fisher:
    mean squared gradient; published: as in the code of Liang et al. 2021; magnitude: norm of the weights;
    random: random scores."""
    granularity: Annotated[str, OneOf("granularity", GRANULARITIES)] = "ffns"
    """What is pruned in addition to heads: complete FFNs, or FFN neurons. With neurons, level L prunes L % of
    the heads and of the FFN neurons, and F in H/F is the percentage of the FFN neurons."""
    min_heads: Annotated[int, Field(ge=0)] = 1
    """Minimum number of heads that remain in every layer."""


class TicketSettings(Settings):
    """One ticket: which structures are pruned, and how the rest is fine-tuned."""

    level: TicketLevel
    """Percentage of the heads to prune, e.g. 40; of heads and FFNs, e.g. 20/10; or, in a recipe that has a
    search in ``tickets``, super: the level that the search chooses."""
    kind: TicketKind = "winning"
    """Which structures to prune: least important (winning), random, most important (losing)."""
    rounds: Count = 1
    """Rounds in which the level is reached. 1: one shot, as in Liang et al. 2021. More: every round prunes an
    equal part, fine-tunes what remains from the pretrained weights, and scores it for the next round."""
    pruning: PruningSettings = PruningSettings()
    finetune: FinetuneSettings = FinetuneSettings()


class TicketSearchSettings(Settings):
    """A search for super tickets; ``seed`` is the first of ``seeds``."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": FinetuneSettings.NOTES["lr"],
        "limit": _ALL_ROWS,
        "seed": "A search uses this seed and the following ones.",
    }

    levels: Levels = parse_levels("10,...,80")
    """Percentages to prune. L: L % of the heads and 10/12 of L % of the FFNs, as in the paper; H/F, e.g.
    20/10: H % of the heads and F % of the FFNs."""
    seeds: Count = 5
    """Number of seeds."""
    kinds: Annotated[tuple[TicketKind, ...], Field(min_length=1)] = TICKET_KINDS
    """Which structures to prune: least important (winning), random, most important (losing)."""
    search: Annotated[str, OneOf("search", SEARCHES)] = "grid"
    """Which tickets are trained. grid: all of them to the end; halving: winning tickets only, most of which
    are stopped early. With eight levels and three seeds, halving takes about a third of the steps that the
    grid takes for full models and winning tickets."""
    selection: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of the validation rows on which the super ticket is chosen; its score is measured on the other
    validation rows."""
    keep: Annotated[str, OneOf("keep", KEPT_CHECKPOINTS)] = "all"
    """Which checkpoints remain on disk: all of them, those of the full models and of winning tickets
    (winning), or none. Scores are always kept, and the search can be resumed from them."""
    pruning: PruningSettings = PruningSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, words in (("kinds", self.kinds), ("levels", [level.text for level in self.levels])):
            if double := next((word for word in words if list(words).count(word) > 1), None):
                raise wrong(f"duplicate {name.removesuffix('s')} {double}.", name)
        if self.search == "halving" and "winning" not in self.kinds:
            raise wrong(
                "search halving trains winning tickets only: add winning to kinds.", "kinds", "search"
            )
        return self

    def ticket(self, level: Level, kind: str, seed: int) -> TicketSettings:
        """Return the settings of one ticket of the search."""
        given = {**self.pruning.given(), **self.finetune.given(), "seed": seed}
        return TicketSettings.of(level=level, kind=kind, **given)


MaskKind = Annotated[str, OneOf("kind of mask", MASK_KINDS)]
StartWeights = Annotated[str, OneOf("initial weights", START_WEIGHTS)]
Sparsity = Annotated[int, Field(ge=SPARSITY_STEP, le=100 - SPARSITY_STEP)]
_KIND_HELP = (
    "How masks are found. imp: iterative magnitude pruning; every round trains, sets the smallest weights to "
    "zero, and resets the others to the pretrained weights. random: weights drawn at random with the seed. "
    "one-shot: the smallest pretrained weights, without training. standard: as imp, but every round goes on "
    "from the trained weights of the round before."
)
_INIT_HELP = (
    "Weights that are fine-tuned under the mask. fresh: a randomly initialised encoder of the same config; "
    "shuffled: the pretrained encoder with the matrices of its layers in another order. Both are for masks "
    "that were found on the pretrained weights, by kind imp or in a file."
)


def rewind_refusal(step: int, steps: int) -> str | None:
    """Return why rounds of ``steps`` optimizer steps cannot be rewound to ``step``; None: they can."""
    return None if step < steps else f"rewind {step}: expected fewer than the {steps} steps of a round."


class MlmSettings(Settings):
    """How masks are found by masked language modelling; what is not given is as in the fine-tuning."""

    text: str | None = None
    """File with one passage per line, for masked language modelling."""
    mlm_steps: Count | None = None
    """Optimizer steps of each round of masked language modelling. Default: epochs and max_steps decide."""
    mlm_batch_size: Count | None = None
    """Passages or blocks per step of masked language modelling. Default: batch_size."""
    mlm_lr: Positive | None = None
    """Peak learning rate of masked language modelling. Default: lr."""
    mlm_max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """Maximum tokens of a passage, or tokens of every block, in masked language modelling. Default:
    max_length."""
    mlm_rows: Annotated[str, OneOf("form of rows", MLM_ROWS)] = "passages"
    """What masked language modelling trains on. passages: each passage alone, cut at the maximum length;
    blocks: the passages of text joined, and cut into blocks of exactly that length."""
    mlm_prune: Annotated[str, OneOf("time of pruning", MLM_PRUNE)] = "after"
    """When a round of masked language modelling prunes its 10 %. after: at its end, so that every mask was
    trained for; before: at its beginning, so that the mask of 10 % is that of the pretrained weights."""

    def changed(self) -> list[str]:
        """Return the names of the settings that are not the default."""
        defaults = MlmSettings().flat()
        return [name for name, value in self.flat().items() if value != defaults[name]]

    def rounds(self, finetune: FinetuneSettings) -> FinetuneSettings:
        """Return how the rounds train, given how tickets are fine-tuned."""
        values = {
            "max_steps": self.mlm_steps, "batch_size": self.mlm_batch_size, "lr": self.mlm_lr,
            "max_length": self.mlm_max_length,
        }  # fmt: skip
        return finetune.replace(**{name: value for name, value in values.items() if value is not None})


class MaskSearchSettings(Settings):
    """What the rounds of a search for masks train."""

    objective: Annotated[str, OneOf("objective", OBJECTIVES)] = "task"
    """Training objective of the rounds: the task, or masked language modelling (mlm). A mask found with mlm
    can be used for every task."""
    mlm: MlmSettings = MlmSettings()
    rewind: Count | None = None
    """Late rewinding, for kind imp: every round resets weights and optimizer to those after this many
    optimizer steps of the first fine-tuning, and trains the steps that remain. Default: every round starts
    from the pretrained weights."""
    mask: str | None = None
    """Fine-tune with an existing mask, e.g. masks/mlm70-s0.safetensors, instead of searching."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        changed = self.mlm.changed()
        if changed and (self.objective != "mlm" or self.mask):
            name = changed[0]
            raise wrong(f"{name} is used only with objective mlm and without a mask: set objective to mlm, "
                        f"or leave {name} out.", name, "objective")  # fmt: skip
        if self.rewind is not None and self.mask is not None:
            raise wrong("rewind is for a search: leave rewind or mask out.", "rewind", "mask")
        if self.rewind is not None and self.objective == "mlm":
            raise wrong("rewind: the first round has to fine-tune on the task: set objective to task.",
                        "rewind", "objective")  # fmt: skip
        return self


class LotterySettings(Settings):
    """One unstructured lottery ticket: a mask of the encoder's weights, and what is fine-tuned under it."""

    NOTES: ClassVar[Mapping[str, str]] = {"lr": f"Default: {LR_LOTTERY:g}.", "limit": _ALL_ROWS}

    sparsity: Sparsity = 70
    """Percentage of the encoder's weights set to zero, in rounds of 10 %."""
    kind: Annotated[MaskKind, Field(description=_KIND_HELP)] = "imp"
    init: Annotated[StartWeights, Field(description=_INIT_HELP)] = "pretrained"
    search: MaskSearchSettings = MaskSearchSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        search = self.search
        if self.sparsity % SPARSITY_STEP:
            raise wrong(
                f"sparsity {self.sparsity}: expected a multiple of {SPARSITY_STEP}, the percentage that each "
                "round removes.", "sparsity",
            )  # fmt: skip
        if search.objective == "mlm" and self.finetune.layers is not None:
            raise wrong("layers: masked language modelling trains all layers: leave layers out, or "
                        "set objective to task.",
                        "layers", "objective")  # fmt: skip
        if self.finetune.drop_layers == CONTRIBUTION:
            raise wrong("drop_layers contribution: masks are found before training rows are read: use "
                        "another strategy.", "drop_layers")  # fmt: skip
        if search.mask is not None and "sparsity" in self.model_fields_set:
            raise wrong("a mask decides the sparsity: leave sparsity or mask out.", "mask", "sparsity")
        if self.kind != "imp":
            self._check_kind()
        if search.rewind is not None:
            self._check_rewind(search.rewind)
        if self.init == "shuffled" and self.finetune.layers == 1:
            raise wrong("init shuffled: one layer has no other order: use two layers or more.",
                        "init", "layers")  # fmt: skip
        return self

    def _check_kind(self) -> None:
        """Refuse what another kind of mask than imp does not have."""
        kind, search = self.kind, self.search
        if search.mask is not None:
            raise wrong(f"kind {kind}: a mask is given: leave kind or mask out.", "kind", "mask")
        if search.objective == "mlm":
            raise wrong(f"kind {kind}: objective mlm is for kind imp: set kind to imp, or objective to task.",
                        "kind", "objective")  # fmt: skip
        if self.init != "pretrained":
            raise wrong(
                f"init {self.init} needs a mask that was found on the pretrained weights: set kind to imp, "
                f"not {kind}.", "init", "kind",
            )  # fmt: skip
        if search.rewind is not None:
            raise wrong(f"rewind: kind {kind} does not rewind: set kind to imp, or leave rewind out.",
                        "rewind", "kind")  # fmt: skip

    def _check_rewind(self, step: int) -> None:
        """Refuse what cannot be rewound to a step."""
        if self.init != "pretrained":
            raise wrong(
                f"rewind resets to trained weights, and init is {self.init}: leave rewind or init out.",
                "rewind", "init",
            )  # fmt: skip
        if self.finetune.patience is not None:
            raise wrong("rewind: every round trains all steps: leave patience or rewind out.",
                        "rewind", "patience")  # fmt: skip
        steps = self.finetune.training.max_steps
        if steps is not None and (reason := rewind_refusal(step, steps)):
            raise wrong(reason, "rewind", "max_steps")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.finetune.training.lr or LR_LOTTERY


class LotterySearchSettings(Settings):
    """Unstructured lottery tickets, compared with the full model; ``seed`` is the first of ``seeds``."""

    NOTES: ClassVar[Mapping[str, str]] = {
        **LotterySettings.NOTES,
        "seed": "A search uses this seed and the following ones.",
        "text": "Default: the task's training texts.",
        "mlm_rows": "Blocks need text.",
    }

    sparsity: Annotated[tuple[Sparsity, ...], Field(min_length=1)] = (70,)
    """Percentages of the encoder's weights set to zero, multiples of 10. imp and standard give the tickets of
    all rounds up to the largest."""
    kind: Annotated[tuple[MaskKind, ...], Field(min_length=1, description=_KIND_HELP)] = ("imp",)
    init: Annotated[tuple[StartWeights, ...], Field(min_length=1, description=_INIT_HELP)] = ("pretrained",)
    seeds: Count = 1
    """Number of seeds. Whether tickets match the full model needs two or more."""
    keep: Annotated[str, OneOf("keep", ("all", "none"))] = "all"
    """Checkpoints to keep. Masks, scores and the table always remain, and the same command resumes from
    them."""
    search: MaskSearchSettings = MaskSearchSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, words in (("sparsity", self.sparsity), ("kind", self.kind), ("init", self.init)):
            if double := next((word for word in words if words.count(word) > 1), None):
                raise wrong(f"duplicate {name} {double}.", name)
        if self.search.mask is not None and "sparsity" in self.model_fields_set:
            raise wrong("a mask decides the sparsity: leave sparsity or mask out.", "mask", "sparsity")
        if "imp" not in self.kind and (others := [init for init in self.init if init != "pretrained"]):
            raise wrong(
                f"init {others[0]} needs a mask that was found on the pretrained weights: add imp to kind.",
                "init", "kind",
            )  # fmt: skip
        if self.kind != ("imp",) and "pretrained" not in self.init:
            other = next(kind for kind in self.kind if kind != "imp")
            raise wrong(f"kind {other} is for the pretrained weights: add pretrained to init.",
                        "kind", "init")  # fmt: skip
        try:
            for kind, init in self.pairs:
                for percent in self.sparsity:
                    self.ticket(kind, init, percent, self.finetune.training.seed)
        except UsageError as error:
            raise wrong(str(error), *error.settings) from error
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every kind of mask with the weights that it is applied to."""
        return [
            (kind, init) for kind in self.kind for init in self.init if kind == "imp" or init == "pretrained"
        ]

    @property
    def every_seed(self) -> range:
        """The seeds of the search."""
        first = self.finetune.training.seed
        return range(first, first + self.seeds)

    def ticket(self, kind: str, init: str, percent: int, seed: int) -> LotterySettings:
        """Return the settings of one ticket."""
        sparsity = {} if self.search.mask is not None else {"sparsity": percent}
        given = {**self.search.given(), **self.finetune.given(), "seed": seed}
        return LotterySettings.of(kind=kind, init=init, **sparsity, **given)


class AdaptationSettings(Settings):
    """Fine-tuning of several models on the same small shares of a task's rows; ``seed`` is the first of
    ``draws``.
    """

    NOTES: ClassVar[Mapping[str, str]] = {
        **FinetuneSettings.NOTES,
        "seed": "Draws use this seed and the following ones.",
    }

    shares: Annotated[tuple[RowsShare, ...], Field(min_length=1)] = (0.001, 0.01, 0.1, 1.0)
    """Shares of the training rows to train on, e.g. 0.1%,1%,10%,100%. Numbers of rows are rounded down."""
    draws: Count = 5
    """Number of draws for each share: the seed of a draw decides the rows, the new task head and the order of
    training. All models have the same draws, and the rows of a smaller share are among those of a larger
    one."""
    keep: Annotated[str, OneOf("keep", ("all", "none"))] = "none"
    """Checkpoints to keep. Records and scores always remain, and the same command resumes from them."""
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if double := next((share for share in self.shares if self.shares.count(share) > 1), None):
            raise wrong(f"duplicate share {rows_share_text(double)}.", "shares")
        if self.finetune.training.share is not None:
            raise wrong("shares sets the shares: leave share out.", "share", "shares")
        return self

    def run(self, share: float, seed: int) -> FinetuneSettings:
        """Return the settings of one fine-tuning."""
        return self.finetune.replace(share=share, seed=seed)

    @property
    def seeds(self) -> range:
        """The seeds of the draws."""
        first = self.finetune.training.seed
        return range(first, first + self.draws)


class TokenPruningSettings(Settings):
    """How tokens are pruned."""

    NOTES: ClassVar[Mapping[str, str]] = {"lr": f"Default: {LR_ENCODER:g}.", "limit": _AS_CHECKPOINT}

    rule: Annotated[str, OneOf("token rule", TOKEN_RULES)] = "share"
    """Which tokens a layer keeps: a fixed share of them (share), or those that receive at least a certain
    attention (threshold)."""
    schedule: Annotated[tuple[Share, ...], Field(min_length=1)] | None = None
    """One number per layer: the share of a row's tokens, or with rule threshold the attention that a token
    must receive. Default: learned."""
    keep: Annotated[float, Field(gt=0, le=1)] | None = None
    """Scale the learned schedule so that layers keep this share of the tokens on average. Default: do not
    scale it."""
    max_drop: Share | None = None
    """Scale the learned schedule so that the task's metric loses at most this much compared with all tokens,
    proven on held-out rows."""
    confidence: Confidence = 0.95
    """Confidence of the proof that the loss is at most max_drop (one-sided)."""
    penalty: NotNegative = 0.3
    """Weight of the penalty on remaining tokens while the schedule is learned; a higher one keeps fewer
    tokens."""
    soft_epochs: Positive = 1.0
    """Epochs in which the schedule is learned."""
    epochs: NotNegative = 2.0
    """Epochs of training with the learned schedule applied; 0: do not train the weights any further."""
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.schedule is not None and self.keep is not None:
            raise wrong("schedule and keep exclude each other: a given schedule is not scaled.",
                        "schedule", "keep")  # fmt: skip
        if self.max_drop is not None and (self.schedule is not None or self.keep is not None):
            raise wrong("max_drop scales the learned schedule: leave schedule and keep out.",
                        "max_drop", "schedule", "keep")  # fmt: skip
        if self.schedule is not None and self.rule == "share":
            try:
                check_shares(self.schedule)
            except UsageError as error:
                raise wrong(str(error), *error.settings) from error
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or LR_ENCODER


class EarlyExitSettings(Settings):
    """How early exits are trained and calibrated."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "lr": f"Default: {LR_HEAD_ONLY:g} in mode two-stage, {LR_ENCODER:g} in mode joint.",
        "limit": _AS_CHECKPOINT,
    }

    mode: Annotated[str, OneOf("mode", EXIT_MODES)] = "two-stage"
    """What is trained: the ramps only (two-stage), or the whole model (joint)."""
    after: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Layers after which there is a ramp, counted from 1 in the unreduced model. Default: all but the
    last."""
    pooling: Annotated[str, OneOf("pooling", POOLINGS)] = "mean"
    """Input of a ramp: the mean over all tokens except padding, or the first token (cls)."""
    rule: Annotated[str, OneOf("exit rule", tuple(exit_rules.RULES))] = "entropy"
    """When a row exits. entropy: the entropy of the prediction is below the threshold; max-probability: the
    highest probability is above the threshold; patience: several consecutive ramps predict the same class;
    consecutive-entropy: several consecutive ramps have an entropy below the threshold."""
    depth: Positive | None = None
    """Calibrate the threshold so that a row runs through at most this many layers on average. Excludes
    max_drop."""
    max_drop: NotNegative | None = None
    """Calibrate the threshold so that the task's metric loses at most this much compared with no exits,
    proven on held-out rows. Default: 0.01, unless depth is set."""
    confidence: Confidence = 0.95
    """Confidence of the proof that the loss is at most max_drop (one-sided)."""
    epochs: Positive = 3.0
    """Passes over the training rows."""
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.depth is not None and self.max_drop is not None:
            raise wrong("depth and max_drop exclude each other: one of them chooses the threshold.",
                        "depth", "max_drop")  # fmt: skip
        return self

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.training.lr or (LR_HEAD_ONLY if self.mode == "two-stage" else LR_ENCODER)
