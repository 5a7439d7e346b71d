"""Settings of training, without PyTorch: the command line and recipes read them too.

    TrainingSettings        the optimizer and its data, whatever is trained
    FinetuneSettings        a pretrained encoder on a task

    tickets.py              PruningSettings, TicketSettings, TicketSearchSettings
    lottery.py              MlmSettings, MaskSearchSettings, LotterySettings, LotterySearchSettings
    transfer.py             TransferSettings: masks and tickets of one task on others
    multitask.py            MultitaskSettings: several tasks with one encoder
    adaptation.py           AdaptationSettings: several models on few rows of a task
    tokens.py, exits.py     TokenPruningSettings, EarlyExitSettings

Each choice is a tuple of names in these modules; the code that trains has a function for each name, and a
test compares the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from effx.errors import UsageError, nearest
from effx.specs import variants
from effx.specs.layer_reduction import STRATEGIES, TOP
from effx.specs.quantities import parse_share
from effx.specs.settings import OneOf, Parsed, Seed, Settings, wrong

OPTIMIZERS = ("adamw", "adamax")
PRECISIONS = ("auto", "fp32", "bf16")
POOLINGS = ("mean", "cls")
HEAD_POOLINGS = ("auto", *POOLINGS)

LR_ENCODER = 5e-5
LR_HEAD_ONLY = 1e-3  # a head or a ramp alone barely moves at an encoder's learning rate
MAX_DROP = 0.01
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


ALL_ROWS = "Default: all."
AS_CHECKPOINT = "Default: as many as the checkpoint was trained on."


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
        "limit": ALL_ROWS,
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


def unknown_steps(task: str, *, one_sequence_per_row: bool) -> str | None:
    """Return why the steps of a fine-tuning cannot be counted before its rows are encoded; None: they can.

    Halving and rewinding need it. A step has ``batch_size`` sequences, and a row may have several.
    """
    if one_sequence_per_row:
        return None
    return (
        f"halving and rewinding need max_steps for task {task}: its rows have several windows or candidates, "
        "which are not counted before training."
    )


def steps_of(settings: FinetuneSettings, rows: int) -> int:
    """Return the optimizer steps of a fine-tuning on ``rows`` rows; the most, if it may stop early.

    Rows are taken for single sequences; of others :func:`unknown_steps` says that they are not.
    """
    training = settings.training
    if training.max_steps:
        return training.max_steps
    rows = training.rows_of(rows)
    held_out = max(1, rows // 10) if settings.patience else 0  # as effx.train.rows.held_out
    return math.ceil(math.ceil((rows - held_out) / training.batch_size) * settings.epochs)
